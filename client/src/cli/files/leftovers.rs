//! Partial files that stand beside their targets, to be named when the program ends before they are whole.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::cli::text::one_line_of_bytes;

/// Partial files with the sizes of the whole ones. Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leftovers(Arc<Mutex<BTreeMap<PathBuf, u64>>>);

impl Leftovers {
    pub(crate) fn add(&self, path: PathBuf, size: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path, size);
    }

    pub(crate) fn remove(&self, path: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// A line for each one that is there.
    pub(crate) fn lines(&self) -> Vec<String> {
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |(path, size): (&PathBuf, &u64)| {
            let len = path.symlink_metadata().ok()?.len();
            let path = one_line_of_bytes(path.as_os_str().as_bytes());
            Some(format!("plug: kept {len} of {size} bytes in {path}; the same command carries on"))
        };
        files.iter().filter_map(line).collect()
    }
}
