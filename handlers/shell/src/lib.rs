//! Runs commands and streams their output.

mod args;
mod audit;
mod cgroup;
mod confinement;
mod follow;
mod jobs;
mod kernel;
mod launch;
mod operations;
mod process;
mod program;
mod pty;
mod relay;
mod report;
mod request;
mod settings;
mod signals;
mod spool;
mod stdin;
mod template;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plugd_core::prelude::*;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use audit::{Asked, Became};
use confinement::Confinement;
use follow::{Outcome, follow};
use jobs::Jobs;
use launch::launch;
use relay::Sink;
use report::Report;
use request::{Anything, Named, Place, Plan};
pub use settings::{CommandSettings, ParameterKind, ParameterSettings, SandboxSettings, ShellSettings};
use stdin::Source;

/// Runs the commands that the operator has named, or any that a caller names.
#[derive(Debug)]
pub struct Shell {
    anything: Option<Anything>,
    named: BTreeMap<String, Named>,
    confinement: Confinement,
    permits: Arc<Semaphore>,
    commands_max: u32,
    jobs: Arc<Jobs>,
    has_jobs: bool,
    cwd: PathBuf,
}

impl Shell {
    /// Builds a handler. From then on this process adopts the orphans of its commands.
    fn build(settings: ShellSettings, context: &Context) -> Result<Shell, StartError> {
        // An empty base is the present directory, which has a name of its own for the operating system.
        let base_dir = PathBuf::from(".").join(&context.base_dir);
        let cwd = base_dir.join(settings.cwd.as_deref().unwrap_or("".as_ref()));
        // Commands start there, and paths of theirs are given to them: both need it from the root on.
        let cwd = cwd
            .canonicalize()
            .ok()
            .filter(|path| path.is_dir())
            .ok_or_else(|| StartError::new(format!("cannot run commands in {cwd:?}: no such directory")))?;
        let refused = |error| StartError::new("cannot look after orphans").with_source(error);
        process::adopt_orphans().map_err(refused)?;
        kernel::mark_inherited_descriptors();
        let refused = |error| StartError::new("cannot look after signals").with_source(error);
        signals::keep_ignored_from_commands().map_err(refused)?;
        let place = Place::new(&settings, cwd.clone(), environment(&settings));
        let named = settings.commands.iter().map(|(name, command)| (name.clone(), Named::new(command, &place)));
        Ok(Shell {
            named: named.collect(),
            confinement: Confinement::build(&settings, &base_dir)?,
            permits: Arc::new(Semaphore::new(settings.commands_max as usize)),
            commands_max: settings.commands_max,
            jobs: Arc::new(Jobs::new(settings.jobs_max, settings.job_output_max.as_u64(), settings.job_expiry)),
            has_jobs: settings.jobs_max > 0,
            anything: settings.allow_any_command.then_some(Anything {
                shell: settings.shell,
                env_allow: settings.env_allow,
                place,
            }),
            cwd,
        })
    }

    fn plan(&self, call: &Call) -> Result<Plan, Status> {
        let plan = match (self.named.get(call.operation()), &self.anything) {
            (Some(named), _) => named.plan(call)?,
            (None, Some(anything)) => anything.plan(call)?,
            (None, None) => {
                let text = format!("no command {:?}", call.operation());
                return Err(Status::unimplemented("unknown-operation", text));
            }
        };
        if plan.detach && !self.has_jobs {
            let message = "no command runs detached here; allowed: calls without detach";
            return Err(Status::permission_denied("jobs-not-allowed", message));
        }
        Ok(plan)
    }

    /// Takes a place among the commands that run, at once or not at all.
    fn permits(&self, plan: &Plan) -> Result<Vec<OwnedSemaphorePermit>, Status> {
        let busy = |_| {
            let text = format!("too many commands run; allowed: {}, or fewer of this one", self.commands_max);
            Status::resource_exhausted("busy", text).with_retry(true)
        };
        let mut permits = vec![self.permits.clone().try_acquire_owned().map_err(busy)?];
        if let Some(own) = &plan.place.permits {
            permits.push(own.clone().try_acquire_owned().map_err(busy)?);
        }
        Ok(permits)
    }

    /// Runs a command, and keeps a record of it.
    async fn run(&self, call: &mut Call) -> Result<(), Status> {
        let begun = Instant::now();
        let plan = match self.plan(call) {
            Ok(plan) => plan,
            Err(status) => {
                self.audit(call, None, &status, None, begun.elapsed());
                return Err(status);
            }
        };
        if plan.detach {
            return self.detach(call, plan, begun);
        }
        match self.run_planned(call, &plan).await {
            Ok(report) => {
                self.audit(call, Some(&plan), &report.status, Some(&report), begun.elapsed());
                report.result()
            }
            Err(status) => {
                self.audit(call, Some(&plan), &status, None, begun.elapsed());
                Err(status)
            }
        }
    }

    async fn run_planned(&self, call: &mut Call, plan: &Plan) -> Result<Report, Status> {
        let _permits = self.permits(plan)?;
        let started = launch(plan, &self.confinement)?;
        let pid = started.running.pid().as_raw_nonzero().get();
        call.head(&match &plan.place.encoding {
            Some(encoding) => json!({ "pid": pid, "encoding": encoding }),
            None => json!({ "pid": pid }),
        })?;
        let cancelled = call.cancelled();
        let (input, output) = call.split();
        let followed = follow(started, Source::Call(input), Sink::Call(output), plan.place.bounds, cancelled).await;
        let abandoned = match followed.outcome {
            // Receiving fails with the status that the call ends with.
            Outcome::Abandoned => call.recv().await.err(),
            _ => None,
        };
        let report = Report::new(followed, &plan.dropped_env, abandoned);
        call.set_trailer(&report.trailer)?;
        Ok(report)
    }

    fn detach(&self, call: &mut Call, plan: Plan, begun: Instant) -> Result<(), Status> {
        let asked = (plan.shown.clone(), plan.place.cwd.clone(), plan.dropped_env.clone());
        let permits = self.permits(&plan);
        let started =
            permits.and_then(|permits| self.jobs.start(call, plan, permits, |plan| launch(plan, &self.confinement)));
        if let Err(status) = &started {
            let (argv, cwd, dropped_env) = asked;
            let asked = Asked {
                caller: call.caller(),
                plugin: call.plugin(),
                operation: call.operation(),
                argv: &argv,
                cwd: &cwd,
                dropped_env: &dropped_env,
            };
            let (exit, duration) = (String::new(), begun.elapsed());
            audit::log(&asked, &Became { status, exit, sent: [0; 2], duration, job: None });
        }
        started
    }

    fn audit(&self, call: &Call, plan: Option<&Plan>, status: &Status, report: Option<&Report>, duration: Duration) {
        let asked = Asked {
            caller: call.caller(),
            plugin: call.plugin(),
            operation: call.operation(),
            argv: plan.map(|plan| plan.shown.as_slice()).unwrap_or_default(),
            cwd: plan.map_or(&self.cwd, |plan| &plan.place.cwd),
            dropped_env: plan.map(|plan| plan.dropped_env.as_slice()).unwrap_or_default(),
        };
        let exit = report.map(|report| report.exit.to_string()).unwrap_or_default();
        let sent = report.map(|report| report.sent).unwrap_or_default();
        audit::log(&asked, &Became { status, exit, sent, duration, job: None });
    }
}

/// What commands have in their environment: what they keep of the server's, and what the settings add.
fn environment(settings: &ShellSettings) -> Vec<(OsString, OsString)> {
    let kept = settings.env_keep.iter().filter(|name| !settings.env.contains_key(*name));
    let kept = kept.filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    kept.chain(settings.env.iter().map(|(name, value)| (name.into(), value.into()))).collect()
}

#[async_trait]
impl Handler for Shell {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        match call.operation() {
            "jobs" if self.has_jobs => self.jobs.list(call).await,
            "logs" if self.has_jobs => self.jobs.logs(call).await,
            "attach" if self.has_jobs => self.jobs.attach(call).await,
            "kill" if self.has_jobs => self.jobs.kill(call).await,
            _ => self.run(call).await,
        }
    }
}

fn descriptor() -> Descriptor {
    let descriptor = Descriptor::new("shell", "runs commands and streams their output").settings::<ShellSettings>();
    operations::all().into_iter().fold(descriptor, Descriptor::operation)
}

plugd_core::register!(descriptor);
