//! `plug sync`: alike on both sides, and nothing lost on the way.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::process::{EVERYTHING, Outcome, Plugd, plug};
use crate::support::proxy::Proxy;
use crate::support::server::TestServer;

fn write(path: PathBuf, content: &str) {
    fs::create_dir_all(path.parent().expect("a directory above")).expect("a directory");
    fs::write(path, content).expect("a file");
}

fn is_same(one: &Path, other: &Path) -> bool {
    Command::new("diff").arg("-r").args([one, other]).status().expect("diff runs").success()
}

/// A server and both sides: what is here, in `here`, and what is there, in `there` of its root.
fn world() -> (Plugd, PathBuf, PathBuf) {
    let server = Plugd::start(EVERYTHING);
    let (here, there) = (server.dir.path().join("here"), server.file("there"));
    for dir in [&here, &there] {
        fs::create_dir(dir).expect("a directory");
    }
    (server, here, there)
}

fn summary(outcome: &Outcome) -> Value {
    outcome.json()["data"].clone()
}

#[test]
fn both_directions_make_the_destination_like_the_source() {
    for is_push in [true, false] {
        let (server, here, there) = world();
        let (source, destination) = if is_push { (&here, &there) } else { (&there, &here) };
        let args = if is_push { ["sync", "--push", "here", "there"] } else { ["sync", "--pull", "there", "here"] };
        write(source.join("new"), "new");
        write(source.join("d/changed"), "changed");
        write(destination.join("d/changed"), "old");
        write(destination.join("extra/deep/er"), "extra");
        fs::create_dir(source.join("empty")).expect("a directory");
        let run = |more: &[&str]| server.run(["--json"].iter().chain(&args).chain(more));

        let plan = run(&["-n", "--delete"]);
        let moves = if is_push { "put" } else { "get" };
        let expected = json!([
            {"action": moves, "path": "d/changed"},
            {"action": "mkdir", "path": "empty"},
            {"action": moves, "path": "new"},
            {"action": "delete", "path": "extra/deep/er"},
            {"action": "delete", "path": "extra/deep"},
            {"action": "delete", "path": "extra"},
        ]);
        assert_eq!((plan.code, summary(&plan)), (Some(0), expected), "{plan:?}");
        assert!(!destination.join("new").exists() && destination.join("extra/deep/er").exists(), "a dry run is dry");

        let synced = run(&[]);
        assert_eq!((synced.code, &summary(&synced)["files"]), (Some(0), &json!(2)), "{synced:?}");
        assert_eq!(fs::read_to_string(destination.join("d/changed")).expect("a file"), "changed");
        assert!(destination.join("extra/deep/er").exists(), "nothing is deleted unless asked");
        let again = run(&[]);
        assert_eq!((&summary(&again)["unchanged"], &summary(&again)["bytes"]), (&json!(2), &json!(0)), "{again:?}");

        let synced = run(&["--delete"]);
        assert_eq!((synced.code, &summary(&synced)["deleted"]), (Some(0), &json!(3)), "{synced:?}");
        assert!(is_same(source, destination));
    }
}

#[test]
fn a_destination_that_does_not_exist_is_made() {
    let (server, here, _) = world();
    write(here.join("a/b"), "x");
    assert_eq!(server.run(["sync", "--push", "here", "new/place"]).code, Some(0));
    assert_eq!(server.run(["sync", "--pull", "new/place", "back"]).code, Some(0));
    assert!(is_same(&here, &server.dir.path().join("back")));
    assert_eq!(server.run(["sync", "--push", "none", "there"]).code, Some(5));
    assert_eq!(server.run(["sync", "--pull", "none", "back", "--delete"]).code, Some(64 + 5));
    assert!(is_same(&here, &server.dir.path().join("back")), "a source that is not there deletes nothing");
    assert_eq!(server.run(["sync", "here", "there"]).code, Some(2), "the direction is always said");
}

#[test]
fn checksums_find_what_size_and_time_hide_and_move_nothing_else() {
    let (server, here, there) = world();
    for (name, content) in [("same", "same"), ("hidden", "one!")] {
        write(here.join(name), content);
    }
    assert_eq!(server.run(["sync", "--push", "here", "there"]).code, Some(0));
    let modified = fs::metadata(here.join("hidden")).and_then(|facts| facts.modified()).expect("a time");
    write(there.join("hidden"), "two!");
    let file = fs::File::options().write(true).open(there.join("hidden")).expect("a file");
    file.set_times(fs::FileTimes::new().set_modified(modified)).expect("a file");
    let quick = server.run(["--json", "sync", "--push", "here", "there"]);
    assert_eq!(summary(&quick)["unchanged"], 2, "{quick:?}");
    let thorough = server.run(["--json", "sync", "--push", "here", "there", "--checksum"]);
    assert_eq!(
        (&summary(&thorough)["unchanged"], &summary(&thorough)["bytes"]),
        (&json!(1), &json!(4)),
        "{thorough:?}"
    );
    assert_eq!(fs::read_to_string(there.join("hidden")).expect("a file"), "one!");
    let nothing = server.run(["sync", "--push", "here", "there", "--checksum", "--digest", "none"]);
    assert!(nothing.code == Some(2) && nothing.stderr.contains("blake3"), "no digest, nothing to compare: {nothing:?}");
    let pulled = server.run(["--json", "sync", "--pull", "there", "here", "--checksum"]);
    assert_eq!((pulled.code, &summary(&pulled)["bytes"]), (Some(0), &json!(0)), "{pulled:?}");
}

#[test]
fn what_is_left_out_is_neither_moved_nor_deleted() {
    let (server, here, there) = world();
    for name in ["a.c", "b.o", "target/x.c", "sub/d.c", "sub/e.h"] {
        write(here.join(name), name);
    }
    for name in ["keep.o", "target/old", "gone.c", "gone.h"] {
        write(there.join(name), name);
    }
    let args =
        ["sync", "--push", "here", "there", "--delete", "--include", "*.c", "--exclude", "target", "--exclude", "*.o"];
    let synced = server.run(args);
    assert_eq!(synced.code, Some(0), "{synced:?}");
    let there_now = |name: &str| there.join(name).exists();
    assert!(there_now("a.c") && there_now("sub/d.c") && !there_now("sub/e.h") && !there_now("b.o"));
    assert!(there_now("keep.o") && there_now("target/old") && there_now("gone.h") && !there_now("gone.c"));
    assert!(!there_now("target/x.c"));
}

#[test]
fn a_local_source_that_cannot_be_read_as_a_whole_deletes_nothing() {
    let (server, here, there) = world();
    write(here.join("new"), "new");
    write(there.join("extra"), "extra");
    // Deeper than a walk goes, which fails even for those who may read everything.
    fs::create_dir_all(here.join("d/".repeat(1100))).expect("a directory");
    let synced = server.run(["sync", "--push", "here", "there", "--delete", "--exclude", "nothing"]);
    assert_eq!(synced.code, Some(5), "{}", synced.stderr);
    assert!(synced.stderr.contains("nothing is deleted"), "{}", synced.stderr);
    assert!(there.join("extra").exists() && there.join("new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_source_that_cannot_be_read_as_a_whole_deletes_nothing() {
    let server = TestServer::start("[plugins.evil]\n").await;
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path().join("here/extra"), "extra");
    let mut command = Command::new(plug());
    let address = format!("tcp://{}", server.address);
    command.args(["-s", &address, "sync", "--pull", "gap", "here", "--delete", "--digest", "none"]);
    command.current_dir(dir.path());
    let output = tokio::task::spawn_blocking(move || command.output().expect("plug runs")).await.expect("no panic");
    let outcome: Outcome = output.into();
    assert_eq!(outcome.code, Some(64 + 7), "{outcome:?}");
    assert!(outcome.stderr.contains("nothing is deleted"), "{outcome:?}");
    assert!(dir.path().join("here/extra").exists() && dir.path().join("here/good").exists());
}

#[test]
fn what_is_something_else_there_is_told_and_kept() {
    let (server, here, there) = world();
    write(here.join("a"), "a file here");
    write(there.join("a/b"), "a directory there");
    write(there.join("extra"), "extra");
    let synced = server.run(["sync", "--push", "here", "there", "--delete"]);
    assert_eq!(synced.code, Some(64 + 9), "{synced:?}");
    assert!(there.join("a/b").exists() && there.join("extra").exists());
}

#[test]
fn a_directory_in_the_place_of_a_skipped_link_is_not_emptied() {
    for is_push in [true, false] {
        let (server, here, there) = world();
        let (source, destination) = if is_push { (&here, &there) } else { (&there, &here) };
        let args = if is_push { ["sync", "--push", "here", "there"] } else { ["sync", "--pull", "there", "here"] };
        write(source.join("real/f"), "f");
        symlink("real", source.join("link")).expect("a link");
        write(destination.join("link/only/copy"), "kept");
        write(destination.join("extra"), "extra");
        let synced = server.run(args.iter().chain(&["--delete"]));
        assert_eq!(synced.code, Some(0), "{synced:?}");
        assert!(synced.stderr.contains("link: skipped"), "{synced:?}");
        assert!(destination.join("link/only/copy").exists() && !destination.join("extra").exists(), "{synced:?}");
    }
}

#[test]
fn a_sync_that_has_nothing_to_do_costs_a_listing() {
    let (server, here, _) = world();
    write(here.join("f"), &"x".repeat(500_000));
    assert_eq!(server.run(["sync", "--push", "here", "there"]).code, Some(0));
    let proxy = Proxy::start(&server.address, Vec::new());
    let mut command = server.plug(["sync", "--push", "here", "there"]);
    let again: Outcome = command.env("PLUG_SERVER", &proxy.address).output().expect("plug runs").into();
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(proxy.moved_up() + proxy.moved_down() < 16 << 10);
}
