//! `plug exec` and `plug call` on many servers.

use std::net::TcpListener;
use std::process::Stdio;

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::commands::Played;
use crate::support::process::Outcome;

/// Runs the client on these servers.
fn run(servers: &[&str], args: &[&str]) -> Outcome {
    let mut command = std::process::Command::new(crate::support::process::plug());
    command.env_remove("PLUG_SERVER").stdin(Stdio::null());
    for server in servers {
        command.args(["-s", server]);
    }
    command.args(args).output().expect("the client's program").into()
}

fn sorted(outcome: &Outcome) -> Vec<&str> {
    let mut lines: Vec<&str> = outcome.text().lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn lines_stand_behind_the_name_of_their_server() {
    let (a, b) = (Played::start(), Played::start());
    let (a, b) = (a.address(), b.address());
    let outcome = run(&[&a, &b], &["exec", "--", "out:on", "out:e\ntw", "out:o"]);
    let mut expected = [format!("{a}: one"), format!("{a}: two"), format!("{b}: one"), format!("{b}: two")];
    expected.sort_unstable();
    assert_eq!((outcome.code, sorted(&outcome)), (Some(0), expected.iter().map(String::as_str).collect()));
    assert_eq!(outcome.stderr, "plug: 2 servers, 2 ok, 0 failed\n");
}

#[test]
fn the_greatest_code_counts_and_the_summary_names_what_failed() {
    let (a, b) = (Played::start(), Played::start());
    let outcome = run(&[&a.address(), "127.0.0.1:1", &b.address()], &["exec", "--", "exit:9"]);
    assert_eq!(outcome.code, Some(9));
    assert!(outcome.stderr.starts_with("plug: 3 servers, 0 ok, 3 failed\n"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("plug: 127.0.0.1:1: cannot connect"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(&format!("plug: {}: command exited with 9", a.address())), "{}", outcome.stderr);
    let unreachable = run(&[&a.address(), "127.0.0.1:1"], &["exec", "--", "out:x\n"]);
    assert_eq!(unreachable.code, Some(3));
}

#[test]
fn grouped_output_of_a_server_stays_together() {
    let (a, b) = (Played::start(), Played::start());
    let (a, b) = (a.address(), b.address());
    let outcome = run(&[&a, &b], &["exec", "--group", "--", "out:one\n", "err:wrong\n", "out:two"]);
    let text = outcome.text();
    assert!(text.contains(&format!("{a}:\none\ntwo\n")) && text.contains(&format!("{b}:\none\ntwo\n")), "{text}");
    assert!(outcome.stderr.contains(&format!("{a}:\nwrong\n")), "{}", outcome.stderr);
}

#[rstest]
#[case::events("--events", 3)]
#[case::envelopes("--json", 1)]
fn objects_name_their_server(#[case] option: &str, #[case] each: usize) {
    let (a, b) = (Played::start(), Played::start());
    let outcome = run(&[&a.address(), &b.address()], &["exec", option, "--", "out:x"]);
    let objects: Vec<Value> = outcome.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for server in [&a, &b] {
        let own: Vec<_> = objects.iter().filter(|object| object["server"] == server.address()).collect();
        assert_eq!((own.len(), &own[each - 1]["end"]), (each, &json!("exited")));
    }
}

#[test]
fn a_server_that_hangs_delays_no_other() {
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let hanging = hanging.local_addr().expect("an address").to_string();
    let good: Vec<Played> = (0..3).map(|_| Played::start()).collect();
    let addresses: Vec<String> = good.iter().map(Played::address).collect();
    let mut servers = vec![hanging.as_str()];
    servers.extend(addresses.iter().map(String::as_str));
    // The good ones take turns beside the one that hangs, which ends by the deadline alone.
    let outcome = run(&servers, &["--timeout", "5s", "exec", "--parallel", "2", "--", "out:x\n"]);
    assert_eq!((outcome.code, outcome.text().lines().count()), (Some(124), 3), "{outcome:?}");
    assert!(outcome.stderr.contains("4 servers, 3 ok, 1 failed"), "{}", outcome.stderr);
}

#[test]
fn what_is_ready_is_shown_before_a_hanging_server_ends() {
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let hanging = hanging.local_addr().expect("an address").to_string();
    let good = Played::start();
    let mut command = std::process::Command::new(crate::support::process::plug());
    command.args(["-s", &hanging, "-s", &good.address(), "exec", "--", "out:x\n"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("plug runs");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    assert_eq!(line, format!("{}: x\n", good.address()));
    child.kill().expect("a running client");
    child.wait().expect("a child");
}

#[test]
fn a_signal_ends_all_of_them() {
    let (a, b) = (Played::start(), Played::start());
    let mut command = std::process::Command::new(crate::support::process::plug());
    command.args(["-s", &a.address(), "-s", &b.address(), "exec", "--parallel", "1", "--", "out:x\n", "wait"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::Signal::SIGINT)
        .expect("a running client");
    let outcome: Outcome = child.wait_with_output().expect("a child").into();
    // The one that ran is given up, and the one that waited is never asked.
    assert_eq!((outcome.code, outcome.text()), (Some(130), ""), "{outcome:?}");
}

#[test]
fn any_call_works_on_many_servers() {
    let (a, b) = (Played::start(), Played::start());
    let (a, b) = (a.address(), b.address());
    let outcome = run(&[&format!("{a},{b}")], &["call", "echo", "--data", "hi"]);
    let mut expected = [format!("{a}: hi"), format!("{b}: hi")];
    expected.sort_unstable();
    assert_eq!((outcome.code, sorted(&outcome)), (Some(0), expected.iter().map(String::as_str).collect()));
    let refused = run(&[&a, &b], &["call", "ecko", "--data", "hi"]);
    assert_eq!(refused.code, Some(69), "{refused:?}");
}

#[test]
fn a_verb_for_one_server_takes_no_more() {
    let outcome = run(&["a", "b"], &["ping"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("2 servers given; only exec, logs and call take several"), "{}", outcome.stderr);
}
