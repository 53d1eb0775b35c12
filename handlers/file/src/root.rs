//! Reaches what lies below one directory, and nothing outside it.
//!
//! Every path is resolved by the kernel, beneath an open directory (openat2(2), `RESOLVE_BENEATH`), in one step with its
//! use: what a rename or a symbolic link makes of it in between changes nothing. Where an operation needs the name itself,
//! its directory is opened so and the name, which holds no `/`, is used from there without following it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use plugd_core::Status;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, readlinkat, statat};
use rustix::io::Errno;

use crate::config::Symlinks;
use crate::entry::{Kind, Meta};
use crate::path_text::PathText;
use crate::refusal;

/// The name of the directory that holds uploads until they are whole. It is nobody else's, wherever it stands.
pub(crate) const UPLOADS_NAME: &str = ".plugd-uploads";

/// The longest path in bytes: what Linux takes (PATH_MAX), less the NUL at its end.
const PATH_LEN_MAX: usize = 4095;

/// How often a path is resolved again when a rename elsewhere kept the kernel from being sure of a `..` in it.
const ATTEMPTS_MAX: usize = 128;

/// A directory as the world of a plugin: no path leads out of it, whatever links it holds.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    dir: Arc<OwnedFd>,
    resolve: ResolveFlags,
}

impl Root {
    /// Opens the directory at `path`, and makes it first, with its parents, when it is missing.
    ///
    /// # Errors
    ///
    /// Whatever the operating system reports; it needs openat2(2), which Linux has since 5.6.
    pub(crate) fn open(path: &Path, symlinks: Symlinks) -> io::Result<Root> {
        std::fs::create_dir_all(path)?;
        let dir = openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let resolve = match symlinks {
            Symlinks::Inside => beneath,
            Symlinks::Refuse => beneath | ResolveFlags::NO_SYMLINKS,
        };
        let root = Root { dir: Arc::new(dir), resolve };
        root.resolve(Path::new("."), OFlags::PATH)?;
        Ok(root)
    }

    /// The directory itself, for what concerns its whole file system.
    pub(crate) fn dir(&self) -> &OwnedFd {
        &self.dir
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        beneath(&*self.dir, path, flags, self.resolve)
    }

    /// What `path` names, behind all symbolic links.
    pub(crate) fn meta(&self, path: &Path) -> Result<Meta, Status> {
        check(path)?;
        let meta = self.resolve(path, OFlags::PATH).and_then(Meta::of);
        meta.map_err(|error| refusal::of(path, error))
    }

    /// As [`open_file`](Root::open_file), when the system has all names of `path` in its memory; nothing when it has not,
    /// or when the file cannot be opened. Linux before 5.12 never has.
    pub(crate) fn open_cached_file(&self, path: &Path) -> Option<(File, Meta)> {
        let cached = Root { dir: Arc::clone(&self.dir), resolve: self.resolve | ResolveFlags::CACHED };
        cached.open_file(path).ok()
    }

    /// Opens a regular file for reading. Never waits for the other side of a FIFO or for a device.
    pub(crate) fn open_file(&self, path: &Path) -> Result<(File, Meta), Status> {
        refuse_unless_file(path, &self.meta(path)?)?;
        // What the path names may have changed since, so the open file is asked again.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.resolve(path, flags).map_err(|error| refusal::of(path, error))?;
        let meta = Meta::of(&file).map_err(|error| refusal::of(path, error))?;
        refuse_unless_file(path, &meta)?;
        Ok((file.into(), meta))
    }

    /// Opens a directory for reading its names.
    pub(crate) fn open_dir(&self, path: &Path) -> Result<OwnedFd, Status> {
        check(path)?;
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| match error {
            Errno::NOTDIR if self.meta(path).is_ok() => refusal::not_a_directory(path),
            error => refusal::of(path, error),
        })
    }

    /// Opens the directory that `path` lies in. Slashes at the end of `path` are ignored.
    ///
    /// # Errors
    ///
    /// `invalid_argument` with reason `bad-path` when `path` ends in no name, such as `.` and `a/..`; `not_found` with
    /// reason `no-such-directory`; all that comes of resolving a path.
    pub(crate) fn place(&self, path: &Path) -> Result<Place, Status> {
        check(path)?;
        let (parent, name) = split(path).ok_or_else(|| refusal::bad_path(path))?;
        let dir = self.resolve(parent, OFlags::PATH | OFlags::DIRECTORY).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => refusal::no_such_directory(path).with_detail(error),
            error => refusal::of(path, error),
        })?;
        Ok(Place { path: path.to_owned(), dir: Arc::new(dir), name: name.to_owned() })
    }

    /// The place of a file that is to be stored: free, or a file's that is to be replaced. A symbolic link is replaced
    /// itself, but one that leads out is refused like every path that does.
    pub(crate) fn target(&self, path: &Path) -> Result<(Place, Option<Meta>), Status> {
        self.target_near(path, &mut None)
    }

    /// As [`target`](Root::target), but a directory of the same path is not looked up again; the one that it was found in
    /// is left for the next.
    pub(crate) fn target_near(&self, path: &Path, near: &mut Option<Parent>) -> Result<(Place, Option<Meta>), Status> {
        check(path)?;
        let parts = split(path).filter(|(_, name)| path.as_os_str().as_bytes().ends_with(name.as_bytes()));
        let (parent, name) = parts.ok_or_else(|| refusal::is_a_directory(path))?;
        let place = match near.take().filter(|near| near.is_at(parent)) {
            Some(Parent { dir, .. }) => Place { path: path.to_owned(), dir, name: name.to_owned() },
            None => self.place(path)?,
        };
        *near = Some(Parent { path: parent.to_owned(), dir: Arc::clone(&place.dir) });
        let found = place.find()?;
        if found.is_some_and(|meta| meta.kind == Kind::Symlink) {
            match self.resolve(path, OFlags::PATH).and_then(Meta::of) {
                Ok(meta) => refuse_unless_replaceable(path, &meta)?,
                Err(Errno::NOENT) => {}
                Err(error) => return Err(refusal::of(path, error)),
            }
        }
        Ok((place, found))
    }

    /// Makes a directory and all that it lies in, as far as they are missing. With `durable` the disk has them when it
    /// returns.
    pub(crate) fn make_dirs(&self, path: &Path, durable: bool) -> Result<(), Status> {
        check(path)?;
        if self.is_dir(path)? {
            return Ok(());
        }
        let mut made = PathBuf::new();
        for component in path.components() {
            made.push(component);
            if matches!(component, Component::Normal(_)) && !self.is_dir(&made)? {
                let place = self.place(&made)?;
                match mkdirat(&place.dir, &place.name, Mode::from_raw_mode(0o777)) {
                    Ok(()) if durable => place.sync_dir().map_err(|error| refusal::of(path, error))?,
                    Ok(()) => {}
                    // Another call made it; but the name may be that of a link to nowhere.
                    Err(Errno::EXIST) if self.is_dir(&made)? => {}
                    Err(error) => return Err(refusal::of(path, error)),
                }
            }
        }
        Ok(())
    }

    fn is_dir(&self, path: &Path) -> Result<bool, Status> {
        match self.resolve(path, OFlags::PATH | OFlags::DIRECTORY) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(Errno::NOTDIR) => Err(refusal::not_a_directory(path)),
            Err(error) => Err(refusal::of(path, error)),
        }
    }
}

/// An open directory beneath the root, and the path that it was found at.
#[derive(Debug)]
pub(crate) struct Parent {
    path: PathBuf,
    dir: Arc<OwnedFd>,
}

impl Parent {
    /// Whether it was found at this very path.
    fn is_at(&self, path: &Path) -> bool {
        self.path.as_os_str() == path.as_os_str()
    }

    /// Whether `path` lies in it.
    pub(crate) fn holds(&self, path: &Path) -> bool {
        split(path).is_some_and(|(parent, _)| self.is_at(parent))
    }
}

/// A name in an open directory beneath the root. It may be free.
#[derive(Debug)]
pub(crate) struct Place {
    /// The whole path as the caller gave it.
    pub(crate) path: PathBuf,
    pub(crate) dir: Arc<OwnedFd>,
    pub(crate) name: OsString,
}

impl Place {
    /// What stands there now, without following it.
    pub(crate) fn find(&self) -> Result<Option<Meta>, Status> {
        match meta_at(&self.dir, &self.name) {
            Ok(meta) => Ok(Some(meta)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(refusal::of(&self.path, error)),
        }
    }

    /// What stands there now, which must be something.
    pub(crate) fn meta(&self) -> Result<Meta, Status> {
        self.find()?.ok_or_else(|| refusal::no_such_file(&self.path))
    }

    /// Opens the regular file that stands there.
    pub(crate) fn open_file(&self) -> Result<(File, Meta), Status> {
        refuse_unless_file(&self.path, &self.meta()?)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.dir, &self.name, flags, Mode::empty());
        let file = file.map_err(|error| refusal::of(&self.path, error))?;
        let meta = Meta::of(&file).map_err(|error| refusal::of(&self.path, error))?;
        refuse_unless_file(&self.path, &meta)?;
        Ok((file.into(), meta))
    }

    /// What the symbolic link that stands there holds.
    pub(crate) fn link_target(&self) -> Result<PathText, Status> {
        link_target(&self.dir, &self.name).map_err(|error| refusal::of(&self.path, error))
    }

    /// Waits until the disk has the names in the directory.
    pub(crate) fn sync_dir(&self) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::fsync(openat(&self.dir, c".", flags, Mode::empty())?)
    }
}

/// Opens what lies beneath `dir` at `path`.
pub(crate) fn beneath(dir: impl AsFd, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    for _ in 0..ATTEMPTS_MAX {
        match openat2(&dir, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if !resolve.contains(ResolveFlags::CACHED) => {}
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

/// What a name in an open directory stands for, without following it.
pub(crate) fn meta_at(dir: impl AsFd, name: &OsStr) -> Result<Meta, Errno> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Meta::from(&stat))
}

/// What a symbolic link in an open directory holds.
pub(crate) fn link_target(dir: impl AsFd, name: &OsStr) -> Result<PathText, Errno> {
    let target = readlinkat(dir, name, Vec::new())?;
    Ok(PathText::from(OsStr::from_bytes(target.as_bytes())))
}

/// Refuses to put a file where something stands that no file replaces.
pub(crate) fn refuse_unless_replaceable(path: &Path, meta: &Meta) -> Result<(), Status> {
    match meta.kind {
        Kind::File | Kind::Symlink => Ok(()),
        Kind::Dir => Err(refusal::is_a_directory(path)),
        Kind::Other => Err(refusal::not_a_file(path)),
    }
}

fn refuse_unless_file(path: &Path, meta: &Meta) -> Result<(), Status> {
    if meta.is_file() { Ok(()) } else { Err(refusal::not_a_file(path)) }
}

/// The directory part of a path and its last name; `None` when it ends in no name.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/')? + 1;
    let (parent, name) = match bytes[..end].iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&bytes[..slash], &bytes[slash + 1..end]),
        None => (&b"."[..], &bytes[..end]),
    };
    let is_name = !matches!(name, b"." | b"..");
    is_name.then(|| (Path::new(OsStr::from_bytes(parent)), OsStr::from_bytes(name)))
}

/// Refuses a path that cannot name anything below a root, by its text alone.
///
/// # Errors
///
/// `invalid_argument` with reason `bad-path`; `permission_denied` with reason `outside-root` or `reserved-name`.
pub(crate) fn check(path: &Path) -> Result<(), Status> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > PATH_LEN_MAX || bytes.contains(&0) {
        return Err(refusal::bad_path(path));
    }
    let mut depth = 0usize;
    for component in path.components() {
        depth = match component {
            Component::Normal(name) if name == UPLOADS_NAME => return Err(refusal::reserved(path)),
            Component::Normal(_) => depth + 1,
            Component::CurDir => depth,
            Component::ParentDir => depth.checked_sub(1).ok_or_else(|| refusal::outside_root(path))?,
            Component::RootDir | Component::Prefix(_) => return Err(refusal::outside_root(path)),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use rustix::fs::{RenameFlags, renameat_with};

    use super::*;

    #[test]
    fn paths_are_judged_by_their_text_first() {
        let reason = |path: &str| {
            check(Path::new(path)).map_or_else(|status| status.reason().to_owned(), |()| "fine".to_owned())
        };
        for path in ["a", "a/b", ".", "./a", "a/..", "a/../b", "...", "ü", "a\\..\\b", &"a".repeat(4095)] {
            assert_eq!(reason(path), "fine", "{path}");
        }
        for path in ["", "\0", "a\0b", &"a".repeat(4096)] {
            assert_eq!(reason(path), "bad-path", "{path:?}");
        }
        for path in ["..", "/", "/etc/passwd", "../a", "a/../../b", "./..", "//a"] {
            assert_eq!(reason(path), "outside-root", "{path}");
        }
        for path in [".plugd-uploads", "./.plugd-uploads/x", "a/.plugd-uploads", "a/../.plugd-uploads/"] {
            assert_eq!(reason(path), "reserved-name", "{path}");
        }
    }

    #[test]
    fn the_last_name_is_told_from_its_directory() {
        let parts = |path| split(Path::new(path)).map(|(parent, name)| (parent.to_str(), name.to_str()));
        for path in ["a", "a/", "a//"] {
            assert_eq!(parts(path), Some((Some("."), Some("a"))), "{path}");
        }
        assert_eq!(parts("a/b/c"), Some((Some("a/b"), Some("c"))));
        for path in [".", "..", "a/.", "a/..", "./", "/"] {
            assert_eq!(parts(path), None, "{path}");
        }
    }

    /// A root whose name `swapped` is, by turns, a directory with a file and a symbolic link to a directory outside
    /// with another file of the same name; `visit` is called 100,000 times meanwhile.
    fn while_swapped(symlinks: Symlinks, mut visit: impl FnMut(&Root)) {
        let world = tempfile::tempdir().expect("a directory");
        let path = world.path().join("root");
        for dir in ["root/swapped", "outside"] {
            fs::create_dir_all(world.path().join(dir)).expect("a directory");
        }
        fs::write(path.join("swapped/file"), "inside").expect("a file");
        fs::write(world.path().join("outside/file"), "secret").expect("a file");
        symlink("../outside", path.join("link")).expect("a link");
        let root = Root::open(&path, symlinks).expect("a root");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    renameat_with(CWD, path.join("swapped"), CWD, path.join("link"), RenameFlags::EXCHANGE)
                        .expect("both are there");
                }
            });
            for _ in 0..100_000 {
                visit(&root);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(
            fs::read_dir(world.path().join("outside")).expect("a directory").count(),
            1,
            "nothing was made outside"
        );
    }

    #[test]
    fn a_directory_that_is_swapped_with_a_link_never_leads_out() {
        for symlinks in [Symlinks::Inside, Symlinks::Refuse] {
            let (mut inside, mut refused, mut content) = (0, 0, String::new());
            while_swapped(symlinks, |root| match root.open_file(Path::new("swapped/file")) {
                Ok((mut file, _)) => {
                    content.clear();
                    file.read_to_string(&mut content).expect("text");
                    assert_eq!(content, "inside");
                    inside += 1;
                }
                Err(status) => {
                    let reason = if symlinks == Symlinks::Inside { "outside-root" } else { "too-many-links" };
                    assert_eq!(status.reason(), reason, "{status}");
                    refused += 1;
                }
            });
            assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused: nothing was swapped meanwhile");
        }
    }

    #[test]
    fn a_name_is_made_in_the_swapped_directory_or_nowhere() {
        let (mut made, mut refused) = (0, 0);
        while_swapped(Symlinks::Inside, |root| match root.place(Path::new("swapped/new")) {
            Ok(place) => {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW;
                drop(openat(&place.dir, &place.name, flags, Mode::RUSR).expect("a new file"));
                made += 1;
            }
            Err(_) => refused += 1,
        });
        assert!(made > 0 && refused > 0, "{made} made, {refused} refused: nothing was swapped meanwhile");
    }
}
