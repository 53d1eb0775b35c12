//! The peers: plugd, the raw limits, and what users would pick instead.

pub mod exec;
pub mod grpc;
pub mod nginx;
pub mod raw;
pub mod sendfile;
pub mod sshd;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;
use plugd_core::wire::{FrameHeader, Hello, Kind, Open};

use crate::load::Dialect;

/// A peer's process, ended with the value.
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    /// Whether the child is not the server itself but has started it.
    is_traced: bool,
}

impl Peer {
    /// Starts a program whose first line ends with its address.
    pub fn start(command: Command) -> Peer {
        Peer::try_start(command).expect("a peer")
    }

    /// As [`start`](Peer::start), for a program that may be missing or fail.
    ///
    /// # Errors
    ///
    /// What happened, for people.
    pub fn try_start(mut command: Command) -> Result<Peer, String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn();
        let mut child = child.map_err(|error| format!("{program} cannot be started: {error}"))?;
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line of text");
        let address = line.trim_end().rsplit(['/', ' ']).next().unwrap_or_default().parse();
        // In a peer from here on, so that it is ended in any case.
        let peer =
            Peer { address: address.unwrap_or(SocketAddr::from(([0; 4], 0))), child, is_traced: program == "strace" };
        match peer.address.port() {
            0 => Err(format!("{program} says {line:?} instead of its address")),
            _ => Ok(peer),
        }
    }

    /// The command of this program as a server, `serve-raw`, `serve-exec`, `serve-grpc` or `serve-sendfile FILE`; or as a
    /// client: `exec-bare ADDRESS CMD ARG...`.
    pub fn own_command<A: AsRef<OsStr>>(args: &[A]) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(args);
        command
    }

    /// The command of a plugd of this configuration on a free port.
    pub fn plugd_command(program: &Path, dir: &Path, plugins: &str) -> Command {
        let config = dir.join("plugins.toml");
        let text = format!(
            "[server]\nlog = \"warn\"\nconnections_max = 20000\nconnections_per_address_max = 20000\n\
             connections_unidentified_max = 20000\nidle_timeout = \"1h\"\n{plugins}"
        );
        std::fs::write(&config, text).expect("a file");
        let mut command = Command::new(program);
        command.args(["--listen", "tcp://127.0.0.1:0", "--config"]).arg(config);
        command
    }

    /// Starts redis on a free port, where it is installed.
    pub fn start_redis() -> Option<Peer> {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        Peer::start_listening(command, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Starts the server of Python's library, where Python is installed.
    pub fn start_python() -> Option<Peer> {
        is_installed("python3").then(|| {
            let mut command = Command::new("python3");
            command.args(["-c", include_str!("socketserver.py")]);
            Peer::start(command)
        })
    }

    /// Starts a program that does not say when it listens; `None` where it is not installed.
    ///
    /// # Panics
    ///
    /// When nothing listens there after five seconds.
    pub fn start_listening(mut command: Command, address: SocketAddr) -> Option<Peer> {
        let child = command.stdout(Stdio::null()).stdin(Stdio::null()).spawn().ok()?;
        let peer = Peer { address, child, is_traced: false };
        for _ in 0..100 {
            if TcpStream::connect(address).is_ok() {
                return Some(peer);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{:?} does not listen on {address}", command.get_program());
    }

    /// The server: what the child has started, as strace does and ends with it, or the child itself.
    fn pid(&self) -> Pid {
        let id = self.child.id();
        if !self.is_traced {
            return Pid::from_raw(id as i32);
        }
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let started = children.split(' ').next().and_then(|pid| pid.parse().ok());
        Pid::from_raw(started.unwrap_or(id as i32))
    }

    /// The processor time that the peer has used, by all its threads, those that have ended included.
    pub fn cpu_seconds(&self) -> f64 {
        let clock = clock_getcpuclockid(self.pid()).expect("a running peer");
        Duration::from(clock.now().expect("a running peer")).as_secs_f64()
    }

    /// The memory that the peer holds, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running peer");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("proc(5)");
        line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
    }
}

impl Drop for Peer {
    /// By SIGTERM, and by SIGKILL where that did not help within five seconds.
    fn drop(&mut self) {
        let pid = self.pid();
        let _ = kill(pid, Signal::SIGTERM);
        for _ in 0..500 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = kill(pid, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Whether a program can be started by its name alone.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A port that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&FrameHeader::new(kind, payload.len() as u32).encode()[..], payload].concat()
}

/// What both sides of plugd say first.
pub fn hello() -> Vec<u8> {
    Hello { data_len_max: 1 << 20 }.encode().to_vec()
}

/// Messages within one open call of plugd.
pub fn plugd_stream(command: &str, payload: &[u8], answer: &[u8]) -> Dialect {
    Dialect {
        hello: [hello(), frame(Kind::Open, &Open::new(command).encode())].concat(),
        welcome: hello(),
        ..Dialect::plain(frame(Kind::Data, payload), frame(Kind::Data, answer))
    }
}

/// Whole calls of plugd.
pub fn plugd_unary(command: &str, payload: &[u8], answer: &[u8]) -> Dialect {
    let open = frame(Kind::Open, &Open::new(command).encode());
    let request = [open, frame(Kind::Data, payload), frame(Kind::EndOfInput, b"")].concat();
    let answer = [frame(Kind::Data, answer), frame(Kind::End, b"")].concat();
    Dialect { hello: hello(), welcome: hello(), ..Dialect::plain(request, answer) }
}

/// A call of plugd that is sent no data; `args` is a JSON object.
pub fn plugd_call(command: &str, args: &str) -> Vec<u8> {
    let args = serde_json::from_str(args).expect("a JSON object");
    let open = Open { args: Some(args), ..Open::new(command) };
    [frame(Kind::Open, &open.encode()), frame(Kind::EndOfInput, b"")].concat()
}

/// Messages with four bytes of length before them.
pub fn raw(payload: &[u8]) -> Dialect {
    let message = [&(payload.len() as u32).to_be_bytes()[..], payload].concat();
    Dialect::plain(message.clone(), message)
}

/// `ECHO` of redis.
pub fn redis_echo(payload: &[u8]) -> Dialect {
    let bulk = [format!("${}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat();
    let request = [b"*2\r\n$4\r\nECHO\r\n", &bulk[..]].concat();
    Dialect::plain(request, bulk)
}
