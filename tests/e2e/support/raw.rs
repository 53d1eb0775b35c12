//! A peer that sends exactly the bytes it is told to.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use plugd_core::Status;
use plugd_core::wire::{End, Frame, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind, Open};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::soon;

/// A TCP connection without any manners of its own.
pub(crate) struct RawPeer<S = TcpStream> {
    pub(crate) stream: S,
    buf: Bytes,
}

/// The bytes of one frame.
pub(crate) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader::new(kind, payload.len() as u32);
    [&header.encode()[..], payload].concat()
}

/// The bytes of an EOI frame.
pub(crate) fn eoi() -> Vec<u8> {
    frame(Kind::EndOfInput, b"")
}

/// The bytes of an OPEN frame without arguments.
pub(crate) fn open(command: &str) -> Vec<u8> {
    frame(Kind::Open, &Open::new(command).encode())
}

impl RawPeer {
    /// Connects, and says nothing.
    pub(crate) async fn connect(address: SocketAddr) -> RawPeer {
        let stream = TcpStream::connect(address).await.expect("a listening server");
        RawPeer::over(stream)
    }

    /// Takes a connection that is there.
    pub(crate) fn over(stream: TcpStream) -> RawPeer {
        stream.set_nodelay(true).expect("a connected socket");
        RawPeer { stream, buf: Bytes::new() }
    }

    /// Connects and exchanges hellos.
    pub(crate) async fn greet(address: SocketAddr) -> RawPeer {
        let mut peer = RawPeer::connect(address).await;
        peer.send(&Hello { data_len_max: 1 << 20 }.encode()).await;
        peer.hello().await;
        peer
    }

    /// Breaks the connection with a reset instead of an orderly close.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("a connected socket");
    }

    /// A reading and a writing peer on one connection.
    pub(crate) fn into_split(self) -> (RawPeer<OwnedReadHalf>, RawPeer<OwnedWriteHalf>) {
        let (reader, writer) = self.stream.into_split();
        (RawPeer { stream: reader, buf: self.buf }, RawPeer { stream: writer, buf: Bytes::new() })
    }
}

impl<S: AsyncWrite + Unpin> RawPeer<S> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        soon("room to write", self.stream.write_all(bytes)).await.expect("an open connection");
    }
}

impl<S: AsyncRead + Unpin> RawPeer<S> {
    /// Reads the server's hello.
    pub(crate) async fn hello(&mut self) -> Hello {
        let bytes = self.exactly(HELLO_LEN).await;
        Hello::decode(&bytes).expect("a hello").expect("a whole hello")
    }

    /// Reads exactly `len` bytes.
    pub(crate) async fn exactly(&mut self, len: usize) -> Bytes {
        while self.buf.len() < len {
            assert!(self.fill().await, "stream ended after {:?}, {len} bytes expected", self.buf);
        }
        self.buf.split_to(len)
    }

    /// Reads the next frame.
    pub(crate) async fn frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = Frame::take(&mut self.buf, FrameLimits::default()).expect("good frames") {
                return frame;
            }
            assert!(self.fill().await, "stream ended within a frame: {:?}", self.buf);
        }
    }

    /// Reads frames up to the end of the call, and returns the data on the main channel and the end.
    pub(crate) async fn answer(&mut self) -> (Vec<u8>, End) {
        let mut data = Vec::new();
        loop {
            let frame = self.frame().await;
            match frame.header.kind {
                Kind::End => return (data, End::decode(&frame.payload).expect("a good end")),
                Kind::Data if frame.header.channel == 0 => data.extend_from_slice(&frame.payload),
                _ => {}
            }
        }
    }

    /// Reads the end of a call, and returns its reason and whether the connection closes.
    pub(crate) async fn end(&mut self) -> (String, bool) {
        loop {
            let frame = self.frame().await;
            if frame.header.kind == Kind::End {
                let end = End::decode(&frame.payload).expect("a good end");
                return (end.status.reason().to_owned(), frame.header.close);
            }
        }
    }

    /// Reads the end of a call, and returns its status.
    pub(crate) async fn status(&mut self) -> Status {
        self.answer().await.1.status
    }

    /// Reads the next message on the main channel, or `None` at a good end.
    pub(crate) async fn message(&mut self) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        loop {
            let frame = self.frame().await;
            match frame.header.kind {
                Kind::Data => message.extend_from_slice(&frame.payload),
                _ => {
                    assert_eq!(frame.payload, "", "an end that is no success");
                    return None;
                }
            }
            if !frame.header.more {
                return Some(message);
            }
        }
    }

    /// Waits for the server to close, and returns what it said before.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buf).into()
    }

    async fn fill(&mut self) -> bool {
        let mut buf = BytesMut::from(std::mem::take(&mut self.buf));
        let read = soon("answer", self.stream.read_buf(&mut buf)).await;
        self.buf = buf.freeze();
        read.expect("an unbroken connection") > 0
    }
}
