//! Why a verb has no answer.

use std::error::Error;
use std::io;

use plugd_core::Origin;
use serde_json::Value;

use super::text::one_line;
use crate::{ClientError, Reply, Status};

/// Why a verb has no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line cannot work.
    Usage(String),
    /// The call has no end that the server told.
    Client(ClientError),
    /// The call ended badly; what it answered until then, as far as it was collected.
    Status(Box<Reply>),
    /// Something on this machine failed.
    Io { what: String, source: io::Error },
    /// Nobody reads stdout any more, which needs no words.
    StdoutClosed,
    /// Some of several files failed, the first of them so; what became of all is in `data`, and in a line for people.
    Several { first: Box<Failure>, data: Value, line: String },
    /// The signal of this number asked the program to stop.
    Signal(u8),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::Client(error)
    }
}

impl Failure {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Failure {
        Failure::Io { what: what.into(), source }
    }

    /// What came is no answer of the operation that was called.
    pub(crate) fn protocol(text: impl Into<String>) -> Failure {
        Failure::Client(ClientError::Protocol(text.into()))
    }

    /// A status that this side found, not the server.
    pub(crate) fn found(status: Status) -> Failure {
        Failure::Status(Box::new(Reply { status, ..Reply::default() }))
    }

    pub(crate) fn data_loss(reason: &'static str, message: String) -> Failure {
        Failure::found(Status::data_loss(reason, message).with_origin(Origin::Caller))
    }

    /// The word for programs, as the envelope has it; a status has its own.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Failure::Usage(_) => "usage",
            Failure::Client(ClientError::Connect { .. }) => "connect",
            Failure::Client(
                ClientError::Address(_) | ClientError::HeaderTooLong { .. } | ClientError::CleartextToken { .. },
            ) => "usage",
            Failure::Client(ClientError::Lost(_) | ClientError::Closed) => "lost",
            Failure::Client(ClientError::ReplyTooLong { .. }) => "limit",
            Failure::Client(_) => "protocol",
            Failure::Status(_) => "status",
            Failure::Io { .. } | Failure::StdoutClosed => "io",
            Failure::Several { first, .. } => first.kind(),
            Failure::Signal(_) => "signal",
        }
    }

    /// One line for people, with every cause; `None` where nothing is worth saying.
    pub(crate) fn line(&self) -> Option<String> {
        match self {
            Failure::Usage(text) => Some(one_line(text)),
            Failure::Client(error) => Some(one_line(&chain(error))),
            Failure::Status(reply) => Some(one_line(&reply.status.to_string())),
            Failure::Io { what, source } => Some(one_line(&format!("{what}: {source}"))),
            Failure::Several { line, .. } => Some(line.clone()),
            Failure::StdoutClosed | Failure::Signal(_) => None,
        }
    }
}

fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_every_cause_and_stays_one_line() {
        let error = ClientError::Lost(io::Error::other("reset\nby peer"));
        let line = Failure::Client(error).line().expect("a line");
        assert_eq!(line, "connection lost before the end of the call: reset\\nby peer");
    }
}
