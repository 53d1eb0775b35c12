//! One connection that is kept: as many requests in flight as may be, and each answer judged where it arrived.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep, timeout_at};

use super::answers::Answers;
use super::load::Load;
use super::pace::Pace;
use super::socket::Socket;
use super::tally::Trouble;

/// One connection, whose hello was exchanged.
#[derive(Debug)]
pub(crate) struct Lane<'l> {
    load: &'l Load,
    socket: Socket,
    answers: Answers,
    pace: Option<Pace>,
    /// The most requests in flight.
    pipeline: u64,
    /// No request is begun from here on.
    end: Option<Instant>,
    /// The time, as it was read last: once for all that one look at the socket brings.
    now: Instant,
    /// When the requests in flight were begun, in their order, and how many at each time.
    begun: VecDeque<(Instant, u64)>,
    in_flight: u64,
    /// Bytes of begun requests that are not written, and where in a request they go on.
    unwritten_len: usize,
    position: usize,
    stall: Stall,
}

/// Tells when nothing has come for too long, by a timer that is moved only when it fires.
#[derive(Debug)]
struct Stall {
    patience: Duration,
    since: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<'l> Lane<'l> {
    pub(crate) fn new(load: &'l Load, socket: Socket, pace: Option<Pace>, pipeline: u64) -> Lane<'l> {
        let now = Instant::now();
        Lane {
            socket,
            answers: load.work.answers(),
            pace,
            pipeline,
            end: load.end(),
            now,
            begun: VecDeque::new(),
            in_flight: 0,
            unwritten_len: 0,
            position: 0,
            stall: Stall { patience: load.patience, since: now, timer: Box::pin(sleep(load.patience)) },
            load,
        }
    }

    /// Begins one request, as of `begun`, which no other follows.
    pub(crate) fn begin_one(&mut self, begun: Instant) {
        self.end = Some(begun);
        self.now = Instant::now();
        self.push(begun, 1);
    }

    /// Makes requests until there are no more to make, and waits for all answers.
    pub(crate) async fn run(&mut self) -> Result<(), Trouble> {
        let outcome = poll_fn(|cx| self.poll_requests(cx)).await;
        if let (Some(pace), Some(end)) = (&mut self.pace, self.end) {
            self.load.lock().tally.unsent += pace.skip_until(end.min(Instant::now()));
        }
        outcome?;
        if self.load.work.closing.is_empty() { Ok(()) } else { self.close().await }
    }

    /// Waits, without a request, until `end` or until the server closes; whether it is still open then.
    pub(crate) async fn hold(&mut self, end: Instant) -> Result<bool, Trouble> {
        let idle = poll_fn(|cx| self.poll_answers(cx));
        timeout_at(end.into(), idle).await.unwrap_or(Ok(())).map(|()| !self.answers.is_closed())
    }

    /// How many requests were begun and not answered.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        loop {
            let may_follow = self.begin(cx)?;
            if self.in_flight == 0 && !may_follow {
                return Poll::Ready(Ok(()));
            }
            // Long requests and answers would fill both directions at once, so that answers are read while writing waits.
            let _ = self.poll_write(cx)?;
            if self.in_flight == 0 {
                // Only the pace wakes us.
                self.stall.since = self.now;
                return Poll::Pending;
            }
            if self.poll_answers(cx)?.is_pending() {
                return self.stall.poll(cx);
            }
            if let Some(status) = self.answers.ended() {
                return Poll::Ready(Err(Trouble::of_status(&status)));
            }
            if self.answers.is_closed() && self.in_flight > 0 {
                return Poll::Ready(Err(Trouble::closed()));
            }
        }
    }

    /// Begins as many requests as may be; false when none will follow.
    fn begin(&mut self, cx: &mut Context<'_>) -> Result<bool, Trouble> {
        if self.answers.is_closed() {
            return Ok(false);
        }
        if self.pace.is_some() {
            return self.begin_due(cx);
        }
        let room = self.pipeline - self.in_flight;
        if self.end.is_some_and(|end| self.now >= end) {
            return Ok(false);
        }
        let count = self.load.quota.take(room);
        self.push(self.now, count);
        Ok(count == room)
    }

    fn begin_due(&mut self, cx: &mut Context<'_>) -> Result<bool, Trouble> {
        while let Some(pace) = &mut self.pace {
            let due = pace.due();
            if self.end.is_some_and(|end| due.max(self.now) >= end) {
                return Ok(false);
            }
            if self.in_flight == self.pipeline {
                return Ok(true);
            }
            match pace.poll_due(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(outcome) => outcome.map_err(|error| Trouble::lost(&error))?,
            }
            if self.load.quota.take(1) == 0 {
                return Ok(false);
            }
            pace.advance();
            self.push(due, 1);
        }
        Ok(false)
    }

    fn push(&mut self, begun: Instant, count: u64) {
        if count > 0 {
            self.begun.push_back((begun, count));
            self.in_flight += count;
            self.unwritten_len += count as usize * self.load.work.request_len;
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Trouble> {
        let work = &self.load.work;
        while self.unwritten_len > 0 {
            let rest = &work.requests[self.position..];
            let rest = &rest[..rest.len().min(self.unwritten_len)];
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Err(error)) => return Err(Trouble::lost(&error)),
                Poll::Ready(Ok(written)) => {
                    self.unwritten_len -= written;
                    self.position = (self.position + written) % work.request_len;
                    self.load.lock().tally.sent_len += written as u64;
                }
            }
        }
        Ok(Poll::Ready(()))
    }

    /// Reads once, and judges the answers that this completes.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        let answers = &mut self.answers;
        let state = &mut *self.load.lock();
        let mut buf = ReadBuf::new(&mut state.buf);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf)).map_err(|error| Trouble::lost(&error))?;
        let read_len = buf.filled().len();
        if read_len == 0 {
            return Poll::Ready(Err(Trouble::closed()));
        }
        let tally = &mut state.tally;
        let mut answered = 0;
        let taken = answers.take(&state.buf[..read_len], |verdict| {
            answered += 1;
            tally.judge(verdict);
        });
        tally.received_len += read_len as u64;
        self.now = Instant::now();
        self.stall.since = self.now;
        // A server that closes says why in an answer of its own.
        if answered > self.in_flight && !answers.is_closed() {
            return Poll::Ready(Err(Trouble::Protocol("more answers than requests".to_owned())));
        }
        answered = answered.min(self.in_flight);
        self.in_flight -= answered;
        while let Some((begun, count)) = self.begun.front_mut().filter(|_| answered > 0) {
            let done = answered.min(*count);
            tally.took(self.now - *begun, done);
            answered -= done;
            *count -= done;
            if *count == 0 {
                self.begun.pop_front();
            }
        }
        Poll::Ready(taken.map_err(|error| Trouble::Protocol(error.to_string())))
    }

    /// Ends the one call whose messages were the requests.
    async fn close(&mut self) -> Result<(), Trouble> {
        let closing = &self.load.work.closing;
        self.socket.write_all(closing).await.map_err(|error| Trouble::lost(&error))?;
        loop {
            match self.answers.ended() {
                Some(status) if status.is_ok() => return Ok(()),
                Some(status) => return Err(Trouble::of_status(&status)),
                None => {}
            }
            poll_fn(|cx| match self.poll_answers(cx) {
                Poll::Pending => self.stall.poll(cx),
                ready => ready,
            })
            .await?;
        }
    }
}

impl Stall {
    /// Fails once nothing has come for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let due = self.since + self.patience;
            if Instant::now() >= due {
                return Poll::Ready(Err(Trouble::Stalled(self.patience)));
            }
            self.timer.as_mut().reset(due.into());
        }
    }
}
