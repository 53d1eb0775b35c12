//! Who belongs to which command: the one list of this process's children and of what they left behind.
//!
//! Children belong to a process, and so does this list: it is the one state that plugins share. The process adopts orphans
//! (`PR_SET_CHILD_SUBREAPER`), so that whatever a command starts stays below the command, or becomes our child when its
//! parents have ended. An orphan belongs to the command
//!
//! 1. below which it was seen before,
//! 2. whose group or session it is in,
//! 3. whose mark is in the environment that it began with, or else
//! 4. that alone ran when it began. Where several did, it is ended once all of them have.
//!
//! Other code of the process may have children of its own. They are left alone, as long as they are in this process's own
//! group, began before the command, or were started by another thread than the main one. A zombie whose command is
//! unknown is reaped only when it has been one for a second: who started it would have reaped it by then.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process_group, pidfd_open, pidfd_send_signal, set_child_subreaper,
};

use super::facts::{self, Facts, Identity};
use crate::kernel;

/// The variable that marks the processes of a command.
pub(crate) const MARKER: &str = "PLUGD_CALL";

/// How long a zombie of unknown parents is left for whoever started it.
const ZOMBIE_AGE: Duration = Duration::from_secs(1);

/// Makes this process the parent of every orphan below it. Nothing else of the process changes.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// The number of a command, never used again.
pub(super) type CommandId = u64;

/// A command and those of its processes that were seen below it.
#[derive(Debug)]
struct Member {
    leader: Pid,
    seen: HashSet<Identity>,
    /// The sessions that they made: what starts in one between a look and a signal belongs to it as well.
    sessions: HashSet<i32>,
}

/// The commands that run, and what is left of others.
#[derive(Debug, Default)]
pub(super) struct Family {
    commands: BTreeMap<CommandId, Member>,
    last_id: CommandId,
    /// Orphans that may belong to any of several commands.
    strays: HashMap<Identity, BTreeSet<CommandId>>,
    /// Sessions of commands that have ended, while something of them may still live.
    ended_sessions: HashSet<i32>,
    /// Zombies that may be somebody else's, and since when they are known.
    zombies: HashMap<Identity, Instant>,
    /// Leaders whose command was given up before they could be reaped.
    unreaped: HashSet<Pid>,
}

/// Whose a process is.
enum Owner {
    Command(CommandId),
    /// A command that has ended.
    Ended,
    Several(BTreeSet<CommandId>),
    Unknown,
}

static FAMILY: Mutex<Option<Family>> = Mutex::new(None);

/// Tells this process's commands from those of any other server.
static PROCESS_MARK: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());

/// Runs `work` with the family. No lock is ever waited for within.
pub(super) fn with<T>(work: impl FnOnce(&mut Family) -> T) -> T {
    let mut family: MutexGuard<'_, Option<Family>> = FAMILY.lock().unwrap_or_else(PoisonError::into_inner);
    work(family.get_or_insert_default())
}

impl Family {
    /// Starts a command. The family is locked meanwhile, or a child might be seen before it is known.
    pub(super) fn start<E>(&mut self, spawn: impl FnOnce(&str) -> Result<Pid, E>) -> Result<(CommandId, Pid), E> {
        self.last_id += 1;
        let leader = spawn(&format!("{:016x}-{}", *PROCESS_MARK, self.last_id))?;
        self.commands.insert(self.last_id, Member { leader, seen: HashSet::new(), sessions: HashSet::new() });
        Ok((self.last_id, leader))
    }

    /// How many processes of a command live without its leader as a parent; those that have ended are reaped.
    pub(super) fn orphans(&mut self, id: CommandId) -> Vec<Facts> {
        let mut found = Vec::new();
        for pid in facts::adopted() {
            if self.is_leader(pid) {
                continue;
            }
            let Some(facts) = facts::of(pid) else { continue };
            match self.owner(&facts) {
                Owner::Command(_) | Owner::Ended if facts.is_zombie => drop(kernel::reap(pid)),
                Owner::Command(owner) if owner == id => found.push(facts),
                Owner::Command(_) => {}
                Owner::Ended => self.kill_ended(&facts),
                Owner::Several(commands) => drop(self.strays.entry(facts.identity).or_insert(commands)),
                Owner::Unknown => self.note_zombie(&facts),
            }
        }
        found
    }

    /// Kills what an ended command left behind, with everything below.
    fn kill_ended(&mut self, root: &Facts) {
        let own_session = own_session();
        for process in facts::descendants(root.identity.pid).iter().chain([root]) {
            // Nobody is left to own it.
            self.strays.insert(process.identity, BTreeSet::new());
            if Some(process.session) != own_session {
                self.ended_sessions.insert(process.session);
            }
            signal_one(process.identity, Signal::KILL);
        }
    }

    fn is_leader(&mut self, pid: Pid) -> bool {
        if self.unreaped.contains(&pid) && !matches!(kernel::reap(pid), Ok(None)) {
            self.unreaped.remove(&pid);
            return true;
        }
        self.unreaped.contains(&pid) || self.commands.values().any(|command| command.leader == pid)
    }

    fn owner(&self, facts: &Facts) -> Owner {
        let is_of = |command: &Member| {
            let leader = command.leader.as_raw_nonzero().get();
            command.seen.contains(&facts.identity)
                || facts.group == leader
                || facts.session == leader
                || command.sessions.contains(&facts.session)
        };
        if let Some((id, _)) = self.commands.iter().find(|(_, command)| is_of(command)) {
            return Owner::Command(*id);
        }
        if let Some(suspects) = self.strays.get(&facts.identity) {
            let running: BTreeSet<CommandId> =
                suspects.iter().filter(|id| self.commands.contains_key(id)).copied().collect();
            return suspected(running, Owner::Ended);
        }
        if self.ended_sessions.contains(&facts.session) {
            return Owner::Ended;
        }
        if facts.is_zombie {
            return Owner::Unknown;
        }
        if let Some(id) = marked(facts.identity.pid) {
            return if self.commands.contains_key(&id) { Owner::Command(id) } else { Owner::Ended };
        }
        if Some(facts.group) == facts::of(getpid()).map(|own| own.group) {
            return Owner::Unknown;
        }
        let began_before =
            |leader: Pid| facts::of(leader).is_some_and(|leader| leader.identity.start <= facts.identity.start);
        let suspects: BTreeSet<CommandId> =
            self.commands.iter().filter(|(_, command)| began_before(command.leader)).map(|(id, _)| *id).collect();
        suspected(suspects, Owner::Unknown)
    }

    fn note_zombie(&mut self, facts: &Facts) {
        if !facts.is_zombie {
            return;
        }
        let since = *self.zombies.entry(facts.identity).or_insert_with(Instant::now);
        if since.elapsed() >= ZOMBIE_AGE {
            self.zombies.remove(&facts.identity);
            let _ = kernel::reap(facts.identity.pid);
        }
    }

    /// Sends a signal to everything of a command that can be found. From then on all of it is known, whoever its parents
    /// become.
    pub(super) fn signal(&mut self, id: CommandId, signal: Signal) {
        let Some(leader) = self.commands.get(&id).map(|command| command.leader) else { return };
        let orphans = self.orphans(id);
        let roots = orphans.iter().map(|orphan| orphan.identity.pid).chain([leader]);
        let below: Vec<Facts> = roots.flat_map(facts::descendants).chain(orphans.iter().copied()).collect();
        if let Some(command) = self.commands.get_mut(&id) {
            command.seen.extend(below.iter().map(|facts| facts.identity));
            let own_session = own_session();
            let sessions = below.iter().map(|facts| facts.session).filter(|session| Some(*session) != own_session);
            command.sessions.extend(sessions);
        }
        // The leader is not reaped yet, so that the number of the group is its own.
        let _ = kill_process_group(leader, signal);
        let group = leader.as_raw_nonzero().get();
        for process in below.iter().filter(|process| process.group != group && !process.is_zombie) {
            signal_one(process.identity, signal);
        }
    }

    /// Sends a signal to the group that a command began with, as a shell does.
    pub(super) fn signal_group(&self, id: CommandId, signal: Signal) {
        if let Some(command) = self.commands.get(&id) {
            let _ = kill_process_group(command.leader, signal);
        }
    }

    /// The processor time of everything of a command that can be found.
    pub(super) fn cpu(&mut self, id: CommandId) -> Duration {
        let Some(leader) = self.commands.get(&id).map(|command| command.leader) else { return Duration::ZERO };
        let orphans = self.orphans(id);
        let roots = orphans.iter().map(|orphan| orphan.identity.pid).chain([leader]);
        let below = roots.flat_map(facts::descendants);
        below.chain(orphans.iter().copied()).chain(facts::of(leader)).map(|facts| facts.cpu).sum()
    }

    /// Forgets a command. Its leader is reaped, or will be; a stray that nobody else can own any more is ended.
    pub(super) fn forget(&mut self, id: CommandId, leader_is_reaped: bool) {
        let Some(command) = self.commands.remove(&id) else { return };
        if !leader_is_reaped {
            self.unreaped.insert(command.leader);
        }
        if !self.strays.is_empty() {
            self.sweep();
        }
    }

    /// Reaps and ends what is left of commands that have ended; whether something is still to be waited for.
    pub(super) fn sweep(&mut self) -> bool {
        // No command has this number; everything else is looked after on the way.
        self.orphans(0);
        self.strays.retain(|identity, _| is_there(*identity));
        self.zombies.retain(|identity, _| is_there(*identity));
        if self.strays.is_empty() {
            self.ended_sessions.clear();
        }
        self.needs_sweep()
    }

    /// Whether a sweep would have something to look after.
    pub(super) fn needs_sweep(&self) -> bool {
        !(self.strays.is_empty() && self.zombies.is_empty() && self.unreaped.is_empty())
    }
}

/// Who owns what may belong to any of `suspects`; `nobody` when there are none.
fn suspected(suspects: BTreeSet<CommandId>, nobody: Owner) -> Owner {
    match (suspects.len(), suspects.first()) {
        (1, Some(id)) => Owner::Command(*id),
        (0, _) => nobody,
        _ => Owner::Several(suspects),
    }
}

fn own_session() -> Option<i32> {
    facts::of(getpid()).map(|own| own.session)
}

/// The command whose mark a process carries, when it is one of this process's.
fn marked(pid: Pid) -> Option<CommandId> {
    let mark = facts::variable(pid, MARKER)?;
    let (process, id) = mark.split_once('-')?;
    (u64::from_str_radix(process, 16).ok()? == *PROCESS_MARK).then(|| id.parse().ok())?
}

fn is_there(identity: Identity) -> bool {
    facts::of(identity.pid).is_some_and(|facts| facts.identity == identity)
}

/// Sends a signal to this process and to no other that has its number by now.
fn signal_one(identity: Identity, signal: Signal) {
    if let Ok(pidfd) = pidfd_open(identity.pid, PidfdFlags::empty())
        && is_there(identity)
    {
        let _ = pidfd_send_signal(&pidfd, signal);
    }
}
