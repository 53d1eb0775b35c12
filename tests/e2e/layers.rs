//! Layers around plugins: in which order they stand, what they see, and what our own do.

use std::time::Duration;

use plugd_core::Origin;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::layers::journal;
use crate::support::process::Plugd;
use crate::support::raw::{RawPeer, eoi, frame, open};
use crate::support::server::TestServer;
use plugd_core::wire::Kind;

/// A server whose layers write into `name`, with more settings of the inner one.
async fn observed(name: &str, more: &str) -> TestServer {
    let plugins = format!(
        "[layers.outer]\njournal = \"{name}\"\n[layers.inner]\njournal = \"{name}\"\n{more}\n\
         [plugins.demo]\nlayers = [\"inner\"]\nlimits.deadline = \"10s\"\n"
    );
    TestServer::start_with("layers = [\"outer\"]\ngrace = \"50ms\"", &plugins).await
}

#[tokio::test]
async fn layers_stand_in_the_order_of_the_configuration_and_hear_of_the_end_inside_out() {
    let server = observed("order", "").await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[frame(Kind::Open, br#"{"command":"demo.fill","args":{"len":5},"deadline_ms":500}"#), eoi()].concat())
        .await;
    assert_eq!(peer.frame().await.payload.len(), 5);
    assert_eq!(peer.end().await, (String::new(), false));
    let expected = [
        "i wraps demo of demo",
        "o wraps demo of demo",
        "o demo.fill {\"len\":5} Some(500ms)",
        "i demo.fill {\"len\":5} Some(500ms)",
        "o handles",
        "i handles",
        "i fill ended ok  0 5",
        "o fill ended ok  0 5",
    ];
    assert_eq!(journal("order"), expected);
}

#[rstest]
#[case::panic("panic", "internal panic 0 0")]
#[case::status_and_trailer("refuse", "failed_precondition not-today 1 0")]
#[case::unread_arguments("report", "ok  1 6")]
#[tokio::test]
async fn every_end_is_heard(#[case] operation: &str, #[case] end: &str) {
    let name = format!("ends-{operation}");
    let server = observed(&name, "").await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open(&format!("demo.{operation}")), eoi()].concat()).await;
    peer.end().await;
    let lines = journal(&name);
    let ended = lines.iter().find(|line| line.starts_with("o ") && line.contains(" ended ")).expect("an end");
    assert_eq!(ended, &format!("o {operation} ended {end}"));
}

#[tokio::test]
async fn the_end_of_a_call_whose_handler_is_dropped_is_heard_once() {
    let server = observed("dropped", "").await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&frame(Kind::Open, br#"{"command":"demo.stubborn","deadline_ms":20}"#)).await;
    assert_eq!(peer.end().await, ("deadline".to_owned(), false));
    let ends = |name: &str| journal(name).into_iter().filter(|line| line.contains("ended")).collect::<Vec<_>>();
    let deadline =
        ["i stubborn ended deadline_exceeded deadline 0 0", "o stubborn ended deadline_exceeded deadline 0 0"];
    assert_eq!(ends("dropped"), deadline);

    // A connection that is dropped in the middle of a call ends it too.
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&open("demo.wait")).await;
    crate::support::until("the call runs", || journal("dropped").iter().any(|line| line.contains("demo.wait"))).await;
    server.control.stop_at_once();
    server.stopped().await;
    assert_eq!(ends("dropped").len(), 4, "{:?}", ends("dropped"));
}

#[tokio::test]
async fn a_layer_refuses_before_arguments_are_looked_at_and_the_connection_stays() {
    let server = observed("refused", "refuse = \"fill\"\npanic = \"report\"").await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[frame(Kind::Open, br#"{"command":"demo.fill","args":{"x":1}}"#), eoi()].concat()).await;
    let end = peer.status().await;
    assert_eq!((end.reason(), end.origin()), ("not-you", Origin::Server));
    peer.send(&[open("demo.report"), eoi()].concat()).await;
    let end = peer.status().await;
    assert_eq!((end.reason(), end.message()), ("panic", "a layer failed"));
    let lines = journal("refused");
    assert!(lines.contains(&"o fill ended permission_denied not-you 0 0".to_owned()), "{lines:?}");
    assert!(!lines.iter().any(|line| line.ends_with("handles")), "{lines:?}");
    peer.send(&[open("demo.refuse"), eoi()].concat()).await;
    assert_eq!(peer.end().await, ("not-today".to_owned(), false));
}

#[tokio::test]
async fn calls_at_once_are_limited_in_all_and_for_each_peer_and_given_back() {
    let limited = "[plugins.demo]\nlimits = { calls_max = 2, calls_per_peer_max = 1 }\n";
    let server = TestServer::start(limited).await;
    let mut first = RawPeer::greet(server.address).await;
    first.send(&open("demo.flood")).await;
    first.frame().await;
    let mut second = RawPeer::greet(server.address).await;
    second.send(&[open("demo.report"), eoi()].concat()).await;
    let refused = second.status().await;
    assert_eq!((refused.reason(), refused.origin(), refused.retry()), ("calls-per-peer-max", Origin::Limit, true));
    first.reset();
    // However the call ended, its place is free again.
    let again = async {
        loop {
            second.send(&[open("demo.refuse"), eoi()].concat()).await;
            if second.status().await.reason() == "not-today" {
                return;
            }
        }
    };
    crate::support::soon("a free place", again).await;
}

#[test]
fn a_peer_that_calls_too_fast_is_told_when_to_come_back() {
    let server = Plugd::start("[plugins.echo]\nlimits = { rate = \"2/h\" }\n");
    let codes: Vec<Option<i32>> = (0..2).map(|_| server.run(["call", "echo", "--data", "x"]).code).collect();
    assert_eq!(codes, [Some(0), Some(0)]);
    let refused = server.run(["--json", "call", "echo", "--data", "x"]);
    let envelope = refused.json();
    assert_eq!((refused.code, &envelope["status"]["reason"]), (Some(64 + 8), &json!("rate")));
    let wait_ms = envelope["trailer"]["retry_after_ms"].as_u64().expect("a time");
    assert!((1..=1_800_001).contains(&wait_ms), "{envelope}");
}

#[test]
fn metrics_are_read_as_json_and_as_prometheus_reads_them() {
    let plugins = "[plugins.echo]\nlimits = { calls_max = 5 }\n[plugins.upper]\n";
    let server = Plugd::start(&format!("layers = [\"metrics\"]\n{plugins}"));
    for _ in 0..3 {
        assert_eq!(server.run(["call", "echo", "--data", "four"]).code, Some(0));
    }
    let metrics: Value = serde_json::from_str(server.run(["call", "plugd.metrics"]).text()).expect("JSON");
    let calls = &metrics["plugd_calls_total"]["samples"][0];
    assert_eq!(calls, &json!({ "labels": { "plugin": "echo", "operation": "echo", "code": "ok" }, "value": 3 }));
    assert_eq!(metrics["plugd_sent_bytes_total"]["samples"][0]["value"], 12);
    assert_eq!(metrics["plugd_calls_running"]["samples"][0]["value"], 0);
    assert_eq!(metrics["plugd_limits_refused_total"]["samples"][0]["value"], 0);
    let text = server.run(["call", "plugd.metrics", "format=prometheus"]);
    assert!(
        text.text().contains("plugd_calls_total{plugin=\"echo\",operation=\"echo\",code=\"ok\"} 3\n"),
        "{}",
        text.text()
    );
    assert!(
        text.text().contains("plugd_call_seconds_count{plugin=\"echo\",operation=\"echo\"} 3\n"),
        "{}",
        text.text()
    );
}

#[tokio::test]
async fn a_deadline_of_the_plugin_holds_as_before() {
    let server = TestServer::start("[plugins.demo]\nlimits.deadline = \"20ms\"\n").await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&open("demo.wait")).await;
    let end = tokio::time::timeout(Duration::from_secs(10), peer.end()).await.expect("an end");
    assert_eq!(end.0, "deadline");
}
