//! What callers say to the operations that every plugin of this handler may have.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// The arguments of `exec`: either `argv` or `shell`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExecArgs {
    /// The program, looked up in the command's PATH unless it holds a slash, then its arguments. No shell reads them.
    #[schemars(length(min = 1))]
    pub(crate) argv: Option<Vec<String>>,
    /// A text for the shell that the settings name, instead of argv.
    pub(crate) shell: Option<String>,
    /// The directory to start in, below the one that the settings name.
    pub(crate) cwd: Option<String>,
    /// Variables for the environment; those that the settings do not allow are dropped.
    pub(crate) env: BTreeMap<String, String>,
    /// A terminal of this size instead of pipes.
    pub(crate) pty: Option<PtyArgs>,
    /// End the call at once and let the command run; see the operation jobs.
    pub(crate) detach: bool,
}

/// The terminal that a command gets.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PtyArgs {
    /// What kind of terminal it is: the variable TERM.
    pub(crate) term: String,
    /// Its height in lines.
    pub(crate) rows: u16,
    /// Its width in characters.
    pub(crate) cols: u16,
}

impl Default for PtyArgs {
    fn default() -> PtyArgs {
        PtyArgs { term: "xterm-256color".to_owned(), rows: 24, cols: 80 }
    }
}

/// The arguments of `jobs`: none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobsArgs {}

/// Which streams of a job are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum Stream {
    /// Standard output and standard error.
    #[default]
    Both,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The arguments of `logs`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogsArgs {
    /// The job.
    pub(crate) id: String,
    /// From which byte on, counted over both streams.
    #[serde(default)]
    pub(crate) from: u64,
    /// Whether to go on until the job has ended.
    #[serde(default)]
    pub(crate) follow: bool,
    /// Which streams: both, stdout or stderr.
    #[serde(default)]
    pub(crate) stream: Stream,
}

/// The arguments of `attach`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobArgs {
    /// The job.
    pub(crate) id: String,
}

/// The arguments of `kill`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KillArgs {
    /// The job.
    pub(crate) id: String,
    /// The signal's name, such as HUP; without it the job is asked to end, and made to after its grace.
    #[serde(default)]
    pub(crate) signal: Option<String>,
}
