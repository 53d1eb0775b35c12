//! What is asked over and over, as bytes that are made once, and what is expected.

use bytes::{Bytes, BytesMut};
use plugd_core::Origin;
use plugd_core::wire::{
    DATA_LEN_MAX_DEFAULT, DATA_LEN_MAX_LEAST, FrameHeader, FrameLimits, HEADER_LEN_MAX, Hello, Kind,
};
use serde_json::{Map, Value};
use tokio::time::timeout;

use super::answers::{Answers, Unit};
use super::options::{Bench, Expect};
use super::stall::Patience;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::{ClientError, Open, REPLY_LEN_MAX, Status, Token};

/// How many bytes of requests lie ready to be written at once, at the least one request.
const READY_LEN: usize = 256 << 10;

/// The text that payloads are made of.
const TEXT: &[u8] = b"The quick brown fox jumps over the lazy dog. 0123456789 ";

/// How requests are put to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Calls on kept connections.
    Calls,
    /// Messages in one open call for each connection.
    Messages,
    /// A connection for each call.
    Fresh,
    /// Connections that are held, and asked once before and once after.
    Idle,
}

impl Mode {
    pub(crate) fn of(options: &Bench) -> Mode {
        match options {
            Bench { stream: true, .. } => Mode::Messages,
            Bench { fresh: true, .. } => Mode::Fresh,
            Bench { idle: true, .. } => Mode::Idle,
            _ => Mode::Calls,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Calls => "calls",
            Mode::Messages => "messages",
            Mode::Fresh => "fresh",
            Mode::Idle => "idle",
        }
    }
}

/// What is asked over and over, and what is expected.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) mode: Mode,
    /// What a connection begins with: the hello, and the opening header where that is sent once.
    pub(crate) opening: Vec<u8>,
    /// Whether the opening holds a call of its own, which proves who asks and whose end comes before any request.
    pub(crate) is_proving: bool,
    /// What ends the messages of a connection.
    pub(crate) closing: Vec<u8>,
    /// One request after the other.
    pub(crate) requests: Bytes,
    pub(crate) request_len: usize,
    /// How much of a request may be unwritten when its answer is whole, in bytes: a call may end before its input, but a
    /// message is answered as a whole.
    pub(crate) unread_len_max: usize,
    expected: Option<Bytes>,
}

impl Work {
    /// Makes the requests, and where answers are to equal the first one, makes a call to learn that.
    pub(crate) async fn prepare(session: &mut Session<'_>, options: &Bench) -> Result<Work, Failure> {
        let mode = Mode::of(options);
        let arguments = options.arguments()?;
        let payload = payload(options.size as usize);
        let token = session.server().connector.proof().cloned();
        let mut header = session.header(&options.command, &arguments);
        if matches!(mode, Mode::Fresh | Mode::Messages) {
            header.auth = token.as_ref().map(Token::auth);
        }
        let header = header.encode();
        if header.len() > HEADER_LEN_MAX as usize {
            return Err(ClientError::HeaderTooLong { found: header.len() }.into());
        }
        let expected = match options.expect {
            Expect::Any => None,
            Expect::Same => Some(payload.clone()),
            Expect::First => Some(first_answer(session, options, arguments, payload.clone()).await?),
        };
        if mode == Mode::Messages && (payload.is_empty() || expected.as_ref().is_some_and(Bytes::is_empty)) {
            let text = "--stream needs messages and answers of at least one byte, to see where an answer ends";
            return Err(Failure::Usage(text.to_owned()));
        }
        let mut work = Work::new(mode, &header, &payload, expected, options.pipeline);
        if let Some(token) = token.filter(|_| matches!(mode, Mode::Calls | Mode::Idle)) {
            work.prove(&token);
        }
        Ok(work)
    }

    /// The requests that begin with `header` and hold `payload`.
    pub(crate) fn new(mode: Mode, header: &[u8], payload: &[u8], expected: Option<Bytes>, pipeline: u32) -> Work {
        let hello = Hello { data_len_max: DATA_LEN_MAX_DEFAULT }.encode();
        let open = frame(Kind::Open, header);
        let call = [&open[..], &message(payload), &frame(Kind::EndOfInput, b"")].concat();
        let input_len = call.len() - open.len();
        let (opening, request, unread_len_max, closing) = match mode {
            Mode::Calls | Mode::Idle => (hello.to_vec(), call, input_len, Vec::new()),
            Mode::Fresh => (Vec::new(), [&hello[..], &call].concat(), input_len, Vec::new()),
            Mode::Messages => ([&hello[..], &open].concat(), message(payload), 0, frame(Kind::EndOfInput, b"")),
        };
        let ready = (READY_LEN / request.len()).clamp(1, pipeline as usize);
        let (request_len, requests) = (request.len(), request.repeat(ready).into());
        Work { mode, opening, is_proving: false, closing, requests, request_len, unread_len_max, expected }
    }

    /// Has each connection prove who asks before its requests, which are all the same.
    fn prove(&mut self, token: &Token) {
        let open = Open { auth: Some(token.auth()), ..Open::new("plugd.ping") };
        self.opening.extend([frame(Kind::Open, &open.encode()), frame(Kind::EndOfInput, b"")].concat());
        self.is_proving = true;
    }

    /// The answers on a connection; in the mode `fresh` with the hello before them.
    pub(crate) fn answers(&self) -> Answers {
        let unit = if self.mode == Mode::Messages { Unit::Message } else { Unit::Call };
        let answers = Answers::new(unit, self.expected.clone(), FrameLimits::default());
        if self.mode == Mode::Fresh { answers.with_hello() } else { answers }
    }
}

async fn first_answer(
    session: &mut Session<'_>,
    options: &Bench,
    arguments: Map<String, Value>,
    payload: Bytes,
) -> Result<Bytes, Failure> {
    let Patience { quiet: patience, slack, .. } = Patience::new(session.timeout());
    let call = async {
        let exchange = session.open(&options.command, arguments).await?;
        Ok::<_, Failure>(exchange.whole(payload, REPLY_LEN_MAX).await?)
    };
    let Ok(reply) = timeout(patience + slack, call).await else {
        let text = format!("first call not answered within {}", humantime::format_duration(patience));
        return Err(Failure::found(Status::deadline_exceeded("no-answer", text).with_origin(Origin::Caller)));
    };
    let reply = reply?;
    if reply.status.is_ok() { Ok(reply.bytes()) } else { Err(Failure::Status(Box::new(reply))) }
}

fn payload(len: usize) -> Bytes {
    let mut payload = BytesMut::with_capacity(len);
    while payload.len() < len {
        payload.extend_from_slice(&TEXT[..TEXT.len().min(len - payload.len())]);
    }
    payload.freeze()
}

/// A message in frames of a length that every server takes; none at all for an empty payload.
fn message(payload: &[u8]) -> Vec<u8> {
    let pieces = payload.chunks(DATA_LEN_MAX_LEAST as usize);
    let count = pieces.len();
    let frames = pieces.enumerate().map(|(index, piece)| {
        let header = FrameHeader { more: index + 1 < count, ..FrameHeader::new(Kind::Data, piece.len() as u32) };
        [&header.encode()[..], piece].concat()
    });
    frames.collect::<Vec<_>>().concat()
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&FrameHeader::new(kind, payload.len() as u32).encode()[..], payload].concat()
}
