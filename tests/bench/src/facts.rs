//! What it was measured on, and with which peers.

use std::path::Path;
use std::process::Command;

/// Programs that take part where they are installed: the peer or tool, how it tells its version, the package it is in.
const OPTIONAL: [(&str, [&str; 2], &str); 7] = [
    ("redis", ["redis-server", "--version"], "redis-server"),
    ("nginx", ["nginx", "-v"], "nginx-light"),
    ("python", ["python3", "--version"], "python3"),
    ("curl", ["curl", "--version"], "curl"),
    ("rsync", ["rsync", "--version"], "rsync"),
    ("ssh, sftp", ["ssh", "-V"], "openssh-server openssh-client"),
    ("strace", ["strace", "--version"], "strace"),
];

/// Names and values, in the order in which they are shown.
pub fn facts(plugd: &Path) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("processors", processors()),
        ("memory", memory()),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("congestion control, of all peers", read("/proc/sys/net/ipv4/tcp_congestion_control")),
        ("plugd", version(Command::new(plugd).arg("--version")).expect("plugd tells its version")),
        ("raw", format!("tokio {}", locked("tokio"))),
        ("tonic", locked("tonic").to_owned()),
    ];
    for (name, [program, argument], package) in OPTIONAL {
        let version = version(Command::new(program).arg(argument));
        let missing = || format!("not installed, so it does not take part: apt-get install {package}");
        facts.push((name, version.unwrap_or_else(missing)));
    }
    facts
}

/// The first word that looks like a version in what a program says; `None` where it cannot be started.
fn version(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let mut words = said.split([' ', '\n', '/', '=']);
    let is_version = |word: &&str| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit());
    Some(words.find(is_version).unwrap_or("of unknown version").to_owned())
}

/// The version of a crate that this program was built with.
fn locked(name: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let (_, after) = lock.split_once(&format!("name = \"{name}\"\nversion = \"")).expect("a dependency");
    after.split('"').next().expect("split yields at least one part")
}

fn processors() -> String {
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{count} x {}", model.trim_start_matches(['\t', ':', ' ']))
}

fn memory() -> String {
    let meminfo = read("/proc/meminfo");
    let kib = meminfo.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default();
    format!("{:.1} GiB", kib / 1048576.0)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
