//! What a caller learns of a file without its content.

use cap_std::fs::{FileType, Metadata, MetadataExt};
use serde::Serialize;

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    File,
    Dir,
    Symlink,
    Other,
}

impl From<FileType> for Kind {
    fn from(file_type: FileType) -> Kind {
        if file_type.is_file() {
            Kind::File
        } else if file_type.is_dir() {
            Kind::Dir
        } else if file_type.is_symlink() {
            Kind::Symlink
        } else {
            Kind::Other
        }
    }
}

/// The facts about a file that stand in a line of `ls` and of `stat`, behind its name.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    kind: Kind,
    size: u64,
    mtime_ms: i64,
}

impl From<&Metadata> for Facts {
    fn from(metadata: &Metadata) -> Facts {
        Facts { kind: metadata.file_type().into(), size: metadata.len(), mtime_ms: mtime_ms(metadata) }
    }
}

/// When the content last changed, in milliseconds since 1970; negative before.
pub(crate) fn mtime_ms(metadata: &Metadata) -> i64 {
    // The nanoseconds count forward from the second, before 1970 too.
    metadata.mtime().saturating_mul(1000).saturating_add(metadata.mtime_nsec() / 1_000_000)
}

/// Writes `value` as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("strings and numbers always serialise");
    line.push(b'\n');
    line
}
