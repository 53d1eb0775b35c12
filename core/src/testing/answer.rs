//! What came back of a call.

use serde_json::{Map, Value};

use crate::wire::CHANNEL_MAIN;
use crate::{Data, Status};

/// Everything that came back of a call.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The answer's header; `None` when the handler sent none.
    pub head: Option<Value>,
    /// The data, in the order in which it came.
    pub data: Vec<Data>,
    /// How the call ended.
    pub status: Status,
    /// What the handler added to the end; `None` when it added nothing.
    pub trailer: Option<Map<String, Value>>,
}

impl Answer {
    /// The same answer, of a call that must have succeeded.
    ///
    /// # Panics
    ///
    /// With the status, when the call failed.
    #[must_use]
    #[track_caller]
    pub fn ok(self) -> Answer {
        assert!(self.status.is_ok(), "the call failed: {}", self.status);
        self
    }

    /// All bytes of one channel.
    pub fn bytes(&self, channel: u8) -> Vec<u8> {
        let payloads = self.data.iter().filter(|data| data.channel == channel).map(|data| data.payload.to_vec());
        payloads.collect::<Vec<_>>().concat()
    }

    /// All text of the main channel; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes(CHANNEL_MAIN)).into_owned()
    }

    /// The trailer as a value; absent is null.
    pub fn trailer(&self) -> Value {
        self.trailer.clone().map_or(Value::Null, Value::Object)
    }
}
