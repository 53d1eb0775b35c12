//! A whole answer, held in memory.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use plugd_core::wire::{CHANNEL_MAIN, End};
use plugd_core::{Data, Status};
use serde_json::{Map, Value};

/// The most data that a whole answer holds unless its caller says otherwise, 64 MiB; longer ones are to be streamed.
pub const REPLY_LEN_MAX: usize = 64 << 20;

/// Everything that a call answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// How the call ended.
    pub status: Status,
    /// The handler's own header.
    pub head: Option<Map<String, Value>>,
    /// The messages of the main channel, each whole.
    pub messages: Vec<Bytes>,
    /// The bytes of each side channel, by its number.
    pub side: BTreeMap<u8, BytesMut>,
    /// What the handler added to the end.
    pub trailer: Option<Map<String, Value>>,
    /// The message of the main channel that goes on in the next data.
    pub(crate) partial: BytesMut,
}

impl Default for Reply {
    fn default() -> Reply {
        Reply {
            status: Status::ok(),
            head: None,
            messages: Vec::new(),
            side: BTreeMap::new(),
            trailer: None,
            partial: BytesMut::new(),
        }
    }
}

impl Reply {
    /// The bytes of the main channel, without the borders between its messages.
    pub fn bytes(&self) -> Bytes {
        match self.messages.as_slice() {
            [message] => message.clone(),
            messages => messages.concat().into(),
        }
    }

    pub(crate) fn add(&mut self, data: Data) {
        if data.channel != CHANNEL_MAIN {
            self.side.entry(data.channel).or_default().extend_from_slice(&data.payload);
            return;
        }
        if !data.more && self.partial.is_empty() {
            self.messages.push(data.payload);
            return;
        }
        self.partial.extend_from_slice(&data.payload);
        if !data.more {
            self.messages.push(self.partial.split().freeze());
        }
    }

    /// Adds how the call ended. A message that the end cut short is kept as far as it came.
    pub(crate) fn ended(mut self, end: End) -> Reply {
        if !self.partial.is_empty() {
            self.messages.push(self.partial.split().freeze());
        }
        Reply { status: end.status, trailer: end.trailer, ..self }
    }
}
