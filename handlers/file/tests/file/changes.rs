//! `mkdir`, `rm`, `mv` and `copy`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use plugd_core::Code;
use rustix::fs::{CWD, OFlags, mkdirat, openat};
use serde_json::json;

use crate::world::{World, sample};

#[tokio::test]
async fn directories_are_made() {
    let world = World::new();
    world.write("file", "");
    world.ask("mkdir", json!({ "path": "a" })).await;
    world.ask("mkdir", json!({ "path": "a/b/" })).await;
    world.ask("mkdir", json!({ "path": "x/y/../z", "parents": true })).await;
    world.ask("mkdir", json!({ "path": "x/y/z", "parents": true })).await;
    world.ask("mkdir", json!({ "path": "x/y/z", "parents": true })).await;
    let made = ["a", "a/b", "file", "x", "x/y", "x/y/z", "x/z"];
    assert_eq!(world.listed(json!({ "recursive": true })).await, made);
    let exists = world.refused("mkdir", json!({ "path": "a" })).await;
    assert_eq!(exists, (Code::AlreadyExists, "exists".to_owned()));
    assert_eq!(world.reason("mkdir", json!({ "path": "file" })).await, "exists");
    assert_eq!(world.reason("mkdir", json!({ "path": "no/a" })).await, "no-such-directory");
    for path in ["file", "file/a"] {
        assert_eq!(world.reason("mkdir", json!({ "path": path, "parents": true })).await, "not-a-directory");
    }
    symlink("nowhere", world.path("dangling")).expect("a link");
    assert_eq!(world.reason("mkdir", json!({ "path": "dangling", "parents": true })).await, "exists");
}

#[tokio::test]
async fn files_links_and_trees_are_removed() {
    let world = World::new();
    fs::create_dir_all(world.path("tree/a/b")).expect("a directory");
    fs::create_dir(world.path("empty")).expect("a directory");
    fs::create_dir(world.path("kept")).expect("a directory");
    for name in ["file", "tree/1", "tree/a/2", "tree/a/b/3", "kept/file"] {
        world.write(name, "x");
    }
    symlink("../kept", world.path("tree/link")).expect("a link");
    symlink("kept", world.path("link")).expect("a link");
    for number in 0..2000 {
        world.write(&format!("tree/a/{number}"), "");
        if number % 3 == 0 {
            fs::create_dir(world.path(format!("tree/dir-{number}"))).expect("a directory");
        }
    }
    let refused = world.refused("rm", json!({ "path": "tree" })).await;
    assert_eq!(refused, (Code::FailedPrecondition, "not-empty".to_owned()));
    for (path, recursive) in [("file", false), ("link", true), ("empty", false), ("tree/", true)] {
        world.ask("rm", json!({ "path": path, "recursive": recursive })).await;
    }
    assert_eq!(world.names(), ["kept"]);
    assert_eq!(world.text("kept/file"), "x");
}

#[tokio::test]
async fn a_tree_that_is_deeper_than_a_path_is_refused_and_not_half_understood() {
    let world = World::new();
    let name = "d".repeat(200);
    fs::create_dir(world.path("deep")).expect("a directory");
    let mut dir = openat(CWD, world.path("deep"), OFlags::PATH, rustix::fs::Mode::empty()).expect("a root");
    for _ in 0..30 {
        mkdirat(&dir, &name, rustix::fs::Mode::RWXU).expect("a directory");
        dir = openat(&dir, &name, OFlags::PATH, rustix::fs::Mode::empty()).expect("a directory");
    }
    assert_eq!(world.reason("rm", json!({ "path": "deep", "recursive": true })).await, "bad-path");
    assert_eq!(world.names(), ["deep"]);
}

#[tokio::test]
async fn names_are_moved_at_once() {
    let world = World::new();
    for dir in ["dir", "full", "empty"] {
        fs::create_dir(world.path(dir)).expect("a directory");
    }
    for (name, content) in [("a", "a"), ("b", "b"), ("full/x", "x"), ("dir/y", "y")] {
        world.write(name, content);
    }
    world.ask("mv", json!({ "from": "a", "to": "dir/a" })).await;
    assert_eq!(world.text("dir/a"), "a");
    for args in [
        json!({ "from": "b", "to": "dir/a", "no_clobber": true }),
        json!({ "from": "dir", "to": "full", "no_clobber": true }),
    ] {
        assert_eq!(world.refused("mv", args).await, (Code::AlreadyExists, "exists".to_owned()));
    }
    assert_eq!((world.text("b"), world.text("dir/a")), ("b".to_owned(), "a".to_owned()));
    world.ask("mv", json!({ "from": "b", "to": "dir/a" })).await;
    assert_eq!(world.text("dir/a"), "b");
    for (from, to, reason) in [
        ("none", "x", "no-such-file"),
        ("none/a", "x", "no-such-directory"),
        ("full", "no/x", "no-such-directory"),
        ("full/x", "dir", "is-a-directory"),
        ("full/x", "dir/", "is-a-directory"),
        ("dir", "full/x", "not-a-directory"),
        ("dir", "full", "not-empty"),
        ("dir", "dir/sub", "bad-path"),
        (".", "x", "bad-path"),
        ("dir", ".", "bad-path"),
    ] {
        assert_eq!(world.reason("mv", json!({ "from": from, "to": to })).await, reason, "{from} {to}");
    }
    let args = json!({ "from": "dir", "to": "dir/sub", "no_clobber": true });
    assert_eq!(world.reason("mv", args).await, "bad-path");
    world.ask("mv", json!({ "from": "dir", "to": "empty" })).await;
    world.ask("mv", json!({ "from": "empty", "to": "free/", "no_clobber": true })).await;
    assert_eq!(world.listed(json!({ "recursive": true })).await, ["free", "free/a", "free/y", "full", "full/x"]);
}

#[tokio::test]
async fn a_file_is_copied_whole_with_its_permissions() {
    let world = World::new();
    let content = sample(20 << 20);
    world.write("a", &content);
    fs::set_permissions(world.path("a"), fs::Permissions::from_mode(0o4640)).expect("a file");
    let answer = world.ask("copy", json!({ "from": "a", "to": "b" })).await;
    let receipt = answer.trailer();
    assert_eq!((&receipt["bytes"], &receipt["published"]), (&json!(content.len()), &json!(true)));
    assert_eq!(receipt["etag"], world.etag("b").await);
    assert!(world.read("b") == content);
    assert_eq!(fs::metadata(world.path("b")).expect("a file").mode() & 0o7777, 0o640);
    world.write("c", "c");
    let refused = world.refused("copy", json!({ "from": "c", "to": "b", "no_clobber": true })).await;
    assert_eq!(refused, (Code::AlreadyExists, "exists".to_owned()));
    world.ask("copy", json!({ "from": "c", "to": "b" })).await;
    world.ask("copy", json!({ "from": "c", "to": "c" })).await;
    assert_eq!((world.text("b"), world.text("c")), ("c".to_owned(), "c".to_owned()));
    assert_eq!(world.uploads(), [""; 0]);
}

#[tokio::test]
async fn the_holes_of_a_sparse_file_are_copied_as_holes() {
    let world = World::new();
    for (name, data_at, len) in [("empty", None, 0), ("hole", None, 1 << 30), ("end", Some((1 << 30) - 3), 1 << 30)] {
        let file = fs::File::create(world.path(name)).expect("a file");
        file.set_len(len).expect("a sparse file");
        if let Some(position) = data_at {
            std::os::unix::fs::FileExt::write_all_at(&file, b"abc", position).expect("room");
        }
        let receipt = world.ask("copy", json!({ "from": name, "to": "copy" })).await.trailer();
        assert_eq!((&receipt["bytes"], &receipt["size"]), (&json!(len), &json!(len)), "{name}");
        let metadata = fs::metadata(world.path("copy")).expect("a copy");
        assert_eq!(metadata.len(), len);
        assert!(metadata.blocks() * 512 < 1 << 20, "{name}: {} blocks", metadata.blocks());
        if let Some(position) = data_at {
            let args = json!({ "path": "copy", "offset": position });
            assert_eq!(
                world
                    .ask("get", json!({ "algorithm": "none", "path": args["path"], "offset": args["offset"] }))
                    .await
                    .text(),
                "abc"
            );
        }
    }
}
