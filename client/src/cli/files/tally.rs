//! What became of each file of a command.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::{Value, json};

use super::name::Name;
use super::options::Durability;
use super::progress::Progress;
use crate::Reply;
use crate::cli::answer::Answer;
use crate::cli::failure::Failure;

/// How many failures an answer names; all of them are counted, and told on stderr as they come.
const FAILURES_MAX: usize = 1000;

/// How a transfer ended well.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Receipt {
    /// What it is called here, or there for a put.
    pub(crate) name: Name,
    /// The size of the whole file, in bytes.
    pub(crate) size: u64,
    /// How many bytes of payload the last call moved.
    pub(crate) bytes: u64,
    /// How many bytes were there from an earlier try.
    pub(crate) resumed_from: u64,
    /// `ALGORITHM:HEX`; absent when none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// Whether both sides have compared it.
    pub(crate) verified: bool,
    /// What has reached the disk.
    pub(crate) durable: Durability,
    /// Whether the file was written; not when it had the content already.
    pub(crate) published: bool,
    /// Whether the file had the content already.
    pub(crate) unchanged: bool,
}

/// What became of the files of a command. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    verb: &'static str,
    progress: Progress,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    files: u64,
    bytes: u64,
    unchanged: u64,
    skipped: u64,
    deleted: u64,
    failed: u64,
    failures: Vec<(Name, String)>,
    first: Option<Failure>,
    last: Option<(Receipt, Reply)>,
}

impl Tally {
    /// `verb` is the word for what happened to a file, such as `got`.
    pub(crate) fn new(verb: &'static str, progress: Progress) -> Tally {
        Tally { verb, progress, counts: Arc::default() }
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) fn done(&self, receipt: Receipt, reply: Reply) {
        self.progress.event(|| with_event("done", json!(receipt)));
        if receipt.unchanged {
            self.progress.pass(receipt.size);
        }
        let mut counts = self.counts();
        counts.files += 1;
        counts.bytes += receipt.bytes;
        counts.unchanged += u64::from(receipt.unchanged);
        counts.last = Some((receipt, reply));
    }

    /// `many`: the command goes on with others, so that this one is told at once.
    pub(crate) fn failed(&self, name: &Name, failure: Failure, many: bool) {
        let line = failure.line().unwrap_or_default();
        if many {
            self.progress.line(&format!("plug: {name}: {line}"));
        }
        self.progress.event(|| json!({"event": "failed", "name": name, "failure": line}));
        let mut counts = self.counts();
        counts.failed += 1;
        if counts.failures.len() < FAILURES_MAX {
            counts.failures.push((name.clone(), line));
        }
        counts.first.get_or_insert(failure);
    }

    pub(crate) fn skipped(&self, name: &Name, why: &str) {
        self.progress.line(&format!("plug: {name}: skipped: {why}"));
        self.progress.event(|| json!({"event": "skipped", "name": name, "why": why}));
        self.counts().skipped += 1;
    }

    /// A file that is alike on both sides at a glance.
    pub(crate) fn unchanged(&self) {
        let mut counts = self.counts();
        counts.files += 1;
        counts.unchanged += 1;
    }

    pub(crate) fn deleted(&self, name: &Name) {
        self.progress.event(|| json!({"event": "deleted", "name": name}));
        self.counts().deleted += 1;
    }

    /// How many files have come through.
    pub(crate) fn files(&self) -> u64 {
        self.counts().files
    }

    pub(crate) fn has_failures(&self) -> bool {
        self.counts().failed > 0
    }

    /// What a command has to say that moved one file.
    pub(crate) fn of_one(&self) -> Result<Answer, Failure> {
        let mut counts = self.counts();
        if let Some(failure) = counts.first.take() {
            return Err(failure);
        }
        let Some((receipt, reply)) = counts.last.take() else {
            return Ok(Answer::default());
        };
        let note = self.progress.note(receipt.line(self.verb));
        let data = json!(receipt);
        Ok(Answer { note, ..Answer::of_json(reply, data, String::new()) })
    }

    /// What a command has to say that moved several files.
    pub(crate) fn of_many(&self) -> Result<Answer, Failure> {
        let mut counts = self.counts();
        let Counts { files, bytes, unchanged, skipped, deleted, failed, .. } = *counts;
        let mut note = format!("{} {files} files, {bytes} bytes", self.verb);
        for (count, word) in [(unchanged, "unchanged"), (deleted, "deleted"), (skipped, "skipped"), (failed, "failed")]
        {
            if count > 0 {
                note.push_str(&format!(", {count} {word}"));
            }
        }
        let failure = |(name, line): &(Name, String)| json!({"name": name, "failure": line});
        let failures: Vec<Value> = counts.failures.iter().map(failure).collect();
        let data = json!({
            "files": files, "bytes": bytes, "unchanged": unchanged, "deleted": deleted, "skipped": skipped,
            "failed": failed, "failures": failures,
        });
        match counts.first.take() {
            Some(first) => Err(Failure::Several { first: Box::new(first), data, line: note }),
            None => {
                Ok(Answer { note: self.progress.note(note), ..Answer::of_json(Reply::default(), data, String::new()) })
            }
        }
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn with_event(event: &str, mut object: Value) -> Value {
    object["event"] = event.into();
    object
}

impl Receipt {
    fn line(&self, verb: &str) -> String {
        let Receipt { name, size, resumed_from, unchanged, .. } = self;
        if *unchanged {
            return format!("{name} is unchanged, {size} bytes");
        }
        let digest =
            self.digest.as_deref().map_or(String::new(), |digest| format!(", {}", digest.replacen(':', " ", 1)));
        let resumed = if *resumed_from > 0 { format!(", resumed from {resumed_from}") } else { String::new() };
        format!("{verb} {name}, {size} bytes{digest}{resumed}")
    }
}
