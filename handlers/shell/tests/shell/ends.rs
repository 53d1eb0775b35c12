//! How commands end, and what callers are told of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use plugd_core::{Code, Context, Data, Registry};
use serde_json::json;
use tokio::time::Instant;

use crate::world::{gone, line, open_in, run, script};
use plugd_core::testing::{Plugin, Session};

#[tokio::test]
async fn the_streams_come_apart_and_the_exit_code_in_the_end() {
    let answer = script("echo out; echo err >&2; exit 3").await;
    assert_eq!((answer.bytes(0), answer.bytes(1)), (b"out\n".to_vec(), b"err\n".to_vec()));
    assert_eq!(answer.trailer()["exit"], json!({ "code": 3 }));
    assert_eq!(answer.status.to_string(), "unknown (command-failed): command exited with 3");
}

#[tokio::test]
async fn success_is_success() {
    let answer = run(&["true"], &[]).await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    assert_eq!(answer.trailer()["exit"], json!({ "code": 0 }));
}

#[tokio::test]
async fn a_signal_is_told_by_number_and_name() {
    let answer = script("kill -9 $$").await;
    assert_eq!(answer.trailer()["exit"], json!({ "signal": 9, "name": "SIGKILL" }));
    assert_eq!(answer.status.to_string(), "unknown (command-killed): command was killed by SIGKILL");
}

#[tokio::test]
async fn the_end_of_input_closes_standard_input() {
    let answer = run(&["cat"], &[Data::main("hello "), Data::main("world")]).await;
    assert_eq!(answer.text(), "hello world");
    assert!(answer.status.is_ok(), "{}", answer.status);
}

#[tokio::test]
async fn output_comes_while_input_is_still_open() {
    let mut session = open_in(Path::new(""), &["cat"]).await;
    session.sender.data(&Data::main("first")).await;
    assert_eq!(line(&mut session).await, "first");
    session.sender.end_input().await;
    assert!(session.receiver.answer().await.status.is_ok());
}

#[tokio::test]
async fn more_than_all_buffers_hold_goes_both_ways() {
    let chunks = vec![Data::main(vec![b'x'; 512 << 10]); 16];
    let answer = run(&["sh", "-c", "tee /dev/stderr"], &chunks).await;
    assert_eq!((answer.bytes(0).len(), answer.bytes(1).len()), (8 << 20, 8 << 20));
}

#[tokio::test]
async fn a_command_need_not_read_its_input() {
    let chunks = vec![Data::main(vec![0; 512 << 10]); 8];
    let answer = run(&["sh", "-c", "exec 0<&-; echo done"], &chunks).await;
    assert_eq!(answer.text(), "done\n");
    assert!(answer.status.is_ok(), "{}", answer.status);
}

#[tokio::test]
async fn a_command_that_ends_does_not_wait_for_the_end_of_input() {
    let mut session = open_in(Path::new(""), &["true"]).await;
    assert!(session.receiver.answer().await.status.is_ok());
}

#[tokio::test]
async fn what_cannot_be_started_is_told_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("plain"), "").expect("a file");
    for (argv, code, reason) in [
        (&["no-such-command"][..], Code::NotFound, "command-not-found"),
        (&["./no-such-command"], Code::NotFound, "command-not-found"),
        (&["./plain"], Code::PermissionDenied, "command-not-executable"),
        (&[], Code::InvalidArgument, "bad-arguments"),
        (&[""], Code::InvalidArgument, "bad-argv"),
        (&["echo", "a\0b"], Code::InvalidArgument, "bad-argv"),
    ] {
        let answer = open_in(dir.path(), argv).await.run(&[]).await;
        assert_eq!((answer.status.code(), answer.status.reason()), (code, reason), "{argv:?}");
        assert_eq!(answer.trailer, None);
    }
}

#[tokio::test]
async fn a_missing_working_directory_is_not_a_missing_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = json!({ "allow_any_command": true, "cwd": "work" });
    let cwd = dir.path().join("work");
    fs::create_dir(&cwd).expect("a directory");
    let handler = Plugin::linked_in("shell", settings, dir.path());
    let answer = handler.call("exec").args(json!({ "argv": ["pwd"] })).start().await.run(&[]).await;
    assert_eq!(Path::new(answer.text().trim()), cwd.canonicalize().expect("a directory"));
    fs::remove_dir(&cwd).expect("an empty directory");
    let answer = handler.call("exec").args(json!({ "argv": ["pwd"] })).start().await.run(&[]).await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::FailedPrecondition, "bad-cwd"));
    assert!(!answer.status.message().contains("work\""), "{}", answer.status);
}

#[tokio::test]
async fn a_command_sees_little_of_the_servers_environment() {
    let answer = run(&["env"], &[]).await;
    for line in answer.text().lines() {
        let name = line.split('=').next().unwrap_or_default();
        assert!(["PATH", "HOME", "LANG", "TZ", "USER", "PLUGD_CALL"].contains(&name), "{line}");
    }
}

#[tokio::test]
async fn data_on_a_side_channel_is_refused() {
    let answer = run(&["cat"], &[Data { channel: 2, ..Data::main("a") }]).await;
    assert_eq!(answer.status.reason(), "unexpected-channel");
}

#[tokio::test]
async fn a_cancelled_command_may_clean_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "trap 'echo bye > left; exit' TERM; echo $$; while :; do sleep 0.05; done";
    let mut session = open_in(dir.path(), &["sh", "-c", text]).await;
    let pid = line(&mut session).await;
    session.sender.cancel().await;
    let answer = session.receiver.answer().await;
    assert_eq!(answer.status.code(), Code::Cancelled);
    // How it exited, and not how it was killed; the code is that of the `sleep` which was told to end as well.
    assert!(answer.trailer()["exit"]["code"].is_number(), "{}", answer.trailer());
    assert_eq!(fs::read_to_string(dir.path().join("left")).expect("a trace"), "bye\n");
    gone(&pid, false).await;
}

#[tokio::test]
async fn a_cancelled_command_that_will_not_end_is_killed_with_its_children() {
    let text = "trap '' TERM; sleep 1000 & echo $$ $!; wait; sleep 1000";
    let mut session = open_in(Path::new(""), &["sh", "-c", text]).await;
    let pids = line(&mut session).await;
    session.sender.cancel().await;
    assert_eq!(session.receiver.answer().await.status.code(), Code::Cancelled);
    let (leader, child) = pids.split_once(' ').expect("two pids");
    gone(leader, false).await;
    gone(child, true).await;
}

#[tokio::test]
async fn a_vanished_caller_ends_the_command() {
    let mut session = open_in(Path::new(""), &["sh", "-c", "echo $$; exec sleep 1000"]).await;
    let pid = line(&mut session).await;
    let Session { sender, receiver, .. } = session;
    drop((sender, receiver));
    gone(&pid, false).await;
}

#[tokio::test]
async fn dropping_the_call_kills_and_reaps_everything() {
    let text = "trap '' TERM; sleep 1000 & echo $$ $!; wait";
    let mut session = open_in(Path::new(""), &["sh", "-c", text]).await;
    let pids = line(&mut session).await;
    session.abort().await;
    let (leader, child) = pids.split_once(' ').expect("two pids");
    gone(leader, false).await;
    gone(child, true).await;
}

#[tokio::test]
async fn what_a_command_leaves_behind_delays_the_end_a_little_and_dies() {
    for left_behind in ["sleep 1000", "while :; do echo noise; sleep 0.02; done", "yes", "sleep 1000 >/dev/null 2>&1"] {
        let begun = Instant::now();
        let answer = script(&format!("({left_behind}) & echo $!")).await;
        assert!(answer.status.is_ok(), "{}", answer.status);
        assert!(begun.elapsed() < Duration::from_secs(10), "{left_behind}: {:?}", begun.elapsed());
        let text = answer.text();
        let pid = text.lines().find(|line| line.parse::<u32>().is_ok()).expect("a pid");
        gone(pid, true).await;
    }
}

#[test]
fn settings_that_allow_nothing_or_lead_nowhere_are_refused() {
    let registry = Registry::linked().expect("a sound registry");
    let shell = registry.handler("shell").expect("linked");
    let error = &shell.prepare(json!({})).expect_err("nothing allowed")[0];
    assert_eq!(error.path, ["allow_any_command"]);
    assert!(error.message.contains("allowed: true"), "{error}");
    let blueprint = shell.prepare(json!({ "allow_any_command": true, "cwd": "no-such-dir" })).expect("good settings");
    assert!(blueprint.build(&Context::new(".")).is_err());
}
