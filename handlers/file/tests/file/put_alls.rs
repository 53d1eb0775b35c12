//! `put_all`: many small files in one call, each of them or nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use plugd_core::{Code, Data};
use serde_json::{Value, json};

use crate::world::{EMPTY_MD5, HELLO_MD5, World, lines, sample, wait_until};
use plugd_core::testing::Answer;

/// The longest content that the operation takes, in bytes.
const SMALL_LEN: usize = 64 << 10;

fn about(args: &Value) -> Data {
    Data { channel: 2, ..Data::main(args.to_string()) }
}

/// The messages of files.
fn messages<C: Into<Vec<u8>>>(files: impl IntoIterator<Item = (Value, C)>) -> Vec<Data> {
    files.into_iter().flat_map(|(args, content)| [about(&args), Data::main(content.into())]).collect()
}

async fn put_all<C: Into<Vec<u8>>>(world: &World, files: impl IntoIterator<Item = (Value, C)>) -> Vec<Value> {
    let answer = world.call("put_all", json!({}), &messages(files)).await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    lines(&answer)
}

/// The paths and reasons of the lines; the reason of a stored file is empty.
fn ends(lines: &[Value]) -> Vec<(&str, &str)> {
    lines
        .iter()
        .map(|line| {
            assert_ne!(line["receipt"].is_object(), line["status"].is_object(), "{line}");
            (line["path"].as_str().unwrap_or("?"), line["status"]["reason"].as_str().unwrap_or(""))
        })
        .collect()
}

#[tokio::test]
async fn many_files_are_stored_in_order_each_with_its_receipt() {
    let world = World::new();
    world.write("f7", "older");
    let files: Vec<(Value, Vec<u8>)> = (0..1000)
        .map(|index| {
            let path = if index % 3 == 0 { format!("d{}/f{index}", index % 7) } else { format!("f{index}") };
            (json!({ "path": path, "parents": true, "size": index, "digest": null }), sample(index))
        })
        .collect();
    let answer = world.call("put_all", json!({}), &messages(files.clone())).await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    assert_eq!(answer.trailer(), json!({ "stored": 1000, "failed": 0 }));
    let lines = lines(&answer);
    assert_eq!(lines.len(), files.len());
    for (line, (args, content)) in lines.iter().zip(&files) {
        let path = args["path"].as_str().expect("a path");
        assert_eq!((&line["path"], &line["receipt"]["size"]), (&args["path"], &json!(content.len())));
        assert!(world.read(path) == *content, "{path}");
    }
    assert_eq!(lines[7]["receipt"]["etag"], world.etag("f7").await);
    assert_eq!(world.uploads(), [""; 0]);
}

#[tokio::test]
async fn a_receipt_is_that_of_put() {
    let world = World::new();
    let args =
        json!({ "path": "a", "size": 5, "digest": HELLO_MD5, "durability": "full", "mtime_s": 5, "mode": 0o640 });
    let lines = put_all(&world, [(args, "hello")]).await;
    let receipt = json!({ "bytes": 5, "size": 5, "resumed_from": 0, "digest": HELLO_MD5, "verified": true,
        "durable": "full", "published": true, "etag": world.etag("a").await });
    assert_eq!(lines, [json!({ "path": "a", "receipt": receipt })]);
    let metadata = fs::metadata(world.path("a")).expect("a file");
    assert_eq!((metadata.mtime(), metadata.mode() & 0o7777), (5, 0o640));
}

#[tokio::test]
async fn an_empty_file_is_an_empty_message() {
    let world = World::new();
    let lines =
        put_all(&world, [(json!({ "path": "a", "digest": EMPTY_MD5 }), ""), (json!({ "path": "b" }), "x")]).await;
    assert_eq!((&lines[0]["receipt"]["size"], &lines[0]["receipt"]["verified"]), (&json!(0), &json!(true)));
    assert_eq!((world.text("a"), world.text("b")), (String::new(), "x".to_owned()));
    assert!(put_all::<&str>(&world, None).await.is_empty(), "no file at all");
}

#[tokio::test]
async fn a_bad_file_does_not_stop_the_good_ones() {
    let world = World::new();
    fs::create_dir(world.path("dir")).expect("a directory");
    world.write("there", "old");
    symlink("..", world.path("out")).expect("a link");
    let file = |args: Value| (args, "hello");
    let files = [
        file(json!({ "path": "good1" })),
        file(json!({ "path": "dir" })),
        file(json!({ "path": "../secret" })),
        file(json!({ "path": "out/secret" })),
        file(json!({ "path": "/etc/passwd" })),
        file(json!({ "path": ".plugd-uploads/x", "parents": true })),
        file(json!({ "path": "good2" })),
        file(json!({ "path": "none/a" })),
        file(json!({ "path": "there/a", "parents": true })),
        file(json!({ "path": "there", "no_clobber": true })),
        file(json!({ "path": "wrong", "digest": EMPTY_MD5 })),
        file(json!({ "path": "short", "size": 6 })),
        file(json!({ "path": "bad", "digest": "md5:0" })),
        file(json!({ "path": "bad", "mode": 0o10000 })),
        file(json!({ "path": "bad", "token": "t" })),
        file(json!({ "size": 5 })),
        file(json!([])),
        file(json!({ "path": "good3" })),
    ];
    let answer = world.call("put_all", json!({}), &messages(files)).await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    assert_eq!(answer.trailer(), json!({ "stored": 3, "failed": 15 }));
    let expected = [
        ("good1", ""),
        ("dir", "is-a-directory"),
        ("../secret", "outside-root"),
        ("out/secret", "outside-root"),
        ("/etc/passwd", "outside-root"),
        (".plugd-uploads/x", "reserved-name"),
        ("good2", ""),
        ("none/a", "no-such-directory"),
        ("there/a", "not-a-directory"),
        ("there", "exists"),
        ("wrong", "digest-mismatch"),
        ("short", "size-mismatch"),
        ("bad", "bad-digest"),
        ("bad", "bad-mode"),
        ("?", "bad-arguments"),
        ("?", "bad-arguments"),
        ("?", "bad-arguments"),
        ("good3", ""),
    ];
    assert_eq!(ends(&lines(&answer)), expected);
    assert_eq!(world.names(), ["dir", "good1", "good2", "good3", "out", "there"]);
    assert_eq!((world.text("good3"), world.text("there")), ("hello".to_owned(), "old".to_owned()));
    assert_eq!(fs::read_to_string(world.dir.path().join("secret")).expect("a file"), "secret");
    assert_eq!(world.uploads(), [""; 0]);
}

#[tokio::test]
async fn a_status_is_what_put_ends_with() {
    let world = World::new();
    let args = json!({ "path": "none/a" });
    let put = world.call("put", args.clone(), &[Data::main("x")]).await.status;
    let lines = put_all(&world, [(args, "x")]).await;
    let status = &lines[0]["status"];
    assert_eq!((&status["code"], &status["name"]), (&json!(put.code().number()), &json!(put.code().name())));
    assert_eq!((&status["reason"], &status["message"]), (&json!(put.reason()), &json!(put.message())));
    assert_eq!(status["retry"], put.retry());
}

#[tokio::test]
async fn a_quota_that_is_used_up_refuses_what_does_not_fit_and_nothing_else() {
    let world = World::with(json!({ "quota": "10B" }));
    let file = |path: &str, content: &'static str| (json!({ "path": path }), content);
    let files = [file("a", "12345"), file("b", "123456"), file("c", "12345"), file("d", ""), file("e", "1")];
    let lines = put_all(&world, files).await;
    assert_eq!(ends(&lines), [("a", ""), ("b", "quota"), ("c", ""), ("d", ""), ("e", "quota")]);
    assert_eq!(
        ends(&put_all(&world, [file("a", "54321"), file("a", "5"), file("e", "1234")]).await),
        [("a", ""), ("a", ""), ("e", "")]
    );
    assert_eq!(world.names(), ["a", "c", "d", "e"]);
}

#[tokio::test]
async fn content_that_is_too_long_is_refused_for_its_file_alone() {
    let world = World::new();
    let long = sample(SMALL_LEN + 1);
    let mut input =
        messages([(json!({ "path": "most" }), sample(SMALL_LEN)), (json!({ "path": "more" }), long.clone())]);
    // In pieces of one message, and far longer.
    input.push(about(&json!({ "path": "pieces" })));
    input.extend((0..9).map(|index| Data { more: index < 8, ..Data::main(long.clone()) }));
    input.extend(messages([(json!({ "path": "last" }), "x")]));
    let answer = world.call("put_all", json!({}), &input).await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    let expected = [("most", ""), ("more", "message-too-long"), ("pieces", "message-too-long"), ("last", "")];
    assert_eq!(ends(&lines(&answer)), expected);
    assert_eq!(world.names(), ["last", "most"]);
    assert!(world.read("most") == sample(SMALL_LEN));
}

#[tokio::test]
async fn messages_may_come_in_pieces() {
    let world = World::new();
    let whole = messages([(json!({ "path": "a" }), "hello"), (json!({ "path": "b" }), "")]);
    let pieces: Vec<Data> = whole
        .iter()
        .flat_map(|data| {
            let last = Data { payload: data.payload.slice(data.payload.len() / 2..), ..data.clone() };
            let first = Data { payload: data.payload.slice(..data.payload.len() / 2), more: true, ..data.clone() };
            [first, Data { payload: "".into(), more: true, ..data.clone() }, last]
        })
        .collect();
    let answer = world.call("put_all", json!({}), &pieces).await;
    assert_eq!(ends(&lines(&answer)), [("a", ""), ("b", "")], "{}", answer.status);
    assert_eq!(world.text("a"), "hello");
}

/// Calls with a good file before what ends the call, and one behind that.
async fn broken_by(world: &World, what: &[Data]) -> Answer {
    let good = |path: &str| messages([(json!({ "path": path }), "hello")]);
    let input = [&good("before")[..], what, &good("behind")].concat();
    world.call("put_all", json!({}), &input).await
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_call_behind_what_came_before() {
    let on = |channel, text: &'static str| Data { channel, ..Data::main(text) };
    let long = Data { channel: 2, ..Data::main(vec![b' '; 33 << 10]) };
    for (what, code, reason) in [
        (vec![on(0, "x")], Code::InvalidArgument, "unexpected-channel"),
        (vec![on(1, "x")], Code::InvalidArgument, "unexpected-channel"),
        (vec![on(2, "{}"), on(2, "{}")], Code::InvalidArgument, "unexpected-channel"),
        (vec![on(2, "{}"), on(1, HELLO_MD5)], Code::InvalidArgument, "unexpected-channel"),
        (vec![long], Code::ResourceExhausted, "message-too-long"),
    ] {
        let world = World::new();
        let answer = broken_by(&world, &what).await;
        assert_eq!((answer.status.code(), answer.status.reason()), (code, reason), "{}", answer.status);
        assert_eq!(ends(&lines(&answer)), [("before", "")]);
        assert_eq!(answer.trailer(), json!({ "stored": 1, "failed": 0 }));
        assert_eq!(world.names(), ["before"]);
    }
}

#[tokio::test]
async fn an_input_that_ends_within_a_file_stores_none_of_it() {
    let cut = |data: Data| Data { more: true, ..data };
    let head = about(&json!({ "path": "cut" }));
    for rest in [vec![head.clone()], vec![cut(head.clone())], vec![head, cut(Data::main("hel"))]] {
        let world = World::new();
        let input = [messages([(json!({ "path": "whole" }), "hello")]), rest].concat();
        let answer = world.call("put_all", json!({}), &input).await;
        assert_eq!(answer.status.reason(), "message-cut", "{}", answer.status);
        assert_eq!(ends(&lines(&answer)), [("whole", "")]);
        assert_eq!(world.names(), ["whole"]);
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_leaves_whole_files_or_none() {
    let world = World::new();
    world.write("half", "old");
    let mut session = world.open("put_all", json!({})).await;
    for data in messages([(json!({ "path": "whole" }), "hello")]) {
        session.sender.data(&data).await;
    }
    let line = session.receiver.frame().await.payload;
    assert!(line.starts_with(b"{\"path\":\"whole\",\"receipt\":"), "a receipt comes before the end of the input");
    session.sender.data(&about(&json!({ "path": "half" }))).await;
    session.sender.data(&Data { more: true, ..Data::main("ne") }).await;
    session.vanish().await;
    assert_eq!((world.text("whole"), world.text("half")), ("hello".to_owned(), "old".to_owned()));
    wait_until("nothing is left", || world.uploads().is_empty()).await;
}

#[tokio::test]
async fn what_it_takes_as_arguments_stands_with_each_file() {
    let world = World::new();
    assert_eq!(world.reason("put_all", json!({ "path": "a" })).await, "unknown-argument");
    let world = World::with(json!({ "writable": false }));
    assert_eq!(world.reason("put_all", json!({})).await, "read-only");
}
