//! A server that does with each connection whatever a test says, well or badly.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use plugd_core::Status;
use plugd_core::wire::{End, FRAME_HEADER_LEN, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind};

use super::raw::frame;

/// A server on a port of its own, for as long as the tests run.
pub(crate) struct Fake {
    pub(crate) address: String,
    accepted: Arc<AtomicUsize>,
}

impl Fake {
    /// Hands each connection, counted from 0, to a thread of its own before anything was said.
    pub(crate) fn silent(serve: impl Fn(usize, Peer) -> io::Result<()> + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("a port").to_string();
        let (accepted, serve) = (Arc::new(AtomicUsize::new(0)), Arc::new(serve));
        let counter = accepted.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (index, serve) = (counter.fetch_add(1, Ordering::Relaxed), serve.clone());
                // How a client leaves is for the test to see on the client.
                thread::spawn(move || drop(serve(index, Peer(stream))));
            }
        });
        Fake { address, accepted }
    }

    /// Hands over each connection on which a client says hello, after the hellos.
    pub(crate) fn polite(serve: impl Fn(usize, Peer) -> io::Result<()> + Send + Sync + 'static) -> Fake {
        Fake::silent(move |index, mut peer| {
            peer.greet()?;
            serve(index, peer)
        })
    }

    /// How many connections were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// A client, seen from the server.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    /// Reads the client's hello, and answers it.
    pub(crate) fn greet(&mut self) -> io::Result<()> {
        self.0.set_nodelay(true)?;
        self.0.read_exact(&mut [0; HELLO_LEN])?;
        self.0.write_all(&Hello { data_len_max: 1 << 20 }.encode())
    }

    /// Reads one frame.
    pub(crate) fn frame(&mut self) -> io::Result<(Kind, Vec<u8>)> {
        let mut header = [0; FRAME_HEADER_LEN];
        self.0.read_exact(&mut header)?;
        let header = FrameHeader::decode(header, FrameLimits::default()).expect("a good frame");
        let mut payload = vec![0; header.payload_len as usize];
        self.0.read_exact(&mut payload)?;
        Ok((header.kind, payload))
    }

    /// Reads frames up to one of `kind`.
    pub(crate) fn until(&mut self, kind: Kind) -> io::Result<()> {
        while self.frame()?.0 != kind {}
        Ok(())
    }

    /// Reads a whole call.
    pub(crate) fn call(&mut self) -> io::Result<()> {
        self.until(Kind::EndOfInput)
    }

    /// Sends DATA on the main channel.
    pub(crate) fn data(&mut self, payload: &[u8]) -> io::Result<()> {
        self.0.write_all(&frame(Kind::Data, payload))
    }

    /// Sends a byte on another channel, again and again, for as long as the client is there.
    pub(crate) fn drip(&mut self) -> io::Result<()> {
        let drop = FrameHeader { channel: 1, ..FrameHeader::new(Kind::Data, 1) };
        loop {
            self.0.write_all(&[&drop.encode()[..], b"."].concat())?;
            thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Ends a call.
    pub(crate) fn end(&mut self, status: Status) -> io::Result<()> {
        self.0.write_all(&frame(Kind::End, &End::from(status).encode()))
    }

    /// Ends a call or none, as the server's last word.
    pub(crate) fn close(&mut self, status: Status) -> io::Result<()> {
        self.0.write_all(&closing(status))
    }

    /// Waits, and reads nothing, until the client is gone.
    pub(crate) fn ignore(&self) -> io::Result<()> {
        while self.0.peek(&mut [0]).is_ok_and(|len| len > 0) {
            thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The bytes of an END with CLOSE.
pub(crate) fn closing(status: Status) -> Vec<u8> {
    let payload = End::from(status).encode();
    let header = FrameHeader { close: true, ..FrameHeader::new(Kind::End, payload.len() as u32) };
    [&header.encode()[..], &payload].concat()
}
