//! The verbs for commands against the shell handler itself.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::process::{Outcome, Plugd, Remote, wait_until};
use crate::support::teletype::Terminal;

const SHELL: &str = r#"
[plugins.shell]
access.allow = ["net:127.0.0.0/8"]
config = { allow_any_command = true, pty = true, output_max = "100MiB", commands_max = 4, encoding = "gbk" }
"#;

/// The end that the report tells, and the client's code.
fn end(server: &Plugd, args: &[&str]) -> (Option<i32>, Value) {
    let path = server.dir.path().join("report");
    let all = [&["exec", "--report", path.to_str().expect("text")], args].concat();
    let code = server.run(&all).code;
    let report: Value = serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON");
    (code, report)
}

/// The largest size that a process had, in KiB.
fn peak_kib(process: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a running client");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn every_end_is_told_apart() {
    let server = Plugd::start(SHELL);
    for (args, code, word) in [
        (&["--", "true"][..], 0, "exited"),
        (&["--", "sh", "-c", "exit 255"], 255, "exited"),
        (&["--", "sh", "-c", "kill -SEGV $$"], 139, "killed"),
        (&["--", "no-such-command"], 127, "not-found"),
        (&["--", "./plugins.toml"], 126, "not-executable"),
        (&["--cwd", "missing", "--", "true"], 125, "bad-cwd"),
        (&["--cwd", "..", "--", "true"], 125, "bad-cwd"),
        (&["-n", "--", "sh", "-c", "yes >&2"], 72, "output-limit"),
        (&["--timeout", "200ms", "--", "sleep", "1000"], 124, "deadline"),
        (&["--shell", "--", "echo a | grep -q b; exit 3"], 3, "exited"),
    ] {
        let (found, report) = end(&server, args);
        assert_eq!((found, &report["end"]), (Some(code), &json!(word)), "{args:?}: {report}");
    }
    let (_, report) = end(&server, &["--", "sh", "-c", "printf four; printf err >&2"]);
    assert_eq!((&report["stdout_bytes"], &report["stderr_bytes"]), (&json!(4), &json!(3)));
    assert!(report["wall_ms"].as_f64() > Some(0.0) && report["peak_kib"].as_u64() > Some(0), "{report}");
}

#[test]
fn commands_above_the_limit_are_refused_at_once() {
    let server = Plugd::start(SHELL);
    let four: Vec<Remote> = (0..4).map(|_| Remote::start(&server, "exec sleep 1000")).collect();
    let (code, report) = end(&server, &["--", "true"]);
    assert_eq!((code, &report["end"], &report["status"]["retry"]), (Some(72), &json!("busy"), &json!(true)));
    for mut remote in four {
        remote.client.kill().expect("a running client");
        remote.end();
    }
}

#[test]
fn a_hundred_megabytes_to_the_error_output_alone_arrive_in_little_memory() {
    let server = Plugd::start(SHELL);
    let mut command = server.plug(["exec", "--", "sh", "-c", "head -c 100000000 /dev/zero >&2; read line"]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("plug runs");
    let mut len = 0;
    let mut buf = vec![0; 1 << 20];
    while len < 100_000_000 {
        len += match child.stderr.as_mut().expect("a pipe").read(&mut buf).expect("output") {
            0 => panic!("{len} bytes"),
            len => len,
        };
    }
    let peak_kib = peak_kib(&child);
    assert!(peak_kib < 64 << 10, "{peak_kib} KiB");
    drop(child.stdin.take());
    child.wait().expect("a child");
}

#[test]
fn a_reader_that_stops_loses_nothing_and_holds_up_nobody() {
    let server = Plugd::start(SHELL);
    let mut command = server.plug(["exec", "--", "seq", "2000000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("plug runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(server.run(["exec", "--", "echo", "other"]).text(), "other\n");
    let rest = stdout.lines().map(|line| line.expect("text").parse::<u32>().expect("a number"));
    assert!(rest.eq(2..=2_000_000));
    assert_eq!(child.wait().expect("a child").code(), Some(0));
}

#[test]
fn the_first_signal_reaches_a_command_that_handles_it() {
    let server = Plugd::start(SHELL);
    let mut command = server.plug(["exec", "--", "sh", "-c", "trap 'echo caught; exit 7' INT; echo ready; read line"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("plug runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a running client");
    stdout.read_line(&mut line).expect("a line");
    assert_eq!((line.as_str(), child.wait().expect("a child").code()), ("ready\ncaught\n", Some(7)));
}

#[test]
fn a_command_that_ignores_signals_is_left_by_the_second_and_killed() {
    let server = Plugd::start(SHELL);
    let script = "trap 'echo heard' INT; trap '' TERM; echo $$; while :; do sleep 0.05; done";
    let mut command = server.plug(["exec", "--", "sh", "-c", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("plug runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let (mut id, mut heard) = (String::new(), String::new());
    stdout.read_line(&mut id).expect("a line");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a running client");
    stdout.read_line(&mut heard).expect("a line");
    let asked = Instant::now();
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a running client");
    assert_eq!((heard.as_str(), child.wait().expect("a child").code()), ("heard\n", Some(130)));
    wait_until("end of the command", || !std::path::Path::new(&format!("/proc/{}/exe", id.trim())).exists());
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
}

#[test]
fn output_in_the_encoding_that_the_plugin_declares_is_decoded() {
    let server = Plugd::start(SHELL);
    let script = r"printf '\326'; sleep 0.05; printf '\320\201 \326'";
    let shown = server.run(["exec", "--encoding", "auto", "--", "sh", "-c", script]);
    assert_eq!(shown.text(), "中\u{fffd} \u{fffd}");
    assert_eq!(server.run(["exec", "--", "sh", "-c", script]).stdout, b"\xd6\xd0\x81 \xd6");
}

#[test]
fn variables_and_directory_are_the_commands() {
    let server = Plugd::start(SHELL);
    std::fs::create_dir(server.dir.path().join("below")).expect("a directory");
    let args = ["exec", "--cwd", "below", "-e", "LANG=x", "-e", "LD_PRELOAD=/evil", "--", "sh", "-c"];
    let outcome = server.run([&args[..], &["basename $(pwd); echo $LANG $LD_PRELOAD"]].concat());
    assert_eq!((outcome.code, outcome.text()), (Some(0), "below\nx\n"));
    assert_eq!(outcome.stderr, "plug: variables that the server does not allow: LD_PRELOAD\n");
}

#[test]
fn a_terminal_sees_its_size_and_its_keys() {
    let server = Plugd::start(SHELL);
    let mut terminal = Terminal::start(&server.plug(["sh"]));
    terminal.types("stty size; echo $TERM\r");
    terminal.shows("31 97");
    terminal.shows("vt220");
    terminal.resize(40, 120);
    // The new size takes its own way.
    terminal.types("while [ \"$(stty size)\" != '40 120' ]; do sleep 0.01; done; echo re''sized\r");
    terminal.shows("resized");
    terminal.types("echo sle''eping; sleep 1000\r");
    terminal.shows("sleeping");
    terminal.types("\u{3}");
    terminal.types("echo code $?\r");
    terminal.shows("code 130");
    terminal.types("exit 9\r");
    assert_eq!(terminal.end(), Some(9));
}

#[test]
fn a_server_that_dies_leaves_a_terminal_restored() {
    let mut server = Plugd::start(SHELL);
    let mut terminal = Terminal::start(&server.plug(["exec", "-t", "--", "sh", "-c", "echo ready; sleep 1000"]));
    terminal.shows("ready");
    server.kill();
    assert_eq!(terminal.end(), Some(4));
}

#[test]
fn a_job_outlives_its_caller_and_is_looked_after() {
    let server = Plugd::start(SHELL);
    let script = "echo begun; while read line; do echo got $line; done; echo done >&2; exit 5";
    let detached = server.run(["exec", "--detach", "--", "sh", "-c", script]);
    let id = detached.text().trim_end();
    assert_eq!(detached.code, Some(0), "{detached:?}");
    wait_until("the first output", || server.run(["logs", id]).text() == "begun\n");
    assert!(server.run(["jobs"]).text().contains("running"));
    assert_eq!(server.run(["logs", "--from", "2", id]).text(), "gun\n");

    let mut attached = server.plug(["attach", id]);
    attached.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut attached = attached.spawn().expect("plug runs");
    let mut stdin = attached.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(attached.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdin.write_all(b"one\n").expect("a reader");
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "got one\n");
    drop(stdin);
    let outcome: Outcome = attached.wait_with_output().expect("a child").into();
    assert_eq!((outcome.code, &*outcome.stderr), (Some(5), "done\n"), "{outcome:?}");
    let follow = server.run(["logs", "-f", id]);
    assert_eq!((follow.code, follow.text(), &*follow.stderr), (Some(0), "begun\ngot one\n", "done\n"));
    assert!(server.run(["jobs"]).text().contains("exited 5"));
}

#[test]
fn leaving_a_job_lets_it_run_and_kill_ends_it() {
    let server = Plugd::start(SHELL);
    let script = "trap 'echo caught' USR1; echo begun; while :; do sleep 0.02; done";
    let detached = server.run(["exec", "--detach", "--", "sh", "-c", script]);
    let id = detached.text().trim_end();
    wait_until("the first output", || server.run(["logs", id]).text() == "begun\n");
    assert_eq!(server.run(["--timeout", "200ms", "attach", "-n", id]).code, Some(124));
    assert!(server.run(["jobs"]).text().contains("running"));
    assert_eq!(server.run(["kill", "--signal", "USR1", id]).code, Some(0));
    wait_until("the signal", || server.run(["logs", id]).text() == "begun\ncaught\n");
    let killed = server.run(["kill", id]);
    assert_eq!(killed.code, Some(0), "{killed:?}");
    let jobs = server.run(["jobs"]);
    assert!(jobs.text().contains("job-killed"), "{}", jobs.text());
    assert_eq!(server.run(["kill", "nobody"]).code, Some(69));
}
