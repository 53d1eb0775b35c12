//! The load for files: the same one over and over, on one connection, received or received and written.
//!
//! Each round begins with a transfer that does not count and is compared byte by byte; of the others only the length is,
//! since comparing would take as long as receiving.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::load::{Measured, histogram};
use crate::{frames, peers};

/// The length of the file, in bytes: long enough that opening it costs nothing beside it.
pub const FILE_LEN: usize = 64 << 20;

/// How a file is asked for, and how it comes.
#[derive(Debug, Clone)]
pub enum Source {
    /// As it is.
    Sendfile,
    /// By plugd's `get` of the path `content` with a digest of this algorithm, in frames.
    Plugd(&'static str),
}

/// What is to be transferred.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// From where.
    pub source: Source,
    /// The file's content, at least as far as it is compared.
    pub content: PathBuf,
    /// Where it is written to, if it is.
    pub into: Option<PathBuf>,
}

/// Content without repetitions, so that a block in the wrong place is found.
pub fn content() -> Vec<u8> {
    (0..FILE_LEN as u64 / 8).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

/// Transfers the file from the peer at `address` until `duration` is over.
///
/// # Panics
///
/// When what comes is not the file: the figures would mean nothing.
pub fn run(address: SocketAddr, transfer: &Transfer, duration: Duration) -> Measured {
    let mut stream = TcpStream::connect(address).expect("a listening peer");
    if let Source::Plugd(_) = transfer.source {
        let mut hello = peers::hello();
        stream.write_all(&hello).expect("an open connection");
        stream.read_exact(&mut hello).expect("a hello");
    }
    let mut buf = vec![0; frames::READ_LEN];
    let content = std::fs::read(&transfer.content).expect("the file");
    let mut received = 0;
    transfer.once(&mut stream, &mut buf, &mut |bytes| {
        assert!(content[received..].starts_with(bytes), "a wrong byte after {received}");
        received += bytes.len();
    });

    let start = Instant::now();
    let mut latency_ns = histogram();
    while start.elapsed() < duration {
        let begun = Instant::now();
        match &transfer.into {
            None => transfer.once(&mut stream, &mut buf, &mut |_| {}),
            Some(path) => {
                let mut file = File::create(path).expect("a writable directory");
                transfer.once(&mut stream, &mut buf, &mut |bytes| file.write_all(bytes).expect("space"));
            }
        }
        latency_ns.record(begun.elapsed().as_nanos() as u64).expect("within the bounds");
    }
    Measured { requests: latency_ns.len(), elapsed: start.elapsed(), latency_ns }
}

impl Transfer {
    fn once(&self, stream: &mut TcpStream, buf: &mut [u8], sink: &mut dyn FnMut(&[u8])) {
        let mut received = 0;
        let mut counted = |bytes: &[u8]| {
            received += bytes.len();
            sink(bytes);
        };
        match self.source {
            Source::Sendfile => {
                stream.write_all(&peers::sendfile::request(0, FILE_LEN as u64)).expect("an open connection");
                receive(stream, buf, FILE_LEN, &mut counted);
            }
            Source::Plugd(algorithm) => {
                let args = format!("{{\"path\":\"content\",\"algorithm\":\"{algorithm}\"}}");
                let request = peers::plugd_call("files.get", &args);
                stream.write_all(&request).expect("an open connection");
                let end = frames::receive(stream, buf, &mut |_, bytes| counted(bytes));
                assert!(end.status.is_ok(), "the call failed: {}", end.status);
            }
        }
        assert_eq!(received, FILE_LEN, "a file of another length");
    }
}

fn receive(stream: &mut TcpStream, buf: &mut [u8], len: usize, sink: &mut dyn FnMut(&[u8])) {
    let mut left = len;
    while left > 0 {
        let read = stream.read(buf).expect("an open connection");
        assert!(read > 0, "the peer closed");
        sink(&buf[..read]);
        left -= read;
    }
}
