//! Limits of connections and of the pace of calls, each shown to bite.

use std::time::Duration;

use plugd_core::wire::{FrameHeader, Hello, Kind, Open};
use plugd_core::{Code, Origin};
use rstest::rstest;

use crate::support::process::{EVERYTHING, Plugd};
use crate::support::raw::{RawPeer, eoi, frame, open};
use crate::support::server::{PLUGINS, TestServer};
use crate::support::{soon, until};

fn hello() -> Vec<u8> {
    Hello { data_len_max: 1 << 20 }.encode().to_vec()
}

fn call(command: &str, payload: &[u8]) -> Vec<u8> {
    [open(command), frame(Kind::Data, payload), eoi()].concat()
}

/// How a new connection fares: the reason of its first end, which is empty when its call went well.
async fn fate(server: &TestServer) -> String {
    let mut peer = RawPeer::connect(server.address).await;
    peer.send(&[hello(), call("upper", b"x")].concat()).await;
    peer.hello().await;
    peer.end().await.0
}

/// Waits until a new connection is served.
async fn served_again(server: &TestServer) {
    soon("a free place", async { while !fate(server).await.is_empty() {} }).await;
}

#[rstest]
#[case::per_address("connections_per_address_max = 3", "connections-per-address-max")]
#[case::unidentified("connections_unidentified_max = 3", "connections-unidentified-max")]
#[tokio::test]
async fn one_connection_too_many_is_told_which_limit_it_met(#[case] setting: &str, #[case] reason: &str) {
    let server = TestServer::start_with(setting, PLUGINS).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(RawPeer::greet(server.address).await);
    }
    let mut fourth = RawPeer::connect(server.address).await;
    fourth.hello().await;
    let (_, end) = fourth.answer().await;
    assert_eq!((end.status.code(), end.status.reason()), (Code::ResourceExhausted, reason));
    assert_eq!((end.status.origin(), end.status.retry()), (Origin::Limit, true));
    assert!(end.status.message().contains("allowed: 3"), "{}", end.status);
    drop(peers);
    served_again(&server).await;
}

#[tokio::test]
async fn who_has_opened_a_call_makes_room_for_who_has_not() {
    let server = TestServer::start_with("connections_unidentified_max = 1", PLUGINS).await;
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut peer = RawPeer::greet(server.address).await;
        peer.send(&open("demo.wait")).await;
        peers.push(peer);
        served_again(&server).await;
    }
    for mut peer in peers {
        peer.send(&frame(Kind::Cancel, b"")).await;
        assert_eq!(peer.end().await.0, "cancelled");
    }
}

/// However a connection ends, its place comes back.
#[rstest]
#[case::at_once(vec![], true)]
#[case::closed_at_once(vec![], false)]
#[case::another_protocol(b"GET / HTTP/1.1\r\n\r\n".to_vec(), false)]
#[case::within_the_hello(hello()[..3].to_vec(), true)]
#[case::within_the_header([hello(), open("echo")[..9].to_vec()].concat(), true)]
#[case::within_a_call([hello(), open("demo.wait")].concat(), true)]
#[case::after_a_panic([hello(), open("demo.panic"), eoi()].concat(), false)]
#[case::after_a_violation([hello(), vec![9; 8]].concat(), false)]
#[tokio::test]
async fn a_place_comes_back_whatever_ended_its_connection(#[case] sent: Vec<u8>, #[case] reset: bool) {
    let settings = "connections_max = 2\nconnections_per_address_max = 2\nconnections_unidentified_max = 2";
    let server = TestServer::start_with(settings, PLUGINS).await;
    for _ in 0..20 {
        let mut peer = RawPeer::connect(server.address).await;
        peer.send(&sent).await;
        if reset {
            peer.reset();
        }
    }
    served_again(&server).await;
    // Both places are free, and not only one.
    let first = RawPeer::greet(server.address).await;
    served_again(&server).await;
    drop(first);
}

#[tokio::test]
async fn a_header_of_a_byte_now_and_then_has_one_time_in_all() {
    let server = TestServer::start_with("header_timeout = \"600ms\"\nidle_timeout = \"1h\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    let started = tokio::time::Instant::now();
    let header = open("echo");
    for byte in header.iter().cycle() {
        let sent = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &[*byte]).await;
        let closed = tokio::time::timeout(Duration::from_millis(100), peer.stream.readable()).await;
        if sent.is_err() || closed.is_ok() {
            break;
        }
    }
    assert_eq!(peer.end().await, ("header-timeout".to_owned(), true));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[rstest]
#[case::read_by_the_handler("echo")]
#[case::read_ahead_of_the_handler("demo.deaf")]
#[case::after_the_end_of_its_call("demo.refuse")]
#[tokio::test]
async fn one_empty_frame_too_many_ends_the_connection(#[case] command: &str) {
    let server = TestServer::start_with("empty_frames_max = 500", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    let empty = |count| frame(Kind::Data, b"").repeat(count);
    // Each call counts its own.
    for _ in 0..2 {
        peer.send(&[open("echo"), empty(500), eoi()].concat()).await;
        assert_eq!(peer.end().await, (String::new(), false));
    }
    peer.send(&[open(command), empty(501)].concat()).await;
    let mut end = peer.end().await;
    if end.0 == "not-today" {
        end = peer.end().await;
    }
    assert_eq!(end, ("empty-frames-max".to_owned(), true));
    served_again(&server).await;
}

#[tokio::test]
async fn a_connection_closes_after_its_last_call() {
    let server = TestServer::start_with("calls_per_connection_max = 3", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&call("upper", b"x").repeat(5)).await;
    for closes in [false, false, true] {
        assert_eq!(peer.end().await, (String::new(), closes));
    }
    assert_eq!(peer.rest().await, b"");
}

#[test]
fn a_client_goes_on_over_a_new_connection_after_the_last_call_of_one() {
    let server = Plugd::start_with("calls_per_connection_max = 3", EVERYTHING);
    let tree = server.dir.path().join("tree");
    std::fs::create_dir(&tree).expect("a directory");
    for name in 0..40 {
        std::fs::write(tree.join(name.to_string()), [7; 70_000]).expect("a file");
    }
    let put = server.run(["put", "-r", "tree", "tree"]);
    assert_eq!(put.code, Some(0), "{put:?}");
    assert_eq!(std::fs::read_dir(server.file("tree")).expect("a directory").count(), 40);
}

#[rstest]
#[case::read_by_the_handler("echo")]
#[case::read_ahead_of_the_handler("demo.deaf")]
#[tokio::test]
async fn a_frame_that_trickles_ends_its_call(#[case] command: &str) {
    let server = TestServer::start_with("body_rate_min = \"1KiB\"\nbody_rate_grace = \"300ms\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open(command), FrameHeader::new(Kind::Data, 1 << 20).encode().to_vec()].concat()).await;
    let started = tokio::time::Instant::now();
    let (mut reader, mut writer) = peer.into_split();
    let trickle = async {
        loop {
            writer.send(b"x").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let end = tokio::select! {
        end = reader.answer() => end.1,
        () = trickle => unreachable!("without end"),
    };
    assert_eq!((end.status.code(), end.status.reason()), (Code::ResourceExhausted, "body-rate-min"));
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    served_again(&server).await;
}

#[tokio::test]
async fn silence_between_frames_and_a_handler_that_does_not_read_are_no_slow_body() {
    let server = TestServer::start_with("body_rate_grace = \"100ms\"\nframe_max = \"64KiB\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("echo"), frame(Kind::Data, b"one")].concat()).await;
    assert_eq!(peer.message().await.expect("a message"), b"one");
    let mut deaf = RawPeer::greet(server.address).await;
    // More than is read ahead, and then a part of a frame.
    let many = frame(Kind::Data, &[0; 1 << 16]).repeat(6);
    deaf.send(&[open("demo.deaf"), many, frame(Kind::Data, b"cut")[..9].to_vec()].concat()).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    peer.send(&[frame(Kind::Data, b"two"), eoi()].concat()).await;
    assert_eq!(peer.message().await.expect("a message"), b"two");
    assert_eq!(peer.message().await, None);
    let silent = tokio::time::timeout(Duration::from_millis(100), deaf.stream.readable()).await;
    assert!(silent.is_err(), "the call still runs");
}

/// A call that wants 1 GiB and reads none of it.
#[rstest]
#[case::within_the_call("demo.flood", None)]
#[case::after_its_end("demo.fill", Some(24 << 20))]
#[tokio::test]
async fn who_reads_nothing_loses_the_connection(#[case] command: &str, #[case] len: Option<usize>) {
    let settings = "write_timeout = \"300ms\"\nidle_timeout = \"1h\"\nconnections_max = 1";
    let server = TestServer::start_with(settings, PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    let args = len.map(|len| serde_json::value::to_raw_value(&serde_json::json!({ "len": len })).expect("JSON"));
    let open = Open { args, ..Open::new(command) };
    peer.send(&[frame(Kind::Open, &open.encode()), eoi()].concat()).await;
    // The only place is free again, although nobody has closed anything.
    served_again(&server).await;
    drop(peer);
}

#[tokio::test]
async fn who_reads_slowly_keeps_the_connection() {
    let server = TestServer::start_with("write_timeout = \"1s\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&open("demo.flood")).await;
    for _ in 0..20 {
        for _ in 0..4 {
            peer.frame().await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    peer.send(&frame(Kind::Cancel, b"")).await;
    assert_eq!(peer.end().await.0, "cancelled");
}

/// Resident memory of a process, in bytes.
fn resident(server: &Plugd) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.id())).expect("a running server");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn address(server: &Plugd) -> std::net::SocketAddr {
    server.address.strip_prefix("tcp://").expect("TCP").parse().expect("an address")
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_is_announced_and_never_sent_costs_nothing() {
    const MORE_MAX: usize = 32 << 20;
    let server = Plugd::start_with("connections_per_address_max = 1000", EVERYTHING);
    let before = resident(&server);
    let mut peers = Vec::new();
    for _ in 0..500 {
        let mut peer = RawPeer::greet(address(&server)).await;
        peer.send(&[open("echo"), FrameHeader::new(Kind::Data, 1 << 20).encode().to_vec()].concat()).await;
        peers.push(peer);
    }
    let mut last = RawPeer::greet(address(&server)).await;
    last.send(&call("upper", b"x")).await;
    assert_eq!(last.answer().await.0, b"X");
    let more = resident(&server).saturating_sub(before);
    assert!(more < MORE_MAX, "{more} bytes for 500 connections");
}

#[cfg(target_os = "linux")]
#[rstest]
#[case::of_a_file(r#"{"command":"files.get","args":{"path":"big"}}"#)]
#[case::of_a_command(r#"{"command":"shell.exec","args":{"argv":["head","-c","1073741824","/dev/zero"]}}"#)]
#[tokio::test]
async fn what_is_asked_for_and_never_read_costs_little(#[case] header: &str) {
    const MORE_MAX: usize = 16 << 20;
    let server = Plugd::start(EVERYTHING);
    let big = std::fs::File::create(server.file("big")).expect("a file");
    big.set_len(1 << 30).expect("a file with a hole");
    let before = resident(&server);
    let mut peer = RawPeer::greet(address(&server)).await;
    peer.send(&[frame(Kind::Open, header.as_bytes()), eoi()].concat()).await;
    peer.exactly(100_000).await;
    let most = std::cell::Cell::new(0);
    // Nothing tells from outside that a server has stopped to fill its buffers but that they stay as they are.
    let seen = std::cell::Cell::new((0, 0));
    until("an end of its growth", || {
        let now = resident(&server);
        most.set(most.get().max(now));
        let (last, same) = seen.get();
        seen.set((now, if now == last { same + 1 } else { 0 }));
        same > 50
    })
    .await;
    let more = most.get().saturating_sub(before);
    assert!(more < MORE_MAX, "{more} bytes for one call");
}
