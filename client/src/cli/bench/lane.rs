//! One connection: as many requests in flight as may be, and each answer judged where it arrived.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{timeout, timeout_at};

use super::answers::{Answers, Closing};
use super::flight::Flight;
use super::load::Load;
use super::pace::{Pace, Quota};
use super::socket::Socket;
use super::stall::Stall;
use super::tally::Trouble;

/// What decides when a request begins.
#[derive(Debug)]
pub(crate) enum Source<'l> {
    /// There is room for one more in flight, and some are left to make.
    Quota(&'l Quota),
    /// One is due.
    Pace(Pace),
    /// Whoever uses the lane, one at a time.
    Caller,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Lane<'l> {
    load: &'l Load,
    socket: Socket,
    answers: Answers,
    source: Source<'l>,
    /// The most requests in flight.
    pipeline: u64,
    /// When no more requests are begun.
    end: Option<Instant>,
    /// The time, as it was read last: once for all that one look at the socket brings.
    now: Instant,
    flight: Flight,
    /// How many requests were begun.
    begun: u64,
    /// Bytes of begun requests that are not written, and where in a request they go on.
    unwritten_len: usize,
    position: usize,
    /// Nothing can be written any more; what can be read may say why.
    is_broken: bool,
    stall: Stall,
}

impl<'l> Lane<'l> {
    /// The lane on a connection on which nothing is in flight.
    pub(crate) fn new(load: &'l Load, socket: Socket, source: Source<'l>) -> Lane<'l> {
        Lane {
            socket,
            answers: load.work().answers(),
            source,
            pipeline: load.pipeline(),
            end: load.end(),
            now: Instant::now(),
            flight: Flight::default(),
            begun: 0,
            unwritten_len: 0,
            position: 0,
            is_broken: false,
            stall: Stall::new(load.patience(), load.end()),
            load,
        }
    }

    /// Makes one request whose latency counts from `due`, and waits for its answer.
    pub(crate) async fn make_one(&mut self, due: Instant) -> Result<(), Trouble> {
        self.now = Instant::now();
        self.stall.moved(self.now);
        self.push(due, 1);
        self.run().await
    }

    /// Makes requests until there are no more to make, and waits for all answers.
    pub(crate) async fn run(&mut self) -> Result<(), Trouble> {
        let outcome = poll_fn(|cx| self.poll_requests(cx)).await;
        if self.is_over() {
            self.drop_unwritten();
        }
        outcome?;
        if self.load.work().closing.is_empty() { Ok(()) } else { self.close().await }
    }

    /// Waits, without a request, until `end` or until the server closes; whether it is still open then.
    pub(crate) async fn hold(&mut self, end: Instant) -> Result<bool, Trouble> {
        let closed = async {
            while self.answers.closing().is_none() {
                poll_fn(|cx| self.poll_answers(cx)).await?;
            }
            Ok(())
        };
        match timeout_at(end.into(), closed).await {
            Ok(closed) => closed.and_then(|()| self.check_open()).map(|()| false),
            Err(_) => Ok(true),
        }
    }

    /// How many requests were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun
    }

    /// How many requests were begun and not answered.
    pub(crate) fn in_flight(&self) -> u64 {
        self.answers.awaited()
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        if self.unwritten_len > 0 || matches!(self.source, Source::Pace(_)) {
            // It may be something else than an answer that wakes us.
            self.now = Instant::now();
        }
        loop {
            let may_follow = self.begin(cx)?;
            if self.in_flight() == 0 && !may_follow {
                return Poll::Ready(Ok(()));
            }
            // Long requests and answers would fill both directions at once, so that answers are read while writing waits.
            self.poll_write(cx);
            if self.in_flight() == 0 {
                // Only the pace wakes us.
                self.stall.moved(self.now);
                return Poll::Pending;
            }
            if self.poll_answers(cx)?.is_pending() {
                return self.poll_stall(cx);
            }
            self.check_answered()?;
        }
    }

    /// Begins as many requests as may be; false when none will follow.
    fn begin(&mut self, cx: &mut Context<'_>) -> Result<bool, Trouble> {
        if self.is_over() {
            self.drop_unwritten();
            return Ok(false);
        }
        if self.answers.closing().is_some() {
            return if self.has_more() { self.check_open().map(|()| false) } else { Ok(false) };
        }
        match &self.source {
            Source::Caller => Ok(false),
            Source::Pace(_) => self.begin_due(cx),
            Source::Quota(quota) => {
                let room = self.pipeline - self.in_flight();
                let count = quota.take(room);
                self.push(self.now, count);
                Ok(count == room)
            }
        }
    }

    fn begin_due(&mut self, cx: &mut Context<'_>) -> Result<bool, Trouble> {
        while let Source::Pace(pace) = &mut self.source
            && let Some(due) = pace.due()
        {
            if self.answers.awaited() == self.pipeline {
                return Ok(true);
            }
            match pace.poll_until(due, cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(outcome) => outcome.map_err(|error| Trouble::lost(&error))?,
            }
            pace.advance();
            self.push(due, 1);
        }
        Ok(false)
    }

    fn push(&mut self, due: Instant, count: u64) {
        if count > 0 {
            self.flight.begin(due, self.now, count);
            self.begun += count;
            self.answers.await_more(count);
            self.unwritten_len += count as usize * self.load.work().request_len;
        }
    }

    /// Whether the time is over in which requests are begun; what the caller begins is the caller's to know.
    fn is_over(&self) -> bool {
        !matches!(self.source, Source::Caller) && self.end.is_some_and(|end| self.now >= end)
    }

    /// Whether there are requests left to make.
    fn has_more(&self) -> bool {
        match &self.source {
            Source::Caller => false,
            Source::Pace(pace) => pace.due().is_some(),
            Source::Quota(quota) => !quota.is_empty(),
        }
    }

    /// Forgets the requests of which not a byte was written.
    fn drop_unwritten(&mut self) {
        let request_len = self.load.work().request_len;
        // A peer may have answered even those.
        let count = self.in_flight().min((self.unwritten_len / request_len) as u64);
        self.unwritten_len %= request_len;
        self.begun -= count;
        self.answers.await_fewer(count);
        self.flight.forget(count);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) {
        let work = self.load.work();
        while self.unwritten_len > 0 && !self.is_broken {
            let rest = &work.requests[self.position..];
            let rest = &rest[..rest.len().min(self.unwritten_len)];
            match Pin::new(&mut self.socket).poll_write(cx, rest) {
                Poll::Pending => return,
                // The server's last words may still be there to be read; if not, reading says that it is gone.
                Poll::Ready(Err(_)) => self.is_broken = true,
                Poll::Ready(Ok(written)) => {
                    self.unwritten_len -= written;
                    self.position = (self.position + written) % work.request_len;
                    self.stall.moved(self.now);
                    self.load.lock().tally.sent_len += written as u64;
                }
            }
        }
        // TLS holds back what the socket did not take; where that fails, reading tells.
        let _ = Pin::new(&mut self.socket).poll_flush(cx);
    }

    /// Reads once, and judges the answers that this completes.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        let state = &mut *self.load.lock();
        let mut buf = ReadBuf::new(&mut state.buf);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buf)).map_err(|error| Trouble::lost(&error))?;
        let read_len = buf.filled().len();
        if read_len == 0 {
            return Poll::Ready(Err(Trouble::closed()));
        }
        let tally = &mut state.tally;
        let awaited = self.answers.awaited();
        let taken = self.answers.take(&state.buf[..read_len], |verdict| tally.judge(verdict));
        tally.received_len += read_len as u64;
        self.now = Instant::now();
        self.stall.moved(self.now);
        let now = self.now;
        self.flight.answer(awaited - self.answers.awaited(), |due, count| tally.took(now - due, count));
        Poll::Ready(taken.map_err(|error| Trouble::protocol(&error)))
    }

    /// Finds out whether there can be more answers.
    fn check_answered(&mut self) -> Result<(), Trouble> {
        if let Some(status) = self.answers.ended() {
            return Err(if status.is_ok() { Trouble::early_end() } else { Trouble::of_status(&status) });
        }
        if self.answers.closing().is_some() {
            return if self.in_flight() > 0 { Err(Trouble::closed()) } else { Ok(()) };
        }
        let work = self.load.work();
        let answered_len = self.unwritten_len.saturating_sub(self.in_flight() as usize * work.request_len);
        if answered_len > work.unread_len_max { Err(Trouble::early_answer()) } else { Ok(()) }
    }

    /// Fails where the server has closed the connection and that was not counted.
    fn check_open(&self) -> Result<(), Trouble> {
        match self.answers.closing() {
            Some(Closing::Untold(trouble)) => Err(trouble.clone()),
            Some(Closing::Told) | None => Ok(()),
        }
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Trouble>> {
        let oldest = self.flight.oldest().unwrap_or(self.now);
        self.stall.poll(oldest, cx).map(Err)
    }

    /// Ends the one call whose messages were the requests.
    async fn close(&mut self) -> Result<(), Trouble> {
        let patience = self.load.patience();
        let ended = async {
            // Where this fails, reading tells why.
            let _ = self.socket.write_all(&self.load.work().closing).await;
            let _ = self.socket.flush().await;
            loop {
                match self.answers.ended() {
                    Some(status) if status.is_ok() => return Ok(()),
                    Some(status) => return Err(Trouble::of_status(&status)),
                    None => poll_fn(|cx| self.poll_answers(cx)).await?,
                }
            }
        };
        let late = Err(Trouble::Stalled(patience.quiet));
        timeout(patience.quiet + patience.slack, ended).await.unwrap_or(late)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use plugd_core::wire::{FrameHeader, Kind};
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::time::sleep;
    use tokio_util::either::Either;

    use super::*;
    use crate::cli::bench::gate::Gate;
    use crate::cli::bench::load::Plan;
    use crate::cli::bench::socket::Target;
    use crate::cli::bench::stall::Patience;
    use crate::cli::bench::work::{Mode, Work};

    const LONG: usize = 8 << 20;

    fn load(patience: Patience) -> Load {
        let plan = Plan {
            gate: Gate::new(Target::Unix("none".into())),
            work: Work::new(Mode::Calls, b"{}", &[b'x'; LONG], None, 1),
            connections: 1,
            pipeline: 1,
            rate: None,
            duration: None,
            requests: Some(1),
            quota: Quota::new(1),
            patience,
            threads: 1,
        };
        Load::new(Arc::new(plan), Instant::now())
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_is_not_stalled() {
        let quiet = Duration::from_millis(500);
        let load = load(Patience { quiet, whole: Duration::from_secs(60), slack: Duration::ZERO });
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut left = load.work().request_len;
        let peer = tokio::spawn(async move {
            let mut buf = vec![0; 64 << 10];
            while left > 0 {
                // All of it takes three times as long as a peer may be silent.
                sleep(Duration::from_millis(12)).await;
                left -= theirs.read(&mut buf).await.expect("an open connection");
            }
            theirs.write_all(&FrameHeader::new(Kind::End, 0).encode()).await.expect("an open connection");
            theirs
        });
        let quota = Quota::new(1);
        let mut lane = Lane::new(&load, Either::Right(Either::Left(ours)), Source::Quota(&quota));
        assert_eq!((lane.run().await, lane.begun(), lane.in_flight()), (Ok(()), 1, 0));
        peer.await.expect("no panic");
    }
}
