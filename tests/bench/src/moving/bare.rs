//! The least that moving a file can cost: sendfile(2) on the one side, recv(2) and write(2) on the other.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::sys::sendfile::sendfile;

use crate::peers::sendfile::request;

/// How much is received at once, in bytes.
const READ_LEN: usize = 256 << 10;

/// Where what is sent comes to lie.
pub struct Sink {
    pub into: PathBuf,
    /// Whether it has to be on the disk.
    pub durable: bool,
}

/// Receives `len` bytes from the sendfile server, and writes them where that is asked for.
pub fn receive(address: SocketAddr, len: u64, into: Option<&Path>) {
    let mut stream = TcpStream::connect(address).expect("a listening peer");
    stream.write_all(&request(0, len)).expect("an open connection");
    let mut file = into.map(|path| File::create(path).expect("a writable directory"));
    take(&mut stream, len, |bytes| {
        if let Some(file) = &mut file {
            file.write_all(bytes).expect("space");
        }
    });
}

/// Sends a file to the server of [`serve`].
pub fn send(address: SocketAddr, file: &Path, sink: &Sink) {
    let mut stream = TcpStream::connect(address).expect("a listening peer");
    let file = File::open(file).expect("a file");
    let len = file.metadata().expect("a file").len();
    let path = sink.into.as_os_str().as_bytes();
    let head = [&len.to_be_bytes()[..], &[u8::from(sink.durable)], &(path.len() as u16).to_be_bytes(), path].concat();
    stream.write_all(&head).expect("an open connection");
    let (mut offset, mut left) = (0, len as usize);
    while left > 0 {
        left -= sendfile(&stream, &file, Some(&mut offset), left).expect("an open connection");
    }
    stream.read_exact(&mut [0]).expect("a word when all is written");
}

/// Writes what is sent, one connection after the other, until it is killed.
///
/// ```text
/// request  length: u64 BE | durable: u8 | path length: u16 BE | path | length bytes
/// answer   one byte, when all is written
/// ```
pub fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("sink listening on {}", listener.local_addr().expect("an address"));
    for mut stream in listener.incoming().flatten() {
        let mut head = [0; 11];
        stream.read_exact(&mut head).expect("a request");
        let len = u64::from_be_bytes(head[..8].try_into().expect("eight bytes"));
        let mut path = vec![0; u16::from_be_bytes([head[9], head[10]]).into()];
        stream.read_exact(&mut path).expect("a path");
        let mut file = File::create(std::ffi::OsString::from_vec(path)).expect("a writable directory");
        take(&mut stream, len, |bytes| file.write_all(bytes).expect("space"));
        if head[8] != 0 {
            file.sync_data().expect("a disk");
        }
        stream.write_all(&[1]).expect("an open connection");
    }
}

fn take(stream: &mut TcpStream, len: u64, mut sink: impl FnMut(&[u8])) {
    let mut buf = vec![0; READ_LEN];
    let mut left = len;
    while left > 0 {
        let wanted = buf.len().min(left.try_into().unwrap_or(usize::MAX));
        let read = stream.read(&mut buf[..wanted]).expect("an open connection");
        assert!(read > 0, "the peer closed");
        sink(&buf[..read]);
        left -= read as u64;
    }
}
