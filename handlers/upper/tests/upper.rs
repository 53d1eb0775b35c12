//! The handler over a connection in memory.

use plugd_core::testing::conformance::Subject;
use plugd_core::testing::{Answer, Plugin};
use plugd_core::{Code, Data};
use plugd_upper as _;
use serde_json::json;

async fn call(input: &[Data]) -> Answer {
    Plugin::linked("upper", json!({})).call("upper").start().await.run(input).await
}

#[tokio::test]
async fn each_frame_is_answered_by_one_with_its_boundaries() {
    let sent = [Data { more: true, ..Data::main(&b"stra\xc3"[..]) }, Data::main(&b"\x9fe"[..]), Data::main("")];
    let answer = call(&sent).await;
    assert_eq!(answer.data, [Data { more: true, ..Data::main("STRA") }, Data::main("SSE"), Data::main("")]);
    assert!(answer.status.is_ok(), "{}", answer.status);
}

#[tokio::test]
async fn bytes_that_are_no_text_end_the_call_by_naming_their_place() {
    let answer = call(&[Data::main("ab"), Data::main(&b"c\xff"[..])]).await;
    assert_eq!(answer.status.code(), Code::InvalidArgument);
    assert_eq!(answer.status.reason(), "invalid-utf8");
    assert_eq!(answer.status.message(), "input is not UTF-8 at byte 3");
    assert_eq!(answer.text(), "AB");
}

#[tokio::test]
async fn data_on_a_side_channel_is_refused() {
    let answer = call(&[Data { channel: 3, ..Data::main("a") }]).await;
    assert_eq!(answer.status.reason(), "unexpected-channel");
}

plugd_core::conformance! {
    conforms: Subject::linked("upper", json!({})).sample("upper", json!({}), [Data::main("hello"), Data::main("")])
}

#[test]
fn the_readme_tells_what_the_handler_is() {
    plugd_core::testing::check_readme("upper", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
