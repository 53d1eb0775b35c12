//! `plug exec --detach`, `jobs`, `logs`, `attach` and `kill`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::commands::Played;

#[test]
fn a_detached_command_prints_its_id_alone() {
    let server = Played::start();
    let outcome = server.run(&["exec", "--detach", "--", "make"]);
    assert_eq!((outcome.code, outcome.text()), (Some(0), "j1\n"));
    assert!(outcome.stderr.contains("until it ends, or the server does"), "{}", outcome.stderr);
    let envelope = server.run(&["--json", "exec", "--detach", "--", "make"]).json();
    assert_eq!((&envelope["end"], &envelope["head"]["job"]), (&json!("detached"), &json!("j1")));
}

#[test]
fn jobs_are_listed_for_people_and_for_programs() {
    let server = Played::start();
    let text = server.run(&["jobs"]);
    let lines: Vec<&str> = text.text().lines().collect();
    assert_eq!((text.code, lines.len()), (Some(0), 3), "{text:?}");
    assert!(lines[1].starts_with("j1  running") && lines[2].starts_with("j2  exited 3"), "{lines:?}");
    let envelope = server.run(&["--json", "jobs"]).json();
    assert_eq!((&envelope["data"][0]["id"], &envelope["data"][1]["exit"]["code"]), (&json!("j1"), &json!(3)));
}

#[test]
fn logs_keep_the_streams_apart_and_say_from_where() {
    let server = Played::start();
    let outcome = server.run(&["logs", "-f", "--from", "12", "j1"]);
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), "an error\n"));
    let args: Value = serde_json::from_str(outcome.text()).expect("JSON");
    assert_eq!(args, json!({"id": "j1", "from": 12, "follow": true, "stream": "both"}));
    let unknown = server.run(&["logs", "j9"]);
    assert_eq!(unknown.code, Some(69));
    assert!(unknown.stderr.contains("not_found (unknown-job)"), "{}", unknown.stderr);
}

#[test]
fn a_job_that_is_attached_to_hears_signals_and_ends_as_a_command_does() {
    let server = Played::start();
    let mut command = server.plug(&["attach", "-n", "j1"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "attached\n");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a running client");
    line.clear();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!((line.trim_end(), child.wait().expect("a child").code()), ("{\"signal\":\"INT\"}", Some(130)));
}

#[test]
fn a_job_whose_end_nobody_tells_is_lost() {
    let server = Played::start();
    let mut command = server.plug(&["attach", "-n", "j2"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a running client");
    assert_eq!(child.wait().expect("a child").code(), Some(4));
}

#[test]
fn kill_sends_a_signal_or_ends_the_job() {
    let server = Played::start();
    let said = |args: &[&str]| server.run(args).json()["data"].clone();
    assert_eq!(said(&["--json", "kill", "j1"]), "{\"id\":\"j1\",\"signal\":null}\n");
    assert_eq!(said(&["--json", "kill", "--signal", "USR1", "j1"]), "{\"id\":\"j1\",\"signal\":\"USR1\"}\n");
    let quiet = server.run(&["kill", "j1"]);
    assert_eq!((quiet.code, quiet.text(), &*quiet.stderr), (Some(0), "", ""));
    assert_eq!(server.run(&["kill", "j9"]).code, Some(69));
}
