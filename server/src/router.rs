//! Takes a call to its handler, and turns whatever comes of it into the one end of that call.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use plugd_core::transport::{Interrupt, Violation, Watch};
use plugd_core::wire::{End, FrameError, Open};
use plugd_core::{Call, Caller, Code, Input, Origin, Output, Request, Status};
use tokio::time::{Instant, sleep_until, timeout};

use crate::plugin::{Plugins, Route};

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

impl Router {
    pub(crate) fn new(plugins: Plugins, grace: Duration) -> Router {
        Router { plugins, grace }
    }

    /// Finds the operation that `open` asks for, and checks that its arguments are known.
    ///
    /// # Errors
    ///
    /// The status that refuses the call.
    pub(crate) fn find(&self, open: &Open<'_>) -> Result<Route<'_>, Status> {
        let route = self.plugins.find(&open.command)?;
        if let Some(args) = &open.args {
            route.operation.check_args(args.get()).map_err(|status| status.with_origin(Origin::Server))?;
        }
        Ok(route)
    }

    /// Runs one call to its end. `draining_over` resolves when a stopping server waits no longer.
    pub(crate) async fn run(
        &self,
        route: Route<'_>,
        open: Open<'_>,
        caller: Caller,
        halves: Halves,
        draining_over: Pin<&mut impl Future<Output = ()>>,
    ) -> Outcome {
        let Halves { input, output, watch } = halves;
        let limit = shorter(open.deadline_ms.map(Duration::from_millis), route.plugin.deadline_max);
        let deadline = limit.map(|limit| Instant::now() + limit);
        let request = Request {
            plugin: route.plugin.name.clone(),
            operation: route.operation_name.clone(),
            args: open.args,
            metadata: open.metadata,
            deadline,
        };
        let mut call = Call::new(request, caller, input, output);
        let (status, then) = self.supervise(&route, &mut call, &watch, deadline, limit, draining_over).await;
        Outcome { end: End { status, trailer: call.take_trailer() }, then }
    }

    async fn supervise(
        &self,
        route: &Route<'_>,
        call: &mut Call,
        watch: &Watch,
        deadline: Option<Instant>,
        limit: Option<Duration>,
        draining_over: Pin<&mut impl Future<Output = ()>>,
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
        let stop = tokio::select! {
            biased;
            ended = &mut handling => match ended {
                Ok(result) => Stop::Returned(result),
                Err(panic) => Stop::Panicked(panic),
            },
            interrupt = watch.interrupted() => Stop::Interrupted(interrupt),
            () = passed(deadline) => Stop::Deadline,
            () = draining_over => Stop::Drain,
        };
        let handler_ended = matches!(stop, Stop::Returned(_) | Stop::Panicked(_));
        let (status, then) = decide(stop, limit);
        if !handler_ended {
            watch.stop(status.clone());
            // What the handler says after it was stopped changes nothing; the time is for it to clean up.
            let _ = timeout(self.grace, &mut handling).await;
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handling)));
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
