//! How slowly the two directions of a running call may move.
//!
//! Between two frames a caller may be silent for as long as it likes: a shell, a chat or the output of a long command is. A
//! frame that has begun is another thing. Its sender has it whole, so that one which trickles is a fault or an attack.

use std::task::{Context, Poll};
use std::time::Duration;

use plugd_core::transport::{Progress, Watch};
use plugd_core::{Origin, Status};
use tokio::time::Instant;

use super::ConnectionLimits;
use crate::alarm::Alarm;

/// What watching a pace takes. Most calls end before there is anything to watch, and carry no more than this about.
pub(crate) struct Pacing<'c> {
    pub(crate) limits: &'c ConnectionLimits,
    pub(crate) alarm: &'c mut Alarm,
}

/// Watches the pace of one call. It looks at the clock only while something is waited for.
pub(crate) struct Pace<'c> {
    pacing: Pacing<'c>,
    output: Option<Stalled>,
    input: Option<Partial>,
}

/// Output that nobody has taken any of for a while.
struct Stalled {
    written: u64,
    since: Instant,
}

/// A frame that has begun to arrive.
struct Partial {
    /// What the call had received before it.
    received: u64,
    /// How much of it was there at first.
    len: usize,
    since: Instant,
}

/// What was too slow.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slow {
    /// The input: a frame did not arrive at this many bytes a second.
    Input(u32),
    /// The output: nobody took any of it for so long.
    Output(Duration),
}

impl<'c> Pace<'c> {
    pub(crate) fn new(pacing: Pacing<'c>) -> Pace<'c> {
        Pace { pacing, output: None, input: None }
    }

    /// Ready when a direction has been too slow. To be polled after the watch's own look at the connection.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, watch: &Watch) -> Poll<Slow> {
        let progress = watch.progress();
        if progress.unwritten_len == 0 && progress.partial_len == 0 {
            (self.output, self.input) = (None, None);
            return Poll::Pending;
        }
        self.poll_waiting(cx, &progress)
    }

    #[cold]
    fn poll_waiting(&mut self, cx: &mut Context<'_>, progress: &Progress) -> Poll<Slow> {
        let now = Instant::now();
        let due = [self.output_due(progress, now), self.input_due(progress, now)];
        let Some((due, slow)) = due.into_iter().flatten().min_by_key(|(due, _)| *due) else { return Poll::Pending };
        self.pacing.alarm.poll(cx, due).map(|()| slow)
    }

    fn output_due(&mut self, progress: &Progress, now: Instant) -> Option<(Instant, Slow)> {
        if progress.unwritten_len == 0 {
            self.output = None;
            return None;
        }
        let written = progress.written;
        let stalled = self.output.take().filter(|stalled| stalled.written == written);
        let stalled = self.output.insert(stalled.unwrap_or(Stalled { written, since: now }));
        let allowed = self.pacing.limits.write_timeout;
        Some((stalled.since + allowed, Slow::Output(allowed)))
    }

    fn input_due(&mut self, progress: &Progress, now: Instant) -> Option<(Instant, Slow)> {
        if progress.partial_len == 0 {
            self.input = None;
            return None;
        }
        let Progress { received, partial_len: len, .. } = *progress;
        let partial = self.input.take().filter(|partial| partial.received == received && partial.len <= len);
        let partial = self.input.insert(partial.unwrap_or(Partial { received, len, since: now }));
        let rate = self.pacing.limits.body_rate_min;
        let earned = Duration::from_secs_f64((len - partial.len) as f64 / f64::from(rate));
        Some((partial.since + self.pacing.limits.body_rate_grace + earned, Slow::Input(rate)))
    }
}

impl Slow {
    /// How the call ends.
    pub(crate) fn status(self) -> Status {
        let status = match self {
            Slow::Input(rate) => {
                let text = format!("a frame arrived too slowly; allowed: {rate} bytes a second or more");
                Status::resource_exhausted("body-rate-min", text)
            }
            Slow::Output(allowed) => {
                let text = format!("nothing of the answer was read within {}", humantime::format_duration(allowed));
                Status::deadline_exceeded("write-stalled", text)
            }
        };
        status.with_origin(Origin::Limit).with_retry(true)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn limits() -> ConnectionLimits {
        ConnectionLimits {
            per_address_max: 1,
            unidentified_max: 1,
            calls_max: 1,
            empty_frames_max: 1,
            body_rate_min: 1_000,
            body_rate_grace: Duration::from_secs(2),
            write_timeout: Duration::from_secs(3),
        }
    }

    fn progress(unwritten_len: usize, written: u64, partial_len: usize, received: u64) -> Progress {
        Progress { unwritten_len, written, partial_len, received }
    }

    /// Shows one state after the other, each for so many milliseconds; how long it was until one was too slow.
    async fn slow_after(states: &[(u64, Progress)]) -> Option<Duration> {
        let (limits, mut alarm, start) = (limits(), Alarm::default(), Instant::now());
        let mut pace = Pace::new(Pacing { limits: &limits, alarm: &mut alarm });
        for (ms, progress) in states {
            let shown = poll_fn(|cx| pace.poll_waiting(cx, progress));
            if tokio::time::timeout(Duration::from_millis(*ms), shown).await.is_ok() {
                return Some(start.elapsed());
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_earns_time_by_what_arrives_of_it() {
        let states = |step: usize| (0..20).map(|at| (500, progress(0, 0, 10 + at * step, 7))).collect::<Vec<_>>();
        assert_eq!(slow_after(&states(500)).await, None, "as fast as allowed");
        // 250 bytes in half a second: half as fast, so that the grace is used up after twice its time.
        let slow = slow_after(&states(250)).await.expect("too slow");
        assert!((Duration::from_millis(3_500)..=Duration::from_millis(4_000)).contains(&slow), "{slow:?}");
        let other_frames: Vec<_> = (0..20).map(|at| (500, progress(0, 0, 1, at))).collect();
        assert_eq!(slow_after(&other_frames).await, None, "each frame has its own time");
        let paused = [(1_900, progress(0, 0, 5, 0)), (9_000, progress(0, 0, 0, 0)), (1_900, progress(0, 0, 5, 0))];
        assert_eq!(slow_after(&paused).await, None, "while the server does not read, no clock runs");
    }

    #[tokio::test(start_paused = true)]
    async fn output_may_wait_for_as_long_as_some_of_it_is_taken() {
        let taken: Vec<_> = (0..20).map(|at| (2_900, progress(100, at, 0, 0))).collect();
        assert_eq!(slow_after(&taken).await, None);
        let stalled = [(2_000, progress(100, 5, 0, 0)), (2_000, progress(200, 5, 0, 0))];
        assert_eq!(slow_after(&stalled).await, Some(Duration::from_secs(3)));
    }
}
