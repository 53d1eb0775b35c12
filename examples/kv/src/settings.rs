//! What an operator may set.

use std::path::{Path, PathBuf};

use plugd_core::{Context, Operation, SettingError, Settings, StartError, Writes};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::Kv;
use crate::store::Store;

/// The longest value that an operator may allow, in bytes: a value is in memory as a whole.
const VALUE_LEN_LIMIT: usize = 64 << 20;

/// The most changes that an operator may have kept; a change is at most some 600 bytes.
const CHANGES_KEPT_LIMIT: usize = 65_536;

/// The settings of the handler `kv`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KvSettings {
    /// The database file, relative to the configuration file; it is made where there is none.
    pub file: PathBuf,
    /// The longest value, in bytes.
    #[serde(default = "value_len_max_default")]
    #[schemars(range(min = 1, max = 67_108_864))]
    pub value_len_max: usize,
    /// How many changes are kept for a watcher that reads slowly; older ones are missed.
    #[serde(default = "changes_kept_default")]
    #[schemars(range(min = 1, max = 65_536))]
    pub changes_kept: usize,
}

fn changes_kept_default() -> usize {
    1024
}

fn value_len_max_default() -> usize {
    1 << 20
}

impl Settings for KvSettings {
    type Handler = Kv;

    fn check(&self) -> Result<(), Vec<SettingError>> {
        let mut errors = Vec::new();
        if self.file.as_os_str().is_empty() {
            errors.push(SettingError::new("file", "the path is empty"));
        }
        if !(1..=VALUE_LEN_LIMIT).contains(&self.value_len_max) {
            let text = format!("{} is out of range; allowed: 1 to {VALUE_LEN_LIMIT}", self.value_len_max);
            errors.push(SettingError::new("value_len_max", text));
        }
        if !(1..=CHANGES_KEPT_LIMIT).contains(&self.changes_kept) {
            let text = format!("{} is out of range; allowed: 1 to {CHANGES_KEPT_LIMIT}", self.changes_kept);
            errors.push(SettingError::new("changes_kept", text));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The directory of the file: where it is new, it has to be made there.
    fn writes(&self, _operations: &[Operation]) -> Writes {
        Writes::Below(vec![self.file.parent().unwrap_or(Path::new("")).to_owned()])
    }

    fn build(self, context: &Context) -> Result<Kv, StartError> {
        let file = context.base_dir.join(&self.file);
        let store = Store::open(&file, self.changes_kept).map_err(|error| {
            StartError::new(format!("cannot open the database {}", file.display())).with_source(error)
        })?;
        Ok(Kv { store, value_len_max: self.value_len_max })
    }
}
