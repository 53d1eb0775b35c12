//! What a caller is told when the file system refuses: its own path and the reason, never a path of the server.

use std::io::{self, ErrorKind};
use std::path::Path;

use plugd_core::Status;
use rustix::io::Errno;

/// The status for an error that came of using `path`.
pub(crate) fn of(path: &Path, error: impl Into<io::Error>) -> Status {
    let error = error.into();
    let status = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NOTDIR) => no_such_file(path),
        // What `openat2` says of a path that leads out from beneath the root.
        Some(Errno::XDEV) => outside_root(path),
        Some(Errno::ACCESS | Errno::PERM) => {
            Status::permission_denied("no-access", format!("the server may not access {path:?}"))
        }
        Some(Errno::ISDIR) => is_a_directory(path),
        Some(Errno::NOTEMPTY) => not_empty(path),
        Some(Errno::EXIST) => exists(path),
        Some(Errno::NAMETOOLONG | Errno::INVAL) => bad_path(path),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => {
            Status::resource_exhausted("no-space", format!("no space left for {path:?}"))
        }
        Some(Errno::ROFS) => {
            Status::permission_denied("read-only", format!("{path:?} lies on a read-only file system"))
        }
        Some(Errno::LOOP) => Status::failed_precondition(
            "too-many-links",
            format!("{path:?} leads through more symbolic links than are followed"),
        ),
        Some(Errno::NXIO) => not_a_file(path),
        Some(Errno::MFILE | Errno::NFILE) => {
            Status::unavailable("too-many-open-files", "the server has too many open files").with_retry(true)
        }
        Some(Errno::AGAIN | Errno::BUSY | Errno::TXTBSY) => busy(path),
        // The standard library refuses a NUL itself.
        None if error.kind() == ErrorKind::InvalidInput => bad_path(path),
        _ => Status::internal("io-failed", format!("cannot use {path:?}")),
    };
    status.with_detail(error)
}

pub(crate) fn no_such_file(path: &Path) -> Status {
    Status::not_found("no-such-file", format!("no file or directory {path:?}"))
}

pub(crate) fn no_such_directory(path: &Path) -> Status {
    Status::not_found("no-such-directory", format!("no directory for {path:?}"))
}

pub(crate) fn outside_root(path: &Path) -> Status {
    Status::permission_denied("outside-root", format!("path {path:?} leads out of the served directory"))
}

pub(crate) fn reserved(path: &Path) -> Status {
    let message = format!("path {path:?} holds a name that the server keeps for itself");
    Status::permission_denied("reserved-name", message)
}

pub(crate) fn bad_path(path: &Path) -> Status {
    let message = format!("bad path {path:?}; allowed: names without NUL, not too long, with \"/\" between them");
    Status::invalid_argument("bad-path", message)
}

pub(crate) fn not_a_file(path: &Path) -> Status {
    Status::failed_precondition("not-a-file", format!("{path:?} is not a regular file"))
}

pub(crate) fn not_a_directory(path: &Path) -> Status {
    Status::failed_precondition("not-a-directory", format!("{path:?} is not a directory"))
}

pub(crate) fn is_a_directory(path: &Path) -> Status {
    Status::failed_precondition("is-a-directory", format!("{path:?} is a directory"))
}

pub(crate) fn not_empty(path: &Path) -> Status {
    Status::failed_precondition("not-empty", format!("directory {path:?} is not empty"))
}

pub(crate) fn exists(path: &Path) -> Status {
    Status::already_exists("exists", format!("{path:?} exists already"))
}

/// Somebody else replaced what the caller meant.
pub(crate) fn changed(path: &Path) -> Status {
    Status::failed_precondition("changed", format!("{path:?} is not the version that was asked for"))
}

/// A file became another one while it was read.
pub(crate) fn source_changed(path: &Path) -> Status {
    Status::aborted("source-changed", format!("{path:?} changed or became unreadable while it was read"))
        .with_retry(true)
}

pub(crate) fn busy(path: &Path) -> Status {
    Status::unavailable("busy", format!("{path:?} is in use")).with_retry(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_and_its_cause_stays_in_the_log() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            let status = of(Path::new("a"), errno);
            assert_eq!(status.to_string(), "resource_exhausted (no-space): no space left for \"a\"");
            assert!(status.detail().is_some());
        }
    }

    #[test]
    fn a_link_that_leads_out_is_told_apart_from_a_forbidden_file() {
        assert_eq!(of(Path::new("a"), Errno::ACCESS).reason(), "no-access");
        assert_eq!(of(Path::new("a"), Errno::XDEV).reason(), "outside-root");
    }
}
