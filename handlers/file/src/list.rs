//! Describes files and directories, in lines of JSON.

use std::ffi::OsString;
use std::io;

use cap_std::fs::Dir;
use plugd_core::{Call, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::entry::{Facts, json_line};
use crate::root::{blocking, check};
use crate::{PathArgs, Root, refusal};

/// The most entries of one directory that are listed: they are sorted, so their names are held in memory.
const ENTRIES_MAX: usize = 1_000_000;

/// How many bytes of whole lines are sent as one message: with one more line it still fits every caller's frame.
const BATCH_LEN: usize = 32 << 10;

/// The arguments of `ls`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LsArgs {
    /// The directory, relative to the plugin's root; absent means the root itself.
    path: String,
}

impl Default for LsArgs {
    fn default() -> LsArgs {
        LsArgs { path: ".".to_owned() }
    }
}

#[derive(Debug, Serialize)]
struct ListLine<'a> {
    name: &'a str,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Debug, Serialize)]
struct StatLine<'a> {
    path: &'a str,
    #[serde(flatten)]
    facts: Facts,
}

/// Sends one line about a path, behind all symbolic links.
pub(crate) async fn stat(root: &Root, call: &mut Call) -> Result<(), Status> {
    let PathArgs { path } = call.args()?;
    let root = root.clone();
    let line = blocking(move || {
        let facts = Facts::from(&root.metadata(&path)?);
        Ok(json_line(&StatLine { path: &path, facts }))
    });
    call.send(line.await?).await
}

/// Sends one line about each entry of a directory, sorted by name. Symbolic links are not followed.
pub(crate) async fn ls(root: &Root, call: &mut Call) -> Result<(), Status> {
    let LsArgs { path } = call.args()?;
    let root = root.clone();
    let mut listing = blocking(move || Listing::open(&root, path)).await?;
    loop {
        let batch;
        (listing, batch) = blocking(move || {
            let batch = listing.next_batch()?;
            Ok((listing, batch))
        })
        .await?;
        if batch.is_empty() {
            return Ok(());
        }
        call.send(batch).await?;
    }
}

struct Listing {
    path: String,
    dir: Dir,
    names: std::vec::IntoIter<OsString>,
}

impl Listing {
    fn open(root: &Root, path: String) -> Result<Listing, Status> {
        check(&path)?;
        if !root.metadata(&path)?.is_dir() {
            return Err(Status::failed_precondition("not-a-directory", format!("{path:?} is not a directory")));
        }
        let dir = root.dir().open_dir(&path).map_err(|error| refusal::of(&path, error))?;
        let mut names = names(&dir).map_err(|error| refusal::of(&path, error))?;
        if names.len() > ENTRIES_MAX {
            let message = format!("more than {ENTRIES_MAX} entries in {path:?}; allowed: {ENTRIES_MAX}");
            return Err(Status::resource_exhausted("too-many-entries", message));
        }
        names.sort_unstable();
        Ok(Listing { path, dir, names: names.into_iter() })
    }

    /// The next lines; none at the end.
    fn next_batch(&mut self) -> Result<Vec<u8>, Status> {
        let mut batch = Vec::new();
        while batch.len() < BATCH_LEN
            && let Some(name) = self.names.next()
        {
            match self.dir.symlink_metadata(&name) {
                Ok(metadata) => {
                    let line = ListLine { name: &name.to_string_lossy(), facts: Facts::from(&metadata) };
                    batch.extend(json_line(&line));
                }
                // It was removed since the names were read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(refusal::of(&self.path, error)),
            }
        }
        Ok(batch)
    }
}

fn names(dir: &Dir) -> io::Result<Vec<OsString>> {
    dir.entries()?.take(ENTRIES_MAX + 1).map(|entry| Ok(entry?.file_name())).collect()
}
