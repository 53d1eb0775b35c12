//! Directories and files here, reached by handles, so that nothing is written beside the asked-for destination.
//!
//! Only the directory that the user names is opened by its path. Everything below it is opened one part at a time from
//! the handle above, and never through a symbolic link.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::facts::{Facts, Kind};
use super::name::{Name, PARTS_MAX};
use crate::cli::failure::Failure;
use crate::cli::text::one_line_of_bytes;

/// The permissions of a new file, before the umask takes its share.
pub(crate) const MODE_NEW: u32 = 0o666;

/// The permissions of a new directory, before the umask takes its share.
const MODE_NEW_DIRECTORY: u32 = 0o777;

/// A directory that stays the same one whatever happens to its path.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    fd: Arc<OwnedFd>,
    /// What it is called in messages.
    path: Arc<PathBuf>,
}

impl Directory {
    /// Opens the directory that the user names.
    pub(crate) fn open(path: &Path) -> Result<Directory, Failure> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let fd = rustix::fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.map_err(|error| failure("cannot open", path, error.into()))?;
        Ok(Directory { fd: Arc::new(fd), path: Arc::new(path.to_owned()) })
    }

    /// Makes the directory that the user names unless it exists, and opens it.
    pub(crate) fn create(path: &Path) -> Result<Directory, Failure> {
        std::fs::create_dir_all(path).map_err(|error| failure("cannot make", path, error))?;
        Directory::open(path)
    }

    /// What the entry of this name is called in messages.
    pub(crate) fn path_of(&self, name: &OsStr) -> PathBuf {
        match self.path.as_os_str() == "." {
            true => name.into(),
            false => self.path.join(name),
        }
    }

    /// Opens a directory of this one; a symbolic link is none.
    pub(crate) fn child(&self, name: &OsStr) -> io::Result<Directory> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&*self.fd, name, flags, Mode::empty()) {
            // A link that is asked for as a directory fails as any file does.
            Err(Errno::NOTDIR) if self.is_link(name) => return Err(plain(Errno::LOOP)),
            opened => opened.map_err(plain)?,
        };
        Ok(Directory { fd: Arc::new(fd), path: Arc::new(self.path_of(name)) })
    }

    fn is_link(&self, name: &OsStr) -> bool {
        matches!(self.facts(name), Ok(Some(facts)) if facts.kind == Kind::Symlink)
    }

    /// Opens a directory of this one, which is made unless it exists.
    pub(crate) fn make_child(&self, name: &OsStr) -> io::Result<Directory> {
        match self.child(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        match rustix::fs::mkdirat(&*self.fd, name, Mode::from_raw_mode(MODE_NEW_DIRECTORY)) {
            Ok(()) | Err(Errno::EXIST) => self.child(name),
            Err(error) => Err(error.into()),
        }
    }

    /// What is known about an entry, which is not followed; `None` when there is none.
    pub(crate) fn facts(&self, name: &OsStr) -> io::Result<Option<Facts>> {
        match rustix::fs::statat(&*self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Facts::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file for reading. Whatever else has the name is refused at once, a pipe without a writer too.
    pub(crate) fn open_file(&self, name: &OsStr) -> io::Result<File> {
        self.open_regular(name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty())
    }

    /// Opens a regular file for reading and writing.
    pub(crate) fn open_to_write(&self, name: &OsStr) -> io::Result<File> {
        self.open_regular(name, OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty())
    }

    /// Makes a file that does not exist yet, for reading and writing.
    pub(crate) fn create_file(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*self.fd, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    fn open_regular(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<File> {
        let fd = rustix::fs::openat(&*self.fd, name, flags | OFlags::CLOEXEC, mode).map_err(plain)?;
        regular(fd.into())
    }

    /// Gives a file another name of this directory, whatever had that before, unless `no_clobber` forbids it.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr, no_clobber: bool) -> io::Result<()> {
        if !no_clobber {
            return Ok(rustix::fs::renameat(&*self.fd, from, &*self.fd, to)?);
        }
        // A second name fails when it exists, on every file system, where a rename may not know how to.
        rustix::fs::linkat(&*self.fd, from, &*self.fd, to, AtFlags::empty())?;
        self.remove(from)
    }

    /// Removes a name that is no directory; that it is gone already is no failure.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(&*self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file, a link or an empty directory. Says whether it is gone: not when something is left in it.
    pub(crate) fn remove_any(&self, name: &OsStr) -> io::Result<bool> {
        let removed = match rustix::fs::unlinkat(&*self.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => rustix::fs::unlinkat(&*self.fd, name, AtFlags::REMOVEDIR),
            removed => removed,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Waits until the names of this directory have reached the disk.
    pub(crate) fn flush(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&*self.fd)?)
    }

    /// Device and inode.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&*self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// The names in this directory, sorted byte by byte.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = self.names_that(|_| true)?;
        names.sort_unstable();
        Ok(names)
    }

    /// Some of the names in this directory.
    pub(crate) fn names_that(&self, is_asked: impl Fn(&OsStr) -> bool) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&*self.fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && is_asked(OsStr::from_bytes(name)) {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        Ok(names)
    }
}

/// The directories below a destination, of which the last one used is held open with those above it.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Directory,
    chain: Vec<(OsString, Directory)>,
}

impl Tree {
    pub(crate) fn new(root: Directory) -> Tree {
        Tree { root, chain: Vec::new() }
    }

    /// The directory and the last part of a path below the root; directories that are missing are made.
    pub(crate) fn place(&mut self, path: &Name) -> Result<(Directory, OsString), Failure> {
        let mut parts = path.parts_below().map_err(|why| refused(path, why))?;
        let Some(name) = parts.pop() else { return Err(refused(path, "it is empty")) };
        Ok((self.walk(&parts, true)?, name))
    }

    /// The directory and the last part of a path that exists below the root.
    pub(crate) fn find(&mut self, path: &Name) -> Result<(Directory, OsString), Failure> {
        let mut parts = path.parts_below().map_err(|why| refused(path, why))?;
        let Some(name) = parts.pop() else { return Err(refused(path, "it is empty")) };
        Ok((self.walk(&parts, false)?, name))
    }

    /// The directory of this path; `None` when there is none.
    pub(crate) fn look(&mut self, path: &Name) -> Result<Option<Directory>, Failure> {
        let parts = path.parts_below().map_err(|why| refused(path, why))?;
        match self.walk(&parts, false) {
            Err(Failure::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            walked => walked.map(Some),
        }
    }

    /// The directory of this path, which is made unless it exists.
    pub(crate) fn directory(&mut self, path: &Name) -> Result<Directory, Failure> {
        let parts = path.parts_below().map_err(|why| refused(path, why))?;
        self.walk(&parts, true)
    }

    fn walk(&mut self, parts: &[OsString], make: bool) -> Result<Directory, Failure> {
        let common = self.chain.iter().zip(parts).take_while(|((name, _), part)| name == *part).count();
        self.chain.truncate(common);
        for part in &parts[common..] {
            let above = self.chain.last().map_or(&self.root, |(_, directory)| directory);
            let opened = if make { above.make_child(part) } else { above.child(part) };
            let directory = opened.map_err(|error| failure("cannot open", &above.path_of(part), error))?;
            self.chain.push((part.clone(), directory));
        }
        Ok(self.chain.last().map_or(&self.root, |(_, directory)| directory).clone())
    }
}

/// Lets this process have as many descriptors as it may at the most: every file under way holds its directory open, and
/// a walk those above it. Where that is refused, it goes on with fewer.
pub(crate) fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// What a walk finds.
#[derive(Debug)]
pub(crate) struct Found {
    /// Below the directory where the walk began.
    pub(crate) path: Name,
    pub(crate) facts: Facts,
    pub(crate) directory: Directory,
    pub(crate) name: OsString,
}

/// Walks everything below a directory, a directory before what is in it and names in order.
///
/// `enter` is told of each entry and says whether to go into it, where that is a directory; `fail` is told what could
/// not be read, and the walk goes on beside it. Either ends the walk by `Err`.
pub(crate) fn walk<E>(
    directory: &Directory,
    enter: &mut impl FnMut(Found) -> Result<bool, E>,
    fail: &mut impl FnMut(Failure) -> Result<(), E>,
) -> Result<(), E> {
    walk_below(directory, &Name::default(), 0, enter, fail)
}

fn walk_below<E>(
    directory: &Directory,
    path: &Name,
    depth: usize,
    enter: &mut impl FnMut(Found) -> Result<bool, E>,
    fail: &mut impl FnMut(Failure) -> Result<(), E>,
) -> Result<(), E> {
    let names = match directory.names() {
        Ok(names) if depth < PARTS_MAX => names,
        Ok(_) => return fail(failure("cannot read", &directory.path, io::Error::other("nests too deep"))),
        Err(error) => return fail(failure("cannot read", &directory.path, error)),
    };
    for name in names {
        let facts = match directory.facts(&name) {
            Ok(Some(facts)) => facts,
            Ok(None) => continue,
            Err(error) => {
                fail(failure("cannot read", &directory.path_of(&name), error))?;
                continue;
            }
        };
        let is_dir = facts.is_dir();
        let path = path.join(&Name::from(&*name));
        let found = Found { path: path.clone(), facts, directory: directory.clone(), name: name.clone() };
        if !enter(found)? || !is_dir {
            continue;
        }
        match directory.child(&name) {
            Ok(child) => walk_below(&child, &path, depth + 1, enter, fail)?,
            Err(error) => fail(failure("cannot open", &directory.path_of(&name), error))?,
        }
    }
    Ok(())
}

/// Opens a file that the user names, through links; refuses what is no regular file at once.
pub(crate) fn open_named(path: &Path) -> Result<File, Failure> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(io::Error::from);
    opened.and_then(|fd| regular(fd.into())).map_err(|error| failure("cannot open", path, error))
}

/// What is known about a path that the user names, through links; `None` when it cannot be reached.
pub(crate) fn facts_of(path: &Path) -> Option<Facts> {
    rustix::fs::statat(CWD, path, AtFlags::empty()).ok().map(|stat| Facts::of(&stat))
}

fn regular(file: File) -> io::Result<File> {
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(io::Error::other("a directory")),
        _ => Err(io::Error::other("not a regular file")),
    }
}

/// Sets permissions and modification time.
pub(crate) fn preserve(file: impl AsFd, facts: &Facts) -> io::Result<()> {
    rustix::fs::fchmod(&file, Mode::from_raw_mode(facts.mode & 0o777))?;
    let last_access = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let last_modification = Timespec { tv_sec: facts.mtime_s, tv_nsec: facts.mtime_ns.into() };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?)
}

/// Opening a link that is not to be followed fails in words that nobody understands.
fn plain(error: Errno) -> io::Error {
    match error {
        Errno::LOOP => io::Error::other("a symbolic link, which is not followed"),
        Errno::NXIO => io::Error::other("not a regular file"),
        error => error.into(),
    }
}

fn refused(path: &Name, why: &str) -> Failure {
    Failure::protocol(format!("refused to write to \"{path}\": {why}"))
}

pub(crate) fn failure(what: &str, path: &Path, error: io::Error) -> Failure {
    Failure::io(format!("{what} {}", one_line_of_bytes(path.as_os_str().as_bytes())), error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_within_the_destination_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("outside")).expect("a directory");
        fs::create_dir(dir.path().join("in")).expect("a directory");
        symlink("../outside", dir.path().join("in/link")).expect("a link");
        let mut tree = Tree::new(Directory::open(&dir.path().join("in")).expect("a directory"));
        tree.place(&"link/file".into()).expect_err("a link in the way");
        tree.place(&"link".into()).expect("a link may be replaced");
        let (made, name) = tree.place(&"a/b/file".into()).expect("new directories");
        made.create_file(&name, MODE_NEW).expect("a file");
        assert!(dir.path().join("in/a/b/file").exists());
    }

    #[test]
    fn the_chain_forgets_what_is_not_shared() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut tree = Tree::new(Directory::open(dir.path()).expect("a directory"));
        for path in ["a/b/1", "a/c/2", "3", "a/b/4"] {
            let (made, name) = tree.place(&path.into()).expect("a place");
            made.create_file(&name, MODE_NEW).expect("a file");
            assert!(dir.path().join(path).exists(), "{path}");
        }
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let handle = Directory::open(dir.path()).expect("a directory");
        rustix::fs::mknodat(&*handle.fd, "pipe", FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
        assert!(handle.open_file(OsStr::new("pipe")).is_err());
        assert!(open_named(&dir.path().join("pipe")).is_err());
    }

    #[test]
    fn no_clobber_keeps_what_is_there() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("old"), "old").expect("a file");
        fs::write(dir.path().join("new"), "new").expect("a file");
        let handle = Directory::open(dir.path()).expect("a directory");
        let refused = handle.rename("new".as_ref(), "old".as_ref(), true).expect_err("a name that is taken");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(dir.path().join("old")).expect("a file"), "old");
        handle.rename("new".as_ref(), "free".as_ref(), true).expect("a free name");
        assert!(!dir.path().join("new").exists());
    }
}
