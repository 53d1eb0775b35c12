//! What a connection runs over.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf, Ready};

use super::FilePart;

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
    /// Whatever the file and the stream report; `UnexpectedEof` when the file is shorter than the part.
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
            let sent = self.try_io(Interest::WRITABLE, || send_file(&*self, part));
            if !would_block(&sent) {
                return Poll::Ready(sent);
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
            let sent = self.try_io(Interest::WRITABLE, || send_file(&*self, part));
            if !would_block(&sent) {
                return Poll::Ready(sent);
            }
        }
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Has the kernel move bytes from its memory of the file into the socket.
#[cfg(target_os = "linux")]
fn send_file(socket: &impl std::os::fd::AsFd, part: &FilePart) -> io::Result<usize> {
    let mut offset = part.offset.try_into().map_err(io::Error::other)?;
    match nix::sys::sendfile::sendfile(socket, &*part.file, Some(&mut offset), part.len)? {
        0 => Err(FilePart::cut()),
        sent => Ok(sent),
    }
}

fn is_read_closed(ready: Option<io::Result<Ready>>) -> bool {
    ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
}
