//! The handler over a connection in memory and a directory on disk.

#[path = "../../echo/tests/memory/mod.rs"]
mod memory;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use memory::{Answer, Session};
use nix::sys::stat::Mode;
use plugd_core::wire::Kind;
use plugd_core::{Code, Context, Data, Registry};
use plugd_file as _;
use serde_json::{Value, json};
use tempfile::TempDir;

const HELLO_MD5: &str = "md5:5d41402abc4b2a76b9719d911017c592";
const EMPTY_MD5: &str = "md5:d41d8cd98f00b204e9800998ecf8427e";

/// The directory in which uploads are kept until they are whole.
const UPLOADS: &str = ".plugd-uploads";

/// A served directory `root` beside a file `secret` that must stay out of reach.
fn world() -> TempDir {
    let world = tempfile::tempdir().expect("a directory");
    fs::create_dir(world.path().join("root")).expect("a root");
    fs::write(world.path().join("secret"), "secret").expect("a secret");
    world
}

async fn open(world: &Path, operation: &'static str, args: Value) -> Session {
    let handler = memory::build("file", json!({ "root": "root", "writable": true }), world);
    Session::open(handler, operation, args).await
}

async fn call(world: &TempDir, operation: &'static str, args: Value, input: &[Data]) -> Answer {
    open(world.path(), operation, args).await.call(input).await
}

async fn refused(world: &TempDir, operation: &'static str, args: Value) -> (Code, String) {
    let answer = call(world, operation, args, &[Data::main("hello")]).await;
    assert!(!answer.status.message().contains("root/"), "{}", answer.status);
    (answer.status.code(), answer.status.reason().to_owned())
}

fn digest_message(text: &'static str) -> Data {
    Data { channel: 1, ..Data::main(text) }
}

fn names(world: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(world.path().join("root")).expect("a root");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name != UPLOADS).collect()
}

fn content(world: &TempDir, name: &str) -> String {
    fs::read_to_string(world.path().join("root").join(name)).expect("a file")
}

#[tokio::test]
async fn a_file_comes_after_its_facts() {
    let world = world();
    fs::write(world.path().join("root/a"), "hello").expect("a file");
    let answer = call(&world, "get", json!({ "path": "a" }), &[]).await;
    let head = answer.head.clone().expect("a header");
    assert_eq!(head["size"], 5);
    assert_eq!(head["digest"], HELLO_MD5);
    assert!(head["mtime_s"].as_i64().expect("a time") > 1_700_000_000, "{head}");
    assert_eq!(answer.data, [Data::main("hello")]);
    assert!(answer.status.is_ok(), "{}", answer.status);
}

#[tokio::test]
async fn a_long_file_is_one_message_and_an_empty_one_is_none() {
    let world = world();
    let bytes: Vec<u8> = (0..1_000_003u32).map(|number| number as u8).collect();
    fs::write(world.path().join("root/long"), &bytes).expect("a file");
    fs::write(world.path().join("root/empty"), "").expect("a file");
    let long = call(&world, "get", json!({ "path": "long" }), &[]).await;
    assert!(long.bytes(0) == bytes);
    let (last, others) = long.data.split_last().expect("data");
    assert!(!last.more && others.iter().all(|data| data.more));
    let empty = call(&world, "get", json!({ "path": "empty" }), &[]).await;
    assert_eq!(empty.trailer()["digest"], EMPTY_MD5);
    assert_eq!(empty.data, []);
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_ends_the_call() {
    let world = world();
    let path = world.path().join("root/a");
    fs::write(&path, vec![7; 8 << 20]).expect("a file");
    let mut session = open(world.path(), "get", json!({ "path": "a" })).await;
    assert_eq!(session.receiver.frame().await.header.kind, Kind::Head);
    fs::write(&path, "short").expect("a file");
    let answer = session.receiver.answer().await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::Aborted, "source-changed"));
}

#[tokio::test]
async fn what_is_put_is_stored_and_verified() {
    let world = world();
    let args = json!({ "path": "a", "size": 5, "digest": HELLO_MD5 });
    let answer = call(&world, "put", args, &[Data::main("hel"), Data::main("lo")]).await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    let mut receipt = answer.trailer();
    assert!(receipt["etag"].take().is_string());
    let expected = json!({ "bytes": 5, "size": 5, "resumed_from": 0, "digest": HELLO_MD5, "verified": true,
        "durable": "file", "published": true, "etag": null });
    assert_eq!(receipt, expected);
    assert_eq!(content(&world, "a"), "hello");
}

#[tokio::test]
async fn a_digest_may_follow_the_data() {
    let world = world();
    let answer = call(&world, "put", json!({ "path": "a" }), &[Data::main("hello"), digest_message(HELLO_MD5)]).await;
    assert_eq!(answer.trailer()["verified"], true, "{}", answer.status);
    let wrong = [Data::main("other"), digest_message(HELLO_MD5)];
    let answer = call(&world, "put", json!({ "path": "a" }), &wrong).await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::DataLoss, "digest-mismatch"));
    assert_eq!(content(&world, "a"), "hello");
    let answer = call(&world, "put", json!({ "path": "a" }), &[digest_message("no digest")]).await;
    assert_eq!(answer.status.reason(), "bad-digest");
}

#[tokio::test]
async fn without_a_digest_nothing_is_verified() {
    let world = world();
    let answer = call(&world, "put", json!({ "path": "a" }), &[]).await;
    assert_eq!(answer.trailer()["verified"], false, "{}", answer.status);
    assert_eq!(content(&world, "a"), "");
}

#[tokio::test]
async fn a_failed_put_leaves_the_old_file_and_nothing_else() {
    let world = world();
    fs::write(world.path().join("root/a"), "old").expect("a file");
    for (args, reason) in [
        (json!({ "path": "a", "size": 4 }), "size-mismatch"),
        (json!({ "path": "a", "size": 6 }), "size-mismatch"),
        (json!({ "path": "a", "digest": EMPTY_MD5 }), "digest-mismatch"),
        (json!({ "path": "a", "digest": "md5:short" }), "bad-digest"),
    ] {
        assert_eq!(refused(&world, "put", args).await.1, reason);
        assert_eq!(content(&world, "a"), "old");
        assert_eq!(names(&world), ["a"]);
    }
}

#[tokio::test]
async fn a_cancelled_put_leaves_nothing() {
    let world = world();
    let mut session = open(world.path(), "put", json!({ "path": "a" })).await;
    session.sender.data(&Data::main(vec![0; 1 << 20])).await;
    session.sender.cancel().await;
    assert_eq!(session.receiver.answer().await.status.code(), Code::Cancelled);
    assert_eq!(names(&world), Vec::<String>::new());
}

#[tokio::test]
async fn a_put_that_cannot_be_is_refused_before_its_input_ends() {
    let world = world();
    let mut session = open(world.path(), "put", json!({ "path": "no/a" })).await;
    let answer = session.receiver.answer().await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::NotFound, "no-such-directory"));
}

#[tokio::test]
async fn a_put_to_what_is_no_file_is_refused() {
    let world = world();
    fs::create_dir(world.path().join("root/dir")).expect("a directory");
    fs::write(world.path().join("root/file"), "").expect("a file");
    let socket = UnixListener::bind(world.path().join("root/socket")).expect("a socket");
    for (path, reason) in [
        ("dir", "is-a-directory"),
        ("dir/", "is-a-directory"),
        (".", "is-a-directory"),
        ("socket", "not-a-file"),
        ("file/a", "no-such-directory"),
    ] {
        assert_eq!(refused(&world, "put", json!({ "path": path })).await.1, reason, "{path}");
    }
    drop(socket);
}

#[tokio::test]
async fn a_read_only_plugin_stores_nothing() {
    let world = world();
    let handler = memory::build("file", json!({ "root": "root" }), world.path());
    let answer = Session::open(handler, "put", json!({ "path": "a" })).await.call(&[]).await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::PermissionDenied, "read-only"));
}

#[tokio::test]
async fn no_path_leads_out_of_the_root() {
    let world = world();
    let root = world.path().join("root");
    symlink("../secret", root.join("relative")).expect("a link");
    symlink(world.path().join("secret"), root.join("absolute")).expect("a link");
    symlink("..", root.join("up")).expect("a link");
    let outside = world.path().join("secret").display().to_string();
    for path in ["../secret", &outside, "relative", "absolute", "up/secret", "up/new", "up/../../secret"] {
        for operation in ["get", "put", "ls", "stat"] {
            let found = refused(&world, operation, json!({ "path": path })).await;
            assert_eq!(found, (Code::PermissionDenied, "outside-root".to_owned()), "{operation} {path}");
        }
    }
    assert_eq!(fs::read_to_string(world.path().join("secret")).expect("the secret"), "secret");
    assert!(!world.path().join("new").exists());
}

#[tokio::test]
async fn links_within_the_root_are_followed() {
    let world = world();
    let root = world.path().join("root");
    fs::create_dir(root.join("dir")).expect("a directory");
    fs::write(root.join("a"), "hello").expect("a file");
    symlink("../a", root.join("dir/link")).expect("a link");
    assert_eq!(call(&world, "get", json!({ "path": "dir/link" }), &[]).await.text(), "hello");
    assert_eq!(call(&world, "get", json!({ "path": "dir/../a" }), &[]).await.text(), "hello");
    let answer = call(&world, "put", json!({ "path": "dir/link" }), &[Data::main("new")]).await;
    assert!(answer.status.is_ok(), "{}", answer.status);
    assert_eq!((content(&world, "dir/link"), content(&world, "a")), ("new".to_owned(), "hello".to_owned()));
}

#[tokio::test]
async fn bad_and_missing_names_are_told_apart() {
    let world = world();
    let long = "x".repeat(300);
    for operation in ["get", "ls", "stat"] {
        assert_eq!(refused(&world, operation, json!({ "path": "" })).await.1, "bad-path");
        assert_eq!(refused(&world, operation, json!({ "path": "a\u{0}b" })).await.1, "bad-path");
        assert_eq!(refused(&world, operation, json!({ "path": long })).await.1, "bad-path");
        let missing = refused(&world, operation, json!({ "path": "missing" })).await;
        assert_eq!(missing, (Code::NotFound, "no-such-file".to_owned()));
    }
    assert_eq!(refused(&world, "put", json!({ "path": "a\u{0}b" })).await.1, "bad-path");
    assert_eq!(refused(&world, "put", json!({ "path": long })).await.1, "bad-path");
}

#[tokio::test]
async fn only_regular_files_are_sent_and_a_fifo_is_never_waited_for() {
    let world = world();
    nix::unistd::mkfifo(&world.path().join("root/fifo"), Mode::S_IRWXU).expect("a fifo");
    let _socket = UnixListener::bind(world.path().join("root/socket")).expect("a socket");
    for path in [".", "fifo", "socket"] {
        let found = refused(&world, "get", json!({ "path": path })).await;
        assert_eq!(found, (Code::FailedPrecondition, "not-a-file".to_owned()), "{path}");
    }
    assert_eq!(refused(&world, "ls", json!({ "path": "fifo" })).await.1, "not-a-directory");
}

#[tokio::test]
async fn a_directory_is_listed_in_order() {
    let world = world();
    let root = world.path().join("root");
    fs::create_dir(root.join("dir")).expect("a directory");
    fs::write(root.join("b\n\""), "hello").expect("a file");
    symlink("/etc/passwd", root.join("c")).expect("a link");
    nix::unistd::mkfifo(&root.join("d"), Mode::S_IRWXU).expect("a fifo");
    let answer = call(&world, "ls", json!({}), &[]).await;
    let lines: Vec<Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let kinds: Vec<(&str, &str)> = lines
        .iter()
        .map(|line| (line["name"].as_str().expect("a name"), line["kind"].as_str().expect("a kind")))
        .collect();
    assert_eq!(kinds, [("b\n\"", "file"), ("c", "symlink"), ("d", "other"), ("dir", "dir")]);
    assert_eq!(lines[0]["size"], 5);
}

#[tokio::test]
async fn every_message_of_a_long_listing_is_made_of_whole_lines() {
    let world = world();
    for number in 0..2000 {
        fs::write(world.path().join(format!("root/{number:04}")), "").expect("a file");
    }
    let answer = call(&world, "ls", json!({ "path": "." }), &[]).await;
    assert_eq!(answer.text().lines().count(), 2000);
    assert!(answer.data.len() > 1 && answer.data.iter().all(|data| !data.more && data.payload.ends_with(b"\n")));
}

#[tokio::test]
async fn a_path_is_described_in_one_line() {
    let world = world();
    fs::write(world.path().join("root/a"), "hello").expect("a file");
    let answer = call(&world, "stat", json!({ "path": "./a" }), &[]).await;
    let line: Value = serde_json::from_str(&answer.text()).expect("a JSON line");
    assert_eq!((&line["path"], &line["kind"], &line["size"]), (&json!("./a"), &json!("file"), &json!(5)));
}

#[test]
fn a_missing_root_is_made_and_an_impossible_one_keeps_the_server_from_starting() {
    let world = world();
    memory::build("file", json!({ "root": "new/root" }), world.path());
    assert!(world.path().join("new/root").is_dir());
    let registry = Registry::linked().expect("a sound registry");
    let file = registry.handler("file").expect("linked");
    let blueprint = file.prepare(json!({ "root": "secret" })).expect("good settings");
    assert!(blueprint.build(&Context::new(world.path())).is_err());
    assert_eq!(file.prepare(json!({ "root": "" })).expect_err("a bad root")[0].path, ["root"]);
}
