//! What a connection runs over.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf, Ready};

use super::FilePart;
#[cfg(target_os = "linux")]
use {super::SourceError, nix::errno::Errno};

/// A byte stream that can carry a connection.
///
/// Any stream will do: `impl Stream for MyStream {}` is enough, and [`Plain`] wraps one of another crate.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether the other side has closed or reset the stream, although bytes that it sent before may still be unread.
    ///
    /// Asked about once a second while a handler leaves its input unread, since the end of the stream then hides
    /// behind that input. A stream that cannot tell says no; its caller is then missed only when it is written to.
    fn is_hung_up(&self) -> bool {
        false
    }

    /// Writes the beginning of a part of a file, and returns how many bytes the stream took.
    ///
    /// Unless a stream knows better, the bytes are read and written; sockets on Linux take them from where they lie.
    ///
    /// # Errors
    ///
    /// Whatever the stream reports, and a [source error](super::SourceError) within the error when the file is the reason.
    fn poll_send_file(&mut self, cx: &mut Context<'_>, part: &FilePart) -> Poll<io::Result<usize>> {
        part.poll_copy(self, cx)
    }
}

impl Stream for DuplexStream {}

/// Makes a [`Stream`] of any other type that reads and writes bytes, also of one from another crate.
#[derive(Debug)]
pub struct Plain<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for Plain<S> {}

impl<S: AsyncRead + Unpin> AsyncRead for Plain<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Plain<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

impl Stream for tokio::net::TcpStream {
    fn is_hung_up(&self) -> bool {
        is_read_closed(self.ready(Interest::READABLE).now_or_never())
    }

    #[cfg(target_os = "linux")]
    fn poll_send_file(&mut self, cx: &mut Context<'_>, part: &FilePart) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_io(Interest::WRITABLE, || send_file(&*self, part)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_beyond_send_file(&error) => return part.poll_copy(self, cx),
                sent => return Poll::Ready(sent),
            }
        }
    }
}

#[cfg(unix)]
impl Stream for tokio::net::UnixStream {
    fn is_hung_up(&self) -> bool {
        is_read_closed(self.ready(Interest::READABLE).now_or_never())
    }

    #[cfg(target_os = "linux")]
    fn poll_send_file(&mut self, cx: &mut Context<'_>, part: &FilePart) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_io(Interest::WRITABLE, || send_file(&*self, part)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_beyond_send_file(&error) => return part.poll_copy(self, cx),
                sent => return Poll::Ready(sent),
            }
        }
    }
}

/// Has the kernel move bytes from its memory of the file into the socket.
#[cfg(target_os = "linux")]
fn send_file(socket: &impl std::os::fd::AsFd, part: &FilePart) -> io::Result<usize> {
    let mut offset = part.offset.try_into().map_err(io::Error::other)?;
    loop {
        match nix::sys::sendfile::sendfile(socket, &*part.file, Some(&mut offset), part.len) {
            Ok(0) => return Err(SourceError::Cut.into()),
            Ok(sent) => return Ok(sent),
            Err(Errno::EINTR) => {}
            // A socket has no such failures; a disk does.
            Err(errno @ (Errno::EIO | Errno::ENODATA | Errno::ESTALE)) => {
                return Err(SourceError::Unreadable(errno.into()).into());
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Whether the file is of a kind that the kernel does not move by itself (sendfile(2)); it can still be read.
#[cfg(target_os = "linux")]
fn is_beyond_send_file(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP))
}

fn is_read_closed(ready: Option<io::Result<Ready>>) -> bool {
    ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
}
