//! The peers: plugd, the raw limits, and what users would pick instead.

pub mod grpc;
pub mod raw;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use plugd_core::wire::{FrameHeader, Hello, Kind, Open};

use crate::load::Dialect;

/// A peer's process, ended with the value.
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
}

impl Peer {
    /// Starts a program whose first line ends with its address.
    pub fn start(mut command: Command) -> Peer {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("the peer's program");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line of text");
        let address = line.trim_end().rsplit(['/', ' ']).next().unwrap_or_default().parse();
        Peer { address: address.expect("an address"), child }
    }

    /// Starts this program as the server `name`.
    pub fn start_own(name: &str) -> Peer {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.arg(name);
        Peer::start(command)
    }

    /// Starts a plugd of this configuration on a free port.
    pub fn start_plugd(program: &Path, dir: &Path, plugins: &str) -> Peer {
        let config = dir.join("plugins.toml");
        let text = format!("[server]\nlog = \"warn\"\nconnections_max = 20000\nidle_timeout = \"1h\"\n{plugins}");
        std::fs::write(&config, text).expect("a file");
        let mut command = Command::new(program);
        command.args(["--listen", "tcp://127.0.0.1:0", "--config"]).arg(config);
        Peer::start(command)
    }

    /// Starts redis on a free port, where it is installed.
    pub fn start_redis() -> Option<Peer> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let child = command.stdout(Stdio::null()).stdin(Stdio::null()).spawn().ok()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        for _ in 0..100 {
            if std::net::TcpStream::connect(address).is_ok() {
                return Some(Peer { address, child });
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        None
    }

    /// The processor time that the peer has used, by all its threads.
    pub fn cpu_seconds(&self) -> f64 {
        let mut nanoseconds = 0u64;
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a running peer");
        for thread in threads.flatten() {
            let stat = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            nanoseconds += stat.split(' ').next().and_then(|spent| spent.parse::<u64>().ok()).unwrap_or_default();
        }
        nanoseconds as f64 / 1e9
    }

    /// The memory that the peer holds, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running peer");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("proc(5)");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&FrameHeader::new(kind, payload.len() as u32).encode()[..], payload].concat()
}

fn hello() -> Vec<u8> {
    Hello { data_len_max: 1 << 20 }.encode().to_vec()
}

/// Messages within one open call of plugd.
pub fn plugd_stream(command: &str, payload: &[u8], answer: &[u8]) -> Dialect {
    Dialect {
        hello: [hello(), frame(Kind::Open, &Open::new(command).encode())].concat(),
        welcome: hello(),
        request: frame(Kind::Data, payload),
        answer: frame(Kind::Data, answer),
    }
}

/// Whole calls of plugd.
pub fn plugd_unary(command: &str, payload: &[u8], answer: &[u8]) -> Dialect {
    let open = frame(Kind::Open, &Open::new(command).encode());
    Dialect {
        hello: hello(),
        welcome: hello(),
        request: [open, frame(Kind::Data, payload), frame(Kind::EndOfInput, b"")].concat(),
        answer: [frame(Kind::Data, answer), frame(Kind::End, b"")].concat(),
    }
}

/// Messages with four bytes of length before them.
pub fn raw(payload: &[u8]) -> Dialect {
    let message = [&(payload.len() as u32).to_be_bytes()[..], payload].concat();
    Dialect { hello: Vec::new(), welcome: Vec::new(), request: message.clone(), answer: message }
}

/// `ECHO` of redis.
pub fn redis_echo(payload: &[u8]) -> Dialect {
    let bulk = [format!("${}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat();
    let request = [b"*2\r\n$4\r\nECHO\r\n", &bulk[..]].concat();
    Dialect { hello: Vec::new(), welcome: Vec::new(), request, answer: bulk }
}
