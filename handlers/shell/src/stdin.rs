//! What goes to a command: its standard input, and what is said beside it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use plugd_core::wire::CHANNEL_MAIN;
use plugd_core::{Data, Input, Status};
use rustix::process::Signal;
use serde::Deserialize;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use crate::process::Wake;
use crate::pty::{END_OF_INPUT, Pty};

/// The side channel for what is no standard input: one JSON object a message.
pub(crate) const CHANNEL_CONTROL: u8 = 1;

/// How much input may wait for a command that does not read, so that what is said beside it still comes through, in bytes.
const PENDING_LEN_MAX: usize = 256 << 10;

/// The longest message beside the input, in bytes: it holds a few numbers or a name.
const CONTROL_LEN_MAX: usize = 1024;

/// The signals that callers may send.
const SIGNALS: [(&str, Signal); 10] = [
    ("INT", Signal::INT),
    ("TERM", Signal::TERM),
    ("QUIT", Signal::QUIT),
    ("HUP", Signal::HUP),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("KILL", Signal::KILL),
    ("STOP", Signal::STOP),
    ("TSTP", Signal::TSTP),
    ("CONT", Signal::CONT),
];

/// Reads the name of a signal, with or without `SIG`.
///
/// # Errors
///
/// `invalid_argument`, which lists the names.
pub(crate) fn signal_named(name: &str) -> Result<Signal, Status> {
    let short = name.strip_prefix("SIG").unwrap_or(name);
    SIGNALS.iter().find(|(known, _)| *known == short).map(|(_, signal)| *signal).ok_or_else(|| {
        let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
        Status::invalid_argument("bad-signal", format!("no signal {name:?}; allowed: {}", names.join(", ")))
    })
}

/// Where input comes from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// From the caller.
    Call(&'a mut Input),
    /// From whoever attaches to a job.
    Job(&'a mut mpsc::Receiver<Option<Data>>),
}

impl Source<'_> {
    /// Receives the next piece, or `None` at the end of input. Nothing is lost when the future is dropped.
    async fn recv(&mut self) -> Result<Option<Data>, Status> {
        match self {
            Source::Call(input) => input.recv_data().await,
            // A job stays open to the next who attaches until one of them ends the input.
            Source::Job(receiver) => match receiver.recv().await {
                Some(data) => Ok(data),
                None => std::future::pending().await,
            },
        }
    }
}

/// The way into a command's standard input.
#[derive(Debug)]
pub(crate) enum Inlet {
    /// A pipe.
    Pipe(pipe::Sender),
    /// A terminal.
    Pty(Arc<Pty>),
}

impl Inlet {
    /// Writes some of `bytes`. Nothing is lost when the future is dropped.
    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Inlet::Pty(pty) => pty.write(bytes).await,
            Inlet::Pipe(pipe) => loop {
                pipe.writable().await?;
                match pipe.try_write(bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => return written,
                }
            },
        }
    }
}

/// What is said beside the input.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Control {
    Resize { rows: u16, cols: u16 },
    Signal(String),
}

/// Whom it is said to.
#[derive(Debug)]
pub(crate) struct Controlled {
    pub(crate) wake: Wake,
    pub(crate) pty: Option<Arc<Pty>>,
}

impl Controlled {
    fn obey(&self, message: &[u8]) -> Result<(), Status> {
        let control: Control = serde_json::from_slice(message).map_err(|error| {
            let allowed = r#"allowed: {"resize":{"rows":R,"cols":C}}, {"signal":"NAME"}"#;
            Status::invalid_argument("bad-control", format!("no message that is known here: {error}; {allowed}"))
        })?;
        match (control, &self.pty) {
            (Control::Resize { rows, cols }, Some(pty)) => {
                let _ = pty.resize(rows, cols);
            }
            (Control::Resize { .. }, None) => {
                let message = "a command without a terminal has no size";
                return Err(Status::failed_precondition("no-pty", message));
            }
            (Control::Signal(name), pty) => {
                let signal = signal_named(&name)?;
                if !pty.as_ref().is_some_and(|pty| pty.signal(signal)) {
                    self.wake.signal(signal);
                }
            }
        }
        Ok(())
    }
}

/// Gives the input to the command and closes its standard input behind it.
///
/// A command need not read to the end: what it does not take is dropped.
///
/// # Errors
///
/// What receiving fails with; `invalid_argument` for a message that nobody understands.
pub(crate) async fn feed(mut source: Source<'_>, inlet: Option<Inlet>, controlled: &Controlled) -> Result<(), Status> {
    let mut inlet = inlet;
    let mut pending: VecDeque<Bytes> = VecDeque::new();
    let mut pending_len = 0;
    let mut control = Vec::new();
    let mut has_ended = false;
    loop {
        if has_ended && pending.is_empty() {
            inlet = None;
            if matches!(source, Source::Call(_)) {
                return Ok(());
            }
            // Who attaches to a job after the end of its input may still say something beside it.
            has_ended = false;
        }
        let received = tokio::select! {
            written = write_first(inlet.as_ref(), &pending), if !pending.is_empty() => {
                match written {
                    Ok(len) => {
                        pending_len -= len;
                        advance(&mut pending, len);
                    }
                    Err(_) => {
                        (inlet, pending_len) = (None, 0);
                        pending.clear();
                    }
                }
                continue;
            }
            received = source.recv(), if !has_ended && pending_len < PENDING_LEN_MAX => received?,
        };
        match received {
            None => {
                has_ended = true;
                if matches!(inlet, Some(Inlet::Pty(_))) {
                    pending.push_back(Bytes::from_static(&[END_OF_INPUT]));
                    pending_len += 1;
                }
            }
            Some(data) if data.channel == CHANNEL_MAIN => {
                if inlet.is_some() && !data.payload.is_empty() {
                    pending_len += data.payload.len();
                    pending.push_back(data.payload);
                }
            }
            Some(data) if data.channel == CHANNEL_CONTROL => {
                control.extend_from_slice(&data.payload);
                if control.len() > CONTROL_LEN_MAX {
                    let text = format!("control message of more than {CONTROL_LEN_MAX} bytes");
                    return Err(Status::invalid_argument("bad-control", text));
                }
                if !data.more {
                    controlled.obey(&control)?;
                    control.clear();
                }
            }
            Some(data) => {
                let text = format!(
                    "data on channel {}; this operation takes channels {CHANNEL_MAIN} and {CHANNEL_CONTROL}",
                    data.channel
                );
                return Err(Status::invalid_argument("unexpected-channel", text));
            }
        }
    }
}

async fn write_first(inlet: Option<&Inlet>, pending: &VecDeque<Bytes>) -> io::Result<usize> {
    match (inlet, pending.front()) {
        (Some(inlet), Some(first)) => inlet.write(first).await,
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

fn advance(pending: &mut VecDeque<Bytes>, len: usize) {
    if let Some(first) = pending.front_mut() {
        first.advance(len);
        if first.is_empty() {
            pending.pop_front();
        }
    }
}
