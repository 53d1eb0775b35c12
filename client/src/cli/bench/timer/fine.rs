//! The timer of Linux that is a descriptor, which fires with the precision of the kernel, microseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// Fires when a moment has passed that the caller names.
#[derive(Debug)]
pub(crate) struct Timer {
    timer: AsyncFd<Descriptor>,
    /// What it is set to.
    set: Option<Instant>,
}

/// The runtime wants a raw descriptor, which nix does not hand out by that trait.
#[derive(Debug)]
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    pub(crate) fn new() -> io::Result<Timer> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe; a timer keeps its descriptor for as long as it lives"
        )]
        let timer = AsyncFd::new(Descriptor(timer))?;
        Ok(Timer { timer, set: None })
    }

    /// Ready once `due` has passed.
    pub(crate) fn poll_until(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Poll::Ready(Ok(()));
            }
            if self.set != Some(due) {
                self.set(left)?;
                self.set = Some(due);
            }
            let mut guard = ready!(self.timer.poll_read_ready(cx))?;
            guard.clear_ready();
            self.set = None;
        }
    }

    fn set(&self, left: Duration) -> io::Result<()> {
        let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
        Ok(self.timer.get_ref().0.set(expiration, TimerSetTimeFlags::empty())?)
    }
}
