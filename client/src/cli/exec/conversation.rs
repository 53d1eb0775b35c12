//! Talks with a command: input, output and signals at the same time.

use std::cell::Cell;
use std::future::pending;
use std::pin::pin;

use plugd_core::Origin;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::show::Show;
use crate::cli::failure::Failure;
use crate::cli::signals::Signals;
use crate::cli::stream::Source;
use crate::cli::terminal::{self, Keys};
use crate::{Exchange, Receiver, Reply, Sender, Status};

/// The side channel for what is no standard input: one JSON object a message.
const CHANNEL_CONTROL: u8 = 1;

/// How many control messages may wait for input that is stuck; a size that is not told is told with the next one.
const CONTROL_QUEUE_LEN: usize = 64;

/// What a call is given.
#[derive(Debug)]
pub(crate) enum Input {
    /// No input at all.
    Nothing,
    /// Neither input nor its end.
    Silence,
    /// What comes, as it comes.
    Stream(Source),
    /// What is typed, but for the keys that mean this side.
    Keys(Source),
    /// One message.
    Text(String),
    /// One message, read from a file.
    Whole(Source),
}

impl Input {
    /// Whether anything beside the input can be said for as long as the input lasts.
    fn can_control(&self) -> bool {
        matches!(self, Input::Silence | Input::Stream(_) | Input::Keys(_))
    }
}

/// Runs a call to its end, or to the reason for giving it up.
///
/// The first SIGINT or SIGTERM goes to the command where it can be told, and the second ends the wait. Where keys
/// are typed, they do that, and a signal means this side.
pub(crate) async fn converse(
    call: &mut Exchange<'_>,
    input: Input,
    show: &mut Show<'_>,
    signals: &mut Signals,
) -> Result<Reply, Failure> {
    let (tell, told) = mpsc::channel(CONTROL_QUEUE_LEN);
    let is_listening = Cell::new(false);
    let can_control = input.can_control();
    let heed = Heed { tell, is_listening: &is_listening, has_keys: matches!(input, Input::Keys(_)) };
    let (sender, receiver) = call.split();
    let mut send = pin!(send(sender, input, told));
    let mut receive = pin!(receive(receiver, show, || is_listening.set(can_control)));
    let mut heed = pin!(heed.run(signals));
    let mut is_sending = true;
    loop {
        tokio::select! {
            received = &mut receive => return received,
            failure = &mut heed => return Err(failure),
            sent = &mut send, if is_sending => {
                is_sending = false;
                is_listening.set(false);
                match sent {
                    // What is wrong with the connection, the receiving side tells better: it may have the call's end.
                    Ok(()) | Err(Failure::Client(_)) => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
    }
}

async fn receive(receiver: &mut Receiver, show: &mut Show<'_>, started: impl Fn()) -> Result<Reply, Failure> {
    let head = receiver.head().await?.cloned();
    if head.is_some() {
        started();
    }
    show.start(head.as_ref()).await?;
    let copied = async {
        while let Some(data) = receiver.recv().await? {
            show.data(data).await?;
        }
        Ok::<_, Failure>(receiver.end().await?)
    };
    let end = copied.await;
    // What came before a connection was lost has come all the same.
    show.finish().await?;
    let end = end?;
    Ok(Reply { head, ..show.take_collected() }.ended(end))
}

async fn send(sender: &mut Sender, input: Input, told: mpsc::Receiver<Value>) -> Result<(), Failure> {
    match input {
        Input::Nothing => Ok(sender.finish().await?),
        Input::Silence => stream(sender, None, None, told).await,
        Input::Stream(source) => stream(sender, Some(source), None, told).await,
        Input::Keys(source) => stream(sender, Some(source), Some(Keys::new()), told).await,
        Input::Text(text) => {
            sender.send(text).await?;
            Ok(sender.finish().await?)
        }
        Input::Whole(source) => source.send_whole(sender).await,
    }
}

async fn stream(
    sender: &mut Sender,
    mut source: Option<Source>,
    mut keys: Option<Keys>,
    mut told: mpsc::Receiver<Value>,
) -> Result<(), Failure> {
    sender.flush().await?;
    loop {
        let chunk = tokio::select! {
            biased;
            Some(message) = told.recv() => {
                sender.send_on(CHANNEL_CONTROL, message.to_string()).await?;
                continue;
            }
            chunk = next(&mut source) => chunk?,
        };
        let Some(chunk) = chunk else {
            return Ok(sender.finish().await?);
        };
        match &mut keys {
            None => sender.send(chunk).await?,
            Some(keys) => {
                let typed = keys.typed(&chunk);
                if !typed.bytes.is_empty() {
                    sender.send(typed.bytes).await?;
                }
                if typed.leaves {
                    let status = Status::cancelled("left", "left by ~.").with_origin(Origin::Caller);
                    return Err(Failure::found(status));
                }
            }
        }
    }
}

async fn next(source: &mut Option<Source>) -> Result<Option<bytes::Bytes>, Failure> {
    match source {
        Some(source) => source.read().await,
        None => pending().await,
    }
}

/// Passes on what happens to this program.
struct Heed<'c> {
    tell: mpsc::Sender<Value>,
    /// Whether the command runs and can still be told something.
    is_listening: &'c Cell<bool>,
    has_keys: bool,
}

impl Heed<'_> {
    /// Returns when a signal means this side.
    async fn run(self, signals: &mut Signals) -> Failure {
        let mut sizes = match self.has_keys.then(|| signal(SignalKind::window_change())).transpose() {
            Ok(sizes) => sizes,
            Err(error) => return Failure::io("cannot listen for the terminal's size", error),
        };
        let mut has_told = false;
        loop {
            tokio::select! {
                number = signals.next() => {
                    if has_told || self.has_keys || !self.pass_on(number) {
                        return Failure::Signal(number);
                    }
                    has_told = true;
                }
                () = changed(&mut sizes) => {
                    if self.is_listening.get() && let Some(size) = terminal::size() {
                        let _ = self.tell.try_send(json!({ "resize": size }));
                    }
                }
            }
        }
    }

    fn pass_on(&self, number: u8) -> bool {
        let name = match SignalKind::from_raw(number.into()) {
            kind if kind == SignalKind::interrupt() => "INT",
            kind if kind == SignalKind::terminate() => "TERM",
            // The terminal has gone, and with it whoever waits for the command.
            _ => return false,
        };
        self.is_listening.get() && self.tell.try_send(json!({ "signal": name })).is_ok()
    }
}

async fn changed(sizes: &mut Option<Signal>) {
    match sizes {
        Some(sizes) => drop(sizes.recv().await),
        None => pending().await,
    }
}
