//! What an operator may set.

mod command;
mod limits;
mod parameter;
mod sandbox;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use plugd_core::{Context, Operation, SettingError, Settings, StartError, is_legal_name};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Shell;
use crate::operations;

pub use command::CommandSettings;
pub use parameter::{ParameterKind, ParameterSettings};
pub use sandbox::SandboxSettings;

pub(crate) use limits::Checks;
pub(crate) use parameter::{Parameter, Rendered};

/// What a command sees of the server's environment; anything else may hold a secret.
const ENV_KEEP: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "USER"];

/// What callers may set of a command's environment: nothing that decides which code runs.
const ENV_ALLOW: [&str; 4] = ["LANG", "LC_ALL", "TERM", "TZ"];

/// The settings of the handler `shell`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShellSettings {
    /// Whether every caller may run every command as the server's own user. Without it only `commands` can be run.
    pub allow_any_command: bool,
    /// Commands that callers may run: each is an operation of the plugin.
    pub commands: BTreeMap<String, CommandSettings>,
    /// The directory that commands start in, relative to the configuration file. Default: the configuration file's own.
    pub cwd: Option<PathBuf>,
    /// What runs the text of `exec` with `shell`: a program and its arguments, to which the text is added.
    pub shell: Vec<String>,
    /// What every command has in its environment, on top of what it keeps of the server's.
    pub env: BTreeMap<String, String>,
    /// The names that commands keep of the server's own environment.
    pub env_keep: Vec<String>,
    /// The names in the environment that callers of `exec` may set; others are dropped.
    pub env_allow: Vec<String>,
    /// Whether callers may ask for a terminal.
    pub pty: bool,
    /// The encoding of what the commands print, such as "gbk"; a hint for readers, for the bytes are sent as they are.
    pub encoding: Option<String>,
    /// The user that commands run as, by name or number; the server's own unless set.
    pub user: Option<String>,
    /// The group that commands run as, by name or number; the user's own unless set.
    pub group: Option<String>,
    /// How nice commands are to other processes, -20 to 19; as nice as the server unless set.
    pub nice: Option<i32>,
    /// The permissions that files of commands lack, in octal, such as "027"; the server's own unless set.
    pub umask: Option<String>,
    /// How long a command may run.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    pub time_max: Duration,
    /// How much processor time a command and all that it starts may use; unlimited unless set.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<plugd_core::schema::TimeSpan>")]
    pub cpu_max: Option<Duration>,
    /// How much a command may print, both streams together.
    #[schemars(with = "plugd_core::schema::ByteSize")]
    pub output_max: ByteSize,
    /// How many commands of this plugin may run at once.
    pub commands_max: u32,
    /// How much memory each process of a command may address (RLIMIT_AS); unlimited unless set.
    #[schemars(with = "Option<plugd_core::schema::ByteSize>")]
    pub memory_max: Option<ByteSize>,
    /// How many files each process of a command may have open (RLIMIT_NOFILE).
    pub files_max: Option<u64>,
    /// How many processes the commands' user may have (RLIMIT_NPROC).
    pub processes_max: Option<u64>,
    /// How long output is awaited after a command's end from processes that it left behind.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    pub drain_time: Duration,
    /// How long a command may clean up between SIGTERM and SIGKILL; keep it below the server's own `grace`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    pub grace: Duration,
    /// How many commands may run detached from their callers, or be remembered; 0 allows none.
    pub jobs_max: u32,
    /// How much of a job's output is kept; older output makes room for newer.
    #[schemars(with = "plugd_core::schema::ByteSize")]
    pub job_output_max: ByteSize,
    /// How long a job that has ended is remembered.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    pub job_expiry: Duration,
    /// What commands may read and write of the file system, enforced by Landlock; everything unless set.
    pub sandbox: Option<SandboxSettings>,
    /// A delegated cgroup, version 2, in which each command gets one of its own.
    pub cgroup: Option<PathBuf>,
}

impl Default for ShellSettings {
    fn default() -> ShellSettings {
        ShellSettings {
            allow_any_command: false,
            commands: BTreeMap::new(),
            cwd: None,
            shell: vec!["/bin/sh".to_owned(), "-c".to_owned()],
            env: BTreeMap::new(),
            env_keep: ENV_KEEP.map(str::to_owned).to_vec(),
            env_allow: ENV_ALLOW.map(str::to_owned).to_vec(),
            pty: false,
            encoding: None,
            user: None,
            group: None,
            nice: None,
            umask: None,
            time_max: Duration::from_secs(60 * 60),
            cpu_max: None,
            output_max: ByteSize::gib(1),
            commands_max: 64,
            memory_max: None,
            files_max: None,
            processes_max: None,
            drain_time: Duration::from_millis(500),
            grace: Duration::from_secs(1),
            jobs_max: 16,
            job_output_max: ByteSize::mib(64),
            job_expiry: Duration::from_secs(60 * 60),
            sandbox: None,
            cgroup: None,
        }
    }
}

impl Settings for ShellSettings {
    type Handler = Shell;

    fn check(&self) -> Result<(), Vec<SettingError>> {
        let mut checks = Checks::default();
        if !self.allow_any_command && self.commands.is_empty() {
            let message = "false leaves nothing to run; allowed: true, which lets callers run every command, \
                           or a table of `commands`";
            checks.refuse(&["allow_any_command"], message);
        }
        for (name, command) in &self.commands {
            if !is_legal_name(name) || operations::RESERVED.contains(&name.as_str()) {
                let reserved = operations::RESERVED.join(", ");
                let message = format!("{name:?} cannot name a command; allowed: [a-z][a-z0-9_-]*, but not {reserved}");
                checks.refuse(&["commands", name], message);
            }
            command.check(name, self, &mut checks);
        }
        self.check_process(&mut checks);
        self.check_limits(&mut checks);
        checks.done()
    }

    fn operations(&self, _described: Vec<Operation>) -> Vec<Operation> {
        operations::of(self)
    }

    fn build(self, context: &Context) -> Result<Shell, StartError> {
        Shell::build(self, context)
    }
}

impl ShellSettings {
    fn check_process(&self, checks: &mut Checks) {
        if self.shell.first().is_none_or(String::is_empty) || self.shell.iter().any(|part| part.contains('\0')) {
            checks
                .refuse(&["shell"], "no program; allowed: a program and its arguments, such as [\"/bin/sh\", \"-c\"]");
        }
        for (key, names) in [("env_keep", &self.env_keep), ("env_allow", &self.env_allow)] {
            for (index, name) in names.iter().enumerate().filter(|(_, name)| !is_env_name(name)) {
                checks.refuse(&[key, &index.to_string()], format!("{name:?} cannot name a variable"));
            }
        }
        for (name, value) in &self.env {
            if !is_env_name(name) || value.contains('\0') {
                checks.refuse(&["env", name], format!("{name:?} = {value:?} cannot be a variable"));
            }
        }
        checks.encoding(&["encoding"], self.encoding.as_deref());
        if self.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
            checks.refuse(&["nice"], format!("{} is out of range; allowed: -20 to 19", self.nice.unwrap_or_default()));
        }
        if let Some(umask) = &self.umask
            && self.umask_bits().is_none()
        {
            checks.refuse(&["umask"], format!("{umask:?} is no mask; allowed: \"000\" to \"777\", in octal"));
        }
        if let Some(sandbox) = &self.sandbox {
            sandbox.check(checks);
        }
    }

    fn check_limits(&self, checks: &mut Checks) {
        let (millisecond, day) = (Duration::from_millis(1), Duration::from_secs(86_400));
        checks.time(&["time_max"], Some(self.time_max), millisecond..=365 * day);
        checks.time(&["cpu_max"], self.cpu_max, millisecond..=365 * day);
        checks.time(&["drain_time"], Some(self.drain_time), Duration::ZERO..=Duration::from_secs(60));
        checks.time(&["grace"], Some(self.grace), Duration::ZERO..=Duration::from_secs(60));
        checks.time(&["job_expiry"], Some(self.job_expiry), millisecond..=365 * day);
        checks.within(&["commands_max"], Some(self.commands_max), 1..=100_000);
        checks.within(&["jobs_max"], Some(self.jobs_max), 0..=10_000);
        checks.within(&["files_max"], self.files_max, 8..=1 << 30);
        checks.within(&["processes_max"], self.processes_max, 1..=1 << 30);
        checks.size(&["output_max"], Some(self.output_max), 0..=1 << 60);
        checks.size(&["job_output_max"], Some(self.job_output_max), 64 << 10..=1 << 40);
        checks.size(&["memory_max"], self.memory_max, 1 << 20..=1 << 60);
    }

    /// The bits of `umask`, when it is a mask.
    pub(crate) fn umask_bits(&self) -> Option<u32> {
        let text = self.umask.as_deref()?;
        let is_octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        u32::from_str_radix(text, 8).ok().filter(|bits| is_octal && *bits <= 0o777)
    }
}

fn is_env_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}
