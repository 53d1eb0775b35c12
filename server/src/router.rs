//! Takes a call to its handler, and turns whatever comes of it into the one end of that call.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use plugd_core::transport::{Interrupt, Violation, Watch};
use plugd_core::wire::{End, FrameError, Open};
use plugd_core::{Call, Caller, Code, Input, Origin, Output, Request, Status};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until, timeout};

use crate::plugin::{Plugins, Route};
use crate::stopping::{Stage, Waiting};

/// Finds plugins and runs their handlers.
pub(crate) struct Router {
    plugins: Plugins,
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
}

impl Outcome {
    /// The outcome as the caller is told it: who may not call something hears the same as if it were not there. What was so
    /// in truth, the log has by then.
    pub(crate) fn told(mut self) -> Outcome {
        let status = &mut self.end.status;
        if status.origin() == Origin::Access && status.code() == Code::NotFound {
            *status = std::mem::replace(status, Status::ok()).with_origin(Origin::Server);
        }
        self
    }
}

/// Both directions of a call, and what keeps them moving.
pub(crate) struct Halves {
    pub(crate) input: Input,
    pub(crate) output: Output,
    pub(crate) watch: Watch,
}

/// Why a handler stopped running, or was stopped.
enum Stop {
    Returned(Result<(), Status>),
    Panicked(Box<dyn Any + Send>),
    Interrupted(Interrupt),
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

/// What a call asks for, as far as the server needs to know.
pub(crate) struct Ask<'r> {
    route: Route<'r>,
    args: Option<Box<RawValue>>,
    metadata: BTreeMap<String, String>,
    deadline: Option<Duration>,
}

impl<'r> Ask<'r> {
    /// A call of a command and nothing else.
    pub(crate) fn bare(route: Route<'r>) -> Ask<'r> {
        Ask { route, args: None, metadata: BTreeMap::new(), deadline: None }
    }

    /// The command's route, when the caller said nothing else.
    pub(crate) fn as_bare(&self) -> Option<Route<'r>> {
        let is_bare = self.args.is_none() && self.metadata.is_empty() && self.deadline.is_none();
        is_bare.then_some(self.route)
    }
}

impl Router {
    pub(crate) fn new(plugins: Plugins, grace: Duration) -> Router {
        Router { plugins, grace }
    }

    /// Finds the operation that `open` asks for, when `caller` may call it, and only then checks that its arguments are known.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    pub(crate) fn find(&self, open: Open<'_>, caller: &Caller) -> Result<Ask<'_>, Status> {
        let route = self.plugins.find(&open.command, caller)?;
        if let Some(args) = &open.args {
            route.operation.check_args(args.get()).map_err(|status| status.with_origin(Origin::Server))?;
        }
        let Open { args, deadline_ms, metadata, .. } = open;
        Ok(Ask { route, args, metadata, deadline: deadline_ms.map(Duration::from_millis) })
    }

    /// Runs one call to its end, which a stopping server waits for until it comes to the last stage.
    pub(crate) async fn run(
        &self,
        ask: Ask<'_>,
        caller: Caller,
        halves: Halves,
        stopping: Pin<&mut Waiting<'_>>,
    ) -> Outcome {
        let Halves { input, output, watch } = halves;
        let Ask { route, args, metadata, deadline } = ask;
        let limit = shorter(deadline, route.plugin.deadline_max);
        let deadline = limit.map(|limit| Instant::now() + limit);
        let names = (route.plugin.name.clone(), route.operation_name.clone());
        let request = Request { plugin: names.0, operation: names.1, args, metadata, deadline };
        let mut call = Call::new(request, caller, input, output);
        let (status, then) = self.supervise(&route, &mut call, &watch, deadline, limit, stopping).await;
        Outcome { end: End { status, trailer: call.take_trailer() }, then }
    }

    async fn supervise(
        &self,
        route: &Route<'_>,
        call: &mut Call,
        watch: &Watch,
        deadline: Option<Instant>,
        limit: Option<Duration>,
        mut stopping: Pin<&mut Waiting<'_>>,
    ) -> (Status, Then) {
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
        let stop = tokio::select! {
            biased;
            ended = &mut handling => Stop::of(ended),
            interrupt = watch.interrupted() => Stop::Interrupted(interrupt),
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
