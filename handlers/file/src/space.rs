//! Counts the bytes below the root against the plugin's quota, and asks the file system for the rest.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use plugd_core::{Call, Status};
use rustix::fs::{Dir, OFlags, ResolveFlags, fstatvfs};
use rustix::io::Errno;
use serde::Serialize;

use crate::blocking::blocking;
use crate::entry::{Meta, json_line};
use crate::put::partial;
use crate::root::{Root, UPLOADS_NAME, beneath, meta_at};
use crate::{Shared, refusal};

/// How long a count is trusted. Between two, what this plugin stores and removes is added and subtracted; what others
/// do below the root is seen by the next count.
const COUNT_AGE_MAX: Duration = Duration::from_secs(60);

/// From which length of a path on, in bytes, the count opens a directory to go on from: callers can move trees below each
/// other until a path from the root is longer than the system takes, and with one more name this one is not.
const BELOW_LEN_MAX: usize = 2048;

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

/// The bytes of all files below a root, each under each of its names, kept only when there is a quota.
#[derive(Debug)]
pub(crate) struct Space {
    quota: Option<u64>,
    state: Mutex<State>,
    /// Held while the files are counted, which may take long; the state is not.
    counting: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The bytes of all files, and of the kept beginnings of uploads.
    used: u64,
    counted_at: Option<Instant>,
    /// How much was added since the last count began: it may have missed that, and rather counts it twice until the next.
    grown: u64,
    /// What running uploads may still add.
    reserved: u64,
    /// The files that running uploads will replace. The room of each is lent to one upload, or many at once would have
    /// it many times.
    lent: HashSet<(u64, u64)>,
}

impl State {
    fn is_fresh(&self) -> bool {
        self.counted_at.is_some_and(|at| at.elapsed() <= COUNT_AGE_MAX)
    }

    fn taken(&self) -> u64 {
        self.used.saturating_add(self.reserved)
    }

    fn change(&mut self, added: u64, removed: u64) {
        self.used = self.used.saturating_add(added).saturating_sub(removed);
        self.grown = self.grown.saturating_add(added.saturating_sub(removed));
    }
}

impl Space {
    pub(crate) fn new(quota: Option<u64>) -> Arc<Space> {
        Arc::new(Space { quota, state: Mutex::default(), counting: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is taken of the quota: by files, by kept uploads, and by running ones.
    pub(crate) fn used(&self, root: &Root) -> Result<Option<u64>, Status> {
        if self.quota.is_none() {
            return Ok(None);
        }
        self.count(root)?;
        Ok(Some(self.lock().taken()))
    }

    /// Counts anew when the last count is too old. Only the first one is waited for: while another call counts, the old
    /// number does.
    fn count(&self, root: &Root) -> Result<(), Status> {
        let is_first = self.lock().counted_at.is_none();
        let counting = match self.counting.try_lock() {
            Err(TryLockError::WouldBlock) if is_first => self.counting.lock().unwrap_or_else(PoisonError::into_inner),
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Ok(counting) => counting,
        };
        {
            let mut state = self.lock();
            if state.is_fresh() {
                return Ok(());
            }
            state.grown = 0;
        }
        let counted = count(root).map_err(|error| refusal::of(Path::new("."), error))?;
        let mut state = self.lock();
        state.used = counted.saturating_add(state.grown);
        state.counted_at = Some(Instant::now());
        drop(counting);
        Ok(())
    }

    /// Notes that files grew by `added` bytes and shrank, or went, by `removed`.
    pub(crate) fn change(&self, added: u64, removed: u64) {
        if self.quota.is_some() {
            self.lock().change(added, removed);
        }
    }

    /// Begins an upload, which replaces what was found in its place.
    pub(crate) fn reservation(self: &Arc<Space>, root: &Root, found: Option<&Meta>) -> Result<Reservation, Status> {
        let mut reservation = Reservation { space: Arc::clone(self), lent: None, replaced: 0, reserved: 0 };
        if self.quota.is_some() {
            self.count(root)?;
            if let Some(meta) = found.filter(|meta| meta.is_file()) {
                let file = (meta.identity.device, meta.identity.inode);
                if self.lock().lent.insert(file) {
                    (reservation.lent, reservation.replaced) = (Some(file), meta.size());
                }
            }
        }
        Ok(reservation)
    }
}

/// The part of the quota that a running upload has taken; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    space: Arc<Space>,
    /// The file whose room was lent to this upload.
    lent: Option<(u64, u64)>,
    /// The bytes of that file.
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
        let taken = state.taken();
        if more > 0 && taken.saturating_add(more) > quota {
            let left = quota.saturating_sub(taken);
            let message = format!("{more} bytes do not fit into the quota of {quota}; left: {left}");
            return Err(Status::resource_exhausted("quota", message));
        }
        state.reserved += more;
        self.reserved += more;
        Ok(())
    }

    /// Takes what a file of `size` bytes needs in the place of one of `replaced`, which may be another one than in the
    /// beginning.
    ///
    /// # Errors
    ///
    /// As [`Reservation::grow_to`].
    pub(crate) fn replace(&mut self, size: u64, replaced: u64) -> Result<(), Status> {
        self.replaced = self.replaced.min(replaced);
        self.grow_to(size)
    }

    /// Turns what was taken into a file of `size` bytes, which has replaced one of `replaced`.
    pub(crate) fn settle(&mut self, size: u64, replaced: u64) {
        if self.space.quota.is_some() {
            let space = Arc::clone(&self.space);
            let mut state = space.lock();
            self.give_back(&mut state);
            state.change(size, replaced);
        }
    }

    /// Turns what was taken into `len` bytes that are kept beside the file that they were to replace; whether they fit.
    pub(crate) fn keep(&mut self, len: u64) -> bool {
        let Some(quota) = self.space.quota else { return true };
        let space = Arc::clone(&self.space);
        let mut state = space.lock();
        self.give_back(&mut state);
        let fits = state.taken().saturating_add(len) <= quota;
        if fits {
            state.change(len, 0);
        }
        fits
    }

    fn give_back(&mut self, state: &mut State) {
        state.reserved = state.reserved.saturating_sub(std::mem::take(&mut self.reserved));
        if let Some(file) = self.lent.take() {
            state.lent.remove(&file);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.reserved > 0 || self.lent.is_some() {
            let space = Arc::clone(&self.space);
            self.give_back(&mut space.lock());
        }
    }
}

/// A directory whose files are still to be added up: its path below an open one.
struct Uncounted {
    base: Rc<OwnedFd>,
    path: PathBuf,
}

/// Adds up the sizes of all files below the root, however deep they lie.
fn count(root: &Root) -> Result<u64, Errno> {
    let base = open_below(root.dir(), Path::new("."), OFlags::PATH)?;
    let mut dirs = vec![Uncounted { base: Rc::new(base), path: PathBuf::from(".") }];
    let mut bytes = 0u64;
    while let Some(Uncounted { base, path }) = dirs.pop() {
        let added = open_below(&base, &path, OFlags::RDONLY).and_then(|dir| {
            let of_uploads = path.file_name().is_some_and(|name| name == UPLOADS_NAME);
            let (base, path) = match path.as_os_str().len() < BELOW_LEN_MAX {
                true => (base, path),
                false => (Rc::new(open_below(&dir, Path::new("."), OFlags::PATH)?), PathBuf::new()),
            };
            let below = |name: &OsStr| Uncounted { base: Rc::clone(&base), path: path.join(name) };
            count_dir(&dir, of_uploads, |name| dirs.push(below(name)))
        });
        match added {
            Ok(added) => bytes = bytes.saturating_add(added),
            // It was removed or replaced meanwhile, or is not ours to read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Adds up the files in one directory, and names the directories in it.
fn count_dir(dir: &OwnedFd, of_uploads: bool, mut below: impl FnMut(&OsStr)) -> Result<u64, Errno> {
    let mut bytes = 0u64;
    for entry in Dir::read_from(dir)? {
        let entry = match entry {
            // It was removed while it was read.
            Err(Errno::NOENT) => break,
            entry => entry?,
        };
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if matches!(name.as_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(meta) = meta_at(dir, name) else { continue };
        if meta.is_dir() {
            below(name);
        } else if meta.is_file() && (!of_uploads || partial::is_kept(dir, name)) {
            bytes = bytes.saturating_add(meta.size());
        }
    }
    Ok(bytes)
}

fn open_below(base: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    beneath(base, path, flags | OFlags::DIRECTORY, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Symlinks;

    #[test]
    fn a_count_that_takes_long_keeps_nobody_waiting() {
        let world = tempfile::tempdir().expect("a directory");
        std::fs::write(world.path().join("a"), "hello").expect("a file");
        let root = Root::open(world.path(), Symlinks::Inside).expect("a root");
        let space = Space::new(Some(10));
        assert_eq!(space.used(&root), Ok(Some(5)));
        space.lock().counted_at = Instant::now().checked_sub(2 * COUNT_AGE_MAX);
        let counting = space.counting.lock().expect("no panic");
        std::fs::write(world.path().join("b"), "hi").expect("a file");
        assert_eq!(space.used(&root), Ok(Some(5)), "the old number does meanwhile");
        space.reservation(&root, None).and_then(|mut reservation| reservation.grow_to(5)).expect("room");
        drop(counting);
        assert_eq!(space.used(&root), Ok(Some(7)));
    }
}
