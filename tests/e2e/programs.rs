//! `plug` against `plugd`, as a scripter runs them: what goes where, and which exit code.

use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::process::{EVERYTHING, Outcome, Plugd, Remote, feed, plug, plugd, wait_until};

#[test]
fn a_message_is_upper_cased() {
    let server = Plugd::start(EVERYTHING);
    let outcome = server.run(["call", "upper", "--data", "Grüße, 世界"]);
    assert_eq!((outcome.code, outcome.text(), &*outcome.stderr), (Some(0), "GRÜSSE, 世界", ""));
}

#[test]
fn standard_input_streams_through_a_call() {
    let server = Plugd::start(EVERYTHING);
    let input: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    let outcome = feed(server.plug(["call", "echo"]), &input);
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""));
    assert!(outcome.stdout == input, "{} of {} bytes", outcome.stdout.len(), input.len());
}

#[test]
fn an_unknown_command_says_what_there_is() {
    let server = Plugd::start(&format!("{EVERYTHING}[plugins.off]\nhandler = \"echo\"\nenabled = false\n"));
    for (command, reason) in [
        ("uper", "no plugin \"uper\"; did you mean \"upper\"?; available: echo, files, shell, upper"),
        ("off", "plugin \"off\" is disabled on this server; available: echo, files, shell, upper"),
        (
            "files.gte",
            "no operation \"gte\" in plugin \"files\"; did you mean \"get\"?; available: get, put, put_all, ls, stat, digest, mkdir, rm, mv, copy, df",
        ),
        (
            "files",
            "plugin \"files\" has several operations; name one; available: get, put, put_all, ls, stat, digest, mkdir, rm, mv, copy, df",
        ),
    ] {
        let outcome = server.run(["call", command]);
        assert_eq!((outcome.code, outcome.text()), (Some(64 + 5), ""));
        assert!(outcome.stderr.starts_with("plug: not_found ("), "{}", outcome.stderr);
        assert!(outcome.stderr.trim_end().ends_with(reason), "{}", outcome.stderr);
    }
}

#[test]
fn one_envelope_holds_results_and_errors_alike() {
    let server = Plugd::start(EVERYTHING);
    let good = server.run(["--json", "call", "upper", "--data", "hi"]).json();
    assert_eq!((&good["ok"], &good["data"], &good["status"]["code"]), (&json!(true), &json!("HI"), &json!(0)));

    let outcome = server.run(["--json", "call", "uper"]);
    let bad = outcome.json();
    assert_eq!((outcome.code, &bad["ok"]), (Some(69), &json!(false)));
    assert_eq!(bad["status"]["reason"], "unknown-plugin");

    let outcome = server.run(["--json", "-s", "tcp://127.0.0.1:1", "ping"]);
    assert_eq!((outcome.code, &outcome.json()["error"]["kind"]), (Some(3), &json!("connect")));
}

#[test]
fn arguments_come_as_strings_as_json_or_as_a_whole() {
    let server = Plugd::start(EVERYTHING);
    let by_json = server.run(["call", "shell.exec", "argv:=[\"echo\",\"a b;$(id)\"]"]);
    assert_eq!((by_json.code, by_json.text()), (Some(0), "a b;$(id)\n"));
    let whole = server.run(["call", "shell.exec", "--args", "{\"argv\":[\"echo\",\"x\"]}"]);
    assert_eq!((whole.code, whole.text()), (Some(0), "x\n"));
    let wrong = server.run(["call", "shell.exec", "argv=echo"]);
    assert_eq!(wrong.code, Some(64 + 3));
    assert!(
        wrong.stderr.contains("argument \"argv\": \"echo\"; allowed: a list of at least 1 element"),
        "{}",
        wrong.stderr
    );
    let unknown = server.run(["call", "shell.exec", "agrv:=[]"]);
    assert!(unknown.stderr.contains("unknown argument \"agrv\"; did you mean \"argv\"?"), "{}", unknown.stderr);
}

#[test]
fn list_describe_and_ping_say_what_is_there() {
    let server = Plugd::start(EVERYTHING);
    let list = server.run(["list"]);
    for word in ["echo", "files.get", "files.put", "shell.exec", "upper"] {
        assert!(list.text().contains(word), "{word} in {}", list.text());
    }
    let description = server.run(["describe", "files"]);
    assert!(description.text().contains("path") && description.text().contains("writable"), "{}", description.text());
    assert_eq!(server.run(["describe", "flies"]).code, Some(69));
    let ping = server.run(["ping"]);
    assert_eq!(ping.code, Some(0), "{ping:?}");
}

#[test]
fn failures_before_a_call_have_codes_of_their_own() {
    let server = Plugd::start(EVERYTHING);
    assert_eq!(server.run(["call"]).code, Some(2));
    assert_eq!(server.run(["-s", "ftp://x", "ping"]).code, Some(2));
    assert_eq!(server.run(["call", "echo", "no-equals-sign"]).code, Some(2));
    let refused = server.run(["-s", "tcp://127.0.0.1:1", "ping"]);
    assert_eq!((refused.code, refused.text()), (Some(3), ""));
    assert!(refused.stderr.contains("tcp://127.0.0.1:1"), "{}", refused.stderr);
}

#[test]
fn a_timeout_is_a_deadline() {
    let server = Plugd::start(EVERYTHING);
    let outcome = server.run(["--timeout", "100ms", "call", "shell.exec", "argv:=[\"sleep\",\"1000\"]"]);
    assert_eq!(outcome.code, Some(64 + 4), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("deadline"), "{}", outcome.stderr);
}

#[test]
fn a_server_that_dies_within_a_call_is_a_lost_connection() {
    let mut server = Plugd::start(EVERYTHING);
    let mut call = server.plug(["call", "echo"]);
    let mut child =
        call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, b"x").expect("a reader");
    let mut first = [0];
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut first).expect("the echo");
    server.kill();
    let outcome: Outcome = child.wait_with_output().expect("a child").into();
    assert_eq!(outcome.code, Some(4), "{outcome:?}");
    assert!(outcome.stderr.starts_with("plug: "), "{outcome:?}");
    drop(stdin);
}

#[test]
fn a_call_that_ends_first_does_not_wait_for_standard_input() {
    let server = Plugd::start(EVERYTHING);
    let mut call = server.plug(["call", "uper"]);
    let mut child = call.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("plug runs");
    let held_open = child.stdin.take();
    assert_eq!(child.wait().expect("a child").code(), Some(69));
    drop(held_open);
}

#[test]
fn a_client_may_start_before_its_server() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let address = format!("tcp://{port}");
    let early = Command::new(plug())
        .args(["-s", &address, "--wait", "20s", "call", "upper", "--data", "early"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("plug runs");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut server = Command::new(plugd())
        .args(["--listen", &address])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("plugd runs");
    let output = early.wait_with_output().expect("a child");
    server.kill().expect("a running server");
    server.wait().expect("a child");
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"EARLY"[..]));
}

#[test]
fn a_hundred_clients_are_served_at_once() {
    let server = Plugd::start(EVERYTHING);
    let before = server.sockets();
    let children: Vec<_> = (0..100)
        .map(|index| {
            let mut command = server.plug(["call", "upper"]);
            let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("plug runs");
            (index, child)
        })
        .collect();
    // Every client has its input open until the last one runs, so that they all are in their calls together.
    wait_until("a hundred connections", || server.sockets() >= before + 100);
    for (index, mut child) in children {
        let text = format!("client {index}");
        std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), text.as_bytes()).expect("a reader");
        let output = child.wait_with_output().expect("a child");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(output.stdout, text.to_uppercase().as_bytes());
    }
}

#[test]
fn input_that_takes_its_time_does_not_hold_up_the_opening_header() {
    let server = Plugd::start_with("header_timeout = \"300ms\"", EVERYTHING);
    for args in [&["put", "-", "f"][..], &["call", "upper", "--file", "/dev/stdin"]] {
        let line = format!("(sleep 1; echo late) | {} {}", plug().display(), args.join(" "));
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", &line]).env("PLUG_SERVER", &server.address).output().expect("sh runs");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_non_blocking_standard_input_is_waited_for() {
    let server = Plugd::start(EVERYTHING);
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe");
    let mut call = server.plug(["call", "upper"]);
    let child = call.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug runs");
    // The command keeps its own copy of the reading end, whose life would be the pipe's.
    drop(call);
    std::thread::sleep(std::time::Duration::from_millis(200));
    std::io::Write::write_all(&mut writer, b"late").expect("a reader");
    drop(writer);
    let outcome: Outcome = child.wait_with_output().expect("a child").into();
    assert_eq!((outcome.code, outcome.text()), (Some(0), "LATE"), "{}", outcome.stderr);
}

#[test]
fn a_second_signal_stops_at_once_and_takes_every_command_with_it() {
    let mut server = Plugd::start_with("drain_timeout = \"1h\"\nworkers = 2", EVERYTHING);
    let remote = Remote::start(&server, "exec sleep 1000");
    server.signal(Signal::SIGTERM);
    // The first signal waits for the call: the command still runs, and no other call begins.
    wait_until("the drain", || server.run(["ping"]).code != Some(0));
    assert!(remote.runs());
    server.signal(Signal::SIGINT);
    assert!(server.wait().success());
    assert_eq!(remote.end(), Some(4));
}

#[test]
fn an_interrupted_client_says_so_by_its_code_and_its_call_ends() {
    let server = Plugd::start(EVERYTHING);
    let remote = Remote::start(&server, "exec sleep 1000");
    remote.signal_client(Signal::SIGINT);
    assert_eq!(remote.end(), Some(130));
}

#[test]
fn a_reader_that_has_enough_ends_the_client_without_a_panic() {
    let server = Plugd::start(EVERYTHING);
    let mut child =
        server.plug(["exec", "--", "yes"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug runs");
    drop(child.stdout.take());
    let outcome: Outcome = child.wait_with_output().expect("a child").into();
    assert!(outcome.code != Some(0) && !outcome.stderr.contains("panic"), "{outcome:?}");
}
