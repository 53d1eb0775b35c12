//! Stores the input as a file: all of it under its name, or nothing.

use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::thread;

use bytes::Bytes;
use cap_std::fs::Dir;
use cap_tempfile::TempFile;
use md5::{Digest, Md5};
use plugd_core::wire::CHANNEL_MAIN;
use plugd_core::{Call, Input, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::get::hex;
use crate::root::check;
use crate::{Root, refusal};

/// The side channel on which a caller may send the MD5 that it has computed while it sent the data.
pub(crate) const CHANNEL_MD5: u8 = 1;

/// An MD5 in hexadecimal digits.
const MD5_TEXT_LEN: usize = 32;

/// How many pieces of input may wait for the disk.
const STEPS_MAX: usize = 2;

/// The arguments of `put`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutArgs {
    /// The path to store under, relative to the plugin's root. A file that is there already is replaced.
    path: String,
    /// How many bytes the input must have.
    #[serde(default)]
    size: Option<u64>,
    /// The MD5 that the input must have, in 32 hexadecimal digits. It may also come on channel 1, after the data.
    #[serde(default)]
    md5: Option<String>,
}

#[derive(Debug, Serialize)]
struct Stored {
    size: u64,
    md5: String,
    /// Whether the caller said which MD5 it expects; had it been another, the call would have failed.
    verified: bool,
}

/// Stores the input. Nothing is visible under the path before the input has ended and was verified.
pub(crate) async fn put(root: &Root, call: &mut Call) -> Result<(), Status> {
    let PutArgs { path, size, md5 } = call.args()?;
    let announced = md5.as_deref().map(parse_md5).transpose()?;
    check(&path)?;
    let mut upload = Upload::start(root.clone(), path, size)?;
    let (input, _) = call.split();
    let mut digests = tokio::select! {
        biased;
        // It ends before it is told to only when it fails.
        outcome = &mut upload.outcome => return outcome_of(outcome).map(drop),
        digest = receive(input, &upload.steps) => Vec::from_iter(digest?),
    };
    digests.extend(announced);
    let stored = upload.finish(digests).await?;
    call.set_trailer(&stored)
}

/// Passes the data on and returns the digest, if one came.
async fn receive(input: &mut Input, steps: &mpsc::Sender<Step>) -> Result<Option<String>, Status> {
    let mut md5 = Vec::new();
    while let Some(data) = input.recv_data().await? {
        match data.channel {
            CHANNEL_MAIN => {
                if steps.send(Step::Data(data.payload)).await.is_err() {
                    break;
                }
            }
            CHANNEL_MD5 if md5.len() + data.payload.len() <= MD5_TEXT_LEN => md5.extend_from_slice(&data.payload),
            CHANNEL_MD5 => return Err(bad_digest("more than 32 bytes on channel 1")),
            other => {
                let message = format!("data on channel {other}; allowed: {CHANNEL_MAIN} data, {CHANNEL_MD5} md5");
                return Err(Status::invalid_argument("unexpected-channel", message));
            }
        }
    }
    if md5.is_empty() { Ok(None) } else { parse_md5(&String::from_utf8_lossy(&md5)).map(Some) }
}

fn parse_md5(text: &str) -> Result<String, Status> {
    if text.len() == MD5_TEXT_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(bad_digest(&format!("{text:?}")))
}

fn bad_digest(found: &str) -> Status {
    Status::invalid_argument("bad-digest", format!("bad md5: {found}; allowed: {MD5_TEXT_LEN} hexadecimal digits"))
}

enum Step {
    Data(Bytes),
    /// The input has ended; it must have each of these digests.
    Finish(Vec<String>),
}

type Outcome = Result<Stored, Status>;

/// A file that is being written by a thread of its own.
///
/// A thread of the runtime's pool would be held as long as the slowest caller likes, and the pool is bounded: uploads
/// that stand still would stop every other use of the disk.
struct Upload {
    steps: mpsc::Sender<Step>,
    outcome: oneshot::Receiver<Outcome>,
}

impl Upload {
    fn start(root: Root, path: String, size: Option<u64>) -> Result<Upload, Status> {
        let (steps, receiver) = mpsc::channel(STEPS_MAX);
        let (sender, outcome) = oneshot::channel();
        let work = move || {
            // `None` means that the call is gone, and nobody listens.
            if let Some(outcome) = store(&root, &path, size, receiver).transpose() {
                let _ = sender.send(outcome);
            }
        };
        let spawned = thread::Builder::new().name("plugd-put".to_owned()).spawn(work);
        spawned.map_err(|error| {
            Status::resource_exhausted("no-thread", "the server cannot start a thread").with_detail(error)
        })?;
        Ok(Upload { steps, outcome })
    }

    async fn finish(self, digests: Vec<String>) -> Outcome {
        // When the thread has failed already, its outcome says why.
        let _ = self.steps.send(Step::Finish(digests)).await;
        outcome_of(self.outcome.await)
    }
}

fn outcome_of(received: Result<Outcome, oneshot::error::RecvError>) -> Outcome {
    received.unwrap_or_else(|_| Err(Status::internal("io-failed", "the file was not stored")))
}

fn store(
    root: &Root,
    path: &str,
    size_expected: Option<u64>,
    mut steps: mpsc::Receiver<Step>,
) -> Result<Option<Stored>, Status> {
    let refuse = |error| refusal::of(path, error);
    let (dir, name) = target(root, path)?;
    // Dropped before it replaces anything, it leaves nothing behind.
    let mut temp = TempFile::new(&dir).map_err(refuse)?;
    let mut md5 = Md5::new();
    let mut size = 0;
    let digests = loop {
        match steps.blocking_recv() {
            Some(Step::Data(piece)) => {
                size += piece.len() as u64;
                if size_expected.is_some_and(|expected| size > expected) {
                    return Err(size_mismatch(size, size_expected));
                }
                temp.write_all(&piece).map_err(refuse)?;
                md5.update(&piece);
            }
            Some(Step::Finish(digests)) => break digests,
            None => return Ok(None),
        }
    };
    let stored = Stored { size, md5: hex(&md5.finalize()), verified: !digests.is_empty() };
    verify(&stored, size_expected, &digests)?;
    keep_mode(&dir, name, &temp).map_err(refuse)?;
    temp.as_file().sync_all().map_err(refuse)?;
    temp.replace(name).map_err(refuse)?;
    Ok(Some(stored))
}

/// Gives the new file the permissions of the one that it replaces: what was private stays private.
fn keep_mode(dir: &Dir, name: &str, temp: &TempFile<'_>) -> io::Result<()> {
    match dir.symlink_metadata(name) {
        Ok(metadata) if metadata.is_file() => temp.as_file().set_permissions(metadata.permissions()),
        _ => Ok(()),
    }
}

/// The directory that `path` lies in and its name there, which may be free or a file's.
fn target<'a>(root: &Root, path: &'a str) -> Result<(Dir, &'a str), Status> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    if matches!(name, "" | "." | "..") {
        return Err(refusal::is_a_directory(path));
    }
    let dir = root.dir().open_dir(Path::new(parent)).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            Status::not_found("no-such-directory", format!("no directory {parent:?} for {path:?}")).with_detail(error)
        }
        _ => refusal::of(path, error),
    })?;
    match root.dir().metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(refusal::is_a_directory(path)),
        Ok(metadata) if !metadata.is_file() => Err(refusal::not_a_file(path)),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(refusal::of(path, error)),
        _ => Ok((dir, name)),
    }
}

fn verify(stored: &Stored, size_expected: Option<u64>, digests: &[String]) -> Result<(), Status> {
    if size_expected.is_some_and(|expected| expected != stored.size) {
        return Err(size_mismatch(stored.size, size_expected));
    }
    match digests.iter().find(|digest| **digest != stored.md5) {
        Some(digest) => {
            let message = format!("input has the md5 {}; expected: {digest}", stored.md5);
            Err(Status::data_loss("digest-mismatch", message))
        }
        None => Ok(()),
    }
}

fn size_mismatch(size: u64, expected: Option<u64>) -> Status {
    let expected = expected.unwrap_or_default();
    let found = if size > expected { format!("more than {expected}") } else { size.to_string() };
    Status::data_loss("size-mismatch", format!("input has {found} bytes; expected: {expected}"))
}
