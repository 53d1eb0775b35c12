//! When requests are due, and how many there are to be.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::timer::Timer;

/// How many requests are still to be made, by all connections together.
#[derive(Debug)]
pub(crate) struct Quota {
    left: AtomicU64,
}

impl Quota {
    pub(crate) fn new(requests: u64) -> Quota {
        Quota { left: AtomicU64::new(requests) }
    }

    /// Takes as many as are left, at most `wanted`.
    pub(crate) fn take(&self, wanted: u64) -> u64 {
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - left.min(wanted)));
        taken.map_or(0, |left| left.min(wanted))
    }
}

/// The times at which the requests of one connection are due, evenly spread over the connections.
#[derive(Debug)]
pub(crate) struct Pace {
    start: Instant,
    /// Seconds from the start to the first request, and from each to the next.
    first_s: f64,
    step_s: f64,
    made: u64,
    timer: Timer,
}

impl Pace {
    /// The pace of the connection `index` of `connections` that make `rate` requests per second together.
    pub(crate) fn new(start: Instant, rate: f64, index: u32, connections: u32) -> io::Result<Pace> {
        let (first_s, step_s) = (f64::from(index) / rate, f64::from(connections) / rate);
        Ok(Pace { start, first_s, step_s, made: 0, timer: Timer::new()? })
    }

    /// When the next request is due.
    pub(crate) fn due(&self) -> Instant {
        // Counted from the start, so that no rounding adds up.
        self.start + Duration::from_secs_f64(self.first_s + self.step_s * self.made as f64)
    }

    /// Goes on to the request after the next.
    pub(crate) fn advance(&mut self) {
        self.made += 1;
    }

    /// How many requests are due before `end`, which will not be made.
    pub(crate) fn skip_until(&mut self, end: Instant) -> u64 {
        let elapsed_s = end.saturating_duration_since(self.start).as_secs_f64();
        let due = ((elapsed_s - self.first_s) / self.step_s).ceil().max(0.0) as u64;
        let skipped = due.saturating_sub(self.made);
        self.made += skipped;
        skipped
    }

    /// Waits until the next request is due.
    pub(crate) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let due = self.due();
        self.timer.poll_until(due, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_used_up_exactly() {
        let quota = Quota::new(5);
        assert_eq!([quota.take(3), quota.take(3), quota.take(3)], [3, 2, 0]);
    }

    #[tokio::test]
    async fn connections_take_turns() {
        let start = Instant::now();
        let mut paces = [0, 1].map(|index| Pace::new(start, 1000.0, index, 2).expect("a timer"));
        let mut due = Vec::new();
        for _ in 0..3 {
            for pace in &mut paces {
                due.push((pace.due() - start).as_micros());
                pace.advance();
            }
        }
        assert_eq!(due, [0, 1000, 2000, 3000, 4000, 5000]);
        let end = start + Duration::from_micros(8500);
        assert_eq!(paces.map(|mut pace| pace.skip_until(end)), [2, 1]);
    }
}
