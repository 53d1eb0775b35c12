//! The bytes of the protocol as pure values: no sockets, no clock, no state.
//!
//! `docs/protocol.md` describes every field and holds test vectors that the tests read from the page itself.

mod end;
mod frame;
mod hello;
mod json;
mod open;

pub use end::{End, EndError};
pub use frame::{
    CHANNEL_MAIN, DATA_LEN_MAX, DATA_LEN_MAX_DEFAULT, DATA_LEN_MAX_LEAST, FRAME_HEADER_LEN, Frame, FrameError,
    FrameHeader, FrameLimits, HEADER_LEN_MAX, HEADER_LEN_MAX_LEAST, Kind,
};
pub use hello::{HELLO_LEN, Hello, HelloError, Knock, VERSION};
pub use json::{JSON_DEPTH_MAX, json_depth_exceeds};
pub use open::{Auth, COMMAND_LEN_MAX, DEADLINE_MAX, METADATA_ENTRIES_MAX, Open, OpenError, TOKEN_LEN_MAX};
