//! The verbs for files against a server that lies: nothing that it says stands for a file.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::process::{Outcome, plug};
use crate::support::server::TestServer;

/// Runs plug in `dir` against the handler that lies.
async fn against_evil(dir: &Path, args: &[&str]) -> Outcome {
    let server = TestServer::start("[plugins.evil]\n").await;
    let mut command = Command::new(plug());
    command.args(["-s", &format!("tcp://{}", server.address)]).args(args).current_dir(dir);
    tokio::task::spawn_blocking(move || command.output().expect("plug runs")).await.expect("no panic").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_here_is_never_unchanged() {
    let dir = tempfile::tempdir().expect("a directory");
    let get = against_evil(dir.path(), &["get", "unasked", "f"]).await;
    assert_eq!(get.code, Some(4), "{get:?}");
    assert!(get.stderr.contains("nothing was compared"), "{get:?}");
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_of_two_files_are_never_put_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let get = against_evil(dir.path(), &["get", "swapped", "f", "--digest", "none"]).await;
    assert_eq!(get.code, Some(4), "{get:?}");
    assert!(get.stderr.contains("another file than it began with"), "{get:?}");
    assert!(!dir.path().join("f").exists(), "{get:?}");
}
