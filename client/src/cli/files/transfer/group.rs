//! Gathers small files that go to one directory, to travel in one call.

use bytes::Bytes;

use super::put::PutJob;
use super::read::Feed;
use crate::cli::files::facts::Facts;

/// Files up to this size, in bytes, go with others: what a server takes in such a call.
pub(crate) const GROUPED_SIZE_MAX: u64 = 64 << 10;

/// How many files go together: past that, what they have in common costs next to nothing.
const FILES_MAX: usize = 64;

/// How many bytes go together; one file more still fits. A cut may cost so much.
const CONTENT_LEN_MAX: usize = 192 << 10;

/// A whole file.
#[derive(Debug)]
pub(crate) struct Small {
    pub(crate) job: PutJob,
    pub(crate) facts: Facts,
    pub(crate) content: Bytes,
    pub(crate) digest: Option<String>,
}

impl Small {
    /// The path of the directory that it goes to.
    fn parent(&self) -> &[u8] {
        let path = self.job.remote.as_bytes();
        &path[..path.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]
    }
}

/// Small files of one directory. Each holds that directory open, here, and lets the server find it once.
#[derive(Debug, Default)]
pub(crate) struct Group {
    files: Vec<Small>,
    content_len: usize,
}

impl Group {
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.files.len() >= FILES_MAX || self.content_len >= CONTENT_LEN_MAX
    }

    /// Whether a file may go with those that are there.
    pub(crate) fn takes(&self, small: &Small) -> bool {
        !self.is_full() && self.files.last().is_none_or(|last| last.parent() == small.parent())
    }

    pub(crate) fn push(&mut self, small: Small) {
        self.content_len += small.content.len();
        self.files.push(small);
    }

    /// What the lane gets of it; a single file goes by itself.
    pub(crate) fn into_feed(mut self) -> Option<Feed> {
        match self.files.len() {
            0 | 1 => self.files.pop().map(Feed::Small),
            _ => Some(Feed::Group(self.files)),
        }
    }
}
