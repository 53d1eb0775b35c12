//! `plug exec` over the shell handler: streams apart, and an end that is true.

use std::path::Path;
use std::process::Stdio;

use rstest::rstest;

use crate::support::process::{EVERYTHING, Plugd, Remote, feed, wait_until};

#[rstest]
#[case::success("exit 0", 0)]
#[case::failure("exit 1", 1)]
#[case::any_code("exit 254", 254)]
#[case::signal("kill -SEGV $$", 128 + 11)]
fn the_commands_own_code_comes_through(#[case] script: &str, #[case] code: i32) {
    let server = Plugd::start(EVERYTHING);
    assert_eq!(server.run(["exec", "--", "sh", "-c", script]).code, Some(code));
}

#[test]
fn what_is_not_the_commands_end_has_codes_of_its_own() {
    let server = Plugd::start(EVERYTHING);
    assert_eq!(server.run(["exec", "--", "no-such-command"]).code, Some(127));
    assert_eq!(server.run(["exec", "--", "./plugins.toml"]).code, Some(126));
    assert_eq!(server.run(["-s", "tcp://127.0.0.1:1", "exec", "--", "true"]).code, Some(3));
    let without = Plugd::start("[plugins.echo]\n");
    assert_eq!(without.run(["exec", "--", "true"]).code, Some(2));
}

#[test]
fn output_and_error_stay_apart_and_input_is_half_closed() {
    let server = Plugd::start(EVERYTHING);
    let script = "echo to-out; echo to-err >&2; cat; echo after-input";
    let outcome = feed(server.plug(["exec", "--", "sh", "-c", script]), b"from-in\n");
    assert_eq!((outcome.code, outcome.text()), (Some(0), "to-out\nfrom-in\nafter-input\n"));
    assert_eq!(outcome.stderr, "to-err\n");
}

#[test]
fn fifty_megabytes_of_output_arrive_whole() {
    let server = Plugd::start(EVERYTHING);
    let outcome = server.run(["exec", "--", "sh", "-c", "head -c 50000000 /dev/zero; head -c 1000000 /dev/zero >&2"]);
    assert_eq!(outcome.code, Some(0));
    assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (50_000_000, 1_000_000));
}

#[test]
fn a_command_that_closes_its_input_early_is_no_failure() {
    let server = Plugd::start(EVERYTHING);
    let outcome = feed(server.plug(["exec", "--", "head", "-c", "3"]), &[b'x'; 5_000_000]);
    assert_eq!((outcome.code, outcome.text()), (Some(0), "xxx"), "{}", outcome.stderr);
}

#[test]
fn output_comes_as_it_is_written() {
    let server = Plugd::start(EVERYTHING);
    let mut child = server
        .plug(["exec", "--", "sh", "-c", "printf first; read line; printf second"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("plug runs");
    let mut first = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("the first words");
    assert_eq!(&first, b"first");
    std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), b"go\n").expect("a reader");
    let output = child.wait_with_output().expect("a child");
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"second"[..]));
}

/// The whole group must be gone, whatever ended the call.
#[rstest]
#[case::deadline(&["--timeout", "200ms"], "sleep 1000 & echo $!; wait")]
#[case::the_leader_exits(&[], "sleep 1000 & echo $!; exit 0")]
fn no_process_of_a_command_outlives_its_call(#[case] options: &[&str], #[case] script: &str) {
    let server = Plugd::start(EVERYTHING);
    let args: Vec<&str> = options.iter().chain(&["exec", "--", "sh", "-c", script]).copied().collect();
    let outcome = server.run(args);
    let process = format!("/proc/{}", outcome.text().trim());
    wait_until("end of the grandchild", || !Path::new(&process).join("exe").exists());
}

#[test]
fn a_vanished_caller_takes_its_command_with_it() {
    let server = Plugd::start(EVERYTHING);
    let mut remote = Remote::start(&server, "trap '' TERM; while :; do sleep 1000; done");
    remote.client.kill().expect("a running client");
    remote.end();
}

#[test]
fn arguments_are_never_interpreted() {
    let server = Plugd::start(EVERYTHING);
    let argument = "a b;$(id)`id`\n\"'*";
    let outcome = server.run(["exec", "--", "printf", "%s", argument]);
    assert_eq!((outcome.code, outcome.text()), (Some(0), argument));
}
