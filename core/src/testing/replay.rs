//! Runs recorded calls again, and shows what is different.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::plugin::Plugin;
use crate::Data;

/// A call as `plug --record` stores it: one JSON object a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recorded {
    /// What was called: `PLUGIN.OPERATION`, or `PLUGIN` where it has just one.
    pub command: String,
    /// The arguments; null means none.
    #[serde(default)]
    pub args: Option<Map<String, Value>>,
    /// What was said beside them.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The caller's data, in order.
    #[serde(default)]
    pub input: Vec<RecordedData>,
    /// The answer's header.
    #[serde(default)]
    pub head: Option<Value>,
    /// The data that came back, in order.
    #[serde(default)]
    pub output: Vec<RecordedData>,
    /// How the call ended.
    pub status: RecordedStatus,
    /// What was added to the end.
    #[serde(default)]
    pub trailer: Option<Map<String, Value>>,
}

/// A frame of data, or several of one message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedData {
    /// The channel.
    #[serde(default)]
    pub channel: u8,
    /// Whether the message goes on.
    #[serde(default)]
    pub more: bool,
    /// The bytes, in base64.
    pub data_b64: String,
}

/// A status, as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecordedStatus {
    /// The code's name.
    pub code: String,
    /// The reason.
    #[serde(default)]
    pub reason: String,
    /// The text for people, which is not compared.
    #[serde(default)]
    pub message: String,
}

/// Recorded calls that are to be made again.
#[derive(Debug)]
pub struct Replay {
    path: PathBuf,
    ignored: BTreeSet<String>,
}

/// Runs the calls of a file again: [`Replay::against`] makes them.
pub fn replay(path: impl AsRef<Path>) -> Replay {
    Replay { path: path.as_ref().to_owned(), ignored: BTreeSet::new() }
}

impl Replay {
    /// Leaves a part of headers and trailers out of the comparison, by its JSON pointer from `/head` or `/trailer`, such as
    /// `/trailer/wall_ms`.
    #[must_use]
    pub fn ignoring(mut self, pointer: &str) -> Replay {
        self.ignored.insert(pointer.to_owned());
        self
    }

    /// Makes every call, in the order of the file; the instance keeps its state between them.
    ///
    /// Bytes are compared channel by channel; frames may have other borders.
    ///
    /// # Panics
    ///
    /// When the file cannot be read, or an answer differs: with everything that does.
    pub async fn against(self, plugin: &Plugin) {
        let path = self.path.display();
        let text = std::fs::read_to_string(&self.path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
        let mut differences = String::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let recorded: Recorded =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{path}:{number}: no recorded call: {error}"));
            let answer = self.call(plugin, &recorded).await;
            for difference in self.compare(&recorded, &answer) {
                let _ = write!(differences, "\n{path}:{number}: {}: {difference}", recorded.command);
            }
        }
        assert!(differences.is_empty(), "answers differ from what was recorded:{differences}");
    }

    async fn call(&self, plugin: &Plugin, recorded: &Recorded) -> Answer {
        // The only operation may have been called by the plugin's name, which is not the handler's everywhere.
        let operation = match (recorded.command.split_once('.'), plugin.operations()) {
            (Some((_, operation)), _) => operation,
            (None, [only]) => only.name(),
            (None, _) => &recorded.command,
        };
        let mut call = plugin.call(operation);
        if let Some(args) = &recorded.args {
            call = call.args(Value::Object(args.clone()));
        }
        for (name, value) in &recorded.metadata {
            call = call.metadata(name, value);
        }
        for data in &recorded.input {
            call = call.send_data(Data { channel: data.channel, more: data.more, payload: bytes(data).into() });
        }
        call.await
    }

    fn compare(&self, recorded: &Recorded, answer: &Answer) -> Vec<String> {
        let mut found = Vec::new();
        let status = (answer.status.code().name(), answer.status.reason());
        if status != (recorded.status.code.as_str(), recorded.status.reason.as_str()) {
            let before = format!("{} ({})", recorded.status.code, recorded.status.reason);
            found.push(format!("status was {before}, is {}", answer.status));
        }
        let channels =
            recorded.output.iter().map(|data| data.channel).chain(answer.data.iter().map(|data| data.channel));
        for channel in channels.collect::<BTreeSet<u8>>() {
            let before: Vec<u8> =
                recorded.output.iter().filter(|data| data.channel == channel).flat_map(bytes).collect();
            let now = answer.bytes(channel);
            if before != now {
                found.push(different_bytes(channel, &before, &now));
            }
        }
        let trailer = |trailer: &Option<Map<String, Value>>| trailer.clone().map_or(Value::Null, Value::Object);
        for (name, before, now) in [
            ("head", recorded.head.clone().unwrap_or_default(), answer.head.clone().unwrap_or_default()),
            ("trailer", trailer(&recorded.trailer), trailer(&answer.trailer)),
        ] {
            let (before, now) = (self.without_ignored(name, before), self.without_ignored(name, now));
            if before != now {
                found.push(format!("{name} was {before}, is {now}"));
            }
        }
        found
    }

    fn without_ignored(&self, name: &str, value: Value) -> Value {
        let mut whole = Value::Object(Map::from_iter([(name.to_owned(), value)]));
        for pointer in &self.ignored {
            if let Some(ignored) = whole.pointer_mut(pointer) {
                *ignored = Value::Null;
            }
        }
        whole[name].take()
    }
}

fn bytes(data: &RecordedData) -> Vec<u8> {
    BASE64_STANDARD.decode(&data.data_b64).unwrap_or_else(|error| panic!("data_b64 is no base64: {error}"))
}

fn different_bytes(channel: u8, before: &[u8], now: &[u8]) -> String {
    let same = before.iter().zip(now).take_while(|(before, now)| before == now).count();
    let around = |bytes: &[u8]| bytes[same.min(bytes.len())..].iter().take(32).copied().collect::<Vec<u8>>();
    let [before_text, now_text] = [before, now].map(|bytes| around(bytes).escape_ascii().to_string());
    let (before_len, now_len) = (before.len(), now.len());
    format!(
        "channel {channel} had {before_len} bytes, has {now_len}; from byte {same} on it was \"{before_text}\", is \"{now_text}\""
    )
}
