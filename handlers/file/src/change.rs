//! Changes names: makes directories, removes, and moves.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugd_core::{Call, Status};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, mkdirat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::blocking::{blocking, while_called};
use crate::config::Durability;
use crate::entry::{Kind, Meta};
use crate::path_text::PathText;
use crate::put::rename_to_free;
use crate::root::{Place, beneath, meta_at, refuse_unless_replaceable};
use crate::{Shared, refusal};

/// How many names are removed before the caller may stop it: some milliseconds' work.
const STEP_NAMES_MAX: usize = 512;

/// How often a directory is emptied that others go on filling.
const PASSES_MAX: usize = 16;

/// The arguments of `mkdir`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MkdirArgs {
    /// The directory to make, relative to the plugin's root.
    path: PathText,
    /// Whether the directories that it lies in are made as well; then it may also be there already.
    #[serde(default)]
    parents: bool,
}

/// The arguments of `rm`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RmArgs {
    /// The file, link or directory to remove, relative to the plugin's root. A symbolic link is removed itself.
    path: PathText,
    /// Whether a directory is removed with all that is in it.
    #[serde(default)]
    recursive: bool,
}

/// The arguments of `mv` and `copy`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FromToArgs {
    /// What there is, relative to the plugin's root.
    pub(crate) from: PathText,
    /// The whole new path, relative to the plugin's root. A file that is there already is replaced.
    pub(crate) to: PathText,
    /// Refuse to replace anything.
    #[serde(default)]
    pub(crate) no_clobber: bool,
}

/// Makes a directory.
pub(crate) async fn mkdir(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let MkdirArgs { path, parents } = call.args()?;
    let shared = Arc::clone(shared);
    blocking(move || {
        let path = path.as_path();
        let durable = shared.settings.durability == Durability::Full;
        if parents {
            return shared.root.make_dirs(path, durable);
        }
        let place = shared.root.place(path)?;
        let made = mkdirat(&place.dir, &place.name, Mode::from_raw_mode(0o777));
        let made = made.and_then(|()| if durable { place.sync_dir() } else { Ok(()) });
        made.map_err(|error| refusal::of(path, error))
    })
    .await
}

/// Renames a file, a link or a directory within the root, at once.
pub(crate) async fn mv(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let FromToArgs { from, to, no_clobber } = call.args()?;
    let shared = Arc::clone(shared);
    blocking(move || {
        let source = shared.root.place(from.as_path())?;
        let moved = source.meta()?;
        if moved.kind == Kind::Other {
            return Err(refusal::not_a_file(from.as_path()));
        }
        let target = match moved.is_dir() {
            true => shared.root.place(to.as_path())?,
            false => shared.root.target(to.as_path())?.0,
        };
        let _guards = shared.publisher.lock_both(&source, &target)?;
        let moved = source.meta()?;
        let found = target.find()?;
        refuse_to_replace(&target, found.as_ref(), &moved, no_clobber)?;
        let names = ((source.dir.as_fd(), Path::new(&source.name)), (target.dir.as_fd(), Path::new(&target.name)));
        let renamed = match names {
            // No directory has a second link.
            ((from, old), (to, new)) if no_clobber && moved.is_dir() => {
                renameat_with(from, old, to, new, RenameFlags::NOREPLACE)
            }
            (old, new) if no_clobber => rename_to_free(old, new),
            ((from, old), (to, new)) => renameat(from, old, to, new),
        };
        renamed.map_err(|error| refuse_rename(&source, &target, error))?;
        // Renamed to another name of its own, a file stays under both.
        let replaced = found.filter(|meta| meta.is_file() && !meta.identity.is_same_file(&moved.identity));
        shared.space.change(0, replaced.map_or(0, |meta| meta.size()));
        if shared.settings.durability == Durability::Full {
            target.sync_dir().and_then(|()| source.sync_dir()).map_err(|error| refusal::of(to.as_path(), error))?;
        }
        Ok(())
    })
    .await
}

fn refuse_to_replace(target: &Place, found: Option<&Meta>, moved: &Meta, no_clobber: bool) -> Result<(), Status> {
    match found {
        Some(_) if no_clobber => Err(refusal::exists(&target.path)),
        Some(meta) if moved.is_dir() && !meta.is_dir() => Err(refusal::not_a_directory(&target.path)),
        Some(meta) if !moved.is_dir() => refuse_unless_replaceable(&target.path, meta),
        _ => Ok(()),
    }
}

fn refuse_rename(source: &Place, target: &Place, error: Errno) -> Status {
    let (from, to) = (&source.path, &target.path);
    match error {
        Errno::XDEV => {
            let message = format!("{from:?} and {to:?} lie on different file systems; copy it and remove it");
            Status::failed_precondition("other-file-system", message).with_detail(error)
        }
        Errno::INVAL => {
            let message = format!("{from:?} cannot be moved into itself, to {to:?}");
            Status::invalid_argument("bad-path", message).with_detail(error)
        }
        Errno::NOENT => refusal::no_such_file(from).with_detail(error),
        error => refusal::of(to, error),
    }
}

/// Removes a file, a link, or a directory.
pub(crate) async fn rm(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let RmArgs { path, recursive } = call.args()?;
    let shared = Arc::clone(shared);
    let mut left = blocking(move || {
        let place = shared.root.place(path.as_path())?;
        match place.meta()? {
            meta if meta.is_dir() && recursive => return Ok(Some(Removal::new(shared, place))),
            meta if meta.is_dir() => remove_dir(&place.dir, &place.name),
            _ => {
                let _guard = shared.publisher.lock(&place)?;
                remove_file(&shared, &place, &place.meta()?)
            }
        }
        .map_err(|error| refusal::of(path.as_path(), error))?;
        Ok(None)
    })
    .await?;
    while let Some(mut removal) = left {
        let step = blocking(move || Ok(removal.step()?.then_some(removal)));
        left = while_called(call, step).await?;
    }
    Ok(())
}

fn remove_file(shared: &Shared, place: &Place, meta: &Meta) -> Result<(), Errno> {
    unlinkat(&place.dir, &place.name, AtFlags::empty())?;
    note_removed(shared, meta);
    Ok(())
}

fn remove_dir(dir: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        // POSIX allows both.
        Err(Errno::EXIST) => Err(Errno::NOTEMPTY),
        removed => removed,
    }
}

fn note_removed(shared: &Shared, meta: &Meta) {
    if meta.is_file() {
        shared.space.change(0, meta.size());
    }
}

/// A directory that is removed from the inside out. It holds two directories open, however deep it is, and follows no link.
struct Removal {
    shared: Arc<Shared>,
    place: Place,
    /// The directories that are left, below the place's directory; each lies in one before it.
    levels: Vec<Level>,
}

struct Level {
    path: PathBuf,
    passes: usize,
}

impl Removal {
    fn new(shared: Arc<Shared>, place: Place) -> Removal {
        let levels = vec![Level { path: PathBuf::from(&place.name), passes: 0 }];
        Removal { shared, place, levels }
    }

    /// Removes some more; whether something is left.
    fn step(&mut self) -> Result<bool, Status> {
        let mut names_left = STEP_NAMES_MAX;
        while names_left > 0
            && let Some(level) = self.levels.last_mut()
        {
            let path = level.path.clone();
            let is_done = self.empty(&path, &mut names_left).and_then(|is_empty| match is_empty {
                true => self.remove_level(&path),
                false => Ok(false),
            });
            match is_done {
                Ok(true) => drop(self.levels.pop()),
                Ok(false) => {}
                // Somebody else removed it, or put something in its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if self.levels.len() > 1 => drop(self.levels.pop()),
                Err(error) => return Err(refusal::of(&self.place.path, error)),
            }
        }
        Ok(!self.levels.is_empty())
    }

    /// Removes what is in a directory, but no directory: those come next. Whether it should be empty now.
    fn empty(&mut self, path: &Path, names_left: &mut usize) -> Result<bool, Errno> {
        let dir = self.open(path)?;
        let mut is_empty = true;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            if *names_left == 0 {
                return Ok(false);
            }
            *names_left -= 1;
            if entry.file_type() == FileType::Directory || self.remove_entry(&dir, name)? {
                self.levels.push(Level { path: path.join(name), passes: 0 });
                is_empty = false;
            }
        }
        Ok(is_empty)
    }

    /// Removes what is no directory; whether it is one.
    fn remove_entry(&self, dir: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
        let meta = match meta_at(dir, name) {
            Err(Errno::NOENT) => return Ok(false),
            meta => meta?,
        };
        if meta.is_dir() {
            return Ok(true);
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => note_removed(&self.shared, &meta),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        Ok(false)
    }

    /// Removes an emptied directory; whether it is gone.
    fn remove_level(&mut self, path: &Path) -> Result<bool, Errno> {
        let passes = self.levels.last_mut().map_or(0, |level| {
            level.passes += 1;
            level.passes
        });
        let parent = path.parent().unwrap_or(Path::new(""));
        let removed = match path.file_name() {
            Some(name) if parent.as_os_str().is_empty() => remove_dir(&self.place.dir, name),
            Some(name) => remove_dir(self.open(parent)?, name),
            None => Err(Errno::INVAL),
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            // Something came after it was emptied.
            Err(Errno::NOTEMPTY) if passes < PASSES_MAX => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        beneath(&self.place.dir, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }
}
