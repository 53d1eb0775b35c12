//! Handlers that block the threads of the server.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use plugd_core::wire::{Hello, Kind, Open};
use plugd_server::Control;
use serde_json::{json, value::to_raw_value};

use crate::support::raw::{RawPeer, eoi, frame, open};
use crate::support::server::{PLUGINS, TestServer};

/// A server on one thread of its own, as the program has it by default on two processors.
fn serve_on_one_thread() -> (SocketAddr, Control, std::thread::JoinHandle<()>) {
    let (started, starts) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let server = TestServer::start(PLUGINS).await;
            started.send((server.address, server.control.clone())).expect("a test");
            server.ended().await;
        });
    });
    let (address, control) = starts.recv().expect("a server");
    (address, control, thread)
}

/// Waits until a handler has said that it blocks its thread.
async fn until_there(file: &Path) {
    crate::support::until("blocked thread", || file.exists()).await;
}

#[tokio::test]
async fn a_fresh_call_is_answered_while_handlers_block_every_thread() {
    let (address, control, thread) = serve_on_one_thread();
    let dir = tempfile::tempdir().expect("a directory");
    let until = dir.path().join("go on");
    let block = |entered: &Path| {
        let args = to_raw_value(&json!({ "until": until, "entered": entered })).expect("JSON");
        frame(Kind::Open, &Open { args: Some(args), ..Open::new("demo.block") }.encode())
    };
    let echo = async || {
        let mut fresh = RawPeer::greet(address).await;
        fresh.send(&[open("echo"), frame(Kind::Data, b"here"), eoi()].concat()).await;
        fresh.answer().await.0
    };
    let mut blocked = Vec::new();
    // The second ones block threads of a spare.
    for round in 0..2 {
        for number in 0..4 {
            let entered = dir.path().join(format!("{round} {number}"));
            let mut peer = RawPeer::connect(address).await;
            peer.send(&[&Hello { data_len_max: 1 << 20 }.encode()[..], &block(&entered), &eoi()].concat()).await;
            blocked.push(peer);
            until_there(&entered).await;
        }
        assert_eq!(echo().await, b"here");
    }
    std::fs::write(&until, "").expect("a file");
    for mut peer in blocked {
        peer.hello().await;
        assert_eq!(peer.end().await, (String::new(), false), "a call that was held up ends well");
    }
    assert_eq!(echo().await, b"here");
    control.drain();
    let ended = tokio::task::spawn_blocking(move || thread.join());
    tokio::time::timeout(Duration::from_secs(15), ended).await.expect("an end").expect("a join").expect("no panic");
}
