//! What a caller may ask of the file that is there: to be none, to be a version, not to be one.

use std::fs;
use std::os::unix::fs::MetadataExt;

use plugd_core::{Code, Data};
use serde_json::json;

use crate::world::{EMPTY_MD5, HELLO_BLAKE3, HELLO_MD5, World, blake3_of, sample};

const NO_ETAG: &str = "0123456789";

#[tokio::test]
async fn nothing_is_clobbered() {
    let world = World::new();
    world.put(json!({ "path": "a", "no_clobber": true }), "first").await;
    let mut session = world.open("put", json!({ "path": "a", "no_clobber": true })).await;
    let status = session.receiver.answer().await.status;
    assert_eq!((status.code(), status.reason()), (Code::AlreadyExists, "exists"), "before any input");
    assert_eq!(world.text("a"), "first");
}

#[tokio::test]
async fn of_two_that_would_clobber_nothing_one_wins() {
    let world = World::new();
    let (first, second) = (sample(2 << 20), vec![7; 2 << 20]);
    let (one, _) = world.begin_put(json!({ "path": "a", "no_clobber": true }), &first).await;
    let (two, _) = world.begin_put(json!({ "path": "a", "no_clobber": true, "token": "t" }), &second).await;
    let (one, two) = tokio::join!(one.finish(), two.finish());
    let (stored, loser) = if one.status.is_ok() { (first, two) } else { (second, one) };
    assert_eq!((loser.status.code(), loser.status.reason()), (Code::AlreadyExists, "exists"));
    assert!(world.read("a") == stored);
    assert_eq!(world.uploads(), [""; 0]);
}

#[tokio::test]
async fn a_version_is_replaced_by_its_etag_or_its_digest() {
    let world = World::new();
    world.write("a", "hello");
    for version in [NO_ETAG, EMPTY_MD5] {
        let refused = world.refused("put", json!({ "path": "a", "if_match": version })).await;
        assert_eq!(refused, (Code::FailedPrecondition, "changed".to_owned()), "{version}");
        assert_eq!(world.text("a"), "hello");
    }
    let receipt = world.put(json!({ "path": "a", "if_match": world.etag("a").await }), "hello").await;
    assert_eq!(receipt["etag"], world.etag("a").await, "the receipt's etag carries on");
    world.put(json!({ "path": "a", "if_match": receipt["etag"] }), "hello").await;
    world.put(json!({ "path": "a", "if_match": HELLO_MD5 }), "hello").await;
    world.put(json!({ "path": "a", "if_match": HELLO_BLAKE3 }), "new").await;
    assert_eq!(world.text("a"), "new");
    for args in [json!({ "path": "none", "if_match": HELLO_MD5 }), json!({ "path": "no/a", "if_match": HELLO_MD5 })] {
        assert_eq!(world.reason("put", args).await, "changed");
    }
    assert_eq!(world.reason("put", json!({ "path": "a", "if_match": "md5:0" })).await, "bad-digest");
}

#[tokio::test]
async fn of_two_that_replace_one_version_one_wins() {
    let world = World::new();
    world.write("a", "hello");
    let (first, second) = (sample(2 << 20), vec![7; 2 << 20]);
    let etag = world.etag("a").await;
    let (one, _) = world.begin_put(json!({ "path": "a", "if_match": etag }), &first).await;
    let (two, _) = world.begin_put(json!({ "path": "a", "if_match": HELLO_MD5 }), &second).await;
    let (one, two) = tokio::join!(one.finish(), two.finish());
    let (stored, loser) = if one.status.is_ok() { (first, two) } else { (second, one) };
    assert_eq!((loser.status.code(), loser.status.reason()), (Code::FailedPrecondition, "changed"));
    assert!(world.read("a") == stored);
}

#[tokio::test]
async fn a_file_that_is_removed_meanwhile_is_not_the_version() {
    let world = World::new();
    world.write("a", "hello");
    let (session, _) = world.begin_put(json!({ "path": "a", "if_match": HELLO_MD5 }), b"new").await;
    fs::remove_file(world.path("a")).expect("a file");
    assert_eq!(session.finish().await.status.reason(), "changed");
    assert_eq!(world.names(), [""; 0]);
}

#[tokio::test]
async fn what_is_there_already_is_not_sent_again() {
    let world = World::new();
    let content = sample(1 << 20);
    world.write("a", &content);
    let before = fs::metadata(world.path("a")).expect("a file");
    let args = json!({ "path": "a", "if_none_match": blake3_of(&content), "token": "t", "no_clobber": true });
    let (session, head) = world.begin_put(args, b"").await;
    assert_eq!(head, json!({ "offset": 0, "unchanged": true }));
    let answer = session.finish().await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    let expected = json!({ "bytes": 0, "size": 1 << 20, "resumed_from": 0, "published": false, "unchanged": true,
        "etag": world.etag("a").await });
    assert_eq!(answer.trailer(), expected);
    assert_eq!(fs::metadata(world.path("a")).expect("a file").ino(), before.ino());
    world.put(json!({ "path": "a", "if_none_match": HELLO_MD5 }), "hello").await;
    assert_eq!(world.text("a"), "hello");
    let answer = world.call("put", json!({ "path": "a", "if_none_match": HELLO_MD5 }), &[Data::main("other")]).await;
    assert_eq!((answer.status.is_ok(), world.text("a")), (true, "hello".to_owned()));
}

#[tokio::test]
async fn a_version_is_fetched_or_not() {
    let world = World::new();
    world.write("a", "hello");
    let etag = world.etag("a").await;
    for version in [&etag, HELLO_MD5, HELLO_BLAKE3] {
        assert_eq!(world.ask("get", json!({ "path": "a", "if_match": version })).await.text(), "hello");
        let answer = world.ask("get", json!({ "path": "a", "if_none_match": version })).await;
        assert_eq!(
            (answer.text(), &answer.head.clone().expect("a header")["unchanged"]),
            (String::new(), &json!(true))
        );
        assert_eq!(answer.trailer()["bytes"], 0);
    }
    for version in [NO_ETAG, EMPTY_MD5] {
        let answer = world.ask("get", json!({ "path": "a", "if_none_match": version })).await;
        assert_eq!((answer.text().as_str(), answer.head.expect("a header").get("unchanged")), ("hello", None));
        let refused = world.refused("get", json!({ "path": "a", "if_match": version })).await;
        assert_eq!(refused, (Code::Aborted, "source-changed".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_put_and_a_move_of_one_version_neither_overlooks_the_other() {
    let world = World::new();
    for _ in 0..300 {
        world.write("a", "old");
        let etag = world.etag("a").await;
        let input = [Data::main("new")];
        let put = world.call("put", json!({ "path": "a", "if_match": etag }), &input);
        let mv = world.call("mv", json!({ "from": "a", "to": "b" }), &[]);
        let (put, mv) = tokio::join!(put, mv);
        assert!(mv.status.is_ok(), "{}", mv.status);
        match put.status.is_ok() {
            true => assert_eq!((world.text("b"), world.names()), ("new".to_owned(), vec!["b".to_owned()])),
            false => assert_eq!((put.status.reason(), world.text("b")), ("changed", "old".to_owned())),
        }
    }
}
