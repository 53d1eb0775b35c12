//! The table: which work, by whom, and what is to be reached.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use crate::load::{self, Dialect, Load, Measured};
use crate::peers::{self, Peer, grpc, nginx};
use crate::transfer::{self, Source, Transfer};

/// How often each peer is measured, in turn.
pub const ROUNDS: usize = 5;

/// One kind of work.
pub struct Row {
    /// What it is called in the table.
    pub name: &'static str,
    /// The least ratios of requests per second to other contestants, and the greatest of [`P99_OF_RAW`].
    pub reach: Reach,
    load: Load,
    contestants: Vec<Contestant>,
}

/// Ratios that are to be reached.
pub type Reach = BTreeMap<&'static str, f64>;

/// The latency of plugd through that of raw, the 99th percentile.
pub const P99_OF_RAW: &str = "p99 of raw";

/// Who does the work of a row.
struct Contestant {
    name: &'static str,
    /// The peer that is loaded; it has the same name, except where plugd is compared with itself.
    peer: &'static str,
    work: Work,
}

enum Work {
    Exchange(Dialect),
    Grpc { stream: bool, payload_len: usize },
    Transfer(Transfer),
}

/// The peers of one run.
pub struct Peers {
    running: BTreeMap<&'static str, Peer>,
    dir: PathBuf,
}

impl Peers {
    /// Starts all of them; redis, nginx and Python only where they are installed.
    pub fn start(plugd: &Path, dir: &Path) -> Peers {
        let file = dir.join("files/content");
        std::fs::create_dir(dir.join("files")).expect("a writable directory");
        std::fs::write(&file, transfer::content()).expect("space");
        let plugins =
            "[plugins.echo]\n[plugins.upper]\n[plugins.files]\nhandler = \"file\"\nconfig = { root = \"files\" }\n";
        let peers = [
            ("plugd", Some(Peer::start(Peer::plugd_command(plugd, dir, plugins)))),
            ("raw", Some(Peer::start(Peer::own_command(&["serve-raw"])))),
            ("sendfile", Some(Peer::start(Peer::own_command(&["serve-sendfile".as_ref(), file.as_os_str()])))),
            ("tonic", Some(Peer::start(Peer::own_command(&["serve-grpc"])))),
            ("redis", Peer::start_redis()),
            ("nginx", nginx::start(dir, &text(SMALL_LEN))),
            ("python", Peer::start_python()),
        ];
        let running = peers.into_iter().filter_map(|(name, peer)| Some((name, peer?))).collect();
        Peers { running, dir: dir.to_owned() }
    }
}

/// One peer's figures over all rounds.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// Requests per second, of each round.
    pub requests_per_second: Vec<f64>,
    /// The median of the latency, of each round, in microseconds.
    pub latency_p50_us: Vec<f64>,
    /// The 99th percentile of the latency, of each round, in microseconds.
    pub latency_p99_us: Vec<f64>,
    /// Processor time of the server for a request, of each round, in microseconds.
    pub server_us_per_request: Vec<f64>,
}

/// One row's figures, by contestant.
#[derive(Debug, Serialize)]
pub struct Result {
    /// The row's name.
    pub name: &'static str,
    /// What is to be reached; see [`Row::reach`].
    pub reach: Reach,
    /// The figures of each contestant.
    pub peers: BTreeMap<&'static str, Figures>,
}

impl Result {
    /// The median over the rounds of plugd's figure through the other's, each of the same round.
    pub fn ratio(&self, other: &str, figure: fn(&Figures) -> &Vec<f64>) -> Option<f64> {
        let (ours, others) = (figure(&self.peers["plugd"]), figure(self.peers.get(other)?));
        Some(median(ours.iter().zip(others).map(|(ours, others)| ours / others).collect()))
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

const SMALL_LEN: usize = 64;

const LARGE_LEN: usize = 64 << 10;

fn text(len: usize) -> String {
    "x".repeat(len)
}

/// All rows that these peers can do.
pub fn rows(peers: &Peers) -> Vec<Row> {
    let kept = Load::kept;
    vec![
        messages("64 B messages, 50 x 16", kept(50, 16), SMALL_LEN).reach([
            ("raw", 0.95),
            ("redis", 1.8),
            ("tonic", 10.0),
        ]),
        messages("64 B messages, 50 x 1", kept(50, 1), SMALL_LEN)
            .and("python", Work::Exchange(peers::raw(text(SMALL_LEN).as_bytes())))
            .reach([("raw", 0.95), (P99_OF_RAW, 1.1)]),
        messages("64 B messages, 1 x 1", kept(1, 1), SMALL_LEN).reach([("raw", 0.95), (P99_OF_RAW, 1.1)]),
        calls(peers, "calls, 50 x 16", kept(50, 16)).and_tonic_calls().reach([("raw", 0.5), ("tonic", 20.0)]),
        calls(peers, "calls, 50 x 1", kept(50, 1)).and_tonic_calls().reach([("raw", 0.85), ("tonic", 2.7)]),
        calls(peers, "connect + call, 1", Load::fresh(1)).and_python().reach([("raw", 0.95), ("nginx", 1.2)]),
        calls(peers, "connect + call, 16", Load::fresh(16)).and_python().reach([("raw", 0.95), ("nginx", 1.2)]),
        messages("64 KiB messages, 1 x 4", kept(1, 4), LARGE_LEN).reach([("raw", 0.95), ("tonic", 5.0)]),
        messages("64 KiB messages, 4 x 4", kept(4, 4), LARGE_LEN).reach([("raw", 0.95), ("tonic", 5.0)]),
        upper("upper, 64 KiB, against echo").reach([("raw", 0.8)]),
        file("file of 64 MiB, received", peers, "none", None).reach([("raw", 0.95)]),
        file("file of 64 MiB, written", peers, "none", Some("received")).reach([("raw", 0.9)]),
        file("file of 64 MiB with BLAKE3, received", peers, "blake3", None),
        file("file of 64 MiB with MD5, received", peers, "md5", None),
    ]
}

/// Messages through an echo that stays open.
fn messages(name: &'static str, load: Load, payload_len: usize) -> Row {
    let payload = text(payload_len).into_bytes();
    Row::new(name, load)
        .and("raw", Work::Exchange(peers::raw(&payload)))
        .and("plugd", Work::Exchange(peers::plugd_stream("echo", &payload, &payload)))
        .and("redis", Work::Exchange(peers::redis_echo(&payload)))
        .and("tonic", Work::Grpc { stream: true, payload_len })
}

/// Whole calls; raw and redis have nothing but messages.
fn calls(peers: &Peers, name: &'static str, load: Load) -> Row {
    let payload = text(SMALL_LEN);
    let row = Row::new(name, load)
        .and("raw", Work::Exchange(peers::raw(payload.as_bytes())))
        .and("plugd", Work::Exchange(peers::plugd_unary("echo", payload.as_bytes(), payload.as_bytes())))
        .and("redis", Work::Exchange(peers::redis_echo(payload.as_bytes())));
    match peers.running.get("nginx") {
        Some(nginx) => row.and("nginx", Work::Exchange(nginx::dialect(nginx.address, &payload))),
        None => row,
    }
}

/// What a handler costs that does something, in the place of raw the one that does nothing.
fn upper(name: &'static str) -> Row {
    let (quiet, loud) = (vec![b'x'; LARGE_LEN], vec![b'X'; LARGE_LEN]);
    let echo = Work::Exchange(peers::plugd_stream("echo", &quiet, &quiet));
    Row::new(name, Load::kept(4, 4))
        .and_of("raw", "plugd", echo)
        .and("plugd", Work::Exchange(peers::plugd_stream("upper", &quiet, &loud)))
}

/// A whole file, in the place of raw sendfile(2).
fn file(name: &'static str, peers: &Peers, algorithm: &'static str, into: Option<&str>) -> Row {
    let transfer = |source| {
        let (content, into) = (peers.dir.join("files/content"), into.map(|name| peers.dir.join(name)));
        Work::Transfer(Transfer { source, content, into })
    };
    Row::new(name, Load::kept(1, 1))
        .and_of("raw", "sendfile", transfer(Source::Sendfile))
        .and("plugd", transfer(Source::Plugd(algorithm)))
}

impl Row {
    fn new(name: &'static str, load: Load) -> Row {
        Row { name, reach: Reach::new(), load, contestants: Vec::new() }
    }

    fn reach<const N: usize>(self, reach: [(&'static str, f64); N]) -> Row {
        Row { reach: reach.into(), ..self }
    }

    fn and(self, name: &'static str, work: Work) -> Row {
        self.and_of(name, name, work)
    }

    fn and_of(mut self, name: &'static str, peer: &'static str, work: Work) -> Row {
        self.contestants.push(Contestant { name, peer, work });
        self
    }

    fn and_tonic_calls(self) -> Row {
        self.and("tonic", Work::Grpc { stream: false, payload_len: SMALL_LEN })
    }

    fn and_python(self) -> Row {
        self.and("python", Work::Exchange(peers::raw(text(SMALL_LEN).as_bytes())))
    }

    /// Measures every contestant whose peer is running in turn, round by round.
    pub fn measure(&self, peers: &Peers, duration: Duration) -> Result {
        let load = Load { duration, ..self.load };
        let mut result = Result { name: self.name, reach: self.reach.clone(), peers: BTreeMap::new() };
        for _ in 0..ROUNDS {
            for contestant in &self.contestants {
                let Some(peer) = peers.running.get(contestant.peer) else {
                    continue;
                };
                let cpu_before = peer.cpu_seconds();
                let measured = contestant.work.run(peer, load);
                let cpu = peer.cpu_seconds() - cpu_before;
                result.peers.entry(contestant.name).or_default().add(&measured, cpu);
            }
        }
        result
    }
}

impl Work {
    fn run(&self, peer: &Peer, load: Load) -> Measured {
        match self {
            Work::Exchange(dialect) => load::run(peer.address, dialect, load),
            Work::Grpc { stream, payload_len } => grpc::run(peer.address, text(*payload_len).as_bytes(), load, *stream),
            Work::Transfer(transfer) => transfer::run(peer.address, transfer, load.duration),
        }
    }
}

impl Figures {
    fn add(&mut self, measured: &Measured, cpu_seconds: f64) {
        let quantile_us = |quantile| measured.latency_ns.value_at_quantile(quantile) as f64 / 1e3;
        self.requests_per_second.push(measured.rate());
        self.latency_p50_us.push(quantile_us(0.5));
        self.latency_p99_us.push(quantile_us(0.99));
        self.server_us_per_request.push(cpu_seconds * 1e6 / measured.requests as f64);
    }
}
