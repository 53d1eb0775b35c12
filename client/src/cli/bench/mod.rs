//! `plug bench`: load on any command, with every answer compared.

mod answers;
mod flight;
mod gate;
mod lane;
mod load;
pub(crate) mod options;
mod pace;
mod report;
mod socket;
mod stall;
mod tally;
mod timer;
mod work;

use std::io::{self, IsTerminal};
use std::sync::Arc;

use super::answer::Answer;
use super::failure::Failure;
use super::session::Session;
use gate::Gate;
use load::Plan;
use options::Bench;
use pace::{Quota, Rate};
use report::Report;
use socket::Target;
use stall::Patience;
use work::{Mode, Work};

pub(crate) async fn run(session: &mut Session<'_>, options: &Bench) -> Result<Answer, Failure> {
    let server = session.server();
    let work = Work::prepare(session, options).await?;
    // The load has the server to itself.
    drop(session.take_client());
    let rate = options.rate.map(Rate);
    let duration = options.requests.is_none().then_some(options.duration);
    let due = rate.zip(duration).map(|(rate, duration)| rate.count_within(duration));
    let requests = options.requests.or(due);
    let plan = Arc::new(Plan {
        gate: Gate::new(Target::find(&server.connector).await?),
        connections: options.connections,
        pipeline: if work.mode == Mode::Idle { 1 } else { options.pipeline },
        rate,
        duration,
        requests,
        quota: Quota::new(requests.unwrap_or(u64::MAX)),
        patience: Patience::new(session.timeout()),
        threads: options.threads.min(options.connections),
        work,
    });
    socket::raise_descriptor_limit();
    let loading = plan.clone();
    let loaded = tokio::task::spawn_blocking(move || load::run(&loading)).await.map_err(io::Error::other);
    let (tally, elapsed) = loaded.and_then(|loaded| loaded).map_err(|error| Failure::io("cannot make load", error))?;
    let report = Report { server: server.address().to_string(), options, plan: &plan, tally: &tally, elapsed };
    let failure = tally.worst().map(|worst| {
        let (failed, all) = (tally.failed(), tally.failed() + tally.right);
        worst.failure(server.address(), format!("{failed} of {all} failed, most of them: {}", worst.name()))
    });
    Ok(Answer {
        data: Some(report.json()),
        text: report.text(io::stdout().is_terminal()),
        failure,
        ..Answer::default()
    })
}
