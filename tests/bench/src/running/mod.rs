//! Commands run by plugd beside the least that running them for somebody else can take, and beside ssh.

mod client;
mod programs;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use client::Client;
pub use client::main as client_main;

use crate::peers::sshd::{AES, Kept, Sshd};
use crate::peers::{self, Peer};
use crate::rows::{ROUNDS, Reach, median};
use crate::timed::Timed;

/// How much the command with much output prints, in bytes.
const OUTPUT_LEN: u64 = 1_000_000_000;

/// How many turns a round has.
const TURNS: u32 = 20;

const TRUE: [&str; 1] = ["true"];

const MUCH: [&str; 4] = ["head", "-c", "1000000000", "/dev/zero"];

const NAMES: [&str; 3] = ["plug exec, kept connection", "plug exec -- true", "plug exec, 1 GB"];

/// One kind of work.
struct Task {
    name: &'static str,
    reach: Reach,
    runners: Vec<(&'static str, Way)>,
}

/// How a command is run.
enum Way {
    /// By a call on a connection that stays.
    Call { client: Client, request: Vec<u8> },
    /// By a program that is started for it, and writes so much.
    Program { command: Command, output_len: u64 },
}

/// The peers of one run; ssh where it is installed.
struct Peers {
    plug: PathBuf,
    plugd: Peer,
    bare: Peer,
    kept: Option<Kept>,
    sshd: Option<Sshd>,
}

/// Measures each kind of work whose name contains `only`, for `duration` in each round.
pub fn measure(plugd: &Path, plug: &Path, dir: &Path, only: &str, duration: Duration) -> Vec<Timed> {
    if !NAMES.iter().any(|name| name.contains(only)) {
        return Vec::new();
    }
    let peers = Peers::start(plugd, plug, &dir.join("running"));
    let tasks = tasks(&peers).into_iter().filter(|task| task.name.contains(only));
    tasks
        .map(|mut task| {
            eprintln!("measuring: {}", task.name);
            task.measure(duration)
        })
        .collect()
}

fn tasks(all: &Peers) -> Vec<Task> {
    let [kept, whole, much] = NAMES;
    vec![
        Task::new(kept)
            .and("bare", Way::call(Client::bare(all.bare.address), peers::exec::request(&TRUE)))
            .and("plug", Way::call(Client::plugd(all.plugd.address), plugd_request(&TRUE)))
            // At most 1.15 of its time.
            .reach([("bare", 0.87)]),
        Task::new(whole)
            .and("bare", Way::program(all.bare(&TRUE), 0))
            .and("plug", Way::program(all.plug(&TRUE), 0))
            .and_if("ssh", all.ssh(None, &TRUE).map(|command| Way::program(command, 0)))
            .and_if("ssh, kept", all.ssh_kept(&TRUE).map(|command| Way::program(command, 0)))
            .reach([("ssh", 50.0), ("ssh, kept", 4.0)]),
        Task::new(much)
            .and("bare", Way::program(all.bare(&MUCH), OUTPUT_LEN))
            .and("plug", Way::program(all.plug(&MUCH), OUTPUT_LEN))
            .and_if("ssh", all.ssh(None, &MUCH).map(|command| Way::program(command, OUTPUT_LEN)))
            .and_if("ssh, aes128-gcm", all.ssh(Some(AES), &MUCH).map(|command| Way::program(command, OUTPUT_LEN)))
            .reach([("bare", 0.95), ("ssh", 3.5), ("ssh, aes128-gcm", 2.4)]),
    ]
}

fn plugd_request(argv: &[&str]) -> Vec<u8> {
    peers::plugd_call("shell.exec", &serde_json::json!({ "argv": argv }).to_string())
}

impl Peers {
    fn start(plugd: &Path, plug: &Path, dir: &Path) -> Peers {
        std::fs::create_dir_all(dir).expect("a writable directory");
        let plugins = "[plugins.shell]\naccess.allow = [\"net:127.0.0.0/8\"]\nconfig = { allow_any_command = true }\n";
        let sshd = Sshd::start(&dir.join("ssh"));
        Peers {
            plug: plug.to_owned(),
            plugd: Peer::start(Peer::plugd_command(plugd, dir, plugins)),
            bare: Peer::start(Peer::own_command(&["serve-exec"])),
            kept: sshd.as_ref().map(Sshd::keep),
            sshd,
        }
    }

    fn bare(&self, argv: &[&str]) -> Command {
        let mut command = Peer::own_command(&["exec-bare", &self.bare.address.to_string()]);
        command.args(argv);
        command
    }

    fn plug(&self, argv: &[&str]) -> Command {
        let mut command = Command::new(&self.plug);
        command.args(["exec", "--server", &self.plugd.address.to_string(), "--"]).args(argv);
        command
    }

    /// Over a connection of its own.
    fn ssh(&self, cipher: Option<&str>, argv: &[&str]) -> Option<Command> {
        let mut command = self.sshd.as_ref()?.command("ssh", cipher);
        command.arg("127.0.0.1").args(argv);
        Some(command)
    }

    /// Over a connection that is there.
    fn ssh_kept(&self, argv: &[&str]) -> Option<Command> {
        let mut command = self.sshd.as_ref()?.command("ssh", None);
        command.arg("-S").arg(&self.kept.as_ref()?.socket).arg("127.0.0.1").args(argv);
        Some(command)
    }
}

impl Task {
    fn new(name: &'static str) -> Task {
        Task { name, reach: Reach::new(), runners: Vec::new() }
    }

    fn reach<const N: usize>(self, reach: [(&'static str, f64); N]) -> Task {
        Task { reach: reach.into(), ..self }
    }

    fn and(mut self, name: &'static str, way: Way) -> Task {
        self.runners.push((name, way));
        self
    }

    /// Nothing when the program is not installed.
    fn and_if(self, name: &'static str, way: Option<Way>) -> Task {
        match way {
            Some(way) => self.and(name, way),
            None => self,
        }
    }

    /// Measures every way in turn, round by round.
    fn measure(&mut self, duration: Duration) -> Timed {
        for (_, way) in &mut self.runners {
            way.check();
        }
        let mut timed = Timed::new(self.name, self.reach.clone());
        for _ in 0..ROUNDS {
            for (name, seconds) in self.round(duration) {
                timed.add(name, median(seconds));
            }
        }
        timed
    }

    /// The seconds of each run of one round. They take turns of a part of the time each, since what a process costs
    /// changes within seconds; each has one run at least.
    fn round(&mut self, duration: Duration) -> Vec<(&'static str, Vec<f64>)> {
        let mut seconds: Vec<_> = self.runners.iter().map(|(name, _)| (*name, Vec::new())).collect();
        for turn in 1..=TURNS {
            for ((_, way), (_, seconds)) in self.runners.iter_mut().zip(&mut seconds) {
                while seconds.iter().sum::<f64>() < (duration * turn / TURNS).as_secs_f64() {
                    seconds.push(way.time());
                }
            }
        }
        seconds
    }
}

impl Way {
    fn call(client: Client, request: Vec<u8>) -> Way {
        Way::Call { client, request }
    }

    fn program(command: Command, output_len: u64) -> Way {
        Way::Program { command, output_len }
    }

    /// Runs once, and looks at all that comes of it.
    fn check(&mut self) {
        match self {
            Way::Call { .. } => drop(self.time()),
            Way::Program { command, output_len } => programs::check(command, *output_len),
        }
    }

    /// The seconds of one run that did what it should.
    fn time(&mut self) -> f64 {
        match self {
            Way::Call { client, request } => {
                let begun = Instant::now();
                let exit = client.run(request, &mut |channel, bytes| panic!("{bytes:?} on channel {channel}"));
                let seconds = begun.elapsed().as_secs_f64();
                assert_eq!(exit, 0, "the exit code of {TRUE:?}");
                seconds
            }
            Way::Program { command, output_len } => programs::time(command, *output_len),
        }
    }
}
