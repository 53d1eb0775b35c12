//! Calls on one connection, as a client of raw frames sees them: order, limits, and everything a caller may do wrong.

use bytes::Bytes;
use plugd_core::wire::{FrameHeader, Kind, Open};
use plugd_core::{Code, Origin};
use rstest::rstest;
use tokio::io::AsyncWriteExt;

use crate::support::raw::{RawPeer, eoi, frame, open};
use crate::support::server::{PLUGINS, TestServer};
use crate::support::soon;

fn cancel() -> Vec<u8> {
    frame(Kind::Cancel, b"")
}

/// A whole call of `command` with one message.
fn call(command: &str, payload: &[u8]) -> Vec<u8> {
    [open(command), frame(Kind::Data, payload), eoi()].concat()
}

fn raw(json: &str) -> Box<serde_json::value::RawValue> {
    serde_json::value::RawValue::from_string(json.to_owned()).expect("JSON")
}

/// The connection still takes calls.
async fn assert_alive(peer: &mut RawPeer) {
    peer.send(&call("upper", b"still here")).await;
    let (data, end) = peer.answer().await;
    assert_eq!((data, end.status.code()), (b"STILL HERE".to_vec(), Code::Ok));
}

#[tokio::test]
async fn ten_thousand_messages_and_one_of_100_mib_arrive_whole_and_apart() {
    const BIG_LEN: usize = 100 << 20;
    let server = TestServer::start(PLUGINS).await;
    let peer = RawPeer::greet(server.address).await;
    let (mut reader, mut writer) = peer.into_split();
    let piece = Bytes::from(vec![0xa5; 1 << 20]);
    let sending = tokio::spawn(async move {
        let small: Vec<u8> = (0..10_000).flat_map(|index: u32| frame(Kind::Data, &index.to_be_bytes())).collect();
        writer.send(&[open("echo"), small].concat()).await;
        for index in 1..=BIG_LEN / piece.len() {
            let more = index * piece.len() < BIG_LEN;
            let header = FrameHeader { more, ..FrameHeader::new(Kind::Data, piece.len() as u32) };
            writer.send(&[&header.encode()[..], &piece].concat()).await;
        }
        writer.send(&[frame(Kind::Data, b"after"), eoi()].concat()).await;
        writer
    });
    for index in 0..10_000u32 {
        assert_eq!(reader.message().await.expect("a message"), index.to_be_bytes());
    }
    let big = reader.message().await.expect("a message");
    assert!(big.len() == BIG_LEN && big.iter().all(|byte| *byte == 0xa5), "{} bytes", big.len());
    assert_eq!(reader.message().await.expect("a message"), b"after");
    assert_eq!(reader.message().await, None);
    sending.await.expect("everything sent");
}

#[tokio::test]
async fn pipelined_calls_are_answered_in_order() {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    let calls: Vec<u8> = (0..500).flat_map(|index| call("upper", format!("call {index}").as_bytes())).collect();
    peer.send(&calls).await;
    for index in 0..500 {
        let (data, end) = peer.answer().await;
        assert_eq!(data, format!("CALL {index}").as_bytes());
        assert!(end.status.is_ok());
    }
}

#[rstest]
#[case::no_json(b"not json".to_vec(), "malformed-header")]
#[case::an_array(br#"["echo",null,5000,{}]"#.to_vec(), "malformed-header")]
#[case::empty(b"".to_vec(), "malformed-header")]
#[case::not_utf8(b"{\"command\":\"\xff\"}".to_vec(), "malformed-header")]
#[case::no_command(b"{}".to_vec(), "malformed-header")]
#[case::unknown_field(br#"{"command":"echo","comand":1}"#.to_vec(), "malformed-header")]
#[case::duplicate_field(br#"{"command":"echo","command":"echo"}"#.to_vec(), "malformed-header")]
#[case::a_hundred_levels(
    [br#"{"command":"echo","args":"#.to_vec(), b"{\"a\":".repeat(100), b"1".to_vec(), b"}".repeat(101)].concat(),
    "malformed-header"
)]
#[case::unknown_plugin(br#"{"command":"ech"}"#.to_vec(), "unknown-plugin")]
#[case::unknown_operation(br#"{"command":"echo.ech"}"#.to_vec(), "unknown-operation")]
#[case::several_operations(br#"{"command":"demo"}"#.to_vec(), "unknown-operation")]
#[case::unknown_argument(br#"{"command":"echo","args":{"x":1}}"#.to_vec(), "unknown-argument")]
#[case::missing_argument(br#"{"command":"demo.repeat"}"#.to_vec(), "bad-arguments")]
#[case::argument_of_wrong_type(br#"{"command":"demo.repeat","args":{"times":"x"}}"#.to_vec(), "bad-arguments")]
#[tokio::test]
async fn a_refused_header_costs_only_its_call(#[case] header: Vec<u8>, #[case] reason: &str) {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[frame(Kind::Open, &header), frame(Kind::Data, b"ignored"), eoi()].concat()).await;
    assert_eq!(peer.end().await, (reason.to_owned(), false));
    assert_alive(&mut peer).await;
}

#[rstest]
#[case::data_of_4_gib(FrameHeader::new(Kind::Data, u32::MAX).encode().to_vec(), "frame-too-long")]
#[case::header_over_its_limit(FrameHeader::new(Kind::Open, 65_537).encode().to_vec(), "frame-too-long")]
#[case::eoi_with_payload(FrameHeader::new(Kind::EndOfInput, 1).encode().to_vec(), "frame-too-long")]
#[case::unknown_kind(vec![7, 0, 0, 0, 0, 0, 0, 0], "malformed-frame")]
#[case::unknown_flag(vec![3, 4, 0, 0, 0, 0, 0, 0], "malformed-frame")]
#[case::reserved_byte(vec![3, 0, 0, 1, 0, 0, 0, 0], "malformed-frame")]
#[case::channel_on_eoi(vec![4, 0, 1, 0, 0, 0, 0, 0], "malformed-frame")]
#[case::head_from_the_client(frame(Kind::Head, b"{}"), "unexpected-frame")]
#[case::end_from_the_client(frame(Kind::End, b""), "unexpected-frame")]
#[tokio::test]
async fn a_bad_frame_ends_call_and_connection(
    #[case] bytes: Vec<u8>,
    #[case] reason: &str,
    #[values(false, true)] within_a_call: bool,
) {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    let before = if within_a_call { open("demo.wait") } else { Vec::new() };
    peer.send(&[before, bytes].concat()).await;
    assert_eq!(peer.end().await, (reason.to_owned(), true));
    assert_eq!(peer.rest().await, b"");
}

#[rstest]
#[case::data(frame(Kind::Data, b"x"))]
#[case::end_of_input(eoi())]
#[case::a_second_cancel([cancel(), cancel()].concat())]
#[tokio::test]
async fn a_frame_outside_a_call_ends_the_connection(#[case] bytes: Vec<u8>) {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[call("upper", b"a"), bytes].concat()).await;
    assert_eq!(peer.end().await, (String::new(), false));
    assert_eq!(peer.end().await, ("unexpected-frame".to_owned(), true));
}

#[tokio::test]
async fn a_second_open_within_a_call_ends_the_connection() {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("demo.wait"), open("echo")].concat()).await;
    assert_eq!(peer.end().await, ("unexpected-frame".to_owned(), true));
}

#[tokio::test]
async fn a_violation_behind_a_good_call_waits_for_its_turn() {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[call("upper", b"good"), FrameHeader::new(Kind::Data, u32::MAX).encode().to_vec()].concat()).await;
    let (data, end) = peer.answer().await;
    assert_eq!((data, end.status.code()), (b"GOOD".to_vec(), Code::Ok));
    assert_eq!(peer.end().await, ("frame-too-long".to_owned(), true));
}

#[tokio::test]
async fn exactly_the_longest_frame_passes() {
    let server = TestServer::start_with("frame_max = \"64KiB\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&call("echo", &[7; 65_536])).await;
    assert_eq!(peer.answer().await.0, [7; 65_536]);
    peer.send(&[open("echo"), FrameHeader::new(Kind::Data, 65_537).encode().to_vec()].concat()).await;
    assert_eq!(peer.end().await, ("frame-too-long".to_owned(), true));
}

#[tokio::test]
async fn cancel_ends_a_call_and_a_late_one_is_ignored() {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("demo.wait"), frame(Kind::Data, b"unread"), cancel()].concat()).await;
    assert_eq!(peer.end().await, ("cancelled".to_owned(), false));
    peer.send(&call("upper", b"a")).await;
    assert_eq!(peer.end().await, (String::new(), false));
    peer.send(&cancel()).await;
    assert_alive(&mut peer).await;
}

#[tokio::test]
async fn a_handler_that_ignores_its_cancellation_is_dropped_after_the_grace_time() {
    let server = TestServer::start_with("grace = \"100ms\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("demo.stubborn"), cancel()].concat()).await;
    assert_eq!(peer.end().await, ("cancelled".to_owned(), false));
    assert_alive(&mut peer).await;
}

#[tokio::test]
async fn the_plugins_deadline_caps_the_callers() {
    let plugins = format!("{PLUGINS}[plugins.short]\nhandler = \"demo\"\nlimits = {{ deadline = \"50ms\" }}\n");
    let server = TestServer::start(&plugins).await;
    let mut peer = RawPeer::greet(server.address).await;
    let open = Open { deadline_ms: Some(3_600_000), ..Open::new("short.wait") };
    peer.send(&frame(Kind::Open, &open.encode())).await;
    let (_, end) = peer.answer().await;
    assert_eq!((end.status.code(), end.status.origin()), (Code::DeadlineExceeded, Origin::Deadline));
    assert_eq!(end.status.message(), "the call took longer than 50ms");
}

#[tokio::test]
async fn a_handlers_failure_reaches_the_caller_without_its_detail() {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("demo.refuse"), eoi()].concat()).await;
    let (_, end) = peer.answer().await;
    assert_eq!(end.status.to_string(), "failed_precondition (not-today): not today");
    assert_eq!(end.status.origin(), Origin::Handler);
    assert_eq!(end.trailer, serde_json::json!({ "left": 3 }).as_object().cloned());
}

#[tokio::test]
async fn a_handler_cannot_send_its_header_late() {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("demo.head-late"), eoi()].concat()).await;
    assert_eq!(peer.end().await, ("head-too-late".to_owned(), false));
}

#[tokio::test]
async fn a_thousand_panics_leave_the_connection_whole() {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    for _ in 0..1_000 {
        peer.send(&[open("demo.panic"), eoi()].concat()).await;
        assert_eq!(peer.end().await, ("panic".to_owned(), false));
    }
    assert_alive(&mut peer).await;
}

#[tokio::test]
async fn a_handler_that_panics_before_its_first_step_or_after_its_last_costs_only_its_call() {
    let plugins = format!("{PLUGINS}[plugins.hasty]\n");
    let server = TestServer::start_with("grace = \"10ms\"", &plugins).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("hasty"), eoi()].concat()).await;
    assert_eq!(peer.end().await, ("panic".to_owned(), false));
    peer.send(&[open("demo.panic-in-drop"), cancel()].concat()).await;
    assert_eq!(peer.end().await, ("cancelled".to_owned(), false));
    assert_alive(&mut peer).await;
}

#[tokio::test]
async fn an_answer_waits_for_a_slow_reader_however_many_headers_are_behind_it() {
    let server = TestServer::start_with("header_timeout = \"200ms\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    // More than every buffer on the way holds, so that the server's writing waits for the reader.
    const LEN: usize = 30 << 20;
    let open = Open { args: Some(raw(&format!("{{\"len\":{LEN}}}"))), ..Open::new("demo.fill") };
    peer.send(&[frame(Kind::Open, &open.encode()), eoi(), call("upper", b"next")].concat()).await;
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let (data, end) = peer.answer().await;
    assert_eq!((data.len(), end.status.code()), (LEN, Code::Ok));
    assert_eq!(peer.answer().await.0, b"NEXT");
}

#[tokio::test]
async fn an_answer_to_a_slow_reader_survives_the_drain() {
    let server = TestServer::start_with("drain_timeout = \"1h\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    const LEN: usize = 30 << 20;
    let open = Open { args: Some(raw(&format!("{{\"len\":{LEN}}}"))), ..Open::new("demo.fill") };
    peer.send(&[frame(Kind::Open, &open.encode()), eoi()].concat()).await;
    peer.exactly(1).await;
    server.control.drain();
    // Longer than the last words of a server that was not asked to wait may take.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let rest = peer.rest().await;
    assert!(
        rest.len() > LEN && rest.ends_with(&FrameHeader { close: true, ..FrameHeader::new(Kind::End, 0) }.encode())
    );
}

#[tokio::test]
async fn empty_frames_are_not_free() {
    let server = TestServer::start_with("empty_frames_max = 1000000000", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&open("demo.deaf")).await;
    let empty = frame(Kind::Data, b"").repeat(8 << 10);
    // A handler that reads nothing makes its caller wait sooner or later, whatever the caller sends.
    for _ in 0..10_000 {
        let written = tokio::time::timeout(std::time::Duration::from_secs(1), peer.stream.write_all(&empty)).await;
        if written.is_err() {
            return;
        }
    }
    panic!("640 MiB of empty frames went through");
}

#[tokio::test]
async fn a_slow_reader_slows_its_own_call_and_no_other() {
    let server = TestServer::start(PLUGINS).await;
    let mut slow = RawPeer::greet(server.address).await;
    slow.send(&[open("demo.flood"), eoi()].concat()).await;
    slow.exactly(1).await;
    let mut other = RawPeer::greet(server.address).await;
    for _ in 0..100 {
        assert_alive(&mut other).await;
    }
}

/// A handler that reads nothing hides the caller's end behind unread input; the server must notice all the same.
#[rstest]
#[case::within_the_read_ahead(10_000)]
#[case::behind_more_than_is_read_ahead(1_000_000)]
#[tokio::test]
async fn a_caller_that_vanishes_cancels_a_handler_that_reads_nothing(#[case] unread_len: usize) {
    let server = TestServer::start_with("drain_timeout = \"1h\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    let pieces: Vec<u8> = vec![0; unread_len].chunks(1 << 16).flat_map(|piece| frame(Kind::Data, piece)).collect();
    peer.send(&[open("demo.deaf"), pieces].concat()).await;
    drop(peer);
    server.control.drain();
    server.stopped().await;
}

/// Drained connections are gone when the server has stopped, so that a vanished caller must have been noticed by then.
#[rstest]
#[case::after_connecting(vec![])]
#[case::within_the_hello(b"PLU".to_vec())]
#[case::within_a_header(open("echo")[..11].to_vec())]
#[case::within_a_frame([open("echo"), frame(Kind::Data, b"cut")[..9].to_vec()].concat())]
#[case::within_a_call(open("demo.wait"))]
#[case::after_its_input(call("demo.wait", b"x"))]
#[case::before_its_answers(call("upper", b"x").repeat(1_000))]
#[tokio::test]
async fn a_caller_may_vanish_in_the_middle_of_anything(#[case] sent: Vec<u8>) {
    let server = TestServer::start_with("drain_timeout = \"1h\"", PLUGINS).await;
    let hello = plugd_core::wire::Hello { data_len_max: 1 << 20 }.encode();
    for cut in [true, false] {
        let mut peer = RawPeer::connect(server.address).await;
        if sent != b"PLU" && !sent.is_empty() {
            peer.send(&hello).await;
        }
        peer.send(&sent).await;
        if cut {
            peer.reset();
        }
    }
    let mut other = RawPeer::greet(server.address).await;
    assert_alive(&mut other).await;
    drop(other);
    server.control.drain();
    soon("end of the server", server.stopped()).await;
}

#[tokio::test]
async fn a_handler_that_ends_well_may_panic_in_its_drop() {
    let plugins = format!("{PLUGINS}[plugins.parting]\n");
    let server = TestServer::start(&plugins).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("parting"), eoi()].concat()).await;
    assert_eq!(peer.end().await, (String::new(), false));
    assert_alive(&mut peer).await;
}
