//! Counts the bytes below the root against the plugin's quota, and asks the file system for the rest.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use plugd_core::{Call, Status};
use rustix::fs::{Dir, OFlags, ResolveFlags, fstatvfs};
use rustix::io::Errno;
use serde::Serialize;

use crate::blocking::blocking;
use crate::entry::json_line;
use crate::put::partial;
use crate::root::{Root, UPLOADS_NAME, beneath, meta_at};
use crate::{Shared, refusal};

/// How long a count is trusted. Between two, what this plugin stores and removes is added and subtracted; what others
/// do below the root is seen by the next count.
const COUNT_AGE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize)]
struct DfLine {
    total: u64,
    free: u64,
    available: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_used: Option<u64>,
}

/// Sends one line about the space of the root's file system and of the quota.
pub(crate) async fn df(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let shared = Arc::clone(shared);
    let line = blocking(move || {
        let stat = fstatvfs(shared.root.dir()).map_err(|error| refusal::of(Path::new("."), error))?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let used = shared.space.used(&shared.root)?;
        json_line(&DfLine {
            total: bytes(stat.f_blocks),
            free: bytes(stat.f_bfree),
            available: bytes(stat.f_bavail),
            quota: shared.space.quota,
            quota_used: used,
        })
    });
    call.send(line.await?).await
}

/// The bytes of all files below a root, kept only when there is a quota.
#[derive(Debug)]
pub(crate) struct Space {
    quota: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The bytes of all files, and of the kept beginnings of uploads.
    used: u64,
    counted_at: Option<Instant>,
    /// What running uploads may still add.
    reserved: u64,
}

impl Space {
    pub(crate) fn new(quota: Option<u64>) -> Arc<Space> {
        Arc::new(Space { quota, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self, root: &Root) -> Result<Option<u64>, Status> {
        match self.quota {
            Some(_) => self.counted(root).map(|state| Some(state.used.saturating_add(state.reserved))),
            None => Ok(None),
        }
    }

    /// The state, counted anew when the last count is too old. Others wait meanwhile.
    fn counted(&self, root: &Root) -> Result<MutexGuard<'_, State>, Status> {
        let mut state = self.lock();
        if state.counted_at.is_none_or(|at| at.elapsed() > COUNT_AGE_MAX) {
            state.used = count(root).map_err(|error| refusal::of(Path::new("."), error))?;
            state.counted_at = Some(Instant::now());
        }
        Ok(state)
    }

    /// Notes that files grew by `added` bytes and shrank, or went, by `removed`.
    pub(crate) fn change(&self, added: u64, removed: u64) {
        if self.quota.is_some() {
            let mut state = self.lock();
            state.used = state.used.saturating_add(added).saturating_sub(removed);
        }
    }

    /// Begins an upload, which replaces a file of `replaced` bytes.
    pub(crate) fn reservation(self: &Arc<Space>, root: &Root, replaced: u64) -> Result<Reservation, Status> {
        if self.quota.is_some() {
            drop(self.counted(root)?);
        }
        Ok(Reservation { space: Arc::clone(self), replaced, reserved: 0 })
    }
}

/// The part of the quota that a running upload has taken; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    space: Arc<Space>,
    replaced: u64,
    reserved: u64,
}

impl Reservation {
    /// Takes as much as a file of `size` bytes needs.
    ///
    /// # Errors
    ///
    /// `resource_exhausted` with reason `quota` when so much is not left.
    pub(crate) fn grow_to(&mut self, size: u64) -> Result<(), Status> {
        let Some(quota) = self.space.quota else { return Ok(()) };
        let more = size.saturating_sub(self.replaced).saturating_sub(self.reserved);
        let mut state = self.space.lock();
        let taken = state.used.saturating_add(state.reserved);
        if more > 0 && taken.saturating_add(more) > quota {
            let left = quota.saturating_sub(taken);
            let message = format!("{more} bytes do not fit into the quota of {quota}; left: {left}");
            return Err(Status::resource_exhausted("quota", message));
        }
        state.reserved += more;
        self.reserved += more;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.reserved > 0 {
            let mut state = self.space.lock();
            state.reserved = state.reserved.saturating_sub(self.reserved);
        }
    }
}

/// Adds up the sizes of all files below the root. It holds one directory open at a time.
fn count(root: &Root) -> Result<u64, Errno> {
    let mut bytes = 0u64;
    let mut dirs = VecDeque::from([PathBuf::from(".")]);
    while let Some(path) = dirs.pop_back() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = match beneath(root.dir(), &path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => continue,
            Err(error) => return Err(error),
        };
        let of_uploads = path.file_name().is_some_and(|name| name == UPLOADS_NAME);
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = path_name(entry.file_name());
            if matches!(name.as_encoded_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(meta) = meta_at(&dir, name) else { continue };
            if meta.is_dir() {
                dirs.push_back(path.join(name));
            } else if meta.is_file() && (!of_uploads || partial::is_kept(&dir, name)) {
                bytes = bytes.saturating_add(meta.size());
            }
        }
    }
    Ok(bytes)
}

fn path_name(name: &std::ffi::CStr) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes())
}
