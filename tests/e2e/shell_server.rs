//! The shell handler behind a real server: named commands as operations, the audit, and an end with the server.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::process::{Plugd, wait_until};

const NAMED: &str = r#"
[plugins.ops]
handler = "shell"
access.allow = ["any"]
config.jobs_max = 0

[plugins.ops.config.commands.tail]
argv = ["tail", "-n", "{lines}", "--", "{file}"]
summary = "shows the end of a log"
read_only = true
parameters.lines = { type = "integer", min = 1, max = 100, default = 10 }
parameters.file = { type = "path", must_exist = true }

[plugins.ops.config.commands.fail]
argv = ["sh", "-c", "exit 3"]
"#;

const ANY: &str = "[plugins.shell]\naccess.allow = [\"any\"]\nconfig = { allow_any_command = true }\n";

#[test]
fn named_commands_are_listed_described_and_called() {
    let server = Plugd::start(NAMED);
    std::fs::write(server.dir.path().join("app.log"), "one\ntwo\nthree\n").expect("a file");
    let list = server.run(["list"]);
    assert!(list.text().contains("ops.tail") && list.text().contains("shows the end of a log"), "{}", list.text());
    assert!(!list.text().contains("ops.exec") && !list.text().contains("ops.jobs"), "{}", list.text());
    let description = server.run(["describe", "ops"]);
    let words = description.text().split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["lines integer, 1 to 100 default 10", "file text required a path that exists"] {
        assert!(words.contains(part), "{part} in {words}");
    }
    let tail = server.run(["call", "ops.tail", "lines:=2", "file=app.log"]);
    assert_eq!((tail.code, tail.text()), (Some(0), "two\nthree\n"), "{}", tail.stderr);
    let as_text = server.run(["call", "ops.tail", "lines=1", "file=app.log"]);
    assert_eq!((as_text.code, as_text.text()), (Some(0), "three\n"), "{}", as_text.stderr);
    let refused = server.run(["call", "ops.tail", "lines:=500", "file=app.log"]);
    assert!(refused.stderr.contains("argument \"lines\": 500; allowed: an integer, 1 to 100"), "{}", refused.stderr);
    let unknown = server.run(["call", "ops.tail", "lnes:=5", "file=app.log"]);
    assert!(unknown.stderr.contains("did you mean \"lines\"?"), "{}", unknown.stderr);
    let nothing = server.run(["call", "ops.exec", "argv:=[\"id\"]"]);
    assert!(nothing.stderr.contains("unknown-operation"), "{}", nothing.stderr);
}

#[test]
fn what_only_reads_may_be_served_to_everybody_and_what_does_more_may_not() {
    let unguarded = NAMED.replace("access.allow = [\"any\"]\n", "");
    let read_only = unguarded.split("\n[plugins.ops.config.commands.fail]").next().expect("the first part");
    let check = |plugins: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        let text = format!("[server]\nlisten = [\"tcp://0.0.0.0:0\"]\n{plugins}");
        std::fs::write(dir.path().join("plugins.toml"), text).expect("a file");
        let mut plugd = std::process::Command::new(crate::support::process::plugd());
        let output = plugd.arg("check").current_dir(dir.path()).output().expect("the server's program");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(read_only), (true, String::new()));
    let (is_good, said) = check(&unguarded);
    assert!(!is_good && said.contains("plugins.ops changes or runs things"), "{said}");
}

#[test]
fn each_command_that_was_asked_for_has_one_line_in_the_audit() {
    let server = Plugd::start_with("audit = \"file:audit.log\"", ANY);
    server.run([
        "call",
        "shell.exec",
        r#"argv:=["sh","-c","echo out; exit 3","a\nb"]"#,
        r#"env:={"LD_PRELOAD":"/evil.so"}"#,
    ]);
    server.run(["call", "shell.exec", r#"argv:=["no-such-command"]"#]);
    server.run(["call", "shell.exec", r#"argv:=[""]"#]);
    let text = std::fs::read_to_string(server.dir.path().join("audit.log")).expect("an audit");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (lines, calls): (Vec<Value>, Vec<Value>) = lines.into_iter().partition(|line| line["message"] == "command");
    assert_eq!((lines.len(), calls.len()), (3, 3), "{text}");
    let ran = &lines[0];
    assert_eq!((&ran["plugin"], &ran["operation"]), (&json!("shell"), &json!("exec")));
    assert_eq!(ran["argv"], r#"["sh", "-c", "echo out; exit 3", "a\nb"]"#);
    assert_eq!((&ran["reason"], &ran["exit"]), (&json!("command-failed"), &json!(r#"{"code":3}"#)));
    assert_eq!((&ran["stdout_bytes"], &ran["dropped_env"]), (&json!(4), &json!(r#"["LD_PRELOAD"]"#)));
    assert!(ran["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{ran}");
    assert!(ran["duration_ms"].is_number() && ran["cwd"].is_string(), "{ran}");
    assert_eq!((&lines[1]["reason"], &lines[2]["reason"]), (&json!("command-not-found"), &json!("bad-argv")));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(server.dir.path().join("audit.log")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_a_schema_marks_secret_is_in_no_audit_no_log_and_no_list_of_jobs() {
    let plugins = "[plugins.ops]\nhandler = \"shell\"\naccess.allow = [\"any\"]\n\
                   [plugins.ops.config.commands.login]\nargv = [\"sh\", \"-c\", \":\", \"{user}\", \"--key={key}\"]\n\
                   parameters.user = { type = \"string\" }\n\
                   parameters.key = { type = \"string\", secret = true, pattern = \"[a-z0-9]+\" }\n";
    let mut command = std::process::Command::new(crate::support::process::plugd());
    command.args(["--log", "debug", "--log-format", "json"]).stderr(std::process::Stdio::piped());
    let server = Plugd::start_by(&format!("audit = \"file:audit.log\"\n{plugins}"), command);
    assert_eq!(server.run(["call", "ops.login", "user=anna", "key=s3cret"]).code, Some(0));
    assert_eq!(server.run(["call", "ops.login", "user=anna", "key=S3CRET"]).code, Some(67));
    assert_eq!(server.run(["call", "ops.login", "user=anna", "key=s3cret", "detach:=true"]).code, Some(0));
    let jobs = server.run(["call", "ops.jobs"]);
    assert!(jobs.text().contains(r#""anna","--key=***""#) && !jobs.text().contains("s3cret"), "{jobs:?}");
    let audit = || std::fs::read_to_string(server.dir.path().join("audit.log")).expect("an audit");
    let told = || audit().lines().filter(|line| line.contains(r#"\"anna\", \"--key=***\""#)).count();
    wait_until("line of the job", || told() == 2);
    let audit = audit();
    let log = serde_json::to_string(&server.log()).expect("JSON");
    for text in [audit, log] {
        assert!(!text.to_lowercase().contains("s3cret"), "{text}");
    }
}

#[test]
fn an_audit_that_cannot_be_written_keeps_the_server_from_starting() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |audit: &str| {
        let text = format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\naudit = \"{audit}\"\n[plugins.echo]\n");
        std::fs::write(dir.path().join("plugins.toml"), text).expect("a file");
        let mut plugd = std::process::Command::new(crate::support::process::plugd());
        let output = plugd.current_dir(dir.path()).output().expect("the server's program");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run("file:no/such/dir/audit").contains("cannot write the audit to "));
    assert!(run("somewhere").contains("server.audit: unknown target \"somewhere\"; allowed: log, journald, file:PATH"));
}

#[test]
fn jobs_and_commands_end_with_the_server() {
    for signals in [&[Signal::SIGTERM][..], &[Signal::SIGTERM, Signal::SIGTERM]] {
        let mut server = Plugd::start_with("drain_timeout = \"200ms\"", ANY);
        let pids = server.dir.path().join("pids");
        let text = "echo $$ >> pids; setsid sleep 1000 & echo $! >> pids; wait";
        let detached = server.run(["call", "shell.exec", &format!("argv:=[\"sh\",\"-c\",\"{text}\"]"), "detach:=true"]);
        assert_eq!(detached.code, Some(0), "{}", detached.stderr);
        let mut attached = server
            .plug(["call", "shell.exec", &format!("argv:=[\"sh\",\"-c\",\"{text}\"]")])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("plug runs");
        let written = || std::fs::read_to_string(&pids).unwrap_or_default();
        wait_until("four processes", || written().lines().count() == 4);
        for signal in signals {
            server.signal(*signal);
        }
        server.wait();
        assert!(!attached.wait().expect("a child").success());
        for pid in written().lines() {
            wait_until("end of the process", || !Path::new(&format!("/proc/{pid}/exe")).exists());
        }
    }
}

#[test]
fn commands_are_interrupted_as_ever_though_the_server_was_started_to_ignore_that() {
    // As a script starts it in the background, or nohup.
    let mut command = std::process::Command::new("sh");
    let plugd = crate::support::process::plugd();
    command.args(["-c", "trap '' HUP INT QUIT; exec \"$0\" \"$@\""]).arg(plugd).args(["--log", "warn"]);
    let server = Plugd::start_by(ANY, command);
    for signal in ["HUP", "INT", "QUIT"] {
        let ended = server.run(["exec", "--", "sh", "-c", &format!("kill -{signal} $$; echo ignored")]);
        assert_eq!(ended.text(), "", "{signal}: {}", ended.stderr);
    }
}
