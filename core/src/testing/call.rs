//! What a caller says of a call, before it is made.

use std::collections::BTreeMap;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::Answer;
use super::plugin::Plugin;
use super::serve::{Asked, Stop};
use super::session::Session;
use crate::Data;

/// A call as its caller says it. Awaited, it is made and gives the [`Answer`].
#[derive(Debug)]
#[must_use = "nothing is called before it is awaited or started"]
pub struct TestCall {
    plugin: Plugin,
    asked: Asked,
    input: Vec<Data>,
}

impl TestCall {
    pub(super) fn new(plugin: Plugin, operation: &str) -> TestCall {
        let asked = Asked {
            operation: operation.into(),
            args: None,
            metadata: BTreeMap::new(),
            deadline: None,
            stop: Stop::default(),
        };
        TestCall { plugin, asked, input: Vec::new() }
    }

    /// Adds an argument.
    ///
    /// # Panics
    ///
    /// When `value` has no JSON form, or the arguments are no object.
    pub fn arg(mut self, name: &str, value: impl Serialize) -> TestCall {
        let value = serde_json::to_value(value).expect("an argument has a JSON form");
        let args = self.asked.args.get_or_insert_with(|| Value::Object(Map::new()));
        args.as_object_mut().expect("arguments are an object").insert(name.to_owned(), value);
        self
    }

    /// Says all arguments at once.
    pub fn args(mut self, args: Value) -> TestCall {
        self.asked.args = Some(args);
        self
    }

    /// Adds a message of input on the main channel.
    pub fn send(self, payload: impl Into<Bytes>) -> TestCall {
        self.send_data(Data::main(payload))
    }

    /// Adds a message of input on a channel.
    pub fn send_on(self, channel: u8, payload: impl Into<Bytes>) -> TestCall {
        self.send_data(Data { channel, ..Data::main(payload) })
    }

    /// Adds a frame of input.
    pub fn send_data(mut self, data: Data) -> TestCall {
        self.input.push(data);
        self
    }

    /// Says something beside the arguments.
    pub fn metadata(mut self, name: &str, value: &str) -> TestCall {
        self.asked.metadata.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Says how long the call may take.
    pub fn deadline(mut self, deadline: Duration) -> TestCall {
        self.asked.deadline = Some(deadline);
        self
    }

    /// Cancels the call when the handler waits for the `count`-th time, counted from 1.
    pub fn cancelled_at_wait(mut self, count: usize) -> TestCall {
        self.asked.stop = Stop { at_wait: Some(count), drops: false };
        self
    }

    /// Drops the handler's future when it waits for the `count`-th time, counted from 1, as a server does with one that
    /// does not return in time.
    pub fn dropped_at_wait(mut self, count: usize) -> TestCall {
        self.asked.stop = Stop { at_wait: Some(count), drops: true };
        self
    }

    /// Begins the call, and sends what was said of the input; the end of the input is the session's to send.
    pub async fn start(self) -> Session {
        let mut session = Session::open(self.plugin, self.asked).await;
        for data in &self.input {
            session.sender.data(data).await;
        }
        session
    }
}

impl IntoFuture for TestCall {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    /// Makes the call, sends the input and its end while the answer comes, and gives all of it.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { Session::open(self.plugin, self.asked).await.run(&self.input).await })
    }
}
