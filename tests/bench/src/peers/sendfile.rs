//! The least that serving a file can cost: sixteen bytes of request, then sendfile(2) until the file is out.

use std::fs::File;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use nix::sys::sendfile::sendfile;

/// Serves this file, a thread for each connection, until it is killed.
///
/// ```text
/// request  offset: u64 BE | length: u64 BE
/// answer   length bytes of the file
/// ```
pub fn serve(path: &Path) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    println!("sendfile listening on {}", listener.local_addr().expect("an address"));
    for stream in listener.incoming().flatten() {
        let file = File::open(path).expect("a readable file");
        std::thread::spawn(move || answer(stream, &file));
    }
}

/// One request of [`serve`].
pub fn request(offset: u64, len: u64) -> Vec<u8> {
    [offset.to_be_bytes(), len.to_be_bytes()].concat()
}

fn answer(mut stream: TcpStream, file: &File) {
    let mut request = [0; 16];
    while stream.read_exact(&mut request).is_ok() {
        let (offset, len) = request.split_at(8);
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
        let (mut offset, mut left) = (number(offset) as i64, number(len) as usize);
        while left > 0 {
            match sendfile(&stream, file, Some(&mut offset), left) {
                Ok(sent @ 1..) => left -= sent,
                _ => return,
            }
        }
    }
}
