//! What the receiving half of a connection tells the sending half.

use plugd_core::wire::DATA_LEN_MAX_LEAST;

/// How far the server's answers have come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// The longest DATA payload that the server accepts, as far as it is known.
    pub(crate) data_len_max: u32,
    /// How many ENDs have arrived.
    pub(crate) ended: u64,
    /// Whether the connection must not be used for another call.
    pub(crate) closed: bool,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress { data_len_max: DATA_LEN_MAX_LEAST, ended: 0, closed: false }
    }
}
