//! What is known about a file, on either side.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

use super::name::Name;

/// What an entry of a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    /// A device, a pipe or a socket, or what a newer server calls otherwise.
    #[serde(other)]
    Other,
}

/// What is known about a file. Keys that this program does not know are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) kind: Kind,
    /// In bytes.
    #[serde(default)]
    pub(crate) size: u64,
    /// When it was modified, in seconds since 1970.
    #[serde(default)]
    pub(crate) mtime_s: i64,
    /// Nanoseconds beside them.
    #[serde(default)]
    pub(crate) mtime_ns: u32,
    /// Permission bits.
    #[serde(default)]
    pub(crate) mode: u32,
    /// Changes with every change of the file; files only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) etag: Option<String>,
    /// Where a symbolic link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<Name>,
}

/// One line of `ls`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: Name,
    #[serde(flatten)]
    pub(crate) facts: Facts,
}

impl Facts {
    pub(crate) fn of(stat: &Stat) -> Facts {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::Other,
        };
        Facts {
            kind,
            size: stat.st_size.try_into().unwrap_or(0),
            mtime_s: stat.st_mtime,
            mtime_ns: stat.st_mtime_nsec as u32,
            mode: stat.st_mode & 0o7777,
            etag: None,
            target: None,
        }
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }

    /// Whether both were modified at the same time, as far as the coarser file system of the two can tell.
    pub(crate) fn same_mtime(&self, other: &Facts) -> bool {
        let exact = self.mtime_ns != 0 && other.mtime_ns != 0;
        self.mtime_s == other.mtime_s && (!exact || self.mtime_ns == other.mtime_ns)
    }

    /// The time of the last change; `None` beyond what a clock can tell.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        let whole = Duration::from_secs(self.mtime_s.unsigned_abs());
        let seconds = if self.mtime_s < 0 { UNIX_EPOCH.checked_sub(whole)? } else { UNIX_EPOCH.checked_add(whole)? };
        seconds.checked_add(Duration::from_nanos(self.mtime_ns.into()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(mtime_s: i64, mtime_ns: u32) -> Facts {
        let line = json!({"kind": "file", "mtime_s": mtime_s, "mtime_ns": mtime_ns});
        serde_json::from_value(line).expect("facts")
    }

    #[test]
    fn a_file_system_without_nanoseconds_is_not_a_difference() {
        assert!(at(5, 7).same_mtime(&at(5, 0)));
        assert!(!at(5, 7).same_mtime(&at(5, 8)));
        assert!(!at(5, 0).same_mtime(&at(6, 0)));
    }

    #[test]
    fn an_unknown_kind_is_no_error() {
        let line = json!({"kind": "door", "size": 1, "new-key": true});
        assert_eq!(serde_json::from_value::<Facts>(line).expect("facts").kind, Kind::Other);
    }
}
