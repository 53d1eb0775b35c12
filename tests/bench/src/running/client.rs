//! Calls for commands, to plugd and to the bare server by the same loop.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;

use crate::{frames, peers};

/// A connection that runs commands, one after the other.
pub struct Client {
    stream: TcpStream,
    buf: Vec<u8>,
}

impl Client {
    pub fn bare(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("a listening peer");
        stream.set_nodelay(true).expect("a connected socket");
        Client { stream, buf: vec![0; frames::READ_LEN] }
    }

    pub fn plugd(address: SocketAddr) -> Client {
        let mut client = Client::bare(address);
        let mut hello = peers::hello();
        client.stream.write_all(&hello).expect("an open connection");
        client.stream.read_exact(&mut hello).expect("a hello");
        client
    }

    /// Runs the command of a request, and hands on what it prints; its exit code.
    ///
    /// # Panics
    ///
    /// When the command did not run, or the connection breaks.
    pub fn run(&mut self, request: &[u8], sink: &mut dyn FnMut(u8, &[u8])) -> u64 {
        self.stream.write_all(request).expect("an open connection");
        let end = frames::receive(&mut self.stream, &mut self.buf, sink);
        let exit = end.trailer.as_ref().and_then(|trailer| trailer.get("exit")?.get("code")?.as_u64());
        exit.unwrap_or_else(|| panic!("the command did not exit: {end:?}"))
    }
}

/// This program as the client of the bare server: `exec-bare ADDRESS CMD ARG...`.
pub fn main(args: &[String]) -> std::process::ExitCode {
    let [address, argv @ ..] = args else { panic!("exec-bare ADDRESS CMD ARG...") };
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    // Without the buffers of std, which look for lines.
    let own = |descriptor: &dyn AsFd| File::from(descriptor.as_fd().try_clone_to_owned().expect("an open stream"));
    let mut streams = [own(&std::io::stdout()), own(&std::io::stderr())];
    let mut client = Client::bare(address.parse().expect("an address"));
    let exit = client.run(&peers::exec::request(&argv), &mut |channel, bytes| {
        streams[usize::from(channel)].write_all(bytes).expect("a reader");
    });
    (exit as u8).into()
}
