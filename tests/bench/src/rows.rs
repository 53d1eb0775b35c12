//! The table: which work, by whom, and what is to be reached.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::load::{self, Dialect, Load};
use crate::peers::{self, Peer, grpc};

/// How often each peer is measured, in turn.
pub const ROUNDS: usize = 5;

/// One kind of work.
pub struct Row {
    /// What it is called in the table.
    pub name: &'static str,
    /// The least ratio to the raw limit.
    pub reach: f64,
    load: Load,
    plugd: Dialect,
    raw: Dialect,
    redis: Option<Dialect>,
    /// Whether tonic streams, when it takes part.
    grpc: Option<bool>,
    payload_len: usize,
}

/// The peers of one run.
pub struct Peers {
    plugd: Peer,
    raw: Peer,
    grpc: Peer,
    redis: Option<Peer>,
}

impl Peers {
    /// Starts all of them; redis only where it is installed.
    pub fn start(plugd: &Path, dir: &Path) -> Peers {
        Peers {
            plugd: Peer::start_plugd(plugd, dir, "[plugins.echo]\n[plugins.upper]\n"),
            raw: Peer::start_own("serve-raw"),
            grpc: Peer::start_own("serve-grpc"),
            redis: Peer::start_redis(),
        }
    }
}

/// One peer's figures over all rounds.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// Requests per second, of each round.
    pub requests_per_second: Vec<f64>,
    /// The 99th percentile of the latency, of each round, in microseconds.
    pub latency_p99_us: Vec<f64>,
    /// Processor time of the server for a request, of each round, in microseconds.
    pub server_us_per_request: Vec<f64>,
}

/// One row's figures, by peer.
#[derive(Debug, Serialize)]
pub struct Result {
    /// The row's name.
    pub name: &'static str,
    /// The least ratio to the raw limit.
    pub reach: f64,
    /// The figures of each peer.
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

/// All rows.
pub fn rows() -> Vec<Row> {
    let small = vec![b'x'; 64];
    let text = vec![b'x'; 64 << 10];
    let loud = vec![b'X'; 64 << 10];
    let stream = |name, reach, connections, pipeline, payload: &[u8]| Row {
        plugd: peers::plugd_stream("echo", payload, payload),
        grpc: Some(true),
        ..Row::new(name, reach, Load::kept(connections, pipeline), payload)
    };
    let unary = |name, reach, load| Row {
        plugd: peers::plugd_unary("echo", &small, &small),
        ..Row::new(name, reach, load, &small)
    };
    vec![
        stream("64 B messages, 50 x 16", 0.95, 50, 16, &small),
        stream("64 B messages, 50 x 1", 0.95, 50, 1, &small),
        stream("64 B messages, 1 x 1", 0.95, 1, 1, &small),
        Row { grpc: Some(false), ..unary("calls, 50 x 16", 0.5, Load::kept(50, 16)) },
        Row { grpc: Some(false), ..unary("calls, 50 x 1", 0.85, Load::kept(50, 1)) },
        unary("connect + call, 1", 0.95, Load::fresh(1)),
        unary("connect + call, 16", 0.95, Load::fresh(16)),
        stream("64 KiB messages, 1 x 4", 0.95, 1, 4, &text),
        stream("64 KiB messages, 4 x 4", 0.95, 4, 4, &text),
        Row {
            plugd: peers::plugd_stream("upper", &text, &loud),
            raw: peers::plugd_stream("echo", &text, &text),
            redis: None,
            ..Row::new("upper, 64 KiB, against echo", 0.8, Load::kept(4, 4), &text)
        },
    ]
}

impl Row {
    fn new(name: &'static str, reach: f64, load: Load, payload: &[u8]) -> Row {
        Row {
            name,
            reach,
            load,
            plugd: peers::plugd_stream("echo", payload, payload),
            raw: peers::raw(payload),
            redis: Some(peers::redis_echo(payload)),
            grpc: None,
            payload_len: payload.len(),
        }
    }

    /// Measures every peer in turn, round by round.
    pub fn measure(&self, peers: &Peers, duration: Duration) -> Result {
        let load = Load { duration, ..self.load };
        let mut result = Result { name: self.name, reach: self.reach, peers: BTreeMap::new() };
        // A row against plugd's own echo has that in the place of the raw limit.
        let raw = if self.raw.hello.is_empty() { &peers.raw } else { &peers.plugd };
        for _ in 0..ROUNDS {
            let mut add = |name, peer: &Peer, run: &dyn Fn() -> load::Measured| {
                let cpu_before = peer.cpu_seconds();
                let measured = run();
                let cpu = peer.cpu_seconds() - cpu_before;
                let figures: &mut Figures = result.peers.entry(name).or_default();
                figures.requests_per_second.push(measured.rate());
                figures.latency_p99_us.push(measured.latency_ns.value_at_quantile(0.99) as f64 / 1e3);
                figures.server_us_per_request.push(cpu * 1e6 / measured.requests as f64);
            };
            add("raw", raw, &|| load::run(raw.address, &self.raw, load));
            add("plugd", &peers.plugd, &|| load::run(peers.plugd.address, &self.plugd, load));
            if let (Some(peer), Some(dialect)) = (&peers.redis, &self.redis) {
                add("redis", peer, &|| load::run(peer.address, dialect, load));
            }
            if let Some(stream) = self.grpc {
                let payload = vec![b'x'; self.payload_len];
                add("tonic", &peers.grpc, &|| grpc::run(peers.grpc.address, &payload, load, stream));
            }
        }
        result
    }
}
