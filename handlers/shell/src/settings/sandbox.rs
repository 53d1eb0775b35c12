//! What commands may read and write of the file system.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Checks;

/// The table `sandbox`. What neither list names is out of reach, programs and their libraries included.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxSettings {
    /// Files and directories, with everything below, that commands may read and run; relative to the configuration file.
    pub read: Vec<PathBuf>,
    /// Files and directories, with everything below, that commands may also change; relative to the configuration file.
    pub write: Vec<PathBuf>,
}

impl SandboxSettings {
    pub(super) fn check(&self, checks: &mut Checks) {
        if self.read.is_empty() && self.write.is_empty() {
            let message = "nothing may be read, not even a program; allowed: paths in `read` and `write`";
            checks.refuse(&["sandbox"], message);
        }
        for (key, paths) in [("read", &self.read), ("write", &self.write)] {
            for (index, path) in paths.iter().enumerate() {
                if path.as_os_str().is_empty() || path.as_os_str().as_encoded_bytes().contains(&0) {
                    checks.refuse(&["sandbox", key, &index.to_string()], format!("bad path {path:?}"));
                }
            }
        }
    }
}
