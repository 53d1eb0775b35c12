//! One connection: its hello, its calls one after the other, and how long each step may take.

mod asking;
mod stranger;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use plugd_core::transport::{Connection, Departure, GreetError, Stream, Traffic};
use plugd_core::wire::{End, HelloError};
use plugd_core::{CallEnd, Caller, Code, Origin, Status};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{Level, Span, debug, field, info, info_span, warn};

use self::asking::{Recent, Refusal, Traces, Who, ask};
use self::stranger::refusal;
use crate::alarm::Alarm;
use crate::audit::{self, Record};
use crate::config::ServerSettings;
use crate::identity::{Gate, Identity};
use crate::limits::{Pacing, Place, come_back};
use crate::listener::{Arrival, Transport};
use crate::reload::Reloading;
use crate::router::{Halves, Outcome, Passages, Router, Then, violated};
use crate::stopping::{Stage, Stopping, Waiting};

/// How long a refused peer, or one that is told that its connection closes, may take to read that.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the input of a call that has ended may go on before its connection is closed: the caller has been told.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) settings: ServerSettings,
    pub(crate) stopping: Stopping,
    /// How many connections there have been; the next one's number in the log.
    pub(crate) connections: AtomicU64,
    pub(crate) reloading: Reloading,
    pub(crate) gate: Gate,
}

/// Serves one connection from its first byte to its last, as one of `tasks`.
pub(crate) fn serve(tasks: &mut JoinSet<()>, shared: Arc<Shared>, arrival: Arrival, place: Place) {
    let Arrival { caller, is_private, transport } = arrival;
    let connected = Instant::now();
    let who = (caller, Identity::new(is_private));
    match transport {
        Transport::Ready(stream) => tasks.spawn(serve_stream(shared, stream, who, connected, place)),
        transport => tasks.spawn(serve_tls(shared, transport, who, connected, place)),
    };
}

/// Shakes hands within the time that a new connection has, and serves what comes of it.
async fn serve_tls(
    shared: Arc<Shared>,
    transport: Transport,
    who: (Caller, Identity),
    connected: Instant,
    place: Place,
) {
    let (mut caller, identity) = who;
    let allowed = shared.settings.header_timeout;
    let opened = tokio::select! {
        opened = timeout_at(connected + allowed, transport.open()) => opened,
        () = shared.stopping.reached(Stage::Draining) => return,
    };
    let (stream, names) = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => {
            audit::refuse_handshake(&shared.settings.audit, &caller, &error);
            return info!(peer = %caller, %error, "no TLS connection came about");
        }
        Err(_) => {
            return info!(peer = %caller, "TLS handshake not whole within {}", humantime::format_duration(allowed));
        }
    };
    if !names.is_empty() {
        caller.principal = caller.principal.with_certificate_names(names);
    }
    serve_stream(shared, stream, (caller, identity), connected, place).await;
}

fn serve_stream(
    shared: Arc<Shared>,
    stream: Box<dyn Stream>,
    (caller, identity): (Caller, Identity),
    connected: Instant,
    place: Place,
) -> impl Future<Output = ()> + Send {
    // Made here and not within, where its parts would have their places twice in the memory of an idle connection.
    let mut session = Session {
        connection: Connection::new(stream, shared.settings.frame_limits)
            .with_empty_frames_max(shared.settings.limits.empty_frames_max),
        caller,
        identity,
        id: shared.connections.fetch_add(1, Ordering::Relaxed),
        connected,
        calls: 0,
        alarm: Alarm::default(),
        has_last_words: true,
        shared,
        place,
    };
    async move {
        // What is on the heap costs an idle connection nothing.
        if Box::pin(session.greet()).await {
            session.serve_calls().await;
        }
        if session.has_last_words {
            Box::pin(session.close()).await;
        }
    }
}

/// Tells a peer why the server has no room for it.
pub(crate) async fn turn_away(shared: Arc<Shared>, transport: Transport, why: Status, permit: OwnedSemaphorePermit) {
    let Ok(Ok((stream, _))) = timeout(LAST_WORDS_TIMEOUT, transport.open()).await else { return };
    let mut connection = Connection::new(stream, shared.settings.frame_limits);
    connection.say_hello();
    connection.say(&why.into());
    let _ = timeout(LAST_WORDS_TIMEOUT, connection.close()).await;
    drop(permit);
}

struct Session {
    shared: Arc<Shared>,
    connection: Connection,
    caller: Caller,
    identity: Identity,
    id: u64,
    /// The hello and the first opening header together have the header time from here.
    connected: Instant,
    calls: u64,
    alarm: Alarm,
    /// Whether somebody may still be there to hear them; a peer that has gone needs no close of ours.
    has_last_words: bool,
    /// Held until the connection is gone.
    place: Place,
}

/// Why no call follows on a connection.
enum Leave {
    Departed(Departure),
    TooSlow {
        what: &'static str,
        allowed: Duration,
    },
    /// Answers wait that nobody reads.
    Stalled,
    Idle,
    Draining,
}

impl Session {
    /// Reads the hello; afterwards the connection takes calls, or is to be closed.
    async fn greet(&mut self) -> bool {
        let allowed = self.shared.settings.header_timeout;
        let peer = &self.caller;
        let greeted = tokio::select! {
            greeted = timeout_at(self.connected + allowed, self.connection.greet()) => greeted,
            () = self.shared.stopping.reached(Stage::Draining) => {
                self.connection.say_hello();
                self.take_leave(Leave::Draining);
                return false;
            }
        };
        match greeted {
            Ok(Ok(())) => return true,
            Ok(Err(GreetError::Hello(error))) => {
                info!(%peer, %error, "peer refused");
                self.refuse(error);
            }
            Ok(Err(error)) => debug!(%peer, %error, "connection closed before its hello"),
            Err(_) => {
                self.connection.say_hello();
                self.take_leave(Leave::TooSlow { what: "hello", allowed });
            }
        }
        false
    }

    /// Answers a peer in the protocol that it speaks, as far as one line of it goes.
    fn refuse(&mut self, error: HelloError) {
        let reason = match error {
            HelloError::Stranger(knock) => return self.connection.say_raw(&refusal(knock)),
            HelloError::Version { .. } => "unsupported-version",
            _ => "malformed-hello",
        };
        self.connection.say_hello();
        self.say(Status::failed_precondition(reason, error.to_string()).with_origin(Origin::Server));
    }

    async fn serve_calls(&mut self) {
        let shared = self.shared.clone();
        let mut stopping = pin!(shared.stopping.waiting());
        loop {
            let payload = match self.next(stopping.as_mut()).await {
                Ok(payload) => payload,
                Err(leave) => return self.take_leave(leave),
            };
            self.place.identified();
            // What a call needs is on the heap only while calls last.
            match Box::pin(self.serve_burst(payload, stopping.as_mut())).await {
                Ok(Then::Continue) => {}
                Ok(Then::Close) => return,
                Ok(Then::Drop) => return self.has_last_words = false,
                Err(leave) => return self.take_leave(leave),
            }
        }
    }

    /// Serves a call, and those that have arrived behind it.
    async fn serve_burst(&mut self, mut payload: Bytes, mut stopping: Pin<&mut Waiting<'_>>) -> Result<Then, Leave> {
        let shared = self.shared.clone();
        let mut recent = None;
        loop {
            self.calls += 1;
            // Made where it is polled: what is awaited by itself is moved there, for a fiftieth of a short call.
            let then = pin!(self.serve_call(&shared.router, &payload, &mut recent, stopping.as_mut())).await?;
            if then != Then::Continue {
                return Ok(then);
            }
            match self.connection.try_next().map_err(Leave::Departed)? {
                Some(next) => payload = next,
                None => return Ok(then),
            }
        }
    }

    /// Waits for the next opening header.
    async fn next(&mut self, mut stopping: Pin<&mut Waiting<'_>>) -> Result<Bytes, Leave> {
        let settings = &self.shared.settings;
        // Calls that are there already cost no look at the clock.
        let mut waiting_since = None;
        let mut header_since = None;
        let mut unwritten_len = 0;
        poll_fn(|cx| {
            if let Poll::Ready(next) = self.connection.poll_next(cx) {
                return Poll::Ready(next.map_err(Leave::Departed));
            }
            let since = *waiting_since.get_or_insert_with(Instant::now);
            if stopping.as_mut().poll(cx, Stage::Draining).is_ready() {
                return Poll::Ready(Err(Leave::Draining));
            }
            // While answers wait for a slow reader, that is what is waited for; each that it takes is a sign of life.
            let unwritten_before = std::mem::replace(&mut unwritten_len, self.connection.unwritten_len());
            if unwritten_len != unwritten_before {
                waiting_since = None;
            } else if unwritten_len == 0 && header_since.is_none() {
                header_since = match self.calls {
                    0 => Some(self.connected),
                    _ => self.connection.is_mid_frame().then(Instant::now),
                };
            }
            let (due, leave) = match header_since {
                Some(since) => {
                    let allowed = settings.header_timeout;
                    (since + allowed, Leave::TooSlow { what: "opening header", allowed })
                }
                None if unwritten_len > 0 => (since + settings.limits.write_timeout, Leave::Stalled),
                None => (since + settings.idle_timeout, Leave::Idle),
            };
            self.alarm.poll(cx, due).map(|()| Err(leave))
        })
        .await
    }

    /// Says why no call follows, where there is somebody to hear it.
    fn take_leave(&mut self, leave: Leave) {
        let peer = &self.caller;
        let status = match leave {
            Leave::Departed(Departure::Closed) => {
                self.has_last_words = false;
                return debug!(%peer, calls = self.calls, "connection closed");
            }
            Leave::Departed(Departure::Cut(error)) => {
                self.has_last_words = false;
                return debug!(%peer, %error, "connection lost");
            }
            Leave::Departed(Departure::Violation(violation)) => {
                info!(%peer, %violation, "protocol broken");
                violated(violation)
            }
            Leave::TooSlow { what, allowed } => {
                let text = format!("{what} not whole within {}", humantime::format_duration(allowed));
                info!(%peer, "{text}");
                Status::deadline_exceeded("header-timeout", text).with_origin(Origin::Limit).with_retry(true)
            }
            Leave::Stalled => {
                self.has_last_words = false;
                return debug!(%peer, "peer stopped reading");
            }
            Leave::Idle => {
                let allowed = humantime::format_duration(self.shared.settings.idle_timeout);
                let text = format!("no call within {allowed}");
                Status::unavailable("idle-timeout", text).with_origin(Origin::Limit).with_retry(true)
            }
            Leave::Draining => {
                let status = Status::unavailable("draining", "the server is stopping");
                status.with_origin(Origin::Drain).with_retry(true)
            }
        };
        self.say(status);
    }

    fn say(&mut self, status: Status) {
        self.connection.say(&status.into());
    }

    /// Serves one call to its end on both sides.
    async fn serve_call(
        &mut self,
        router: &Router,
        payload: &Bytes,
        recent: &mut Option<Recent>,
        stopping: Pin<&mut Waiting<'_>>,
    ) -> Result<Then, Leave> {
        let started = tracing::enabled!(target: "plugd::call", Level::INFO).then(Instant::now);
        let span = self.span();
        let mut record = Record::begin(&self.shared.settings.audit, &self.caller, (self.id, self.calls));
        let traces = Traces { span: &span, record: record.as_deref_mut() };
        let mut outcome = {
            // Polled where it is made: what goes into a wrapper is moved, for a twentieth of a short call.
            let mut answer = pin!(self.answer(router, payload, recent, stopping, traces));
            poll_fn(|cx| span.in_scope(|| answer.as_mut().poll(cx))).await
        };
        if let Some(record) = record {
            record.end(&self.caller, &outcome.end.status, self.connection.traffic());
        }
        if started.is_some() || outcome.end.status.code() == Code::Internal {
            let elapsed = started.map(|started| started.elapsed());
            span.in_scope(|| log(&outcome.end.status, elapsed, self.connection.traffic()));
        }
        if !outcome.passages.is_empty() {
            self.tell_layers(&mut outcome);
        }
        outcome.hide();
        let (then, is_whole) = self.finish(&outcome)?;
        if !is_whole {
            // Rarely needed, and then on the heap: the future of a call is made anew for each.
            Box::pin(self.skip_input()).await?;
        }
        Ok(then)
    }

    fn tell_layers(&self, outcome: &mut Outcome) {
        let mut end = CallEnd::new(&outcome.end.status, outcome.end.trailer.as_ref());
        Traffic { received: end.received, sent: end.sent } = self.connection.traffic();
        std::mem::take(&mut outcome.passages).end(&end);
    }

    fn span(&self) -> Span {
        info_span!(
            target: "plugd::call",
            "call",
            id = %format_args!("{}.{}", self.id, self.calls),
            peer = field::Empty,
            command = field::Empty,
        )
    }

    async fn answer(
        &mut self,
        router: &Router,
        payload: &Bytes,
        recent: &mut Option<Recent>,
        stopping: Pin<&mut Waiting<'_>>,
        traces: Traces<'_>,
    ) -> Outcome {
        let refused = |connection: &mut Connection, outcome| {
            connection.begin_refused();
            outcome
        };
        let who = Who { caller: &mut self.caller, identity: &mut self.identity, gate: &self.shared.gate };
        let (route, mut ask) = match ask(router, payload, who, recent, traces) {
            Ok(found) => found,
            Err(Refusal { status, then, delay, wait }) => {
                if !delay.is_zero() {
                    sleep(delay).await;
                }
                let trailer = wait.map(come_back);
                let outcome = Outcome { end: End { status, trailer }, then, passages: Passages::default() };
                return refused(&mut self.connection, outcome);
            }
        };
        let passages = match router.admit(route, &mut ask, &self.caller) {
            Ok(passages) => passages,
            Err(outcome) => return refused(&mut self.connection, *outcome),
        };
        let (input, output, watch) = self.connection.begin();
        let pacing = Pacing { limits: &self.shared.settings.limits, alarm: &mut self.alarm };
        let halves = Halves { input, output, watch, pacing };
        pin!(router.run(route, ask, passages, self.caller.clone(), halves, stopping)).await
    }

    /// Whether the call that ends is the connection's last.
    #[inline]
    fn takes_no_more(&self) -> bool {
        self.calls >= self.shared.settings.limits.calls_max.into() || self.shared.stopping.is_at(Stage::Draining)
    }

    /// Tells the caller how its call ended; what comes of the connection, and whether all of the call's input has been skipped.
    fn finish(&mut self, outcome: &Outcome) -> Result<(Then, bool), Leave> {
        let then = match outcome.then {
            Then::Drop => return Ok((Then::Drop, true)),
            Then::Continue if self.takes_no_more() => Then::Close,
            then => then,
        };
        let is_whole = self.connection.finish(&outcome.end, then == Then::Close).map_err(Leave::Departed)?;
        Ok((then, is_whole))
    }

    /// Waits for the end of the input of a call that is over.
    async fn skip_input(&mut self) -> Result<(), Leave> {
        tokio::select! {
            ended = self.connection.input_end() => ended.map_err(Leave::Departed),
            () = self.shared.stopping.reached(Stage::Draining) => Err(Leave::Draining),
            () = sleep(LEFTOVER_TIMEOUT) => {
                Err(Leave::TooSlow { what: "end of input", allowed: LEFTOVER_TIMEOUT })
            }
        }
    }

    /// Lets the peer read what is left for it, as long as it takes some of it now and then and the server waits.
    async fn flush(&mut self) {
        let mut ended = pin!(self.shared.stopping.reached(Stage::Ended));
        let write_timeout = self.shared.settings.limits.write_timeout;
        let mut unwritten_len = self.connection.unwritten_len();
        loop {
            tokio::select! {
                _ = self.connection.flush() => return,
                () = ended.as_mut() => return,
                () = sleep(write_timeout) => {}
            }
            let unwritten_before = std::mem::replace(&mut unwritten_len, self.connection.unwritten_len());
            if unwritten_len == unwritten_before {
                return debug!(peer = %self.caller, "peer stopped reading");
            }
        }
    }

    async fn close(mut self) {
        if self.connection.unwritten_len() > 0 {
            self.flush().await;
        }
        let peer = self.caller;
        match timeout(LAST_WORDS_TIMEOUT, self.connection.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%peer, %error, "connection broke while closing"),
            Err(_) => debug!(%peer, "peer did not close in time"),
        }
    }
}

/// One line a call. What the caller did wrong or gave up is ordinary; what the server did wrong is not. The time is not
/// taken where ordinary calls are not logged.
fn log(status: &Status, elapsed: Option<Duration>, traffic: Traffic) {
    let (code, reason, origin) = (status.code().name(), status.reason(), status.origin().name());
    let Traffic { received, sent } = traffic;
    let duration_ms = elapsed.map(|elapsed| elapsed.as_secs_f64() * 1e3);
    match status.detail() {
        Some(detail) if status.code() == Code::Internal => {
            warn!(target: "plugd::call", code, reason, origin, duration_ms, received, sent, ?detail, "call failed");
        }
        detail => {
            info!(target: "plugd::call", code, reason, origin, duration_ms, received, sent, detail, "call ended");
        }
    }
}
