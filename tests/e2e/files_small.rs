//! Small files, which go up many in one call.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::process::{EVERYTHING, Outcome, Plugd, plug};
use crate::support::server::TestServer;

/// Puts a tree of two files of one byte to `target`.
async fn put_two(server: &TestServer, target: &str) -> Outcome {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("up")).expect("a directory");
    for name in ["a", "b"] {
        fs::write(dir.path().join("up").join(name), "x").expect("a file");
    }
    let mut command = Command::new(plug());
    let address = format!("tcp://{}", server.address);
    command.args(["-s", &address, "--json", "put", "-r", "up", target, "--digest", "none", "-j", "1"]);
    command.current_dir(dir.path());
    tokio::task::spawn_blocking(move || command.output().expect("plug runs")).await.expect("no panic").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_more_than_one_gets_them_one_by_one() {
    let server = TestServer::start("[plugins.old_depot]\n").await;
    let put = put_two(&server, "tree").await;
    assert_eq!(put.code, Some(0), "{put:?}");
    let data = &put.json()["data"];
    assert_eq!((&data["files"], &data["bytes"], &data["failed"]), (&json!(2), &json!(2), &json!(0)), "{data}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_fit_the_files_is_no_success() {
    let server = TestServer::start("[plugins.lying_depot]\n").await;
    assert_eq!(put_two(&server, "good").await.code, Some(0));
    for (target, said) in [
        ("few", "fewer lines than files"),
        ("many", "more lines than files"),
        ("swapped", "is not about"),
        ("nothing", "neither a receipt nor a status"),
        ("both", "neither a receipt nor a status"),
        ("status", "unknown status code 99"),
        ("size", "size-mismatch"),
        ("failed", "the depot is closed"),
    ] {
        let put = put_two(&server, target).await;
        assert_ne!(put.code, Some(0), "{target}: {put:?}");
        let told = format!("{}{}", String::from_utf8_lossy(&put.stdout), put.stderr);
        assert!(told.contains(said), "{target}: {put:?}");
    }
}

#[test]
fn a_bad_one_among_many_is_told_and_the_others_are_stored() {
    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    fs::create_dir(&up).expect("a directory");
    for index in 0..200 {
        fs::write(up.join(format!("f{index}")), index.to_string()).expect("a file");
    }
    fs::create_dir_all(server.file("tree/f7")).expect("a directory");
    let put = server.run(["--json", "put", "-r", "up", "tree"]);
    assert_ne!(put.code, Some(0), "{put:?}");
    assert!(put.stderr.contains("tree/f7: ") && put.stderr.contains("is-a-directory"), "{put:?}");
    let stored = |index: usize| fs::read_to_string(server.file(&format!("tree/f{index}"))).expect("a file");
    assert!((0..200).filter(|index| *index != 7).all(|index| stored(index) == index.to_string()));
    assert!(Path::new(&server.file("tree/f7")).is_dir());
}
