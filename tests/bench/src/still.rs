//! What a server costs while it does nothing: memory, idle connections, starting.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::{self, Dialect, Load};
use crate::peers::{self, Peer};
use crate::rows::median;

const CONNECTIONS: usize = 10_000;

const STARTS: usize = 21;

/// How often fresh calls are measured for a second, of which the median counts.
const FRESH_RUNS: usize = 3;

/// The figures.
#[derive(Debug, Serialize)]
pub struct Still {
    /// Idle connections that were held.
    pub connections: usize,
    /// Memory of plugd for each of them, in bytes.
    pub plugd_bytes_per_connection: u64,
    /// Memory of the raw server for each of them, in bytes.
    pub raw_bytes_per_connection: u64,
    /// Fresh calls per second beside them, through the same without.
    pub plugd_beside_ratio: f64,
    /// The same of the raw server: what the system itself is slowed down.
    pub raw_beside_ratio: f64,
    /// From the start of the process to the first answered call, the median, in milliseconds.
    pub first_answer_ms: f64,
    /// Resident memory of a server that has served nothing, in KiB.
    pub idle_kib: u64,
    /// The size of the program, in bytes.
    pub plugd_bytes: u64,
    /// The size of the client's program, in bytes.
    pub plug_bytes: u64,
}

/// Measures all of it.
pub fn measure(plugd: &Path, plug: &Path, dir: &Path) -> Still {
    let call = peers::plugd_unary("echo", b"x", b"x");
    let plugins = "[plugins.echo]\n[plugins.upper]\n";
    let idle_kib = Peer::start(Peer::plugd_command(plugd, dir, plugins)).resident_kib();
    let raw = Peer::start(Peer::own_command(&["serve-raw"]));
    let (raw_bytes_per_connection, raw_beside_ratio) = hold(&raw, &peers::raw(b"x"));
    drop(raw);
    let peer = Peer::start(Peer::plugd_command(plugd, dir, plugins));
    let (plugd_bytes_per_connection, plugd_beside_ratio) = hold(&peer, &call);
    Still {
        connections: CONNECTIONS,
        plugd_bytes_per_connection,
        raw_bytes_per_connection,
        plugd_beside_ratio,
        raw_beside_ratio,
        first_answer_ms: median((0..STARTS).map(|_| first_answer_ms(plugd, dir, &call)).collect()),
        idle_kib,
        plugd_bytes: stripped_len(plugd, dir),
        plug_bytes: stripped_len(plug, dir),
    }
}

/// Holds idle connections, each of which was answered once, and measures fresh calls beside them.
fn hold(peer: &Peer, dialect: &Dialect) -> (u64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let before = peer.resident_kib();
    let fresh = || median((0..FRESH_RUNS).map(|_| load::run(peer.address, dialect, Load::fresh(1)).rate()).collect());
    let alone_before = fresh();
    let held: Vec<TcpStream> = runtime.block_on(async {
        let mut held = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            held.push(answered(peer.address, dialect).await);
        }
        held
    });
    let bytes_each = (peer.resident_kib() - before) * 1024 / CONNECTIONS as u64;
    let beside = fresh();
    drop(held);
    // A machine that became slower or faster meanwhile shows afterwards.
    (bytes_each, beside * 2.0 / (alone_before + fresh()))
}

async fn answered(address: SocketAddr, dialect: &Dialect) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a listening peer");
    stream.write_all(&[&dialect.hello[..], &dialect.request].concat()).await.expect("an open connection");
    let mut answer = vec![0; dialect.welcome.len() + dialect.answer.len()];
    stream.read_exact(&mut answer).await.expect("an answer");
    stream
}

fn first_answer_ms(plugd: &Path, dir: &Path, call: &Dialect) -> f64 {
    let begun = Instant::now();
    let peer = Peer::start(Peer::plugd_command(plugd, dir, "[plugins.echo]\n[plugins.upper]\n"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(answered(peer.address, call));
    begun.elapsed().as_secs_f64() * 1e3
}

fn stripped_len(program: &Path, dir: &Path) -> u64 {
    let stripped = dir.join("stripped");
    let done = Command::new("strip").arg("-o").arg(&stripped).arg(program).status().expect("strip, of binutils");
    assert!(done.success());
    std::fs::metadata(stripped).expect("a stripped program").len()
}
