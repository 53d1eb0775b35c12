//! A timer that may be put off for free, since most waits end long before their time.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// Fires when a moment has passed that the caller names anew at each poll.
///
/// Putting the moment off costs nothing; the timer below is moved only when it fires too early, or is due too late.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready once `due` has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_fires_at_the_moment_that_was_named_last() {
        let mut alarm = Alarm::default();
        let start = Instant::now();
        let due = |secs| start + Duration::from_secs(secs);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx, due(5)))).await.is_pending());
        poll_fn(|cx| alarm.poll(cx, due(9))).await;
        assert_eq!(Instant::now(), due(9));
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx, due(30)))).await.is_pending());
        poll_fn(|cx| alarm.poll(cx, due(12))).await;
        assert_eq!(Instant::now(), due(12));
    }
}
