//! The requests in flight on a connection, in their order.

use std::collections::VecDeque;
use std::time::Instant;

/// The requests that were begun and not answered.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    batches: VecDeque<Batch>,
}

/// Requests that were begun at the same time.
#[derive(Debug)]
struct Batch {
    /// Since when their latency counts.
    due: Instant,
    begun: Instant,
    count: u64,
}

impl Flight {
    /// Adds `count` requests.
    pub(crate) fn begin(&mut self, due: Instant, begun: Instant, count: u64) {
        self.batches.push_back(Batch { due, begun, count });
    }

    /// When the oldest request was begun.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.batches.front().map(|batch| batch.begun)
    }

    /// Takes the `count` oldest requests out, and tells how many of them were due at which time.
    pub(crate) fn answer(&mut self, mut count: u64, mut tell: impl FnMut(Instant, u64)) {
        while let Some(batch) = self.batches.front_mut().filter(|_| count > 0) {
            let taken = batch.take(&mut count);
            tell(batch.due, taken);
            if batch.count == 0 {
                self.batches.pop_front();
            }
        }
    }

    /// Takes the `count` youngest requests out.
    pub(crate) fn forget(&mut self, mut count: u64) {
        while let Some(batch) = self.batches.back_mut().filter(|_| count > 0) {
            batch.take(&mut count);
            if batch.count == 0 {
                self.batches.pop_back();
            }
        }
    }
}

impl Batch {
    /// Takes up to `wanted` requests out, and how many that were off `wanted`.
    fn take(&mut self, wanted: &mut u64) -> u64 {
        let taken = self.count.min(*wanted);
        self.count -= taken;
        *wanted -= taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_are_answered_and_the_youngest_forgotten() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut flight = Flight::default();
        for (second, count) in [(0, 3), (1, 2), (2, 4)] {
            flight.begin(at(second), at(second + 10), count);
        }
        let mut told = Vec::new();
        flight.answer(4, |due, count| told.push((due, count)));
        assert_eq!((told, flight.oldest()), (vec![(at(0), 3), (at(1), 1)], Some(at(11))));
        flight.forget(3);
        let mut told = Vec::new();
        flight.answer(9, |due, count| told.push((due, count)));
        assert_eq!((told, flight.oldest()), (vec![(at(1), 1), (at(2), 1)], None));
    }
}
