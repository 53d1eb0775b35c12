//! A running command with everything that it starts, so that all of it can be ended together.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;
use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessGroup};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long a command may clean up between SIGTERM and SIGKILL; shorter than the grace that a handler is given.
const TERMINATION_GRACE: Duration = Duration::from_secs(1);

/// A process group, led by the command. Dropped, it is killed, and the runtime reaps the command.
///
/// A process that moves to a group of its own, as a daemon does, is out of reach.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Box<dyn ChildWrapper>,
    /// Whether everything was killed. From then on the number of the group may belong to others.
    is_killed: bool,
}

/// The near ends of a command's three pipes.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) stdin: ChildStdin,
    pub(crate) stdout: ChildStdout,
    pub(crate) stderr: ChildStderr,
}

impl Group {
    /// Starts the command.
    pub(crate) fn spawn(command: Command) -> io::Result<Group> {
        let leader = CommandWrap::from(command).wrap(ProcessGroup::leader()).spawn()?;
        Ok(Group { leader, is_killed: false })
    }

    /// Takes the pipes; they are there once, if all three were asked for.
    pub(crate) fn take_pipes(&mut self) -> Option<Pipes> {
        let (stdin, stdout) = (self.leader.stdin().take()?, self.leader.stdout().take()?);
        Some(Pipes { stdin, stdout, stderr: self.leader.stderr().take()? })
    }

    /// Waits for the command alone, and reaps it. Nothing is lost when the future is dropped.
    ///
    /// Waiting for the whole group would wait for what the command left behind, wherever the server adopts orphans.
    pub(crate) async fn exited(&mut self) -> io::Result<ExitStatus> {
        self.leader.inner_mut().wait().await
    }

    /// Ends the group at once.
    ///
    /// While anything of the group lives its number is taken. When all of it is gone already the signal goes nowhere:
    /// the number comes around again only after all others, and this follows the command's end by a second at most.
    pub(crate) fn kill(&mut self) {
        if !self.is_killed {
            self.is_killed = true;
            // It fails when nothing is left to kill.
            let _ = self.leader.start_kill();
        }
    }

    /// Asks the group to end, and kills what is left when the command is gone or its time is up.
    pub(crate) async fn terminate(&mut self) {
        let _ = self.leader.signal(Signal::SIGTERM as i32);
        let _ = timeout(TERMINATION_GRACE, self.exited()).await;
        self.kill();
        let _ = self.exited().await;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
