//! What an operator may set.

use std::env;
use std::path::PathBuf;

use plugd_core::{Context, SettingError, Settings, StartError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Shell;

/// What a command sees of the server's environment; anything else may hold a secret.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "USER"];

/// The settings of the handler `shell`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShellSettings {
    /// Whether every caller may run every command as the server's own user. Without it there is nothing to run.
    pub allow_any_command: bool,
    /// The directory that commands start in, relative to the configuration file. Default: the configuration file's own.
    pub cwd: Option<PathBuf>,
}

impl Settings for ShellSettings {
    type Handler = Shell;

    fn check(&self) -> Result<(), Vec<SettingError>> {
        if self.allow_any_command {
            return Ok(());
        }
        let message = "false leaves nothing to run; allowed: true, which lets callers run every command";
        Err(vec![SettingError::new("allow_any_command", message)])
    }

    fn build(self, context: &Context) -> Result<Shell, StartError> {
        // An empty base is the present directory, which has a name of its own for the operating system.
        let cwd = PathBuf::from(".").join(&context.base_dir).join(self.cwd.unwrap_or_default());
        if !cwd.is_dir() {
            return Err(StartError::new(format!("cannot run commands in {cwd:?}: no such directory")));
        }
        let environment = ENVIRONMENT.into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
        Ok(Shell::new(cwd, environment.collect()))
    }
}
