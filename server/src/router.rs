//! Takes a call to its handler, and turns whatever comes of it into the one end of that call.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::FutureExt;
use plugd_core::transport::{Interrupt, Violation, Watch};
use plugd_core::wire::{End, FrameError, Open};
use plugd_core::{Call, CallEnd, CallFacts, Caller, Code, Input, Origin, Output, Passage, Refusal, Request, Status};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::{Pace, Pacing, Slow};
use crate::plugin::{Plugins, Route};
use crate::stopping::{Stage, Waiting};

/// Finds plugins and runs their handlers.
pub(crate) struct Router {
    plugins: ArcSwap<Plugins>,
    /// Counts how often the plugins were replaced, so that who remembers a route can tell whether it holds.
    generation: AtomicU64,
    grace: Duration,
}

/// What becomes of the connection after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It takes the next call.
    Continue,
    /// The end is still written, and no call follows.
    Close,
    /// The caller is gone; there is nobody to write to.
    Drop,
}

/// How a call came out.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    pub(crate) then: Then,
    /// The layers that wait for the end.
    pub(crate) passages: Passages,
}

impl Outcome {
    /// Makes it what the caller is told: who may not call something hears the same as if it were not there. What was so in
    /// truth, the log has by then.
    pub(crate) fn hide(&mut self) {
        let status = &mut self.end.status;
        if status.origin() == Origin::Access && status.code() == Code::NotFound {
            *status = std::mem::replace(status, Status::ok()).with_origin(Origin::Server);
        }
    }
}

/// Both directions of a call, what keeps them moving, and how slowly they may.
pub(crate) struct Halves<'c> {
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) watch: Watch,
    pub(crate) pacing: Pacing<'c>,
}

/// What ends a call before its handler does, beside its caller.
struct Until<'c, 's> {
    deadline: Option<Instant>,
    /// How long the call may take: the deadline in words.
    limit: Option<Duration>,
    pacing: Pacing<'c>,
    stopping: Pin<&'c mut Waiting<'s>>,
}

/// Why a handler stopped running, or was stopped.
enum Stop {
    Returned(Result<(), Status>),
    Panicked(Box<dyn Any + Send>),
    Interrupted(Interrupt),
    Slow(Slow),
    Deadline,
    Drain,
}

impl Stop {
    fn of(ended: Result<Result<(), Status>, Box<dyn Any + Send>>) -> Stop {
        match ended {
            Ok(result) => Stop::Returned(result),
            Err(panic) => Stop::Panicked(panic),
        }
    }
}

/// What a call asks for beside its command.
#[derive(Default)]
pub(crate) struct Ask {
    args: Option<Box<RawValue>>,
    metadata: BTreeMap<String, String>,
    deadline: Option<Duration>,
}

impl Ask {
    /// What an opening header says, without its command.
    pub(crate) fn of(open: Open<'_>) -> Ask {
        let Open { args, deadline_ms, metadata, .. } = open;
        Ask { args, metadata, deadline: deadline_ms.map(Duration::from_millis) }
    }

    /// Whether there is nothing beside the command.
    pub(crate) fn is_bare(&self) -> bool {
        self.args.is_none() && self.metadata.is_empty() && self.deadline.is_none()
    }
}

impl Router {
    pub(crate) fn new(plugins: Plugins, grace: Duration) -> Router {
        Router { plugins: ArcSwap::from_pointee(plugins), generation: AtomicU64::new(0), grace }
    }

    /// The plugins that calls find now.
    pub(crate) fn plugins(&self) -> Arc<Plugins> {
        self.plugins.load_full()
    }

    /// Lets calls find these plugins from now on.
    pub(crate) fn replace(&self, plugins: Arc<Plugins>) {
        self.plugins.store(plugins);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The number of the plugins that calls find now, and the plugins: never older than their number.
    pub(crate) fn numbered_plugins(&self) -> (u64, Guard<Arc<Plugins>>) {
        (self.generation(), self.plugins.load())
    }

    /// Another number as soon as other plugins are found.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Finds the operation that a command names, when `caller` may call it.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    pub(crate) fn find(&self, command: &str, caller: &Caller) -> Result<Route, Status> {
        self.plugins.load().find(command, caller)
    }

    /// Asks every layer around the plugin, the outermost first, and then checks the arguments.
    ///
    /// # Errors
    ///
    /// How the call ends that was refused. The layers that let it pass before hear of it.
    pub(crate) fn admit(&self, route: &Route, ask: &mut Ask, caller: &Caller) -> Result<Passages, Box<Outcome>> {
        let mut passages = Passages::default();
        if !route.plugin.layers.is_empty()
            && let Err(refusal) = enter(route, ask, caller, &mut passages)
        {
            let end = End { status: refusal.status, trailer: refusal.trailer };
            return Err(Box::new(Outcome { end, then: Then::Continue, passages }));
        }
        if let Some(args) = &ask.args
            && let Err(status) = route.operation().check_args(args.get())
        {
            let end = status.with_origin(Origin::Server).into();
            return Err(Box::new(Outcome { end, then: Then::Continue, passages }));
        }
        Ok(passages)
    }

    /// Runs one call to its end, which a stopping server waits for until it comes to the last stage.
    pub(crate) async fn run(
        &self,
        route: &Route,
        ask: Ask,
        passages: Passages,
        caller: Caller,
        halves: Halves<'_>,
        stopping: Pin<&mut Waiting<'_>>,
    ) -> Outcome {
        let Halves { input, output, watch, pacing } = halves;
        let Ask { args, metadata, deadline } = ask;
        let limit = shorter(deadline, route.plugin.deadline_max);
        let deadline = limit.map(|limit| Instant::now() + limit);
        let names = (route.plugin.name.clone(), route.operation_name().clone());
        let request = Request { plugin: names.0, operation: names.1, args, metadata, deadline };
        let mut call = Call::new(request, caller, input, output);
        let until = Until { deadline, limit, pacing, stopping };
        let (status, then) = pin!(self.supervise(route, &mut call, &watch, until)).await;
        Outcome { end: End { status, trailer: call.take_trailer() }, then, passages }
    }

    async fn supervise(&self, route: &Route, call: &mut Call, watch: &Watch, until: Until<'_, '_>) -> (Status, Then) {
        let Until { deadline, limit, pacing, mut stopping } = until;
        // A handler may also panic before it has made its future, and while the future is dropped.
        let begin = move || {
            let call = call;
            route.plugin.handler.handle(call)
        };
        let handling = match catch_unwind(AssertUnwindSafe(begin)) {
            Ok(handling) => handling,
            Err(panic) => return decide(Stop::Panicked(panic), limit),
        };
        let mut handling = AssertUnwindSafe(handling).catch_unwind();
        // A short call never waits, and needs neither the watch nor a timer.
        if let Poll::Ready(ended) = poll_fn(|cx| Poll::Ready(handling.poll_unpin(cx))).await {
            drop_caught(handling);
            return decide(Stop::of(ended), limit);
        }
        let mut pace = Pace::new(pacing);
        let stop = tokio::select! {
            biased;
            ended = &mut handling => Stop::of(ended),
            interrupt = watch.interrupted() => Stop::Interrupted(interrupt),
            slow = poll_fn(|cx| pace.poll(cx, watch)) => Stop::Slow(slow),
            () = passed(deadline) => Stop::Deadline,
            () = poll_fn(|cx| stopping.as_mut().poll(cx, Stage::Ended)) => Stop::Drain,
        };
        let handler_ended = matches!(stop, Stop::Returned(_) | Stop::Panicked(_));
        let (status, then) = decide(stop, limit);
        if !handler_ended {
            watch.stop(status.clone());
            // What the handler says after it was stopped changes nothing; the time is for it to clean up.
            let _ = timeout(self.grace, &mut handling).await;
        }
        drop_caught(handling);
        (status, then)
    }
}

/// Shows a call to every layer.
fn enter(route: &Route, ask: &mut Ask, caller: &Caller, passages: &mut Passages) -> Result<(), Refusal> {
    let mut call = CallFacts::new(&route.plugin.name, route.operation(), caller);
    call.args = ask.args.as_deref();
    call.metadata = Some(&ask.metadata).filter(|metadata| !metadata.is_empty());
    call.deadline = ask.deadline;
    for layer in &route.plugin.layers {
        // A layer that panics refuses: what it guards stays guarded.
        let entered = catch_unwind(AssertUnwindSafe(|| layer.enter(&mut call)));
        match entered {
            Ok(passage) => passages.0.get_or_insert_default().0.push(passage?),
            Err(panic) => {
                let status = Status::internal("panic", "a layer failed").with_detail(panic_text(&*panic));
                return Err(status.into());
            }
        }
    }
    ask.deadline = call.deadline;
    Ok(())
}

/// A call's way through its layers, which hear of its end whatever becomes of it. Without layers it is nothing.
#[derive(Debug, Default)]
pub(crate) struct Passages(Option<Box<Entered>>);

/// The outermost first.
#[derive(Debug, Default)]
struct Entered(Vec<Passage>);

impl Passages {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Tells every layer how the call ended, the innermost first.
    pub(crate) fn end(self, end: &CallEnd<'_>) {
        if let Some(mut entered) = self.0 {
            entered.tell(end);
        }
    }
}

impl Entered {
    fn tell(&mut self, end: &CallEnd<'_>) {
        while let Some(passage) = self.0.pop() {
            let _ = catch_unwind(AssertUnwindSafe(|| passage.end(end)));
        }
    }
}

impl Drop for Entered {
    /// The connection was dropped in the middle of the call.
    fn drop(&mut self) {
        let status = || Status::unavailable("dropped", "the server dropped the connection").with_origin(Origin::Server);
        if !self.0.is_empty() {
            self.tell(&CallEnd::new(&status(), None));
        }
    }
}

/// The one place where an outcome becomes a status.
fn decide(stop: Stop, limit: Option<Duration>) -> (Status, Then) {
    match stop {
        Stop::Returned(Ok(())) => (Status::ok(), Then::Continue),
        Stop::Returned(Err(status)) => (status.with_origin(Origin::Handler), Then::Continue),
        Stop::Panicked(panic) => {
            let status = Status::internal("panic", "the handler failed").with_detail(panic_text(&*panic));
            (status, Then::Continue)
        }
        Stop::Interrupted(Interrupt::Cancelled) => (cancelled("cancelled", "the caller cancelled"), Then::Continue),
        Stop::Interrupted(Interrupt::Vanished(error)) => {
            (cancelled("caller-gone", "the caller closed the connection").with_detail(error), Then::Drop)
        }
        Stop::Interrupted(Interrupt::Source(error)) => {
            let status = Status::aborted("source-changed", "the file could not be sent to its end");
            (status.with_origin(Origin::Handler).with_detail(error), Then::Drop)
        }
        Stop::Interrupted(Interrupt::Violation(violation)) => (violated(violation), Then::Close),
        // Of a frame that is not whole the rest cannot be told apart, and to whom reads nothing nothing can be said.
        Stop::Slow(slow @ Slow::Input(_)) => (slow.status(), Then::Close),
        Stop::Slow(slow @ Slow::Output(_)) => (slow.status(), Then::Drop),
        Stop::Deadline => {
            let limit = humantime::format_duration(limit.unwrap_or_default());
            let status = Status::deadline_exceeded("deadline", format!("the call took longer than {limit}"));
            (status.with_origin(Origin::Deadline), Then::Continue)
        }
        Stop::Drain => {
            let status = Status::unavailable("draining", "the server stopped before the call ended");
            (status.with_origin(Origin::Drain), Then::Close)
        }
    }
}

/// What a handler does in its last drop changes nothing any more, not even when it panics.
fn drop_caught(handling: impl Future) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(handling)));
}

fn cancelled(reason: &'static str, message: &str) -> Status {
    Status::cancelled(reason, message).with_origin(Origin::Caller)
}

/// The status of a call, or of a connection, whose caller broke the protocol.
pub(crate) fn violated(violation: Violation) -> Status {
    let (code, reason, origin) = match violation {
        Violation::Frame(FrameError::TooLong { .. }) => (Code::ResourceExhausted, "frame-too-long", Origin::Limit),
        Violation::TooManyEmpty { .. } => (Code::ResourceExhausted, "empty-frames-max", Origin::Limit),
        Violation::Frame(_) => (Code::InvalidArgument, "malformed-frame", Origin::Caller),
        _ => (Code::InvalidArgument, "unexpected-frame", Origin::Caller),
    };
    Status::new(code, reason, violation.to_string()).with_origin(origin)
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
