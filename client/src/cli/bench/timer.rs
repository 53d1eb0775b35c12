//! A timer that is as fine as the system lets: latencies are counted from when it fires.

#[cfg(any(test, not(target_os = "linux")))]
mod coarse;
#[cfg(target_os = "linux")]
mod fine;

#[cfg(not(target_os = "linux"))]
pub(crate) use coarse::Timer;
#[cfg(target_os = "linux")]
pub(crate) use fine::Timer;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::{Duration, Instant};

    use super::*;

    /// Each moment has passed when it fires.
    macro_rules! fires_after_each_moment {
        ($timer:expr) => {
            let mut timer = $timer.expect("a timer");
            for pause_us in [300, 100, 0, 2_000] {
                let due = Instant::now() + Duration::from_micros(pause_us);
                poll_fn(|cx| timer.poll_until(due, cx)).await.expect("a timer");
                assert!(Instant::now() >= due);
            }
        };
    }

    #[tokio::test]
    async fn it_fires_after_each_moment_and_not_before() {
        fires_after_each_moment!(Timer::new());
    }

    #[tokio::test]
    async fn so_does_the_one_of_other_systems() {
        fires_after_each_moment!(coarse::Timer::new());
    }
}
