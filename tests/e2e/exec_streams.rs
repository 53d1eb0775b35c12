//! `plug exec`: streams as they come, in the order of arrival, decoded when asked for, and signals.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::commands::Played;
use crate::support::process::{EVERYTHING, Outcome, Plugd, Remote, feed, wait_until};

fn events(outcome: &Outcome) -> Vec<Value> {
    outcome.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Starts the client and waits for its first line of output.
fn started(server: &Played, args: &[&str]) -> (Child, BufReader<std::process::ChildStdout>, String) {
    let mut command = server.plug(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("plug runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    (child, stdout, line)
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("a running client");
}

#[test]
fn events_restore_the_order_of_arrival() {
    let server = Played::start();
    let outcome = server.run(&["exec", "--events", "--", "out:1", "err:2", "out:3", "hex:ff", "err:4", "exit:7"]);
    let events = events(&outcome);
    let shown: Vec<_> = events[1..6].iter().map(|event| (&event["stream"], &event["data"])).collect();
    let [out, err] = [json!("stdout"), json!("stderr")];
    assert_eq!(
        shown,
        [(&out, &json!("1")), (&err, &json!("2")), (&out, &json!("3")), (&out, &Value::Null), (&err, &json!("4"))]
    );
    assert_eq!(events[4]["data_base64"], "/w==");
    let seqs: Vec<_> = events.iter().map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, (0..7).map(Some).collect::<Vec<_>>());
    assert_eq!((&events[0]["event"], &events[0]["head"]["pid"]), (&json!("start"), &json!(7)));
    assert_eq!((&events[6]["event"], &events[6]["end"], outcome.code), (&json!("end"), &json!("exited"), Some(7)));
}

#[test]
fn events_of_a_call_that_never_began_are_its_end() {
    let server = Played::start();
    let outcome = server.run(&["exec", "--events", "--", "never:not_found:command-not-found"]);
    let last = events(&outcome).pop().expect("an event");
    assert_eq!((&last["end"], outcome.code), (&json!("not-found"), Some(127)));
}

#[test]
fn both_streams_on_one_terminal_keep_their_order() {
    let server = Played::start();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let words: Vec<String> = (0..100).map(|i| format!("{}:{i} ", if i % 2 == 0 { "out" } else { "err" })).collect();
    let mut command = server.plug(&["exec", "--"]);
    command.args(&words).stdout(writer.try_clone().expect("a pipe")).stderr(writer);
    let mut child = command.spawn().expect("plug runs");
    drop(command);
    let mut text = String::new();
    BufReader::new(reader).read_to_string(&mut text).expect("text");
    assert_eq!(child.wait().expect("a child").code(), Some(0));
    assert_eq!(text, (0..100).map(|i| format!("{i} ")).collect::<String>());
}

#[test]
fn a_line_of_ten_megabytes_streams_before_its_end() {
    let server = Played::start();
    let mut command = server.plug(&["exec", "--", "big:10000000", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("plug runs");
    let mut line = vec![0; 10_000_000];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut line).expect("the line without its end");
    assert!(line.iter().all(|byte| *byte == b'x'));
    child.stdin.take().expect("a pipe").write_all(b"\n").expect("a reader");
    let rest = child.wait_with_output().expect("a child");
    assert_eq!((rest.status.code(), &*rest.stdout), (Some(0), &b"\n"[..]));
}

#[test]
fn every_byte_is_the_same_on_both_ways() {
    let server = Plugd::start(EVERYTHING);
    let bytes: Vec<u8> = (0..=255).cycle().take(256 * 300).collect();
    let outcome = feed(server.plug(["exec", "--", "cat"]), &bytes);
    assert_eq!(outcome.code, Some(0));
    assert!(outcome.stdout == bytes, "{} of {} bytes", outcome.stdout.len(), bytes.len());
}

#[test]
fn a_command_that_ends_early_leaves_the_rest_of_the_input() {
    let server = Played::start();
    let (mut child, mut stdout, line) = started(&server, &["exec", "--", "out:begun\n", "eat:1", "exit:3"]);
    assert_eq!(line, "begun\n");
    // The input stays open, and nobody waits for its end.
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"x").expect("a reader");
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert_eq!((rest.as_str(), child.wait().expect("a child").code()), ("", Some(3)));
    drop(stdin);
}

#[test]
fn no_stdin_leaves_the_input_alone() {
    let server = Played::start();
    let outcome = feed(server.plug(&["exec", "-n", "--", "cat", "out:end"]), b"not for the command");
    assert_eq!((outcome.code, outcome.text()), (Some(0), "end"));
}

#[test]
fn a_reader_that_has_gone_ends_the_call() {
    let server = Plugd::start(EVERYTHING);
    let mut remote = Remote::start(&server, "trap '' PIPE; while echo y; do sleep 0.01; done");
    drop(remote.client.stdout.take());
    assert_eq!(remote.end(), Some(5));
}

#[rstest]
#[case::interrupt(Signal::SIGINT, "{\"signal\":\"INT\"}")]
#[case::terminate(Signal::SIGTERM, "{\"signal\":\"TERM\"}")]
fn the_first_signal_goes_to_the_command(#[case] sent: Signal, #[case] heard: &str) {
    let server = Played::start();
    let (mut child, mut stdout, _) = started(&server, &["exec", "--", "out:ready\n", "control", "exit:42"]);
    signal(&child, sent);
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line.trim_end(), heard);
    assert_eq!(child.wait().expect("a child").code(), Some(42));
}

#[test]
fn the_second_signal_leaves() {
    let server = Played::start();
    let (mut child, mut stdout, _) = started(&server, &["exec", "--", "out:ready\n", "control", "wait"]);
    signal(&child, Signal::SIGINT);
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    signal(&child, Signal::SIGTERM);
    assert_eq!(child.wait().expect("a child").code(), Some(128 + 15));
}

#[test]
fn a_signal_after_the_end_of_the_input_gives_the_call_up() {
    let server = Played::start();
    let (mut child, _stdout, _) = started(&server, &["exec", "-n", "--", "out:ready\n", "wait"]);
    signal(&child, Signal::SIGINT);
    assert_eq!(child.wait().expect("a child").code(), Some(130));
}

#[test]
fn a_signal_ends_even_a_client_whose_reader_is_stuck() {
    let server = Played::start();
    let mut command = server.plug(&["exec", "--", "big:60000000"]);
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().expect("plug runs");
    let mut some = [0; 1000];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut some).expect("some output");
    // The first one may go to the command; a later one is for the client in any case.
    wait_until("end of the client", || {
        signal(&child, Signal::SIGTERM);
        child.try_wait().expect("a child").is_some()
    });
    assert_eq!(child.wait().expect("a child").code(), Some(128 + 15));
}

#[rstest]
#[case::split_between_frames(&["hex:d6", "hex:d0"], "中")]
#[case::cut_at_the_end(&["hex:d6"], "\u{fffd}")]
#[case::a_wrong_second_byte_stays(&["hex:81", "hex:20"], "\u{fffd} ")]
#[case::each_stream_has_its_own_state(&["hex:d6", "err:x", "hex:d0"], "中")]
fn output_is_decoded_for_display(#[case] words: &[&str], #[case] shown: &str) {
    let server = Played::start();
    for encoding in ["gbk", "GB2312", "auto"] {
        let outcome = server.run(&[&["exec", "--encoding", encoding, "--"], words].concat());
        assert_eq!((outcome.code, outcome.text()), (Some(0), shown), "{encoding}");
    }
}

#[test]
fn without_an_encoding_bytes_stay() {
    let server = Played::start();
    assert_eq!(server.run(&["exec", "--", "hex:81", "hex:20", "hex:d6"]).stdout, b"\x81\x20\xd6");
}

#[test]
fn decoded_events_are_text() {
    let server = Played::start();
    let outcome = server.run(&["exec", "--events", "--encoding", "gbk", "--", "hex:d6", "hex:d0", "hex:81"]);
    let events = events(&outcome);
    let text: String = events.iter().filter_map(|event| event["data"].as_str()).collect();
    assert_eq!(text, "中\u{fffd}");
}

#[test]
fn an_unknown_encoding_is_refused_before_anybody_is_called() {
    let server = Played::start();
    let outcome = server.run(&["exec", "--encoding", "gkb", "--", "out:x"]);
    assert_eq!((outcome.code, outcome.text()), (Some(2), ""));
    assert!(outcome.stderr.contains("unknown encoding \"gkb\"; allowed: auto"), "{}", outcome.stderr);
}
