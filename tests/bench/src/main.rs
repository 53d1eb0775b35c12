//! Measures plugd beside the raw limits of the machine and what users would pick instead.
//!
//!     tests/bench/run [--only TEXT] [--seconds N]

mod facts;
mod load;
mod moving;
mod peers;
mod report;
mod rows;
mod still;
mod syscalls;
mod transfer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use report::Report;
use rows::Peers;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("serve-raw") => return peers::raw::serve(),
        Some("serve-sendfile") => return peers::sendfile::serve(args[1].as_ref()),
        Some("serve-sink") => return moving::serve_sink(),
        Some("serve-grpc") => return peers::grpc::serve(),
        _ => {}
    }
    let option = |name: &str| args.iter().position(|arg| arg == name).and_then(|at| args.get(at + 1));
    let programs: PathBuf = option("--programs").expect("--programs DIR, which holds plugd and plug").into();
    let out: PathBuf = option("--out").map_or_else(|| ".".into(), PathBuf::from);
    let only = option("--only").cloned().unwrap_or_default();
    let seconds = option("--seconds").map_or(1.0, |seconds| seconds.parse().expect("--seconds takes a number"));

    let (plugd, plug) = (programs.join("plugd"), programs.join("plug"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let peers = Peers::start(&plugd, dir.path());
    let mut results = Vec::new();
    for row in rows::rows(&peers).into_iter().filter(|row| row.name.contains(&only)) {
        eprintln!("measuring: {}", row.name);
        results.push(row.measure(&peers, Duration::from_secs_f64(seconds)));
    }
    drop(peers);
    let still = (only.is_empty() || only == "still").then(|| {
        eprintln!("measuring: a still server");
        still::measure(&plugd, &plug, dir.path())
    });
    let moved = moving::measure(&plugd, &plug, dir.path(), &only);
    let mut facts = facts::facts(&plugd);
    let mut syscalls = BTreeMap::new();
    if only.is_empty() || only == "syscalls" {
        eprintln!("measuring: system calls");
        match syscalls::measure(&plugd, dir.path()) {
            Ok(counts) => syscalls = counts,
            Err(why) => facts.push(("system calls", format!("not counted: {why}"))),
        }
    }
    let report = Report { facts, rounds: rows::ROUNDS, rows: results, moved, still, syscalls };
    // A part of the rows must not replace the figures of a whole run.
    if only.is_empty() {
        report.write(&out).expect("a writable directory");
    }
    print!("{}", report.table());
}
