//! The plugin that serves the files: its calls, on connections that are made when they are needed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plugd_core::wire::CHANNEL_MAIN;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::facts::{Entry, Facts};
use super::leftovers::Leftovers;
use super::name::Name;
use super::options::SortKey;
use super::progress::Progress;
use super::retry::Retries;
use crate::cli::failure::Failure;
use crate::cli::server::Server;
use crate::cli::session::Session;
use crate::{Client, Connector, Open, REPLY_LEN_MAX, Receiver, Recorder, Reply, Sender, ServerAddress};

/// The longest line of a listing, in bytes: two paths of 4096 bytes in hex, with room.
const LINE_LEN_MAX: usize = 64 << 10;

/// The longest piece of a file that is asked for, in bytes: what a cut costs, and what a processor's cache holds.
const DATA_LEN_MAX: u32 = 256 << 10;

/// How the verbs for files reach a server.
pub(crate) fn connector(server: &Server) -> Connector {
    server.connector.clone().data_len_max(DATA_LEN_MAX)
}

/// Connects for the verbs for files.
pub(crate) async fn connect(connector: &Connector, recorder: Option<&Recorder>) -> Result<Client, Failure> {
    let mut client = connector.connect().await?;
    if let Some(recorder) = recorder {
        client.record(recorder);
    }
    Ok(client)
}

/// The plugin that serves the files.
#[derive(Debug)]
pub(crate) struct Remote {
    connector: Connector,
    recorder: Option<Recorder>,
    plugin: String,
    until: Option<Instant>,
    /// A connection that runs no call.
    spare: RefCell<Option<Client>>,
    pub(crate) leftovers: Leftovers,
}

/// The arguments of `ls`.
#[derive(Debug, Serialize, Default)]
pub(crate) struct LsArgs<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<&'a Name>,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) recursive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) glob: Option<&'a str>,
    pub(crate) sort: SortKey,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) reverse: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
}

/// The arguments of an operation on one path.
#[derive(Debug, Serialize)]
pub(crate) struct PathArgs<'a> {
    pub(crate) path: &'a Name,
}

pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

impl Remote {
    /// The plugin that `operation` is asked of, found with as many tries as a transfer has.
    pub(crate) async fn of(
        session: &mut Session<'_>,
        operation: &str,
        retry: u32,
        progress: &Progress,
    ) -> Result<Remote, Failure> {
        let mut retries = Retries::new(retry);
        let plugin = loop {
            let asked = async {
                session.reconnect_if_closed().await?;
                session.plugin_with(operation).await
            };
            match asked.await {
                Ok(plugin) => break plugin,
                Err(failure) => retries.pause(failure, progress).await?,
            }
        };
        Ok(Remote {
            connector: connector(session.server()),
            recorder: session.options().recorder.clone(),
            plugin,
            until: session.until(),
            leftovers: session.leftovers(),
            spare: RefCell::new(session.take_client()),
        })
    }

    pub(crate) fn server(&self) -> &ServerAddress {
        self.connector.address()
    }

    pub(crate) fn plugin(&self) -> &str {
        &self.plugin
    }

    /// A connection that runs no call.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let spare = self.spare.borrow_mut().take();
        match spare.filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => connect(&self.connector, self.recorder.as_ref()).await,
        }
    }

    /// Keeps a connection that runs no call any more.
    pub(crate) fn keep(&self, client: Client) {
        if !client.is_closed() {
            *self.spare.borrow_mut() = Some(client);
        }
    }

    /// The opening header of a call.
    pub(crate) fn open(&self, operation: &str, args: &impl Serialize) -> Open<'static> {
        let mut open = Open::new(format!("{}.{operation}", self.plugin));
        open.args = Some(serde_json::value::to_raw_value(args).expect("names and numbers always serialise"));
        open.deadline_ms = self.until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up, so that the server speaks of the time that was asked for; none at all is no deadline.
            left.max(Duration::from_millis(1)).as_nanos().div_ceil(1_000_000) as u64
        });
        open
    }

    /// Makes a call without input, and holds its answer.
    pub(crate) async fn call(&self, operation: &str, args: &impl Serialize) -> Result<Reply, Failure> {
        let mut client = self.client().await?;
        let mut exchange = client.open(&self.open(operation, args)).await?;
        // When sending fails, receiving tells why.
        let _ = exchange.finish().await;
        let reply = exchange.split().1.reply(REPLY_LEN_MAX).await?;
        self.keep(client);
        if reply.status.is_ok() { Ok(reply) } else { Err(Failure::Status(Box::new(reply))) }
    }

    /// Makes a call that changes nothing, and makes it again when the connection is lost.
    pub(crate) async fn ask(
        &self,
        operation: &str,
        args: &impl Serialize,
        retry: u32,
        progress: &Progress,
    ) -> Result<Reply, Failure> {
        let mut retries = Retries::new(retry);
        loop {
            match self.call(operation, args).await {
                Err(failure) => retries.pause(failure, progress).await?,
                answered => return answered,
            }
        }
    }

    /// What is known about a path; `None` when nothing has it.
    pub(crate) async fn facts(&self, path: &Name, retry: u32, progress: &Progress) -> Result<Option<Facts>, Failure> {
        match self.ask("stat", &PathArgs { path }, retry, progress).await {
            Ok(reply) => Ok(Some(parse(&reply.bytes(), "stat")?)),
            Err(failure) if is_missing(&failure) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Begins to list a directory.
    pub(crate) async fn list(&self, args: &LsArgs<'_>) -> Result<Lines, Failure> {
        let (mut sender, receiver) = self.client().await?.into_halves();
        // When sending fails, receiving tells why.
        let _ = sender.send_ahead(&self.open("ls", args), Bytes::new()).await;
        let _ = sender.flush().await;
        Ok(Lines { sender, receiver, lines: VecDeque::new(), rest: BytesMut::new() })
    }
}

/// Whether the server says that nothing has the path.
pub(crate) fn is_missing(failure: &Failure) -> bool {
    has_reason(failure, &["no-such-file", "no-such-directory"])
}

/// Whether the call ended with one of these reasons.
pub(crate) fn has_reason(failure: &Failure, reasons: &[&str]) -> bool {
    matches!(failure, Failure::Status(reply) if reasons.contains(&reply.status.reason()))
}

/// Reads an answer, or a line of one.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], operation: &str) -> Result<T, Failure> {
    let parsed = serde_json::from_slice(bytes);
    parsed.map_err(|error| Failure::protocol(format!("answer of {operation} is malformed: {error}")))
}

/// Reads a header or a trailer.
pub(crate) fn parse_object<T: DeserializeOwned>(object: Option<Map<String, Value>>, whose: &str) -> Result<T, Failure> {
    let Some(object) = object else {
        return Err(Failure::protocol(format!("{whose} is missing")));
    };
    let parsed = serde_json::from_value(Value::Object(object));
    parsed.map_err(|error| Failure::protocol(format!("{whose} is malformed: {error}")))
}

/// A listing as it comes. Memory holds one message of the server.
#[derive(Debug)]
pub(crate) struct Lines {
    /// Kept open: a server takes a closed direction for a caller that has gone.
    sender: Sender,
    receiver: Receiver,
    lines: VecDeque<Bytes>,
    rest: BytesMut,
}

impl Lines {
    /// The next line, or `None` at the listing's good end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Some(line));
            }
            let Some(data) = self.receiver.recv().await? else { break };
            if data.channel == CHANNEL_MAIN {
                self.cut(&data.payload)?;
            }
        }
        let reply = Reply::default().ended(self.receiver.end().await?);
        if !reply.status.is_ok() {
            return Err(Failure::Status(Box::new(reply)));
        }
        if !self.rest.is_empty() {
            return Err(Failure::protocol("answer of ls ends within a line"));
        }
        Ok(None)
    }

    /// The next entry, or `None` at the listing's good end.
    pub(crate) async fn entry(&mut self) -> Result<Option<Entry>, Failure> {
        self.next().await?.map(|line| parse(&line, "ls")).transpose()
    }

    /// The connection, once the listing has ended.
    pub(crate) fn into_client(self) -> Client {
        Client::from_halves(self.sender, self.receiver)
    }

    fn cut(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.rest.extend_from_slice(payload);
        while let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(at + 1).freeze();
            self.lines.push_back(line.slice(..at));
        }
        match self.rest.len() {
            0..=LINE_LEN_MAX => Ok(()),
            _ => Err(Failure::protocol(format!("line of ls too long; allowed: {LINE_LEN_MAX} bytes"))),
        }
    }
}
