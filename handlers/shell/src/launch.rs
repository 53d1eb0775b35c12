//! Starts a command.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use plugd_core::Status;
use rustix::fs::{Access, access};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::cgroup::Cgroup;
use crate::confinement::Confinement;
use crate::process::{MARKER, Running};
use crate::program;
use crate::pty::Pty;
use crate::relay::Outlets;
use crate::request::Plan;
use crate::stdin::Inlet;

/// A command that runs, with the near ends of its streams.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) inlet: Option<Inlet>,
    pub(crate) outlets: Outlets,
    pub(crate) pty: Option<Arc<Pty>>,
    pub(crate) since: Instant,
}

/// The ends of a command's streams: those that it gets, and those that stay here.
struct Streams {
    far: [Stdio; 3],
    inlet: Option<Inlet>,
    outlets: Outlets,
    pty: Option<Arc<Pty>>,
}

/// Starts what is planned.
///
/// # Errors
///
/// Three different reasons why it may not start: `not_found` and `permission_denied` for the program, and
/// `failed_precondition` for the directory; `resource_exhausted` when the server can start no more processes.
pub(crate) fn launch(plan: &Plan, confinement: &Confinement) -> Result<Started, Status> {
    let (name, arguments) = match plan.argv.split_first() {
        Some((name, arguments)) => (name, arguments),
        None => return Err(Status::invalid_argument("bad-argv", "no program in argv")),
    };
    let place = &plan.place;
    // A missing directory and a missing program are the same error of the operating system.
    if !place.cwd.is_dir() || access(&place.cwd, Access::EXEC_OK).is_err() {
        let status = Status::failed_precondition("bad-cwd", "the working directory is missing");
        return Err(status.with_detail(format!("no directory {:?}", place.cwd)));
    }
    let search = place.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
    let path = program::find(name, search, &place.cwd)?;
    let failed = |error: io::Error| program::not_started(name, &error);
    let streams = Streams::open(plan).map_err(failed)?;
    let mut command = Command::new(path);
    command.arg0(name).args(arguments).current_dir(&place.cwd);
    command.env_clear().envs(place.env.iter().map(|(name, value)| (name, value)));
    let [stdin, stdout, stderr] = streams.far;
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    if plan.pty.is_none() {
        command.process_group(0);
    }
    let cgroup = confinement.cgroup.as_deref().map(Cgroup::create).transpose().map_err(failed)?;
    let entrance = cgroup.as_ref().map(Cgroup::entrance).transpose().map_err(failed)?;
    confinement.apply(&mut command, plan.pty.is_some(), entrance).map_err(failed)?;
    let running = Running::start(cgroup, |mark| {
        let child = command.env(MARKER, mark).spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        pid.ok_or_else(|| io::Error::other("a process without a number"))
    });
    // The far ends go with the command: the near ones see the end of a stream only then.
    drop(command);
    let Streams { inlet, outlets, pty, .. } = Streams { far: [Stdio::null(), Stdio::null(), Stdio::null()], ..streams };
    Ok(Started { running: running.map_err(failed)?, inlet, outlets, pty, since: Instant::now() })
}

impl Streams {
    fn open(plan: &Plan) -> io::Result<Streams> {
        let output_max = plan.place.bounds.output_max;
        if let Some(size) = &plan.pty {
            let (pty, slave) = Pty::open(size.rows, size.cols)?;
            let pty = Arc::new(pty);
            let far = [slave.try_clone()?.into(), slave.try_clone()?.into(), slave.into()];
            let inlet = plan.place.stdin.then(|| Inlet::Pty(pty.clone()));
            return Ok(Streams { far, inlet, outlets: Outlets::pty(pty.clone(), output_max), pty: Some(pty) });
        }
        let (stdin, inlet) = match plan.place.stdin {
            true => {
                let (far, near) = pipe()?;
                rustix::io::ioctl_fionbio(&near, true)?;
                (far.into(), Some(Inlet::Pipe(pipe::Sender::from_owned_fd_unchecked(near)?)))
            }
            false => (Stdio::null(), None),
        };
        let (near_stdout, stdout) = pipe()?;
        let (near_stderr, stderr) = pipe()?;
        let outlets = Outlets::pipes(near_stdout, near_stderr, output_max)?;
        Ok(Streams { far: [stdin, stdout.into(), stderr.into()], inlet, outlets, pty: None })
    }
}

/// A pipe: the end to read from, and the end to write to. No other process gets them by accident.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}
