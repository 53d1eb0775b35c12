//! Sends a file: its facts first, then its bytes, then the receipt.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use plugd_core::{Call, Output, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::blocking::{blocking, stop_of, while_called};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::entry::Time;
use crate::path_text::PathText;
use crate::source::{HASH_STEP_LEN, Source};
use crate::version::Version;
use crate::{SMALL_LEN, Shared};

/// How far the digest may be computed ahead of what was sent, in bytes: further, a slow caller would have the disk read
/// everything twice.
const HASH_LEAD_MAX: u64 = 8 << 20;

/// Up to this length, in bytes, a file is read and summed up between the frames of other connections: tens of
/// microseconds.
const AT_ONCE_LEN_MAX: u64 = 16 << 10;

/// How many bytes are brought into memory ahead of what is sent.
const PART_LEN: u64 = 1 << 20;

/// The arguments of `get`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetArgs {
    /// The file, relative to the plugin's root.
    path: PathText,
    /// The digest of the whole file that comes with it: md5 unless told otherwise.
    #[serde(default)]
    #[schemars(with = "Algorithm")]
    algorithm: Option<Algorithm>,
    /// How many bytes to leave out at the beginning.
    #[serde(default)]
    offset: u64,
    /// How many bytes to send at most; a part of a file comes without a digest.
    #[serde(default)]
    length: Option<u64>,
    /// Refuse unless the file is this version: an etag, or a digest.
    #[serde(default)]
    if_match: Option<String>,
    /// Send nothing when the file is this version: an etag, or a digest.
    #[serde(default)]
    if_none_match: Option<String>,
}

#[derive(Debug, Serialize)]
struct Head {
    size: u64,
    mtime_s: i64,
    mtime_ns: u32,
    mode: u32,
    etag: String,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unchanged: bool,
}

#[derive(Debug, Serialize)]
struct Receipt {
    bytes: u64,
    size: u64,
    resumed_from: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    etag: String,
}

/// Sends the file as one message; an empty file is no message at all.
pub(crate) async fn get(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let GetArgs { path, algorithm, offset, length, if_match, if_none_match } = call.args()?;
    let algorithm = shared.settings.algorithm(algorithm)?;
    let algorithm = if length.is_some() { Algorithm::None } else { algorithm };
    let if_match = shared.settings.version(if_match)?;
    let if_none_match = shared.settings.version(if_none_match)?;
    let asked = Asked { path, algorithm, offset, length };
    let found = match Found::at_once(shared, &asked) {
        Some(found) => found,
        None => {
            let shared = Arc::clone(shared);
            blocking(move || Found::open(&shared, &asked)).await?
        }
    };
    let source = &found.source;
    if !is_version(shared, call, source, if_match).await?.unwrap_or(true) {
        return Err(source.changed());
    }
    let unchanged = is_version(shared, call, source, if_none_match).await?.unwrap_or(false);
    call.head(&found.head(offset, unchanged))?;
    let digest = match unchanged {
        true => found.digest,
        false => send(shared, call, &found, algorithm).await?,
    };
    let range = found.range.clone();
    let bytes = if unchanged { 0 } else { range.end - range.start };
    let (size, etag) = (source.meta().size(), source.meta().identity.etag());
    call.set_trailer(&Receipt { bytes, size, resumed_from: offset, digest, etag })
}

async fn is_version(
    shared: &Arc<Shared>,
    call: &mut Call,
    source: &Arc<Source>,
    version: Option<Version>,
) -> Result<Option<bool>, Status> {
    match version {
        Some(version) => while_called(call, source.is(shared, &version)).await.map(Some),
        None => Ok(None),
    }
}

/// What is to be sent.
#[derive(Debug)]
struct Asked {
    path: PathText,
    algorithm: Algorithm,
    offset: u64,
    length: Option<u64>,
}

/// A file that is about to be sent.
#[derive(Debug)]
struct Found {
    source: Arc<Source>,
    /// What is to be sent of it.
    range: Range<u64>,
    /// All of that already, when the file is small.
    content: Option<Bytes>,
    /// The digest, when it is known already.
    digest: Option<Digest>,
}

impl Found {
    /// Opens and reads a tiny file whose name and content the system has in its memory; nothing when it has not, or when
    /// anything is unusual. It never waits, so many such files are sent together and without a change of threads.
    fn at_once(shared: &Shared, asked: &Asked) -> Option<Found> {
        let path = asked.path.as_path();
        let source = Source::settled(path, shared.root.open_cached_file(path)?)?;
        if source.meta().size() > AT_ONCE_LEN_MAX {
            return None;
        }
        let found = Found::of(shared, asked, source).ok()?;
        let content = found.source.read_cached(0..found.source.meta().size())?;
        found.holding(shared, asked, content).ok()
    }

    /// Opens the file. A small one is read as well, so that all of it costs one change of threads.
    fn open(shared: &Shared, asked: &Asked) -> Result<Found, Status> {
        let path = asked.path.as_path();
        let found = Found::of(shared, asked, Source::new(path, shared.root.open_file(path)?)?)?;
        let size = found.source.meta().size();
        if size > SMALL_LEN {
            return Ok(found);
        }
        let content = found.source.read(0..size)?;
        found.holding(shared, asked, content)
    }

    fn of(shared: &Shared, asked: &Asked, source: Arc<Source>) -> Result<Found, Status> {
        let (size, offset) = (source.meta().size(), asked.offset);
        if offset > size {
            let message = format!("offset {offset} lies beyond the file; allowed: up to {size}");
            return Err(Status::out_of_range("bad-offset", message));
        }
        let range = offset..asked.length.map_or(size, |length| offset.saturating_add(length).min(size));
        let digest = shared.digests.find(&source.meta().identity, asked.algorithm);
        Ok(Found { source, range, content: None, digest })
    }

    /// Takes over the content of the whole file, as it was read a moment ago.
    fn holding(mut self, shared: &Shared, asked: &Asked, content: Vec<u8>) -> Result<Found, Status> {
        let (source, content) = (&self.source, Bytes::from(content));
        source.ensure_unchanged()?;
        if self.digest.is_none() {
            let mut hasher = Hasher::new(asked.algorithm);
            hasher.update(&content);
            self.digest = hasher.finish();
            self.digest.inspect(|digest| shared.digests.remember(&source.meta().identity, *digest));
        }
        self.content = Some(content.slice(self.range.start as usize..self.range.end as usize));
        Ok(self)
    }

    fn head(&self, offset: u64, unchanged: bool) -> Head {
        let meta = self.source.meta();
        let Time { s: mtime_s, ns: mtime_ns } = meta.identity.mtime;
        Head {
            size: meta.size(),
            mtime_s,
            mtime_ns,
            mode: meta.mode,
            etag: meta.identity.etag(),
            offset,
            digest: self.digest,
            unchanged,
        }
    }
}

/// Sends what is to be sent, and returns the digest of the whole file, which is computed meanwhile unless it is known.
async fn send(
    shared: &Arc<Shared>,
    call: &mut Call,
    found: &Found,
    algorithm: Algorithm,
) -> Result<Option<Digest>, Status> {
    if let Some(content) = &found.content {
        if !content.is_empty() {
            call.send(content.clone()).await?;
        }
        return Ok(found.digest);
    }
    let source = &found.source;
    let hasher = Hasher::new(if found.digest.is_some() { Algorithm::None } else { algorithm });
    let cancelled = call.cancelled();
    let (input, output) = call.split();
    let (progress, sent) = watch::channel(found.range.start);
    let moved = async {
        tokio::try_join!(send_range(output, source, found.range.clone(), &progress), hash_beside(source, hasher, sent))
    };
    let ((), computed) = tokio::select! {
        biased;
        moved = moved => moved?,
        () = cancelled => return Err(stop_of(input).await),
    };
    let source = Arc::clone(source);
    blocking(move || source.ensure_unchanged()).await?;
    computed.inspect(|digest| shared.digests.remember(&found.source.meta().identity, *digest));
    Ok(computed.or(found.digest))
}

/// Sends a range of the file as one message: the one place that knows how bytes get from a file to a caller. They go from
/// where they lie, so the next part is brought into memory while one is sent. It tells `progress` up to where it has sent.
async fn send_range(
    output: &mut Output,
    source: &Arc<Source>,
    range: Range<u64>,
    progress: &watch::Sender<u64>,
) -> Result<(), Status> {
    let part_at = |start: u64| start..range.end.min(start.saturating_add(PART_LEN));
    let mut part = part_at(range.start);
    source.warm(part.clone()).await?;
    while !part.is_empty() {
        let next = part_at(part.end);
        let more = !next.is_empty();
        tokio::try_join!(output.send_file(source.file(), part.clone(), more), source.warm(next.clone()))?;
        progress.send_replace(part.end);
        part = next;
    }
    // Up to here the file is read, and a change would be sent.
    output.written().await
}

/// Computes the digest of the whole file, from its beginning whatever is sent of it, beside the sending and not far ahead.
async fn hash_beside(
    source: &Arc<Source>,
    mut hasher: Hasher,
    mut sent: watch::Receiver<u64>,
) -> Result<Option<Digest>, Status> {
    let size = source.meta().size();
    let mut position = 0;
    while position < size && !hasher.is_none() {
        // It fails when the sending is over, and then nothing is to be waited for.
        let _ = sent.wait_for(|sent| position <= sent + HASH_LEAD_MAX).await;
        let range = position..size.min(position + HASH_STEP_LEN);
        position = range.end;
        let source = Arc::clone(source);
        hasher = blocking(move || {
            source.hash(range, &mut hasher)?;
            Ok(hasher)
        })
        .await?;
    }
    Ok(hasher.finish())
}
