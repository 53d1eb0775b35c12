//! The kit for handlers' tests: a sound handler passes every check, and each check finds the fault that it is for.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use plugd_core::prelude::*;
use plugd_core::testing::conformance::{self, Subject};
use plugd_core::testing::{Plugin, replay};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum Fault {
    None,
    FailsLater,
    NeedsInput,
    PanicsAtLength,
    StaysBusy,
    Hoards,
    OneAtATime,
    TakesAnything,
    PanicsAtNothing,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Args {
    word: Option<String>,
}

/// Sends its input back, and has one fault at the most.
#[derive(Debug)]
struct Mirror {
    fault: Fault,
    calls: AtomicUsize,
    is_busy: AtomicBool,
}

#[async_trait]
impl Handler for Mirror {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        let args: Value = call.args()?;
        let count = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::FailsLater if count > 0 => return Err(Status::internal("worn-out", "worn out")),
            Fault::PanicsAtNothing if args["word"] == "" => panic!("no word"),
            Fault::StaysBusy | Fault::OneAtATime if self.is_busy.swap(true, Ordering::Relaxed) => {
                return Err(Status::failed_precondition("busy", "somebody else calls"));
            }
            _ => {}
        }
        let mirrored = self.mirror(call).await;
        if self.fault != Fault::StaysBusy || mirrored.is_ok() {
            self.is_busy.store(false, Ordering::Relaxed);
        }
        mirrored
    }
}

impl Mirror {
    async fn mirror(&self, call: &mut Call) -> Result<(), Status> {
        let (mut len, mut hoard) = (0, Vec::new());
        while let Some(bytes) = call.recv().await? {
            len += bytes.len();
            match self.fault {
                Fault::PanicsAtLength if len > 1 << 20 => panic!("too long"),
                Fault::Hoards => hoard.push(bytes),
                _ => call.send(bytes).await?,
            }
        }
        if self.fault == Fault::NeedsInput && len == 0 {
            std::future::pending::<()>().await;
        }
        for bytes in hoard {
            call.send(bytes).await?;
        }
        call.set_trailer(&json!({ "len": len }))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MirrorSettings {
    fault: Fault,
}

impl Settings for MirrorSettings {
    type Handler = Mirror;

    fn build(self, _context: &Context) -> Result<Mirror, StartError> {
        Ok(Mirror { fault: self.fault, calls: AtomicUsize::new(0), is_busy: AtomicBool::new(false) })
    }
}

fn mirror(fault: Fault) -> Plugin {
    let operation = Operation::new("mirror", "sends its input back").streams(Streaming::Both);
    let operation = match fault {
        Fault::TakesAnything => operation.args::<Value>(),
        _ => operation.args::<Args>(),
    };
    let descriptor = Descriptor::new("mirror", "sends its input back").operation(operation);
    Plugin::of(&descriptor.settings::<MirrorSettings>(), json!({ "fault": fault }))
}

fn subject(fault: Fault) -> Subject {
    let subject = Subject::of(move |_| mirror(fault)).sample("mirror", json!({}), [Data::main("hello")]);
    subject.time_max(Duration::from_secs(5))
}

plugd_core::conformance!(a_sound_handler: subject(Fault::None));

/// What a check says of a faulty handler.
fn found<F: Future<Output = ()>>(fault: Fault, check: impl FnOnce(Subject) -> F) -> String {
    let checked = catch_unwind(AssertUnwindSafe(|| conformance::run(subject(fault), check)));
    let complaint = checked.expect_err("the check finds nothing");
    complaint.downcast_ref::<String>().cloned().expect("a text")
}

#[test]
fn each_check_finds_what_it_is_for() {
    let all = [
        (found(Fault::FailsLater, conformance::samples_succeed), "worn-out"),
        (found(Fault::NeedsInput, conformance::empty_input_ends), "does not end within"),
        (found(Fault::PanicsAtLength, conformance::largest_input_ends), "too long"),
        (found(Fault::StaysBusy, conformance::cancel_at_every_await), "after mirror stopped at wait 1"),
        (found(Fault::Hoards, conformance::slow_reader_is_waited_for), "waited for a caller that does not read"),
        (found(Fault::StaysBusy, conformance::vanished_caller_ends_the_call), "vanishes after 0 frames"),
        (found(Fault::StaysBusy, conformance::deadline_ends_the_call), "after mirror with a deadline"),
        (found(Fault::OneAtATime, conformance::many_at_once), "beside 32 others"),
        (found(Fault::TakesAnything, conformance::unknown_arguments_are_refused), "mirror"),
        (found(Fault::PanicsAtNothing, conformance::made_up_arguments_end_the_call), "no word"),
    ];
    for (complaint, what) in all {
        assert!(complaint.contains(what), "{complaint:?} does not tell of {what:?}");
    }
}

#[tokio::test]
async fn a_call_is_said_in_parts_and_answered_as_a_whole() {
    let answer = mirror(Fault::None).call("mirror").arg("word", "x").send("hello, ").send("world").await.ok();
    assert_eq!((answer.text(), answer.trailer()), ("hello, world".to_owned(), json!({ "len": 12 })));
    let status = mirror(Fault::None).call("mirror").arg("wrod", "x").await.status;
    assert!(status.message().contains("did you mean \"word\""), "{status}");
}

#[tokio::test]
async fn a_caller_may_cancel_end_its_input_early_or_leave() {
    let plugin = mirror(Fault::None);
    let mut session = plugin.call("mirror").send("a").start().await;
    session.sender.cancel().await;
    assert_eq!(session.receiver.answer().await.status.code(), Code::Cancelled);
    plugin.call("mirror").send("a").start().await.vanish().await;
    let late = plugin.call("mirror").deadline(Duration::from_millis(1)).start().await.receiver.answer().await;
    assert_eq!(late.status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn recorded_calls_are_made_again_and_differences_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("calls.jsonl");
    let recorded = |len: usize, data: &str| {
        json!({
            "command": "mirror.mirror", "args": { "word": "x" },
            "input": [{ "channel": 0, "data_b64": "aGVs" }, { "channel": 0, "data_b64": "bG8=" }],
            "output": [{ "channel": 0, "data_b64": data }],
            "status": { "code": "ok" }, "trailer": { "len": len },
        })
    };
    std::fs::write(&path, recorded(5, "aGVsbG8=").to_string()).expect("a file");
    replay(&path).against(&mirror(Fault::None)).await;
    std::fs::write(&path, recorded(6, "aGVsbG8=").to_string()).expect("a file");
    replay(&path).ignoring("/trailer/len").against(&mirror(Fault::None)).await;
    std::fs::write(&path, recorded(6, "aGVsTE8=").to_string()).expect("a file");
    let plugin = Arc::new(mirror(Fault::None));
    let differing = tokio::spawn(async move { replay(&path).against(&plugin).await });
    let panic = differing.await.expect_err("a difference").into_panic();
    let text = panic.downcast_ref::<String>().expect("a text");
    assert!(text.contains(r#"from byte 3 on it was "LO", is "lo""#), "{text}");
    assert!(text.contains(r#"trailer was {"len":6}, is {"len":5}"#), "{text}");
}

/// Counts for as long as it lives, and says so.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Counting {}

#[derive(Debug)]
struct Counter(tokio::sync::watch::Sender<&'static str>);

impl plugd_core::Settings for Counting {
    type Handler = Counter;

    fn build(self, context: &plugd_core::Context) -> Result<Counter, plugd_core::StartError> {
        let (says, _) = tokio::sync::watch::channel("built");
        let (work, stopped) = (says.clone(), context.stopped());
        context.spawn(async move {
            work.send_replace("works");
            stopped.await;
        });
        Ok(Counter(says))
    }
}

#[plugd_core::prelude::async_trait]
impl Handler for Counter {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        let mut says = self.0.subscribe();
        let says = *says.wait_for(|word| *word != "built").await.map_err(|_| Status::internal("gone", "gone"))?;
        call.send(says).await
    }

    async fn stop(&self, why: plugd_core::Stopped) {
        assert_eq!(why, plugd_core::Stopped::Replaced);
        self.0.send_replace("stopped");
    }
}

#[tokio::test]
async fn an_instance_works_beside_its_calls_and_is_told_to_stop() {
    let descriptor = Descriptor::new("counter", "").operation(Operation::new("say", "")).settings::<Counting>();
    let plugin = Plugin::of(&descriptor, json!({}));
    assert_eq!(plugin.call("say").await.ok().text(), "works");
    plugin.stop(plugd_core::Stopped::Replaced, std::time::Duration::from_secs(5)).await;
    assert_eq!(plugin.call("say").await.ok().text(), "stopped");
}
