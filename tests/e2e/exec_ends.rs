//! `plug exec`: every end of a command has its own exit code, or its own word.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::commands::Played;
use crate::support::process::{EVERYTHING, Outcome, Plugd};

/// The report that a run leaves.
fn report(server: &Played, args: &[&str]) -> (Option<i32>, Value) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("report");
    let all = [&["exec", "--report", path.to_str().expect("text"), "--"], args].concat();
    let outcome = server.run(&all);
    let text = std::fs::read_to_string(path).expect("a report");
    (outcome.code, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

#[rstest]
#[case::success("exit 0", 0)]
#[case::failure("exit 1", 1)]
#[case::the_greatest("exit 255", 255)]
#[case::signal("kill -SEGV $$", 139)]
fn a_real_command_hands_its_code_through(#[case] script: &str, #[case] code: i32) {
    let server = Plugd::start(EVERYTHING);
    assert_eq!(server.run(["exec", "--", "sh", "-c", script]).code, Some(code));
}

#[test]
fn an_option_that_nobody_knows_is_not_taken_for_the_command() {
    let server = Plugd::start(EVERYTHING);
    let unknown = server.run(["exec", "--deadlin", "3", "--", "true"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("unexpected argument '--deadlin'"), "{unknown:?}");
    let options_of_the_command = server.run(["exec", "printf", "%s", "-s", "--json", "--", "-x"]);
    assert_eq!(options_of_the_command.code, Some(0), "{options_of_the_command:?}");
    assert_eq!(options_of_the_command.stdout, b"-s--json---x");
}

#[test]
fn deadline_and_lost_connection_are_told_from_each_other_and_from_every_command() {
    let mut server = Plugd::start(EVERYTHING);
    let late = server.run(["--timeout", "200ms", "exec", "--", "sleep", "1000"]);
    assert_eq!(late.code, Some(124), "{late:?}");
    let mut call = server.plug(["exec", "--", "sh", "-c", "echo ready; sleep 1000"]);
    let mut child = call.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug runs");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
    server.kill();
    let lost: Outcome = child.wait_with_output().expect("a child").into();
    assert_eq!((lost.code, lost.stderr.starts_with("plug: connection lost")), (Some(4), true), "{lost:?}");
}

#[rstest]
#[case("out:x", "exited", 0)]
#[case("exit:255", "exited", 255)]
#[case("exit:124", "exited", 124)]
#[case("signal:11:SIGSEGV", "killed", 139)]
#[case("status:deadline_exceeded:time-max", "deadline", 124)]
#[case("status:resource_exhausted:output-max", "output-limit", 72)]
#[case("status:resource_exhausted:cpu-max", "cpu-limit", 72)]
#[case("never:resource_exhausted:busy", "busy", 72)]
#[case("never:not_found:command-not-found", "not-found", 127)]
#[case("never:permission_denied:command-not-executable", "not-executable", 126)]
#[case("never:failed_precondition:bad-cwd", "bad-cwd", 125)]
#[case("never:permission_denied:no-access", "refused", 71)]
#[case("status:cancelled:cancelled", "cancelled", 65)]
#[case("untold", "lost", 4)]
fn every_end_has_a_word_of_its_own(#[case] word: &str, #[case] end: &str, #[case] code: i32) {
    let server = Played::start();
    let (exit, report) = report(&server, &[word]);
    assert_eq!((exit, &report["end"], &report["exit_code"]), (Some(code), &json!(end), &json!(code)), "{report}");
}

#[test]
fn a_report_has_everything_that_the_server_told() {
    let server = Played::start();
    let (_, report) = report(&server, &["exit:3"]);
    assert_eq!((&report["exit"], &report["pid"]), (&json!({"code": 3}), &json!(7)));
    assert_eq!((&report["wall_ms"], &report["status"]["reason"]), (&json!(1.5), &json!("command-failed")));
    assert_eq!(report["server"], format!("tcp://{}", server.address()));
}

#[test]
fn a_server_that_is_not_there_is_reported_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("report");
    let server = Played::start();
    let args = ["-s", "127.0.0.1:1", "exec", "--report", path.to_str().expect("text"), "--", "true"];
    assert_eq!(server.run(&args).code, Some(3));
    let report: Value = serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON");
    assert_eq!((&report["end"], &report["error"]["kind"]), (&json!("connect"), &json!("connect")));
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_anything_runs() {
    let server = Played::start();
    let outcome = server.run(&["exec", "--report", "/nonexistent/report", "--", "out:x"]);
    assert_eq!((outcome.code, outcome.text()), (Some(5), ""), "{outcome:?}");
}

#[test]
fn the_envelope_has_the_word_and_the_code() {
    let server = Played::start();
    let outcome = server.run(&["--json", "exec", "--", "out:a", "err:b", "exit:3"]);
    let envelope = outcome.json();
    assert_eq!((outcome.code, &envelope["end"], &envelope["exit_code"]), (Some(3), &json!("exited"), &json!(3)));
    assert_eq!((&envelope["data"], &envelope["side"]), (&json!("a"), &json!({"1": {"data": "b"}})));
    assert_eq!((&envelope["ok"], &envelope["trailer"]["exit"]), (&json!(false), &json!({"code": 3})));
}

#[test]
fn what_is_asked_for_reaches_the_server() {
    let server = Played::start();
    let outcome = server.run(&["exec", "--shell", "--cwd", "a/b", "-e", "A=1", "-e", "B=x=y", "--", "a | b"]);
    assert_eq!(
        serde_json::from_str::<Value>(outcome.text()).expect("JSON"),
        json!({"shell": "a | b", "cwd": "a/b", "env": {"A": "1", "B": "x=y"}})
    );
}

#[test]
fn variables_that_the_server_drops_are_told() {
    let server = Played::start();
    let outcome = server.run(&["exec", "-e", "LD_PRELOAD=x", "--", "dropped:LD_PRELOAD"]);
    assert_eq!(
        (outcome.code, &*outcome.stderr),
        (Some(0), "plug: variables that the server does not allow: LD_PRELOAD\n")
    );
}

#[test]
fn arguments_arrive_as_they_are() {
    let server = Played::start();
    let argument = "out:a b;$(id)`id`\n\"'*";
    assert_eq!(server.run(&["exec", "--", argument]).text(), &argument[4..]);
}
