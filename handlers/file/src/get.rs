//! Sends a file: its facts and its MD5 first, then its bytes.

use std::io::{Read, Seek};

use bytes::Bytes;
use cap_std::fs::File;
use md5::{Digest, Md5};
use plugd_core::{Call, Data, Status};
use serde::Serialize;

use crate::entry::mtime_ms;
use crate::root::blocking;
use crate::{PathArgs, Root, refusal};

/// How many bytes of a file are in memory at once.
const CHUNK_LEN: usize = 256 << 10;

#[derive(Debug, Serialize)]
struct Head {
    size: u64,
    mtime_ms: i64,
    md5: String,
}

/// Sends the file as one message; an empty file is no message at all.
pub(crate) async fn get(root: &Root, call: &mut Call) -> Result<(), Status> {
    let PathArgs { path } = call.args()?;
    let (root, cancelled) = (root.clone(), call.cancelled());
    let source = blocking(move || Source::open(&root, path)).await?;
    let (size, mtime_ms) = (source.left, source.mtime_ms);
    let (mut source, md5) = tokio::select! {
        biased;
        hashed = source.hashed() => hashed?,
        // Receiving fails with the status that the call ends with.
        () = cancelled => return call.recv().await.map(drop),
    };
    call.head(&Head { size, mtime_ms, md5 })?;
    let (_, output) = call.split();
    while source.left > 0 {
        let payload;
        (source, payload) = source.chunk().await?;
        output.send_data(Data { more: source.left > 0, ..Data::main(payload) }).await?;
    }
    Ok(())
}

/// An open file, of which exactly the bytes that it had at the beginning are read.
#[derive(Debug)]
struct Source {
    path: String,
    file: File,
    mtime_ms: i64,
    size: u64,
    left: u64,
}

impl Source {
    fn open(root: &Root, path: String) -> Result<Source, Status> {
        let (file, metadata) = root.open_file(&path)?;
        let size = metadata.len();
        Ok(Source { path, file, mtime_ms: mtime_ms(&metadata), size, left: size })
    }

    /// Reads all of it once, chunk by chunk so that it can be cancelled in between, and returns to the beginning.
    async fn hashed(mut self) -> Result<(Source, String), Status> {
        let mut md5 = Md5::new();
        while self.left > 0 {
            (self, md5) = blocking(move || {
                md5.update(self.read_chunk()?);
                Ok((self, md5))
            })
            .await?;
        }
        let source = blocking(move || {
            self.file.rewind().map_err(|error| refusal::of(&self.path, error))?;
            self.left = self.size;
            Ok(self)
        });
        Ok((source.await?, hex(&md5.finalize())))
    }

    async fn chunk(mut self) -> Result<(Source, Bytes), Status> {
        blocking(move || {
            let chunk = self.read_chunk()?;
            Ok((self, chunk))
        })
        .await
    }

    fn read_chunk(&mut self) -> Result<Bytes, Status> {
        let chunk_len = self.left.min(CHUNK_LEN as u64);
        let mut chunk = Vec::with_capacity(chunk_len as usize);
        let read = (&mut self.file).take(chunk_len).read_to_end(&mut chunk);
        let read_len = read.map_err(|error| self.changed().with_detail(error))? as u64;
        if read_len < chunk_len {
            return Err(self.changed());
        }
        self.left -= chunk_len;
        Ok(chunk.into())
    }

    fn changed(&self) -> Status {
        let message = format!("{:?} became shorter or unreadable while it was sent", self.path);
        Status::aborted("source-changed", message).with_retry(true)
    }
}

/// Writes a digest in lower-case hexadecimal digits.
pub(crate) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
