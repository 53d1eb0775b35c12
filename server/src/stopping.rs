//! How far a server has come on its way to a stop, and who waits for that.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A step on the way to a stop; a server that serves has come to none of them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// No new call begins.
    Draining = 1,
    /// Running calls are ended.
    Ended = 2,
}

/// The stage that a server has come to, shared by all who have to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopping {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    stage: AtomicU8,
    changed: Notify,
}

impl Stopping {
    /// Goes on to `stage`, never back.
    pub(crate) fn advance(&self, stage: Stage) {
        self.inner.stage.fetch_max(stage as u8, Ordering::Release);
        self.inner.changed.notify_waiters();
    }

    /// Whether the server has come to `stage`, or past it. Takes no lock: every call asks.
    #[inline]
    pub(crate) fn is_at(&self, stage: Stage) -> bool {
        self.inner.stage.load(Ordering::Acquire) >= stage as u8
    }

    /// Resolves when the server comes to `stage`.
    pub(crate) async fn reached(&self, stage: Stage) {
        let mut waiting = pin!(self.waiting());
        poll_fn(|cx| waiting.as_mut().poll(cx, stage)).await;
    }

    /// Waits for one stage after the other, for as long as a connection lives.
    pub(crate) fn waiting(&self) -> Waiting<'_> {
        Waiting { stopping: self, notified: self.inner.changed.notified(), registered: None }
    }
}

pin_project! {
    /// Waits for stages in one task; a look at one that is not reached takes no lock after the first.
    pub(crate) struct Waiting<'s> {
        stopping: &'s Stopping,
        #[pin]
        notified: Notified<'s>,
        // Who is woken at the next change, and what the stage was when that was arranged.
        registered: Option<(Waker, u8)>,
    }
}

impl Waiting<'_> {
    /// Ready once the server has come to `stage`.
    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>, stage: Stage) -> Poll<()> {
        let mut this = self.project();
        loop {
            let now = this.stopping.inner.stage.load(Ordering::Acquire);
            if now >= stage as u8 {
                return Poll::Ready(());
            }
            if this.registered.as_ref().is_some_and(|(waker, then)| *then == now && waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            // A change after this is told, and one before it shows in the stage.
            if this.notified.as_mut().poll(cx).is_ready() {
                this.notified.set(this.stopping.inner.changed.notified());
                *this.registered = None;
            } else {
                *this.registered = Some((cx.waker().clone(), now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_stage_wakes_who_waits_for_it() {
        let stopping = Stopping::default();
        let waits = [Stage::Draining, Stage::Ended].map(|stage| {
            let stopping = stopping.clone();
            tokio::spawn(async move {
                let mut waiting = pin!(stopping.waiting());
                for stage in [Stage::Draining, stage] {
                    poll_fn(|cx| waiting.as_mut().poll(cx, stage)).await;
                }
            })
        });
        tokio::task::yield_now().await;
        assert!(!stopping.is_at(Stage::Draining));
        stopping.advance(Stage::Draining);
        let [first, last] = waits;
        first.await.expect("no panic");
        tokio::task::yield_now().await;
        assert!(!last.is_finished());
        stopping.advance(Stage::Ended);
        stopping.advance(Stage::Draining);
        last.await.expect("no panic");
        assert!(stopping.is_at(Stage::Ended));
        stopping.reached(Stage::Ended).await;
    }
}
