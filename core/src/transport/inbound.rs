//! The reading half of a framed stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::Batch;
use crate::wire::{FRAME_HEADER_LEN, Frame, FrameError, FrameHeader, FrameLimits, HELLO_LEN, Hello, HelloError, Kind};

/// How much a quiet stream is asked for at once, in bytes: dozens of small calls, and cheap to hold.
const READ_LEN_LEAST: usize = 8 << 10;

/// How much a busy stream is asked for at once, in bytes; past this, larger reads stopped saving time.
const READ_LEN_MAX: usize = 256 << 10;

/// Bytes that have arrived, and the frames in them.
///
/// Memory grows with the bytes that have arrived and never with a length that was merely announced.
#[derive(Debug)]
pub struct Inbound {
    /// What has arrived; frames are cut off it without being copied, and more is read behind it meanwhile.
    arrived: BytesMut,
    limits: FrameLimits,
    read_len: usize,
}

impl Inbound {
    /// An empty half that accepts frames up to `limits`.
    pub fn new(limits: FrameLimits) -> Inbound {
        Inbound { arrived: BytesMut::new(), limits, read_len: READ_LEN_LEAST }
    }

    /// How many bytes have arrived and not been taken.
    pub fn len(&self) -> usize {
        self.arrived.len()
    }

    /// Whether nothing is waiting to be taken.
    pub fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// The hello that tells the other side what this half accepts.
    pub(crate) fn hello(&self) -> Hello {
        Hello { data_len_max: self.limits.data_len_max }
    }

    /// Takes the hello off the front, or returns `None` while it is not whole.
    ///
    /// # Errors
    ///
    /// [`HelloError`] as soon as what has arrived cannot become a hello.
    pub fn take_hello(&mut self) -> Result<Option<Hello>, HelloError> {
        let hello = Hello::decode(&self.arrived)?;
        if hello.is_some() {
            self.arrived.advance(HELLO_LEN);
        }
        Ok(hello)
    }

    /// Reads the header of the next frame and leaves it in place; `None` while it is not whole.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; nothing that follows can be read.
    #[inline]
    pub fn peek(&self) -> Result<Option<FrameHeader>, FrameError> {
        Frame::peek(&self.arrived, self.limits)
    }

    /// Takes the next frame, or returns `None` while it is not whole. Its payload shares this half's memory.
    ///
    /// # Errors
    ///
    /// [`FrameError`]; nothing that follows can be read.
    #[inline]
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(header) = self.peek()? else {
            return Ok(None);
        };
        let end = FRAME_HEADER_LEN + header.payload_len as usize;
        if self.arrived.len() < end {
            return Ok(None);
        }
        let mut payload = self.arrived.split_to(end).freeze();
        payload.advance(FRAME_HEADER_LEN);
        Ok(Some(Frame { header, payload }))
    }

    /// Takes DATA frames that are whole until another kind of frame comes, or a bad one, or `len_max` bytes were taken.
    pub(crate) fn take_batch(&mut self, len_max: usize) -> Batch {
        Batch::cut(&mut self.arrived, self.limits, len_max)
    }

    /// Takes EOI when it is the next frame.
    pub(crate) fn take_end_of_input(&mut self) -> bool {
        let is_next = matches!(self.peek(), Ok(Some(header)) if header.kind == Kind::EndOfInput);
        if is_next {
            self.arrived.advance(FRAME_HEADER_LEN);
        }
        is_next
    }

    /// Reads once from `io`, and returns how many bytes came; 0 is the end of the stream.
    ///
    /// # Errors
    ///
    /// Whatever `io` reports.
    pub fn poll_fill<R>(&mut self, io: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        let wanted = self.missing_len().clamp(self.read_len, READ_LEN_MAX);
        // What is left of the memory is used up first: new memory has to be found, and what has arrived copied into it.
        if self.arrived.capacity() - self.arrived.len() < wanted / 2 {
            self.arrived.reserve(wanted);
        }
        let read = ready!(poll_read_buf(Pin::new(io), cx, &mut self.arrived))?;
        if read >= self.read_len {
            self.read_len = (self.read_len * 2).min(READ_LEN_MAX);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads once from `io`; see [`poll_fill`](Inbound::poll_fill).
    ///
    /// # Errors
    ///
    /// Whatever `io` reports.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost when the future is dropped.
    pub async fn fill<R>(&mut self, io: &mut R) -> io::Result<usize>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        poll_fn(|cx| self.poll_fill(io, cx)).await
    }

    /// How many bytes the frame at the front still lacks; 0 when its header is not there yet.
    fn missing_len(&self) -> usize {
        let header = self.peek().ok().flatten();
        header.map_or(0, |header| (FRAME_HEADER_LEN + header.payload_len as usize).saturating_sub(self.arrived.len()))
    }

    /// Gives the memory back when nothing is waiting, so that an idle connection holds none.
    pub fn release(&mut self) {
        if self.arrived.is_empty() {
            self.arrived = BytesMut::new();
            self.read_len = READ_LEN_LEAST;
        }
    }
}
