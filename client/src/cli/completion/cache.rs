//! What servers said of themselves when they were asked last, kept in the user's cache directory.
//!
//! A file for each server, named after its address. It is replaced as a whole, so that nobody reads half of one.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ServerAddress;

/// The longest file that is read or written, in bytes: descriptions of some thousand arguments.
const FILE_LEN_MAX: u64 = 4 << 20;

/// How many servers are remembered; the one that was asked longest ago goes first.
const FILES_MAX: usize = 64;

/// How the file is written; another version is not read.
const VERSION: u32 = 1;

/// What a server said of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Known {
    version: u32,
    /// The address, for people who look into the file.
    server: String,
    /// Of the description that this is; another hash means that nothing of it holds.
    pub(crate) hash: String,
    /// The answer of `plugd.list`.
    pub(crate) list: Value,
    /// Answers of `plugd.describe`, by plugin; those that were needed.
    pub(crate) plugins: BTreeMap<String, Value>,
}

impl Known {
    pub(crate) fn new(server: &ServerAddress, hash: String, list: Value) -> Known {
        Known { version: VERSION, server: server.to_string(), hash, list, plugins: BTreeMap::new() }
    }
}

/// The directory that holds the files.
#[derive(Debug)]
pub(crate) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// In `$XDG_CACHE_HOME`, or `.cache` at home; `None` where neither is known.
    pub(crate) fn of_user() -> Option<Cache> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(Cache { dir: base.join("plug").join("completion") })
    }

    /// What is remembered of a server. A file that cannot be read, or holds something else, is as good as none.
    pub(crate) fn read(&self, server: &ServerAddress) -> Option<Known> {
        let mut text = Vec::new();
        let file = std::fs::File::open(self.path(server)).ok()?;
        file.take(FILE_LEN_MAX).read_to_end(&mut text).ok()?;
        let known: Known = serde_json::from_slice(&text).ok()?;
        (known.version == VERSION && known.server == server.to_string()).then_some(known)
    }

    /// Remembers what a server said, in place of what it said before. What is too long is not remembered.
    pub(crate) fn write(&self, server: &ServerAddress, known: &Known) -> io::Result<()> {
        let text = serde_json::to_vec(known)?;
        if text.len() as u64 >= FILE_LEN_MAX {
            return Ok(());
        }
        std::fs::create_dir_all(&self.dir)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir)?;
        file.write_all(&text)?;
        file.persist(self.path(server))?;
        self.shrink()
    }

    fn path(&self, server: &ServerAddress) -> PathBuf {
        let name = blake3::hash(server.to_string().as_bytes()).to_hex();
        self.dir.join(format!("{}.json", &name[..32]))
    }

    /// Removes the oldest files above the bound, those that a killed program left half written among them.
    fn shrink(&self) -> io::Result<()> {
        let mut files: Vec<_> = std::fs::read_dir(&self.dir)?
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort();
        let surplus = files.len().saturating_sub(FILES_MAX);
        files.iter().take(surplus).for_each(|(_, path)| remove(path));
        Ok(())
    }
}

/// Another program may have removed it in between.
fn remove(path: &Path) {
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn server(port: u16) -> ServerAddress {
        format!("127.0.0.1:{port}").parse().expect("an address")
    }

    #[test]
    fn what_was_said_is_remembered_by_server() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache { dir: dir.path().join("a/b") };
        assert_eq!(cache.read(&server(1)), None);
        let known = Known::new(&server(1), "h".to_owned(), json!({"plugins": []}));
        cache.write(&server(1), &known).expect("a directory that can be made");
        assert_eq!((cache.read(&server(1)), cache.read(&server(2))), (Some(known), None));
    }

    #[test]
    fn what_is_damaged_or_of_another_version_is_as_good_as_none() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache { dir: dir.path().to_owned() };
        let mut known = Known::new(&server(1), "h".to_owned(), json!({}));
        known.version += 1;
        cache.write(&server(1), &known).expect("a directory");
        assert_eq!(cache.read(&server(1)), None);
        std::fs::write(cache.path(&server(1)), "{\"version\":1").expect("a directory");
        assert_eq!(cache.read(&server(1)), None);
    }

    #[test]
    fn files_have_bounds() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache { dir: dir.path().to_owned() };
        for port in 1..=FILES_MAX as u16 + 10 {
            cache.write(&server(port), &Known::new(&server(port), String::new(), json!({}))).expect("a directory");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), FILES_MAX);
        let long = Known::new(&server(999), "x".repeat(FILE_LEN_MAX as usize), json!({}));
        cache.write(&server(999), &long).expect("nothing to do");
        assert_eq!(cache.read(&server(999)), None);
    }
}
