//! The handler over a connection in memory.

use plugd_core::Data;
use plugd_core::testing::conformance::Subject;
use plugd_core::testing::{Answer, Plugin};
use plugd_echo as _;
use serde_json::json;

async fn call(input: &[Data]) -> Answer {
    Plugin::linked("echo", json!({})).call("echo").start().await.run(input).await
}

#[tokio::test]
async fn every_frame_comes_back_on_its_channel_with_its_boundaries() {
    let sent = vec![
        Data { more: true, ..Data::main("one ") },
        Data::main("message"),
        Data::main(""),
        Data { channel: 7, ..Data::main(vec![0xff; 70_000]) },
    ];
    let answer = call(&sent).await;
    assert_eq!(answer.data, sent);
    assert!(answer.status.is_ok(), "{}", answer.status);
}

#[tokio::test]
async fn no_input_gives_no_output() {
    let answer = call(&[]).await;
    assert_eq!(answer.data, []);
    assert!(answer.status.is_ok(), "{}", answer.status);
}

plugd_core::conformance! {
    conforms: Subject::linked("echo", json!({})).sample("echo", json!({}), [Data::main("hello"), Data::main("")])
}

#[test]
fn the_readme_tells_what_the_handler_is() {
    plugd_core::testing::check_readme("echo", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
}
