//! The reading half of a framed stream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

use crate::Batch;
use crate::batch::take_front;
use crate::wire::{FRAME_HEADER_LEN, Frame, FrameError, FrameHeader, FrameLimits, HELLO_LEN, Hello, HelloError, Kind};

/// How much a quiet stream is asked for at once, in bytes: dozens of small calls, and cheap to hold.
const READ_LEN_LEAST: usize = 8 << 10;

/// How much a busy stream is asked for at once, in bytes; past this, larger reads stopped saving time.
const READ_LEN_MAX: usize = 256 << 10;

/// From this length, in bytes, a frame is long: it is read for itself, without the beginning of the next one, which would
/// have to be moved.
const LONG_LEN_LEAST: usize = 128 << 10;

/// Bytes that have arrived, and the frames in them.
///
/// Memory grows with the bytes that have arrived and never with a length that was merely announced.
#[derive(Debug)]
pub struct Inbound {
    /// What has arrived; frames are cut off it without being copied, and more is read behind it meanwhile.
    arrived: BytesMut,
    limits: FrameLimits,
    read_len: usize,
    /// Where memory is used again.
    lent: Option<Box<Lent>>,
}

impl Inbound {
    /// An empty half that accepts frames up to `limits`.
    pub fn new(limits: FrameLimits) -> Inbound {
        Inbound { arrived: BytesMut::new(), limits, read_len: READ_LEN_LEAST, lent: None }
    }

    /// Uses the memory of long payloads again, once their holders have dropped them, of up to `len_max` bytes. The holders
    /// are not its only owners then, as they are otherwise.
    #[must_use]
    pub fn recycling(self, len_max: usize) -> Inbound {
        Inbound { lent: Some(Box::new(Lent { payloads: VecDeque::new(), len_max })), ..self }
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
        let mut payload = take_front(&mut self.arrived, end);
        payload.advance(FRAME_HEADER_LEN);
        if let Some(lent) = &mut self.lent {
            lent.lend(&payload);
        }
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
        let read = match self.missing() {
            Some((frame_len, missing_len)) if frame_len >= LONG_LEN_LEAST => {
                ready!(self.poll_fill_long(missing_len, io, cx))?
            }
            missing => {
                let missing_len = missing.map_or(0, |(_, missing_len)| missing_len);
                ready!(self.poll_fill_many(missing_len, io, cx))?
            }
        };
        if read >= self.read_len {
            self.read_len = (self.read_len * 2).min(READ_LEN_MAX);
        }
        Poll::Ready(Ok(read))
    }

    /// Reads whatever comes: many short frames.
    fn poll_fill_many<R>(&mut self, missing_len: usize, io: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        let wanted = missing_len.max(self.read_len);
        // What is left of the memory is used up first: new memory has to be found, and what has arrived copied into it.
        if self.arrived.capacity() - self.arrived.len() < wanted / 2 {
            self.renew(wanted);
        }
        poll_read_buf(Pin::new(io), cx, &mut self.arrived)
    }

    /// Reads the rest of a long frame and the header of the next one, so that no long payload is ever moved to make room.
    fn poll_fill_long<R>(&mut self, missing_len: usize, io: &mut R, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        R: AsyncRead + Unpin + ?Sized,
    {
        let wanted = missing_len.min(READ_LEN_MAX) + FRAME_HEADER_LEN;
        if self.arrived.capacity() - self.arrived.len() < wanted {
            self.renew(wanted);
        }
        let mut rest = (&mut self.arrived).limit(wanted);
        poll_read_buf(Pin::new(io), cx, &mut rest)
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

    /// How long the frame at the front is, and how many of its bytes are missing; none while its header is.
    fn missing(&self) -> Option<(usize, usize)> {
        let frame_len = FRAME_HEADER_LEN + self.peek().ok().flatten()?.payload_len as usize;
        Some((frame_len, frame_len.saturating_sub(self.arrived.len())))
    }

    /// Makes room for `len` bytes behind what has arrived, in memory that was lent and came back where there is some.
    fn renew(&mut self, len: usize) {
        if let Some(mut memory) = self.lent.as_mut().and_then(|lent| lent.take_back()) {
            memory.clear();
            memory.reserve(self.arrived.len() + len);
            memory.extend_from_slice(&self.arrived);
            self.arrived = memory;
        } else {
            self.arrived.reserve(len);
        }
    }

    /// Gives the memory back when nothing is waiting, so that an idle connection holds none.
    pub fn release(&mut self) {
        if self.arrived.is_empty() {
            self.arrived = BytesMut::new();
            if let Some(lent) = &mut self.lent {
                lent.payloads.clear();
            }
            self.read_len = READ_LEN_LEAST;
        }
    }
}

/// The latest long payloads, whose holders may have dropped them by now.
#[derive(Debug)]
struct Lent {
    payloads: VecDeque<Bytes>,
    /// How many bytes of them are kept.
    len_max: usize,
}

impl Lent {
    /// Remembers the memory of a payload that is handed out, if it is long.
    fn lend(&mut self, payload: &Bytes) {
        if payload.len() < LONG_LEN_LEAST {
            return;
        }
        self.payloads.push_back(payload.clone());
        while self.payloads.iter().map(Bytes::len).sum::<usize>() > self.len_max {
            self.payloads.pop_front();
        }
    }

    /// Memory that nobody else holds any more.
    fn take_back(&mut self) -> Option<BytesMut> {
        let index = self.payloads.iter().position(Bytes::is_unique)?;
        self.payloads.remove(index)?.try_into_mut().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::DATA_LEN_MAX_DEFAULT;

    const LEN: usize = 200 << 10;

    /// Frames of `lens` payload bytes, one behind the other.
    fn frames(lens: &[usize]) -> Vec<u8> {
        let frame = |(fill, &len): (u8, &usize)| {
            [&FrameHeader::new(Kind::Data, len as u32).encode()[..], &vec![fill; len]].concat()
        };
        (0u8..).zip(lens).flat_map(frame).collect()
    }

    async fn next(inbound: &mut Inbound, io: &mut &[u8]) -> Bytes {
        loop {
            if let Some(frame) = inbound.take().expect("good frames") {
                return frame.payload;
            }
            assert_ne!(inbound.fill(io).await.expect("bytes"), 0, "the frame is whole");
        }
    }

    #[tokio::test]
    async fn frames_of_all_lengths_come_whole_with_and_without_recycling() {
        let lens = [10, LEN, LEN, 0, DATA_LEN_MAX_DEFAULT as usize, 5, LONG_LEN_LEAST, LEN, 1, LEN, LEN];
        let bytes = frames(&lens);
        for recycled_len_max in [0, LEN, 4 * LEN] {
            let mut inbound = Inbound::new(FrameLimits::default()).recycling(recycled_len_max);
            let mut io = &bytes[..];
            for (fill, len) in (0u8..).zip(lens) {
                assert!(next(&mut inbound, &mut io).await == vec![fill; len], "frame {fill} of {len}");
            }
            assert!(inbound.is_empty());
        }
    }

    #[tokio::test]
    async fn memory_that_is_given_back_is_used_again_and_what_is_held_is_left_alone() {
        let bytes = frames(&[LEN; 12]);
        let (mut inbound, mut io) = (Inbound::new(FrameLimits::default()).recycling(4 * LEN), &bytes[..]);
        let held = next(&mut inbound, &mut io).await;
        let mut places = std::collections::BTreeSet::new();
        for fill in 1..12 {
            let payload = next(&mut inbound, &mut io).await;
            assert!(payload == vec![fill; LEN]);
            places.insert(payload.as_ptr());
        }
        assert!(held == vec![0; LEN]);
        assert!(places.len() <= 4, "{} places for 11 payloads, one at a time", places.len());
    }

    #[tokio::test]
    async fn without_recycling_a_payload_is_its_holders_alone() {
        let bytes = frames(&[LEN; 2]);
        let (mut inbound, mut io) = (Inbound::new(FrameLimits::default()), &bytes[..]);
        next(&mut inbound, &mut io).await;
        assert!(next(&mut inbound, &mut io).await.is_unique());
    }
}
