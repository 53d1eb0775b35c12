//! Counts the instructions that a server spends on a message and on a call, and compares them with what was committed.
//!
//! Time is noise on a busy machine; instructions are not. The server runs under callgrind and is driven twice, with few
//! and with many requests, so that the difference holds nothing of starting and stopping.
//!
//!     cargo run -p plugd-tests --bin instructions -- PLUGD [--write]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plugd_core::wire::{FrameHeader, HELLO_LEN, Hello, Kind, Open};

/// What was committed: a name and a number on each line.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions/counts.txt");

/// How much a count may grow before it is a failure.
const GROWTH_MAX: f64 = 1.05;

/// Requests in flight at once, as in the benchmark's busiest row.
const PIPELINE: usize = 16;

const FEW: usize = 100 * PIPELINE;
const MANY: usize = 1_100 * PIPELINE;

/// What is sent over and over, and must be answered.
struct Work {
    name: &'static str,
    hello: Vec<u8>,
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(plugd) = args.first().map(PathBuf::from) else {
        eprintln!("usage: instructions PLUGD [--write]");
        return ExitCode::from(2);
    };
    let counts: Vec<(&str, u64)> = works().iter().map(|work| (work.name, count(&plugd, work))).collect();
    if args.iter().any(|arg| arg == "--write") {
        let text: String = counts.iter().map(|(name, count)| format!("{name} {count}\n")).collect();
        std::fs::write(COMMITTED, text).expect("a writable checkout");
    }
    let committed = std::fs::read_to_string(COMMITTED).expect("the committed counts");
    let grown = counts.iter().filter(|(name, count)| has_grown(name, *count, &committed)).count();
    if grown == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn works() -> [Work; 3] {
    let hello = Hello { data_len_max: 1 << 20 }.encode().to_vec();
    let open = |command: &str| frame(Kind::Open, &Open::new(command).encode());
    let data = frame(Kind::Data, &[b'x'; 64]);
    let upper = frame(Kind::Data, &[b'X'; 64]);
    let call = |command| [&open(command)[..], &data, &frame(Kind::EndOfInput, b"")].concat();
    let end = frame(Kind::End, b"");
    [
        Work {
            name: "echo-message",
            hello: [&hello[..], &open("echo")].concat(),
            request: data.clone(),
            answer: data.clone(),
        },
        Work { name: "echo-call", hello: hello.clone(), request: call("echo"), answer: [&data[..], &end].concat() },
        Work { name: "upper-call", hello: hello.clone(), request: call("upper"), answer: [&upper[..], &end].concat() },
    ]
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    [&FrameHeader::new(kind, payload.len() as u32).encode()[..], payload].concat()
}

/// Instructions for one request.
fn count(plugd: &Path, work: &Work) -> u64 {
    let [few, many] = [FEW, MANY].map(|requests| total(plugd, work, requests));
    (many - few) / (MANY - FEW) as u64
}

/// Instructions of a whole server that answers `requests` requests on one connection.
fn total(plugd: &Path, work: &Work, requests: usize) -> u64 {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = dir.path().join("plugins.toml");
    std::fs::write(&config, "[server]\nlog = \"warn\"\nworkers = 1\n[plugins.echo]\n[plugins.upper]\n")
        .expect("a file");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(plugd);
    valgrind.args(["--listen", "tcp://127.0.0.1:0", "--config"]).arg(&config);
    let mut server = valgrind
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind, which `apt-get install valgrind` installs");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line of text");
    drive(line.trim_end().rsplit('/').next().expect("split yields at least one part"), work, requests);
    kill(Pid::from_raw(server.id() as i32), Signal::SIGTERM).expect("a running server");
    let output = server.wait_with_output().expect("a child");
    let log = String::from_utf8_lossy(&output.stderr);
    let collected = log.lines().find_map(|line| line.split_once("Collected : "));
    collected.and_then(|(_, count)| count.trim().parse().ok()).unwrap_or_else(|| panic!("no count in {log}"))
}

fn drive(address: &str, work: &Work, requests: usize) {
    let mut stream = TcpStream::connect(address).expect("a listening server");
    stream.set_nodelay(true).expect("a connected socket");
    stream.write_all(&work.hello).expect("an open connection");
    stream.read_exact(&mut [0; HELLO_LEN]).expect("a hello");
    let (batch, expected) = (work.request.repeat(PIPELINE), work.answer.repeat(PIPELINE));
    let mut found = vec![0; expected.len()];
    for _ in 0..requests / PIPELINE {
        stream.write_all(&batch).expect("an open connection");
        stream.read_exact(&mut found).expect("answers");
        assert!(found == expected, "a wrong answer to {}", work.name);
    }
}

fn has_grown(name: &str, count: u64, committed: &str) -> bool {
    let known = committed.lines().filter_map(|line| line.split_once(' ')).find(|(known, _)| *known == name);
    let Some(known) = known.and_then(|(_, count)| count.parse::<u64>().ok()) else {
        println!("{name}: {count} instructions, nothing committed; run with --write");
        return true;
    };
    let ratio = count as f64 / known as f64;
    let verdict = if ratio > GROWTH_MAX { "GROWN" } else { "fine" };
    println!("{name}: {count} instructions, {known} committed, ratio {ratio:.3}: {verdict}");
    ratio > GROWTH_MAX
}
