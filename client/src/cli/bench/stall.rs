//! How long an answer is waited for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use super::tally::Trouble;
use crate::cli::session::DEADLINE_SLACK;

/// How long nothing may move, unless `--timeout` says otherwise.
const QUIET: Duration = Duration::from_secs(10);

/// How long an answer may take that comes in pieces, unless `--timeout` says otherwise: no peer holds a bench by a byte now
/// and then.
const WHOLE: Duration = Duration::from_secs(300);

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// While not a byte is read or written.
    pub(crate) quiet: Duration,
    /// From the begin of its request, whatever moves.
    pub(crate) whole: Duration,
    /// How much longer than that: the server's own word on a deadline is worth more than ours.
    pub(crate) slack: Duration,
}

impl Patience {
    /// As `--timeout` says.
    pub(crate) fn new(timeout: Option<Duration>) -> Patience {
        match timeout {
            Some(timeout) => Patience { quiet: timeout, whole: timeout, slack: DEADLINE_SLACK },
            None => Patience { quiet: QUIET, whole: WHOLE, slack: Duration::ZERO },
        }
    }

    /// Until when to wait for the answer to a request of `begun` when the last byte moved at `moved` and no request begins
    /// after `end`, and which patience ends then.
    fn limit(self, begun: Instant, moved: Instant, end: Option<Instant>) -> (Instant, Duration) {
        let limits = [Some((begun, self.whole)), Some((moved, self.quiet)), end.map(|end| (end, self.quiet))];
        let limits = limits.into_iter().flatten().map(|(since, patience)| (since + patience + self.slack, patience));
        limits.min().unwrap_or((begun, self.whole))
    }
}

/// Tells when a connection has kept us waiting for too long, by a timer that is moved only when it fires.
#[derive(Debug)]
pub(crate) struct Stall {
    patience: Patience,
    /// When the load ends.
    end: Option<Instant>,
    /// When the last byte moved.
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Stall {
    pub(crate) fn new(patience: Patience, end: Option<Instant>) -> Stall {
        Stall { patience, end, moved: Instant::now(), timer: Box::pin(sleep(patience.quiet)) }
    }

    /// Notes that bytes were read or written, or that there was nothing to wait for.
    pub(crate) fn moved(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Ready once the answer to the oldest request, of `begun`, has been waited for for too long.
    pub(crate) fn poll(&mut self, begun: Instant, cx: &mut Context<'_>) -> Poll<Trouble> {
        loop {
            // It is never set too late: each limit only ever moves on.
            ready!(self.timer.as_mut().poll(cx));
            let (limit, patience) = self.patience.limit(begun, self.moved, self.end);
            if Instant::now() >= limit {
                return Poll::Ready(Trouble::Stalled(patience));
            }
            self.timer.as_mut().reset(limit.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn bytes_extend_the_patience_but_not_for_ever() {
        let begun = Instant::now();
        let patience = Patience::new(None);
        let limit = |moved_s: u32, end_s: Option<u32>| {
            let (limit, patience) =
                patience.limit(begun, begun + SECOND * moved_s, end_s.map(|end| begun + SECOND * end));
            ((limit - begun).as_secs(), patience.as_secs())
        };
        assert_eq!(limit(0, None), (10, 10));
        assert_eq!(limit(30, None), (40, 10));
        assert_eq!(limit(299, None), (300, 300));
        assert_eq!(limit(30, Some(5)), (15, 10));
        assert_eq!(limit(30, Some(60)), (40, 10));
    }

    #[test]
    fn a_timeout_counts_from_the_begin_of_a_request() {
        let begun = Instant::now();
        let (limit, patience) = Patience::new(Some(SECOND)).limit(begun, begun + SECOND * 30, None);
        assert_eq!((limit, patience), (begun + SECOND + DEADLINE_SLACK, SECOND));
    }
}
