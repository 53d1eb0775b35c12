//! `get`: the whole file as it was in the beginning, or a failure that says so.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::time::SystemTime;

use plugd_core::wire::{End, Kind};
use plugd_core::{Code, Data};
use serde_json::{Value, json};

use crate::world::{CHUNK_LEN, EMPTY_MD5, HELLO_BLAKE3, HELLO_MD5, HELLO_SHA256, World, blake3_of, sample, wait_until};
use plugd_core::testing::{Answer, Plugin, Session};

fn head(answer: &Answer) -> Value {
    answer.head.clone().expect("a header")
}

#[tokio::test]
async fn a_file_comes_after_its_facts_and_before_its_receipt() {
    let world = World::new();
    world.write("a", "hello");
    let answer = world.ask("get", json!({ "path": "a" })).await;
    let head = head(&answer);
    assert_eq!((&head["size"], &head["offset"], &head["digest"]), (&json!(5), &json!(0), &json!(HELLO_MD5)));
    assert!(head["mtime_s"].as_i64().expect("a time") > 1_700_000_000, "{head}");
    assert!(head["mtime_ns"].as_u64().expect("a time") < 1_000_000_000, "{head}");
    assert_eq!(head["mode"].as_u64().expect("a mode") & 0o600, 0o600);
    assert_eq!(answer.data, [Data::main("hello")]);
    let expected = json!({ "bytes": 5, "size": 5, "resumed_from": 0, "digest": HELLO_MD5, "etag": head["etag"] });
    assert_eq!(answer.trailer(), expected);
}

#[tokio::test]
async fn a_long_file_is_one_message_and_an_empty_one_is_none() {
    let world = World::new();
    let content = sample(1_000_003);
    world.write("long", &content);
    world.write("empty", "");
    let long = world.ask("get", json!({ "path": "long", "algorithm": "blake3" })).await;
    assert!(long.bytes(0) == content);
    assert_eq!(long.trailer()["digest"], blake3_of(&content));
    let (last, others) = long.data.split_last().expect("data");
    assert!(!last.more && others.iter().all(|data| data.more));
    let empty = world.ask("get", json!({ "path": "empty" })).await;
    assert_eq!(empty.trailer()["digest"], EMPTY_MD5);
    assert_eq!(empty.data, []);
}

#[tokio::test]
async fn the_caller_picks_the_digest() {
    let world = World::new();
    world.write("a", "hello");
    for (algorithm, digest) in [
        ("md5", json!(HELLO_MD5)),
        ("blake3", json!(HELLO_BLAKE3)),
        ("sha256", json!(HELLO_SHA256)),
        ("none", Value::Null),
    ] {
        let answer = world.ask("get", json!({ "path": "a", "algorithm": algorithm })).await;
        assert_eq!(answer.trailer()["digest"], digest, "{algorithm}");
    }
    let answer = world.call("get", json!({ "path": "a", "algorithm": "sha1" }), &[]).await;
    assert_eq!(answer.status.reason(), "bad-arguments");
    assert!(answer.status.message().contains("blake3"), "{}", answer.status);
}

#[tokio::test]
async fn a_digest_that_is_known_already_comes_first() {
    // This program: it is large, and nobody changes it while it runs.
    let program = std::env::current_exe().expect("a program");
    let dir = program.parent().expect("a directory");
    let name = program.file_name().expect("a name").to_str().expect("text");
    let age = || SystemTime::now().duration_since(fs::metadata(&program).expect("a file").modified().expect("a time"));
    wait_until("an old program", || age().is_ok_and(|age| age.as_secs() > 3)).await;
    let handler = Plugin::linked_in("file", json!({ "root": "." }), dir);
    let mut digests = Vec::new();
    for is_known in [false, true] {
        let args = json!({ "path": name });
        let answer = handler.call("get").args(args).start().await.run(&[]).await;
        assert!(answer.status.is_ok(), "{}", answer.status);
        assert_eq!(head(&answer).get("digest").is_some(), is_known);
        digests.push(answer.trailer()["digest"].clone());
    }
    assert!(digests[0].is_string() && digests[0] == digests[1], "{digests:?}");
}

#[tokio::test]
async fn a_file_is_sent_from_any_byte_on() {
    let world = World::new();
    let content = sample(3 * CHUNK_LEN + 5);
    world.write("a", &content);
    for offset in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, content.len() - 1, content.len()] {
        let args = json!({ "path": "a", "offset": offset, "algorithm": "blake3" });
        let answer = world.ask("get", args).await;
        assert!(answer.bytes(0) == content[offset..], "{offset}");
        let receipt = answer.trailer();
        assert_eq!(receipt["digest"], blake3_of(&content), "of the whole file, {offset}");
        assert_eq!(receipt["bytes"], content.len() - offset);
        assert_eq!((&receipt["resumed_from"], &head(&answer)["offset"]), (&json!(offset), &json!(offset)));
    }
    let beyond = world.refused("get", json!({ "path": "a", "offset": content.len() + 1 })).await;
    assert_eq!(beyond, (Code::OutOfRange, "bad-offset".to_owned()));
}

#[tokio::test]
async fn a_part_of_a_file_comes_without_a_digest() {
    let world = World::new();
    let content = sample(2 * CHUNK_LEN);
    world.write("long", &content);
    world.write("short", "hello");
    for (path, offset, length, part) in [
        ("short", 1, 3, &b"ell"[..]),
        ("short", 1, 100, b"ello"),
        ("short", 5, 1, b""),
        ("short", 0, 0, b""),
        ("long", CHUNK_LEN, CHUNK_LEN - 1, &content[CHUNK_LEN..2 * CHUNK_LEN - 1]),
        ("long", 7, 0, b""),
    ] {
        let answer = world.ask("get", json!({ "path": path, "offset": offset, "length": length })).await;
        assert!(answer.bytes(0) == part, "{path} {offset} {length}");
        assert_eq!(answer.trailer().get("digest"), None);
        assert_eq!(answer.trailer()["bytes"], part.len());
    }
}

/// Opens a `get` of a long file, and waits for its header: then the file is open and most of it not yet read.
async fn begin(world: &World, content: &[u8]) -> Session {
    world.write("a", content);
    let mut session = world.open("get", json!({ "path": "a", "algorithm": "blake3" })).await;
    assert_eq!(session.receiver.frame().await.header.kind, Kind::Head);
    session
}

/// What came must be the beginning of the old content, and its end a failure that says why.
fn assert_source_changed(answer: &Answer, content: &[u8]) {
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::Aborted, "source-changed"), "{}", answer.status);
    assert!(content.starts_with(&answer.bytes(0)), "only the old content is sent");
    assert!(answer.status.retry());
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_ends_the_call_or_the_connection() {
    let (world, content) = (World::new(), sample(8 << 20));
    let mut session = begin(&world, &content).await;
    world.write("a", "");
    let mut received = Vec::new();
    // A frame whose length was announced can only be filled, or the connection be broken.
    while let Some(frame) = session.receiver.next_frame().await {
        match frame.header.kind {
            Kind::End => {
                let status = End::decode(&frame.payload).expect("a good end").status;
                assert_eq!((status.code(), status.reason()), (Code::Aborted, "source-changed"), "{status}");
                break;
            }
            _ => received.extend_from_slice(&frame.payload),
        }
    }
    assert!(received.len() < content.len() && content.starts_with(&received), "no padding and no mixture");
}

#[tokio::test]
async fn a_file_that_grows_while_it_is_sent_ends_the_call() {
    let (world, content) = (World::new(), sample(8 << 20));
    let mut session = begin(&world, &content).await;
    let mut file = fs::OpenOptions::new().append(true).open(world.path("a")).expect("a file");
    file.write_all(b"more").expect("room");
    let answer = session.receiver.answer().await;
    assert_source_changed(&answer, &content);
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_sent_is_not_mixed_with_the_new_one() {
    let (world, content) = (World::new(), sample(8 << 20));
    let mut session = begin(&world, &content).await;
    world.write("new", vec![0xff; 8 << 20]);
    fs::rename(world.path("new"), world.path("a")).expect("a name");
    assert_source_changed(&session.receiver.answer().await, &content);
}

#[tokio::test]
async fn a_change_that_keeps_size_and_time_is_noticed() {
    let (world, content) = (World::new(), sample(8 << 20));
    let mut session = begin(&world, &content).await;
    let modified = fs::metadata(world.path("a")).expect("a file").modified().expect("a time");
    let mut file = fs::OpenOptions::new().write(true).open(world.path("a")).expect("a file");
    file.seek(SeekFrom::End(-1)).expect("a file");
    file.write_all(&[!content[content.len() - 1]]).expect("room");
    file.set_modified(modified).expect("a file of ours");
    let answer = session.receiver.answer().await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::Aborted, "source-changed"));
}

#[tokio::test]
async fn a_caller_that_stops_reading_and_leaves_ends_the_call() {
    let (world, content) = (World::new(), sample(8 << 20));
    begin(&world, &content).await.vanish().await;
    let mut session = begin(&world, &content).await;
    session.sender.cancel().await;
    assert_eq!(session.receiver.answer().await.status.code(), Code::Cancelled);
}

#[tokio::test]
async fn a_digest_is_computed_alone() {
    let world = World::new();
    let content = sample(5 << 20);
    world.write("a", &content);
    world.write("empty", "");
    let line = &world.lines("digest", json!({ "path": "a", "algorithm": "blake3" })).await[0];
    let expected =
        json!({ "path": "a", "size": 5 << 20, "etag": world.etag("a").await, "digest": blake3_of(&content) });
    assert_eq!(*line, expected);
    assert_eq!(world.lines("digest", json!({ "path": "empty" })).await[0]["digest"], EMPTY_MD5);
    assert_eq!(world.reason("digest", json!({ "path": "." })).await, "not-a-file");
    assert_eq!(world.reason("digest", json!({ "path": "a", "algorithm": "none" })).await, "algorithm-not-allowed");
}
