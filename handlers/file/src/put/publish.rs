//! Puts a finished file into its place: at once, and only if nobody was faster.

use std::fs::{File, FileTimes};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plugd_core::Status;
use rustix::fs::{
    AtFlags, FallocateFlags, Mode, RenameFlags, fallocate, fchmod, fdatasync, fsync, linkat, renameat, renameat_with,
    unlinkat,
};
use rustix::io::Errno;

use super::partial::Partial;
use crate::entry::{Meta, PERMISSION_BITS, Time};
use crate::refusal;
use crate::root::Place;

/// How many places may be changed at once; more only wait for each other.
const LOCKS: usize = 64;

/// Two places that are locked; they may share a lock.
pub(crate) type TwoLocks<'a> = (MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>);

type Name<'a> = (BorrowedFd<'a>, &'a Path);

/// The calls that a full disk refuses. Tests put refusing ones in their place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Disk {
    pub(crate) allocate: fn(&File, start: u64, len: u64) -> Result<(), Errno>,
    pub(crate) sync: fn(&File, with_marks: bool) -> Result<(), Errno>,
    pub(crate) rename: fn(Name<'_>, Name<'_>) -> Result<(), Errno>,
    pub(crate) sync_dir: fn(&Place) -> Result<(), Errno>,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk {
            allocate: |file, start, len| fallocate(file, FallocateFlags::KEEP_SIZE, start, len),
            sync: |file, with_marks| if with_marks { fsync(file) } else { fdatasync(file) },
            rename: |(from, old), (to, new)| renameat(from, old, to, new),
            sync_dir: Place::sync_dir,
        }
    }
}

/// Changes names below a root, one place at a time.
#[derive(Debug)]
pub(crate) struct Publisher {
    disk: Disk,
    /// Between the look at a place and its change nobody else changes it, as far as this plugin goes.
    locks: [Mutex<()>; LOCKS],
    hash: RandomState,
}

impl Publisher {
    pub(crate) fn new(disk: Disk) -> Publisher {
        Publisher { disk, locks: std::array::from_fn(|_| Mutex::default()), hash: RandomState::new() }
    }

    /// Takes the space for `len` bytes from `start` on, without making the file longer.
    pub(crate) fn allocate(&self, file: &File, start: u64, len: u64) -> Result<(), Errno> {
        (self.disk.allocate)(file, start, len)
    }

    /// Waits until the disk has a file's content; with `with_marks` also its mode and times.
    pub(crate) fn sync(&self, file: &File, with_marks: bool) -> Result<(), Errno> {
        (self.disk.sync)(file, with_marks)
    }

    /// Waits until the disk has the names in a place's directory.
    pub(crate) fn sync_dir(&self, place: &Place) -> Result<(), Errno> {
        (self.disk.sync_dir)(place)
    }

    /// Keeps a place from being changed by other calls.
    pub(crate) fn lock(&self, place: &Place) -> Result<MutexGuard<'_, ()>, Status> {
        Ok(self.lock_at(self.index(place)?))
    }

    /// Keeps two places from being changed by other calls.
    pub(crate) fn lock_both(&self, one: &Place, other: &Place) -> Result<TwoLocks<'_>, Status> {
        let (one, other) = (self.index(one)?, self.index(other)?);
        // Always in the same order, so that no two calls wait for each other.
        let first = self.lock_at(one.min(other));
        Ok((first, (one != other).then(|| self.lock_at(one.max(other)))))
    }

    fn index(&self, place: &Place) -> Result<usize, Status> {
        let dir = Meta::of(&place.dir).map_err(|error| refusal::of(&place.path, error))?;
        let hash = self.hash.hash_one((dir.identity.device, dir.identity.inode, &place.name));
        Ok(hash as usize % LOCKS)
    }

    fn lock_at(&self, index: usize) -> MutexGuard<'_, ()> {
        self.locks[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renames a finished file. `judge` sees what stands in the place, and says whether the place must be free even then
    /// when somebody else, who knows no lock of ours, is faster. Returns what stood there.
    pub(crate) fn put_in_place(
        &self,
        partial: &Partial,
        place: &Place,
        judge: impl FnOnce(Option<&Meta>) -> Result<bool, Status>,
    ) -> Result<Option<Meta>, Status> {
        let guard = self.lock(place)?;
        let found = place.find()?;
        let must_be_free = judge(found.as_ref())?;
        let from = (partial.dir.as_fd(), Path::new(&partial.name));
        let to = (place.dir.as_fd(), Path::new(&place.name));
        let renamed = if must_be_free { rename_to_free(from, to) } else { (self.disk.rename)(from, to) };
        drop(guard);
        renamed.map_err(|error| match error {
            // The directory was removed meanwhile.
            Errno::NOENT => refusal::no_such_directory(&place.path).with_detail(error),
            error => refusal::of(&place.path, error),
        })?;
        Ok(found)
    }
}

/// Renames a file, and fails with `EXIST` when the new name is not free, in one step.
pub(crate) fn rename_to_free((from, old): Name<'_>, (to, new): Name<'_>) -> Result<(), Errno> {
    match renameat_with(from, old, to, new, RenameFlags::NOREPLACE) {
        // Some file systems cannot; a second link cannot replace anything either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            linkat(from, old, to, new, AtFlags::empty())?;
            unlinkat(from, old, AtFlags::empty())
        }
        renamed => renamed,
    }
}

/// Gives a file its permissions and its modification time; whether there was anything to give. Without a mode of its own
/// it has that of the file that it replaces: what was private stays private.
pub(super) fn mark(
    file: &File,
    mode: Option<u32>,
    mtime: Option<Time>,
    replaced: Option<&Meta>,
) -> Result<bool, Errno> {
    let inherited = replaced.filter(|meta| meta.is_file()).map(|meta| meta.mode & PERMISSION_BITS);
    let mode = mode.or(inherited);
    if let Some(mode) = mode {
        fchmod(file, Mode::from_raw_mode(mode as _))?;
    }
    if let Some(mtime) = mtime {
        let time = system_time(mtime).ok_or(Errno::INVAL)?;
        file.set_times(FileTimes::new().set_modified(time))
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))?;
    }
    Ok(mode.is_some() || mtime.is_some())
}

fn system_time(Time { s, ns }: Time) -> Option<SystemTime> {
    let seconds = Duration::from_secs(s.unsigned_abs());
    let second = if s < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    second?.checked_add(Duration::from_nanos(ns.into()))
}
