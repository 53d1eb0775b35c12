//! A file that is read while others may change it.

use std::fs::File;
use std::io::{self, IoSliceMut, Read, Seek};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugd_core::Status;
use rustix::buffer::spare_capacity;
use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};
use rustix::time::{ClockId, clock_gettime};

use crate::blocking::blocking;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::entry::{Meta, Time};
use crate::version::Version;
use crate::{Shared, refusal};

/// How many bytes are read at once: few system calls, and still in the processor's cache when they are used.
const CHUNK_LEN: usize = 256 << 10;

/// How many bytes Linux reads ahead at once, unless told otherwise.
const READ_AHEAD_LEN: usize = 128 << 10;

/// The longest time between two ticks of the clock that a file system takes its times from.
const TICK_MAX: Duration = Duration::from_millis(10);

/// How many bytes are summed up before the caller may stop it: a few milliseconds' work.
pub(crate) const HASH_STEP_LEN: u64 = 4 << 20;

/// An open regular file, and what it was when it was opened.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: Arc<File>,
    meta: Meta,
}

impl Source {
    /// A file that was just opened. It waits for the next tick of the file system's clock when the file changed in this
    /// one: before Linux 6.13, and on some file systems since, another change in the same tick would not show.
    pub(crate) fn new(path: &Path, (file, meta): (File, Meta)) -> Result<Arc<Source>, Status> {
        let mut source = Source { path: path.to_owned(), file: Arc::new(file), meta };
        let start = Instant::now();
        // A clock that was set back, or is another machine's, is not waited for.
        while !source.look().map_err(|error| refusal::of(path, error))? && start.elapsed() < TICK_MAX {
            std::thread::sleep(TICK_MAX / 20);
        }
        Ok(Arc::new(source))
    }

    /// As [`new`](Source::new), when there is nothing to wait for; nothing when there is, or when it fails.
    pub(crate) fn settled(path: &Path, (file, meta): (File, Meta)) -> Option<Arc<Source>> {
        let mut source = Source { path: path.to_owned(), file: Arc::new(file), meta };
        source.look().ok()?.then(|| Arc::new(source))
    }

    /// Asks what the file is; whether its next change is sure to show.
    fn look(&mut self) -> rustix::io::Result<bool> {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        self.meta = Meta::of(&self.file)?;
        Ok(self.meta.identity.ctime < Time { s: now.tv_sec, ns: now.tv_nsec as u32 })
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(crate) fn changed(&self) -> Status {
        refusal::source_changed(&self.path)
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Has the system read `range` into its memory, on a thread that may wait, unless it is there already.
    pub(crate) async fn warm(self: &Arc<Source>, range: Range<u64>) -> Result<(), Status> {
        if range.is_empty() || self.is_warm(&range) {
            return Ok(());
        }
        let source = Arc::clone(self);
        blocking(move || source.hash(range, &mut Hasher::None)).await
    }

    /// Whether what lies in `range` can be read without waiting. It looks at one byte in each stretch that the system reads
    /// ahead at once, so it may be wrong about a stretch that was thrown out in part; then the next reader waits.
    fn is_warm(&self, range: &Range<u64>) -> bool {
        let mut byte = [0];
        let is_there = |position: u64| {
            let read = preadv2(&self.file, &mut [IoSliceMut::new(&mut byte)], position, ReadWriteFlags::NOWAIT);
            read.is_ok()
        };
        range.clone().step_by(READ_AHEAD_LEN).chain([range.end.saturating_sub(1)]).all(is_there)
    }

    /// Reads exactly `range`, which lies within the file as it was.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Vec<u8>, Status> {
        let len = (range.end - range.start) as usize;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let position = range.start + bytes.len() as u64;
            match pread(&self.file, spare_capacity(&mut bytes), position) {
                Ok(0) => return Err(self.changed()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.changed().with_detail(error)),
            }
        }
        // Memory is given in larger steps, and the file may have grown.
        bytes.truncate(len);
        Ok(bytes)
    }

    /// As [`read`](Source::read), when that needs no waiting; nothing when it does, or when it fails.
    pub(crate) fn read_cached(&self, range: Range<u64>) -> Option<Vec<u8>> {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        let read = preadv2(&self.file, &mut [IoSliceMut::new(&mut bytes)], range.start, ReadWriteFlags::NOWAIT);
        (read == Ok(bytes.len())).then_some(bytes)
    }

    /// Sums up exactly `range`.
    pub(crate) fn hash(&self, range: Range<u64>, hasher: &mut Hasher) -> Result<(), Status> {
        let mut chunk = vec![0; CHUNK_LEN.min((range.end - range.start) as usize)];
        let mut position = range.start;
        while position < range.end {
            let len = (range.end - position).min(CHUNK_LEN as u64) as usize;
            let read = self.file.read_exact_at(&mut chunk[..len], position);
            read.map_err(|error| self.changed().with_detail(error))?;
            hasher.update(&chunk[..len]);
            position += len as u64;
        }
        Ok(())
    }

    /// The file of an upload, as far as it has come.
    pub(crate) fn of_partial(path: &Path, file: &File) -> Result<Source, Status> {
        let of = || Ok((Meta::of(file)?, file.try_clone()?));
        let (meta, file) = of().map_err(|error: io::Error| refusal::of(path, error))?;
        Ok(Source { path: path.to_owned(), file: Arc::new(file), meta })
    }

    /// Copies up to `len_max` bytes from `position` on to the same position of another file, within the kernel where it
    /// can, and leaves out the holes; returns how far it came.
    pub(crate) fn copy_to(
        &self,
        (path, target): (&Path, &mut File),
        position: u64,
        len_max: u64,
    ) -> Result<u64, Status> {
        let size = self.meta.size();
        // What is read is at hand; it is the target that has no room.
        let refuse_target = |error: io::Error| refusal::of(path, error);
        let refuse = |error: io::Error| refusal::of(&self.path, error);
        let start = match seek(&self.file, SeekFrom::Data(position)) {
            Ok(start) => start.min(size),
            // Nothing but a hole is left.
            Err(Errno::NXIO) => size,
            Err(error) => return Err(refuse(error.into())),
        };
        let end = match seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size).min(start.saturating_add(len_max)),
            Err(Errno::NXIO) => size,
            Err(error) => return Err(refuse(error.into())),
        };
        target.set_len(start).map_err(refuse_target)?;
        let mut from = &*self.file;
        from.seek(io::SeekFrom::Start(start)).map_err(refuse)?;
        target.seek(io::SeekFrom::Start(start)).map_err(refuse_target)?;
        let copied = io::copy(&mut from.take(end - start), target).map_err(refuse_target)?;
        if start + copied < end {
            return Err(self.changed());
        }
        Ok(end - position)
    }

    /// Fails when the file is no longer what it was.
    pub(crate) fn ensure_unchanged(&self) -> Result<(), Status> {
        match Meta::of(&self.file) {
            Ok(meta) if meta.identity == self.meta.identity => Ok(()),
            Ok(_) => Err(self.changed()),
            Err(error) => Err(self.changed().with_detail(error)),
        }
    }

    /// The digest of the whole file: a remembered one, or it is read for it.
    ///
    /// # Cancellation
    ///
    /// Reading stops within a few milliseconds when the future is dropped.
    pub(crate) async fn digest(
        self: &Arc<Source>,
        shared: &Arc<Shared>,
        algorithm: Algorithm,
    ) -> Result<Digest, Status> {
        if let Some(digest) = shared.digests.find(&self.meta.identity, algorithm) {
            return Ok(digest);
        }
        let (mut hasher, mut position) = (Hasher::new(algorithm), 0);
        while position < self.meta.size() {
            let range = position..self.meta.size().min(position + HASH_STEP_LEN);
            position = range.end;
            let source = Arc::clone(self);
            hasher = blocking(move || {
                source.hash(range, &mut hasher)?;
                Ok(hasher)
            })
            .await?;
        }
        let digest = hasher.finish().ok_or_else(|| Digest::bad("none"))?;
        self.ensure_unchanged()?;
        shared.digests.remember(&self.meta.identity, digest);
        Ok(digest)
    }

    /// Whether the file is the version that the caller means.
    pub(crate) async fn is(self: &Arc<Source>, shared: &Arc<Shared>, version: &Version) -> Result<bool, Status> {
        match version {
            Version::Etag(etag) => Ok(self.meta.identity.etag() == *etag),
            Version::Digest(digest) => Ok(self.digest(shared, digest.algorithm()).await? == *digest),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_looked_at_when_its_next_change_is_sure_to_show() {
        let world = tempfile::tempdir().expect("a directory");
        let path = world.path().join("a");
        for _ in 0..20 {
            fs::write(&path, "hello").expect("a file");
            let mut file = File::options().write(true).open(&path).expect("a file");
            let read = File::open(&path).expect("a file");
            let meta = Meta::of(&read).expect("an open file");
            let source = Source::new(&path, (read, meta)).expect("an open file");
            let now = clock_gettime(ClockId::RealtimeCoarse);
            let ctime = source.meta.identity.ctime;
            assert!(ctime < Time { s: now.tv_sec, ns: now.tv_nsec as u32 }, "the next change has a later time");
            source.ensure_unchanged().expect("no change yet");
            file.write_all(b"jello").expect("room");
            assert_eq!(source.ensure_unchanged().expect_err("a change").reason(), "source-changed");
        }
    }
}
