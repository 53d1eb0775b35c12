//! A command from its start to the end of the last process that it started.

use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::family::{self, CommandId};
use crate::cgroup::Cgroup;
use crate::kernel::{self, Usage};

/// How long the kernel may take to end what was killed, before it is given up: a process that waits for a disk or for a
/// server of files cannot be ended by anybody.
const KILL_TIME: Duration = Duration::from_secs(2);

/// How long a task may be kept waiting where a command is dropped, for the same.
const DROP_TIME: Duration = Duration::from_millis(100);

/// How long is waited between two looks at what is left.
const LOOK_PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(20)];

/// How long is waited between two looks at what ended commands left behind.
const SWEEP_PAUSE: Duration = Duration::from_millis(500);

/// A command that runs, or has ended and was not reaped yet. Dropped, it is killed with everything that it started.
#[derive(Debug)]
pub(crate) struct Running {
    id: CommandId,
    leader: Pid,
    pidfd: AsyncFd<OwnedFd>,
    cgroup: Option<Cgroup>,
    is_finished: bool,
}

/// A way to signal a command from elsewhere. Once the command has ended it leads nowhere.
#[derive(Debug)]
pub(crate) struct Wake(CommandId);

impl Wake {
    /// Kills everything of the command; who follows it notices.
    pub(crate) fn kill(&self) {
        family::with(|family| family.signal(self.0, Signal::KILL));
    }

    /// Sends a signal to the group that the command began with.
    pub(crate) fn signal(&self, signal: Signal) {
        family::with(|family| family.signal_group(self.0, signal));
    }
}

impl Running {
    /// Starts a command; `spawn` is given the mark for its environment and returns the number of its first process.
    pub(crate) fn start(cgroup: Option<Cgroup>, spawn: impl FnOnce(&str) -> io::Result<Pid>) -> io::Result<Running> {
        let (id, leader) = family::with(|family| family.start(spawn))?;
        let pidfd = pidfd_open(leader, PidfdFlags::empty()).map_err(io::Error::from);
        match pidfd.and_then(|pidfd| kernel::watch(pidfd, Interest::READABLE)) {
            Ok(pidfd) => Ok(Running { id, leader, pidfd, cgroup, is_finished: false }),
            Err(error) => {
                family::with(|family| {
                    family.signal(id, Signal::KILL);
                    family.forget(id, false);
                });
                Err(error)
            }
        }
    }

    /// The number of the command's first process.
    pub(crate) fn pid(&self) -> Pid {
        self.leader
    }

    /// What may signal it from elsewhere.
    pub(crate) fn wake(&self) -> Wake {
        Wake(self.id)
    }

    /// Waits for the command's first process, and leaves it to be reaped by [`Running::finish`].
    pub(crate) async fn exited(&self) {
        // A descriptor of a process never fails to tell; if it did, the end of the output would be the command's.
        let _ = self.pidfd.readable().await;
    }

    /// Sends a signal to everything of the command.
    pub(crate) fn signal(&self, signal: Signal) {
        family::with(|family| family.signal(self.id, signal));
    }

    /// Asks everything to end. What was stopped goes on, or it could not.
    pub(crate) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    /// The processor time that was used so far.
    pub(crate) fn cpu(&self) -> Duration {
        family::with(|family| family.cpu(self.id))
    }

    /// Whether processes live that the command left behind.
    pub(crate) fn has_orphans(&self) -> bool {
        family::with(|family| !family.orphans(self.id).is_empty())
    }

    /// Waits for everything to end by itself, for `time` at the most.
    pub(crate) async fn all_gone(&self, time: Duration) {
        let deadline = Instant::now() + time;
        if timeout_at(deadline, self.exited()).await.is_err() {
            return;
        }
        let mut pause = LOOK_PAUSES[0];
        while self.has_orphans() && Instant::now() < deadline {
            sleep(pause).await;
            pause = LOOK_PAUSES[1].min(2 * pause);
        }
    }

    /// Kills what is left, and reaps the command. `None` when not even that ended it.
    pub(crate) async fn finish(&mut self) -> Option<(ExitStatus, Usage)> {
        let deadline = Instant::now() + KILL_TIME;
        let mut pause = LOOK_PAUSES[0];
        loop {
            if let Some(ended) = self.try_finish() {
                return Some(ended);
            }
            if Instant::now() >= deadline {
                warn!(pid = %self.leader, "a command, or what it left behind, cannot be killed");
                self.is_finished = true;
                family::with(|family| family.forget(self.id, false));
                keep_sweeping();
                return None;
            }
            sleep(pause).await;
            pause = LOOK_PAUSES[1].min(2 * pause);
        }
    }

    /// Reaps the command when nothing of it lives, or kills what does.
    fn try_finish(&mut self) -> Option<(ExitStatus, Usage)> {
        let (ended, needs_sweep) = family::with(|family| {
            // The leader is reaped last: as long as it is not, its number stands for nobody else.
            let ended = match has_ended(&self.pidfd) && family.orphans(self.id).is_empty() {
                true => kernel::reap(self.leader).ok().flatten(),
                false => None,
            };
            match ended {
                Some(_) => family.forget(self.id, true),
                None => family.signal(self.id, Signal::KILL),
            }
            (ended, family.needs_sweep())
        });
        if ended.is_some() {
            self.is_finished = true;
            if needs_sweep {
                keep_sweeping();
            }
        } else if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        ended
    }
}

/// Whether the process has ended, asked without waiting.
fn has_ended(pidfd: &AsyncFd<OwnedFd>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let mut fds = [PollFd::new(pidfd.get_ref(), PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // Here nobody can wait, and yet nothing may be left: death by SIGKILL takes less than a millisecond.
        let start = Instant::now();
        while self.try_finish().is_none() && start.elapsed() < DROP_TIME {
            std::thread::sleep(LOOK_PAUSES[0]);
        }
        if !self.is_finished {
            family::with(|family| family.forget(self.id, false));
            keep_sweeping();
        }
    }
}

/// Looks after what ended commands left behind, in a task of its own, until nothing is left.
fn keep_sweeping() {
    static IS_SWEEPING: AtomicBool = AtomicBool::new(false);

    struct Sweeping;
    impl Drop for Sweeping {
        fn drop(&mut self) {
            IS_SWEEPING.store(false, Ordering::Release);
        }
    }

    let Ok(runtime) = Handle::try_current() else { return };
    if IS_SWEEPING.swap(true, Ordering::AcqRel) {
        return;
    }
    let sweeping = Sweeping;
    runtime.spawn(async move {
        while family::with(|family| family.sweep()) {
            sleep(SWEEP_PAUSE).await;
        }
        drop(sweeping);
    });
}
