//! Runs the exchanges of docs/protocol.md, as they stand there, against the codec and against a server.

use bytes::Bytes;
use plugd_core::wire::{Frame, FrameLimits, HELLO_LEN, Hello};

use crate::support::raw::RawPeer;
use crate::support::server::{PLUGINS, TestServer};

const PAGE: &str = include_str!("../../docs/protocol.md");

/// One exchange of the page.
#[derive(Debug)]
struct Vector {
    title: &'static str,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Client(Vec<u8>),
    Server(Vec<u8>),
    ServerCloses,
}

fn vectors() -> Vec<Vector> {
    let mut vectors = Vec::new();
    let mut title = "";
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if let Some(text) = line.strip_prefix("### ") {
            title = text;
        }
        if line == "```vector" {
            let steps = lines.by_ref().take_while(|line| *line != "```").map(step).collect();
            vectors.push(Vector { title, steps });
        }
    }
    vectors
}

fn step(line: &str) -> Step {
    let (side, rest) = line.split_once(' ').expect("a side");
    if (side, rest) == ("<", "eof") {
        return Step::ServerCloses;
    }
    let hex = rest.split("  ").next().expect("split yields at least one part");
    let byte = |pair| u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("{pair:?} is no byte in {line:?}"));
    let bytes = hex.split_whitespace().map(byte).collect();
    match side {
        ">" => Step::Client(bytes),
        "<" => Step::Server(bytes),
        _ => panic!("unknown side in {line:?}"),
    }
}

#[test]
fn the_page_has_every_exchange_that_it_promises() {
    let titles: Vec<&str> = vectors().iter().map(|vector| vector.title).collect();
    assert!(titles.len() >= 12, "{titles:?}");
    for word in ["unary", "Streaming", "side channel", "Keep-alive", "Pipelining", "unknown plugin", "Cancel"] {
        assert!(titles.iter().any(|title| title.contains(word)), "{word}: {titles:?}");
    }
    for word in ["Deadline", "oversized", "Bad magic", "empty payload"] {
        assert!(titles.iter().any(|title| title.contains(word)), "{word}: {titles:?}");
    }
}

#[tokio::test]
async fn a_server_answers_every_exchange_to_the_byte() {
    let server = TestServer::start(PLUGINS).await;
    for vector in vectors() {
        let mut peer = RawPeer::connect(server.address).await;
        for step in &vector.steps {
            match step {
                Step::Client(bytes) => peer.send(bytes).await,
                Step::Server(bytes) => {
                    let found = peer.exactly(bytes.len()).await;
                    let text = String::from_utf8_lossy;
                    assert_eq!(found, bytes, "{}: {} instead of {}", vector.title, text(&found), text(bytes));
                }
                Step::ServerCloses => assert_eq!(peer.rest().await, b"", "{}", vector.title),
            }
        }
    }
}

/// What a side sends, decoded and encoded again, is what the page says, as far as it consists of good frames.
#[test]
fn the_codec_reads_and_writes_every_exchange_to_the_byte() {
    let mut frames = 0;
    for vector in vectors() {
        let client: Vec<u8> = vector.steps.iter().filter_map(Step::client_bytes).flatten().copied().collect();
        let server: Vec<u8> = vector.steps.iter().filter_map(Step::server_bytes).flatten().copied().collect();
        for bytes in [client, server] {
            let Ok(Some(hello)) = Hello::decode(&bytes) else { continue };
            assert_eq!(hello.encode(), bytes[..HELLO_LEN], "{}", vector.title);
            let mut rest = Bytes::copy_from_slice(&bytes[HELLO_LEN..]);
            while let Ok(Some(frame)) = Frame::take(&mut rest, FrameLimits::default()) {
                let start = bytes.len() - rest.len() - frame.payload.len() - 8;
                assert_eq!(frame.header.encode(), bytes[start..start + 8], "{}", vector.title);
                frames += 1;
            }
            let is_violation = ["An oversized frame", "A frame of no known kind"].contains(&vector.title);
            assert!(rest.is_empty() || is_violation, "{}: {rest:?}", vector.title);
        }
    }
    assert!(frames > 100, "{frames}");
}

impl Step {
    fn client_bytes(&self) -> Option<&Vec<u8>> {
        match self {
            Step::Client(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn server_bytes(&self) -> Option<&Vec<u8>> {
        match self {
            Step::Server(bytes) => Some(bytes),
            _ => None,
        }
    }
}
