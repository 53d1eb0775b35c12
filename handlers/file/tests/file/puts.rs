//! `put`: the whole input under its name, or nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::time::{Duration, UNIX_EPOCH};

use plugd_core::{Code, Data};
use serde_json::json;

use crate::world::{
    CHUNK_LEN, EMPTY_MD5, HELLO_BLAKE3, HELLO_MD5, HELLO_SHA256, World, blake3_of, digest_message, sample,
};

#[tokio::test]
async fn what_is_put_is_stored_and_verified() {
    let world = World::new();
    let args = json!({ "path": "a", "size": 5, "digest": HELLO_MD5, "durability": "file" });
    let answer = world.call("put", args, &[Data::main("hel"), Data::main("lo")]).await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    assert_eq!(answer.head, Some(json!({ "offset": 0 })));
    let expected = json!({ "bytes": 5, "size": 5, "resumed_from": 0, "digest": HELLO_MD5, "verified": true,
        "durable": "file", "published": true, "etag": world.etag("a").await });
    assert_eq!(answer.trailer(), expected);
    assert_eq!(world.text("a"), "hello");
    assert_eq!(world.uploads(), [""; 0]);
}

#[tokio::test]
async fn a_long_input_is_stored_and_verified_with_each_digest() {
    let world = World::new();
    let content = sample(5 << 20 | 3);
    for (algorithm, size) in [("md5", json!(content.len())), ("blake3", json!(null)), ("sha256", json!(null))] {
        let args = json!({ "path": "a", "size": size, "algorithm": algorithm });
        let (mut session, _) = world.begin_put(args, &content).await;
        session.sender.end_input().await;
        let receipt = session.receiver.answer().await.trailer();
        assert!(world.read("a") == content);
        assert_eq!(receipt["bytes"], content.len());
        let digest = &world.lines("digest", json!({ "path": "a", "algorithm": algorithm })).await[0]["digest"];
        assert_eq!(receipt["digest"], *digest, "{algorithm}");
    }
}

#[tokio::test]
async fn a_header_comes_before_any_data_is_needed() {
    let world = World::new();
    let (session, head) = world.begin_put(json!({ "path": "a" }), b"").await;
    assert_eq!(head, json!({ "offset": 0 }));
    assert!(session.finish().await.status.is_ok());
    assert_eq!(world.text("a"), "");
}

#[tokio::test]
async fn a_digest_may_follow_the_data() {
    let world = World::new();
    for digest in [HELLO_BLAKE3, HELLO_SHA256, HELLO_MD5] {
        let (algorithm, _) = digest.split_once(':').expect("two parts");
        let args = json!({ "path": "a", "algorithm": algorithm });
        let answer = world.call("put", args, &[Data::main("hello"), digest_message(digest)]).await;
        assert_eq!(answer.trailer()["verified"], true, "{}", answer.status);
    }
    for (digest, code, reason) in [
        (EMPTY_MD5, Code::DataLoss, "digest-mismatch"),
        (HELLO_BLAKE3, Code::InvalidArgument, "bad-digest"),
        ("no digest", Code::InvalidArgument, "bad-digest"),
    ] {
        let answer = world.call("put", json!({ "path": "a" }), &[Data::main("other"), digest_message(digest)]).await;
        assert_eq!((answer.status.code(), answer.status.reason()), (code, reason));
        assert_eq!(world.text("a"), "hello");
    }
    let long = digest_message("md5:0000000000000000000000000000000000000000000000000000000000000000000000000000000000");
    assert_eq!(world.call("put", json!({ "path": "a" }), &[long]).await.status.reason(), "bad-digest");
    let elsewhere = Data { channel: 2, ..Data::main("x") };
    assert_eq!(world.call("put", json!({ "path": "a" }), &[elsewhere]).await.status.reason(), "unexpected-channel");
    assert_eq!(world.uploads(), [""; 0]);
}

#[tokio::test]
async fn without_a_digest_nothing_is_verified() {
    let world = World::new();
    let answer = world.call("put", json!({ "path": "a" }), &[]).await;
    assert_eq!(answer.trailer()["verified"], false, "{}", answer.status);
    assert_eq!(answer.trailer()["digest"], EMPTY_MD5);
    let answer = world.call("put", json!({ "path": "a", "algorithm": "none" }), &[]).await;
    assert_eq!(answer.trailer().get("digest"), None);
    assert_eq!(world.text("a"), "");
}

#[tokio::test]
async fn a_failed_put_leaves_the_old_file_and_nothing_else() {
    let world = World::new();
    world.write("a", "old");
    for (args, reason) in [
        (json!({ "path": "a", "size": 4 }), "size-mismatch"),
        (json!({ "path": "a", "size": 6 }), "size-mismatch"),
        (json!({ "path": "a", "digest": EMPTY_MD5 }), "digest-mismatch"),
        (json!({ "path": "a", "digest": "md5:short" }), "bad-digest"),
        (json!({ "path": "a", "digest": HELLO_MD5, "algorithm": "none" }), "bad-digest"),
        (json!({ "path": "a", "token": "no spaces" }), "bad-token"),
        (json!({ "path": "a", "mode": 0o4755 }), "bad-mode"),
        (json!({ "path": "a", "mtime_s": 0, "mtime_ns": 1_000_000_000 }), "bad-time"),
    ] {
        assert_eq!(world.reason("put", args).await, reason);
        assert_eq!((world.text("a"), world.names(), world.uploads()), ("old".into(), vec!["a".into()], vec![]));
    }
}

#[tokio::test]
async fn one_flipped_bit_is_noticed() {
    let world = World::new();
    world.write("a", "old");
    let mut content = sample(2 << 20);
    let digest = blake3_of(&content);
    content[1_234_567] ^= 4;
    for token in [json!(null), json!("t")] {
        let args = json!({ "path": "a", "digest": digest, "token": token });
        let (session, _) = world.begin_put(args, &content).await;
        let status = session.finish().await.status;
        assert_eq!((status.code(), status.reason()), (Code::DataLoss, "digest-mismatch"));
        assert_eq!((world.text("a"), world.uploads()), ("old".into(), vec![]));
    }
}

#[tokio::test]
async fn a_cancelled_or_cut_or_dropped_put_leaves_nothing() {
    let world = World::new();
    let (mut session, _) = world.begin_put(json!({ "path": "a" }), &sample(3 << 20)).await;
    session.sender.cancel().await;
    assert_eq!(session.receiver.answer().await.status.code(), Code::Cancelled);
    assert_eq!((world.names(), world.uploads()), (vec![], vec![]));
    let (session, _) = world.begin_put(json!({ "path": "a" }), &sample(3 << 20)).await;
    session.vanish().await;
    assert_eq!((world.names(), world.uploads()), (vec![], vec![]));
    let (session, _) = world.begin_put(json!({ "path": "a" }), &sample(3 << 20)).await;
    session.abort().await;
    crate::world::wait_until("the end of what was being written", || world.uploads().is_empty()).await;
    assert_eq!(world.names(), [""; 0]);
}

#[tokio::test]
async fn a_put_that_cannot_be_is_refused_before_its_input_ends() {
    let world = World::new();
    let mut session = world.open("put", json!({ "path": "no/a" })).await;
    let answer = session.receiver.answer().await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::NotFound, "no-such-directory"));
}

#[tokio::test]
async fn a_put_to_what_is_no_file_is_refused() {
    let world = World::new();
    fs::create_dir(world.path("dir")).expect("a directory");
    world.write("file", "");
    let socket = UnixListener::bind(world.path("socket")).expect("a socket");
    for (path, reason) in [
        ("dir", "is-a-directory"),
        ("dir/", "is-a-directory"),
        (".", "is-a-directory"),
        ("dir/..", "is-a-directory"),
        ("socket", "not-a-file"),
        ("file/a", "no-such-directory"),
    ] {
        assert_eq!(world.reason("put", json!({ "path": path })).await, reason, "{path}");
    }
    drop(socket);
}

#[tokio::test]
async fn missing_directories_are_made_when_asked_for() {
    let world = World::new();
    for durability in ["none", "full"] {
        let path = format!("{durability}/x/y/a");
        world.put(json!({ "path": path, "parents": true, "durability": durability }), "hello").await;
        assert_eq!(world.text(&path), "hello");
        world.put(json!({ "path": path, "parents": true }), "again").await;
        assert_eq!(world.text(&path), "again");
    }
    world.put(json!({ "path": "top", "parents": true }), "hello").await;
    let reason = world.reason("put", json!({ "path": "top/x/a", "parents": true })).await;
    assert_eq!(reason, "not-a-directory");
}

#[tokio::test]
async fn time_and_permissions_are_kept_on_request() {
    let world = World::new();
    for (s, ns) in [(1_000_000_000i64, 123_456_789u32), (-5, 7), (0, 0)] {
        world.put(json!({ "path": "a", "mtime_s": s, "mtime_ns": ns, "mode": 0o640, "durability": "file" }), "x").await;
        let metadata = fs::metadata(world.path("a")).expect("a file");
        assert_eq!((metadata.mtime(), metadata.mtime_nsec(), metadata.mode() & 0o7777), (s, ns.into(), 0o640));
    }
    let metadata = fs::metadata(world.path("a")).expect("a file");
    assert_eq!(metadata.modified().expect("a time"), UNIX_EPOCH + Duration::ZERO);
}

#[tokio::test]
async fn a_private_file_stays_private_when_it_is_replaced() {
    let world = World::new();
    world.write("a", "old");
    fs::set_permissions(world.path("a"), fs::Permissions::from_mode(0o4600)).expect("a file");
    world.put(json!({ "path": "a" }), "new").await;
    let mode = fs::metadata(world.path("a")).expect("a file").mode() & 0o7777;
    assert_eq!(mode, 0o600, "without the right to run as its owner");
}

#[tokio::test]
async fn the_receipt_says_how_durable_the_file_is() {
    let world = World::with(json!({ "durability": "full" }));
    assert_eq!(world.put(json!({ "path": "a" }), "x").await["durable"], "full");
    for durability in ["none", "file", "full"] {
        for content in [sample(3), sample(CHUNK_LEN)] {
            let receipt = world.put(json!({ "path": "a", "durability": durability }), content).await;
            assert_eq!(receipt["durable"], durability);
        }
    }
}

#[tokio::test]
async fn two_puts_to_one_name_leave_one_whole_file() {
    let world = World::new();
    let (first, second) = (vec![1; 2 << 20], vec![2; 3 << 20]);
    let (one, _) = world.begin_put(json!({ "path": "a" }), &first).await;
    let (two, _) = world.begin_put(json!({ "path": "a" }), &second).await;
    let (one, two) = tokio::join!(one.finish(), two.finish());
    assert!(one.status.is_ok() && two.status.is_ok(), "{} {}", one.status, two.status);
    let stored = world.read("a");
    assert!(stored == first || stored == second, "no mixture");
    assert_eq!(world.uploads(), [""; 0]);
}
