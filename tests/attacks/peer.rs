//! A peer that sends whatever it likes, over a plain socket.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn};

use plugd_core::wire::{End, FRAME_HEADER_LEN, FrameHeader, FrameLimits, HELLO_LEN, Hello, Kind, Open};

/// How long the server may keep a peer waiting; an attack that hangs is one that was not met.
const PATIENCE: Duration = Duration::from_secs(30);

/// The bytes of a hello.
pub(crate) fn hello() -> Vec<u8> {
    Hello { data_len_max: 16 << 20 }.encode().to_vec()
}

/// The bytes of a frame.
pub(crate) fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&FrameHeader::new(kind, payload.len() as u32).encode()[..], payload].concat()
}

/// The bytes of a frame's header that announces so much data.
pub(crate) fn announce(len: u32) -> Vec<u8> {
    FrameHeader::new(Kind::Data, len).encode().to_vec()
}

/// The bytes of an opening header.
pub(crate) fn open(command: &str) -> Vec<u8> {
    frame(Kind::Open, &Open::new(command).encode())
}

/// A connection without any manners of its own.
pub(crate) struct Peer(TcpStream);

impl Peer {
    /// Connects, and says nothing.
    pub(crate) fn connect(address: SocketAddr) -> Peer {
        Peer::new(TcpStream::connect(address).expect("a listening server"))
    }

    fn new(stream: TcpStream) -> Peer {
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .expect("a socket");
        Peer(stream)
    }

    /// Connects and exchanges hellos.
    pub(crate) fn greet(address: SocketAddr) -> Peer {
        let mut peer = Peer::connect(address);
        peer.send(&hello());
        peer.read_hello();
        peer
    }

    /// Connects from an address of this machine, and exchanges hellos.
    pub(crate) fn greet_from(from: Ipv4Addr, address: SocketAddr) -> Peer {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a descriptor");
        socket::bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(from, 0))).expect("a loopback address");
        let SocketAddr::V4(address) = address else { panic!("{address} is of another family") };
        socket::connect(socket.as_raw_fd(), &SockaddrIn::from(address)).expect("a listening server");
        let mut peer = Peer::new(socket.into());
        peer.send(&hello());
        peer.read_hello();
        peer
    }

    pub(crate) fn read_hello(&mut self) {
        let mut answer = [0; HELLO_LEN];
        self.0.read_exact(&mut answer).expect("a hello");
        assert!(Hello::decode(&answer).expect("a hello").is_some());
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("a server that reads");
    }

    /// Sends until the server has had enough.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Sends the same again and again, until nothing was taken of it for half a second.
    pub(crate) fn send_until_stalled(&mut self, bytes: &[u8]) {
        self.0.set_write_timeout(Some(Duration::from_millis(500))).expect("a socket");
        while self.0.write_all(bytes).is_ok() {}
    }

    /// Sends a whole call.
    pub(crate) fn call(&mut self, command: &str, payload: &[u8]) {
        self.send(&[open(command), frame(Kind::Data, payload), frame(Kind::EndOfInput, b"")].concat());
    }

    /// The next frame.
    pub(crate) fn frame(&mut self) -> (Kind, Vec<u8>) {
        let mut header = [0; FRAME_HEADER_LEN];
        self.0.read_exact(&mut header).expect("a frame");
        let header = FrameHeader::decode(header, FrameLimits::default()).expect("a good frame");
        let mut payload = vec![0; header.payload_len as usize];
        self.0.read_exact(&mut payload).expect("a whole frame");
        (header.kind, payload)
    }

    /// All data up to here, which is one frame.
    pub(crate) fn data(&mut self) -> Vec<u8> {
        let (kind, payload) = self.frame();
        assert_eq!(kind, Kind::Data);
        payload
    }

    /// The reason with which the call ends, after whatever data.
    pub(crate) fn end(&mut self) -> String {
        loop {
            let (kind, payload) = self.frame();
            if kind == Kind::End {
                return End::decode(&payload).expect("an end").status.reason().to_owned();
            }
        }
    }

    /// Breaks the connection with a reset instead of an orderly close.
    pub(crate) fn reset(self) {
        socket::setsockopt(&self.0, socket::sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })
            .expect("a connected socket");
    }

    /// Whether the server closes, or has closed, the connection within a while.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        let mut rest = [0; 4096];
        loop {
            match (&self.0).read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Reads to the end of the stream, however that comes.
    pub(crate) fn until_closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("not closed within {PATIENCE:?}"),
            _ => rest,
        }
    }
}
