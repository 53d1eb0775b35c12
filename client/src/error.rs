//! What can go wrong with a call on this side of the connection.

use std::io;

use plugd_core::Status;
use plugd_core::wire::{EndError, FrameError, HEADER_LEN_MAX, HelloError};
use serde_json::{Map, Value};

use crate::{AddressError, ServerAddress};

/// Why a call has no end that the server told, or was never made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address cannot be read.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Nobody could be reached there; a later try may succeed.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where a server was expected.
        address: ServerAddress,
        /// What the operating system says.
        source: io::Error,
    },
    /// A token would go where others can read it; nothing was sent.
    #[error("token not sent to {address} in clear text; allowed: tls://, unix:, and TCP to this machine itself")]
    CleartextToken {
        /// Where the server is.
        address: ServerAddress,
    },
    /// The connection broke before the end of the call arrived. Whether the call did its work is not known.
    #[error("connection lost before the end of the call")]
    Lost(#[source] io::Error),
    /// The other side does not speak the protocol, or breaks it. Whether the call did its work is not known.
    #[error("protocol broken by the server: {0}")]
    Protocol(String),
    /// The server closed the connection with an earlier call, or an earlier error did; nothing was sent.
    #[error("connection is closed; connect again")]
    Closed,
    /// The call takes no more input: it has ended, and the receiving half has its status, or its input was finished.
    #[error("call takes no more input")]
    Ended,
    /// The opening header is too long; nothing was sent.
    #[error("opening header of {found} bytes too long; allowed: {HEADER_LEN_MAX}")]
    HeaderTooLong {
        /// Its length, in bytes.
        found: usize,
    },
    /// The answer is longer than this side is ready to hold; the rest of it was not read.
    #[error("answer too long to hold; allowed: {allowed} bytes")]
    ReplyTooLong {
        /// The bound, in bytes.
        allowed: usize,
    },
}

impl ClientError {
    /// Whether a later try to connect may go better by itself: not where the two sides cannot come together.
    pub(crate) fn is_passing_connect(&self) -> bool {
        matches!(self, ClientError::Connect { source, .. } if source.kind() != io::ErrorKind::InvalidData)
    }
}

impl From<HelloError> for ClientError {
    fn from(error: HelloError) -> ClientError {
        ClientError::Protocol(error.to_string())
    }
}

impl From<FrameError> for ClientError {
    fn from(error: FrameError) -> ClientError {
        ClientError::Protocol(error.to_string())
    }
}

impl From<EndError> for ClientError {
    fn from(error: EndError) -> ClientError {
        ClientError::Protocol(error.to_string())
    }
}

/// Why a whole call did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server ended the call with another status than `ok`.
    #[error("{status}")]
    Status {
        /// How the call ended.
        status: Box<Status>,
        /// What the handler added to the end.
        trailer: Option<Map<String, Value>>,
    },
    /// The call has no end that the server told.
    #[error(transparent)]
    Client(#[from] ClientError),
}
