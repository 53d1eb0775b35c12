//! The runtime's own timer, which fires with the precision of a millisecond.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

/// Fires when a moment has passed that the caller names.
#[derive(Debug)]
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Timer> {
        Ok(Timer { sleep: Box::pin(sleep_until(Instant::now().into())) })
    }

    /// Ready once `due` has passed.
    pub(crate) fn poll_until(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sleep.deadline() != due.into() {
            self.sleep.as_mut().reset(due.into());
        }
        ready!(self.sleep.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}
