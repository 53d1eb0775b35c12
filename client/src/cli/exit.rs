//! The exit codes of `plug`.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | the call ended with the status `ok` |
//! | 2 | usage: the command line cannot work |
//! | 3 | cannot connect |
//! | 4 | the connection was lost, or the protocol was broken, before the call's end |
//! | 5 | a local failure: a file or stdout cannot be written, an answer is too long to hold |
//! | 64 + code | the call ended with a failing status, by its canonical code |
//! | 128 + n | stopped by the signal n; 130 is Ctrl-C |
//!
//! `plug exec` has some more, which `exec/ending.rs` chooses.

use plugd_core::Status;

use super::failure::Failure;
use crate::ClientError;

pub(crate) const OK: u8 = 0;
pub(crate) const USAGE: u8 = 2;
pub(crate) const CONNECT: u8 = 3;
pub(crate) const LOST: u8 = 4;
pub(crate) const LOCAL: u8 = 5;
const STATUS_BASE: u8 = 64;
const SIGNAL_BASE: u8 = 128;

pub(crate) fn of_failure(failure: &Failure) -> u8 {
    match failure {
        Failure::Usage(_) => USAGE,
        Failure::Client(error) => of_client_error(error),
        Failure::Status(reply) => of_status(&reply.status),
        Failure::Io { .. } | Failure::StdoutClosed => LOCAL,
        Failure::Several { first, .. } => of_failure(first),
        Failure::Signal(signal) => of_signal(*signal),
    }
}

fn of_client_error(error: &ClientError) -> u8 {
    match error {
        ClientError::Address(_) | ClientError::HeaderTooLong { .. } | ClientError::CleartextToken { .. } => USAGE,
        ClientError::Connect { .. } => CONNECT,
        ClientError::ReplyTooLong { .. } => LOCAL,
        _ => LOST,
    }
}

pub(crate) fn of_status(status: &Status) -> u8 {
    match status.is_ok() {
        true => OK,
        false => STATUS_BASE + status.code().number(),
    }
}

pub(crate) fn of_signal(signal: u8) -> u8 {
    SIGNAL_BASE.saturating_add(signal)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{Reply, ServerAddress};

    fn status(status: Status) -> Failure {
        Failure::Status(Box::new(Reply { status, ..Reply::default() }))
    }

    #[test]
    fn every_kind_of_failure_has_its_code() {
        let connect = ClientError::Connect { address: ServerAddress::default(), source: io::Error::other("x") };
        for (failure, code) in [
            (Failure::Usage("x".to_owned()), 2),
            (connect.into(), 3),
            (ClientError::Lost(io::Error::other("x")).into(), 4),
            (ClientError::Protocol("x".to_owned()).into(), 4),
            (Failure::StdoutClosed, 5),
            (Failure::io("x", io::Error::other("x")), 5),
            (ClientError::ReplyTooLong { allowed: 1 }.into(), 5),
            (status(Status::not_found("x", "y")), 69),
            (status(Status::data_loss("x", "y")), 79),
            (Failure::Signal(2), 130),
        ] {
            assert_eq!(of_failure(&failure), code, "{failure:?}");
        }
    }
}
