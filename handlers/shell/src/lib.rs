//! Runs commands and streams their output.

mod config;
mod group;
mod relay;
mod report;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;

pub use config::ShellSettings;
use group::{Group, Pipes};
use plugd_core::prelude::*;
use relay::Outlets;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::process::Command;

/// Runs any command that a caller names, as the server's own user.
#[derive(Debug, Clone)]
pub struct Shell {
    cwd: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

impl Shell {
    /// A handler whose commands start in the directory `cwd` with nothing but `environment`.
    pub fn new(cwd: PathBuf, environment: Vec<(&'static str, OsString)>) -> Shell {
        Shell { cwd, environment }
    }

    async fn start(&self, argv: &[String]) -> Result<Group, Status> {
        let (program, arguments) = split_argv(argv)?;
        // A missing directory and a missing program are the same error of the operating system.
        if !tokio::fs::metadata(&self.cwd).await.is_ok_and(|metadata| metadata.is_dir()) {
            let detail = format!("no directory {:?}", self.cwd);
            return Err(Status::failed_precondition("bad-cwd", "the working directory is missing").with_detail(detail));
        }
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.cwd).env_clear().envs(self.environment.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Group::spawn(command).map_err(|error| report::not_started(program, error))
    }
}

#[async_trait]
impl Handler for Shell {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        let ExecArgs { argv } = call.args()?;
        let mut group = self.start(&argv).await?;
        let Some(Pipes { stdin, stdout, stderr }) = group.take_pipes() else {
            return Err(Status::internal("no-pipes", "the command has no pipes"));
        };
        let mut outlets = Outlets::new(stdout, stderr);
        let cancelled = call.cancelled();
        let (input, output) = call.split();
        let ended = tokio::select! {
            biased;
            // Receiving fails with the status that the call ends with.
            () = cancelled => match call.recv().await {
                Err(status) => Err(status),
                Ok(_) => Err(Status::cancelled("cancelled", "the call was cancelled")),
            },
            ended = relay::run(&mut group, stdin, &mut outlets, input, output) => ended,
        };
        match ended {
            Ok(exit) => {
                group.kill();
                call.set_trailer(&report::trailer(exit))?;
                report::outcome(exit)
            }
            Err(status) => {
                tokio::select! {
                    () = group.terminate() => Err(status),
                    never = outlets.discard() => match never {},
                }
            }
        }
    }
}

/// The arguments of `exec`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ExecArgs {
    /// The program, looked up in the server's PATH unless it holds a slash, then its arguments. No shell reads them.
    #[schemars(length(min = 1))]
    argv: Vec<String>,
}

fn split_argv(argv: &[String]) -> Result<(&String, &[String]), Status> {
    let refusal =
        |found| Status::invalid_argument("bad-argv", format!("{found} in argv; allowed: a program, arguments"));
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(refusal("a NUL character"));
    }
    match argv.split_first() {
        Some((program, arguments)) if !program.is_empty() => Ok((program, arguments)),
        _ => Err(refusal("no program")),
    }
}

fn descriptor() -> Descriptor {
    let exec = Operation::new("exec", "runs a command with the input as its standard input");
    Descriptor::new("shell", "runs commands and streams their output")
        .operation(
            exec.streams(Streaming::Both)
                .has_effects()
                .output_channel(relay::CHANNEL_STDERR, "stderr")
                .args::<ExecArgs>(),
        )
        .settings::<ShellSettings>()
}

plugd_core::register!(descriptor);
