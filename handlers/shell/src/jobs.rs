//! Commands that outlive their calls. They end with the server.

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use plugd_core::{Call, Caller, Data, Status};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::args::{JobArgs, JobsArgs, KillArgs, LogsArgs, Stream};
use crate::audit::{self, Asked, Became};
use crate::follow::follow;
use crate::launch::Started;
use crate::process::Wake;
use crate::relay::{CHANNEL_STDERR, Sink};
use crate::report::Report;
use crate::request::Plan;
use crate::spool::{Next, Spool};
use crate::stdin::{Source, signal_named};

/// How many pieces of input may wait between who attaches and the command.
const INPUT_LEN: usize = 4;

/// A command that runs without its caller, or has ended lately.
#[derive(Debug)]
pub(crate) struct Job {
    id: String,
    operation: String,
    argv: Vec<String>,
    cwd: PathBuf,
    started: SystemTime,
    pid: String,
    wake: Wake,
    spool: Spool,
    /// What attaching callers send; `None` is the end of input.
    input: mpsc::Sender<Option<Data>>,
    stop: Notify,
    report: watch::Sender<Option<Report>>,
}

impl Job {
    fn has_ended(&self) -> bool {
        self.report.borrow().is_some()
    }

    /// Waits for the end. Nothing is lost when the future is dropped.
    async fn ended(&self) -> Report {
        let mut reports = self.report.subscribe();
        loop {
            if let Some(report) = reports.borrow_and_update().clone() {
                return report;
            }
            // The sender lives as long as the job, so that this cannot fail.
            let _ = reports.changed().await;
        }
    }

    fn describe(&self) -> Value {
        let started = self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let report = self.report.borrow().clone();
        let (kept_from, printed) = self.spool.kept();
        json!({
            "id": self.id,
            "plugin_operation": self.operation,
            "argv": self.argv,
            "started_s": started.as_secs(),
            "pid": self.pid.parse::<u32>().ok(),
            "state": if report.is_some() { "ended" } else { "running" },
            "exit": report.as_ref().map(|report| report.exit.clone()),
            "status_code": report.as_ref().map(|report| report.status.code().name()),
            "status_reason": report.as_ref().map(|report| report.status.reason().to_owned()),
            "stdout_bytes": report.as_ref().map(|report| report.sent[0]),
            "stderr_bytes": report.as_ref().map(|report| report.sent[1]),
            "output_from": kept_from,
            "output_end": printed,
        })
    }
}

type Table = BTreeMap<String, (Arc<Job>, AbortHandle)>;

/// The jobs of a plugin. Dropped, every one of them is killed.
#[derive(Debug)]
pub(crate) struct Jobs {
    table: Mutex<Table>,
    jobs_max: usize,
    output_max: u64,
    expiry: Duration,
}

impl Jobs {
    /// No jobs yet; at most `jobs_max`, each of which keeps `output_max` bytes, and is forgotten `expiry` after its end.
    pub(crate) fn new(jobs_max: u32, output_max: u64, expiry: Duration) -> Jobs {
        Jobs { table: Mutex::default(), jobs_max: jobs_max as usize, output_max, expiry }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a job and answers its call at once.
    ///
    /// # Errors
    ///
    /// `resource_exhausted` when there are too many, and what `launch` fails with.
    pub(crate) fn start(
        self: &Arc<Jobs>,
        call: &mut Call,
        plan: Plan,
        permits: Vec<OwnedSemaphorePermit>,
        launch: impl FnOnce(&Plan) -> Result<Started, Status>,
    ) -> Result<(), Status> {
        let mut table = self.table();
        self.make_room(&mut table)?;
        let spool = Spool::new(self.output_max).map_err(|error| {
            Status::resource_exhausted("no-spool", "the server has no room to keep the output").with_detail(error)
        })?;
        let started = launch(&plan)?;
        let (input, inputs) = mpsc::channel(INPUT_LEN);
        let id = loop {
            let id = format!("{:08x}", RandomState::new().build_hasher().finish() as u32);
            if !table.contains_key(&id) {
                break id;
            }
        };
        let job = Arc::new(Job {
            id: id.clone(),
            operation: call.operation().to_owned(),
            argv: plan.shown.clone(),
            cwd: plan.place.cwd.clone(),
            started: SystemTime::now(),
            pid: started.running.pid().to_string(),
            wake: started.running.wake(),
            spool,
            input,
            stop: Notify::new(),
            report: watch::Sender::new(None),
        });
        let owner = Owner { caller: call.caller().clone(), plugin: call.plugin().to_owned() };
        let task = run(Arc::downgrade(self), job.clone(), plan, started, inputs, owner, permits);
        let abort = tokio::spawn(task).abort_handle();
        let head = json!({ "job": id, "pid": job.pid.parse::<u32>().ok(), "ends_with": "server" });
        table.insert(id, (job, abort));
        drop(table);
        call.head(&head)
    }

    /// Forgets the job that ended first when there is no room for another.
    fn make_room(&self, table: &mut Table) -> Result<(), Status> {
        if table.len() < self.jobs_max {
            return Ok(());
        }
        let oldest = table.values().filter(|(job, _)| job.has_ended()).min_by_key(|(job, _)| job.started);
        let Some(id) = oldest.map(|(job, _)| job.id.clone()) else {
            let text = format!("{} jobs run already; allowed: {}", table.len(), self.jobs_max);
            return Err(Status::resource_exhausted("busy", text).with_retry(true));
        };
        if let Some((_, task)) = table.remove(&id) {
            task.abort();
        }
        Ok(())
    }

    fn job(&self, id: &str) -> Result<Arc<Job>, Status> {
        let found = self.table().get(id).map(|(job, _)| job.clone());
        found.ok_or_else(|| Status::not_found("unknown-job", format!("no job {id:?}; see the operation jobs")))
    }

    /// Answers `jobs`: a line for each.
    pub(crate) async fn list(&self, call: &mut Call) -> Result<(), Status> {
        let JobsArgs {} = call.args()?;
        let mut jobs: Vec<Arc<Job>> = self.table().values().map(|(job, _)| job.clone()).collect();
        jobs.sort_by_key(|job| job.started);
        for job in jobs {
            call.send(format!("{}\n", job.describe())).await?;
        }
        Ok(())
    }

    /// Answers `logs`: what a job has printed, and what it prints if that is asked for.
    pub(crate) async fn logs(&self, call: &mut Call) -> Result<(), Status> {
        let LogsArgs { id, from, follow, stream } = call.args()?;
        let job = self.job(&id)?;
        let from = from.max(job.spool.kept().0);
        call.head(&json!({ "from": from }))?;
        let cancelled = call.cancelled();
        let (_, output) = call.split();
        let sent = tokio::select! {
            biased;
            () = cancelled => None,
            sent = send_output(&job, output, from, follow, stream) => Some(sent),
        };
        match sent {
            Some(sent) => sent,
            None => Err(stopped(call).await),
        }
    }

    /// Answers `attach`: the job's streams from now on, and its end.
    pub(crate) async fn attach(&self, call: &mut Call) -> Result<(), Status> {
        let JobArgs { id } = call.args()?;
        let job = self.job(&id)?;
        let from = job.spool.kept().1;
        call.head(&json!({ "job": id, "from": from }))?;
        let cancelled = call.cancelled();
        let (input, output) = call.split();
        let feed = async {
            while let Some(data) = input.recv_data().await? {
                // A job that has ended takes no more; its end is told by the other direction.
                let _ = job.input.send(Some(data)).await;
            }
            let _ = job.input.send(None).await;
            std::future::pending::<Result<(), Status>>().await
        };
        let sent = tokio::select! {
            biased;
            () = cancelled => None,
            sent = send_output(&job, output, from, true, Stream::Both) => Some(sent),
            failed = feed => Some(failed),
        };
        match sent {
            None => return Err(stopped(call).await),
            Some(sent) => sent?,
        }
        let report = job.ended().await;
        call.set_trailer(&report.trailer)?;
        report.result()
    }

    /// Answers `kill`: sends a signal, or ends the job and waits for that.
    pub(crate) async fn kill(&self, call: &mut Call) -> Result<(), Status> {
        let KillArgs { id, signal } = call.args()?;
        let job = self.job(&id)?;
        let signal: Option<Signal> = signal.as_deref().map(signal_named).transpose()?;
        if !job.has_ended() {
            match signal {
                Some(signal) => job.wake.signal(signal),
                None => {
                    job.stop.notify_one();
                    let cancelled = call.cancelled();
                    tokio::select! {
                        _ = job.ended() => {}
                        () = cancelled => return Err(stopped(call).await),
                    }
                }
            }
        }
        let asked = Asked {
            caller: call.caller(),
            plugin: call.plugin(),
            operation: call.operation(),
            argv: &job.argv,
            cwd: &job.cwd,
            dropped_env: &[],
        };
        let (status, exit) = (Status::ok(), String::new());
        audit::log(
            &asked,
            &Became { status: &status, exit, sent: [0; 2], duration: Duration::ZERO, job: Some(&job.id) },
        );
        Ok(())
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        for (job, task) in self.table().values() {
            // Nobody may be left to run the task; what it looks after must end here.
            if !job.has_ended() {
                job.wake.kill();
            }
            task.abort();
        }
    }
}

/// For whom a job runs.
struct Owner {
    caller: Caller,
    plugin: String,
}

/// Follows a job to its end, and remembers it for a while.
async fn run(
    jobs: Weak<Jobs>,
    job: Arc<Job>,
    plan: Plan,
    started: Started,
    mut inputs: mpsc::Receiver<Option<Data>>,
    owner: Owner,
    permits: Vec<OwnedSemaphorePermit>,
) {
    let source = Source::Job(&mut inputs);
    let followed = follow(started, source, Sink::Job(&job.spool), plan.place.bounds, job.stop.notified()).await;
    let wall = followed.wall;
    let killed = Status::cancelled("job-killed", "the job was told to end");
    let report = Report::new(followed, &plan.dropped_env, Some(killed));
    drop(permits);
    let asked = Asked {
        caller: &owner.caller,
        plugin: &owner.plugin,
        operation: &job.operation,
        argv: &plan.shown,
        cwd: &plan.place.cwd,
        dropped_env: &plan.dropped_env,
    };
    let exit = report.exit.to_string();
    audit::log(&asked, &Became { status: &report.status, exit, sent: report.sent, duration: wall, job: Some(&job.id) });
    job.report.send_replace(Some(report));
    job.spool.close();
    let Some(expiry) = jobs.upgrade().map(|jobs| jobs.expiry) else { return };
    sleep(expiry).await;
    if let Some(jobs) = jobs.upgrade() {
        jobs.table().remove(&job.id);
    }
}

/// Sends what a job has printed from a byte on, each stream on its channel.
async fn send_output(
    job: &Job,
    output: &mut plugd_core::Output,
    mut from: u64,
    follow: bool,
    stream: Stream,
) -> Result<(), Status> {
    let mut changes = job.spool.changes();
    loop {
        changes.mark_unchanged();
        let next = job
            .spool
            .next(&mut from)
            .await
            .map_err(|error| Status::internal("io-failed", "the job's output cannot be read").with_detail(error))?;
        match next {
            Next::Bytes(channel, bytes) => {
                let is_stderr = channel == CHANNEL_STDERR;
                if stream == Stream::Both || is_stderr == (stream == Stream::Stderr) {
                    output.send_on(channel, bytes).await?;
                }
            }
            Next::Later if follow => drop(changes.changed().await),
            Next::Later | Next::End => return Ok(()),
        }
    }
}

/// What a call ends with that was stopped.
async fn stopped(call: &mut Call) -> Status {
    match call.recv().await {
        Err(status) => status,
        Ok(_) => Status::cancelled("cancelled", "the call was cancelled"),
    }
}
