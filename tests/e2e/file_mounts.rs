//! The file handler below whose root other things are mounted: a small disk that fills up, and a directory twice.
//!
//! Mounting needs a permission that not every machine gives: `cargo test -p plugd-tests -- --ignored file_mounts`.

use std::process::Command;

use serde_json::{Value, json};

use crate::file_server::{Caller, sample};
use crate::support::process::{EVERYTHING, Plugd, plugd};

const MIB: usize = 1 << 20;

/// A server with a disk of 4 MiB at `small` and another directory at `bound`.
fn serve() -> Plugd {
    const APART: [&str; 5] = ["--user", "--map-root-user", "--mount", "--", "sh"];
    let script = format!(
        "set -e; mkdir -p files/bound files/small other; mount --bind other files/bound; \
         mount -t tmpfs -o size=4m none files/small; exec {} --log warn \"$@\"",
        plugd().display()
    );
    let mut command = Command::new("unshare");
    command.args(APART).args(["-c", &script, "sh"]);
    Plugd::start_by(EVERYTHING, command)
}

/// Stores a file; returns the reason for which that fails, or nothing.
fn put(server: &Plugd, args: &Value, content: &[u8]) -> String {
    let mut caller = Caller::open(server, "files.put", args);
    // It may be refused before its end.
    let _ = caller.send(content);
    let _ = caller.end_input();
    caller.end().status.reason().to_owned()
}

fn ask(server: &Plugd, command: &str, args: &Value) -> (Vec<u8>, String) {
    let mut caller = Caller::open(server, command, args);
    caller.end_input().expect("an open connection");
    let (content, end) = caller.content();
    (content, end.status.reason().to_owned())
}

fn get(server: &Plugd, path: &str) -> Vec<u8> {
    let (content, reason) = ask(server, "files.get", &json!({ "path": path, "algorithm": "none" }));
    assert_eq!(reason, "", "{path}");
    content
}

#[test]
#[ignore = "needs unshare(1) and the permission to mount"]
fn a_file_is_stored_whole_on_any_mount() {
    let server = serve();
    let content = sample(MIB + 1);
    for path in ["small/f", "bound/f", "f"] {
        let args = |resume: bool| json!({ "path": path, "token": "t", "size": content.len(), "resume": resume });
        let mut caller = Caller::open(&server, "files.put", &args(false));
        caller.head();
        caller.send(&content[..MIB / 2]).expect("an open connection");
        drop(caller);
        let mut caller = Caller::open(&server, "files.put", &args(true));
        let offset = caller.head()["offset"].as_u64().expect("an offset") as usize;
        caller.send(&content[offset..]).expect("an open connection");
        caller.end_input().expect("an open connection");
        let end = caller.end();
        assert!(end.status.is_ok(), "{path}: {}", end.status);
        assert!(get(&server, path) == content, "{path}");
    }
    for (from, to) in [("f", "small/f"), ("small/f", "bound/f"), ("bound/f", "g")] {
        assert_eq!(ask(&server, "files.mv", &json!({ "from": from, "to": to })).1, "other-file-system", "{from} {to}");
        assert_eq!(ask(&server, "files.copy", &json!({ "from": from, "to": to })).1, "", "{from} {to}");
        assert!(get(&server, to) == content, "{to}");
    }
    let (listed, reason) = ask(&server, "files.ls", &json!({ "recursive": true }));
    assert_eq!(reason, "");
    assert!(!String::from_utf8(listed).expect("text").contains("plugd-uploads"), "they are nobody's here either");
}

#[test]
#[ignore = "needs unshare(1) and the permission to mount"]
fn a_disk_that_is_full_leaves_the_old_file_and_its_space_is_free_again() {
    let server = serve();
    let (old, long) = (sample(MIB), vec![7; 8 * MIB]);
    assert_eq!(put(&server, &json!({ "path": "small/f" }), &old), "");
    let mut caller = Caller::open(&server, "files.put", &json!({ "path": "small/f", "size": long.len() }));
    assert_eq!(caller.end().status.reason(), "no-space", "before the first byte");
    for _ in 0..3 {
        assert_eq!(put(&server, &json!({ "path": "small/f" }), &long), "no-space", "in the middle");
        assert!(get(&server, "small/f") == old);
    }
    assert_eq!(put(&server, &json!({ "path": "big" }), &vec![7; 5 * MIB]), "");
    let mut caller = Caller::open(&server, "files.copy", &json!({ "from": "big", "to": "small/f" }));
    let status = caller.end().status;
    assert_eq!(status.to_string(), "resource_exhausted (no-space): no space left for \"small/f\"");
    assert!(get(&server, "small/f") == old);
    assert_eq!(put(&server, &json!({ "path": "small/g" }), &vec![7; 2 * MIB]), "", "the space is free again");
}
