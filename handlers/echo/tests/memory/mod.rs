//! Runs one call of a linked handler over a connection in memory.
//!
//! The handler crates share this file, and each uses its own part of it.
#![allow(dead_code, reason = "no crate uses all of it")]

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;

use plugd_core::transport::{Connection, Inbound, Watch};
use plugd_core::wire::{End, Frame, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind, Open};
use plugd_core::{Call, Caller, Context, Data, Handler, Peer, Registry, Request, Status};
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::JoinHandle;

const PIPE_LEN: usize = 64 << 10;

/// Everything that came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Option<Value>,
    pub(crate) data: Vec<Data>,
    pub(crate) status: Status,
    pub(crate) trailer: Option<Map<String, Value>>,
}

impl Answer {
    /// All bytes of one channel.
    pub(crate) fn bytes(&self, channel: u8) -> Vec<u8> {
        let payloads = self.data.iter().filter(|data| data.channel == channel).map(|data| data.payload.to_vec());
        payloads.collect::<Vec<_>>().concat()
    }

    /// All text of the main channel.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes(0)).into_owned()
    }

    /// The trailer; absent is null.
    pub(crate) fn trailer(&self) -> Value {
        self.trailer.clone().map_or(Value::Null, Value::Object)
    }
}

/// Builds the handler `name` with `settings`.
pub(crate) fn build(name: &str, settings: Value, base_dir: &Path) -> Arc<dyn Handler> {
    let registry = Registry::linked().expect("a sound registry");
    let blueprint = registry.handler(name).expect("the handler is linked").prepare(settings).expect("good settings");
    blueprint.build(&Context::new(base_dir)).expect("an instance")
}

/// Calls the only operation of a handler without settings and arguments.
pub(crate) async fn call(name: &'static str, input: &[Data]) -> Answer {
    let handler = build(name, json!({}), Path::new("."));
    Session::open(handler, name, json!({})).await.call(input).await
}

/// One running call, seen from its caller's side.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    server: JoinHandle<()>,
}

impl Session {
    /// Opens a call of `operation`.
    pub(crate) async fn open(handler: Arc<dyn Handler>, operation: &'static str, args: Value) -> Session {
        let (ours, theirs) = duplex(PIPE_LEN);
        let server = tokio::spawn(serve(theirs, handler, operation, args));
        let (reader, writer) = split(ours);
        let mut sender = Sender(writer);
        let limits = FrameLimits::default();
        sender.write(&Hello { data_len_max: limits.data_len_max }.encode()).await;
        let open = Open::new("plugin").encode();
        sender.frame(FrameHeader::new(Kind::Open, open.len() as u32), &open).await;
        let mut receiver = Receiver { reader, inbound: Inbound::new(limits) };
        receiver.skip(HELLO_LEN).await;
        Session { sender, receiver, server }
    }

    /// Sends all input and its end while it receives all output.
    pub(crate) async fn call(mut self, input: &[Data]) -> Answer {
        let send = async {
            for data in input {
                self.sender.data(data).await;
            }
            self.sender.end_input().await;
        };
        tokio::join!(send, self.receiver.answer()).1
    }

    /// Closes the connection from the caller's side, and waits until the call has ended.
    pub(crate) async fn cut(self) {
        drop((self.sender, self.receiver));
        self.server.await.expect("a handler that does not panic");
    }

    /// Drops the handler's future wherever it stands.
    pub(crate) async fn abort(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

/// The caller's input.
#[derive(Debug)]
pub(crate) struct Sender(WriteHalf<DuplexStream>);

impl Sender {
    pub(crate) async fn data(&mut self, data: &Data) {
        let header = FrameHeader {
            more: data.more,
            channel: data.channel,
            ..FrameHeader::new(Kind::Data, data.payload.len() as u32)
        };
        self.frame(header, &data.payload).await;
    }

    pub(crate) async fn end_input(&mut self) {
        self.frame(FrameHeader::new(Kind::EndOfInput, 0), &[]).await;
    }

    pub(crate) async fn cancel(&mut self) {
        self.frame(FrameHeader::new(Kind::Cancel, 0), &[]).await;
    }

    async fn frame(&mut self, header: FrameHeader, payload: &[u8]) {
        self.write(&[&header.encode()[..], payload].concat()).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        // A call may end before its input has; what the server does not read any more is no failure.
        let _ = self.0.write_all(bytes).await;
    }
}

/// The caller's output.
#[derive(Debug)]
pub(crate) struct Receiver {
    reader: ReadHalf<DuplexStream>,
    inbound: Inbound,
}

impl Receiver {
    /// Receives one frame.
    pub(crate) async fn frame(&mut self) -> Frame {
        self.next_frame().await.expect("the connection ended before the call")
    }

    /// Receives one frame, or `None` when the connection ends before it is whole.
    pub(crate) async fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.inbound.take().expect("a good frame") {
                return Some(frame);
            }
            if self.inbound.fill(&mut self.reader).await.expect("a whole connection") == 0 {
                return None;
            }
        }
    }

    /// Receives everything up to the end of the call.
    pub(crate) async fn answer(&mut self) -> Answer {
        let (mut head, mut data) = (None, Vec::new());
        loop {
            let Frame { header, payload } = self.frame().await;
            match header.kind {
                Kind::Head => head = Some(serde_json::from_slice(&payload).expect("a JSON header")),
                Kind::Data => data.push(Data { channel: header.channel, more: header.more, payload }),
                Kind::End => {
                    let End { status, trailer } = End::decode(&payload).expect("a good end");
                    return Answer { head, data, status, trailer };
                }
                kind => panic!("unexpected {}", kind.name()),
            }
        }
    }

    async fn skip(&mut self, len: usize) {
        let mut skipped = vec![0; len];
        self.reader.read_exact(&mut skipped).await.expect("a whole connection");
    }
}

async fn serve(io: DuplexStream, handler: Arc<dyn Handler>, operation: &'static str, args: Value) {
    let mut connection = Connection::new(Box::new(io), FrameLimits::default());
    connection.greet().await.expect("a hello");
    poll_fn(|cx| connection.poll_next(cx)).await.expect("an opening header");
    let (input, output, watch) = connection.begin();
    let request = Request {
        plugin: "plugin".into(),
        operation: operation.into(),
        args: Some(to_raw_value(&args).expect("JSON arguments")),
        metadata: Default::default(),
        deadline: None,
    };
    let mut call = Call::new(request, Caller::new(Peer::Memory), input, output);
    let result = handle(&*handler, &mut call, &watch).await;
    let end = End { status: result.err().unwrap_or_else(Status::ok), trailer: call.take_trailer() };
    drop((call, watch));
    connection.finish(&end, true).expect("an end");
    let _ = connection.close().await;
}

async fn handle(handler: &dyn Handler, call: &mut Call, watch: &Watch) -> Result<(), Status> {
    let mut handled = handler.handle(call);
    let interrupt = tokio::select! {
        biased;
        result = &mut handled => return result,
        interrupt = watch.interrupted() => interrupt,
    };
    watch.stop(Status::cancelled("interrupted", format!("{interrupt:?}")));
    handled.await
}
