//! One call on a connection: the frames of its caller, the answers of its handler, and what interrupts both.

use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::{Departure, FilePart, Inbound, Outbound, SourceError, Stream};
use crate::wire::{CHANNEL_MAIN, End, FrameError, FrameHeader, FrameLimits, HEADER_LEN_MAX, Kind};
use crate::{Batch, Data, Status};

/// How many bytes of input are read ahead of a handler, at the least one frame: enough to keep a fast caller busy.
const READ_AHEAD_MAX: usize = 256 << 10;

/// How many bytes of output may wait for a slow caller before the handler has to wait as well.
const WRITE_AHEAD_MAX: usize = 256 << 10;

/// The longest payload of a frame that comes from a file, in bytes: a frame counts only when it is whole, so that this is
/// what a cut costs, and past it longer ones stopped saving time.
const FILE_FRAME_LEN_MAX: u32 = 256 << 10;

/// How many frames without payload a call may have, unless told otherwise: more than any message needs, and soon sent by
/// who wants to keep a server busy with nothing.
pub(super) const EMPTY_FRAMES_MAX_DEFAULT: u32 = 10_000;

/// How many bytes of short frames are handed to a handler at once: it takes them without asking again.
const BATCH_LEN_MAX: usize = 16 << 10;

/// How often a stream is asked whether its other side is gone, while unread input hides the answer.
const HANG_UP_CHECK_PAUSE: Duration = Duration::from_secs(1);

/// What ends a call from the caller's side before its handler returns.
#[derive(Debug)]
pub enum Interrupt {
    /// The caller sent CANCEL.
    Cancelled,
    /// The connection broke, or the caller closed it.
    Vanished(io::Error),
    /// What the handler sends could not be read when its frame was begun already: a [`SourceError`]. The connection is
    /// broken, for the frame can neither be finished nor taken back.
    Source(io::Error),
    /// The caller broke the protocol; nothing that follows on the connection can be read.
    Violation(Violation),
}

/// Where in its life a connection is, as seen by the server; named in violations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No call is open.
    Idle,
    /// A call is open and its caller may send input.
    Input,
    /// A call is open and its caller has sent all input.
    InputEnded,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Idle => "outside a call",
            State::Input => "within a call",
            State::InputEnded => "after the end of input",
        }
    }
}

/// How a caller broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that are no frame, or one that is too long.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A good frame that may not come now, or not from this side.
    #[error("{} not allowed {}", .kind.name(), .state.name())]
    Unexpected {
        /// The kind of the frame.
        kind: Kind,
        /// When it came.
        state: State,
    },
    /// More frames without payload in one call than allowed.
    #[error("too many frames without payload; allowed: {allowed}")]
    TooManyEmpty {
        /// How many there may be.
        allowed: u32,
    },
}

/// What a running call waits for from its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes of output wait for the caller to read.
    pub unwritten_len: usize,
    /// A number that grows while output is taken.
    pub written: u64,
    /// How many bytes of a frame of input have arrived that is not whole, while the server would read more of it; else 0.
    pub partial_len: usize,
    /// The bytes of payload of the frames that were whole.
    pub received: u64,
}

/// The bytes of payload that a call has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// From the caller to the handler, in bytes.
    pub received: u64,
    /// From the handler to the caller, in bytes.
    pub sent: u64,
}

/// A connection's stream, shared by the handler's two halves and the watch; all run in the connection's one task.
pub(crate) struct Exchange(Mutex<Inner>);

pub(super) struct Inner {
    pub(super) io: Box<dyn Stream>,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    /// The longest DATA payload that the caller accepts.
    pub(super) caller_data_len_max: u32,
    pub(super) state: State,
    /// Whether a CANCEL may still belong to the latest call.
    pub(super) cancel_may_come: bool,
    /// What was read ahead of the handler.
    queue: VecDeque<Batch>,
    queue_len: usize,
    /// What the caller did, until the watch reports it.
    interrupt: Option<Interrupt>,
    /// What receiving and sending fail with, once the router has decided.
    stopped: Option<Status>,
    stop_token: Option<CancellationToken>,
    receiver: Option<Waker>,
    sender: Option<Waker>,
    /// Whether the sender waits until everything is written, and not only for room.
    awaits_written: bool,
    head_allowed: bool,
    pub(super) traffic: Traffic,
    pub(super) empty_frames_max: u32,
    /// How many of them the call has had.
    empty_frames: u32,
}

impl Exchange {
    pub(super) fn new(io: Box<dyn Stream>, limits: FrameLimits) -> Arc<Exchange> {
        Arc::new(Exchange(Mutex::new(Inner {
            io,
            inbound: Inbound::new(limits),
            outbound: Outbound::new(),
            caller_data_len_max: crate::wire::DATA_LEN_MAX_LEAST,
            state: State::Idle,
            cancel_may_come: false,
            queue: VecDeque::new(),
            queue_len: 0,
            interrupt: None,
            stopped: None,
            stop_token: None,
            receiver: None,
            sender: None,
            awaits_written: false,
            head_allowed: false,
            traffic: Traffic::default(),
            empty_frames_max: EMPTY_FRAMES_MAX_DEFAULT,
            empty_frames: 0,
        })))
    }

    /// A panicking handler never holds the lock, so a poisoned one is still whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_inner(self) -> Inner {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what has arrived of the input; it is empty at the end of the input.
    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Result<Batch, Status>> {
        self.lock().poll_recv(cx)
    }

    /// Queues a whole batch when the caller takes its frames as they are; false when it does not.
    pub(crate) fn poll_send_batch(&self, cx: &mut Context<'_>, batch: &Batch) -> Poll<Result<bool, Status>> {
        self.lock().poll_send_batch(cx, batch)
    }

    /// Queues as much of `data` as there is room for, and leaves the rest; ready when nothing is left.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, data: &mut Data) -> Poll<Result<(), Status>> {
        self.lock().poll_send(cx, data)
    }

    /// Queues as much of a file's part as there is room for, and leaves the rest; ready when nothing is left.
    pub(crate) fn poll_send_file(&self, cx: &mut Context<'_>, rest: &mut FileRest) -> Poll<Result<(), Status>> {
        self.lock().poll_send_file(cx, rest)
    }

    /// Ready when everything that was sent is written.
    pub(crate) fn poll_written(&self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.lock().poll_written(cx)
    }

    /// Queues the handler's own header.
    pub(crate) fn push_head(&self, payload: Vec<u8>) -> Result<(), Status> {
        self.lock().push_head(payload)
    }

    /// A token that is cancelled when the call is stopped.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        let mut inner = self.lock();
        let stopped = inner.stopped.is_some();
        let token = inner.stop_token.get_or_insert_with(CancellationToken::new).clone();
        if stopped {
            token.cancel();
        }
        token
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Inner {
    /// Makes everything ready for the next call.
    pub(super) fn begin(&mut self) {
        self.state = State::Input;
        self.cancel_may_come = true;
        self.interrupt = None;
        self.stopped = None;
        self.stop_token = None;
        self.head_allowed = true;
        self.traffic = Traffic::default();
        self.empty_frames = 0;
    }

    /// Counts frames without payload.
    #[inline]
    pub(super) fn count_empty(&mut self, count: u32) -> Result<(), Violation> {
        if count > 0 {
            self.empty_frames = self.empty_frames.saturating_add(count);
            let allowed = self.empty_frames_max;
            if self.empty_frames > allowed {
                return Err(Violation::TooManyEmpty { allowed });
            }
        }
        Ok(())
    }

    /// What the caller did and nobody has heard of yet, when the handler returned in the same moment.
    pub(super) fn take_departure(&mut self) -> Option<Departure> {
        match self.interrupt.take()? {
            Interrupt::Cancelled => None,
            Interrupt::Vanished(error) | Interrupt::Source(error) => Some(Departure::Cut(error)),
            Interrupt::Violation(violation) => Some(Departure::Violation(violation)),
        }
    }

    /// Forgets the input that the handler did not receive.
    pub(super) fn forget_queue(&mut self) {
        self.queue.clear();
        self.queue_len = 0;
        self.receiver = None;
        self.sender = None;
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Batch, Status>> {
        loop {
            if let Some(status) = &self.stopped {
                return Poll::Ready(Err(status.clone()));
            }
            let batch = self.next_batch();
            let is_end = self.interrupt.is_none() && self.state == State::InputEnded;
            if is_end || !batch.is_empty() {
                return Poll::Ready(Ok(batch));
            }
            if self.interrupt.is_some() || !self.advance(cx).is_ready() {
                remember(&mut self.receiver, cx);
                return Poll::Pending;
            }
        }
    }

    /// A bounded part of what has arrived: what was read ahead, or else what was not looked at yet.
    fn next_batch(&mut self) -> Batch {
        if let Some(batch) = self.queue.pop_front() {
            self.queue_len -= batch.cost();
            return batch;
        }
        if self.state != State::Input || self.interrupt.is_some() {
            return Batch::default();
        }
        let batch = self.inbound.take_batch(BATCH_LEN_MAX);
        self.traffic.received += batch.payload_len() as u64;
        if let Err(violation) = self.count_empty(batch.empty_count()) {
            self.interrupt = Some(Interrupt::Violation(violation));
            return Batch::default();
        }
        if self.inbound.take_end_of_input() {
            self.state = State::InputEnded;
        }
        batch
    }

    /// Queues more frames of the caller, or reads one more time, or notes an interrupt; pending when none is possible.
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.take_input() {
            Ok(true) => return Poll::Ready(()),
            Ok(false) => {}
            Err(violation) => {
                self.interrupt = Some(Interrupt::Violation(violation));
                return Poll::Ready(());
            }
        }
        match ready!(self.inbound.poll_fill(&mut *self.io, cx)) {
            Ok(0) => self.interrupt = Some(Interrupt::Vanished(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(error) => self.interrupt = Some(Interrupt::Vanished(error)),
        }
        Poll::Ready(())
    }

    /// Takes frames of the present call off the inbound half. Frames of the next call stay where they are.
    fn take_input(&mut self) -> Result<bool, Violation> {
        let header = match self.inbound.peek() {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(false),
            // After the end of input a bad frame belongs to what follows, and this call may still end well.
            Err(_) if self.state == State::InputEnded => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if self.state == State::InputEnded && header.kind != Kind::Cancel {
            return Ok(false);
        }
        if header.kind == Kind::Data {
            return self.take_batch();
        }
        let Some(frame) = self.inbound.take()? else {
            return Ok(false);
        };
        self.accept_input(frame.header.kind)?;
        Ok(true)
    }

    /// Reads data ahead of the handler; false while the next frame is not whole.
    fn take_batch(&mut self) -> Result<bool, Violation> {
        let batch = self.inbound.take_batch(BATCH_LEN_MAX);
        let is_some = !batch.is_empty();
        self.count_empty(batch.empty_count())?;
        if is_some {
            self.traffic.received += batch.payload_len() as u64;
            self.queue_len += batch.cost();
            self.queue.push_back(batch);
        }
        Ok(is_some)
    }

    fn accept_input(&mut self, kind: Kind) -> Result<(), Violation> {
        match kind {
            Kind::EndOfInput => self.state = State::InputEnded,
            Kind::Cancel => {
                self.state = State::InputEnded;
                self.cancel_may_come = false;
                self.interrupt = Some(Interrupt::Cancelled);
            }
            kind => return Err(Violation::Unexpected { kind, state: self.state }),
        }
        Ok(())
    }

    /// Whether the handler has left so much input unread that no more may be taken.
    fn is_full(&self) -> bool {
        match self.state {
            State::InputEnded => self.inbound.len() >= READ_AHEAD_MAX,
            _ => self.queue_len >= READ_AHEAD_MAX,
        }
    }

    #[inline]
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Data) -> Poll<Result<(), Status>> {
        loop {
            ready!(self.poll_room(cx))?;
            if !self.push_data(data) {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_send_batch(&mut self, cx: &mut Context<'_>, batch: &Batch) -> Poll<Result<bool, Status>> {
        ready!(self.poll_room(cx))?;
        let Some(frames) = batch.frames_within(self.caller_data_len_max) else {
            return Poll::Ready(Ok(false));
        };
        self.head_allowed = false;
        self.traffic.sent += batch.payload_len() as u64;
        self.outbound.push_frames(frames);
        Poll::Ready(Ok(true))
    }

    fn poll_send_file(&mut self, cx: &mut Context<'_>, rest: &mut FileRest) -> Poll<Result<(), Status>> {
        while rest.is_due() {
            ready!(self.poll_room(cx))?;
            let len = rest.len.min(self.caller_data_len_max.min(FILE_FRAME_LEN_MAX).into());
            // Once its length is announced, a frame can only be kept or the connection be broken.
            rest.ensure_holds(len)?;
            self.head_allowed = false;
            self.traffic.sent += len;
            let part = FilePart { file: rest.file.clone(), offset: rest.offset, len: len as usize };
            rest.advance(len);
            let header = FrameHeader { more: rest.more || rest.len > 0, ..FrameHeader::new(Kind::Data, len as u32) };
            match len {
                0 => self.outbound.push(header, Bytes::new()),
                _ => self.outbound.push_file(header, part),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if let Some(status) = &self.stopped {
            return Poll::Ready(Err(status.clone()));
        }
        self.flush(cx);
        if self.interrupt.is_none() && self.outbound.is_flushed() {
            return Poll::Ready(Ok(()));
        }
        self.awaits_written = true;
        remember(&mut self.sender, cx);
        Poll::Pending
    }

    /// Waits until there is room for more output.
    #[inline]
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        if let Some(status) = &self.stopped {
            return Poll::Ready(Err(status.clone()));
        }
        if self.outbound.len() >= WRITE_AHEAD_MAX {
            self.flush(cx);
            if self.interrupt.is_some() || self.outbound.len() >= WRITE_AHEAD_MAX {
                self.awaits_written = false;
                remember(&mut self.sender, cx);
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(error)) = self.outbound.poll_flush_to(&mut *self.io, cx) {
            let is_source = SourceError::is_in(&error);
            let interrupt = if is_source { Interrupt::Source(error) } else { Interrupt::Vanished(error) };
            self.interrupt.get_or_insert(interrupt);
        }
    }

    /// Queues as much of `data` as one frame holds; whether something is left.
    #[inline]
    fn push_data(&mut self, data: &mut Data) -> bool {
        self.head_allowed = false;
        let len_max = self.caller_data_len_max as usize;
        let is_long = data.payload.len() > len_max;
        let payload = if is_long { data.payload.split_to(len_max) } else { std::mem::take(&mut data.payload) };
        let payload_len = payload.len() as u32;
        self.traffic.sent += u64::from(payload_len);
        let header = FrameHeader {
            more: data.more || is_long,
            channel: data.channel,
            ..FrameHeader::new(Kind::Data, payload_len)
        };
        self.outbound.push(header, payload);
        is_long
    }

    fn push_head(&mut self, payload: Vec<u8>) -> Result<(), Status> {
        if let Some(status) = &self.stopped {
            return Err(status.clone());
        }
        if !self.head_allowed {
            return Err(Status::internal("head-too-late", "the handler sent its header twice or after data"));
        }
        if payload.len() > HEADER_LEN_MAX as usize {
            return Err(Status::internal("head-too-long", "the handler's header does not fit"));
        }
        self.head_allowed = false;
        self.outbound.push(FrameHeader::new(Kind::Head, payload.len() as u32), payload.into());
        Ok(())
    }

    pub(super) fn push_end(&mut self, end: &End, close: bool) {
        let payload = Bytes::from(end.encode());
        let header = FrameHeader { close, ..FrameHeader::new(Kind::End, payload.len() as u32) };
        self.outbound.push(header, payload);
    }

    /// Keeps output and input moving beside the handler, until the caller interrupts the call.
    fn poll_beside(&mut self, cx: &mut Context<'_>) -> Poll<Interrupt> {
        self.flush(cx);
        let awaited_len = if self.awaits_written { 0 } else { WRITE_AHEAD_MAX - 1 };
        if self.outbound.len() <= awaited_len
            && let Some(sender) = self.sender.take()
        {
            sender.wake();
        }
        while self.interrupt.is_none() && !self.is_full() && self.advance(cx).is_ready() {}
        if let Some(interrupt) = self.interrupt.take() {
            return Poll::Ready(interrupt);
        }
        let has_input = !self.queue.is_empty() || self.state == State::InputEnded;
        if has_input && let Some(receiver) = self.receiver.take() {
            receiver.wake();
        }
        Poll::Pending
    }
}

/// What is left to send of a part of a file.
#[derive(Debug)]
pub(crate) struct FileRest {
    file: Arc<File>,
    offset: u64,
    len: u64,
    more: bool,
    has_begun: bool,
}

impl FileRest {
    pub(crate) fn new(file: Arc<File>, part: Range<u64>, more: bool) -> FileRest {
        let len = part.end.saturating_sub(part.start);
        FileRest { file, offset: part.start, len, more, has_begun: false }
    }

    /// Whether a frame is still to be sent: an empty part is one empty frame when it ends its message.
    fn is_due(&self) -> bool {
        self.len > 0 || !(self.more || self.has_begun)
    }

    fn advance(&mut self, len: u64) {
        self.offset += len;
        self.len -= len;
        self.has_begun = true;
    }

    /// Fails when the file does not hold the next `len` bytes any more.
    fn ensure_holds(&self, len: u64) -> Result<(), Status> {
        match self.file.metadata() {
            Ok(metadata) if metadata.len() >= self.offset.saturating_add(len) => Ok(()),
            Ok(_) => {
                let message = "the file became shorter while it was sent";
                Err(Status::aborted("source-changed", message).with_retry(true))
            }
            Err(error) => Err(Status::internal("io-failed", "cannot read the file").with_detail(error)),
        }
    }
}

/// Stores the waker of `cx`, cheaply when it is already there.
fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// Keeps a connection moving while a handler runs, and stops the call.
///
/// The router polls [`Watch::interrupted`] beside the handler, in the same task and after it.
#[derive(Debug)]
pub struct Watch {
    pub(super) exchange: Arc<Exchange>,
}

impl Watch {
    /// Writes what the handler sends and reads ahead of what it receives, until the caller interrupts the call.
    ///
    /// At most 256 KiB are read ahead, or one frame; past that the caller has to wait, and what it sends (a CANCEL
    /// included) takes effect when the handler has received what came before. A closed stream is noticed within
    /// a second all the same, where the stream can tell.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost when the future is dropped; the next one carries on.
    pub async fn interrupted(&self) -> Interrupt {
        let mut hang_up_check: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            let mut inner = self.exchange.lock();
            if let Poll::Ready(interrupt) = inner.poll_beside(cx) {
                return Poll::Ready(interrupt);
            }
            if !inner.is_full() {
                hang_up_check = None;
                return Poll::Pending;
            }
            let check = hang_up_check.get_or_insert_with(|| Box::pin(sleep(HANG_UP_CHECK_PAUSE)));
            while check.as_mut().poll(cx).is_ready() {
                if inner.io.is_hung_up() {
                    return Poll::Ready(Interrupt::Vanished(io::ErrorKind::ConnectionReset.into()));
                }
                check.as_mut().reset(Instant::now() + HANG_UP_CHECK_PAUSE);
            }
            Poll::Pending
        })
        .await
    }

    /// How far both directions have come.
    pub fn progress(&self) -> Progress {
        let inner = self.exchange.lock();
        let reads = inner.state == State::Input && inner.queue_len < READ_AHEAD_MAX;
        Progress {
            unwritten_len: inner.outbound.len(),
            written: inner.outbound.taken_len(),
            partial_len: if reads { inner.inbound.len() } else { 0 },
            received: inner.traffic.received,
        }
    }

    /// Makes receiving and sending fail with `status` from now on, and tells the handler that the call is cancelled.
    pub fn stop(&self, status: Status) {
        let mut inner = self.exchange.lock();
        inner.stopped = Some(status);
        let token = inner.stop_token.clone();
        let wakers = [inner.receiver.take(), inner.sender.take()];
        drop(inner);
        if let Some(token) = token {
            token.cancel();
        }
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Data {
    /// Data on the main channel that ends its message.
    pub fn main(payload: impl Into<Bytes>) -> Data {
        Data { channel: CHANNEL_MAIN, more: false, payload: payload.into() }
    }
}
