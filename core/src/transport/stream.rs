//! What a connection runs over.

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest};

/// A byte stream that can carry a connection.
///
/// Any stream will do: `impl Stream for MyStream {}` is enough.
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

impl Stream for tokio::net::TcpStream {
    fn is_hung_up(&self) -> bool {
        self.ready(Interest::READABLE)
            .now_or_never()
            .is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }
}

#[cfg(unix)]
impl Stream for tokio::net::UnixStream {
    fn is_hung_up(&self) -> bool {
        self.ready(Interest::READABLE)
            .now_or_never()
            .is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }
}
