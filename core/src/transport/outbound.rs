//! The writing half of a framed stream.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::{FilePart, Stream};
use crate::wire::{FRAME_HEADER_LEN, FrameHeader};

/// Payloads up to this length are copied behind their header, in bytes; longer ones are sent from where they lie.
const COPY_LEN_MAX: usize = 2 << 10;

/// How much room is made at once for headers and short payloads, in bytes.
const COPIED_LEN_LEAST: usize = 2 << 10;

/// How many written bytes are kept before what is left is moved to the front: moving is rare, and less than writing was.
const WRITTEN_LEN_MAX: usize = 64 << 10;

/// How many pieces one system call writes at the most.
const SLICES_MAX: usize = 64;

/// A payload that is sent from where it lies.
#[derive(Debug)]
enum Long {
    Memory(Bytes),
    File(FilePart),
}

impl Long {
    fn len(&self) -> usize {
        match self {
            Long::Memory(bytes) => bytes.len(),
            Long::File(part) => part.len,
        }
    }

    fn advance(&mut self, len: usize) {
        match self {
            Long::Memory(bytes) => bytes.advance(len),
            Long::File(part) => {
                part.offset += len as u64;
                part.len -= len;
            }
        }
    }
}

/// Frames on their way out: many leave in one system call.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Headers and short payloads, one behind the other.
    copied: Vec<u8>,
    /// How many bytes of `copied` have been written.
    written: usize,
    /// Long payloads, each with the length of `copied` that goes ahead of it.
    long: VecDeque<(usize, Long)>,
    long_len: usize,
    /// Whether `io` may still hold back what it has taken.
    is_unflushed: bool,
    /// How many bytes `io` has taken since memory was last given back.
    taken_len: u64,
}

impl Outbound {
    /// An empty half.
    pub fn new() -> Outbound {
        Outbound::default()
    }

    /// How many bytes wait to be written.
    #[inline]
    pub fn len(&self) -> usize {
        self.long_len + self.copied.len() - self.written
    }

    /// Whether nothing waits to be written; what was written may still wait to be flushed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether everything has been written and flushed.
    #[inline]
    pub fn is_flushed(&self) -> bool {
        self.is_empty() && !self.is_unflushed
    }

    /// A number that grows while output is taken.
    pub(crate) fn taken_len(&self) -> u64 {
        self.taken_len
    }

    /// Queues bytes that are no frame: a hello, or a refusal in the other side's own protocol.
    pub fn push_raw(&mut self, bytes: &[u8]) {
        self.copied.extend_from_slice(bytes);
    }

    /// Queues one frame; `header.payload_len` is the length of `payload`. A long payload is not copied.
    #[inline]
    pub fn push(&mut self, header: FrameHeader, payload: Bytes) {
        debug_assert_eq!(header.payload_len as usize, payload.len(), "the header announces its payload");
        if payload.len() <= COPY_LEN_MAX {
            self.reserve(FRAME_HEADER_LEN + payload.len());
            self.copied.extend_from_slice(&header.encode());
            self.copied.extend_from_slice(&payload);
        } else {
            self.copied.extend_from_slice(&header.encode());
            self.long_len += payload.len();
            self.long.push_back((self.copied.len(), Long::Memory(payload)));
        }
    }

    /// Queues one frame whose payload is a part of a file, not empty, which must be as long until it is written.
    pub(crate) fn push_file(&mut self, header: FrameHeader, part: FilePart) {
        debug_assert!(part.len > 0 && part.len == header.payload_len as usize, "the header announces its payload");
        self.copied.extend_from_slice(&header.encode());
        self.long_len += part.len;
        self.long.push_back((self.copied.len(), Long::File(part)));
    }

    /// Queues whole frames. Many of them are not copied.
    pub(crate) fn push_frames(&mut self, frames: &Bytes) {
        if frames.len() <= COPY_LEN_MAX {
            self.reserve(frames.len());
            self.copied.extend_from_slice(frames);
        } else {
            self.long_len += frames.len();
            self.long.push_back((self.copied.len(), Long::Memory(frames.clone())));
        }
    }

    /// Makes room, at first for dozens of small answers, so that they do not make it grow one by one.
    #[inline]
    fn reserve(&mut self, len: usize) {
        if self.copied.capacity() - self.copied.len() < len {
            self.copied.reserve(len.max(COPIED_LEN_LEAST));
        }
    }

    /// Writes until nothing waits any more. Parts of files are read and written; to a [`Stream`] they go by
    /// [`poll_flush_to`](Outbound::poll_flush_to).
    ///
    /// # Errors
    ///
    /// Whatever `io` reports; `WriteZero` when it takes nothing.
    pub fn poll_flush<W>(&mut self, io: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        self.poll_flush_by(io, cx, FilePart::poll_copy)
    }

    /// Writes until nothing waits any more, parts of files in the way that the stream knows best.
    ///
    /// # Errors
    ///
    /// As [`poll_flush`](Outbound::poll_flush), and a [`SourceError`](super::SourceError) within the error when a file
    /// cannot be read as it was announced.
    pub fn poll_flush_to(&mut self, io: &mut dyn Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_by(io, cx, |part, io, cx| io.poll_send_file(cx, part))
    }

    fn poll_flush_by<W>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
        mut send_file: impl FnMut(&FilePart, &mut W, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        if self.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        self.is_unflushed = true;
        while !self.is_empty() {
            let written = match self.next_file() {
                Some(part) => ready!(send_file(part, io, cx))?,
                None => ready!(self.poll_write(io, cx))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        self.copied.clear();
        self.written = 0;
        ready!(Pin::new(io).poll_flush(cx))?;
        self.is_unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// The part of a file that is to be written next.
    fn next_file(&self) -> Option<&FilePart> {
        match self.long.front()? {
            (ahead, Long::File(part)) if *ahead == self.written => Some(part),
            _ => None,
        }
    }

    /// Writes what comes before the next part of a file.
    fn poll_write<W>(&self, io: &mut W, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        let io = Pin::new(io);
        if self.long.is_empty() {
            return io.poll_write(cx, &self.copied[self.written..]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let mut copied = self.written;
        for (end, payload) in self.long.iter().take(SLICES_MAX / 2) {
            slices[count] = IoSlice::new(&self.copied[copied..*end]);
            count += 1;
            let Long::Memory(bytes) = payload else {
                return io.poll_write_vectored(cx, &slices[..count]);
            };
            slices[count] = IoSlice::new(bytes);
            count += 1;
            copied = *end;
        }
        if count < SLICES_MAX {
            slices[count] = IoSlice::new(&self.copied[copied..]);
            count += 1;
        }
        io.poll_write_vectored(cx, &slices[..count])
    }

    fn advance(&mut self, mut written: usize) {
        self.taken_len += written as u64;
        while let Some((end, payload)) = self.long.front_mut() {
            let ahead = (*end - self.written).min(written);
            self.written += ahead;
            written -= ahead;
            let part = payload.len().min(written);
            if self.written < *end || part < payload.len() {
                payload.advance(part);
                self.long_len -= part;
                break;
            }
            self.long_len -= part;
            written -= part;
            self.long.pop_front();
        }
        if self.long.is_empty() {
            self.written += written;
        }
        if self.written >= WRITTEN_LEN_MAX {
            self.compact();
        }
    }

    /// Forgets what has been written: a reader that never lets the queue run empty must not make it grow.
    fn compact(&mut self) {
        self.copied.drain(..self.written);
        for (end, _) in &mut self.long {
            *end -= self.written;
        }
        self.written = 0;
    }

    /// Gives the memory back when nothing waits, so that an idle connection holds none.
    pub fn release(&mut self) {
        if self.is_flushed() {
            *self = Outbound::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::wire::{Frame, FrameLimits, Kind};

    #[tokio::test]
    async fn a_reader_that_never_lets_the_queue_run_empty_does_not_make_it_grow() {
        let (mut near, mut far) = tokio::io::duplex(4 << 10);
        let mut outbound = Outbound::new();
        let mut read = vec![0; 2 << 10];
        for _ in 0..10_000 {
            while outbound.len() < 256 << 10 {
                outbound.push(FrameHeader::new(Kind::Data, 1 << 10), vec![7; 1 << 10].into());
                outbound.push(FrameHeader::new(Kind::Data, 4 << 10), vec![7; 4 << 10].into());
            }
            let flushed = std::future::poll_fn(|cx| Poll::Ready(outbound.poll_flush(&mut near, cx))).await;
            assert!(flushed.is_pending());
            far.read_exact(&mut read).await.expect("an open pipe");
        }
        let held = outbound.copied.capacity();
        assert!(held < 1 << 20, "{held} bytes held");
    }

    /// Holds back what it takes until it is flushed, as TLS does, and its first flush has to wait.
    #[derive(Default)]
    struct Holding {
        held: Vec<u8>,
        flushed: Vec<u8>,
        flushes: usize,
    }

    impl AsyncWrite for Holding {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            if self.flushes == 1 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.flushed.extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_flush_that_had_to_wait_is_carried_on() {
        let (mut io, mut outbound) = (Holding::default(), Outbound::new());
        outbound.push(FrameHeader::new(Kind::Data, 3), Bytes::from_static(b"abc"));
        std::future::poll_fn(|cx| outbound.poll_flush(&mut io, cx)).await.expect("a stream that takes everything");
        assert!(outbound.is_flushed());
        assert_eq!(io.flushed.len(), FRAME_HEADER_LEN + 3);
    }

    /// The ways into the queue.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Way {
        Frame,
        Frames,
        File,
    }

    fn payload(fill: u8, len: usize) -> Bytes {
        vec![fill; len].into()
    }

    fn push(outbound: &mut Outbound, way: Way, fill: u8, len: usize) {
        let header = FrameHeader::new(Kind::Data, len as u32);
        match way {
            Way::Frames => outbound.push_frames(&[&header.encode()[..], &payload(fill, len)].concat().into()),
            Way::File if len > 0 => {
                let mut file = tempfile::tempfile().expect("a temporary file");
                std::io::Write::write_all(&mut file, &[b"ahead", &payload(fill, len)[..]].concat()).expect("room");
                outbound.push_file(header, FilePart { file: file.into(), offset: 5, len });
            }
            _ => outbound.push(header, payload(fill, len)),
        }
    }

    proptest! {
        #[test]
        fn frames_leave_whole_and_in_order_through_a_pipe_of_any_width(
            frames in proptest::collection::vec(
                (proptest::sample::select(vec![Way::Frame, Way::Frames, Way::File]), 0usize..6000), 0..12
            ),
            pipe_len in 1usize..9000
        ) {
            let arrived = tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
                let (mut near, mut far) = tokio::io::duplex(pipe_len);
                let mut outbound = Outbound::new();
                for (fill, (way, len)) in (0u8..).zip(&frames) {
                    push(&mut outbound, *way, fill, *len);
                }
                let write = async move {
                    std::future::poll_fn(|cx| outbound.poll_flush(&mut near, cx)).await.expect("an open pipe");
                    assert!(outbound.is_empty());
                };
                let mut bytes = Vec::new();
                let (_, read) = futures_util::future::join(write, far.read_to_end(&mut bytes)).await;
                read.expect("an open pipe");
                bytes
            });
            let mut buf = Bytes::from(arrived);
            for (fill, (_, len)) in (0u8..).zip(&frames) {
                let frame = Frame { header: FrameHeader::new(Kind::Data, *len as u32), payload: payload(fill, *len) };
                prop_assert_eq!(Frame::take(&mut buf, FrameLimits::default()), Ok(Some(frame)));
            }
            prop_assert!(buf.is_empty());
        }
    }
}
