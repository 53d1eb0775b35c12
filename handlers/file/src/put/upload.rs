//! A file that is being stored: written, verified, and then published at once.

use std::io::{IoSlice, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use plugd_core::Status;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::inflow::Inflow;
use super::partial::{self, Claim, Partial};
use crate::config::Durability;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::entry::{Meta, Time};
use crate::root::{Parent, Place, refuse_unless_replaceable};
use crate::source::Source;
use crate::space::Reservation;
use crate::version::Identity;
use crate::{Shared, refusal};

/// From how many bytes on space is taken up front: below, a full disk shows soon enough.
const ALLOCATED_LEN_LEAST: u64 = 1 << 20;

/// The most slices that one system call takes (UIO_MAXIOV).
const SLICES_MAX: usize = 1024;

/// What is to be stored, and how.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) path: PathBuf,
    /// How many bytes it must have.
    pub(crate) size: Option<u64>,
    pub(crate) algorithm: Algorithm,
    pub(crate) no_clobber: bool,
    /// What must stand there when it is replaced.
    pub(crate) replaces: Option<Identity>,
    pub(crate) mtime: Option<Time>,
    pub(crate) mode: Option<u32>,
    pub(crate) durability: Durability,
}

/// What the caller is told of a file that was stored.
#[derive(Debug, Serialize)]
pub(crate) struct Receipt {
    pub(crate) bytes: u64,
    pub(crate) size: u64,
    pub(crate) resumed_from: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<Digest>,
    /// Whether the caller said which digest it expects; had it been another, the call would have failed.
    pub(crate) verified: bool,
    pub(crate) durable: Durability,
    pub(crate) published: bool,
    pub(crate) etag: String,
}

/// What becomes of the file when the upload is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is kept for its token, or removed when it has none.
    Cut,
    /// It is removed: carrying on would not make it good.
    Spoiled,
    /// It is in its place.
    Published,
}

/// A file that is not whole yet. Dropped, it leaves nothing, or what its token can carry on.
#[derive(Debug)]
pub(crate) struct Upload {
    shared: Arc<Shared>,
    order: Order,
    place: Place,
    partial: Partial,
    reservation: Reservation,
    offset: u64,
    len: u64,
    fate: Fate,
    /// Dropped last: then the next call may take over.
    claim: Option<Claim>,
}

/// What the last of several uploads found, for the next one: mostly both go to the same directory.
#[derive(Debug, Default)]
pub(super) struct Nearby {
    parent: Option<Parent>,
    /// Where uploads to that directory are until they are whole.
    uploads: Option<Arc<OwnedFd>>,
}

impl Upload {
    /// Checks what can be checked before the first byte, and opens the file to write into.
    pub(crate) fn prepare(
        shared: &Arc<Shared>,
        order: Order,
        claim: Option<Claim>,
        resume: bool,
        parents: bool,
    ) -> Result<Upload, Status> {
        Upload::prepare_near(shared, order, claim, resume, parents, &mut Nearby::default())
    }

    /// As [`prepare`](Upload::prepare), beside the upload before it when both go to one directory.
    pub(super) fn prepare_near(
        shared: &Arc<Shared>,
        order: Order,
        claim: Option<Claim>,
        resume: bool,
        parents: bool,
        nearby: &mut Nearby,
    ) -> Result<Upload, Status> {
        refuse_too_large(shared, order.size.unwrap_or(0))?;
        let is_near = nearby.parent.as_ref().is_some_and(|parent| parent.holds(&order.path));
        let uploads = nearby.uploads.take().filter(|_| is_near);
        if parents
            && uploads.is_none()
            && let Some(parent) = order.path.parent().filter(|parent| !parent.as_os_str().is_empty())
        {
            shared.root.make_dirs(parent, order.durability == Durability::Full)?;
        }
        let (place, found) = shared.root.target_near(&order.path, &mut nearby.parent)?;
        refuse_unwanted(&place, &order, found.as_ref())?;
        let reservation = shared.space.reservation(&shared.root, found.as_ref())?;
        let partial = shared.uploads.open(&shared.root, &place, claim.as_ref(), resume, uploads)?;
        nearby.uploads = Some(Arc::clone(&partial.dir));
        shared.space.change(0, partial.counted);
        let len = partial.len;
        let shared = Arc::clone(shared);
        let mut upload =
            Upload { shared, order, place, partial, reservation, offset: len, len, fate: Fate::Cut, claim };
        upload.begin()?;
        Ok(upload)
    }

    fn begin(&mut self) -> Result<(), Status> {
        let size = self.order.size.unwrap_or(0);
        self.reservation.grow_to(size.max(self.len))?;
        if self.order.size.is_some_and(|size| self.len > size) {
            // It was another file then.
            self.partial.file.set_len(0).map_err(|error| refusal::of(&self.place.path, error))?;
            (self.offset, self.len) = (0, 0);
        }
        if self.len > 0 {
            let sought = self.partial.file.seek(SeekFrom::Start(self.len));
            sought.map_err(|error| refusal::of(&self.place.path, error))?;
        }
        Ok(())
    }

    /// Takes the space for the whole file on the disk now, where the file system can: a full disk shows before the first
    /// byte, and not after the last but one.
    pub(crate) fn allocate(self) -> Result<Upload, Status> {
        let missing = self.order.size.unwrap_or(0).saturating_sub(self.len);
        if missing >= ALLOCATED_LEN_LEAST {
            let allocated = self.shared.publisher.allocate(&self.partial.file, self.len, missing);
            // Not every file system can, and what it cannot do now it may still do later.
            if let Err(error @ (Errno::NOSPC | Errno::DQUOT)) = allocated {
                return Err(refusal::of(&self.place.path, error));
            }
        }
        Ok(self)
    }

    /// How many bytes there were in the beginning.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.order.algorithm
    }

    /// Is cancelled when another call takes this upload over.
    pub(crate) fn superseded(&self) -> Option<CancellationToken> {
        self.claim.as_ref().map(Claim::superseded)
    }

    pub(crate) fn superseded_status(&self) -> Status {
        Status::aborted("superseded", format!("another call carries on with {:?}", self.place.path))
    }

    /// Writes more.
    pub(crate) fn write(&mut self, pieces: &[Bytes]) -> Result<(), Status> {
        let len = self.len + pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if let Some(size) = self.order.size.filter(|size| len > *size) {
            self.fate = Fate::Spoiled;
            return Err(size_mismatch(&format!("more than {size}"), size));
        }
        let room = refuse_too_large(&self.shared, len).and_then(|()| self.reservation.grow_to(len));
        room.inspect_err(|_| self.fate = Fate::Spoiled)?;
        write_all(&mut self.partial.file, pieces).map_err(|error| refusal::of(&self.place.path, error))?;
        self.len = len;
        Ok(())
    }

    /// Sums up what was there in the beginning, from `start` to at most `end`; returns how far it came.
    pub(crate) fn hash(&self, start: u64, end: u64, hasher: &mut Hasher) -> Result<u64, Status> {
        let end = end.min(self.offset);
        Source::of_partial(&self.place.path, &self.partial.file)?.hash(start..end, hasher)?;
        Ok(end)
    }

    /// Copies a part of another file to the end of this one; returns how many bytes.
    pub(crate) fn copy(&mut self, source: &Source, len_max: u64) -> Result<u64, Status> {
        let copied = source.copy_to((&self.place.path, &mut self.partial.file), self.len, len_max);
        self.len += copied.as_ref().unwrap_or(&0);
        copied
    }

    /// Writes a whole content and publishes the file.
    pub(super) fn finish_whole(mut self, content: Bytes, digest: Option<Digest>) -> Result<Receipt, Status> {
        let mut hasher = Hasher::new(self.algorithm());
        hasher.update(&content);
        if !content.is_empty() {
            self.write(&[content])?;
        }
        self.finish(digest.as_slice(), hasher.finish())
    }

    /// Writes a short input and publishes the file.
    pub(crate) fn finish_with(mut self, mut inflow: Inflow, mut hasher: Hasher) -> Result<Receipt, Status> {
        let digests = inflow.digests().inspect_err(|_| self.fate = Fate::Spoiled)?;
        let pieces = inflow.take();
        pieces.iter().for_each(|piece| hasher.update(piece));
        if !pieces.is_empty() {
            self.write(&pieces)?;
        }
        self.finish(&digests, hasher.finish())
    }

    /// Publishes the file, if it is what the caller announced.
    pub(crate) fn finish(mut self, digests: &[Digest], computed: Option<Digest>) -> Result<Receipt, Status> {
        if let Some(size) = self.order.size.filter(|size| *size != self.len) {
            return Err(size_mismatch(&self.len.to_string(), size));
        }
        verify(digests, computed).inspect_err(|_| self.fate = Fate::Spoiled)?;
        self.publish()?;
        let meta = Meta::of(&self.partial.file).map_err(|error| refusal::of(&self.place.path, error))?;
        Ok(Receipt {
            bytes: self.len - self.offset,
            size: self.len,
            resumed_from: self.offset,
            digest: computed,
            verified: !digests.is_empty(),
            durable: self.order.durability,
            published: true,
            etag: meta.identity.etag(),
        })
    }

    /// Puts the file into its place.
    fn publish(&mut self) -> Result<(), Status> {
        let refuse = |error: Errno| refusal::of(&self.place.path, error);
        let Order { mode, mtime, durability, no_clobber, .. } = self.order;
        let publisher = &self.shared.publisher;
        let mark = |found: Option<&Meta>| super::publish::mark(&self.partial.file, mode, mtime, found).map_err(refuse);
        let is_synced = durability != Durability::None;
        if is_synced {
            let has_marks = mark(self.place.find()?.as_ref())?;
            // What the disk did not take may still be in memory, and the next attempt may be told that all is well.
            let synced = publisher.sync(&self.partial.file, has_marks);
            synced.inspect_err(|_| self.fate = Fate::Spoiled).map_err(refuse)?;
        }
        let replaced = publisher.put_in_place(&self.partial, &self.place, |found| {
            refuse_unwanted(&self.place, &self.order, found).inspect_err(|_| self.fate = Fate::Spoiled)?;
            if !is_synced {
                mark(found)?;
            }
            self.reservation.replace(self.len, file_size(found))?;
            Ok(no_clobber)
        })?;
        // From here on it is visible, whatever else fails.
        self.fate = Fate::Published;
        self.reservation.settle(self.len, file_size(replaced.as_ref()));
        if durability == Durability::Full {
            publisher.sync_dir(&self.place).map_err(refuse)?;
        }
        Ok(())
    }

    /// Ends an upload whose call is over, with what had come of the input.
    pub(crate) fn give_up(mut self, mut inflow: Inflow) {
        if self.claim.is_some() {
            // What cannot be written now is sent again.
            let _ = self.write(&inflow.take());
        }
    }

    /// Trims what is to be kept; whether it can be kept at all.
    fn keep(&mut self) -> bool {
        let Some(len) = Meta::of(&self.partial.file).ok().map(|meta| meta.size()).filter(|len| *len > 0) else {
            return false;
        };
        // Space that was reserved behind the end goes back.
        let is_kept = self.shared.uploads.has_room(&self.partial.dir)
            && self.partial.file.set_len(len).is_ok()
            && self.reservation.keep(len);
        if is_kept {
            partial::sweep_later(&self.shared, self.shared.settings.upload_expiry);
        }
        is_kept
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let is_over = match self.fate {
            Fate::Published => true,
            Fate::Cut => self.claim.is_some() && self.keep(),
            Fate::Spoiled => false,
        };
        if !is_over {
            let _ = unlinkat(&self.partial.dir, &self.partial.name, AtFlags::empty());
        }
    }
}

fn refuse_too_large(shared: &Shared, size: u64) -> Result<(), Status> {
    let allowed = shared.settings.size_max.map_or(i64::MAX as u64, |size| size.as_u64());
    if size > allowed {
        let message = format!("{size} bytes are too many for a file; allowed: {allowed}");
        return Err(Status::resource_exhausted("too-large", message));
    }
    Ok(())
}

/// The bytes that a file leaves when it is replaced.
fn file_size(found: Option<&Meta>) -> u64 {
    found.filter(|meta| meta.is_file()).map_or(0, Meta::size)
}

/// Refuses when what stands in the place may not be replaced.
fn refuse_unwanted(place: &Place, order: &Order, found: Option<&Meta>) -> Result<(), Status> {
    if let Some(meta) = found {
        refuse_unless_replaceable(&place.path, meta)?;
        if order.no_clobber {
            return Err(refusal::exists(&place.path));
        }
    }
    match order.replaces {
        Some(identity) if found.is_none_or(|meta| meta.identity != identity) => Err(refusal::changed(&place.path)),
        _ => Ok(()),
    }
}

fn verify(digests: &[Digest], computed: Option<Digest>) -> Result<(), Status> {
    for digest in digests {
        match computed {
            Some(computed) if computed == *digest => {}
            Some(computed) if computed.algorithm() == digest.algorithm() => {
                let message = format!("file has the digest {computed}; expected: {digest}");
                return Err(Status::data_loss("digest-mismatch", message));
            }
            computed => {
                let name = computed.map_or(Algorithm::None, |computed| computed.algorithm()).name();
                return Err(Digest::bad(&format!("{digest} for the algorithm {name}")));
            }
        }
    }
    Ok(())
}

fn size_mismatch(found: &str, expected: u64) -> Status {
    Status::data_loss("size-mismatch", format!("file has {found} bytes; expected: {expected}"))
}

fn write_all(file: &mut std::fs::File, pieces: &[Bytes]) -> std::io::Result<()> {
    for pieces in pieces.chunks(SLICES_MAX) {
        let mut slices: Vec<IoSlice<'_>> =
            pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| IoSlice::new(piece)).collect();
        let mut slices = &mut slices[..];
        while !slices.is_empty() {
            match file.write_vectored(slices) {
                Ok(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(len) => IoSlice::advance_slices(&mut slices, len),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::put::Disk;
    use crate::put::partial::Key;

    fn shared(root: &Path, disk: Disk) -> Arc<Shared> {
        shared_with(root, json!({}), disk)
    }

    fn shared_with(root: &Path, mut settings: serde_json::Value, disk: Disk) -> Arc<Shared> {
        settings["root"] = json!("");
        settings["writable"] = json!(true);
        Shared::open(root, serde_json::from_value(settings).expect("good settings"), disk).expect("a root")
    }

    async fn prepare(shared: &Arc<Shared>, token: Option<&str>, resume: bool) -> Upload {
        let claim = match token {
            Some(token) => {
                let key = Key::new(token, Path::new("a")).expect("a good token");
                Some(shared.uploads.claim(key).await.expect("nobody else"))
            }
            None => None,
        };
        let order = Order {
            path: "a".into(),
            size: Some(5),
            algorithm: Algorithm::None,
            no_clobber: false,
            replaces: None,
            mtime: None,
            mode: None,
            durability: Durability::Full,
        };
        Upload::prepare(shared, order, claim, resume, false).expect("room")
    }

    /// Stores a file on a disk that is full at the last moment, and returns how many uploads are left.
    async fn fail(root: &Path, disk: Disk, token: Option<&str>) -> usize {
        fs::write(root.join("a"), "old").expect("a file");
        let mut upload = prepare(&shared(root, disk), token, false).await;
        upload.write(&[Bytes::from("hello")]).expect("room");
        let status = upload.finish(&[], None).expect_err("a full disk");
        assert_eq!(status.to_string(), "resource_exhausted (no-space): no space left for \"a\"");
        assert_eq!(fs::read_to_string(root.join("a")).expect("the old file"), "old");
        fs::read_dir(root.join(".plugd-uploads")).expect("a directory").count()
    }

    #[tokio::test]
    async fn a_disk_that_is_full_when_it_is_asked_to_keep_the_file_leaves_the_old_one() {
        let full = Disk { sync: |_, _| Err(Errno::NOSPC), ..Disk::default() };
        for token in [None, Some("t")] {
            let root = tempfile::tempdir().expect("a directory");
            assert_eq!(fail(root.path(), full, token).await, 0, "the space is free again");
        }
    }

    #[tokio::test]
    async fn a_disk_that_is_full_when_the_name_is_changed_leaves_the_old_file() {
        let full = Disk { rename: |_, _| Err(Errno::NOSPC), ..Disk::default() };
        let root = tempfile::tempdir().expect("a directory");
        assert_eq!(fail(root.path(), full, None).await, 0, "the space is free again");
        assert_eq!(fail(root.path(), full, Some("t")).await, 1, "it can be carried on");
        let upload = prepare(&shared(root.path(), Disk::default()), Some("t"), true).await;
        assert_eq!(upload.offset(), 5, "nothing is sent again");
        assert!(upload.finish(&[], None).expect("room").published);
        assert_eq!(fs::read_to_string(root.path().join("a")).expect("the new file"), "hello");
    }

    #[tokio::test]
    async fn a_disk_that_does_not_keep_the_new_name_leaves_the_new_file_and_no_upload() {
        let full = Disk { sync_dir: |_| Err(Errno::NOSPC), ..Disk::default() };
        let root = tempfile::tempdir().expect("a directory");
        for token in [None, Some("t")] {
            fs::write(root.path().join("a"), "old").expect("a file");
            let shared = shared_with(root.path(), json!({ "quota": "1MiB" }), full);
            let mut upload = prepare(&shared, token, false).await;
            upload.write(&[Bytes::from("hello")]).expect("room");
            assert_eq!(upload.finish(&[], None).expect_err("a full disk").reason(), "no-space");
            assert_eq!(fs::read_to_string(root.path().join("a")).expect("the new file"), "hello");
            assert_eq!(fs::read_dir(root.path().join(".plugd-uploads")).expect("a directory").count(), 0);
            assert_eq!(shared.space.used(&shared.root), Ok(Some(5)), "it is counted once");
        }
    }

    #[tokio::test]
    async fn a_disk_that_has_no_room_for_what_is_announced_refuses_it_before_the_first_byte() {
        let full = Disk { allocate: |_, _, _| Err(Errno::NOSPC), ..Disk::default() };
        let unable = Disk { allocate: |_, _, _| Err(Errno::OPNOTSUPP), ..Disk::default() };
        let root = tempfile::tempdir().expect("a directory");
        let mut upload = prepare(&shared(root.path(), full), None, false).await;
        upload.order.size = Some(10 << 20);
        assert_eq!(upload.allocate().expect_err("a full disk").reason(), "no-space");
        assert_eq!(fs::read_dir(root.path().join(".plugd-uploads")).expect("a directory").count(), 0);
        let mut upload = prepare(&shared(root.path(), unable), None, false).await;
        upload.order.size = Some(10 << 20);
        assert!(upload.allocate().is_ok(), "it may work all the same");
    }

    #[tokio::test]
    async fn many_small_pieces_are_all_written() {
        let root = tempfile::tempdir().expect("a directory");
        let mut upload = prepare(&shared(root.path(), Disk::default()), None, false).await;
        upload.order.size = None;
        let pieces: Vec<Bytes> = (0..3 * SLICES_MAX).map(|number| Bytes::from(number.to_string())).collect();
        let expected: String = (0..3 * SLICES_MAX).map(|number| number.to_string()).collect();
        upload.write(&pieces).expect("room");
        upload.finish(&[], None).expect("a stored file");
        assert_eq!(fs::read_to_string(root.path().join("a")).expect("the file"), expected);
    }
}
