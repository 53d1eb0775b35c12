//! What is worth a line in the log, but not one each time that it happens.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a line speaks for all that happens after it.
const PAUSE: Duration = Duration::from_secs(5);

/// One kind of event that somebody outside can cause as often as they like.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    untold: u64,
}

impl Seldom {
    /// Counts an event; when it is time for a line, how many there were since the last one, this one included.
    pub(crate) fn count(&self) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.untold += 1;
        let now = Instant::now();
        if told.at.is_some_and(|at| now < at + PAUSE) {
            return None;
        }
        told.at = Some(now);
        Some(std::mem::take(&mut told.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_line_now_and_then_that_counts_it() {
        let seldom = Seldom::default();
        assert_eq!(seldom.count(), Some(1));
        assert!((0..1_000).all(|_| seldom.count().is_none()));
        tokio::time::advance(PAUSE).await;
        assert_eq!(seldom.count(), Some(1_001));
        assert_eq!(seldom.count(), None);
    }
}
