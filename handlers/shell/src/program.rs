//! Finds the program that a command names, and tells why there is none.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use plugd_core::Status;
use rustix::fs::{Access, access};

/// Finds a program as execvp(3) does: by its path when it holds a slash, else in the directories of `search`.
///
/// # Errors
///
/// `not_found` when there is none, `permission_denied` when there is one that may not be run.
pub(crate) fn find(program: &str, search: Option<&OsStr>, cwd: &Path) -> Result<PathBuf, Status> {
    if program.contains('/') {
        let path = cwd.join(program);
        return match check(&path) {
            Found::Program => Ok(path),
            Found::Other => Err(not_executable(program)),
            Found::Nothing => Err(not_found(program)),
        };
    }
    let mut other = false;
    for dir in search.map(OsStr::as_bytes).unwrap_or_default().split(|byte| *byte == b':') {
        let path = cwd.join(OsStr::from_bytes(dir)).join(program);
        match check(&path) {
            Found::Program => return Ok(path),
            Found::Other => other = true,
            Found::Nothing => {}
        }
    }
    Err(if other { not_executable(program) } else { not_found(program) })
}

enum Found {
    Program,
    Other,
    Nothing,
}

fn check(path: &Path) -> Found {
    // Most directories of a search hold nothing of the name, which one look tells.
    match access(path, Access::EXEC_OK) {
        Ok(()) if path.is_file() => Found::Program,
        Ok(()) | Err(rustix::io::Errno::ACCESS) => Found::Other,
        Err(_) => Found::Nothing,
    }
}

fn not_found(program: &str) -> Status {
    Status::not_found("command-not-found", format!("no command {program:?}"))
}

fn not_executable(program: &str) -> Status {
    Status::permission_denied("command-not-executable", format!("{program:?} is not executable"))
}

/// Why a program that was found could not be started.
pub(crate) fn not_started(program: &str, error: &io::Error) -> Status {
    let status = match error.raw_os_error() {
        // The interpreter that its first line names.
        Some(libc::ENOENT | libc::ENOTDIR) => not_found(program),
        Some(libc::EACCES | libc::ENOEXEC) => not_executable(program),
        Some(libc::E2BIG) => Status::invalid_argument("bad-argv", "argv is too long for the operating system"),
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE) => {
            let message = "the server cannot start another process now";
            Status::resource_exhausted("no-process", message).with_retry(true)
        }
        _ => Status::internal("command-not-started", format!("cannot start {program:?}")),
    };
    status.with_detail(error)
}
