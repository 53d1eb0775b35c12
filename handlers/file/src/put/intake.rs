//! Cuts the input of `put_all` into files.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use plugd_core::wire::CHANNEL_MAIN;
use plugd_core::{Data, Input, Status};
use serde::Deserialize;

use super::{PutArgs, Request};
use crate::config::Durability;
use crate::digest::Algorithm;
use crate::path_text::PathText;
use crate::{SMALL_LEN, Shared};

/// The side channel on which it is said of each file how it is to be stored, before its content comes.
pub(crate) const CHANNEL_FILE: u8 = 2;

/// The longest message about a file in bytes: a path of 4,095 bytes in which each is escaped, with room.
const MESSAGE_LEN_MAX: usize = 32 << 10;

/// How many files are stored in one go: a few milliseconds' work, after which their receipts leave.
const FILES_MAX: usize = 64;

/// How many bytes of files are stored in one go; as many again may have come meanwhile, and one file more.
const FILES_LEN_MAX: usize = 256 << 10;

/// What is said of one file of `put_all`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileArgs {
    path: PathText,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    algorithm: Option<Algorithm>,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    no_clobber: bool,
    #[serde(default)]
    mtime_s: Option<i64>,
    #[serde(default)]
    mtime_ns: Option<u32>,
    #[serde(default)]
    mode: Option<u32>,
    #[serde(default)]
    durability: Option<Durability>,
    #[serde(default)]
    parents: bool,
}

impl From<FileArgs> for PutArgs {
    fn from(args: FileArgs) -> PutArgs {
        let FileArgs { path, size, algorithm, digest, no_clobber, mtime_s, mtime_ns, mode, durability, parents } = args;
        PutArgs {
            path,
            size,
            algorithm,
            digest,
            token: None,
            resume: false,
            no_clobber,
            if_match: None,
            if_none_match: None,
            mtime_s,
            mtime_ns,
            mode,
            durability,
            parents,
        }
    }
}

/// A file that has come.
pub(super) struct SmallFile {
    /// Absent when what was said of the file cannot be read.
    pub(super) path: Option<PathText>,
    /// What is asked for, or why it is refused.
    pub(super) request: Result<Request, Status>,
    /// Nothing of a file that is refused.
    pub(super) content: Bytes,
}

impl SmallFile {
    fn read(message: &[u8], shared: &Shared) -> SmallFile {
        let (path, request) = match serde_json::from_slice::<FileArgs>(message) {
            Ok(args) => (Some(args.path.clone()), Request::read(args.into(), &shared.settings)),
            Err(error) => (None, Err(Status::invalid_argument("bad-arguments", error.to_string()))),
        };
        SmallFile { path, request, content: Bytes::new() }
    }

    fn refuse_longer(&mut self) {
        let text = format!("content of more than {SMALL_LEN} bytes; allowed: {SMALL_LEN}, or put instead of put_all");
        self.request = Err(Status::resource_exhausted("message-too-long", text));
    }

    /// What keeping it costs, in bytes.
    fn cost(&self) -> usize {
        let path_len = self.path.as_ref().map_or(0, |path| path.as_path().as_os_str().len());
        size_of::<SmallFile>() + path_len + self.content.len()
    }
}

/// The input as far as it has come and was not taken.
pub(super) struct Intake {
    shared: Arc<Shared>,
    /// The file whose content comes next; without one, what is said of the next file does.
    file: Option<SmallFile>,
    /// What has come of a message that came in pieces.
    piece: BytesMut,
    files: Vec<SmallFile>,
    cost: usize,
    has_ended: bool,
    /// Why nothing can be made of what comes.
    failure: Option<Status>,
}

impl Intake {
    pub(super) fn new(shared: &Arc<Shared>) -> Intake {
        Intake {
            shared: Arc::clone(shared),
            file: None,
            piece: BytesMut::new(),
            files: Vec::new(),
            cost: 0,
            has_ended: false,
            failure: None,
        }
    }

    /// Waits for a file or the end, and takes what has come together with it.
    ///
    /// # Errors
    ///
    /// The status that the call will end with, once it is cancelled. What cannot be read is told at the [`end`](Intake::end).
    ///
    /// # Cancellation
    ///
    /// Nothing is lost when the future is dropped.
    pub(super) async fn fill(&mut self, input: &mut Input) -> Result<(), Status> {
        while self.has_room() {
            let is_enough = !self.files.is_empty();
            tokio::select! {
                biased;
                received = self.receive(input) => received?,
                () = std::future::ready(()), if is_enough => break,
            }
        }
        Ok(())
    }

    /// Whether more may come.
    pub(super) fn has_room(&self) -> bool {
        !self.has_ended && self.files.len() < FILES_MAX && self.cost < FILES_LEN_MAX
    }

    /// Receives once; see [`fill`](Intake::fill).
    pub(super) async fn receive(&mut self, input: &mut Input) -> Result<(), Status> {
        let Some(data) = input.recv_data().await? else {
            self.has_ended = true;
            return Ok(());
        };
        if let Err(status) = self.accept(data) {
            (self.has_ended, self.failure) = (true, Some(status));
        }
        Ok(())
    }

    fn accept(&mut self, Data { channel, more, payload }: Data) -> Result<(), Status> {
        match (channel, self.file.take()) {
            (CHANNEL_FILE, None) => self.accept_message(payload, more),
            (CHANNEL_MAIN, Some(file)) => {
                self.accept_content(file, payload, more);
                Ok(())
            }
            (_, file) => {
                let expected = match file {
                    None => format!("{CHANNEL_FILE}, about the next file"),
                    Some(_) => format!("{CHANNEL_MAIN}, the content of the file"),
                };
                let text = format!("data on channel {channel}; expected: {expected}");
                Err(Status::invalid_argument("unexpected-channel", text))
            }
        }
    }

    fn accept_message(&mut self, payload: Bytes, more: bool) -> Result<(), Status> {
        if self.piece.len() + payload.len() > MESSAGE_LEN_MAX {
            let text = format!("message about a file of more than {MESSAGE_LEN_MAX} bytes; allowed: {MESSAGE_LEN_MAX}");
            return Err(Status::resource_exhausted("message-too-long", text));
        }
        let message = join(&mut self.piece, payload, more);
        self.file = message.map(|message| SmallFile::read(&message, &self.shared));
        Ok(())
    }

    fn accept_content(&mut self, mut file: SmallFile, payload: Bytes, more: bool) {
        if self.piece.len() + payload.len() > SMALL_LEN as usize {
            file.refuse_longer();
        }
        if file.request.is_err() {
            self.piece.clear();
        }
        // What nobody stores need not be kept.
        let payload = if file.request.is_ok() { payload } else { Bytes::new() };
        match join(&mut self.piece, payload, more) {
            None => self.file = Some(file),
            Some(content) => {
                let file = SmallFile { content, ..file };
                self.cost += file.cost();
                self.files.push(file);
            }
        }
    }

    /// Takes the files that have come whole.
    pub(super) fn take(&mut self) -> Vec<SmallFile> {
        self.cost = 0;
        std::mem::take(&mut self.files)
    }

    /// Whether the input ended where it may.
    ///
    /// # Errors
    ///
    /// `invalid_argument` with reason `unexpected-channel`, or `message-cut` when it ended within a file;
    /// `resource_exhausted` with reason `message-too-long`.
    pub(super) fn end(self) -> Result<(), Status> {
        match self.failure {
            Some(status) => Err(status),
            None if self.file.is_none() && self.piece.is_empty() => Ok(()),
            None => Err(Status::invalid_argument("message-cut", "input ended within a file")),
        }
    }
}

/// Adds a piece to a message, and returns the whole of it when it was the last; one that came in one piece is not copied.
fn join(message: &mut BytesMut, piece: Bytes, more: bool) -> Option<Bytes> {
    if message.is_empty() && !more {
        return Some(piece);
    }
    message.extend_from_slice(&piece);
    (!more).then(|| std::mem::take(message).freeze())
}
