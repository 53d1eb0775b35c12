//! What a verb has to say.

use serde_json::Value;

use super::exit;
use super::failure::Failure;
use crate::Reply;

/// What a verb has to say, for people and for programs; the caller prints one of the two.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// What the call answered, as far as it was collected.
    pub(crate) reply: Reply,
    /// What stands for the payload in the envelope, where that is more than bytes.
    pub(crate) data: Option<Value>,
    /// The payload for people that is still to be printed to stdout.
    pub(crate) text: String,
    /// A line for people on stderr.
    pub(crate) note: Option<String>,
    /// Whether everything was printed as it came.
    pub(crate) is_printed: bool,
    /// What went wrong although there is an answer; it then decides the exit code.
    pub(crate) failure: Option<Failure>,
    /// The exit code.
    pub(crate) exit: u8,
}

impl Answer {
    /// An answer whose payload is what the call answered.
    pub(crate) fn of(reply: Reply) -> Answer {
        Answer { reply, exit: exit::OK, ..Answer::default() }
    }

    /// An answer that is read in one way by programs and in another by people.
    pub(crate) fn of_json(reply: Reply, data: Value, text: String) -> Answer {
        Answer { data: Some(data), text, ..Answer::of(reply) }
    }
}
