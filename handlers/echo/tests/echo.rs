//! The handler over a connection in memory.

mod memory;

use plugd_core::Data;
use plugd_echo as _;

#[tokio::test]
async fn every_frame_comes_back_on_its_channel_with_its_boundaries() {
    let sent = vec![
        Data { more: true, ..Data::main("one ") },
        Data::main("message"),
        Data::main(""),
        Data { channel: 7, ..Data::main(vec![0xff; 70_000]) },
    ];
    let answer = memory::call("echo", &sent).await;
    assert_eq!(answer.data, sent);
    assert!(answer.status.is_ok(), "{}", answer.status);
}

#[tokio::test]
async fn no_input_gives_no_output() {
    let answer = memory::call("echo", &[]).await;
    assert_eq!(answer.data, []);
    assert!(answer.status.is_ok(), "{}", answer.status);
}
