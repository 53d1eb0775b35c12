//! Nothing that a command started outlives its call.

use std::fs;
use std::path::Path;
use std::time::Duration;

use plugd_core::Code;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::world::{exec_with, gone, line, open_in, run, script, shell};

/// Leaves its session, its group and its parents, and says what it has become.
const DAEMON: &str = "setsid sh -c 'echo $$; sleep 1000 & wait' & wait";
/// The same, without the mark in its environment.
const NAMELESS_DAEMON: &str = "env -i /usr/bin/setsid /bin/sh -c 'echo $$; /bin/sleep 1000 & wait' & wait";

#[tokio::test]
async fn a_daemon_that_left_its_session_is_ended_with_the_call() {
    for daemon in [DAEMON, NAMELESS_DAEMON] {
        let mut session = open_in(Path::new(""), &["sh", "-c", daemon]).await;
        let pid = line(&mut session).await;
        session.sender.cancel().await;
        let answer = timeout(Duration::from_secs(4), session.receiver.answer()).await.expect("an end in time");
        assert_eq!(answer.status.code(), Code::Cancelled);
        gone(&pid, false).await;
    }
}

#[tokio::test]
async fn an_orphaned_daemon_is_ended_when_its_command_exits() {
    for daemon in [DAEMON, NAMELESS_DAEMON] {
        // The parents end at once, and the daemon is an orphan before the command's end is seen.
        let text =
            format!("({}) > pid & while ! [ -s pid ]; do :; done", daemon.replace(" & wait' & wait", " & wait' &"));
        let dir = tempfile::tempdir().expect("a directory");
        let answer = open_in(dir.path(), &["sh", "-c", &text]).await.run(&[]).await;
        assert!(answer.status.is_ok(), "{}", answer.status);
        let pid = fs::read_to_string(dir.path().join("pid")).expect("a number");
        // One without a name may be any command's that runs in this process, and ends with the last of them.
        let has_name = daemon == DAEMON;
        assert!(!has_name || fs::metadata(format!("/proc/{}", pid.trim())).is_err(), "{daemon}: {pid} lives");
        gone(pid.trim(), false).await;
    }
}

#[tokio::test]
async fn the_daemon_of_one_command_outlives_the_end_of_another() {
    let handler = shell(Path::new(""), json!({}));
    let args = |text: &str| json!({ "argv": ["sh", "-c", text] });
    let daemon = format!("({}); sleep 1000", NAMELESS_DAEMON.replace("wait' & wait", "wait' &"));
    let mut long = handler.call("exec").args(args(&daemon)).start().await;
    let pid = line(&mut long).await;
    let short = handler.call("exec").args(args("exit 0")).start().await.run(&[]).await;
    assert!(short.status.is_ok(), "{}", short.status);
    assert!(fs::metadata(format!("/proc/{pid}/exe")).is_ok(), "the daemon is gone too early");
    long.sender.cancel().await;
    long.receiver.answer().await;
    gone(&pid, false).await;
}

#[tokio::test]
async fn a_vanished_caller_takes_a_daemon_with_it_within_four_seconds() {
    let text = format!("trap '' TERM; {DAEMON}");
    let mut session = open_in(Path::new(""), &["sh", "-c", &text]).await;
    let pid = line(&mut session).await;
    let begun = Instant::now();
    session.vanish().await;
    gone(&pid, false).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_ignores_the_request_is_killed_after_the_grace_and_told_so() {
    let settings = json!({ "time_max": "200ms", "grace": "200ms" });
    let answer =
        exec_with(settings, json!({ "argv": ["sh", "-c", "trap '' TERM; while :; do sleep 0.01; done"] })).await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::DeadlineExceeded, "time-max"));
    assert_eq!(answer.trailer()["exit"], json!({ "signal": 9, "name": "SIGKILL" }));
    assert!(
        answer.trailer()["wall_ms"].as_f64().is_some_and(|ms| (400.0..4000.0).contains(&ms)),
        "{:?}",
        answer.trailer
    );
}

#[tokio::test]
async fn a_stopped_command_is_ended_too() {
    let mut session = open_in(Path::new(""), &["sh", "-c", "echo $$; kill -STOP $$; sleep 1000"]).await;
    let pid = line(&mut session).await;
    session.sender.cancel().await;
    session.receiver.answer().await;
    gone(&pid, false).await;
}

#[tokio::test]
async fn children_of_other_code_are_left_alone() {
    let mut theirs = std::process::Command::new("sleep").arg("1000").spawn().expect("a process");
    let mut ended = std::process::Command::new("true").spawn().expect("a process");
    assert!(script("exit 0").await.status.is_ok());
    assert!(theirs.try_wait().expect("still a child").is_none());
    assert!(ended.wait().expect("still to be reaped").success());
    theirs.kill().expect("a child");
    theirs.wait().expect("a child");
}

#[tokio::test]
async fn a_command_inherits_no_descriptor() {
    use std::os::fd::AsRawFd;

    let leaked = fs::File::open("/proc/self/exe").expect("this program");
    // Without the mark that Rust sets, as a descriptor from whoever started the server.
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("an open file");
    let answer = run(&["sh", "-c", "ls /proc/self/fd"], &[]).await;
    let listed: Vec<i32> = answer.text().lines().filter_map(|line| line.parse().ok()).collect();
    assert!(!listed.contains(&leaked.as_raw_fd()), "{listed:?}");
    // Three, and the one that lists them.
    assert_eq!(listed.len(), 4, "{listed:?}");
}
