//! What a connection runs over.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf, Ready};

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
}

#[cfg(unix)]
impl Stream for tokio::net::UnixStream {
    fn is_hung_up(&self) -> bool {
        is_read_closed(self.ready(Interest::READABLE).now_or_never())
    }
}

fn is_read_closed(ready: Option<io::Result<Ready>>) -> bool {
    ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
}
