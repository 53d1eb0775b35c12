//! `plug --record`: what is stored of the calls of every verb.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use plugd_core::testing;
use serde_json::{Value, json};

use crate::support::process::{EVERYTHING, Plugd, feed};

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("a recording");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn commands(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line["command"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_call_is_stored_as_it_was() {
    let server = Plugd::start(EVERYTHING);
    let path = server.dir.path().join("calls.jsonl");
    let outcome = feed(server.plug(["--record", "calls.jsonl", "call", "upper"]), b"hi");
    assert_eq!((outcome.code, outcome.text(), &*outcome.stderr), (Some(0), "HI", ""));
    let failed = server.run(["call", "files.stat", "--path", "none", "--record", "calls.jsonl"]);
    assert_eq!(failed.code, Some(64 + 5), "{failed:?}");
    let script = "argv:=[\"sh\",\"-c\",\"echo out; echo err >&2; exit 3\"]";
    assert_eq!(server.run(["--record", "calls.jsonl", "call", "shell.exec", script, "--json"]).code, Some(64 + 2));
    let [upper, stat, exec] = &lines(&path)[..] else { panic!("three calls") };
    assert_eq!(
        *upper,
        json!({"command": "upper", "args": null, "metadata": {}, "head": upper["head"],
               "input": [{"channel": 0, "more": false, "data_b64": "aGk="}],
               "output": upper["output"], "status": {"code": "ok", "reason": "", "message": ""}, "trailer": upper["trailer"]})
    );
    assert!(upper["output"].to_string().contains("SEk=") || upper["output"].as_array().is_some_and(|o| o.len() > 1));
    assert_eq!((&stat["command"], &stat["args"]), (&json!("files.stat"), &json!({"path": "none"})));
    assert_eq!((&stat["status"]["code"], &stat["status"]["reason"]), (&json!("not_found"), &json!("no-such-file")));
    let mut channels: Vec<u64> =
        exec["output"].as_array().expect("data").iter().filter_map(|d| d["channel"].as_u64()).collect();
    channels.sort_unstable();
    assert_eq!((channels, &exec["trailer"]["exit"]["code"]), (vec![0, 1], &json!(3)));
    let mode = std::fs::metadata(&path).expect("a recording").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn every_verb_that_makes_calls_is_recorded() {
    let server = Plugd::start(EVERYTHING);
    let path = server.dir.path().join("calls.jsonl");
    std::fs::create_dir_all(server.dir.path().join("tree")).expect("a directory");
    for name in ["a", "b", "c"] {
        std::fs::write(server.dir.path().join("tree").join(name), name).expect("a file");
    }
    for (line, expected) in [
        (&["put", "-r", "tree", "tree"][..], "files.put_all"),
        (&["get", "tree/a", "-"], "files.get"),
        (&["ls", "tree"], "files.ls"),
        (&["mv", "tree/a", "tree/d"], "files.mv"),
        (&["exec", "--", "true"], "shell.exec"),
        (&["jobs"], "shell.jobs"),
        (&["call", "echo", "--report", "report.jsonl"], "echo"),
    ] {
        let outcome = server.run([&["--record", "calls.jsonl"], line].concat());
        assert_eq!(outcome.code, Some(0), "{line:?}: {outcome:?}");
        let commands = commands(&path);
        assert!(commands.iter().any(|command| command == expected), "{line:?}: {commands:?}");
        assert!(!commands.iter().any(|command| command.starts_with("plugd.")), "{commands:?}");
        std::fs::remove_file(&path).expect("a recording");
    }
    let refused = server.run(["--record", "calls.jsonl", "bench", "echo", "-n", "1"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn lines_of_many_writers_stay_whole() {
    let server = Plugd::start(EVERYTHING);
    let payload = "x".repeat(300_000);
    let call = || server.plug(["--record", "calls.jsonl", "call", "echo"]);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(feed(call(), payload.as_bytes()).code, Some(0)));
        }
    });
    assert_eq!(commands(&server.dir.path().join("calls.jsonl")), ["echo"; 6]);
}

#[test]
fn what_cannot_be_recorded_is_told_and_no_success() {
    let server = Plugd::start(EVERYTHING);
    std::fs::write(server.dir.path().join("big"), vec![0; 9 << 20]).expect("a file");
    let outcome = server.run(["--record", "calls.jsonl", "call", "echo", "--file", "big"]);
    assert_eq!((outcome.code, outcome.stdout.len()), (Some(5), 9 << 20));
    assert_eq!(
        outcome.stderr,
        "plug: echo is not recorded: it moved more than a recording holds; allowed: 16777216 bytes a call\n"
    );
    assert_eq!(lines(&server.dir.path().join("calls.jsonl")), Vec::<Value>::new());
    let full = server.run(["--record", "/dev/full", "call", "echo", "--data", "x"]);
    assert_eq!((full.code, full.text()), (Some(5), "x"), "{full:?}");
    assert!(full.stderr.contains("echo is not recorded: No space left"), "{}", full.stderr);
    let nowhere = server.run(["--record", "none/calls.jsonl", "call", "echo", "--data", "x"]);
    assert_eq!((nowhere.code, nowhere.text()), (Some(5), ""), "{nowhere:?}");
    assert!(nowhere.stderr.contains("cannot write none/calls.jsonl"), "{}", nowhere.stderr);
}

#[test]
fn a_recording_is_replayed_by_the_kit_for_handlers_tests() {
    let server = Plugd::start("[plugins.shout]\nhandler = \"upper\"\n");
    for command in ["shout", "shout.upper"] {
        let outcome = feed(server.plug(["--record", "calls.jsonl", "call", command]), "Grüße".as_bytes());
        assert_eq!((outcome.code, outcome.text()), (Some(0), "GRÜSSE"));
    }
    let path = server.dir.path().join("calls.jsonl");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(testing::replay(&path).against(&testing::Plugin::linked("upper", json!({}))));
}
