//! Measures plugd beside the raw limits of the machine and what users would pick instead.
//!
//!     tests/bench/run [--only TEXT] [--seconds N]

mod facts;
mod frames;
mod load;
mod moving;
mod peers;
mod report;
mod rows;
mod running;
mod still;
mod syscalls;
mod timed;
mod transfer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use report::Report;
use rows::Peers;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, args @ ..] = &args[..]
        && let Some(exit) = play(role, args)
    {
        return exit;
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
    let ran = running::measure(&plugd, &plug, dir.path(), &only, Duration::from_secs_f64(seconds));
    let mut facts = facts::facts(&plugd);
    let mut syscalls = BTreeMap::new();
    if only.is_empty() || only == "syscalls" {
        eprintln!("measuring: system calls");
        match syscalls::measure(&plugd, dir.path()) {
            Ok(counts) => syscalls = counts,
            Err(why) => facts.push(("system calls", format!("not counted: {why}"))),
        }
    }
    let report = Report { facts, rounds: rows::ROUNDS, rows: results, moved, ran, still, syscalls };
    // A part of the rows must not replace the figures of a whole run.
    if only.is_empty() {
        report.write(&out).expect("a writable directory");
    }
    print!("{}", report.table());
    ExitCode::SUCCESS
}

/// Is one of the peers until it ends or is killed; `None` when none has this name.
fn play(role: &str, args: &[String]) -> Option<ExitCode> {
    match role {
        "exec-bare" => return Some(running::client_main(args)),
        "serve-raw" => peers::raw::serve(),
        "serve-sendfile" => peers::sendfile::serve(args[0].as_ref()),
        "serve-sink" => moving::serve_sink(),
        "serve-grpc" => peers::grpc::serve(),
        "serve-exec" => peers::exec::serve(),
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}
