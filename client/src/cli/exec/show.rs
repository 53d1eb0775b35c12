//! Where the output of a call goes, in the form that was asked for.

use std::collections::BTreeMap;

use plugd_core::wire::CHANNEL_MAIN;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::decode::{Asked, Text};
use super::ending::Ending;
use crate::cli::envelope::{Envelope, Payload};
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::{ClientError, Data, REPLY_LEN_MAX, Reply};

/// The side channel of standard error.
const CHANNEL_STDERR: u8 = 1;

/// A line over this length is broken where it is to be shown behind the name of its server, in bytes: it has to be held.
const LINE_LEN_MAX: usize = 64 << 10;

/// How much output of one server is held until it has ended, in bytes, since that of many may be held at once.
const GROUP_LEN_MAX: usize = 16 << 20;

/// How output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it comes, stdout to stdout and the others to stderr.
    Plain,
    /// Collected, for the envelope of `--json`.
    Collected,
    /// One JSON object for each piece, in the order of arrival.
    Events,
    /// Whole lines, each behind the name of its server.
    Lines,
    /// All of a server together, under its name, when it has ended.
    Grouped,
}

/// The program's own streams, which many calls share.
#[derive(Debug)]
pub(crate) struct Streams {
    outputs: Mutex<Outputs>,
}

#[derive(Debug)]
struct Outputs {
    stdout: Output,
    stderr: Output,
    /// Whether something may be on its way to stdout.
    is_pending: bool,
}

impl Streams {
    pub(crate) fn open() -> Streams {
        let outputs = Outputs { stdout: Output::stdout(), stderr: Output::stderr(), is_pending: false };
        Streams { outputs: Mutex::new(outputs) }
    }

    /// Writes what came on a channel. What came before on the other stream is written before.
    async fn write(&self, channel: u8, bytes: &[u8]) -> Result<(), Failure> {
        let mut outputs = self.outputs.lock().await;
        if channel == CHANNEL_MAIN {
            outputs.is_pending = true;
            return outputs.stdout.write(bytes).await;
        }
        if std::mem::take(&mut outputs.is_pending) {
            outputs.stdout.flush().await?;
        }
        // Nobody hears that stderr is closed.
        let _ = outputs.stderr.print(bytes).await;
        Ok(())
    }

    async fn flush(&self) -> Result<(), Failure> {
        let mut outputs = self.outputs.lock().await;
        outputs.is_pending = false;
        outputs.stdout.flush().await
    }
}

/// Shows the output of one call.
#[derive(Debug)]
pub(crate) struct Show<'s> {
    streams: &'s Streams,
    form: Form,
    asked: Asked,
    /// The name of the server, before its lines and in its objects.
    server: String,
    is_one_of_several: bool,
    texts: BTreeMap<u8, Text>,
    /// What is held of each channel: the line that is not whole, or everything.
    held: BTreeMap<u8, Vec<u8>>,
    collected: Reply,
    collected_len: usize,
    seq: u64,
}

impl<'s> Show<'s> {
    pub(crate) fn new(streams: &'s Streams, form: Form, asked: Asked, server: String, is_one_of_several: bool) -> Self {
        Show {
            streams,
            form,
            asked,
            server,
            is_one_of_several,
            texts: BTreeMap::new(),
            held: BTreeMap::new(),
            collected: Reply::default(),
            collected_len: 0,
            seq: 0,
        }
    }

    /// Shows that the call has begun, and hears what encoding its output has.
    pub(crate) async fn start(&mut self, head: Option<&Map<String, Value>>) -> Result<(), Failure> {
        let declared = head.and_then(|head| head.get("encoding")).and_then(Value::as_str);
        if let Some(encoding) = self.asked.choose(declared) {
            self.texts = [CHANNEL_MAIN, CHANNEL_STDERR].map(|channel| (channel, Text::new(encoding))).into();
        }
        match self.form {
            Form::Events => self.event("start", json!({ "head": head })).await,
            _ => Ok(()),
        }
    }

    /// Shows a piece of output.
    pub(crate) async fn data(&mut self, data: Data) -> Result<(), Failure> {
        match self.texts.get_mut(&data.channel) {
            None => self.piece(data).await,
            Some(text) => {
                let payload = text.decode(&data.payload).into();
                self.piece(Data { payload, ..data }).await
            }
        }
    }

    /// Shows what is held back: characters and lines that are not whole, and what is shown all together. No data follows.
    pub(crate) async fn finish(&mut self) -> Result<(), Failure> {
        for (channel, mut text) in std::mem::take(&mut self.texts) {
            let rest = text.finish();
            if !rest.is_empty() {
                self.piece(Data { channel, ..Data::main(rest) }).await?;
            }
        }
        for (channel, mut bytes) in std::mem::take(&mut self.held) {
            if bytes.is_empty() {
                continue;
            }
            if bytes.last() != Some(&b'\n') {
                bytes.push(b'\n');
            }
            let heading = match self.form {
                Form::Grouped => format!("{}:\n", self.server),
                _ => format!("{}: ", self.server),
            };
            self.streams.write(channel, &[heading.as_bytes(), &bytes].concat()).await?;
        }
        self.streams.flush().await
    }

    /// What was collected, which is nothing in any other form.
    pub(crate) fn take_collected(&mut self) -> Reply {
        std::mem::take(&mut self.collected)
    }

    /// Shows how the call ended, to programs that asked for it.
    pub(crate) async fn end(&mut self, ending: &Ending, result: &Result<Reply, Failure>) -> Result<(), Failure> {
        self.finish().await?;
        match self.form {
            Form::Events => self.event("end", Value::Object(ending.object.clone())).await?,
            Form::Collected => {
                let envelope = match result {
                    Ok(reply) => Envelope::of_reply(reply, None),
                    Err(failure) => Envelope::of_failure(failure),
                };
                let server = self.is_one_of_several.then(|| self.server.clone());
                self.streams.write(CHANNEL_MAIN, &envelope.ended(ending.word, ending.exit, server).line()).await?;
            }
            _ => {}
        }
        self.streams.flush().await
    }

    async fn piece(&mut self, data: Data) -> Result<(), Failure> {
        match self.form {
            Form::Plain => self.streams.write(data.channel, &data.payload).await,
            Form::Events => {
                let mut event = json!(Payload::of(&data.payload));
                event["stream"] = match data.channel {
                    CHANNEL_MAIN => "stdout".into(),
                    CHANNEL_STDERR => "stderr".into(),
                    channel => format!("channel {channel}").into(),
                };
                self.event("output", event).await
            }
            Form::Lines => self.lines(data.channel, &data.payload).await,
            Form::Grouped => {
                self.held.entry(data.channel).or_default().extend_from_slice(&data.payload);
                within(self.held.values().map(Vec::len).sum(), GROUP_LEN_MAX)
            }
            Form::Collected => {
                // A message costs memory even when it is empty.
                self.collected_len += data.payload.len().max(size_of::<Data>());
                within(self.collected_len, REPLY_LEN_MAX)?;
                self.collected.add(data);
                Ok(())
            }
        }
    }

    /// Shows the lines that are whole, all in one write, so that no other server's come between.
    async fn lines(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Failure> {
        let held = self.held.entry(channel).or_default();
        let mut shown = Vec::with_capacity(bytes.len() + self.server.len() + 2);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            held.extend_from_slice(line);
            if line.ends_with(b"\n") || held.len() >= LINE_LEN_MAX {
                shown.extend_from_slice(self.server.as_bytes());
                shown.extend_from_slice(b": ");
                shown.append(held);
                if !shown.ends_with(b"\n") {
                    shown.push(b'\n');
                }
            }
        }
        match shown.is_empty() {
            true => Ok(()),
            false => self.streams.write(channel, &shown).await,
        }
    }

    async fn event(&mut self, name: &str, mut event: Value) -> Result<(), Failure> {
        event["event"] = name.into();
        event["server"] = self.server.clone().into();
        event["seq"] = self.seq.into();
        self.seq += 1;
        self.streams.write(CHANNEL_MAIN, format!("{event}\n").as_bytes()).await
    }
}

fn within(len: usize, allowed: usize) -> Result<(), Failure> {
    if len > allowed { Err(ClientError::ReplyTooLong { allowed }.into()) } else { Ok(()) }
}
