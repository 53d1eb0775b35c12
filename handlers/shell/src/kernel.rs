//! The four things that the kernel offers to a process that starts others and that neither std nor rustix has safe words for.
//!
//! It is the only module of the workspace with `unsafe` in it. Why it cannot be done without:
//!
//! - Limits, a session, a terminal, another user and a sandbox take effect between `fork` and `exec`, where only
//!   [`CommandExt::pre_exec`] lets code run, and that is `unsafe` by its nature. It is used only for commands that need it;
//!   all others are started by `posix_spawn`.
//! - What a process used comes from wait4(2) alone: once it is reaped nothing knows, and `/proc` has no peak of its memory
//!   after it has ended. rustix and nix wait without it.
//! - Descriptors that the server inherited itself have no owner in Rust, so that only close_range(2) can mark them all.
//! - tokio waits for descriptors other than its own only after a promise that they stay open, which `unsafe` is the word for.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What a process used, with all of its children that it waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time, the kernel's on its behalf included.
    pub(crate) cpu: Duration,
    /// The most memory that one of the processes had at once, in KiB. The kernel counts what the server itself had when it
    /// started the process.
    pub(crate) peak_kib: u64,
}

/// Lets `steps` run in the new process, right before it becomes the command. They may call the kernel and nothing else: no
/// memory is taken or given back, no lock is waited for.
pub(crate) fn before_exec(command: &mut Command, steps: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: after `fork` only async-signal-safe work is allowed, since another thread may have held a lock. The only
    // caller, `Confinement::apply`, passes a closure that makes plain system calls by rustix and landlock on values that
    // it owns, and returns errors by number.
    unsafe { command.pre_exec(steps) };
}

/// Reaps a child of this process, if it has ended.
///
/// # Errors
///
/// ECHILD when there is no such child.
pub(crate) fn reap(pid: Pid) -> io::Result<Option<(ExitStatus, Usage)>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to memory of the right size that lives through the call; the kernel only writes to it.
    let found = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &mut status, libc::WNOHANG, usage.as_mut_ptr()) };
    match found {
        0 => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        _ => {
            // SAFETY: an rusage holds numbers only, for which zeros, as set above, are good values.
            let usage = unsafe { usage.assume_init() };
            let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
            let peak_kib = u64::try_from(usage.ru_maxrss).unwrap_or_default();
            Ok(Some((ExitStatus::from_raw(status), Usage { cpu, peak_kib })))
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
}

/// Keeps what this process has open from the programs that it starts, also what it was itself started with. Kernels before
/// Linux 5.11 cannot, and then nothing changes: what Rust opens is marked from the start.
pub(crate) fn mark_inherited_descriptors() {
    // SAFETY: the call takes numbers only. The mark changes nothing for who uses a descriptor in this process.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Lets the runtime watch a descriptor.
pub(crate) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open from its making to its drop and says the same number all the time, and the `AsyncFd`
    // owns it until then.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}
