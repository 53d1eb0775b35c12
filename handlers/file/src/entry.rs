//! What a caller learns of a file without its content.

use std::os::fd::AsFd;

use plugd_core::Status;
use rustix::fs::{FileType, Stat};
use rustix::io;
use serde::Serialize;

use crate::path_text::PathText;
use crate::version::Identity;

/// The permission bits of a mode, with those that let a program run as its owner.
const MODE_BITS: u32 = 0o7777;

/// The bits of a mode that a caller can give a file, and that a file has from another one: who chooses the content does not
/// own it, and so must not choose that it runs as its owner.
pub(crate) const PERMISSION_BITS: u32 = 0o777;

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    Other,
}

/// A point in time as the file system keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time {
    /// Seconds since 1970; negative before.
    pub(crate) s: i64,
    /// Nanoseconds after that second, below 1,000,000,000.
    pub(crate) ns: u32,
}

/// What the file system says of a file at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    /// Which file it is and in which state; its size is part of it.
    pub(crate) identity: Identity,
}

impl Meta {
    /// Asks about an open file.
    pub(crate) fn of(file: impl AsFd) -> io::Result<Meta> {
        rustix::fs::fstat(file).map(|stat| Meta::from(&stat))
    }

    pub(crate) fn size(&self) -> u64 {
        self.identity.size
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind == Kind::File
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }
}

#[allow(
    clippy::unnecessary_cast,
    clippy::cast_lossless,
    trivial_numeric_casts,
    reason = "the fields have other types on other processors"
)]
impl From<&Stat> for Meta {
    fn from(stat: &Stat) -> Meta {
        Meta {
            kind: match FileType::from_raw_mode(stat.st_mode as _) {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Dir,
                FileType::Symlink => Kind::Symlink,
                _ => Kind::Other,
            },
            mode: stat.st_mode as u32 & MODE_BITS,
            identity: Identity {
                device: stat.st_dev as u64,
                inode: stat.st_ino as u64,
                size: stat.st_size as u64,
                mtime: Time { s: stat.st_mtime as i64, ns: stat.st_mtime_nsec as u32 },
                ctime: Time { s: stat.st_ctime as i64, ns: stat.st_ctime_nsec as u32 },
            },
        }
    }
}

/// The facts about a file as they stand in a line of `ls` and of `stat`, behind its name.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    kind: Kind,
    size: u64,
    mtime_s: i64,
    mtime_ns: u32,
    mode: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// What a symbolic link holds, whether or not it leads anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<PathText>,
}

impl Facts {
    pub(crate) fn new(meta: &Meta, target: Option<PathText>) -> Facts {
        let Time { s, ns } = meta.identity.mtime;
        Facts {
            kind: meta.kind,
            size: meta.size(),
            mtime_s: s,
            mtime_ns: ns,
            mode: meta.mode,
            etag: meta.is_file().then(|| meta.identity.etag()),
            target,
        }
    }
}

/// Writes `value` as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> Result<Vec<u8>, Status> {
    let mut line = serde_json::to_vec(value)
        .map_err(|error| Status::internal("unserialisable", "a line is no JSON").with_detail(error))?;
    line.push(b'\n');
    Ok(line)
}
