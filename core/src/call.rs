//! One call as its handler sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::transport::{Exchange, FileRest};
use crate::wire::CHANNEL_MAIN;
use crate::{Batch, Caller, Status};

/// What is asked for: the opening header, after the router has read it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The name of the plugin.
    pub plugin: Arc<str>,
    /// The name of the operation.
    pub operation: Arc<str>,
    /// The operation's arguments as JSON text; `None` means none.
    pub args: Option<Box<RawValue>>,
    /// What the caller says beside the arguments.
    pub metadata: BTreeMap<String, String>,
    /// When the call will be stopped; `None` means never.
    pub deadline: Option<Instant>,
    /// What may be called of the plugin; `None` means all of it, by everybody.
    pub rights: Option<Arc<dyn Rights>>,
}

/// Who may call what of one plugin. The server knows; a handler may ask about its other operations, by
/// [`Call::may_call`].
pub trait Rights: fmt::Debug + Send + Sync {
    /// Whether `caller` may call the operation. One that does not exist, nobody may call.
    fn admits(&self, operation: &str, caller: &Caller) -> bool;
}

/// A piece of payload: one frame's worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The channel: 0 is the main one, what the others mean is the operation's own.
    pub channel: u8,
    /// Whether the message goes on in the next data of this channel. A message is what its sender sent at once.
    pub more: bool,
    /// The bytes; they may be none.
    pub payload: Bytes,
}

/// One call: what is asked for, by whom, and both directions of data.
///
/// The handler's [`recv`](Call::recv) and [`send`](Call::send) carry backpressure both ways: a caller that does not read
/// makes `send` wait, and input that is not received makes the caller wait. To do both at once, [`split`](Call::split).
#[derive(Debug)]
pub struct Call {
    request: Request,
    caller: Caller,
    input: Input,
    output: Output,
}

impl Call {
    /// Puts a call together; the server's router does.
    pub fn new(request: Request, caller: Caller, input: Input, output: Output) -> Call {
        Call { request, caller, input, output }
    }

    /// The name of the plugin that was called.
    pub fn plugin(&self) -> &str {
        &self.request.plugin
    }

    /// The name of the operation that was called.
    pub fn operation(&self) -> &str {
        &self.request.operation
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the caller may call another operation of the same plugin, by the rules that held when this call began: what
    /// calls of one operation leave behind is not for callers of another, unless they may call both.
    pub fn may_call(&self, operation: &str) -> bool {
        self.request.rights.as_ref().is_none_or(|rights| rights.admits(operation, &self.caller))
    }

    /// What the caller says beside the arguments.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.request.metadata
    }

    /// When the call will be stopped; `None` means never.
    pub fn deadline(&self) -> Option<Instant> {
        self.request.deadline
    }

    /// Reads the arguments. Absent arguments are an empty object.
    ///
    /// # Errors
    ///
    /// `invalid_argument` with reason `bad-arguments`, which names the argument and what is wrong with it.
    pub fn args<T: DeserializeOwned>(&self) -> Result<T, Status> {
        let json = self.request.args.as_deref().map_or("{}", RawValue::get);
        let mut reader = serde_json::Deserializer::from_str(json);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            let at = if path == "." { String::new() } else { format!("argument \"{path}\": ") };
            Status::invalid_argument("bad-arguments", format!("{at}{}", without_position(&error.into_inner())))
        })
    }

    /// Resolves when the call is cancelled, by whomever; never before.
    ///
    /// The future does not borrow the call. Nothing is lost when it is dropped.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        self.output.cancelled()
    }

    /// Receives the next piece of input on the main channel, or `None` when the caller has sent it all.
    ///
    /// # Errors
    ///
    /// The status that the call will end with, once it is cancelled; `invalid_argument` for data on a side channel.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Status> {
        self.input.recv().await
    }

    /// Sends bytes on the main channel as one message. Returns when there is room for it, which may be before it is
    /// written.
    ///
    /// # Errors
    ///
    /// The status that the call will end with, once it is cancelled.
    ///
    /// # Cancellation
    ///
    /// A message that is longer than one frame may be sent in part when the future is dropped.
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), Status> {
        self.output.send(payload).await
    }

    /// Sends bytes on a side channel as one message; what the channel means, the operation's description says.
    ///
    /// # Errors
    ///
    /// As [`Call::send`].
    ///
    /// # Cancellation
    ///
    /// As [`Call::send`].
    pub async fn send_on(&mut self, channel: u8, payload: impl Into<Bytes>) -> Result<(), Status> {
        self.output.send_on(channel, payload).await
    }

    /// Sends the handler's own header, once and before any data.
    ///
    /// # Errors
    ///
    /// `internal` when it is too late or too long; the status that the call will end with, once it is cancelled.
    pub fn head(&mut self, head: &impl Serialize) -> Result<(), Status> {
        self.output.head(head)
    }

    /// Adds `trailer` to the end of the call, whether it will be a success or a failure.
    ///
    /// # Errors
    ///
    /// `internal` when it does not serialise to a JSON object.
    pub fn set_trailer(&mut self, trailer: &impl Serialize) -> Result<(), Status> {
        self.output.set_trailer(trailer)
    }

    /// Lends both directions apart, to be used at the same time.
    pub fn split(&mut self) -> (&mut Input, &mut Output) {
        (&mut self.input, &mut self.output)
    }

    /// What the handler added to the end, if anything; the server's router asks.
    pub fn take_trailer(&mut self) -> Option<Map<String, Value>> {
        self.output.trailer.take()
    }
}

/// The direction from the caller to the handler.
#[derive(Debug)]
pub struct Input {
    exchange: Arc<Exchange>,
    /// What arrived together with data that was received before.
    batch: Batch,
}

impl Input {
    pub(crate) fn new(exchange: Arc<Exchange>) -> Input {
        Input { exchange, batch: Batch::default() }
    }

    /// Receives the next piece of input on the main channel; see [`Call::recv`].
    ///
    /// # Errors
    ///
    /// As [`Call::recv`].
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Status> {
        match self.recv_data().await? {
            Some(data) if data.channel != CHANNEL_MAIN => Err(Status::invalid_argument(
                "unexpected-channel",
                format!("data on channel {}; this operation takes channel {CHANNEL_MAIN}", data.channel),
            )),
            data => Ok(data.map(|data| data.payload)),
        }
    }

    /// Receives the next piece of input on any channel, as it came, or `None` when the caller has sent it all.
    ///
    /// # Errors
    ///
    /// The status that the call will end with, once it is cancelled.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn recv_data(&mut self) -> Result<Option<Data>, Status> {
        if self.batch.is_empty() {
            self.batch = poll_fn(|cx| self.exchange.poll_recv(cx)).await?;
        }
        Ok(self.batch.next())
    }

    /// Receives what has arrived together, on any channel, or `None` when the caller has sent it all: for an operation
    /// that does the same with many short pieces, or passes them on with [`Output::send_batch`].
    ///
    /// # Errors
    ///
    /// As [`Input::recv_data`].
    ///
    /// # Cancellation
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn recv_batch(&mut self) -> Result<Option<Batch>, Status> {
        let batch = match self.batch.is_empty() {
            true => poll_fn(|cx| self.exchange.poll_recv(cx)).await?,
            false => std::mem::take(&mut self.batch),
        };
        Ok(Some(batch).filter(|batch| !batch.is_empty()))
    }

    /// Receives a whole message on the main channel, or `None` when the caller has sent them all.
    ///
    /// # Errors
    ///
    /// As [`Input::recv`]; `resource_exhausted` with reason `message-too-long` above `len_max` bytes;
    /// `invalid_argument` when the input ends within a message.
    ///
    /// # Cancellation
    ///
    /// What was received of the message is lost when the future is dropped.
    pub async fn recv_message(&mut self, len_max: usize) -> Result<Option<Bytes>, Status> {
        let mut message = BytesMut::new();
        let mut begun = false;
        loop {
            let Some(data) = self.recv_data().await? else {
                return match begun {
                    false => Ok(None),
                    true => Err(Status::invalid_argument("message-cut", "input ended within a message")),
                };
            };
            if message.len() + data.payload.len() > len_max {
                let text = format!("message of more than {len_max} bytes; allowed: {len_max}");
                return Err(Status::resource_exhausted("message-too-long", text));
            }
            if !begun && !data.more {
                return Ok(Some(data.payload));
            }
            begun = true;
            message.extend_from_slice(&data.payload);
            if !data.more {
                return Ok(Some(message.freeze()));
            }
        }
    }
}

/// The direction from the handler to the caller.
#[derive(Debug)]
pub struct Output {
    exchange: Arc<Exchange>,
    trailer: Option<Map<String, Value>>,
}

impl Output {
    pub(crate) fn new(exchange: Arc<Exchange>) -> Output {
        Output { exchange, trailer: None }
    }

    /// Sends bytes on the main channel as one message; see [`Call::send`].
    ///
    /// # Errors
    ///
    /// As [`Call::send`].
    pub async fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), Status> {
        self.send_data(Data::main(payload)).await
    }

    /// Sends bytes on a side channel as one message; what the channel means, the operation's description says.
    ///
    /// # Errors
    ///
    /// As [`Call::send`].
    pub async fn send_on(&mut self, channel: u8, payload: impl Into<Bytes>) -> Result<(), Status> {
        self.send_data(Data { channel, ..Data::main(payload) }).await
    }

    /// Sends one piece of data as it is, in as many frames as the caller's limit asks for.
    ///
    /// # Errors
    ///
    /// As [`Call::send`].
    ///
    /// # Cancellation
    ///
    /// As [`Call::send`].
    pub async fn send_data(&mut self, mut data: Data) -> Result<(), Status> {
        poll_fn(|cx| self.exchange.poll_send(cx, &mut data)).await
    }

    /// Sends everything that is left in a batch, each piece on its channel and with its borders.
    ///
    /// # Errors
    ///
    /// As [`Call::send`].
    ///
    /// # Cancellation
    ///
    /// As [`Call::send`].
    pub async fn send_batch(&mut self, batch: Batch) -> Result<(), Status> {
        if batch.is_empty() || poll_fn(|cx| self.exchange.poll_send_batch(cx, &batch)).await? {
            return Ok(());
        }
        for data in batch {
            self.send_data(data).await?;
        }
        Ok(())
    }

    /// Sends a part of a file on the main channel, from where it lies: over a socket on Linux its bytes are never copied
    /// into this process. It is a message of its own unless `more` says that the message goes on.
    ///
    /// The bytes are read while they are written, in the connection's own task. What is not in the system's memory would
    /// hold up other connections, so read it before, on a thread that may wait.
    ///
    /// # Errors
    ///
    /// As [`Call::send`]; `aborted` with reason `source-changed` when the file is shorter than the part, and `internal`
    /// when the part ends before it begins. When a file becomes shorter within a frame whose length was announced already,
    /// the connection breaks.
    ///
    /// # Cancellation
    ///
    /// As [`Call::send`].
    pub async fn send_file(&mut self, file: &Arc<File>, part: Range<u64>, more: bool) -> Result<(), Status> {
        if part.start > part.end {
            let text = format!("part of a file that ends before it begins: {} to {}", part.start, part.end);
            return Err(Status::internal("malformed-part", text));
        }
        let mut rest = FileRest::new(file.clone(), part, more);
        poll_fn(|cx| self.exchange.poll_send_file(cx, &mut rest)).await
    }

    /// Waits until everything that was sent is written to the connection.
    ///
    /// # Errors
    ///
    /// As [`Call::send`].
    ///
    /// # Cancellation
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn written(&mut self) -> Result<(), Status> {
        poll_fn(|cx| self.exchange.poll_written(cx)).await
    }

    /// Sends the handler's own header; see [`Call::head`].
    ///
    /// # Errors
    ///
    /// As [`Call::head`].
    pub fn head(&mut self, head: &impl Serialize) -> Result<(), Status> {
        let payload = serde_json::to_vec(&to_object(head)?).map_err(unserialisable)?;
        self.exchange.push_head(payload)
    }

    /// Adds `trailer` to the end of the call; see [`Call::set_trailer`].
    ///
    /// # Errors
    ///
    /// As [`Call::set_trailer`].
    pub fn set_trailer(&mut self, trailer: &impl Serialize) -> Result<(), Status> {
        self.trailer = Some(to_object(trailer)?);
        Ok(())
    }

    /// Resolves when the call is cancelled; see [`Call::cancelled`].
    pub fn cancelled(&self) -> WaitForCancellationFutureOwned {
        self.exchange.stop_token().cancelled_owned()
    }
}

fn to_object(value: &impl Serialize) -> Result<Map<String, Value>, Status> {
    match serde_json::to_value(value).map_err(unserialisable)? {
        Value::Object(object) => Ok(object),
        _ => Err(Status::internal("not-an-object", "the handler's header or trailer is no JSON object")),
    }
}

fn unserialisable(error: serde_json::Error) -> Status {
    Status::internal("unserialisable", "the handler's header or trailer is no JSON").with_detail(error)
}

/// What serde_json says of a value, without the line and column of the text that it stood in.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => text,
    }
}
