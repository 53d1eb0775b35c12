//! The server under attack, and what must still hold of it afterwards.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::peer::Peer;

/// The limits that the attacks are made against.
const SETTINGS: &str = "\
[server]
listen = [\"tcp://127.0.0.1:0\"]
header_max = \"4KiB\"
header_timeout = \"1s\"
frame_max = \"1MiB\"
empty_frames_max = 10000
body_rate_min = \"1KiB\"
body_rate_grace = \"1s\"
write_timeout = \"2s\"
connections_unidentified_max = 64
connections_per_address_max = 512
connections_max = 512
# The handler that blocks its thread tells so by a file.
landlock = false

[tokens.ci]
hash = \"sha256:cc9e166bc9b27fef921d849864cfca2943c74515c426b15ae61a4153ee42d3d9\"

[plugins.echo]
[plugins.upper]
[plugins.demo]
";

/// The one token that it knows.
pub(crate) const GOOD_TOKEN: &str = "plugd_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

/// How much more memory the server may hold after an attack, in bytes.
const GROWTH_MAX: usize = 32 << 20;

/// How soon a fresh call is answered, whatever went before.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How long the server may take to let go of what an attack held: its timeouts, with room for a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server's program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_plugd-attacked");

/// A running server, and what it was before it was attacked.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    dir: TempDir,
    child: Child,
    before: Use,
}

/// What a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Use {
    resident: usize,
    descriptors: usize,
    children: usize,
}

impl Target {
    pub(crate) fn start() -> Target {
        Target::start_by(Command::new(PROGRAM))
    }

    /// Starts it by a command that becomes its program.
    pub(crate) fn start_by(mut command: Command) -> Target {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("plugins.toml"), SETTINGS).expect("a file");
        let log = std::fs::File::create(dir.path().join("log")).expect("a file");
        command.args(["--log", "info", "--log-format", "json"]).current_dir(dir.path()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("the server's program");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line of text");
        let address = line.trim_end().strip_prefix("plugd listening on tcp://").and_then(|text| text.parse().ok());
        let before = Use { resident: 0, descriptors: 0, children: 0 };
        let mut target = Target { address: address.expect("an address"), dir, child, before };
        let descriptors = target.uses().descriptors;
        // The first call builds what all later ones have, but for descriptors: its own may still be there after it.
        target.echo();
        target.before = Use { descriptors, ..target.uses() };
        target
    }

    /// Everything that was logged so far, an object a line.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = std::fs::read(self.dir.path().join("log")).expect("a file");
        String::from_utf8(text).expect("text").lines().map(str::to_owned).collect()
    }

    /// How much memory the server has taken since it was started, in bytes.
    pub(crate) fn growth(&self) -> usize {
        self.uses().resident.saturating_sub(self.before.resident)
    }

    /// How much processor time the server has taken so far.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a process");
        // The name of the program, which comes before, may hold anything but a closing parenthesis.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<u32>().expect("a number");
        // User and system time (proc_pid_stat(5)), a hundred ticks a second on every Linux.
        Duration::from_millis(10) * (ticks(11) + ticks(12))
    }

    /// What must hold after every attack, when its connections are closed; `panics` of them were the attack itself.
    pub(crate) fn survives(mut self, panics: usize) {
        assert!(self.child.try_wait().expect("a child").is_none(), "the server has ended");
        let begun = Instant::now();
        self.echo();
        assert!(begun.elapsed() < ANSWER_MAX, "a fresh call took {:?}", begun.elapsed());
        let begun = Instant::now();
        let is_back = |now: Use, before: Use| {
            now.descriptors <= before.descriptors
                && now.children == before.children
                && now.resident < before.resident + GROWTH_MAX
        };
        while !is_back(self.uses(), self.before) {
            assert!(
                begun.elapsed() < PATIENCE,
                "before {:?}, and now {:?}; {:#?}",
                self.before,
                self.uses(),
                self.log().iter().rev().take(8).collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let log = self.log();
        // Each panic is an event of its own, in whatever thread it happens.
        for (sign, what) in [("\"target\":\"plugd::panic\"", "panics"), ("\"reason\":\"panic\"", "calls that panicked")]
        {
            assert_eq!(log.iter().filter(|line| line.contains(sign)).count(), panics, "{what}");
        }
        for line in &log {
            assert!(!line.contains("connection failed"), "{line}");
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "no line of JSON: {line}");
        }
    }

    /// A call from the first byte to the last.
    pub(crate) fn echo(&self) {
        let mut peer = Peer::greet(self.address);
        peer.call("echo", b"still here");
        assert_eq!(peer.data(), b"still here");
        assert_eq!(peer.end(), "");
    }

    fn uses(&self) -> Use {
        let root = format!("/proc/{}", self.child.id());
        let status = std::fs::read_to_string(format!("{root}/status")).expect("a process");
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        let children = std::fs::read_to_string(format!("{root}/task/{}/children", self.child.id())).unwrap_or_default();
        Use {
            resident: resident.map_or(0, |kib: usize| kib << 10),
            descriptors: std::fs::read_dir(format!("{root}/fd")).expect("a process").count(),
            children: children.split_whitespace().count(),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
