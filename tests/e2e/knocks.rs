//! Strangers on the port: other protocols, noise, silence.

use std::time::{Duration, Instant};

use plugd_core::wire::Hello;
use rstest::rstest;

use crate::support::raw::{RawPeer, eoi, open};
use crate::support::server::{PLUGINS, TestServer};

#[rstest]
#[case::http(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n", "an HTTP request")]
#[case::ssh(b"SSH-2.0-OpenSSH_9.2\r\n", "this port speaks the plugd protocol", "an ssh banner")]
#[case::tls(b"\x16\x03\x01\x02\x00\x01", "\x15\x03\x01\x00\x02\x02\x46", "a TLS client hello")]
#[case::noise(b"\x00\x01\x02\x03", "this port speaks the plugd protocol", "unknown bytes")]
#[tokio::test]
async fn a_stranger_gets_a_readable_refusal_and_is_closed(
    #[case] knock: &[u8],
    #[case] opening: &str,
    #[case] named: &str,
) {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::connect(server.address).await;
    peer.send(knock).await;
    let said = peer.rest().await;
    let said = String::from_utf8(said).expect("a readable refusal");
    assert!(said.starts_with(opening) && said.contains(named), "{said:?}");
}

#[tokio::test]
async fn a_refusal_survives_a_stranger_that_says_a_lot() {
    let server = TestServer::start(PLUGINS).await;
    let mut peer = RawPeer::connect(server.address).await;
    peer.send(&[b"POST /upload HTTP/1.1\r\n\r\n", &[b'x'; 200_000][..]].concat()).await;
    let said = peer.rest().await;
    assert!(said.starts_with(b"HTTP/1.1 400 Bad Request\r\n"), "{said:?}");
}

#[rstest]
#[case::nothing(vec![])]
#[case::half_a_hello(b"PLUGD\x01".to_vec())]
#[case::a_hello_and_silence(Hello { data_len_max: 1 << 20 }.encode().to_vec())]
#[case::half_a_header([&Hello { data_len_max: 1 << 20 }.encode()[..], &open("echo")[..12]].concat())]
#[tokio::test]
async fn a_first_header_that_is_not_whole_in_time_ends_the_connection(#[case] sent: Vec<u8>) {
    let server = TestServer::start_with("header_timeout = \"200ms\"", PLUGINS).await;
    let mut peer = RawPeer::connect(server.address).await;
    peer.send(&sent).await;
    peer.hello().await;
    assert_eq!(peer.end().await, ("header-timeout".to_owned(), true));
    assert_eq!(peer.rest().await, b"");
}

#[tokio::test]
async fn a_header_at_a_byte_a_time_is_bounded_by_the_header_time() {
    let server = TestServer::start_with("header_timeout = \"300ms\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(40));
    let mut sent = 0;
    for byte in open("echo") {
        tokio::select! {
            biased;
            readable = peer.stream.readable() => {
                readable.expect("an open connection");
                break;
            }
            _ = pause.tick() => {}
        }
        peer.send(&[byte]).await;
        sent += 1;
    }
    assert!(sent < open("echo").len(), "the whole header went through in time");
    assert_eq!(peer.end().await, ("header-timeout".to_owned(), true));
}

#[tokio::test]
async fn a_second_header_is_bounded_from_its_first_byte() {
    let server = TestServer::start_with("header_timeout = \"300ms\"\nidle_timeout = \"1h\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("echo"), eoi()].concat()).await;
    assert_eq!(peer.end().await, (String::new(), false));
    peer.send(&open("echo")[..5]).await;
    assert_eq!(peer.end().await, ("header-timeout".to_owned(), true));
}

#[tokio::test]
async fn a_header_that_begins_after_a_long_idle_time_has_its_whole_time() {
    let server = TestServer::start_with("header_timeout = \"2s\"\nidle_timeout = \"1h\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    let call = [open("echo"), eoi()].concat();
    peer.send(&call).await;
    assert_eq!(peer.end().await, (String::new(), false));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    peer.send(&call[..5]).await;
    // Long enough that the server sees the first bytes alone.
    tokio::time::sleep(Duration::from_millis(50)).await;
    peer.send(&call[5..]).await;
    assert_eq!(peer.end().await, (String::new(), false));
}

#[tokio::test]
async fn hello_and_first_header_share_the_header_time() {
    let server = TestServer::start_with("header_timeout = \"2s\"", PLUGINS).await;
    let mut peer = RawPeer::connect(server.address).await;
    let connected = Instant::now();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    peer.send(&Hello { data_len_max: 1 << 20 }.encode()).await;
    peer.hello().await;
    assert_eq!(peer.end().await, ("header-timeout".to_owned(), true));
    assert!(connected.elapsed() < Duration::from_millis(3_200), "{:?}", connected.elapsed());
}

#[tokio::test]
async fn an_idle_connection_is_closed_with_a_word() {
    let server = TestServer::start_with("idle_timeout = \"200ms\"", PLUGINS).await;
    let mut peer = RawPeer::greet(server.address).await;
    peer.send(&[open("echo"), eoi()].concat()).await;
    assert_eq!(peer.end().await, (String::new(), false));
    assert_eq!(peer.end().await, ("idle-timeout".to_owned(), true));
    assert_eq!(peer.rest().await, b"");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_room_comes_back() {
    let server = TestServer::start_with("connections_max = 1", PLUGINS).await;
    let first = RawPeer::greet(server.address).await;
    let mut second = RawPeer::connect(server.address).await;
    second.hello().await;
    assert_eq!(second.end().await, ("connections-max".to_owned(), true));
    drop(first);
    // The permit comes back when the server has seen the close; until then the refusal is the same.
    for _ in 0..200 {
        let mut third = RawPeer::connect(server.address).await;
        third.send(&[&Hello { data_len_max: 1 << 20 }.encode()[..], &open("echo"), &eoi()].concat()).await;
        third.hello().await;
        if third.end().await.0.is_empty() {
            return;
        }
    }
    panic!("the permit never came back");
}
