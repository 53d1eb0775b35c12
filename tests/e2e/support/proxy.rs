//! A forwarder between client and server that cuts connections and flips bits, as a bad network would.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What happens to one connection. Positions count from the first byte of the content, which `content` begins with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate {
    /// How the content that goes this way begins.
    pub(crate) content: Vec<u8>,
    /// The connection is cut when so many bytes of the content have passed.
    pub(crate) cut_at: Option<usize>,
    /// One bit of the byte there is flipped.
    pub(crate) flip_at: Option<usize>,
}

/// A forwarder on a port of its own, which ends with the test.
pub(crate) struct Proxy {
    pub(crate) address: String,
    state: Arc<State>,
}

struct State {
    server: String,
    delay: Duration,
    /// What happens to the next connections on which the content is seen; those after them are left alone.
    fates: Mutex<Vec<Fate>>,
    /// How many bytes went to the server, and how many to the client.
    moved: [AtomicUsize; 2],
    connections: AtomicUsize,
    met: AtomicUsize,
    stopped: AtomicBool,
}

impl Proxy {
    /// Forwards to the server at `address`, and lets `fates` happen, one after the other.
    pub(crate) fn start(address: &str, fates: Vec<Fate>) -> Proxy {
        Proxy::start_slow(address, fates, Duration::ZERO)
    }

    /// As [`Proxy::start`], and every byte takes `delay` on its way, in either direction.
    pub(crate) fn start_slow(address: &str, fates: Vec<Fate>, delay: Duration) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let state = Arc::new(State {
            server: address.strip_prefix("tcp://").expect("a TCP address").to_owned(),
            delay,
            fates: Mutex::new(fates),
            moved: Default::default(),
            connections: AtomicUsize::new(0),
            met: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let address = format!("tcp://{}", listener.local_addr().expect("an address"));
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::Relaxed) {
                    return;
                }
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                // A server that is away takes the client's connection with it.
                if let Ok(server) = TcpStream::connect(&accepting.server) {
                    forward(&accepting, client, server);
                }
            }
        });
        Proxy { address, state }
    }

    /// How many bytes went to the client.
    pub(crate) fn moved_down(&self) -> usize {
        self.state.moved[1].load(Ordering::Relaxed)
    }

    /// How many bytes went to the server.
    pub(crate) fn moved_up(&self) -> usize {
        self.state.moved[0].load(Ordering::Relaxed)
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// How many of the fates have happened.
    pub(crate) fn met(&self) -> usize {
        self.state.met.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address.trim_start_matches("tcp://"));
    }
}

fn forward(state: &Arc<State>, client: TcpStream, server: TcpStream) {
    let (up_from, up_to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let (up, down) = (Arc::clone(state), Arc::clone(state));
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("a socket");
    }
    std::thread::spawn(move || pass(&up, 0, up_from, up_to));
    std::thread::spawn(move || pass(&down, 1, server, client));
}

/// Passes bytes one way until an end or a cut, which closes both ways.
fn pass(state: &State, direction: usize, mut from: TcpStream, mut to: TcpStream) {
    let (mut seen, mut buf) = (Seen::default(), vec![0; 64 << 10]);
    while let Ok(len @ 1..) = from.read(&mut buf) {
        let arrived = Instant::now();
        let (pass, cut) = seen.judge(state, &mut buf[..len]);
        std::thread::sleep(state.delay.saturating_sub(arrived.elapsed()));
        state.moved[direction].fetch_add(pass, Ordering::Relaxed);
        if to.write_all(&buf[..pass]).is_err() || cut {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// What one direction of a connection has carried.
#[derive(Default)]
struct Seen {
    fate: Option<Fate>,
    /// How many bytes of the content have passed.
    passed: usize,
}

impl Seen {
    /// How many of these bytes may pass, and whether the connection is cut behind them.
    fn judge(&mut self, state: &State, bytes: &mut [u8]) -> (usize, bool) {
        let before = match &self.fate {
            Some(_) => 0,
            None => match self.find(state, bytes) {
                Some(start) => start,
                None => return (bytes.len(), false),
            },
        };
        let fate = self.fate.as_ref().expect("the content was found");
        let content = bytes.len() - before;
        if let Some(at) = fate.flip_at.filter(|at| (self.passed..self.passed + content).contains(at)) {
            bytes[before + at - self.passed] ^= 0x10;
            state.met.fetch_add(1, Ordering::Relaxed);
        }
        match fate.cut_at.filter(|at| *at < self.passed + content || (*at == self.passed + content && *at > 0)) {
            Some(at) => {
                state.met.fetch_add(1, Ordering::Relaxed);
                (before + at - self.passed, true)
            }
            None => {
                self.passed += content;
                (bytes.len(), false)
            }
        }
    }

    /// Looks for the beginning of the content, and says how many of these bytes stand before it. A beginning that is
    /// split between two reads is not seen; the first ones are much larger.
    fn find(&mut self, state: &State, bytes: &[u8]) -> Option<usize> {
        let mut fates = state.fates.lock().expect("no panic while it is held");
        let content = &fates.first()?.content;
        let start = bytes.windows(content.len()).position(|window| window == content)?;
        self.fate = Some(fates.remove(0));
        Some(start)
    }
}
