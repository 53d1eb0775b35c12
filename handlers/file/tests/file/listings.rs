//! `ls` and `stat`: whole lines, in order, and never a gap that is not told.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::stat::Mode;
use plugd_core::Code;
use rustix::fs::{CWD, OFlags, mkdirat, openat};
use serde_json::json;

use crate::world::{World, lines};

#[tokio::test]
async fn a_directory_is_listed_in_order_with_facts() {
    let world = World::new();
    fs::create_dir(world.path("dir")).expect("a directory");
    world.write("b\n\"", "hello");
    symlink("/etc/passwd", world.path("c")).expect("a link");
    nix::unistd::mkfifo(&world.path("d"), Mode::S_IRWXU).expect("a fifo");
    let lines = world.lines("ls", json!({})).await;
    let kinds: Vec<(&str, &str)> = lines
        .iter()
        .map(|line| (line["name"].as_str().expect("a name"), line["kind"].as_str().expect("a kind")))
        .collect();
    assert_eq!(kinds, [("b\n\"", "file"), ("c", "symlink"), ("d", "other"), ("dir", "dir")]);
    let metadata = fs::metadata(world.path("b\n\"")).expect("a file");
    let expected = json!({ "name": "b\n\"", "kind": "file", "size": 5, "mtime_s": metadata.mtime(),
        "mtime_ns": metadata.mtime_nsec(), "mode": metadata.mode() & 0o7777, "etag": world.etag("b\n\"").await });
    assert_eq!(lines[0], expected);
    assert_eq!((&lines[1]["target"], lines[1].get("etag")), (&json!("/etc/passwd"), None));
    assert_eq!((lines[3].get("target"), lines[3].get("etag")), (None, None));
}

fn tree() -> World {
    let world = World::new();
    for dir in ["a", "a/x", "b", "empty"] {
        fs::create_dir(world.path(dir)).expect("a directory");
    }
    for (name, size, mtime_s) in [
        ("a.txt", 3, 300),
        ("a/2.txt", 2, 100),
        ("a/x/deep.rs", 9, 200),
        ("a/1.rs", 1, 200),
        ("b/3.txt", 4, 5),
        ("z", 1, 4),
    ] {
        world.write(name, vec![0; size]);
        let file = fs::File::options().write(true).open(world.path(name)).expect("a file");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(mtime_s)).expect("a time");
    }
    symlink("../a", world.path("b/link")).expect("a link");
    world
}

#[tokio::test]
async fn a_tree_is_listed_with_each_directory_before_its_content() {
    let world = tree();
    let all = ["a", "a/1.rs", "a/2.txt", "a/x", "a/x/deep.rs", "a.txt", "b", "b/3.txt", "b/link", "empty", "z"];
    assert_eq!(world.listed(json!({ "recursive": true })).await, all);
    assert_eq!(world.listed(json!({ "recursive": true, "path": "a" })).await, ["1.rs", "2.txt", "x", "x/deep.rs"]);
    assert_eq!(
        world.listed(json!({ "recursive": true, "path": "b/link" })).await.len(),
        4,
        "the one that was asked for"
    );
    assert_eq!(world.listed(json!({ "recursive": true, "path": "empty" })).await, [""; 0]);
    let turned = world.listed(json!({ "recursive": true, "reverse": true, "limit": 4 })).await;
    assert_eq!(turned, ["z", "empty", "b", "b/link"]);
    let mut unsorted = world.listed(json!({ "recursive": true, "sort": "none" })).await;
    unsorted.sort();
    assert_eq!(unsorted.len(), all.len());
}

#[tokio::test]
async fn entries_are_sorted_as_asked() {
    let world = tree();
    let sizes = world.listed(json!({ "path": "a", "recursive": true, "sort": "size", "glob": "*.*" })).await;
    assert_eq!(sizes, ["1.rs", "2.txt", "x/deep.rs"]);
    let times = world.listed(json!({ "path": "a", "sort": "mtime" })).await;
    assert_eq!(times, ["2.txt", "1.rs", "x"]);
    let times = world.listed(json!({ "path": "a", "sort": "mtime", "reverse": true })).await;
    assert_eq!(times, ["x", "1.rs", "2.txt"]);
}

#[tokio::test]
async fn a_pattern_chooses_names_or_paths() {
    let world = tree();
    for (glob, found) in [
        ("*.txt", vec!["a/2.txt", "a.txt", "b/3.txt"]),
        ("?.rs", vec!["a/1.rs"]),
        ("{z,deep*}", vec!["a/x/deep.rs", "z"]),
        ("a/*.rs", vec!["a/1.rs"]),
        ("a/**/*.rs", vec!["a/1.rs", "a/x/deep.rs"]),
        ("**/[0-9].*", vec!["a/1.rs", "a/2.txt", "b/3.txt"]),
        ("none", vec![]),
    ] {
        assert_eq!(world.listed(json!({ "recursive": true, "glob": glob })).await, found, "{glob}");
    }
    assert_eq!(world.listed(json!({ "glob": "*.txt" })).await, ["a.txt"]);
    assert_eq!(world.listed(json!({ "glob": "*.txt", "limit": 0 })).await, [""; 0]);
    let nested = format!("{}a{}", "{".repeat(500), "}".repeat(500));
    for glob in ["[a", &nested, &"[a-z]*{b,c}".repeat(2000), &"[!x]".repeat(10_000)] {
        let answer = world.call("ls", json!({ "glob": glob }), &[]).await;
        assert!(answer.status.is_ok() || answer.status.reason() == "bad-glob", "{}", answer.status);
    }
    for glob in ["[a", &nested] {
        let bad = world.refused("ls", json!({ "glob": glob })).await;
        assert_eq!(bad, (Code::InvalidArgument, "bad-glob".to_owned()));
    }
}

#[tokio::test]
async fn every_message_of_a_long_listing_is_made_of_whole_lines() {
    let world = World::new();
    for number in 0..2000 {
        world.write(&format!("{number:04}"), "");
    }
    let answer = world.ask("ls", json!({ "path": "." })).await;
    assert_eq!(lines(&answer).len(), 2000);
    assert!(answer.data.len() > 1 && answer.data.iter().all(|data| !data.more && data.payload.ends_with(b"\n")));
    let answer = world.ask("ls", json!({ "limit": 1500 })).await;
    assert_eq!(lines(&answer).len(), 1500);
}

#[tokio::test]
async fn a_listing_with_a_gap_is_no_success() {
    let world = World::new();
    world.write("z", "");
    // Deeper than a path can say, and so beyond anybody's reach by a path.
    let name = "d".repeat(200);
    let mut dir = openat(CWD, world.path(""), OFlags::PATH, rustix::fs::Mode::empty()).expect("a root");
    for _ in 0..30 {
        mkdirat(&dir, &name, rustix::fs::Mode::RWXU).expect("a directory");
        dir = openat(&dir, &name, OFlags::PATH, rustix::fs::Mode::empty()).expect("a directory");
    }
    let answer = world.call("ls", json!({ "recursive": true }), &[]).await;
    assert_eq!(answer.status.reason(), "bad-path");
    let lines = lines(&answer);
    assert!(lines.len() > 10 && lines.last().expect("lines")["name"] == "z", "what can be read is listed all the same");
    world.ask("ls", json!({})).await;
}

#[tokio::test]
async fn a_path_is_described_in_one_line() {
    let world = World::new();
    world.write("a", "hello");
    symlink("a", world.path("link")).expect("a link");
    let line = &world.lines("stat", json!({ "path": "./a" })).await[0];
    assert_eq!((&line["path"], &line["kind"], &line["size"]), (&json!("./a"), &json!("file"), &json!(5)));
    assert_eq!(line["etag"], world.etag("link").await);
    let line = &world.lines("stat", json!({ "path": "link", "follow": false })).await[0];
    assert_eq!((&line["kind"], &line["target"]), (&json!("symlink"), &json!("a")));
    for follow in [true, false] {
        assert_eq!(world.lines("stat", json!({ "path": ".", "follow": follow })).await[0]["kind"], "dir");
    }
}

#[tokio::test]
async fn an_etag_shows_a_change_that_keeps_size_and_time() {
    let world = World::new();
    world.write("a", "hello");
    let (before, modified) = (world.etag("a").await, fs::metadata(world.path("a")).expect("a file").modified());
    let file = fs::File::options().write(true).open(world.path("a")).expect("a file");
    // The clock of some file systems ticks coarsely.
    std::thread::sleep(Duration::from_millis(20));
    std::os::unix::fs::FileExt::write_all_at(&file, b"jello", 0).expect("room");
    file.set_modified(modified.expect("a time")).expect("a file of ours");
    assert_ne!(world.etag("a").await, before);
}
