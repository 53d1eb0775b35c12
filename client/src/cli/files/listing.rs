//! A listing of the server that survives lost connections.

use std::collections::HashSet;

use super::facts::Entry;
use super::name::Name;
use super::progress::Progress;
use super::remote::{Lines, LsArgs, Remote};
use super::retry::Retries;
use crate::cli::failure::Failure;

/// Entries that are told apart when a listing begins anew; 16 bytes each. Longer listings are not begun anew.
const SEEN_MAX: usize = 4_000_000;

/// A listing of the server. After a lost connection it begins anew and leaves out what was told already.
#[derive(Debug)]
pub(crate) struct Listing<'l> {
    remote: &'l Remote,
    args: LsArgs<'l>,
    lines: Option<Lines>,
    seen: HashSet<u128>,
    /// Whether the listing began anew.
    anew: bool,
    retries: Retries,
    progress: &'l Progress,
}

impl<'l> Listing<'l> {
    pub(crate) fn new(remote: &'l Remote, args: LsArgs<'l>, retry: u32, progress: &'l Progress) -> Listing<'l> {
        let retries = Retries::new(retry);
        Listing { remote, args, lines: None, seen: HashSet::new(), anew: false, retries, progress }
    }

    /// The next entry, or `None` at the good end.
    pub(crate) async fn next(&mut self) -> Result<Option<Entry>, Failure> {
        loop {
            match self.entry().await {
                Ok(Some(entry)) if self.anew && self.seen.contains(&fingerprint(&entry.name)) => {}
                Ok(Some(entry)) => {
                    if self.seen.len() <= SEEN_MAX {
                        self.seen.insert(fingerprint(&entry.name));
                    }
                    return Ok(Some(entry));
                }
                Ok(None) => {
                    if let Some(lines) = self.lines.take() {
                        self.remote.keep(lines.into_client());
                    }
                    return Ok(None);
                }
                Err(failure) if self.seen.len() > SEEN_MAX => return Err(failure),
                Err(failure) => {
                    self.lines = None;
                    self.anew = true;
                    self.retries.pause(failure, self.progress).await?;
                }
            }
        }
    }

    async fn entry(&mut self) -> Result<Option<Entry>, Failure> {
        let lines = match &mut self.lines {
            Some(lines) => lines,
            none => none.insert(self.remote.list(&self.args).await?),
        };
        lines.entry().await
    }
}

fn fingerprint(name: &Name) -> u128 {
    let hash = blake3::hash(name.as_bytes());
    let (half, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u128::from_le_bytes(*half)
}
