//! `plug mkdir`, `rm`, `mv` and `cp`: changes on the server that move nothing between here and there.

use std::ffi::OsString;

use serde::Serialize;
use serde_json::json;

use super::name::Name;
use super::options::{Cp, Mkdir, Mv, ProgressMode, Rm};
use super::progress::Progress;
use super::remote::{Remote, is_false};
use super::tally::Tally;
use crate::Reply;
use crate::cli::answer::Answer;
use crate::cli::failure::Failure;
use crate::cli::session::Session;

#[derive(Debug, Serialize)]
pub(crate) struct MkdirArgs<'a> {
    pub(crate) path: &'a Name,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) parents: bool,
}

#[derive(Debug, Serialize)]
pub(crate) struct RmArgs<'a> {
    pub(crate) path: &'a Name,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) recursive: bool,
}

#[derive(Debug, Serialize)]
struct FromToArgs<'a> {
    from: &'a Name,
    to: &'a Name,
    #[serde(skip_serializing_if = "is_false")]
    no_clobber: bool,
}

pub(crate) async fn mkdir(session: &mut Session<'_>, options: &Mkdir) -> Result<Answer, Failure> {
    let parents = options.parents;
    each(session, "mkdir", &options.paths, async |remote, path| {
        remote.call("mkdir", &MkdirArgs { path, parents }).await
    })
    .await
}

pub(crate) async fn rm(session: &mut Session<'_>, options: &Rm) -> Result<Answer, Failure> {
    let recursive = options.recursive;
    each(session, "rm", &options.paths, async |remote, path| remote.call("rm", &RmArgs { path, recursive }).await).await
}

pub(crate) async fn mv(session: &mut Session<'_>, options: &Mv) -> Result<Answer, Failure> {
    let reply = from_to(session, "mv", &options.from, &options.to, options.no_clobber).await?;
    Ok(Answer::of_json(reply, json!(null), String::new()))
}

pub(crate) async fn cp(session: &mut Session<'_>, options: &Cp) -> Result<Answer, Failure> {
    let reply = from_to(session, "copy", &options.from, &options.to, options.no_clobber).await?;
    let receipt = json!(reply.trailer);
    let size = receipt["size"].as_u64().map_or(String::new(), |size| format!(", {size} bytes"));
    let note =
        format!("copied {} to {}{size}", Name::from(options.from.as_os_str()), Name::from(options.to.as_os_str()));
    Ok(Answer { note: Some(note), ..Answer::of_json(reply, receipt, String::new()) })
}

async fn from_to(
    session: &mut Session<'_>,
    operation: &str,
    from: &OsString,
    to: &OsString,
    no_clobber: bool,
) -> Result<Reply, Failure> {
    let remote = Remote::of(session, operation, 0, &Progress::new(ProgressMode::None, false)).await?;
    let (from, to) = (Name::from(from.as_os_str()), Name::from(to.as_os_str()));
    remote.call(operation, &FromToArgs { from: &from, to: &to, no_clobber }).await
}

/// Makes one call for each path, and goes on with the others when one fails.
async fn each(
    session: &mut Session<'_>,
    operation: &'static str,
    paths: &[OsString],
    call: impl AsyncFn(&Remote, &Name) -> Result<Reply, Failure>,
) -> Result<Answer, Failure> {
    let progress = Progress::new(ProgressMode::None, false);
    let remote = Remote::of(session, operation, 0, &progress).await?;
    let (tally, mut last) = (Tally::new(operation, progress), Reply::default());
    for path in paths {
        let path = Name::from(path.as_os_str());
        match call(&remote, &path).await {
            Ok(reply) => last = reply,
            Err(failure @ Failure::Status(_)) => tally.failed(&path, failure, paths.len() > 1),
            Err(failure) => return Err(failure),
        }
    }
    match paths {
        [_] => tally.of_one()?,
        _ => tally.of_many()?,
    };
    Ok(Answer::of_json(last, json!(null), String::new()))
}
