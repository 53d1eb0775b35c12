//! Describes files and directories, in lines of JSON.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::{ErrorKind, GlobBuilder, GlobSet};
use plugd_core::{Call, Status};
use rustix::fs::{Dir, OFlags, ResolveFlags};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::blocking::{blocking, while_called};
use crate::digest::{Algorithm, Digest};
use crate::entry::{Facts, Kind, Meta, json_line};
use crate::path_text::PathText;
use crate::root::{UPLOADS_NAME, beneath, link_target, meta_at};
use crate::source::Source;
use crate::{Shared, refusal};

/// The most names that one listing holds in memory, in the directory and all those that it lies in: they are sorted.
const NAMES_MAX: usize = 1_000_000;

/// How many bytes of whole lines are sent as one message: with one more line it still fits every caller's frame.
const BATCH_LEN: usize = 32 << 10;

/// How many names are looked at before the caller may stop the listing: a few milliseconds' work.
const STEP_NAMES_MAX: usize = 4096;

/// The arguments of `stat`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatArgs {
    /// The path, relative to the plugin's root.
    path: PathText,
    /// Whether a symbolic link is followed, or described itself.
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

/// The arguments of `digest`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DigestArgs {
    /// The file, relative to the plugin's root.
    path: PathText,
    /// Which digest: md5 unless told otherwise.
    #[serde(default)]
    #[schemars(with = "Algorithm")]
    algorithm: Option<Algorithm>,
}

/// How the entries of each directory are ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Sort {
    /// By the bytes of the name.
    #[default]
    Name,
    /// The smallest first.
    Size,
    /// The oldest first.
    Mtime,
    /// As the file system has them.
    None,
}

/// The arguments of `ls`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LsArgs {
    /// The directory, relative to the plugin's root; absent means the root itself.
    path: PathText,
    /// Whether what lies below its directories is listed as well, each directory's content right behind it.
    recursive: bool,
    /// Only names that match, such as "*.txt"; with a "/" in it, such as "a/**/*.txt", paths below the directory.
    glob: Option<String>,
    /// The order within each directory: name, size, mtime, or none.
    sort: Sort,
    /// Whether that order is turned around.
    reverse: bool,
    /// How many lines at most.
    limit: Option<u64>,
}

impl Default for LsArgs {
    fn default() -> LsArgs {
        LsArgs {
            path: PathText::from("."),
            recursive: false,
            glob: None,
            sort: Sort::Name,
            reverse: false,
            limit: None,
        }
    }
}

#[derive(Debug, Serialize)]
struct ListLine {
    name: PathText,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Debug, Serialize)]
struct StatLine {
    path: PathText,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Debug, Serialize)]
struct DigestLine {
    path: PathText,
    size: u64,
    etag: String,
    digest: Digest,
}

/// Sends one line about a path.
pub(crate) async fn stat(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let StatArgs { path, follow } = call.args()?;
    let shared = Arc::clone(shared);
    let line = blocking(move || {
        // A path that ends in no name is no link.
        let place = if follow { None } else { shared.root.place(path.as_path()).ok() };
        let (meta, target) = match place {
            Some(place) => {
                let meta = place.meta()?;
                (meta, (meta.kind == Kind::Symlink).then(|| place.link_target()).transpose()?)
            }
            None => (shared.root.meta(path.as_path())?, None),
        };
        json_line(&StatLine { path, facts: Facts::new(&meta, target) })
    });
    call.send(line.await?).await
}

/// Sends one line with the digest of a file.
pub(crate) async fn digest(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let DigestArgs { path, algorithm } = call.args()?;
    let algorithm = shared.settings.algorithm(algorithm)?;
    if algorithm == Algorithm::None {
        return Err(Status::invalid_argument("algorithm-not-allowed", "the algorithm none makes no digest"));
    }
    let found = {
        let (shared, path) = (Arc::clone(shared), path.clone());
        blocking(move || Source::new(path.as_path(), shared.root.open_file(path.as_path())?)).await?
    };
    let digest = while_called(call, found.digest(shared, algorithm)).await?;
    let (size, etag) = (found.meta().size(), found.meta().identity.etag());
    call.send(json_line(&DigestLine { path, size, etag, digest })?).await
}

/// Sends one line about each entry of a directory. Symbolic links are not followed.
pub(crate) async fn ls(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let args: LsArgs = call.args()?;
    let shared = Arc::clone(shared);
    let mut listing = blocking(move || Listing::open(&shared, args)).await?;
    while !listing.is_over() {
        let step = blocking(move || {
            let batch = listing.next_batch();
            Ok((listing, batch))
        });
        let batch;
        (listing, batch) = while_called(call, step).await?;
        if !batch.is_empty() {
            call.send(batch).await?;
        }
    }
    listing.failure.map_or(Ok(()), Err)
}

/// A walk through a directory, and those below it when it is recursive. It holds two directories open, however deep it is.
struct Listing {
    args: LsArgs,
    pattern: Option<Pattern>,
    base: OwnedFd,
    /// The directory that the walk is in, and those that it will return to.
    levels: Vec<Level>,
    /// The open directory of the last level, unless the walk has just returned to it.
    dir: Option<OwnedFd>,
    names_len: usize,
    lines_left: u64,
    /// What could not be read. It does not stop the listing, but a listing with a gap is no success.
    failure: Option<Status>,
}

struct Level {
    /// Its path below the listed directory; empty for that one itself.
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
}

struct Pattern {
    matcher: GlobSet,
    of_path: bool,
}

impl Listing {
    fn open(shared: &Shared, args: LsArgs) -> Result<Listing, Status> {
        let pattern = args.glob.as_deref().map(Pattern::new).transpose()?;
        let base = shared.root.open_dir(args.path.as_path())?;
        let lines_left = args.limit.unwrap_or(u64::MAX);
        let mut listing =
            Listing { args, pattern, base, levels: Vec::new(), dir: None, names_len: 0, lines_left, failure: None };
        listing.enter(PathBuf::new())?;
        Ok(listing)
    }

    fn is_over(&self) -> bool {
        self.levels.is_empty() || self.lines_left == 0
    }

    /// The next lines; they may be none when a pattern leaves few.
    fn next_batch(&mut self) -> Vec<u8> {
        let mut batch = Vec::new();
        for _ in 0..STEP_NAMES_MAX {
            if self.is_over() || batch.len() >= BATCH_LEN {
                break;
            }
            let Some(level) = self.levels.last_mut() else { break };
            let Some(name) = level.names.next() else {
                self.levels.pop();
                self.dir = None;
                continue;
            };
            self.names_len -= 1;
            let path = level.path.join(&name);
            if let Err(status) = self.visit(name, path, &mut batch) {
                self.failure.get_or_insert(status);
            }
        }
        batch
    }

    fn visit(&mut self, name: OsString, path: PathBuf, batch: &mut Vec<u8>) -> Result<(), Status> {
        let refuse = |error| refusal::of(&path, error);
        if self.dir.is_none() {
            let level = self.levels.last().map_or(PathBuf::new(), |level| level.path.clone());
            self.dir = Some(self.open_level(&level).map_err(refuse)?);
        }
        let Some(dir) = &self.dir else { return Ok(()) };
        let meta = match meta_at(dir, &name) {
            Ok(meta) => meta,
            // It was removed since the names were read.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(refuse(error)),
        };
        if self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&path, &name)) {
            let is_link = meta.kind == Kind::Symlink;
            let target = if is_link { link_target(dir, &name).ok() } else { None };
            let facts = Facts::new(&meta, target);
            batch.extend(json_line(&ListLine { name: PathText::from(path.clone()), facts })?);
            self.lines_left -= 1;
        }
        if meta.is_dir() && self.args.recursive {
            return self.enter(path);
        }
        Ok(())
    }

    /// Goes down into a directory.
    fn enter(&mut self, path: PathBuf) -> Result<(), Status> {
        let entered = self.open_level(&path).and_then(|dir| {
            let names = self.names(&dir)?;
            Ok((dir, names))
        });
        match entered {
            Ok((dir, names)) => {
                self.names_len += names.len();
                self.dir = Some(dir);
                self.levels.push(Level { path, names: names.into_iter() });
            }
            // It was removed, or replaced, since it was listed.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !self.levels.is_empty() => {}
            Err(Errno::OVERFLOW) => {
                let message = format!("more than {NAMES_MAX} entries at {path:?}; allowed: {NAMES_MAX}");
                return Err(Status::resource_exhausted("too-many-entries", message));
            }
            Err(error) if self.levels.is_empty() => return Err(refusal::of(self.args.path.as_path(), error)),
            Err(error) => return Err(refusal::of(&path, error)),
        }
        Ok(())
    }

    fn open_level(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        beneath(&self.base, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    /// The names in a directory, in order; `OVERFLOW` when they are too many.
    fn names(&self, dir: &OwnedFd) -> Result<Vec<OsString>, Errno> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if matches!(&name[..], b"." | b"..") || name == UPLOADS_NAME.as_bytes() {
                continue;
            }
            if self.names_len + names.len() >= NAMES_MAX {
                return Err(Errno::OVERFLOW);
            }
            names.push(OsString::from_vec(name));
        }
        self.order(dir, &mut names);
        Ok(names)
    }

    fn order(&self, dir: &OwnedFd, names: &mut [OsString]) {
        let key = |name: &OsString, of: fn(&Meta) -> i128| meta_at(dir, name).map_or(0, |meta| of(&meta));
        match self.args.sort {
            Sort::None => {}
            Sort::Name => names.sort_unstable(),
            Sort::Size => names.sort_by_cached_key(|name| (key(name, |meta| meta.size().into()), name.clone())),
            Sort::Mtime => names.sort_by_cached_key(|name| (key(name, mtime_ns), name.clone())),
        }
        if self.args.reverse && self.args.sort != Sort::None {
            names.reverse();
        }
    }
}

/// The modification time in nanoseconds since 1970.
fn mtime_ns(meta: &Meta) -> i128 {
    i128::from(meta.identity.mtime.s) * 1_000_000_000 + i128::from(meta.identity.mtime.ns)
}

impl Pattern {
    fn new(text: &str) -> Result<Pattern, Status> {
        let refuse = |error: globset::Error| {
            let found = match error.kind() {
                // What the error says itself is as long as the pattern that was made of it.
                ErrorKind::Regex(_) => "too large or too deeply nested".to_owned(),
                kind => kind.to_string(),
            };
            Status::invalid_argument("bad-glob", format!("bad glob {text:?}: {found}"))
        };
        let glob = GlobBuilder::new(text).literal_separator(true).build().map_err(refuse)?;
        // A single matcher would panic where a set of one says what is wrong.
        let matcher = GlobSet::builder().add(glob).build().map_err(refuse)?;
        Ok(Pattern { matcher, of_path: text.contains('/') })
    }

    fn matches(&self, path: &Path, name: &OsStr) -> bool {
        if self.of_path { self.matcher.is_match(path) } else { self.matcher.is_match(name) }
    }
}
