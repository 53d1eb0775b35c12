//! Files moved by whole programs, as their users start them, beside the least that moving them can take.

mod bare;
mod programs;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bare::Sink;
pub use bare::serve as serve_sink;
use programs::{Programs, SMALL_DIR};

use crate::rows::{ROUNDS, Reach};
use crate::timed::Timed;

/// The length of the one large file, in bytes.
pub const LARGE_LEN: u64 = 1 << 30;

/// How many small files there are, and how long each is, in bytes.
const SMALL: (usize, usize) = (10_000, 4 << 10);

/// How many small files share a directory.
const SMALL_IN_DIRECTORY: usize = 100;

/// One kind of work.
struct Task {
    name: &'static str,
    reach: Reach,
    movers: Vec<Mover>,
}

/// Who does it.
struct Mover {
    name: &'static str,
    /// What is removed before each time, so that it has to be made.
    target: Option<PathBuf>,
    /// Done before the time is taken.
    before: fn(&Path),
    act: Act,
}

enum Act {
    Run(Vec<Command>),
    Receive(std::net::SocketAddr),
    Send { sink: std::net::SocketAddr, durable: bool },
}

/// Measures each kind of work whose name contains `only`.
pub fn measure(plugd: &Path, plug: &Path, dir: &Path, only: &str) -> Vec<Timed> {
    if !NAMES.iter().any(|name| name.contains(only)) {
        return Vec::new();
    }
    let programs = Programs::start(plugd, plug, &dir.join("moving"));
    let mut moved = Vec::new();
    for mut task in tasks(&programs).into_iter().filter(|task| task.name.contains(only)) {
        eprintln!("measuring: {}", task.name);
        moved.push(task.measure(&programs));
    }
    moved
}

const NAMES: [&str; 11] = [
    "plug get",
    "plug get to /dev/null",
    "plug get, BLAKE3",
    "plug get, BLAKE3 known",
    "plug get, MD5",
    "plug get, MD5 known",
    "plug put",
    "plug put, BLAKE3",
    "plug put, durable",
    "plug get -r",
    "plug put -r",
];

fn tasks(all: &Programs) -> Vec<Task> {
    let [get, to_null, blake3, blake3_known, md5, md5_known, put, put_blake3, durable, get_tree, put_tree] = NAMES;
    let received = |name| Task::new(name).bare("bare", all.got("bare"), Act::Receive(all.sendfile.address));
    let sent = |name, durable| {
        let sink = all.sink.address;
        Task::new(name).bare("bare", all.got("sunk"), Act::Send { sink, durable })
    };
    vec![
        received(get)
            .plug(all.got("plug"), all.plug_get("none"))
            .and("nginx + curl", all.got("curl"), all.curl())
            .and("rsync", all.got("rsync"), all.rsync_get())
            .and("sftp", all.got("sftp"), all.sftp_get())
            .reach([("bare", 0.9), ("nginx + curl", 2.3), ("rsync", 1.5), ("sftp", 2.5)]),
        Task::new(to_null)
            .mover("bare", None, Act::Receive(all.sendfile.address))
            .mover("plug", None, Act::Run(vec![all.plug_get_to_stdout()]))
            .reach([("bare", 0.95)]),
        received(blake3).plug(all.got("plug"), all.plug_get("blake3")).forgotten().reach([("bare", 0.8)]),
        received(blake3_known).plug(all.got("plug"), all.plug_get("blake3")).reach([("bare", 0.85)]),
        all.md5sum(md5).plug(all.got("plug"), all.plug_get("md5")).forgotten().reach([("md5sum", 0.75)]),
        all.md5sum(md5_known).plug(all.got("plug"), all.plug_get("md5")).reach([("md5sum", 0.9)]),
        sent(put, false)
            .plug(all.served("put"), all.plug_put("none", "none"))
            .and("rsync", all.served("rsync"), all.rsync_put())
            .reach([("bare", 0.9), ("rsync", 1.3)]),
        sent(put_blake3, false).plug(all.served("put"), all.plug_put("blake3", "none")).reach([("bare", 0.8)]),
        sent(durable, true).plug(all.served("put"), all.plug_put("none", "file")).reach([("bare", 0.9)]),
        Task::new(get_tree)
            .and("cp", all.got("cp"), all.cp())
            .plug(all.got("tree"), all.plug_get_tree())
            .and("rsync", all.got("rsynced"), all.rsync_get_tree())
            .and("tar + ssh", all.got(SMALL_DIR), all.tar_ssh_get())
            .and("sftp", all.got(SMALL_DIR), all.sftp_get_tree())
            .reach(TREE_REACH),
        Task::new(put_tree)
            .and("cp", all.got("cp"), all.cp())
            .plug(all.served("tree"), all.plug_put_tree())
            .and("rsync", all.served("rsynced"), all.rsync_put_tree())
            .and("tar + ssh", all.got(SMALL_DIR), all.tar_ssh_put())
            .and("sftp", all.got(SMALL_DIR), all.sftp_put_tree())
            .reach(TREE_REACH),
    ]
}

const TREE_REACH: [(&str, f64); 4] = [("cp", 0.6), ("rsync", 1.5), ("tar + ssh", 1.0), ("sftp", 15.0)];

impl Task {
    fn new(name: &'static str) -> Task {
        Task { name, reach: Reach::new(), movers: Vec::new() }
    }

    fn reach<const N: usize>(self, reach: [(&'static str, f64); N]) -> Task {
        Task { reach: reach.into(), ..self }
    }

    fn mover(mut self, name: &'static str, target: Option<PathBuf>, act: Act) -> Task {
        self.movers.push(Mover { name, target, before: |_| {}, act });
        self
    }

    fn bare(self, name: &'static str, target: PathBuf, act: Act) -> Task {
        self.mover(name, Some(target), act)
    }

    fn plug(self, target: PathBuf, command: Command) -> Task {
        self.mover("plug", Some(target), Act::Run(vec![command]))
    }

    /// Nothing when the program is not installed.
    fn and(self, name: &'static str, target: PathBuf, commands: Option<Vec<Command>>) -> Task {
        match commands {
            Some(commands) => self.mover(name, Some(target), Act::Run(commands)),
            None => self,
        }
    }

    /// Makes the server forget what it knows of the file before the latest of them moves it.
    fn forgotten(mut self) -> Task {
        if let Some(mover) = self.movers.last_mut() {
            mover.before = programs::touch;
        }
        self
    }

    fn measure(&mut self, programs: &Programs) -> Timed {
        let mut timed = Timed::new(self.name, self.reach.clone());
        for round in 0..ROUNDS {
            for mover in &mut self.movers {
                timed.add(mover.name, mover.measure(programs, round == 0));
            }
        }
        timed
    }
}

impl Mover {
    /// Removes what is there, takes the time of a move, and looks at what came of it.
    fn measure(&mut self, programs: &Programs, compare: bool) -> f64 {
        if let Some(target) = &self.target {
            programs.clear(target);
        }
        (self.before)(&programs.large());
        let begun = Instant::now();
        self.act.perform(programs, self.target.as_deref());
        let seconds = begun.elapsed().as_secs_f64();
        if let Some(target) = &self.target {
            programs.check(target, compare);
            programs.clear(target);
        }
        seconds
    }
}

impl Act {
    fn perform(&mut self, programs: &Programs, target: Option<&Path>) {
        match self {
            Act::Run(commands) => programs::run(commands),
            Act::Receive(address) => bare::receive(*address, LARGE_LEN, target),
            Act::Send { sink, durable } => {
                let into = target.expect("what is sent comes to lie somewhere").to_owned();
                bare::send(*sink, &programs.large(), &Sink { into, durable: *durable });
            }
        }
    }
}
