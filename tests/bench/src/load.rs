//! The load: the same few bytes over and over, on many connections, each answer compared byte by byte.
//!
//! One thread and one task a connection. All peers are loaded by this same loop, so that its own cost is in every figure
//! alike; what differs between them is only the bytes.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a peer is sent and must answer.
#[derive(Debug, Clone)]
pub struct Dialect {
    /// Sent once, ahead of everything.
    pub hello: Vec<u8>,
    /// Answered once.
    pub welcome: Vec<u8>,
    /// One request, sent again and again.
    pub request: Vec<u8>,
    /// Its whole answer.
    pub answer: Vec<u8>,
    /// The bytes of an answer that may be others, such as a date.
    pub changing: Range<usize>,
}

impl Dialect {
    /// Without greetings, and with answers that never change.
    pub fn plain(request: Vec<u8>, answer: Vec<u8>) -> Dialect {
        Dialect { hello: Vec::new(), welcome: Vec::new(), request, answer, changing: 0..0 }
    }

    /// Whether `found` is whole answers and nothing else; `answers` are at least as many of them.
    fn is_answers(&self, found: &[u8], answers: &[u8]) -> bool {
        if self.changing.is_empty() {
            return found == &answers[..found.len()];
        }
        let Range { start, end } = self.changing;
        found
            .chunks(self.answer.len())
            .all(|one| one[..start] == self.answer[..start] && one[end..] == self.answer[end..])
    }
}

/// How hard to push.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections at once.
    pub connections: usize,
    /// Requests in flight on each.
    pub pipeline: usize,
    /// For how long.
    pub duration: Duration,
    /// Whether each request takes a connection of its own.
    pub fresh: bool,
}

impl Load {
    /// Requests on kept connections.
    pub fn kept(connections: usize, pipeline: usize) -> Load {
        Load { connections, pipeline, duration: Duration::from_secs(1), fresh: false }
    }

    /// A connection for each request.
    pub fn fresh(connections: usize) -> Load {
        Load { fresh: true, ..Load::kept(connections, 1) }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Measured {
    /// Requests that were answered.
    pub requests: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// From writing a batch of requests to having read its answers, in nanoseconds.
    pub latency_ns: Histogram<u64>,
}

impl Measured {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

/// Loads the peer at `address`.
///
/// # Panics
///
/// When an answer is wrong or a connection breaks: the figures would mean nothing.
pub fn run(address: SocketAddr, dialect: &Dialect, load: Load) -> Measured {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        let end = start + load.duration;
        let tasks: Vec<_> = (0..load.connections)
            .map(|_| {
                let dialect = dialect.clone();
                match load.fresh {
                    true => tokio::spawn(fresh(address, dialect, end)),
                    false => tokio::spawn(kept(address, dialect, load.pipeline, end)),
                }
            })
            .collect();
        let mut latency_ns = histogram();
        for task in tasks {
            latency_ns.add(task.await.expect("good answers")).expect("equal histograms");
        }
        Measured { requests: latency_ns.len(), elapsed: start.elapsed(), latency_ns }
    })
}

/// An empty histogram of latencies, in nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("sensible bounds")
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a listening peer");
    stream.set_nodelay(true).expect("a connected socket");
    stream
}

/// Keeps `pipeline` requests in flight on one connection: as many are sent again as were answered.
async fn kept(address: SocketAddr, dialect: Dialect, pipeline: usize, end: Instant) -> Histogram<u64> {
    let mut stream = connect(address).await;
    stream.write_all(&dialect.hello).await.expect("an open connection");
    let mut welcome = vec![0; dialect.welcome.len()];
    stream.read_exact(&mut welcome).await.expect("a welcome");
    assert!(welcome == dialect.welcome, "{:?}", String::from_utf8_lossy(&welcome));

    let answer_len = dialect.answer.len();
    let (requests, answers) = (dialect.request.repeat(pipeline), dialect.answer.repeat(pipeline));
    let (mut reader, mut writer) = stream.split();
    let mut latency_ns = histogram();
    let mut buf = vec![0; answers.len()];
    let mut filled = 0;
    let mut sent_at = Instant::now();
    writer.write_all(&requests).await.expect("an open connection");
    let mut in_flight = pipeline;
    while in_flight > 0 {
        // Long requests and answers would fill both directions at once, so that answers are read while writing waits.
        let read = reader.read(&mut buf[filled..]).await.expect("an open connection");
        assert!(read > 0, "the peer closed");
        filled += read;
        let done = filled / answer_len;
        if done == 0 {
            continue;
        }
        assert!(dialect.is_answers(&buf[..done * answer_len], &answers), "a wrong answer");
        buf.copy_within(done * answer_len..filled, 0);
        filled -= done * answer_len;
        in_flight -= done;
        let now = Instant::now();
        latency_ns.record_n((now - sent_at).as_nanos() as u64, done as u64).expect("within the bounds");
        if now < end {
            sent_at = now;
            writer.write_all(&requests[..done * dialect.request.len()]).await.expect("an open connection");
            in_flight += done;
        }
    }
    latency_ns
}

/// One connection after the other, with one request each.
async fn fresh(address: SocketAddr, dialect: Dialect, end: Instant) -> Histogram<u64> {
    let sent = [&dialect.hello[..], &dialect.request].concat();
    let welcome_len = dialect.welcome.len();
    let mut latency_ns = histogram();
    let mut buf = vec![0; welcome_len + dialect.answer.len()];
    while Instant::now() < end {
        let begun = Instant::now();
        let mut stream = connect(address).await;
        stream.write_all(&sent).await.expect("an open connection");
        stream.read_exact(&mut buf).await.expect("an answer");
        let (welcome, answer) = buf.split_at(welcome_len);
        assert!(welcome == dialect.welcome && dialect.is_answers(answer, &dialect.answer), "a wrong answer");
        latency_ns.record(begun.elapsed().as_nanos() as u64).expect("within the bounds");
    }
    latency_ns
}
