//! What has come of a file that is not whole yet, kept beside it so that the next try carries on.
//!
//! The content stands in `.NAME.plug-part`, and where it comes from in `.NAME.plug-part.json`. The content is locked while
//! a program writes it. Files of one chunk are kept in memory until they are whole and have neither.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::local::{Directory, MODE_NEW};
use super::name::Name;

/// The longest name of which the whole is used for the partial's; file systems allow 255 bytes.
const NAME_LEN_MAX: usize = 200;

/// The longest origin that is read, in bytes: two paths and some facts, with room.
const ORIGIN_LEN_MAX: u64 = 64 << 10;

/// The permissions of content whose origin is there and which itself is missing; it is empty.
const MODE_PRIVATE: u32 = 0o600;

/// How often a partial is opened anew when another program publishes it meanwhile.
const OPENS_MAX: u32 = 10;

/// Where the content of a partial comes from. One of another origin is not carried on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The server's address.
    pub(crate) server: String,
    pub(crate) plugin: String,
    pub(crate) path: Name,
    /// The one of the file when the transfer began.
    pub(crate) etag: String,
    /// The size of the whole file, in bytes.
    pub(crate) size: u64,
    /// What the transfer was to be verified with; another run may choose otherwise, since the content is hashed again.
    pub(crate) algorithm: String,
}

/// A file that is not whole yet, locked by us.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) file: File,
    pub(crate) origin: Origin,
    /// How many bytes it holds.
    pub(crate) len: u64,
    directory: Directory,
    name: OsString,
}

impl Partial {
    /// Opens what an earlier try has left of the file `target`, and throws away what does not fit `fits`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when another program writes it.
    pub(crate) fn find(
        directory: &Directory,
        target: &OsStr,
        fits: impl FnOnce(&Origin) -> bool,
    ) -> io::Result<Option<Partial>> {
        let name = partial_name(target);
        if directory.facts(&origin_name(&name))?.is_none() {
            return Ok(None);
        }
        let file = lock(directory, &name, MODE_PRIVATE)?;
        let len = file.metadata()?.len();
        let origin = read_origin(directory, &name).filter(|origin| len <= origin.size && fits(origin));
        let Some(origin) = origin else {
            discard(directory, &name)?;
            return Ok(None);
        };
        Ok(Some(Partial { file, origin, len, directory: directory.clone(), name }))
    }

    /// Makes an empty one with these permissions, and room for the whole file where the file system can reserve it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when another program writes it, and [`io::ErrorKind::StorageFull`] when the whole
    /// file has no room; then nothing is left.
    pub(crate) fn create(directory: &Directory, target: &OsStr, mode: u32, origin: Origin) -> io::Result<Partial> {
        let name = partial_name(target);
        let file = lock(directory, &name, mode)?;
        // The origin of older content goes first, so that a program that dies here leaves no wrong one.
        directory.remove(&origin_name(&name))?;
        file.set_len(0)?;
        if let Err(error) = reserve(&file, origin.size) {
            discard(directory, &name)?;
            return Err(error);
        }
        let text = serde_json::to_vec(&origin)?;
        directory.create_file(&origin_name(&name), MODE_NEW)?.write_all(&text)?;
        Ok(Partial { file, origin, len: 0, directory: directory.clone(), name })
    }

    /// What it is called in messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path_of(&self.name)
    }

    /// Shows the content under its own name.
    pub(crate) fn publish(self, target: &OsStr, no_clobber: bool) -> io::Result<()> {
        self.directory.rename(&self.name, target, no_clobber)?;
        self.directory.remove(&origin_name(&self.name))
    }

    /// Throws the content away.
    pub(crate) fn discard(self) -> io::Result<()> {
        discard(&self.directory, &self.name)
    }

    /// Stands behind what it holds, so that it can be carried on.
    pub(crate) fn seek_to_end(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }
}

/// Throws away what an earlier try has left of the file `target`.
pub(crate) fn forget(directory: &Directory, target: &OsStr) -> io::Result<()> {
    let name = partial_name(target);
    match directory.facts(&origin_name(&name))? {
        Some(_) => discard(directory, &name),
        None => Ok(()),
    }
}

fn discard(directory: &Directory, name: &OsStr) -> io::Result<()> {
    directory.remove(name)?;
    directory.remove(&origin_name(name))
}

/// Opens the content and locks it. A lock on a file that has another name by now, or none, is worth nothing.
fn lock(directory: &Directory, name: &OsStr, mode: u32) -> io::Result<File> {
    for _ in 0..OPENS_MAX {
        let (file, is_new) = match directory.create_file(name, mode) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match directory.open_to_write(name) {
                Ok(file) => (file, false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        };
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let named = directory.open_file(name);
        if !named.is_ok_and(|named| is_same(&named, &file).unwrap_or(false)) {
            continue;
        }
        if is_new || is_ours_alone(&file)? {
            return Ok(file);
        }
        directory.remove(name)?;
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Whether nobody else can write the file, nor is it one with a name beside this: it was shown by a program that ended
/// then, or somebody has put it in our way.
fn is_ours_alone(file: &File) -> io::Result<bool> {
    let stat = rustix::fs::fstat(file)?;
    Ok(stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_nlink == 1)
}

/// Sees to it that a disk without room is known before the content comes. A file system that cannot reserve finds out
/// when it is full.
fn reserve(file: &File, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(error.into()),
        _ => Ok(()),
    }
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

fn read_origin(directory: &Directory, name: &OsStr) -> Option<Origin> {
    let mut text = Vec::new();
    directory.open_file(&origin_name(name)).ok()?.take(ORIGIN_LEN_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The name for the partial content of `target`. That of a very long name is cut, and told apart by a digest.
fn partial_name(target: &OsStr) -> OsString {
    let mut name = b".".to_vec();
    match target.as_bytes() {
        bytes if bytes.len() <= NAME_LEN_MAX => name.extend_from_slice(bytes),
        bytes => {
            name.extend_from_slice(&bytes[..NAME_LEN_MAX - 33]);
            name.push(b'~');
            name.extend_from_slice(&blake3::hash(bytes).to_hex().as_bytes()[..32]);
        }
    }
    name.extend_from_slice(b".plug-part");
    OsString::from_vec(name)
}

fn origin_name(partial: &OsStr) -> OsString {
    let mut name = partial.to_owned();
    name.push(".json");
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(etag: &str) -> Origin {
        Origin {
            server: "tcp://a:1".to_owned(),
            plugin: "files".to_owned(),
            path: "a/b".into(),
            etag: etag.to_owned(),
            size: 10,
            algorithm: "md5".to_owned(),
        }
    }

    fn directory() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().expect("a directory");
        let handle = Directory::open(dir.path()).expect("a directory");
        (dir, handle)
    }

    fn begun(handle: &Directory, target: &str, content: &[u8]) {
        let mut partial = Partial::create(handle, target.as_ref(), MODE_NEW, origin("e")).expect("a partial");
        partial.file.write_all(content).expect("room");
    }

    #[test]
    fn what_was_left_is_found_and_carried_on() {
        let (dir, handle) = directory();
        begun(&handle, "a", b"half");
        let mut found =
            Partial::find(&handle, "a".as_ref(), |found| *found == origin("e")).expect("a look").expect("a partial");
        assert_eq!(found.len, 4);
        found.seek_to_end().expect("a file");
        found.file.write_all(b"whole").expect("room");
        found.publish("a".as_ref(), false).expect("a rename");
        assert_eq!(std::fs::read(dir.path().join("a")).expect("a file"), b"halfwhole");
        assert_eq!(handle.names().expect("names"), ["a"]);
    }

    #[test]
    fn what_comes_from_elsewhere_or_is_too_long_is_thrown_away() {
        let (_dir, handle) = directory();
        begun(&handle, "a", b"half");
        assert!(Partial::find(&handle, "a".as_ref(), |found| *found == origin("other")).expect("a look").is_none());
        assert_eq!(handle.names().expect("names").len(), 0);
        begun(&handle, "a", b"longer than the whole");
        assert!(Partial::find(&handle, "a".as_ref(), |_| true).expect("a look").is_none());
    }

    #[test]
    fn only_one_program_writes_it() {
        let (_dir, handle) = directory();
        let held = Partial::create(&handle, "a".as_ref(), MODE_NEW, origin("e")).expect("a partial");
        let refused = Partial::create(&handle, "a".as_ref(), MODE_NEW, origin("e")).expect_err("a lock");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(Partial::find(&handle, "a".as_ref(), |_| true).is_err());
        drop(held);
        Partial::create(&handle, "a".as_ref(), MODE_NEW, origin("e")).expect("a partial");
    }

    #[test]
    fn a_partial_with_another_name_is_left_to_that_name() {
        let (dir, handle) = directory();
        begun(&handle, "a", b"whole");
        std::fs::hard_link(dir.path().join(".a.plug-part"), dir.path().join("a")).expect("a link");
        assert_eq!(Partial::find(&handle, "a".as_ref(), |_| true).expect("a look").expect("a partial").len, 0);
        begun(&handle, "a", b"other");
        assert_eq!(std::fs::read(dir.path().join("a")).expect("a file"), b"whole");
    }

    #[test]
    fn room_is_reserved_and_not_taken_for_content() {
        let (dir, handle) = directory();
        begun(&handle, "a", b"");
        let facts = std::fs::metadata(dir.path().join(".a.plug-part")).expect("a file");
        assert_eq!(facts.len(), 0);
        let endless = Origin { size: u64::MAX >> 1, ..origin("e") };
        Partial::create(&handle, "b".as_ref(), MODE_NEW, endless).expect_err("more than any disk has");
        assert_eq!(handle.names().expect("names"), [".a.plug-part", ".a.plug-part.json"]);
    }

    #[test]
    fn the_longest_names_have_room() {
        for name in ["n".repeat(255), "n".repeat(NAME_LEN_MAX)] {
            assert!(origin_name(&partial_name(name.as_ref())).len() <= 255);
        }
        let other = format!("{}x", "n".repeat(254));
        assert_ne!(partial_name(other.as_ref()), partial_name("n".repeat(255).as_ref()));
    }
}
