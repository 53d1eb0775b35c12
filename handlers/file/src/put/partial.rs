//! Keeps files that are not whole yet apart from all others: names them, carries them on, and sweeps them away.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plugd_core::Status;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, StatxFlags, mkdirat, openat, statx, unlinkat};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use crate::blocking::blocking;
use crate::entry::Meta;
use crate::root::{Place, Root, UPLOADS_NAME, meta_at};
use crate::{Shared, hex, refusal};

/// What the name of an upload begins with that nobody can carry on.
const TEMPORARY: &str = "t-";

/// What the name of an upload begins with that its token can carry on.
const KEPT: &str = "k-";

/// The longest token in characters.
const TOKEN_LEN_MAX: usize = 64;

/// The most cut uploads that are kept in a directory. Their number is the callers' choice, and each takes an inode.
const KEPT_MAX: usize = 1000;

/// How often a file is tried again that another server has, or swept away between its making and its locking.
const ATTEMPTS_MAX: usize = 100;

/// The pause between two attempts: a sweep and a count look at each file for a moment only.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(10);

/// The unit in which a file's space is told, whatever its file system.
const BLOCK_LEN: u64 = 512;

/// How much space behind its end a kept file may have: file systems take some ahead by themselves.
const RESERVED_LEN_MAX: u64 = 1 << 20;

/// The longest wait between two sweeps.
const SWEEP_PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// The shortest wait between two sweeps.
const SWEEP_PAUSE_LEAST: Duration = Duration::from_millis(100);

/// Which upload it is: its token and its path, in a form that is a file's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(String);

impl Key {
    /// # Errors
    ///
    /// `invalid_argument` with reason `bad-token`.
    pub(crate) fn new(token: &str, path: &Path) -> Result<Key, Status> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if token.is_empty() || token.len() > TOKEN_LEN_MAX || !token.bytes().all(is_allowed) {
            let message =
                format!("bad token {token:?}; allowed: 1 to {TOKEN_LEN_MAX} letters, digits, \"_\" and \"-\"");
            return Err(Status::invalid_argument("bad-token", message));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(token.as_bytes()).update(&[0]).update(path.as_os_str().as_bytes());
        Ok(Key(format!("{KEPT}{}", hex::encode(&hasher.finalize().as_bytes()[..16]))))
    }
}

/// The uploads of a plugin.
#[derive(Debug)]
pub(crate) struct Uploads {
    expiry: Duration,
    /// The uploads with a token that run now, so that a new one can take over.
    running: Mutex<HashMap<Key, Running>>,
    /// Whether a sweep is to come.
    sweep_is_due: AtomicBool,
    random: RandomState,
}

#[derive(Debug, Clone, Default)]
struct Running {
    superseded: CancellationToken,
    released: CancellationToken,
}

/// The right to write the upload of a token; one at a time has it.
#[derive(Debug)]
pub(crate) struct Claim {
    key: Key,
    running: Running,
    shared: Arc<Uploads>,
}

impl Claim {
    /// Resolves when another call takes over.
    pub(crate) fn superseded(&self) -> CancellationToken {
        self.running.superseded.clone()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut running = self.shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.key);
        self.running.released.cancel();
    }
}

/// A file that is being written, locked against everybody else's sweep, in an open directory of uploads.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) dir: Arc<OwnedFd>,
    pub(crate) name: String,
    pub(crate) file: File,
    /// How many bytes it held when it was opened.
    pub(crate) len: u64,
    /// How many bytes the quota counted for what was kept.
    pub(crate) counted: u64,
}

impl Uploads {
    pub(crate) fn new(expiry: Duration) -> Arc<Uploads> {
        Arc::new(Uploads {
            expiry,
            running: Mutex::default(),
            sweep_is_due: AtomicBool::new(false),
            random: RandomState::new(),
        })
    }

    /// Takes the upload of a key over, from a call that is still at it if there is one, which ends.
    ///
    /// # Cancellation
    ///
    /// The other call ends all the same when the future is dropped.
    pub(crate) async fn claim(self: &Arc<Uploads>, key: Key) -> Result<Claim, Status> {
        loop {
            let other = {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(other) = running.get(&key) else {
                    let ours = Running::default();
                    running.insert(key.clone(), ours.clone());
                    return Ok(Claim { key, running: ours, shared: Arc::clone(self) });
                };
                other.clone()
            };
            other.superseded.cancel();
            other.released.cancelled().await;
        }
    }

    /// Opens a file for an upload to `place`: that of its claim, as far as it has come with `resume`, or a new one. `known`
    /// is the directory of an upload to the same directory, which is not looked up again.
    pub(crate) fn open(
        &self,
        root: &Root,
        place: &Place,
        claim: Option<&Claim>,
        resume: bool,
        known: Option<Arc<OwnedFd>>,
    ) -> Result<Partial, Status> {
        let refuse = |error: Errno| refusal::of(&place.path, error);
        let mut dir = known.map_or_else(|| self.dir_for(root, place), Ok).map_err(refuse)?;
        for attempt in 0..ATTEMPTS_MAX {
            let random = self.random.hash_one((attempt, SystemTime::now()));
            let name = claim.map_or_else(|| format!("{TEMPORARY}{random:016x}"), |claim| claim.key.0.clone());
            // Renamed by its name, a file must keep it as long as it is locked: only a dead one is removed.
            let forgotten = if claim.is_some() && !resume { remove_dead(&dir, &name) } else { None };
            match open_locked(&dir, &name, resume) {
                Ok(Some((file, len))) => {
                    return Ok(Partial { dir, name, file, len, counted: forgotten.unwrap_or(len) });
                }
                // Somebody else has it, or swept it away. Nobody has it for long, but a server of its own.
                Ok(None) | Err(Errno::EXIST) => std::thread::sleep(ATTEMPT_PAUSE),
                // Somebody removed the directory itself.
                Err(Errno::NOENT) => dir = self.dir_for(root, place).map_err(refuse)?,
                Err(error) => return Err(refuse(error)),
            }
        }
        Err(refusal::busy(&place.path))
    }

    /// The directory of uploads from which a file can be renamed to `place`: the root's, or, where something else is mounted,
    /// one beside the file itself. Those are many and unknown at the start, so each is swept when it is used.
    fn dir_for(&self, root: &Root, place: &Place) -> Result<Arc<OwnedFd>, Errno> {
        let uploads = make_uploads(root.dir())?;
        if mount(&uploads)? == mount(&place.dir)? {
            return Ok(Arc::new(uploads));
        }
        let uploads = make_uploads(&place.dir)?;
        self.sweep_dir(&uploads, |_| {});
        Ok(Arc::new(uploads))
    }

    /// Whether one more cut upload may be kept in `dir`.
    pub(crate) fn has_room(&self, dir: &OwnedFd) -> bool {
        names(dir).is_ok_and(|names| names.iter().filter(|name| name.starts_with(KEPT)).count() <= KEPT_MAX)
    }

    /// Removes what dead uploads left below the root, except what may still be carried on; tells how long that may be.
    pub(crate) fn sweep(&self, shared: &Shared) -> Option<Duration> {
        let dir = open_uploads(shared.root.dir()).ok()?;
        self.sweep_dir(&dir, |bytes| shared.space.change(0, bytes))
    }

    fn sweep_dir(&self, dir: &OwnedFd, mut freed: impl FnMut(u64)) -> Option<Duration> {
        let mut next: Option<Duration> = None;
        for name in names(dir).ok()? {
            let left = match name.starts_with(KEPT) {
                true => meta_at(dir, OsStr::new(&name)).ok().and_then(|meta| self.time_left(&meta)),
                false if name.starts_with(TEMPORARY) => None,
                // It is none of ours.
                false => continue,
            };
            match left {
                Some(left) => {
                    trim(dir, OsStr::new(&name));
                    next = Some(next.map_or(left, |next| next.min(left)));
                }
                None => {
                    if let Some(len) = remove_dead(dir, &name)
                        && name.starts_with(KEPT)
                    {
                        freed(len);
                    }
                }
            }
        }
        next
    }

    /// How long a cut upload is still kept; `None` when its time is over. A caller may have chosen the modification time,
    /// and must not choose a day in the far future with it.
    fn time_left(&self, meta: &Meta) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let touched = meta.identity.mtime.min(meta.identity.ctime);
        let touched = Duration::new(touched.s.max(0) as u64, touched.ns);
        (touched + self.expiry).checked_sub(now).filter(|left| !left.is_zero())
    }
}

/// Sees to it that what is kept is swept when its time is over, as long as the plugin lives.
pub(crate) fn sweep_later(shared: &Arc<Shared>, pause: Duration) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if shared.uploads.sweep_is_due.swap(true, Ordering::Relaxed) {
        return;
    }
    let weak = Arc::downgrade(shared);
    runtime.spawn(async move {
        let mut pause = Some(pause);
        while let Some(wanted) = pause {
            tokio::time::sleep(wanted.clamp(SWEEP_PAUSE_LEAST, SWEEP_PAUSE_MAX)).await;
            let Some(shared) = weak.upgrade() else { return };
            // What is kept from here on asks for a sweep of its own.
            shared.uploads.sweep_is_due.store(false, Ordering::Relaxed);
            let swept = blocking(move || Ok((shared.uploads.sweep(&shared), shared))).await;
            let Ok((next, shared)) = swept else { return };
            let is_ours = next.is_some() && !shared.uploads.sweep_is_due.swap(true, Ordering::Relaxed);
            pause = next.filter(|_| is_ours);
        }
    });
}

/// Whether a file in a directory of uploads is a cut upload that nobody writes.
pub(crate) fn is_kept(dir: &OwnedFd, name: &OsStr) -> bool {
    name.as_bytes().starts_with(KEPT.as_bytes()) && lock_existing(dir, name).is_some()
}

/// The file system and the mount that a directory lies on. The same file system may be mounted twice, and no file is
/// renamed from one mount to another. Before Linux 5.8 mounts have no numbers, and the file system decides alone.
fn mount(dir: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok((Meta::of(dir)?.identity.device, stat.stx_mnt_id))
}

fn make_uploads(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    match open_uploads(dir) {
        Err(Errno::NOENT) => match mkdirat(dir, UPLOADS_NAME, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => open_uploads(dir),
            Err(error) => Err(error),
        },
        opened => opened,
    }
}

fn open_uploads(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, UPLOADS_NAME, flags, Mode::empty())
}

/// Opens a file for one writer, and tells its length. `None` when it is another's, or was swept away meanwhile.
fn open_locked(dir: impl AsFd, name: &str, resume: bool) -> Result<Option<(File, u64)>, Errno> {
    let new = if resume { OFlags::empty() } else { OFlags::EXCL };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | new;
    let file = File::from(openat(&dir, name, flags, Mode::from_raw_mode(0o666))?);
    match file.try_lock() {
        Ok(()) => Ok(meta_if_named(&dir, OsStr::new(name), &file)?.map(|meta| (file, meta.size()))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

fn lock_existing(dir: &OwnedFd, name: &OsStr) -> Option<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty()).ok()?);
    file.try_lock().ok()?;
    meta_if_named(dir, name, &file).ok()?.is_some().then_some(file)
}

/// What an open file is, if its name still stands for it. Whoever had it locked before may have published it meanwhile, and
/// then it is no upload any more, or removed it, and then the name may be another one's.
fn meta_if_named(dir: impl AsFd, name: &OsStr, file: &File) -> Result<Option<Meta>, Errno> {
    let meta = Meta::of(file)?;
    match meta_at(dir, name) {
        Ok(named) if named.identity.is_same_file(&meta.identity) => Ok(meta.is_file().then_some(meta)),
        Ok(_) | Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file that no upload has locked; tells its length.
fn remove_dead(dir: &OwnedFd, name: &str) -> Option<u64> {
    let file = lock_existing(dir, OsStr::new(name))?;
    let len = Meta::of(&file).ok()?.size();
    unlinkat(dir, name, AtFlags::empty()).ok().map(|()| len)
}

/// Gives back the space that was reserved behind the end of a file that no upload has locked: its server was killed.
fn trim(dir: &OwnedFd, name: &OsStr) {
    let Some(file) = lock_existing(dir, name) else { return };
    if let Ok(metadata) = file.metadata()
        && metadata.blocks() * BLOCK_LEN > metadata.len() + RESERVED_LEN_MAX
    {
        // What cannot be given back now is given back when the file goes.
        let _ = file.set_len(metadata.len());
    }
}

fn names(dir: &OwnedFd) -> Result<Vec<String>, Errno> {
    let entries = Dir::read_from(dir)?.map(|entry| entry.map(|entry| entry.file_name().to_str().map(str::to_owned)));
    entries.filter_map(|name| name.map(|name| name.ok()).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::entry::{Kind, Time};
    use crate::version::Identity;

    #[test]
    fn a_file_that_was_published_in_between_is_nobodys_upload_any_more() {
        let world = tempfile::tempdir().expect("a directory");
        let dir = OwnedFd::from(File::open(world.path()).expect("a directory"));
        let (kept, published) = (world.path().join("k-1"), world.path().join("published"));
        let is_named = |file: &File| meta_if_named(&dir, OsStr::new("k-1"), file).expect("a directory").is_some();
        // Another server of the directory has it open, but has not locked it yet.
        let file = File::create_new(&kept).expect("a file");
        assert!(is_named(&file));
        fs::rename(&kept, &published).expect("a file");
        assert!(!is_named(&file), "it would write into a file that is whole");
        fs::write(&kept, "the next upload").expect("a file");
        assert!(!is_named(&file), "it would remove the next upload");
        fs::rename(&published, &kept).expect("a file");
        assert!(is_named(&file));
    }

    #[test]
    fn no_modification_time_keeps_an_upload_beyond_its_time() {
        let uploads = Uploads::new(Duration::from_secs(60));
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() as i64;
        let left = |mtime_s, ctime_s| {
            let (mtime, ctime) = (Time { s: mtime_s, ns: 0 }, Time { s: ctime_s, ns: 0 });
            let identity = Identity { device: 1, inode: 1, size: 1, mtime, ctime };
            uploads.time_left(&Meta { kind: Kind::File, mode: 0, identity })
        };
        assert!(left(now_s, now_s).is_some());
        for mtime_s in [i64::MIN, -1, now_s - 61, now_s, now_s + 1_000_000, i64::MAX] {
            assert_eq!(left(mtime_s, now_s - 61), None, "{mtime_s}");
        }
    }
}
