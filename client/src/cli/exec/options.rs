//! The command line of the verbs that run commands.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// How many servers may be asked at once; each costs a connection here.
const PARALLEL_MAX: i64 = 1000;

pub(crate) const AFTER_HELP: &str = "\
Exit codes:
  0-255  the command's own code
  128+N  the command was killed by signal N, or plug was stopped by it
  124    the deadline passed, of --timeout or of the plugin
  125    the working directory is missing or not allowed
  126    the command is not executable
  127    there is no such command
  2      usage                      3  cannot connect
  4      connection lost            5  local failure
  64+CODE any other status of the call: 65 cancelled, 71 refused, 72 output or CPU limit or busy,
         78 the server is stopping
A command may exit with any of these itself. \"end\" in --report, --events and --json tells them apart:
  exited, killed, detached, not-found, not-executable, bad-cwd, deadline, output-limit, cpu-limit, busy,
  cancelled, drain, refused, failed, lost, connect, local, usage

Examples:
  plug exec -- uname -a
  plug exec --shell 'ps ax | wc -l'
  plug exec -t -- top
  plug exec --encoding gbk -- type readme.txt
  plug exec -s a -s b --parallel 10 -- uptime
  plug exec --detach -- make all";

/// How the output of a call is shown.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Shown {
    /// Decode the output for display, such as gbk or shift_jis; auto: as the plugin declares. Without it bytes stay
    #[arg(long, value_name = "LABEL")]
    pub(crate) encoding: Option<String>,
    /// Print events, one JSON object a line, in the order of arrival
    #[arg(long)]
    pub(crate) events: bool,
    /// Write how the call ended to this file, one JSON object a line for each server
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) report: Option<PathBuf>,
    /// How many servers to ask at once, when several are given by -s
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=PARALLEL_MAX))]
    pub(crate) parallel: u16,
    /// Of several servers, show each one's output together when it has ended, instead of line by line
    #[arg(long, conflicts_with = "events")]
    pub(crate) group: bool,
}

/// Where and how a command runs.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Place {
    /// The directory to run in, below the plugin's own
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,
    /// Set a variable of the command's environment; the server drops names that it does not allow
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Give the command a terminal, and this one's keys to it; ~. at the start of a line leaves
    #[arg(short, long, conflicts_with_all = ["detach", "no_stdin", "events", "group"])]
    pub(crate) tty: bool,
    /// Take CMD as one line for the shell that the plugin's settings name
    #[arg(long)]
    pub(crate) shell: bool,
    /// Leave the command running, and print its id for jobs, logs, attach and kill
    #[arg(long, conflicts_with = "group")]
    pub(crate) detach: bool,
    /// Give the command an empty standard input
    #[arg(short, long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) shown: Shown,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Sh {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Write how the call ended to this file, as one JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
    /// What to run instead of /bin/sh -i
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub(crate) argv: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The job's id
    pub(crate) id: String,
    /// Go on until the job ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// The first byte to send, counted over both streams
    #[arg(long, value_name = "BYTE", default_value_t = 0)]
    pub(crate) from: u64,
    /// Which stream to send
    #[arg(long, value_enum, default_value_t)]
    pub(crate) stream: Streams,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Streams {
    #[default]
    Both,
    Stdout,
    Stderr,
}

impl Streams {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Streams::Both => "both",
            Streams::Stdout => "stdout",
            Streams::Stderr => "stderr",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// The job's id
    pub(crate) id: String,
    /// Give this terminal's keys to a job that has a terminal; ~. at the start of a line leaves
    #[arg(short, long, conflicts_with_all = ["no_stdin", "events", "group"])]
    pub(crate) tty: bool,
    /// Leave the job's input alone
    #[arg(short, long)]
    pub(crate) no_stdin: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The job's id
    pub(crate) id: String,
    /// Send this signal and nothing more; without it TERM, and KILL after the grace time
    #[arg(long, value_name = "NAME")]
    pub(crate) signal: Option<String>,
}
