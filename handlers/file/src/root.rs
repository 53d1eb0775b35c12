//! Reaches what lies below one directory, and nothing outside it.

use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions, OpenOptionsExt};
use nix::fcntl::OFlag;
use plugd_core::Status;
use tokio::task::spawn_blocking;

use crate::refusal;

/// A directory as the world of a plugin: no path leads out of it, whatever links it holds.
#[derive(Debug, Clone)]
pub struct Root {
    dir: Arc<Dir>,
}

impl Root {
    /// Opens the directory at `path`, and makes it first, with its parents, when it is missing.
    ///
    /// # Errors
    ///
    /// Whatever the operating system reports.
    pub fn open(path: &Path) -> io::Result<Root> {
        Dir::create_ambient_dir_all(path, ambient_authority())?;
        let dir = Dir::open_ambient_dir(path, ambient_authority())?;
        Ok(Root { dir: Arc::new(dir) })
    }

    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// What `path` names, behind all symbolic links.
    pub(crate) fn metadata(&self, path: &str) -> Result<Metadata, Status> {
        check(path)?;
        self.dir.metadata(path).map_err(|error| refusal::of(path, error))
    }

    /// Opens a regular file for reading. Never waits for the other side of a FIFO or for a device.
    pub(crate) fn open_file(&self, path: &str) -> Result<(File, Metadata), Status> {
        refuse_unless_file(path, &self.metadata(path)?)?;
        // What the path names may have changed since, so the open file is asked again.
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
        let file = self.dir.open_with(path, &options).map_err(|error| refusal::of(path, error))?;
        let metadata = file.metadata().map_err(|error| refusal::of(path, error))?;
        refuse_unless_file(path, &metadata)?;
        Ok((file, metadata))
    }
}

fn refuse_unless_file(path: &str, metadata: &Metadata) -> Result<(), Status> {
    if metadata.is_file() { Ok(()) } else { Err(refusal::not_a_file(path)) }
}

/// Refuses a path that cannot name anything below a root, by its text alone.
///
/// # Errors
///
/// `invalid_argument` with reason `bad-path`; `permission_denied` with reason `outside-root`.
pub(crate) fn check(path: &str) -> Result<(), Status> {
    if path.is_empty() || path.contains('\0') {
        return Err(refusal::bad_path(path));
    }
    let mut depth = 0usize;
    for component in Path::new(path).components() {
        depth = match component {
            Component::Normal(_) => depth + 1,
            Component::CurDir => depth,
            Component::ParentDir => depth.checked_sub(1).ok_or_else(|| refusal::outside_root(path))?,
            Component::RootDir | Component::Prefix(_) => return Err(refusal::outside_root(path)),
        };
    }
    Ok(())
}

/// Runs `work` where it may wait for a disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Status::unavailable("stopping", "the server is stopping").with_detail(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_judged_by_their_text_first() {
        let reason = |path| check(path).map_or_else(|status| status.reason().to_owned(), |()| "fine".to_owned());
        for path in ["a", "a/b", ".", "./a", "a/..", "a/../b", "...", "ü", "a\\..\\b"] {
            assert_eq!(reason(path), "fine", "{path}");
        }
        for path in ["", "\0", "a\0b"] {
            assert_eq!(reason(path), "bad-path", "{path:?}");
        }
        for path in ["..", "/", "/etc/passwd", "../a", "a/../../b", "./..", "//a"] {
            assert_eq!(reason(path), "outside-root", "{path}");
        }
    }
}
