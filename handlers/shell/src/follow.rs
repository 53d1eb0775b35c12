//! Follows a command to its end, or ends it.

use std::future::pending;
use std::process::ExitStatus;
use std::time::Duration;

use plugd_core::Status;
use tokio::time::{Instant, sleep, sleep_until};

use crate::kernel::Usage;
use crate::launch::Started;
use crate::process::Running;
use crate::relay::{self, Cut, Sink};
use crate::request::Bounds;
use crate::stdin::{self, Controlled, Source};

/// How often it is looked how much processor time a command has used.
const CPU_LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Why a command is no longer followed.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It ended by itself.
    Exited,
    /// It was ended, with this status of ours.
    Stopped(Status),
    /// Whoever waited for it does no longer; the status is theirs to say.
    Abandoned,
}

/// What is known of a command after its end.
#[derive(Debug)]
pub(crate) struct Followed {
    pub(crate) outcome: Outcome,
    /// `None` when the kernel could not end it.
    pub(crate) end: Option<(ExitStatus, Usage)>,
    /// How many bytes of each stream were passed on.
    pub(crate) sent: [u64; 2],
    pub(crate) wall: Duration,
}

/// Moves a command's streams until it ends, is stopped by a bound, or `abandoned` resolves. Afterwards nothing of it lives.
pub(crate) async fn follow(
    started: Started,
    source: Source<'_>,
    mut sink: Sink<'_>,
    bounds: Bounds,
    abandoned: impl Future<Output = ()>,
) -> Followed {
    let Started { mut running, inlet, mut outlets, pty, since } = started;
    let controlled = Controlled { wake: running.wake(), pty };
    let outcome = {
        let relay = relay::run(&running, &mut outlets, &mut sink, bounds.drain_time);
        let feed = stdin::feed(source, inlet, &controlled);
        tokio::select! {
            biased;
            () = abandoned => Outcome::Abandoned,
            ended = both(relay, feed) => match ended {
                Ok(()) => Outcome::Exited,
                Err(Cut::Failed(status)) => Outcome::Stopped(status),
                Err(Cut::OutputMax) => Outcome::Stopped(output_max(bounds.output_max)),
            },
            () = sleep_until(since + bounds.time_max) => Outcome::Stopped(time_max(bounds.time_max)),
            cpu_max = cpu_used_up(&running, bounds.cpu_max) => Outcome::Stopped(cpu_max),
        }
    };
    if !matches!(outcome, Outcome::Exited) {
        running.ask_to_end();
        tokio::select! {
            () = running.all_gone(bounds.grace) => {}
            never = outlets.discard() => match never {},
        }
    }
    let end = running.finish().await;
    Followed { outcome, end, sent: outlets.sent(), wall: Instant::now() - since }
}

/// Moves both directions. The command's end is the end, whatever input is left.
async fn both(
    relay: impl Future<Output = Result<(), Cut>>,
    feed: impl Future<Output = Result<(), Status>>,
) -> Result<(), Cut> {
    tokio::pin!(relay);
    tokio::select! {
        ended = &mut relay => return ended,
        fed = feed => fed.map_err(Cut::Failed)?,
    }
    relay.await
}

async fn cpu_used_up(running: &Running, cpu_max: Option<Duration>) -> Status {
    let Some(cpu_max) = cpu_max else { return pending().await };
    while running.cpu() < cpu_max {
        sleep(CPU_LOOK_PAUSE).await;
    }
    let allowed = humantime_serde::re::humantime::format_duration(cpu_max);
    Status::resource_exhausted("cpu-max", format!("the command used up its processor time; allowed: {allowed}"))
}

fn time_max(allowed: Duration) -> Status {
    let allowed = humantime_serde::re::humantime::format_duration(allowed);
    Status::deadline_exceeded("time-max", format!("the command ran too long; allowed: {allowed}"))
}

fn output_max(allowed: u64) -> Status {
    Status::resource_exhausted("output-max", format!("the command printed too much; allowed: {allowed} bytes"))
}
