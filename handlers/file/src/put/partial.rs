//! Keeps files that are not whole yet apart from all others: names them, carries them on, and sweeps them away.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plugd_core::Status;
use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, unlinkat};
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

/// How often a file is made again that the sweep of another server took away between its making and its locking.
const ATTEMPTS_MAX: usize = 100;

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
                // Somebody else took the name or swept the file away.
                Ok(None) | Err(Errno::EXIST) => {}
                // Somebody removed the directory itself.
                Err(Errno::NOENT) => dir = self.dir_for(root, place).map_err(refuse)?,
                Err(error) => return Err(refuse(error)),
            }
        }
        Err(refusal::busy(&place.path))
    }

    /// The directory of uploads on the same file system as `place`: the root's, or one beside the file itself. Those are
    /// many and unknown at the start, so each is swept when it is used.
    fn dir_for(&self, root: &Root, place: &Place) -> Result<Arc<OwnedFd>, Errno> {
        let uploads = make_uploads(root.dir())?;
        if Meta::of(&uploads)?.identity.device == Meta::of(&place.dir)?.identity.device {
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
                Some(left) => next = Some(next.map_or(left, |next| next.min(left))),
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

    /// How long a cut upload is still kept; `None` when its time is over.
    fn time_left(&self, meta: &Meta) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let touched = Duration::new(meta.identity.mtime.s.max(0) as u64, meta.identity.mtime.ns);
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
    let file = File::from(openat(dir, name, flags, Mode::from_raw_mode(0o666))?);
    match file.try_lock() {
        Ok(()) => {
            let meta = Meta::of(&file)?;
            Ok((meta.links > 0 && meta.is_file()).then(|| (file, meta.size())))
        }
        Err(TryLockError::WouldBlock) => {
            // Nobody has it for long, but a server of its own.
            std::thread::sleep(Duration::from_millis(10));
            Ok(None)
        }
        Err(TryLockError::Error(error)) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

fn lock_existing(dir: &OwnedFd, name: &OsStr) -> Option<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty()).ok()?);
    file.try_lock().is_ok().then_some(file)
}

/// Removes a file that no upload has locked; tells its length.
fn remove_dead(dir: &OwnedFd, name: &str) -> Option<u64> {
    let file = lock_existing(dir, OsStr::new(name))?;
    let len = Meta::of(&file).ok()?.size();
    unlinkat(dir, name, AtFlags::empty()).ok().map(|()| len)
}

fn names(dir: &OwnedFd) -> Result<Vec<String>, Errno> {
    let entries = Dir::read_from(dir)?.map(|entry| entry.map(|entry| entry.file_name().to_str().map(str::to_owned)));
    entries.filter_map(|name| name.map(|name| name.ok()).transpose()).collect()
}
