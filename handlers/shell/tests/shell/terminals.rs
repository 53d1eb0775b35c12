//! Commands with a terminal.

use std::path::Path;

use plugd_core::wire::Kind;
use plugd_core::{Code, Data};
use serde_json::{Value, json};

use crate::world::{exec_with, shell};
use plugd_core::testing::Session;

async fn open(text: &str) -> Session {
    let handler = shell(Path::new(""), json!({ "pty": true }));
    let args = json!({ "argv": ["sh", "-c", text], "pty": { "term": "vt100", "rows": 30, "cols": 100 } });
    handler.call("exec").args(args).start().await
}

/// Reads until the output holds `text`.
async fn until(session: &mut Session, text: &str) -> String {
    let mut found = String::new();
    while !found.contains(text) {
        let frame = session.receiver.frame().await;
        assert_ne!(frame.header.kind, Kind::End, "{text:?} not in {found:?}");
        if frame.header.kind == Kind::Data {
            found += &String::from_utf8_lossy(&frame.payload);
        }
    }
    found
}

fn control(message: Value) -> Data {
    Data { channel: 1, ..Data::main(message.to_string()) }
}

#[tokio::test]
async fn a_terminal_has_the_size_that_was_asked_for_and_sees_it_change() {
    let text = "echo $TERM; stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut session = open(text).await;
    let begin = until(&mut session, "ready").await;
    assert!(begin.contains("vt100\r\n30 100\r\n"), "{begin:?}");
    session.sender.data(&control(json!({ "resize": { "rows": 50, "cols": 132 } }))).await;
    until(&mut session, "50 132").await;
    assert!(session.receiver.answer().await.status.is_ok());
}

#[tokio::test]
async fn control_c_goes_to_who_is_in_the_foreground() {
    // As a person types it, and as a message: `sleep` dies, the shell goes on.
    for interrupt in [Data::main("\x03"), control(json!({ "signal": "INT" }))] {
        let text = "trap : INT; sh -c 'echo ready; exec sleep 1000'; echo \"sleep: $?\"; exit 7";
        let mut session = open(text).await;
        until(&mut session, "ready").await;
        session.sender.data(&interrupt).await;
        until(&mut session, "sleep: 130").await;
        let answer = session.receiver.answer().await;
        assert_eq!(answer.trailer()["exit"], json!({ "code": 7 }));
    }
}

#[tokio::test]
async fn everything_comes_on_one_channel_and_input_ends_as_a_person_ends_it() {
    let mut session = open("echo out; echo err >&2; cat; echo bye").await;
    until(&mut session, "err").await;
    session.sender.data(&Data::main("typed\n")).await;
    session.sender.end_input().await;
    let answer = session.receiver.answer().await;
    assert!(answer.text().ends_with("bye\r\n") && answer.bytes(1).is_empty(), "{:?}", answer.text());
    assert!(answer.status.is_ok(), "{}", answer.status);
}

#[tokio::test]
async fn a_terminal_is_the_controlling_one_and_its_session_ends_with_the_call() {
    let mut session = open("tty </dev/tty >/dev/null && echo $$; sleep 1000 & wait").await;
    let pid = until(&mut session, "\n").await;
    session.sender.cancel().await;
    let answer = session.receiver.answer().await;
    assert_eq!(answer.status.code(), Code::Cancelled);
    crate::world::gone(pid.trim(), false).await;
}

#[tokio::test]
async fn terminals_are_off_unless_the_settings_say_otherwise() {
    let answer = exec_with(json!({}), json!({ "argv": ["tty"], "pty": {} })).await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::PermissionDenied, "pty-not-allowed"));
}
