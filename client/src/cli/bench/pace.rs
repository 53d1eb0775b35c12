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

    /// Whether none are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// So many requests per second, the first of them at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate(pub(crate) f64);

impl Rate {
    /// The time from the start to the request of this number, which counts from 0.
    fn due(self, number: u64) -> Duration {
        // Counted from the start, so that no rounding adds up.
        Duration::from_secs_f64(number as f64 / self.0)
    }

    /// How many requests are due within `time`.
    pub(crate) fn count_within(self, time: Duration) -> u64 {
        let guess = (time.as_secs_f64() * self.0) as u64;
        // Off by one at the most: the guess is rounded otherwise than the time that is due.
        (guess.saturating_sub(1)..=guess + 1).find(|number| self.due(*number) >= time).unwrap_or(guess + 1)
    }
}

/// The times at which the requests of one connection are due: the connections take turns.
#[derive(Debug)]
pub(crate) struct Pace {
    start: Instant,
    rate: Rate,
    /// The number of the next request, among those of all connections.
    next: u64,
    /// How many connections there are.
    step: u64,
    /// How many requests all connections are to make.
    count: u64,
    timer: Timer,
}

impl Pace {
    /// The pace of the connection `index` of `connections` that make `count` requests together.
    pub(crate) fn new(start: Instant, rate: Rate, count: u64, index: u32, connections: u32, timer: Timer) -> Pace {
        Pace { start, rate, next: index.into(), step: connections.into(), count, timer }
    }

    /// When the next request is due, if there is one.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.next < self.count).then(|| self.start + self.rate.due(self.next))
    }

    /// Goes on to the request after the next.
    pub(crate) fn advance(&mut self) {
        self.next += self.step;
    }

    /// Waits until `due`.
    pub(crate) fn poll_until(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        assert!(quota.is_empty());
    }

    #[tokio::test]
    async fn connections_take_turns_until_all_is_made() {
        let start = Instant::now();
        let mut paces = [0, 1].map(|index| Pace::new(start, Rate(1000.0), 5, index, 2, Timer::new().expect("a timer")));
        let mut due = Vec::new();
        for _ in 0..4 {
            for pace in &mut paces {
                due.extend(pace.due().map(|due| (due - start).as_micros()));
                pace.advance();
            }
        }
        assert_eq!(due, [0, 1000, 2000, 3000, 4000]);
    }

    #[test]
    fn what_is_due_within_a_time_is_counted_exactly() {
        for (rate, time_ms, count) in
            [(1000.0, 1, 1), (200.0, 300, 60), (3.0, 1000, 3), (0.5, 2001, 2), (0.001, 5, 1), (7.0, 30_000, 210)]
        {
            let (rate, time) = (Rate(rate), Duration::from_millis(time_ms));
            assert_eq!(rate.count_within(time), count, "{rate:?}");
            assert!(rate.due(count - 1) < time && rate.due(count) >= time, "{rate:?}");
        }
    }
}
