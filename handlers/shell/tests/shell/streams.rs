//! Bytes go through as they are, as they come, and no faster than they are taken.

use std::path::Path;
use std::time::Duration;

use plugd_core::Data;
use plugd_core::wire::Kind;
use serde_json::json;
use tokio::time::timeout;

use crate::world::{line, line_on, open_in, run, script, shell};

#[tokio::test]
async fn all_byte_values_go_through_both_ways() {
    let all: Vec<u8> = (0..=255).collect();
    let answer = run(&["sh", "-c", "tee /dev/stderr"], &[Data::main(all.clone())]).await;
    assert_eq!((answer.bytes(0), answer.bytes(1)), (all.clone(), all));
}

#[tokio::test]
async fn standard_error_alone_may_be_long() {
    let answer = script("head -c 50000000 /dev/zero >&2").await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    let len: usize = answer.data.iter().map(|data| data.payload.len()).sum();
    assert!(len == 50_000_000 && answer.data.iter().all(|data| data.channel == 1), "{len}");
    assert_eq!(answer.trailer()["stderr_bytes"], 50_000_000);
}

#[tokio::test]
async fn a_long_line_streams_before_its_end() {
    let text = "head -c 10000000 /dev/zero; read go; echo";
    let mut session = open_in(Path::new(""), &["sh", "-c", text]).await;
    let mut len = 0;
    while len < 10_000_000 {
        let frame = session.receiver.frame().await;
        len += if frame.header.kind == Kind::Data { frame.payload.len() } else { 0 };
    }
    session.sender.data(&Data::main("go\n")).await;
    session.sender.end_input().await;
    let answer = session.receiver.answer().await;
    assert_eq!((answer.text().as_str(), answer.status.is_ok()), ("\n", true));
}

#[tokio::test]
async fn frames_come_in_the_order_in_which_the_command_wrote() {
    // Each line is written once the one before was seen.
    let text = "for n in 1 2 3; do echo out $n; read go; echo err $n >&2; read go; done";
    let mut session = open_in(Path::new(""), &["sh", "-c", text]).await;
    for expected in ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3"] {
        let channel = u8::from(expected.starts_with("err"));
        assert_eq!(line_on(&mut session, channel).await, expected);
        session.sender.data(&Data::main("\n")).await;
    }
    session.sender.end_input().await;
    assert!(session.receiver.answer().await.status.is_ok());
}

#[tokio::test]
async fn a_reader_that_stops_stops_its_command_and_no_other() {
    let handler = shell(Path::new(""), json!({}));
    let text = "echo $$; exec cat /dev/zero";
    let mut slow = handler.call("exec").args(json!({ "argv": ["sh", "-c", text] })).start().await;
    let pid = line(&mut slow).await;
    // What the command has read so far; it stops growing when everything between it and the reader is full.
    let moved = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("a running command");
        io.lines().find(|line| line.starts_with("wchar")).map(str::to_owned).expect("a count")
    };
    let mut last = String::new();
    while last != moved() {
        last = moved();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let bytes: u64 = last.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a number");
    assert!(bytes < 8 << 20, "{bytes} bytes are on their way");
    let other = handler.call("exec").args(json!({ "argv": ["echo", "here"] })).start().await.run(&[]).await;
    assert_eq!(other.text(), "here\n");
    slow.vanish().await;
}

#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let mut session = open_in(Path::new(""), &["seq", "200000"]).await;
    session.sender.end_input().await;
    let mut text = Vec::new();
    let status = loop {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let frame = session.receiver.frame().await;
        match frame.header.kind {
            Kind::Data => text.extend_from_slice(&frame.payload),
            Kind::End => break frame,
            _ => {}
        }
    };
    assert!(status.payload.is_empty() || !status.payload.starts_with(b"{\"code\":\"unk"), "{status:?}");
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(text == expected.as_bytes(), "{} of {} bytes", text.len(), expected.len());
}

#[tokio::test]
async fn signals_come_beside_the_input_even_when_nobody_reads_it() {
    let text = "trap 'echo caught; exit 0' USR1; echo ready; while :; do sleep 0.01; done";
    let mut session = open_in(Path::new(""), &["sh", "-c", text]).await;
    assert_eq!(line(&mut session).await, "ready");
    session.sender.data(&Data::main(vec![b'x'; 200_000])).await;
    session.sender.data(&Data { channel: 1, ..Data::main(r#"{"signal":"USR1"}"#) }).await;
    // The `sleep` of the group dies of it; the shell catches it.
    let answer = timeout(Duration::from_secs(10), session.receiver.answer()).await.expect("an end");
    assert_eq!((answer.text().as_str(), answer.status.is_ok()), ("caught\n", true), "{}", answer.status);
}

#[tokio::test]
async fn a_message_beside_the_input_that_nobody_knows_ends_the_call() {
    for (message, reason) in [
        ("{}", "bad-control"),
        ("[", "bad-control"),
        (r#"{"signal":"SEGV"}"#, "bad-signal"),
        (r#"{"resize":{"rows":1,"cols":1}}"#, "no-pty"),
    ] {
        let answer = run(&["sleep", "1000"], &[Data { channel: 1, ..Data::main(message) }]).await;
        assert_eq!(answer.status.reason(), reason, "{message}");
        assert!(answer.trailer()["exit"].is_object(), "{message}");
    }
}
