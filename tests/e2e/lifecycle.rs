//! How a server stops: in the library's own words, without processes and signals.

use plugd_core::wire::Kind;

use crate::support::raw::{RawPeer, eoi, frame, open};
use crate::support::server::{PLUGINS, TestServer};

#[tokio::test]
async fn draining_lets_a_running_call_finish_and_begins_no_other() {
    let server = TestServer::start(PLUGINS).await;
    let mut idle = RawPeer::greet(server.address).await;
    let mut running = RawPeer::greet(server.address).await;
    running.send(&[open("echo"), frame(Kind::Data, b"one")].concat()).await;
    assert_eq!(running.frame().await.payload, "one");
    server.control.drain();
    assert_eq!(idle.end().await, ("draining".to_owned(), true));
    running.send(&[frame(Kind::Data, b"two"), eoi()].concat()).await;
    assert_eq!(running.frame().await.payload, "two");
    assert_eq!(running.end().await, (String::new(), true));
    drop((idle, running));
    server.stopped().await;
}

#[tokio::test]
async fn a_call_that_does_not_finish_in_time_is_ended_by_the_drain() {
    let server = TestServer::start_with("drain_timeout = \"100ms\"\ngrace = \"100ms\"", PLUGINS).await;
    let mut peers = Vec::new();
    for command in ["demo.wait", "demo.stubborn"] {
        let mut peer = RawPeer::greet(server.address).await;
        peer.send(&[open("demo.repeat"), eoi(), open(command)].concat()).await;
        assert_eq!(peer.end().await, ("bad-arguments".to_owned(), false));
        peers.push(peer);
    }
    server.control.drain();
    for peer in &mut peers {
        assert_eq!(peer.end().await, ("draining".to_owned(), true));
    }
    drop(peers);
    server.stopped().await;
}

#[tokio::test]
async fn stopping_at_once_waits_for_nobody() {
    let server = TestServer::start_with("drain_timeout = \"1h\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("echo"), frame(Kind::Data, b"running")].concat()).await;
    assert_eq!(peer.frame().await.payload, "running");
    server.control.stop_at_once();
    server.stopped().await;
    assert_eq!(peer.rest().await, b"");
}

#[tokio::test]
async fn a_stopped_server_leaves_its_port() {
    let server = TestServer::start(PLUGINS).await;
    let address = server.address;
    server.control.drain();
    server.stopped().await;
    tokio::net::TcpListener::bind(address).await.expect("a free port");
}
