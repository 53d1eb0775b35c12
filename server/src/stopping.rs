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
///
/// Odd numbers: the even one above a stage says that everybody who waits has been told of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// No new call begins.
    Draining = 1,
    /// Running calls are ended.
    Ended = 3,
}

/// The stage that a server has come to, shared by all who have to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stopping {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    // A stage, or the number above it.
    come_to: AtomicU8,
    changed: Notify,
}

impl Stopping {
    /// Goes on to `stage`, never back.
    pub(crate) fn advance(&self, stage: Stage) {
        if self.inner.come_to.fetch_max(stage as u8, Ordering::AcqRel) >= stage as u8 {
            return;
        }
        self.inner.changed.notify_waiters();
        self.inner.come_to.fetch_max(stage as u8 + 1, Ordering::AcqRel);
    }

    /// Whether the server has come to `stage`, or past it. Takes no lock: every call asks.
    #[inline]
    pub(crate) fn is_at(&self, stage: Stage) -> bool {
        self.inner.come_to.load(Ordering::Acquire) >= stage as u8
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
        // Who is woken at the next change, and what the server had come to when that was arranged.
        registered: Option<(Waker, u8)>,
    }
}

impl Waiting<'_> {
    /// Ready once the server has come to `stage`.
    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>, stage: Stage) -> Poll<()> {
        let mut this = self.project();
        loop {
            let now = this.stopping.inner.come_to.load(Ordering::Acquire);
            if now >= stage as u8 {
                return Poll::Ready(());
            }
            if this
                .registered
                .as_ref()
                .is_some_and(|(waker, then)| is_told(now) && *then == now && waker.will_wake(cx.waker()))
            {
                return Poll::Pending;
            }
            // A change after this wakes the task, and one before it makes this ready.
            if this.notified.as_mut().poll(cx).is_pending() {
                *this.registered = Some((cx.waker().clone(), now));
                return Poll::Pending;
            }
            this.notified.set(this.stopping.inner.changed.notified());
            *this.registered = None;
        }
    }
}

/// Whether nobody is about to be woken for what the server has come to already.
fn is_told(come_to: u8) -> bool {
    come_to.is_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A task that is never woken fails its test, and does not hang it.
    const WAKE_LIMIT: Duration = Duration::from_secs(5);

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
    #[tokio::test]
    async fn a_stage_told_twice_leaves_the_next_to_be_waited_for() {
        let stopping = Stopping::default();
        let waits = stopping.clone();
        let ended = tokio::spawn(async move { waits.reached(Stage::Ended).await });
        for _ in 0..2 {
            tokio::task::yield_now().await;
            stopping.advance(Stage::Draining);
        }
        tokio::task::yield_now().await;
        stopping.advance(Stage::Ended);
        timeout(WAKE_LIMIT, ended).await.expect("woken").expect("no panic");
    }

    #[tokio::test]
    async fn a_look_while_others_are_told_does_not_miss_the_next_stage() {
        let stopping = Stopping::default();
        let (look, mut looks) = tokio::sync::mpsc::channel::<()>(1);
        let waits = stopping.clone();
        let ended = tokio::spawn(async move {
            let mut waiting = pin!(waits.waiting());
            poll_fn(|cx| {
                let _ = looks.poll_recv(cx);
                waiting.as_mut().poll(cx, Stage::Ended)
            })
            .await;
        });
        tokio::task::yield_now().await;
        // What `advance` does, and a look between its steps.
        stopping.inner.come_to.store(Stage::Draining as u8, Ordering::Release);
        look.send(()).await.expect("a waiting task");
        tokio::task::yield_now().await;
        stopping.inner.changed.notify_waiters();
        tokio::task::yield_now().await;
        stopping.inner.come_to.store(Stage::Draining as u8 + 1, Ordering::Release);
        stopping.advance(Stage::Ended);
        timeout(WAKE_LIMIT, ended).await.expect("woken").expect("no panic");
    }
}
