//! A part of a file on its way to a stream.

use std::fs::File;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// How much of a file is read at once for a stream that takes bytes only, in bytes.
const COPY_LEN: usize = 64 << 10;

/// A part of a file that is to be written.
#[derive(Debug, Clone)]
pub struct FilePart {
    /// The file.
    pub file: Arc<File>,
    /// Where the part begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub len: usize,
}

impl FilePart {
    /// Reads the beginning of the part and writes as much of it as `io` takes; returns how many bytes that was.
    ///
    /// The read may wait for a disk, so whoever asks for it had better have the file in memory already.
    ///
    /// # Errors
    ///
    /// Whatever `io` reports, and a [`SourceError`] within the error when the file is the reason.
    pub fn poll_copy<W>(&self, io: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        let mut buf = vec![0; self.len.min(COPY_LEN)];
        match read_at(&self.file, &mut buf, self.offset) {
            Ok(0) => Poll::Ready(Err(SourceError::Cut.into())),
            Ok(read_len) => Pin::new(io).poll_write(cx, &buf[..read_len]),
            Err(error) => Poll::Ready(Err(SourceError::Unreadable(error).into())),
        }
    }
}

/// Why a part of a file could not be sent although it was announced, which leaves its frame cut and the connection broken.
///
/// It travels within an [`io::Error`], for the stream may be the reason as well; [`SourceError::is_in`] tells them apart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The file is shorter than the part.
    #[error("the file became shorter while it was sent")]
    Cut,
    /// The file cannot be read.
    #[error("cannot read the file that is sent: {0}")]
    Unreadable(#[source] io::Error),
}

impl SourceError {
    /// Whether it was the file, and not the stream, that failed with `error`.
    pub fn is_in(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<SourceError>())
    }
}

impl From<SourceError> for io::Error {
    fn from(error: SourceError) -> io::Error {
        io::Error::other(error)
    }
}

#[cfg(unix)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buf, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buf, offset)
}
