//! Commands that outlive their calls.

use std::path::Path;
use std::time::Duration;

use plugd_core::{Code, Data};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::{gone, line, shell};
use plugd_core::testing::{Answer, Plugin};

async fn call(handler: &Plugin, operation: &'static str, args: Value) -> Answer {
    let session = handler.call(operation).args(args).start().await;
    timeout(Duration::from_secs(20), session.run(&[])).await.expect("an end")
}

/// Starts a script as a job.
async fn start(handler: &Plugin, text: &str) -> String {
    let answer = call(handler, "exec", json!({ "argv": ["sh", "-c", text], "detach": true })).await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    let head = answer.head.expect("a header");
    assert_eq!(head["ends_with"], "server");
    head["job"].as_str().expect("an id").to_owned()
}

async fn listed(handler: &Plugin) -> Vec<Value> {
    let text = call(handler, "jobs", json!({})).await.text();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

async fn follow(handler: &Plugin, id: &str) -> Answer {
    call(handler, "logs", json!({ "id": id, "follow": true })).await
}

#[tokio::test]
async fn a_job_goes_on_after_its_call_and_keeps_its_output() {
    let handler = shell(Path::new(""), json!({}));
    let id = start(&handler, "echo out; echo err >&2; echo more; exit 3").await;
    let logs = follow(&handler, &id).await;
    assert!(logs.status.is_ok(), "{}", logs.status);
    assert_eq!((logs.bytes(0), logs.bytes(1)), (b"out\nmore\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(logs.head, Some(json!({ "from": 0 })));
    let jobs = listed(&handler).await;
    assert_eq!((jobs.len(), &jobs[0]["id"], &jobs[0]["state"]), (1, &json!(id), &json!("ended")));
    assert_eq!((&jobs[0]["exit"], &jobs[0]["status_reason"]), (&json!({ "code": 3 }), &json!("command-failed")));
    assert_eq!((&jobs[0]["stdout_bytes"], &jobs[0]["stderr_bytes"]), (&json!(9), &json!(4)));
    assert_eq!(jobs[0]["argv"][0], "sh");
    let stderr = call(&handler, "logs", json!({ "id": id, "stream": "stderr" })).await;
    assert_eq!((stderr.bytes(0).len(), stderr.bytes(1)), (0, b"err\n".to_vec()));
    let rest = call(&handler, "logs", json!({ "id": id, "from": 8 })).await;
    // Which five they are, the order in which both streams were read decides.
    assert_eq!([rest.bytes(0), rest.bytes(1)].concat().len(), 5);
    let end = call(&handler, "attach", json!({ "id": id })).await;
    assert_eq!((end.status.reason(), &end.trailer()["exit"]), ("command-failed", &json!({ "code": 3 })));
}

#[tokio::test]
async fn who_attaches_hears_and_speaks_and_may_leave_again() {
    let handler = shell(Path::new(""), json!({}));
    let id = start(&handler, "trap 'echo caught' USR1; while read word; do echo \"got $word\"; done; echo bye").await;
    let attach = || handler.call("attach").args(json!({ "id": id })).start();
    let mut first = attach().await;
    first.sender.data(&Data::main("one\n")).await;
    assert_eq!(line(&mut first).await, "got one");
    first.sender.cancel().await;
    assert_eq!(first.receiver.answer().await.status.code(), Code::Cancelled);
    let mut second = attach().await;
    second.sender.data(&Data::main("two\n")).await;
    assert_eq!(line(&mut second).await, "got two");
    second.sender.data(&Data { channel: 1, ..Data::main(r#"{"signal":"USR1"}"#) }).await;
    second.sender.data(&Data::main("three\n")).await;
    second.sender.end_input().await;
    let answer = timeout(Duration::from_secs(20), second.receiver.answer()).await.expect("an end");
    assert!(answer.text().contains("caught\n") && answer.text().ends_with("bye\n"), "{}", answer.text());
    assert!(answer.status.is_ok() && answer.trailer()["exit"] == json!({ "code": 0 }), "{}", answer.status);
}

#[tokio::test]
async fn a_job_is_killed_with_everything_it_started() {
    let handler = shell(Path::new(""), json!({ "grace": "200ms" }));
    let id = start(&handler, "trap '' TERM; setsid sleep 1000 & echo $!; while :; do sleep 0.01; done").await;
    let mut logs = handler.call("logs").args(json!({ "id": id, "follow": true })).start().await;
    let pid = line(&mut logs).await;
    assert!(call(&handler, "kill", json!({ "id": id })).await.status.is_ok());
    gone(&pid, false).await;
    assert!(logs.receiver.answer().await.status.is_ok());
    let jobs = listed(&handler).await;
    assert_eq!((&jobs[0]["status_reason"], &jobs[0]["exit"]["name"]), (&json!("job-killed"), &json!("SIGKILL")));
}

#[tokio::test]
async fn a_signal_goes_to_a_job() {
    let handler = shell(Path::new(""), json!({}));
    let id = start(&handler, "trap 'echo caught; exit 0' HUP; echo ready; while :; do sleep 0.01; done").await;
    let mut logs = handler.call("logs").args(json!({ "id": id, "follow": true })).start().await;
    assert_eq!(line(&mut logs).await, "ready");
    assert!(call(&handler, "kill", json!({ "id": id, "signal": "HUP" })).await.status.is_ok());
    assert_eq!(line(&mut logs).await, "caught");
    assert!(logs.receiver.answer().await.status.is_ok());
    let bad = call(&handler, "kill", json!({ "id": id, "signal": "BANG" })).await;
    assert_eq!(bad.status.reason(), "bad-signal");
}

#[tokio::test]
async fn only_the_last_output_is_kept() {
    let handler = shell(Path::new(""), json!({ "job_output_max": "64KiB" }));
    let id = start(&handler, "seq 100000").await;
    let end = call(&handler, "attach", json!({ "id": id })).await;
    assert!(end.status.is_ok(), "{}", end.status);
    let logs = follow(&handler, &id).await;
    let from = logs.head.as_ref().and_then(|head| head["from"].as_u64()).expect("where it begins");
    let all: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    assert!(from > 0 && logs.bytes(0).len() <= 64 << 10);
    assert_eq!(logs.bytes(0), all.as_bytes()[usize::try_from(from).expect("small")..]);
}

#[tokio::test]
async fn jobs_are_few_and_forgotten_after_a_while() {
    let handler = shell(Path::new(""), json!({ "jobs_max": 2, "job_expiry": "100ms" }));
    let long = start(&handler, "sleep 1000").await;
    let other = start(&handler, "sleep 1000").await;
    let args = json!({ "argv": ["true"], "detach": true });
    let busy = call(&handler, "exec", args.clone()).await;
    assert_eq!((busy.status.code(), busy.status.reason()), (Code::ResourceExhausted, "busy"));
    assert!(call(&handler, "kill", json!({ "id": other })).await.status.is_ok());
    while listed(&handler).await.len() > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(call(&handler, "exec", args).await.status.is_ok());
    assert!(call(&handler, "kill", json!({ "id": long })).await.status.is_ok());
    for operation in ["logs", "attach", "kill"] {
        let unknown = call(&handler, operation, json!({ "id": "nobody" })).await;
        assert_eq!((unknown.status.code(), unknown.status.reason()), (Code::NotFound, "unknown-job"));
    }
}

#[tokio::test]
async fn jobs_end_with_their_plugin() {
    let handler = shell(Path::new(""), json!({}));
    let id = start(&handler, "setsid sleep 1000 & echo $!; wait").await;
    let mut logs = handler.call("logs").args(json!({ "id": id, "follow": true })).start().await;
    let pid = line(&mut logs).await;
    logs.vanish().await;
    drop(handler);
    gone(&pid, true).await;
}

#[tokio::test]
async fn jobs_are_off_when_none_are_allowed() {
    let handler = shell(Path::new(""), json!({ "jobs_max": 0 }));
    let refused = call(&handler, "exec", json!({ "argv": ["true"], "detach": true })).await;
    assert_eq!((refused.status.code(), refused.status.reason()), (Code::PermissionDenied, "jobs-not-allowed"));
}
