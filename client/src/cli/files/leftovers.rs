//! What is kept of files that are not whole, to be named when the program ends before they are.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use super::name::Name;
use crate::cli::text::one_line_of_bytes;

/// What is kept of files that are not whole. Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leftovers(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Partial files beside their targets, with the sizes of the whole ones.
    here: BTreeMap<PathBuf, u64>,
    /// Uploads that the server keeps, by the names that they will have.
    there: BTreeSet<Name>,
}

impl Leftovers {
    pub(crate) fn add(&self, path: PathBuf, size: u64) {
        self.kept().here.insert(path, size);
    }

    pub(crate) fn remove(&self, path: &Path) {
        self.kept().here.remove(path);
    }

    pub(crate) fn add_upload(&self, name: &Name) {
        self.kept().there.insert(name.clone());
    }

    pub(crate) fn remove_upload(&self, name: &Name) {
        self.kept().there.remove(name);
    }

    /// A line for each one that is there.
    pub(crate) fn lines(&self) -> Vec<String> {
        let kept = self.kept();
        let here = |(path, size): (&PathBuf, &u64)| {
            let len = path.symlink_metadata().ok()?.len();
            let path = one_line_of_bytes(path.as_os_str().as_bytes());
            Some(format!("plug: kept {len} of {size} bytes in {path}; the same command carries on"))
        };
        let there = |name: &Name| format!("plug: the server keeps what came of {name}; the same command carries on");
        kept.here.iter().filter_map(here).chain(kept.there.iter().map(there)).collect()
    }

    /// An object for each one that is there.
    pub(crate) fn events(&self) -> Vec<String> {
        let kept = self.kept();
        let here = |(path, size): (&PathBuf, &u64)| {
            let (name, len) = (Name::from(path.as_os_str()), path.symlink_metadata().ok()?.len());
            Some(json!({"event": "kept", "name": name, "bytes": len, "size": size}).to_string())
        };
        let there = |name: &Name| json!({"event": "kept-there", "name": name}).to_string();
        kept.here.iter().filter_map(here).chain(kept.there.iter().map(there)).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
