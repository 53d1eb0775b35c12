//! The audit: who called what, as whom, with which end.

use plugd_core::wire::{FrameHeader, Kind};
use serde_json::{Value, json};

use crate::support::process::{Plugd, wait_until};
use crate::support::raw::{RawPeer, eoi, frame, open};

const PLUGINS: &str = "\
[plugins.echo]
limits = { rate = \"2/h\" }

[plugins.upper]
access.allow = [\"uid:4711\"]

[plugins.files]
handler = \"file\"
config = { root = \"files\" }
";

fn audited() -> Plugd {
    Plugd::start_with("audit = \"file:audit.log\"", PLUGINS)
}

/// The lines of calls, once there are so many.
fn lines(server: &Plugd, count: usize) -> Vec<Value> {
    let text = || std::fs::read_to_string(server.dir.path().join("audit.log")).expect("an audit");
    wait_until("line of every call", || text().lines().count() >= count);
    let lines: Vec<Value> = text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

#[test]
fn every_call_is_one_line_with_its_caller_command_and_end() {
    let server = audited();
    assert_eq!(server.run(["call", "echo", "--data", "12345"]).code, Some(0));
    let line = &lines(&server, 1)[0];
    assert_eq!(
        (&line["target"], &line["message"], &line["id"]),
        (&json!("plugd::audit"), &json!("call"), &json!("1.1"))
    );
    assert_eq!((&line["command"], &line["plugin"]), (&json!("\"echo\""), &json!("echo")));
    assert_eq!((&line["operation"], &line["code"], &line["reason"]), (&json!("echo"), &json!("ok"), &json!("")));
    assert_eq!((&line["received"], &line["sent"]), (&json!(5), &json!(5)));
    assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
    assert!(line["duration_ms"].is_number() && line["timestamp"].is_string(), "{line}");
}

#[test]
fn refused_attempts_have_their_line_and_the_true_reason() {
    let server = audited();
    server.run(["call", "upper", "--data", "x"]);
    server.run(["call", "ehco"]);
    server.run(["call", "files.get", "pth=x"]);
    for _ in 0..3 {
        server.run(["call", "echo", "--data", "x"]);
    }
    let told: Vec<Value> = lines(&server, 6).iter().map(|line| json!([line["reason"], line["origin"]])).collect();
    let expected = [
        json!(["unknown-plugin", "access"]),
        json!(["unknown-plugin", "server"]),
        json!(["unknown-argument", "server"]),
        json!(["", "handler"]),
        json!(["", "handler"]),
        json!(["rate", "limit"]),
    ];
    assert_eq!(told, expected);
}

#[test]
fn arguments_are_named_and_neither_their_values_nor_payload_are_told() {
    let server = audited();
    server.run(["call", "files.get", "path=s3cret", "s3cret=1", "--data", "s3cret"]);
    server.run(["call", "files.get", "path=s3cret", "offset:=7"]);
    let lines = lines(&server, 2);
    assert_eq!((&lines[0]["args"], &lines[1]["args"]), (&json!("path (and 1 unknown)"), &json!("offset, path")));
    let text = std::fs::read_to_string(server.dir.path().join("audit.log")).expect("an audit");
    assert!(!text.contains("s3cret"), "{text}");
}

#[test]
fn a_command_of_any_bytes_stays_one_escaped_line() {
    let server = audited();
    server.run(["call", "x\n\r\u{1b}[31m\u{202e}y"]);
    let header = br#"{"command":"a\u0000\u2066b"}"#;
    let address = server.address.strip_prefix("tcp://").expect("TCP").parse().expect("an address");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut peer = RawPeer::greet(address).await;
        peer.send(&[frame(Kind::Open, header), eoi()].concat()).await;
        assert_eq!(peer.end().await, ("unknown-plugin".to_owned(), false));
    });
    let lines = lines(&server, 2);
    assert_eq!(lines[0]["command"], r#""x\n\r\u{1b}[31m\u{202e}y""#);
    assert_eq!(lines[1]["command"], r#""a\0\u{2066}b""#);
}

#[tokio::test]
async fn a_caller_that_breaks_off_has_its_line() {
    let server = audited();
    let address = server.address.strip_prefix("tcp://").expect("TCP").parse().expect("an address");
    for rest in [Vec::new(), FrameHeader::new(Kind::Data, u32::MAX).encode().to_vec()] {
        let mut peer = RawPeer::greet(address).await;
        peer.send(&[open("echo"), frame(Kind::Data, b"x"), rest].concat()).await;
        assert_eq!(peer.frame().await.payload, "x");
        peer.reset();
    }
    let lines = tokio::task::spawn_blocking(move || lines(&server, 2)).await.expect("lines");
    let mut reasons: Vec<&Value> = lines.iter().map(|line| &line["reason"]).collect();
    reasons.sort_by_key(|reason| reason.to_string());
    assert_eq!(reasons, ["caller-gone", "frame-too-long"]);
}

/// In the log the line of a call is its audit; where the filter keeps that out, the audit has its own.
#[test]
fn the_log_says_nothing_twice() {
    for (filter, target) in [("info", "plugd::call"), ("warn,plugd::audit=info", "plugd::audit")] {
        let server = Plugd::start_logged_by(filter, "[plugins.echo]\n");
        assert_eq!(server.run(["call", "echo", "--data", "x"]).code, Some(0));
        let log = server.log();
        let calls = log.iter().filter(|event| event["sent"] == 1);
        assert_eq!(calls.map(|event| &event["target"]).collect::<Vec<_>>(), [target], "{log:#?}");
    }
}
