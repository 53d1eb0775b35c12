//! The verbs for files: get, put, sync, ls, stat, digest, mkdir, rm, mv, cp and df.
//!
//! Each verb has a module that says what is to be moved or asked; `transfer` moves it. What the server and this side
//! know about a file is in `facts`, names are in `name`, and everything here that is written is reached through `local`.

mod change;
mod df;
mod digest;
mod directories;
mod facts;
mod get;
mod glob;
mod leftovers;
mod listing;
mod local;
mod ls;
mod name;
pub(crate) mod options;
mod partial;
mod progress;
mod put;
mod remote;
mod retry;
mod show;
mod stat;
mod sync;
mod tally;
mod transfer;

pub(crate) use leftovers::Leftovers;
pub(crate) use remote::{connect, connector};

use super::answer::Answer;
use super::failure::Failure;
use super::session::Session;
use options::FileVerb;

/// Finds what cannot work before anybody is called.
pub(crate) fn check(verb: &FileVerb, json: bool) -> Result<(), Failure> {
    match verb {
        FileVerb::Get(options) => get::plan(options, json).map(drop),
        FileVerb::Put(options) => put::plan(options).map(drop),
        FileVerb::Sync(options) if options.checksum && options.transfer.digest.is_none() => {
            Err(Failure::Usage("--checksum compares digests; allowed beside it: md5, blake3, sha256".to_owned()))
        }
        FileVerb::Sync(options) => sync::selection(options).map(drop),
        FileVerb::Digest(options) if options.digest.is_none() => {
            Err(Failure::Usage("no digest is made with \"none\"; allowed: md5, blake3, sha256".to_owned()))
        }
        _ => Ok(()),
    }
}

pub(crate) async fn run(session: &mut Session<'_>, verb: &FileVerb) -> Result<Answer, Failure> {
    local::raise_descriptor_limit();
    match verb {
        FileVerb::Get(options) => get::run(session, options).await,
        FileVerb::Put(options) => put::run(session, options).await,
        FileVerb::Sync(options) => sync::run(session, options).await,
        FileVerb::Ls(options) => ls::run(session, options).await,
        FileVerb::Stat(options) => stat::run(session, options).await,
        FileVerb::Digest(options) => stat::digest(session, options).await,
        FileVerb::Mkdir(options) => change::mkdir(session, options).await,
        FileVerb::Rm(options) => change::rm(session, options).await,
        FileVerb::Mv(options) => change::mv(session, options).await,
        FileVerb::Cp(options) => change::cp(session, options).await,
        FileVerb::Df(options) => df::run(session, options).await,
    }
}
