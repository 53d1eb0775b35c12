//! One line for each call that was asked for, refused ones included: who called what, and how it ended.
//!
//! It holds no payload and no value of an argument, so that nothing in it is secret. Of the arguments it names those that
//! the operation has; any other name is the caller's own text, and only counted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use plugd_core::transport::Traffic;
use plugd_core::wire::Open;
use plugd_core::{Caller, Code, Origin, Status};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{Level, enabled, info};

use crate::config::AuditTarget;
use crate::plugin::Route;

/// What the lines are sent to; the settings say where they go. Handlers add lines of their own, of what they do for a call.
const TARGET: &str = "plugd::audit";

/// A call that is not over yet. One that is dropped on the way has its line as well.
pub(crate) struct Record(Option<Asked>);

struct Asked {
    caller: Caller,
    /// The numbers of the connection and of the call on it.
    id: (u64, u64),
    started: Instant,
    command: String,
    plugin: Option<Arc<str>>,
    operation: Option<Arc<str>>,
    args: String,
}

impl Record {
    /// Begins the line of a call, when somebody wants it.
    #[inline]
    pub(crate) fn begin(target: &AuditTarget, caller: &Caller, id: (u64, u64)) -> Option<Box<Record>> {
        is_wanted(target).then(|| Record::new(caller, id))
    }

    #[cold]
    fn new(caller: &Caller, id: (u64, u64)) -> Box<Record> {
        let asked = Asked {
            caller: caller.clone(),
            id,
            started: Instant::now(),
            command: String::new(),
            plugin: None,
            operation: None,
            args: String::new(),
        };
        Box::new(Record(Some(asked)))
    }

    /// Notes what the caller names, which may be anything, and what that is when it is there for it.
    pub(crate) fn note(&mut self, open: &Open<'_>, route: Option<&Route>) {
        let Some(asked) = &mut self.0 else { return };
        // Quoted as in Rust: no name can look like two, or begin a line.
        asked.command = format!("{:?}", open.command);
        if let Some(route) = route {
            asked.plugin = Some(route.plugin.name.clone());
            asked.operation = Some(route.operation_name().clone());
            asked.args = open.args.as_deref().map(|args| names(args, route)).unwrap_or_default();
        }
    }

    /// Writes the line. `caller` is who the caller has turned out to be.
    pub(crate) fn end(mut self, caller: &Caller, status: &Status, traffic: Traffic) {
        if let Some(asked) = self.0.take() {
            asked.write(caller, status, traffic);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(asked) = self.0.take() {
            let status =
                Status::unavailable("dropped", "the server dropped the connection").with_origin(Origin::Server);
            asked.write(&asked.caller, &status, Traffic::default());
        }
    }
}

impl Asked {
    fn write(&self, caller: &Caller, status: &Status, traffic: Traffic) {
        info!(
            target: TARGET,
            id = %format_args!("{}.{}", self.id.0, self.id.1),
            peer = %caller,
            command = %self.command,
            plugin = self.plugin.as_deref(),
            operation = self.operation.as_deref(),
            args = %self.args,
            code = status.code().name(),
            reason = status.reason(),
            origin = status.origin().name(),
            duration_ms = self.started.elapsed().as_secs_f64() * 1e3,
            received = traffic.received,
            sent = traffic.sent,
            "call"
        );
    }
}

/// Writes the line of a caller whose TLS handshake was refused, before there could be a call.
pub(crate) fn refuse_handshake(target: &AuditTarget, caller: &Caller, why: &io::Error) {
    // Whoever only looks whether the port is open has tried nothing.
    let is_refused = why.kind() == io::ErrorKind::InvalidData;
    if is_refused && is_wanted_beside(target, enabled!(target: "plugd_server::connection", Level::INFO)) {
        let code = Code::Unauthenticated.name();
        info!(target: TARGET, peer = %caller, code, reason = "tls-handshake", detail = why.to_string(), "connection");
    }
}

/// Whether lines are heard at all, and would not only repeat the log's own line of each call.
#[inline]
fn is_wanted(target: &AuditTarget) -> bool {
    is_wanted_beside(target, enabled!(target: "plugd::call", Level::INFO))
}

#[inline]
fn is_wanted_beside(target: &AuditTarget, is_logged: bool) -> bool {
    enabled!(target: TARGET, Level::INFO) && (*target != AuditTarget::Log || !is_logged)
}

/// The names of the arguments that the operation has, and how many others there are.
fn names(args: &RawValue, route: &Route) -> String {
    let given: BTreeMap<Cow<'_, str>, IgnoredAny> = serde_json::from_str(args.get()).unwrap_or_default();
    let known = route.operation().args_schema_value()["properties"].as_object();
    let is_known = |name: &&Cow<'_, str>| known.is_some_and(|known| known.contains_key(&***name));
    let mut names = String::new();
    for name in given.keys().filter(is_known) {
        let gap = if names.is_empty() { "" } else { ", " };
        let _ = write!(names, "{gap}{name}");
    }
    let others = given.len() - given.keys().filter(is_known).count();
    if others > 0 {
        let _ = write!(names, " (and {others} unknown)");
    }
    names.trim_start().to_owned()
}
