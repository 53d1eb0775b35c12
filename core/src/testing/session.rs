//! The caller's side of a call that runs.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::JoinHandle;

use super::answer::Answer;
use super::plugin::Plugin;
use super::serve::{Asked, serve};
use crate::Data;
use crate::transport::Inbound;
use crate::wire::{End, Frame, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind, Open};

/// How many bytes wait in each direction, as in the buffers of a socket.
pub(super) const PIPE_LEN: usize = 64 << 10;

/// How many bytes [`Session::send`] puts into one frame.
const FRAME_LEN: usize = 256 << 10;

/// A call that runs, seen from its caller's side.
#[derive(Debug)]
pub struct Session {
    /// The caller's input.
    pub sender: Sender,
    /// What comes back.
    pub receiver: Receiver,
    server: JoinHandle<usize>,
}

impl Session {
    pub(super) async fn open(plugin: Plugin, asked: Asked) -> Session {
        let (ours, theirs) = duplex(PIPE_LEN);
        let server = tokio::spawn(serve(theirs, plugin, asked));
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

    /// Sends frames and the end of the input while everything is received.
    pub async fn run(self, input: &[Data]) -> Answer {
        converse(self.sender, self.receiver, input).await
    }

    /// Sends bytes on the main channel, a message for each 256 KiB.
    pub async fn send(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(FRAME_LEN) {
            self.sender.data(&Data::main(chunk.to_vec())).await;
        }
    }

    /// Ends the input and receives the rest.
    pub async fn finish(mut self) -> Answer {
        self.sender.end_input().await;
        self.receiver.answer().await
    }

    /// Closes the connection, as a caller does that is killed, and waits until the handler has ended or was dropped.
    ///
    /// # Panics
    ///
    /// When the kit itself does.
    pub async fn vanish(self) {
        drop((self.sender, self.receiver));
        self.server.await.expect("a server that does not panic");
    }

    /// Drops the handler's future wherever it stands.
    pub async fn abort(self) {
        self.server.abort();
        let _ = self.server.await;
    }

    /// As [`Session::run`]; tells also how often the handler waited.
    pub(super) async fn run_counted(self, input: &[Data]) -> (Answer, usize) {
        let Session { sender, receiver, server } = self;
        let answer = converse(sender, receiver, input).await;
        (answer, server.await.expect("a server that does not panic"))
    }
}

/// Sends frames and the end of the input while everything is received.
async fn converse(mut sender: Sender, mut receiver: Receiver, input: &[Data]) -> Answer {
    let send = async {
        for data in input {
            sender.data(data).await;
        }
        sender.end_input().await;
    };
    tokio::join!(send, receiver.answer()).1
}

/// The caller's input.
#[derive(Debug)]
pub struct Sender(WriteHalf<DuplexStream>);

impl Sender {
    /// Sends one frame of data.
    pub async fn data(&mut self, data: &Data) {
        let header = FrameHeader {
            more: data.more,
            channel: data.channel,
            ..FrameHeader::new(Kind::Data, data.payload.len() as u32)
        };
        self.frame(header, &data.payload).await;
    }

    /// Ends the input; the answer may go on.
    pub async fn end_input(&mut self) {
        self.frame(FrameHeader::new(Kind::EndOfInput, 0), &[]).await;
    }

    /// Cancels the call.
    pub async fn cancel(&mut self) {
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

/// What comes back.
#[derive(Debug)]
pub struct Receiver {
    reader: ReadHalf<DuplexStream>,
    inbound: Inbound,
}

impl Receiver {
    /// Receives one frame.
    ///
    /// # Panics
    ///
    /// When the connection ends before it is whole, or what comes is no frame.
    pub async fn frame(&mut self) -> Frame {
        self.next_frame().await.expect("the connection ended before the call")
    }

    /// Receives one frame, or `None` when the connection ends before it is whole.
    ///
    /// # Panics
    ///
    /// When what comes is no frame.
    pub async fn next_frame(&mut self) -> Option<Frame> {
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
    ///
    /// # Panics
    ///
    /// When the connection ends before the call, or what comes is against the protocol.
    pub async fn answer(&mut self) -> Answer {
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
