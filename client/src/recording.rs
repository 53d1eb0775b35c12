//! Stores calls as they happen, a line each, so that they can be replayed as tests.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plugd_core::wire::{End, Open};
use plugd_core::{Data, Status};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The most that one recorded call may have moved, input and output together, in bytes: 16 MiB. A recording is read by
/// tests and by people; what is longer belongs into a file of its own.
pub const RECORDED_LEN_MAX: usize = 16 << 20;

/// What a piece of data counts beside its bytes, so that empty ones have a bound too.
const PIECE_COST: usize = 64;

/// How many complaints are kept; there may be one for every call.
const COMPLAINTS_MAX: usize = 16;

/// What metadata is left out: entries with one of these in their key, in any case.
const SECRET_WORDS: [&str; 8] = ["auth", "cookie", "credential", "key", "passw", "secret", "session", "token"];

/// Stores the calls of any number of clients in a file, one JSON object a line.
///
/// ```text
/// command   string, as it was called: PLUGIN or PLUGIN.OPERATION
/// args      object, or null
/// metadata  object of strings, without entries whose key holds auth, cookie, credential, key, passw, secret, session
///           or token, in any case
/// input     array of objects in order: channel, more (whether its message goes on), data_b64 (standard base64); pieces
///           of one message that followed each other are joined
/// head      object, or null
/// output    array, as input
/// status    object: code (its name, such as "ok"), reason, message
/// trailer   object, or null
/// ```
///
/// A call is stored when its end has come; one that has no end, was cancelled by this side, or is of the plugin `plugd`,
/// which answers for the server itself, is not. Arguments and data are stored as they are: a new file is readable by its
/// owner only.
///
/// Lines are appended whole, also when several programs write to the same file. Clones write to the same file.
#[derive(Debug, Clone)]
pub struct Recorder {
    sink: Arc<Mutex<Sink>>,
}

#[derive(Debug)]
struct Sink {
    file: File,
    complaints: Vec<String>,
}

impl Recorder {
    /// Opens `path`, which is created if need be, to append to it.
    ///
    /// # Errors
    ///
    /// Those of opening a file.
    pub fn append_to(path: &Path) -> io::Result<Recorder> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Recorder { sink: Arc::new(Mutex::new(Sink { file, complaints: Vec::new() })) })
    }

    /// Takes a line for each call, up to 16, that should have been stored and was not, with the reason.
    pub fn take_complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.sink().complaints)
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        // Whoever panicked with it left a file and a list.
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, call: &Recorded) {
        let mut line = serde_json::to_vec(&call.line()).expect("strings and JSON values always serialise");
        line.push(b'\n');
        let mut sink = self.sink();
        if let Err(error) = append(&mut sink.file, &line) {
            sink.complain(format!("{} is not recorded: {error}", call.command));
        }
    }
}

impl Sink {
    fn complain(&mut self, complaint: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(complaint);
        }
    }
}

/// Appends a line whole or not at all, with nobody else's within.
fn append(file: &mut File, line: &[u8]) -> io::Result<()> {
    // What is no regular file, such as a pipe, may know neither locks nor lengths.
    let is_locked = file.lock().is_ok();
    let len = file.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len());
    let written = file.write_all(line);
    if written.is_err()
        && let Some(len) = len
    {
        file.set_len(len)?;
    }
    if is_locked {
        file.unlock()?;
    }
    written
}

/// What is being recorded of one connection: the calls that were opened and have no end yet, the oldest first.
///
/// The sending half and the receiving half of the connection hold the same one.
#[derive(Debug, Clone)]
pub(crate) struct Tape {
    recorder: Recorder,
    calls: Arc<Mutex<VecDeque<Recorded>>>,
}

impl Tape {
    pub(crate) fn new(recorder: Recorder) -> Tape {
        Tape { recorder, calls: Arc::default() }
    }

    fn calls(&self) -> MutexGuard<'_, VecDeque<Recorded>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call was opened.
    pub(crate) fn open(&self, open: &Open<'_>) {
        self.calls().push_back(Recorded::new(open));
    }

    /// The latest call was sent this.
    pub(crate) fn input(&self, data: &Data) {
        if let Some(call) = self.calls().back_mut() {
            call.add(data, |call| &mut call.input);
        }
    }

    /// The latest call is given up.
    pub(crate) fn cancel(&self) {
        if let Some(call) = self.calls().back_mut() {
            call.is_cancelled = true;
        }
    }

    /// The oldest call has a header.
    pub(crate) fn head(&self, head: &Map<String, Value>) {
        if let Some(call) = self.calls().front_mut() {
            call.head = Some(head.clone());
        }
    }

    /// The oldest call answered this.
    pub(crate) fn output(&self, data: &Data) {
        if let Some(call) = self.calls().front_mut() {
            call.add(data, |call| &mut call.output);
        }
    }

    /// The oldest call has ended.
    pub(crate) fn end(&self, end: &End) {
        let Some(mut call) = self.calls().pop_front() else { return };
        if call.is_cancelled || call.is_of_the_server() {
            return;
        }
        if call.len > RECORDED_LEN_MAX {
            let text = format!("moved more than a recording holds; allowed: {RECORDED_LEN_MAX} bytes a call");
            return self.recorder.sink().complain(format!("{} is not recorded: it {text}", call.command));
        }
        call.status = end.status.clone();
        call.trailer = end.trailer.clone();
        self.recorder.store(&call);
    }
}

/// A call as far as it went.
#[derive(Debug)]
struct Recorded {
    command: String,
    args: Option<Box<RawValue>>,
    metadata: BTreeMap<String, String>,
    input: Vec<Piece>,
    head: Option<Map<String, Value>>,
    output: Vec<Piece>,
    status: Status,
    trailer: Option<Map<String, Value>>,
    /// How much both directions moved; above the bound nothing is kept.
    len: usize,
    is_cancelled: bool,
}

#[derive(Debug)]
struct Piece {
    channel: u8,
    more: bool,
    data: Vec<u8>,
}

impl Recorded {
    fn new(open: &Open<'_>) -> Recorded {
        let metadata = open.metadata.iter().filter(|(key, _)| !is_secret(key));
        Recorded {
            command: open.command.clone().into_owned(),
            args: open.args.clone(),
            metadata: metadata.map(|(key, value)| (key.clone(), value.clone())).collect(),
            input: Vec::new(),
            head: None,
            output: Vec::new(),
            status: Status::ok(),
            trailer: None,
            len: 0,
            is_cancelled: false,
        }
    }

    fn is_of_the_server(&self) -> bool {
        self.command == "plugd" || self.command.starts_with("plugd.")
    }

    fn add(&mut self, data: &Data, direction: fn(&mut Recorded) -> &mut Vec<Piece>) {
        self.len = self.len.saturating_add(data.payload.len() + PIECE_COST);
        if self.len > RECORDED_LEN_MAX {
            self.input = Vec::new();
            self.output = Vec::new();
            return;
        }
        let pieces = direction(self);
        match pieces.last_mut() {
            Some(last) if last.more && last.channel == data.channel => {
                last.more = data.more;
                last.data.extend_from_slice(&data.payload);
            }
            _ => pieces.push(Piece { channel: data.channel, more: data.more, data: data.payload.to_vec() }),
        }
    }

    fn line(&self) -> Line<'_> {
        Line {
            command: &self.command,
            args: self.args.as_deref(),
            metadata: &self.metadata,
            input: self.input.iter().map(PieceLine::of).collect(),
            head: self.head.as_ref(),
            output: self.output.iter().map(PieceLine::of).collect(),
            status: StatusLine {
                code: self.status.code().name(),
                reason: self.status.reason().into(),
                message: self.status.message().into(),
            },
            trailer: self.trailer.as_ref(),
        }
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET_WORDS.iter().any(|word| key.contains(word))
}

/// See [`Recorder`].
#[derive(Serialize)]
struct Line<'c> {
    command: &'c str,
    args: Option<&'c RawValue>,
    metadata: &'c BTreeMap<String, String>,
    input: Vec<PieceLine>,
    head: Option<&'c Map<String, Value>>,
    output: Vec<PieceLine>,
    status: StatusLine<'c>,
    trailer: Option<&'c Map<String, Value>>,
}

#[derive(Serialize)]
struct PieceLine {
    channel: u8,
    more: bool,
    data_b64: String,
}

#[derive(Serialize)]
struct StatusLine<'c> {
    code: &'static str,
    reason: Cow<'c, str>,
    message: Cow<'c, str>,
}

impl PieceLine {
    fn of(piece: &Piece) -> PieceLine {
        PieceLine { channel: piece.channel, more: piece.more, data_b64: STANDARD.encode(&piece.data) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recorded(record: impl FnOnce(&Tape)) -> (Vec<Value>, Vec<String>) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("calls.jsonl");
        let recorder = Recorder::append_to(&path).expect("a new file");
        record(&Tape::new(recorder.clone()));
        let text = std::fs::read_to_string(&path).expect("a file of text");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
        (lines, recorder.take_complaints())
    }

    fn data(channel: u8, more: bool, payload: &'static [u8]) -> Data {
        Data { channel, more, payload: payload.into() }
    }

    fn ended() -> End {
        End { status: Status::ok(), trailer: None }
    }

    #[test]
    fn a_call_is_a_line_with_what_went_both_ways() {
        let (lines, complaints) = recorded(|tape| {
            let mut open = Open::new("upper.upper");
            open.args = Some(serde_json::value::to_raw_value(&json!({"a": 1})).expect("JSON"));
            open.metadata = [("trace", "t"), ("Authorization", "x"), ("api-KEY", "y")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into();
            tape.open(&open);
            tape.input(&data(0, true, b"a"));
            tape.input(&data(0, false, b"b"));
            tape.input(&data(1, false, b"\xff"));
            tape.head(&Map::from_iter([("h".to_owned(), json!(1))]));
            tape.output(&data(0, false, b"AB"));
            tape.end(&End {
                status: Status::not_found("gone", "no x"),
                trailer: Some(Map::from_iter([("t".to_owned(), json!(2))])),
            });
        });
        assert_eq!(complaints, Vec::<String>::new());
        assert_eq!(
            lines,
            [json!({
                "command": "upper.upper", "args": {"a": 1}, "metadata": {"trace": "t"},
                "input": [{"channel": 0, "more": false, "data_b64": "YWI="},
                          {"channel": 1, "more": false, "data_b64": "/w=="}],
                "head": {"h": 1}, "output": [{"channel": 0, "more": false, "data_b64": "QUI="}],
                "status": {"code": "not_found", "reason": "gone", "message": "no x"}, "trailer": {"t": 2},
            })]
        );
    }

    #[test]
    fn calls_that_were_sent_ahead_are_told_apart() {
        let (lines, _) = recorded(|tape| {
            tape.open(&Open::new("a.a"));
            tape.open(&Open::new("b.b"));
            tape.output(&data(0, false, b"1"));
            tape.end(&ended());
            tape.input(&data(0, false, b"2"));
            tape.end(&ended());
        });
        let facts = |line: &Value| (line["command"].clone(), line["input"].to_string(), line["output"].to_string());
        let (first, second) = (facts(&lines[0]), facts(&lines[1]));
        assert_eq!((first.0, first.1.as_str(), first.2.contains("MQ==")), (json!("a.a"), "[]", true));
        assert_eq!((second.0, second.1.contains("Mg=="), second.2.as_str()), (json!("b.b"), true, "[]"));
    }

    #[test]
    fn what_is_too_long_is_told_and_not_cut() {
        let (lines, complaints) = recorded(|tape| {
            tape.open(&Open::new("files.get"));
            let payload = vec![0; RECORDED_LEN_MAX / 4];
            (0..4).for_each(|_| tape.output(&Data::main(payload.clone())));
            tape.end(&ended());
            tape.open(&Open::new("echo"));
            tape.end(&ended());
        });
        assert_eq!((lines.len(), &lines[0]["command"]), (1, &json!("echo")));
        let text = "files.get is not recorded: it moved more than a recording holds; allowed: 16777216 bytes a call";
        assert_eq!(complaints, [text]);
    }

    #[test]
    fn cancelled_calls_and_those_of_the_server_itself_are_left_out() {
        let (lines, complaints) = recorded(|tape| {
            tape.open(&Open::new("echo"));
            tape.cancel();
            tape.end(&ended());
            tape.open(&Open::new("plugd.list"));
            tape.end(&ended());
        });
        assert_eq!((lines.len(), complaints.len()), (0, 0));
    }

    #[test]
    fn a_line_that_does_not_fit_is_told() {
        let Ok(recorder) = Recorder::append_to(Path::new("/dev/full")) else { panic!("a device that is always full") };
        let tape = Tape::new(recorder.clone());
        tape.open(&Open::new("echo"));
        tape.end(&ended());
        let complaints = recorder.take_complaints();
        assert!(complaints[0].starts_with("echo is not recorded: "), "{complaints:?}");
    }
}
