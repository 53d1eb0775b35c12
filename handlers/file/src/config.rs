//! What an operator may set.

use std::path::PathBuf;

use plugd_core::{Context, SettingError, Settings, StartError};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{File, Root};

/// The settings of the handler `file`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The directory whose content is served, relative to the configuration file. It is made when it is missing.
    pub root: PathBuf,
    /// Whether callers may store files.
    #[serde(default)]
    pub writable: bool,
}

impl Settings for FileSettings {
    type Handler = File;

    fn check(&self) -> Result<(), Vec<SettingError>> {
        let root = self.root.as_os_str().as_encoded_bytes();
        if root.is_empty() || root.contains(&0) {
            let message = format!("bad path {:?}; allowed: a directory, such as \"files\"", self.root);
            return Err(vec![SettingError::new("root", message)]);
        }
        Ok(())
    }

    fn build(self, context: &Context) -> Result<File, StartError> {
        let path = context.base_dir.join(&self.root);
        let root = Root::open(&path)
            .map_err(|error| StartError::new(format!("cannot serve directory {path:?}")).with_source(error))?;
        Ok(File::new(root, self.writable))
    }
}
