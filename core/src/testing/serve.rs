//! The server's side of a call in memory: what a router does around a handler, and nothing else.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::{Future, pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use serde_json::value::to_raw_value;
use tokio::io::DuplexStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::plugin::Plugin;
use crate::transport::{Connection, Interrupt, Watch};
use crate::wire::{End, FrameLimits};
use crate::{Call, Caller, Operation, Peer, Request, Status};

/// How long a handler may take to clean up after its call was stopped; a server's default.
const GRACE: Duration = Duration::from_secs(2);

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) operation: Arc<str>,
    pub(super) args: Option<Value>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) deadline: Option<Duration>,
    pub(super) stop: Stop,
}

/// When the handler is stopped.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stop {
    /// The handler's how many-th wait; `None` means never.
    pub(super) at_wait: Option<usize>,
    /// Whether it is dropped there, instead of cancelled.
    pub(super) drops: bool,
}

/// Answers one call that comes over `io`. Returns how often the handler waited.
pub(super) async fn serve(io: DuplexStream, plugin: Plugin, asked: Asked) -> usize {
    let mut connection = Connection::new(Box::new(io), FrameLimits::default());
    if connection.greet().await.is_err() || poll_fn(|cx| connection.poll_next(cx)).await.is_err() {
        return 0;
    }
    let waits = Arc::new(AtomicUsize::new(0));
    let (input, output, watch) = connection.begin();
    let request = Request {
        plugin: "plugin".into(),
        operation: asked.operation.clone(),
        args: asked.args.as_ref().map(|args| to_raw_value(args).expect("a value has a JSON form")),
        metadata: asked.metadata.clone(),
        deadline: asked.deadline.map(|deadline| Instant::now() + deadline),
        rights: None,
    };
    let mut call = Call::new(request, Caller::new(Peer::Memory), input, output);
    let status = match check(&plugin.operations, &asked) {
        Ok(()) => supervise(&plugin, &mut call, &watch, asked.stop, &waits).await,
        Err(status) => status,
    };
    let end = End { status, trailer: call.take_trailer() };
    drop((call, watch));
    // A caller that has gone hears no end.
    if connection.finish(&end, true).is_ok() {
        let _ = connection.close().await;
    }
    waits.load(Ordering::Relaxed)
}

fn check(operations: &[Operation], asked: &Asked) -> Result<(), Status> {
    let operation = operations.iter().find(|operation| *operation.name() == *asked.operation);
    match (operation, &asked.args) {
        (Some(operation), Some(args)) => operation.check_args(&args.to_string()),
        _ => Ok(()),
    }
}

async fn supervise(plugin: &Plugin, call: &mut Call, watch: &Watch, stop: Stop, waits: &Arc<AtomicUsize>) -> Status {
    let deadline = call.deadline();
    let (stopping, stopped) = oneshot::channel();
    let mut stopping = Some(stopping);
    let handling = async { plugin.handler.handle(call).await };
    let mut handling = pin!(AssertUnwindSafe(handling).catch_unwind());
    let counted = poll_fn(|cx| match handling.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => {
            let count = waits.fetch_add(1, Ordering::Relaxed) + 1;
            if stop.at_wait == Some(count) {
                if let Some(stopping) = stopping.take() {
                    let _ = stopping.send(());
                }
                return if stop.drops { Poll::Ready(None) } else { Poll::Pending };
            }
            Poll::Pending
        }
    });
    let mut counted = pin!(counted);
    let status = tokio::select! {
        biased;
        ended = &mut counted => return ended.map_or_else(|| cancelled("dropped", "the handler was dropped"), ended_as),
        Ok(()) = stopped => cancelled("cancelled", "the caller cancelled"),
        interrupt = watch.interrupted() => interrupted(interrupt),
        () = passed(deadline) => Status::deadline_exceeded("deadline", "the call took too long"),
    };
    watch.stop(status.clone());
    if timeout(GRACE, &mut counted).await.is_ok_and(|ended| matches!(ended, Some(Err(_)))) {
        return Status::internal("panic", "the handler panicked after its call was stopped");
    }
    status
}

fn ended_as(ended: Result<Result<(), Status>, Box<dyn Any + Send>>) -> Status {
    match ended {
        Ok(result) => result.err().unwrap_or_else(Status::ok),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text");
            Status::internal("panic", format!("the handler panicked: {text}"))
        }
    }
}

fn interrupted(interrupt: Interrupt) -> Status {
    match interrupt {
        Interrupt::Cancelled => cancelled("cancelled", "the caller cancelled"),
        Interrupt::Vanished(_) => cancelled("caller-gone", "the caller closed the connection"),
        Interrupt::Source(_) => Status::aborted("source-changed", "the file could not be sent to its end"),
        Interrupt::Violation(violation) => Status::invalid_argument("protocol", format!("{violation:?}")),
    }
}

fn cancelled(reason: &'static str, message: &str) -> Status {
    Status::cancelled(reason, message)
}

async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}
