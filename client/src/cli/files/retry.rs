//! Which failures pass, and how long to wait before the next try.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use plugd_core::{Code, Origin};
use tokio::time::sleep;

use super::progress::Progress;
use crate::ClientError;
use crate::cli::failure::Failure;

/// The pause before the first retry; each further one is twice as long.
const PAUSE_LEAST: Duration = Duration::from_millis(200);

/// The longest pause: a server that comes back is found within half a minute.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The tries that are left for one file.
#[derive(Debug)]
pub(crate) struct Retries {
    allowed: u32,
    made: u32,
    pauses: ExponentialBackoff,
}

impl Retries {
    pub(crate) fn new(allowed: u32) -> Retries {
        Retries { allowed, made: 0, pauses: pauses() }
    }

    /// Begins anew, since a file has come through.
    pub(crate) fn refill(&mut self) {
        *self = Retries::new(self.allowed);
    }

    /// Waits before the next try; gives the failure back when there is none.
    pub(crate) async fn pause(&mut self, failure: Failure, progress: &Progress) -> Result<(), Failure> {
        if !passes(&failure) || self.made == self.allowed {
            return Err(failure);
        }
        let pause = self.pauses.next().unwrap_or(PAUSE_MAX);
        self.made += 1;
        progress.retry(&failure, self.made, self.allowed, pause);
        sleep(pause).await;
        Ok(())
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default().with_min_delay(PAUSE_LEAST).with_max_delay(PAUSE_MAX).without_max_times().build()
}

/// Whether a later try may go better by itself: the connection was lost, or the server is stopping or busy.
pub(crate) fn passes(failure: &Failure) -> bool {
    match failure {
        Failure::Client(error) => {
            matches!(error, ClientError::Lost(_) | ClientError::Closed) || error.is_passing_connect()
        }
        Failure::Status(reply) => {
            let status = &reply.status;
            status.retry() || status.code() == Code::Unavailable || status.origin() == Origin::Drain
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::Status;
    use crate::cli::files::options::ProgressMode;

    fn lost() -> Failure {
        ClientError::Lost(io::Error::other("cut")).into()
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(passes(&lost()));
        assert!(passes(&Failure::found(Status::unavailable("draining", ""))));
        assert!(!passes(&Failure::found(Status::not_found("no-such-file", ""))));
        assert!(!passes(&Failure::data_loss("digest-mismatch", String::new())));
        assert!(!passes(&Failure::protocol("x")));
        assert!(!passes(&Failure::io("cannot write", io::Error::other("full"))));
    }

    #[tokio::test(start_paused = true)]
    async fn tries_are_counted_and_pauses_grow() {
        let (progress, mut retries) = (Progress::new(ProgressMode::None, false), Retries::new(3));
        let mut pauses = Vec::new();
        let start = tokio::time::Instant::now();
        while retries.pause(lost(), &progress).await.is_ok() {
            pauses.push(start.elapsed().as_millis() / 100);
        }
        assert_eq!(pauses, [2, 6, 14]);
        retries.refill();
        retries.pause(lost(), &progress).await.expect("another try");
        Retries::new(0).pause(lost(), &progress).await.expect_err("no try at all");
    }
}
