//! What the server's process may do: which files it writes, who it is, and how much it may have open.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::process::{EVERYTHING, Plugd, feed, plugd, wait_until};

const FILES: &str =
    "[plugins.echo]\n\n[plugins.files]\nhandler = \"file\"\nconfig = { root = \"new/files\", writable = true }\n";

/// `nobody`, which every system has.
const NOBODY: u32 = 65534;

fn by_shell(script: &str, log: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{script}; exec \"$0\" --log {log} --log-format json \"$@\"")]).arg(plugd());
    command.stderr(Stdio::piped());
    command
}

fn line_of(server: &Plugd, file: &str, begin: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{}/{file}", server.id())).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(begin)).expect("a line");
    line.split_whitespace().map(str::to_owned).collect()
}

fn said(log: &[Value], message: &str) -> Option<Value> {
    log.iter().find(|event| event["message"] == message).cloned()
}

#[test]
fn the_process_is_confined_to_what_its_plugins_write() {
    let server = Plugd::start_logged(FILES);
    // landlock(7) demands it of who confines itself.
    assert_eq!(line_of(&server, "status", "NoNewPrivs:"), ["1"]);
    let put = feed(server.plug(["put", "-", "f"]), b"x");
    assert_eq!(put.code, Some(0), "{}", put.stderr);
    let log = server.log();
    let fields = said(&log, "confined: files are written in these directories only").expect("a line");
    assert!(fields["directories"].as_str().is_some_and(|text| text.contains("new/files")), "{fields}");
}

#[test]
fn a_plugin_that_runs_programs_or_the_operator_keeps_the_process_free_and_the_log_says_so() {
    let free = [
        (EVERYTHING.to_owned(), "not confined: this plugin may write anywhere"),
        (format!("landlock = false\n{FILES}"), "not confined: landlock = false"),
    ];
    for (plugins, message) in free {
        let server = Plugd::start_logged(&plugins);
        assert_eq!(line_of(&server, "status", "NoNewPrivs:"), ["0"]);
        assert!(said(&server.log(), message).is_some(), "{message}");
    }
}

#[test]
fn the_server_becomes_another_user_or_does_not_start() {
    let settings = format!("user = \"{NOBODY}\"\ngroup = \"{NOBODY}\"\n{FILES}");
    if !nix::unistd::geteuid().is_root() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("plugins.toml"), settings).expect("a file");
        let output = Command::new(plugd()).args(["--listen", "tcp://127.0.0.1:0"]).current_dir(dir.path()).output();
        let output = output.expect("the server's program");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("cannot become uid 65534, gid 65534; only root may"), "{text}");
        return;
    }
    // Its directory is no secret for once: somebody else has to reach it.
    let server = Plugd::start_by(&settings, by_shell("chmod 755 .", "info"));
    for id in ["Uid:", "Gid:"] {
        assert_eq!(line_of(&server, "status", id), vec![NOBODY.to_string(); 4], "{id}");
    }
    assert_eq!(line_of(&server, "status", "Groups:"), [NOBODY.to_string()]);
    let put = feed(server.plug(["put", "-", "f"]), b"x");
    assert_eq!(put.code, Some(0), "{}", put.stderr);
    let file = fs::metadata(server.dir.path().join("new/files/f")).expect("a file");
    assert_eq!((file.uid(), file.gid()), (NOBODY, NOBODY));
    assert!(said(&server.log(), "became another user").is_some());
}

#[test]
fn an_unknown_user_is_an_error_of_the_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "[server]\nuser = \"no-such-user\"\n[plugins.echo]\n";
    fs::write(dir.path().join("plugins.toml"), text).expect("a file");
    let output = Command::new(plugd()).arg("check").current_dir(dir.path()).output().expect("the server's program");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("plugins.toml:2:1: server.user: no user \"no-such-user\" on this machine"), "{text}");
}

#[test]
fn the_limit_of_open_files_is_raised_to_what_connections_may_need() {
    let settings = format!("connections_max = 100\n{FILES}");
    let server = Plugd::start_by(&settings, by_shell("ulimit -Sn 128", "warn"));
    assert_eq!(line_of(&server, "limits", "Max open files")[0], "464");
    drop(server);
    let server = Plugd::start_by(&settings, by_shell("ulimit -n 128", "warn"));
    let log = server.log();
    assert_eq!((&log[0]["allowed"], &log[0]["needed"]), (&128.into(), &464.into()), "{log:?}");
}

#[test]
fn a_server_without_descriptors_waits_and_recovers() {
    let server = Plugd::start_by(FILES, by_shell("ulimit -n 64", "error"));
    let address = server.address.trim_start_matches("tcp://");
    let connections: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(address).expect("the kernel accepts")).collect();
    let open = || fs::read_dir(format!("/proc/{}/fd", server.id())).expect("a process").count();
    wait_until("the server has no descriptor left", || open() >= 64);
    drop(connections);
    let echo = server.run(["call", "echo", "--data", "still there"]);
    assert_eq!((echo.code, echo.text()), (Some(0), "still there"), "{}", echo.stderr);
}
