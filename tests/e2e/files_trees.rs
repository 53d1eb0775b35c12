//! Trees, globs and many files over few connections, and destinations that are never left.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::evil;
use crate::support::process::{EVERYTHING, Outcome, Plugd, plug};
use crate::support::proxy::{Fate, Proxy};
use crate::support::server::TestServer;

/// Some hundred files in a few directories, an empty one among them, and a large file in between.
fn plant(dir: &Path) {
    for index in 0..300_usize {
        let place = dir.join(format!("d{}/e{}", index % 5, index % 3));
        fs::create_dir_all(&place).expect("a directory");
        fs::write(place.join(format!("f{index}")), format!("{index}\n").repeat(index)).expect("a file");
    }
    fs::create_dir_all(dir.join("empty/below")).expect("a directory");
    fs::write(dir.join("d1/large"), vec![7; 2_000_003]).expect("a file");
    fs::write(dir.join("zero"), "").expect("a file");
}

fn is_same(one: &Path, other: &Path) -> bool {
    Command::new("diff").arg("-r").args([one, other]).status().expect("diff runs").success()
}

fn through(proxy: &Proxy, server: &Plugd, args: &[&str]) -> Outcome {
    server.plug(args).env("PLUG_SERVER", &proxy.address).output().expect("the client's program").into()
}

#[test]
fn a_tree_goes_up_and_comes_down() {
    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    plant(&up);
    for (verb, source, target, place) in
        [("put", "up", "tree", server.file("tree")), ("get", "tree", "down", server.dir.path().join("down"))]
    {
        let moved = server.run(["--json", verb, "-r", source, target]);
        assert_eq!(moved.code, Some(0), "{moved:?}");
        let data = &moved.json()["data"];
        assert_eq!(
            (&data["files"], &data["failed"], &data["unchanged"]),
            (&json!(302), &json!(0), &json!(0)),
            "{data}"
        );
        assert!(is_same(&up, &place));
        assert!(!moved.stderr.contains('\r'));
    }
}

#[test]
fn a_tree_that_is_there_already_moves_nothing() {
    let server = Plugd::start(EVERYTHING);
    plant(&server.dir.path().join("up"));
    fs::create_dir(server.file("in")).expect("a directory");
    for args in [["put", "-r", "up", "in/"], ["get", "-r", "in/up", "down/"]] {
        assert_eq!(server.run(args).code, Some(0));
        let proxy = Proxy::start(&server.address, Vec::new());
        let again = through(&proxy, &server, &[&["--json"], &args[..]].concat());
        assert_eq!(again.code, Some(0), "{again:?}");
        let data = &again.json()["data"];
        assert_eq!((&data["unchanged"], &data["bytes"]), (&json!(302), &json!(0)), "{data}");
        let moved = proxy.moved_up().max(proxy.moved_down());
        assert!(moved < 302 * 600, "{moved} bytes");
    }
    assert!(is_same(&server.dir.path().join("up"), &server.dir.path().join("down/up")));
}

#[test]
fn many_files_take_few_connections_and_do_not_wait_for_each_other() {
    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    fs::create_dir(&up).expect("a directory");
    for index in 0..1000 {
        fs::write(up.join(format!("f{index}")), [index as u8; 4096]).expect("a file");
    }
    let delay = Duration::from_millis(10);
    for args in [["put", "-r", "up", "tree"], ["get", "-r", "tree", "down"]] {
        let proxy = Proxy::start_slow(&server.address, Vec::new(), delay);
        let start = Instant::now();
        let moved = through(&proxy, &server, &args);
        assert_eq!(moved.code, Some(0), "{moved:?}");
        assert!(proxy.connections() <= 3, "{} connections", proxy.connections());
        // A round trip for each file, over two connections.
        let one_by_one = 2 * delay * 1000 / 2;
        assert!(start.elapsed() < one_by_one, "{:?}", start.elapsed());
    }
    assert!(is_same(&up, &server.dir.path().join("down")));
}

#[test]
fn more_connections_than_the_server_has_room_for_are_done_without() {
    let server = Plugd::start_with("connections_max = 2", EVERYTHING);
    let up = server.dir.path().join("up");
    plant(&up);
    for args in [["put", "-r", "up", "tree"], ["get", "-r", "tree", "down"]] {
        let moved = server.run(args.iter().chain(&["-j", "8", "--retry", "0"]));
        assert_eq!(moved.code, Some(0), "{moved:?}");
        assert_eq!(moved.stderr.lines().count(), 1, "{moved:?}");
    }
    assert!(is_same(&up, &server.dir.path().join("down")));
}

#[test]
fn one_lost_connection_of_several_ends_without_a_hang() {
    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    plant(&up);
    for args in [["put", "-r", "up", "tree"], ["get", "-r", "tree", "down"]] {
        let cut = Fate { content: b"150\n150\n".to_vec(), cut_at: Some(20_000), flip_at: None };
        let proxy = Proxy::start(&server.address, vec![cut]);
        let moved = through(&proxy, &server, &[&args[..], &["--retry", "0", "-j", "3", "--timeout", "20s"]].concat());
        assert_eq!((moved.code, proxy.met()), (Some(4), 1), "{moved:?}");
        assert_eq!(server.run(args).code, Some(0));
    }
}

#[test]
fn a_tree_survives_cuts_in_between() {
    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    plant(&up);
    let cut = || Fate { content: b"150\n150\n".to_vec(), cut_at: Some(30_000), flip_at: None };
    for (args, place) in [
        (["put", "-r", "up", "tree"], server.file("tree")),
        (["get", "-r", "tree", "down"], server.dir.path().join("down")),
    ] {
        let proxy = Proxy::start(&server.address, vec![cut()]);
        let moved = through(&proxy, &server, &args);
        assert_eq!((moved.code, proxy.met()), (Some(0), 1), "{moved:?}");
        assert!(is_same(&up, &place));
    }
}

#[test]
fn one_failure_among_many_is_told_and_the_others_go_well() {
    let server = Plugd::start(EVERYTHING);
    plant(&server.dir.path().join("up"));
    // A directory in the place of a file.
    fs::create_dir_all(server.file("tree/d1/large/x")).expect("a directory");
    fs::create_dir_all(server.dir.path().join("down/tree/zero")).expect("a directory");
    let put = server.run(["put", "-r", "up/d1", "up/zero", "tree/"]);
    assert_eq!(put.code, Some(64 + 9), "{put:?}");
    assert!(put.stderr.contains("tree/d1/large: ") && put.stderr.contains("1 failed"), "{put:?}");
    assert!(server.file("tree/zero").is_file() && server.file("tree/d1/e1/f1").is_file());
    let get = server.run(["get", "-r", "tree", "down/"]);
    assert_eq!(get.code, Some(5), "{get:?}");
    assert!(get.stderr.contains("zero: ") && get.stderr.contains("1 failed"), "{get:?}");
    assert!(server.dir.path().join("down/tree/d1/e1/f1").is_file());
}

#[test]
fn globs_and_several_names_go_into_a_directory() {
    let server = Plugd::start(EVERYTHING);
    let down = server.dir.path().join("down");
    for name in ["a.c", "b.c", "c.h", "literal*.c"] {
        fs::write(server.file(name), name).expect("a file");
    }
    fs::create_dir(server.file("dir.c")).expect("a directory");
    let get = server.run(["get", "[ab].c", "c.h", "down"]);
    assert_eq!(get.code, Some(0), "{get:?}");
    for name in ["a.c", "b.c", "c.h"] {
        assert_eq!(fs::read_to_string(down.join(name)).expect("a file"), name);
    }
    assert_eq!(server.run(["get", "literal*.c", "down"]).code, Some(0), "a name that looks like a glob");
    assert!(down.join("literal*.c").exists());
    let none = server.run(["get", "*.none", "down"]);
    assert_eq!(none.code, Some(64 + 5), "{none:?}");
    let get = server.run(["get", "*.c", "more"]);
    assert!(get.code == Some(0) && get.stderr.contains("dir.c: skipped: a directory"), "{get:?}");
    let put = server.run(["put", "down/a.c", "down/b.c", "into/"]);
    assert_eq!(put.code, Some(0), "{put:?}");
    assert!(server.file("into/a.c").exists() && server.file("into/b.c").exists());
    let same = server.run(["get", "a.c", "into/a.c", "down"]);
    assert_eq!(same.code, Some(5), "two files of one name: {same:?}");
}

#[test]
fn links_and_pipes_in_a_tree_are_skipped_and_named() {
    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    fs::create_dir(&up).expect("a directory");
    symlink("/etc/passwd", up.join("link")).expect("a link");
    assert!(Command::new("mkfifo").arg(up.join("pipe")).status().expect("mkfifo runs").success());
    fs::write(up.join("file"), "x").expect("a file");
    let put = server.run(["put", "-r", "up", "tree"]);
    assert_eq!(put.code, Some(0), "{put:?}");
    assert!(put.stderr.contains("link: skipped") && put.stderr.contains("pipe: skipped"), "{put:?}");
    assert!(server.file("tree/file").exists() && !server.file("tree/link").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_outside_the_destination_whatever_the_server_says() {
    let server = TestServer::start("[plugins.evil]\n").await;
    let dir = tempfile::tempdir().expect("a directory");
    let down = dir.path().join("down");
    fs::create_dir(&down).expect("a directory");
    fs::create_dir(dir.path().join("elsewhere")).expect("a directory");
    symlink("../elsewhere", down.join("link")).expect("a link");
    let mut command = Command::new(plug());
    command.args(["-s", &format!("tcp://{}", server.address), "get", "-r", "x/.", "down", "--digest", "none"]);
    command.current_dir(dir.path());
    let output = tokio::task::spawn_blocking(move || command.output().expect("plug runs")).await.expect("no panic");
    let outcome: Outcome = output.into();
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("refused to write"), "{outcome:?}");
    assert_eq!(fs::read_dir(dir.path().join("elsewhere")).expect("a directory").count(), 0);
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 2);
    assert!(!Path::new("/tmp/plug-evil").exists());
    for name in fs::read_dir(&down).expect("a directory").map(|entry| entry.expect("an entry").file_name()) {
        assert!(["good", "z", "link"].iter().any(|good| name == *good), "{name:?}");
    }
    assert_eq!(fs::read_to_string(down.join("good")).expect("a file"), evil::CONTENT);
}

#[test]
fn a_tree_without_retries_ends_with_the_lost_connection() {
    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    plant(&up);
    assert_eq!(server.run(["put", "-r", "up", "tree"]).code, Some(0));
    for args in [
        &["put", "-r", "up", "other"][..],
        &["get", "-r", "tree", "down"],
        &["sync", "--push", "up", "third", "--delete"],
        &["sync", "--pull", "tree", "fourth", "--delete"],
    ] {
        for lanes in ["1", "4"] {
            // As many cuts as there are lanes, so that none is left.
            let cut = || Fate { content: vec![b'\n'; 1], cut_at: Some(20_000), flip_at: None };
            let proxy = Proxy::start(&server.address, (0..10).map(|_| cut()).collect());
            let moved = through(&proxy, &server, &[args, &["--retry", "0", "-j", lanes, "--timeout", "20s"]].concat());
            assert_eq!(moved.code, Some(4), "{args:?} {lanes}: {moved:?}");
        }
        let moved = server.run(args);
        assert_eq!(moved.code, Some(0), "{moved:?}");
    }
    for place in [server.file("other"), server.dir.path().join("down"), server.file("third")] {
        assert!(is_same(&up, &place), "{place:?}");
    }
}
