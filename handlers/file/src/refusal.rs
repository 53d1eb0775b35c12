//! What a caller is told when the file system refuses: its own path and the reason, never a path of the server.

use std::io::{self, ErrorKind};

use nix::errno::Errno;
use plugd_core::Status;

/// The status for an error that came of using `path`.
pub(crate) fn of(path: &str, error: io::Error) -> Status {
    let status = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Status::not_found("no-such-file", format!("no file or directory {path:?}"))
        }
        // A refusal of cap-std's own, not of the operating system: the path led out of the root.
        ErrorKind::PermissionDenied if error.raw_os_error().is_none() => outside_root(path),
        ErrorKind::PermissionDenied => {
            Status::permission_denied("no-access", format!("the server may not access {path:?}"))
        }
        ErrorKind::IsADirectory => is_a_directory(path),
        ErrorKind::InvalidFilename | ErrorKind::InvalidInput => bad_path(path),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Status::resource_exhausted("no-space", format!("no space left for {path:?}"))
        }
        ErrorKind::ReadOnlyFilesystem => {
            Status::permission_denied("read-only", format!("{path:?} lies on a read-only file system"))
        }
        _ => of_errno(path, &error),
    };
    status.with_detail(error)
}

fn of_errno(path: &str, error: &io::Error) -> Status {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP) => {
            Status::failed_precondition("too-many-links", format!("too many symbolic links in {path:?}"))
        }
        Some(Errno::ENXIO) => not_a_file(path),
        Some(Errno::EMFILE | Errno::ENFILE) => {
            Status::unavailable("too-many-open-files", "the server has too many open files").with_retry(true)
        }
        _ => Status::internal("io-failed", format!("cannot use {path:?}")),
    }
}

pub(crate) fn outside_root(path: &str) -> Status {
    Status::permission_denied("outside-root", format!("path {path:?} leads out of the served directory"))
}

pub(crate) fn bad_path(path: &str) -> Status {
    let message = format!("bad path {path:?}; allowed: names without NUL, not too long, with \"/\" between them");
    Status::invalid_argument("bad-path", message)
}

pub(crate) fn not_a_file(path: &str) -> Status {
    Status::failed_precondition("not-a-file", format!("{path:?} is not a regular file"))
}

pub(crate) fn is_a_directory(path: &str) -> Status {
    Status::failed_precondition("is-a-directory", format!("{path:?} is a directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_and_its_cause_stays_in_the_log() {
        for errno in [Errno::ENOSPC, Errno::EDQUOT, Errno::EFBIG] {
            let status = of("a", errno.into());
            assert_eq!(status.to_string(), "resource_exhausted (no-space): no space left for \"a\"");
            assert!(status.detail().is_some());
        }
    }

    #[test]
    fn a_link_that_leads_out_is_told_apart_from_a_forbidden_file() {
        assert_eq!(of("a", Errno::EACCES.into()).reason(), "no-access");
        assert_eq!(of("a", ErrorKind::PermissionDenied.into()).reason(), "outside-root");
    }
}
