//! The program `plugd` as an operator runs it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

fn plugd(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plugd"));
    command
        .current_dir(dir)
        .env_remove("PLUGD_CONFIG")
        .env_remove("PLUGD_LOG")
        .env_remove("CARGO")
        .stdin(Stdio::null());
    command
}

fn run(dir: &Path, args: &[&str]) -> Output {
    plugd(dir).args(args).output().expect("the program runs")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("text")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("text")
}

fn dir_with(text: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("plugins.toml"), text).expect("a file");
    dir
}

/// A running server, killed when the test ends.
struct Running(Child);

impl Running {
    fn start(dir: &Path, args: &[&str]) -> (Running, String) {
        let child = plugd(dir).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut running = Running(child.expect("the program runs"));
        let mut line = String::new();
        BufReader::new(running.0.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("text");
        (running, line)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).expect("a running server");
    }

    fn end(mut self) -> (Option<i32>, String) {
        let status = self.0.wait().expect("a child");
        let mut log = String::new();
        self.0.stderr.take().expect("a pipe").read_to_string(&mut log).expect("text");
        (status.code(), log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn init_writes_a_configuration_that_check_accepts_and_never_overwrites_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let written = run(dir.path(), &["init"]);
    assert_eq!(stdout(&written), "wrote plugins.toml; start the server with: plugd --config plugins.toml\n");
    let checked = run(dir.path(), &["check"]);
    assert_eq!(stdout(&checked), "plugins.toml: good; 4 plugins, 3 enabled\n");
    assert!(!dir.path().join("var").exists(), "checking writes nothing");

    fs::write(dir.path().join("plugins.toml"), "mine").expect("a file");
    let refused = run(dir.path(), &["init"]);
    assert_eq!((refused.status.code(), stderr(&refused)), (Some(1), "plugins.toml: exists already; left alone\n"));
    assert_eq!(fs::read_to_string(dir.path().join("plugins.toml")).expect("a file"), "mine");
}

#[test]
fn check_reports_every_error_and_fails() {
    let dir = dir_with("[plugins.echo]\nenabeld = 1\n[plugins.flie]\n");
    let output = run(dir.path(), &["check"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    let found: Vec<&str> = stderr(&output).lines().collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("plugins.toml:2:1: plugins.echo.enabeld: unknown key"), "{found:?}");
    assert!(found[1].starts_with("plugins.toml:3:10: plugins.flie: unknown handler \"flie\""), "{found:?}");
}

#[test]
fn check_shows_what_is_open_to_whom_and_fails_when_that_is_forbidden() {
    let dir = dir_with(
        r#"
[server]
listen = ["tcp://127.0.0.1:7584", "unix:/run/plugd.sock"]
insecure = ["cleartext-tokens"]

[groups]
ops = ["uid:1000", "net:10.0.0.0/8"]

[plugins.docs]
handler = "file"
config = { root = "x", writable = true }
access.allow = ["any"]
access.deny = ["net:10.0.9.0/24"]
access.operations.put = { allow = ["group:ops"], deny = ["uid:1001"] }
access.operations.rm = { allow = [] }

[plugins.echo]
insecure = ["no-access-rule"]

[plugins.off]
handler = "echo"
enabled = false

[plugins.shell]
config = { allow_any_command = true, jobs_max = 0 }
"#,
    );
    let output = run(dir.path(), &["check", "--exposure"]);
    assert_eq!(
        (output.status.code(), stderr(&output)),
        (Some(1), "plugins.toml: 1 forbidden; the server would not start\n")
    );
    let rows: Vec<String> =
        stdout(&output).lines().map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for row in [
        "LISTENER COMMAND EFFECT WHO",
        "tcp://127.0.0.1:7584 docs.get - any except net:10.0.9.0/24",
        "tcp://127.0.0.1:7584 docs.put changes net:10.0.0.0/8 except net:10.0.9.0/24",
        "tcp://127.0.0.1:7584 docs.rm changes nobody",
        "tcp://127.0.0.1:7584 echo.echo - any (no rule)",
        "tcp://127.0.0.1:7584 shell.exec runs any (no rule)",
        "unix:/run/plugd.sock docs.get - any",
        "unix:/run/plugd.sock docs.put changes uid:1000 except uid:1001",
        "unused: server.insecure \"cleartext-tokens\" changes nothing",
        "unused: plugins.echo.insecure \"no-access-rule\" changes nothing",
    ] {
        assert!(rows.iter().any(|found| found == row), "{row} in {rows:#?}");
    }
    assert!(!stdout(&output).contains("off."), "{}", stdout(&output));
    let forbidden =
        "forbidden: plugins.toml:24:10: plugins.shell runs programs for everybody who reaches the server; say";
    assert!(stdout(&output).lines().any(|line| line.starts_with(forbidden)), "{}", stdout(&output));

    let json = run(dir.path(), &["check", "--exposure", "--json"]);
    assert_eq!(json.status.code(), Some(1));
    let matrix: Value = serde_json::from_str(stdout(&json)).expect("JSON");
    let rows = matrix["rows"].as_array().expect("rows");
    let put = rows.iter().find(|row| row["command"] == "docs.put").expect("a row");
    assert_eq!(
        (&put["allow"][0], &put["effect"], &put["rule"]),
        (&"net:10.0.0.0/8".into(), &"changes".into(), &true.into())
    );
    assert_eq!(
        (&matrix["findings"][0]["plugin"], &matrix["findings"][0]["accepted"]),
        (&"shell".into(), &false.into())
    );
    assert_eq!(matrix["unused"][1]["risk"], "no-access-rule");
    assert_eq!(run(dir.path(), &["check", "--json"]).status.code(), Some(2));
}

#[test]
fn a_certificate_is_shown_where_clients_are_asked_for_one_and_nowhere_else() {
    let dir = dir_with(
        r#"
[server]
listen = ["tls://127.0.0.1:1", "tls://127.0.0.1:2", "tcp://127.0.0.1:3"]
[server.tls]
certificate = "c"
key = "k"
[server.tls.at."tls://127.0.0.1:2"]
client_ca = "ca"
client_certificates = "required"
[plugins.echo]
access.allow = ["cert:ops.example"]
"#,
    );
    let output = run(dir.path(), &["check", "--exposure"]);
    let who: Vec<&str> =
        stdout(&output).lines().skip(1).filter_map(|row| row.split(" - ").last()).map(str::trim).collect();
    assert_eq!(who, ["nobody", "cert:ops.example, with a client certificate", "nobody"], "{output:?}");
    let json = run(dir.path(), &["check", "--exposure", "--json"]);
    let matrix: Value = serde_json::from_str(stdout(&json)).expect("JSON");
    let rows = matrix["rows"].as_array().expect("rows");
    let needs: Vec<&Value> = rows.iter().map(|row| &row["needs_certificate"]).collect();
    assert_eq!(needs, [&Value::from(false), &Value::from(true), &Value::from(false)]);
}

#[test]
fn an_accepted_risk_is_shown_and_warned_of_and_fails_nothing() {
    let dir = dir_with(
        "[server]\ninsecure = [\"root\"]\n[plugins.files]\nhandler = \"file\"\nconfig = { root = \"x\", writable = true }\n\
         insecure = [\"no-access-rule\"]\n",
    );
    let beyond = ["--listen", "tcp://0.0.0.0:0"];
    let output = run(dir.path(), &[&beyond[..], &["check", "--exposure"]].concat());
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    let problem = "plugins.files changes or runs things for everybody who reaches tcp://0.0.0.0:0";
    assert!(stdout(&output).contains(&format!("insecure: {problem} (no-access-rule)\n")), "{}", stdout(&output));
    let is_root = nix::unistd::geteuid().is_root();
    let said_of_root = if is_root { "insecure: as root, files would" } else { "unused: server.insecure \"root\"" };
    assert!(stdout(&output).contains(said_of_root), "{}", stdout(&output));

    let (running, _) = Running::start(dir.path(), &[&beyond[..], &["--log-format", "json"]].concat());
    running.signal(Signal::SIGTERM);
    let (code, log) = running.end();
    assert_eq!(code, Some(0), "{log}");
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let warned =
        |risk: &str| events.iter().filter(|event| event["level"] == "WARN" && event["insecure"] == risk).count();
    assert_eq!((warned("no-access-rule"), warned("root")), (1, usize::from(is_root)), "{log}");
    assert_eq!(log.contains("running as root"), is_root, "{log}");
}

#[test]
fn a_bad_configuration_does_not_start() {
    let dir = dir_with("[plugins.echo]\nenabeld = 1\n");
    let output = run(dir.path(), &[]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).starts_with("plugins.toml:2:1: "), "{}", stderr(&output));
}

#[test]
fn a_configuration_that_is_named_and_missing_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = run(dir.path(), &["--config", "none.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "none.toml: no such file; `plugd init` writes a commented one\n");
}

#[test]
fn list_names_every_handler_and_the_plugins_that_use_it() {
    let dir = dir_with("[plugins.echo]\n[plugins.loud]\nhandler = \"upper\"\nenabled = false\n");
    let text = run(dir.path(), &["list"]);
    let rows: Vec<Vec<&str>> = stdout(&text).lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), ["HANDLER", "echo", "file", "shell", "upper"]);
    assert!(stdout(&text).lines().any(|row| row.starts_with("upper") && row.ends_with("loud (disabled)")));

    let json = run(dir.path(), &["list", "--json"]);
    let list: Value = serde_json::from_str(stdout(&json)).expect("JSON");
    assert_eq!(list["handlers"][0]["plugins"][0]["name"], "echo");
    assert_eq!(list["handlers"][3]["plugins"][0]["enabled"], false);
}

#[test]
fn describe_shows_operations_arguments_and_settings() {
    let dir = dir_with("[plugins.docs]\nhandler = \"file\"\nconfig = { root = \"x\" }\n");
    let text = run(dir.path(), &["describe", "docs"]);
    for part in [
        "docs (handler file",
        "get:",
        "path (a string, or an object; required)",
        "root (a string; required)",
        "writable",
    ] {
        assert!(stdout(&text).contains(part), "{part} in {}", stdout(&text));
    }
    let json = run(dir.path(), &["describe", "docs", "--json"]);
    let description: Value = serde_json::from_str(stdout(&json)).expect("JSON");
    assert_eq!(description["name"], "docs");
    assert_eq!(description["settings"]["properties"]["writable"]["type"], "boolean");
    let unknown = run(dir.path(), &["describe", "dcos"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert_eq!(stderr(&unknown), "no plugin and no handler \"dcos\"; did you mean \"docs\"?\n");
}

#[test]
fn wrong_usage_ends_with_2() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for args in [&["--listen", "nonsense"][..], &["serve"], &["--log-format", "xml"]] {
        assert_eq!(run(dir.path(), args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("tcp://{}", taken.local_addr().expect("an address"));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = run(dir.path(), &["--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output).lines().last().unwrap_or_default();
    assert!(said.starts_with(&format!("cannot listen on {address} (another server")), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_congestion_control_that_is_not_there_names_those_that_are() {
    let dir = dir_with("[server]\ncongestion = \"reno\"\n[plugins.echo]\n");
    let (_running, line) = Running::start(dir.path(), &["--listen", "tcp://127.0.0.1:0"]);
    assert!(line.starts_with("plugd listening on "), "{line}");
    let dir = dir_with("[server]\ncongestion = \"none\"\n[plugins.echo]\n");
    let output = run(dir.path(), &["--listen", "tcp://127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output).lines().last().unwrap_or_default();
    assert!(said.contains("no congestion control \"none\"") && said.contains("reno"), "{said}");
}

#[test]
fn a_start_says_where_it_listens_and_what_to_type_next_and_a_signal_stops_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (running, line) = Running::start(dir.path(), &["--listen", "tcp://127.0.0.1:0"]);
        let address = line.strip_prefix("plugd listening on ").expect("an address").trim_end().to_owned();
        assert!(address.starts_with("tcp://127.0.0.1:") && !address.ends_with(":0"), "{line}");
        running.signal(signal);
        let (code, log) = running.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(&format!("try: plug -s {address} call upper --data hello")), "{log}");
        assert!(log.contains(signal.as_str()) && log.contains("drained"), "{log}");
    }
}

#[test]
fn what_to_type_next_leads_to_a_listener_with_tls_and_to_what_is_there() {
    let dir = dir_with(
        "[server]\nlisten = [\"tls://0.0.0.0:0\"]\n[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\
         [plugins.echo]\n",
    );
    assert_eq!(run(dir.path(), &["cert", "dev"]).status.code(), Some(0));
    let (running, line) = Running::start(dir.path(), &[]);
    let port = line.trim_end().rsplit(':').next().expect("a port");
    running.signal(Signal::SIGTERM);
    let (_, log) = running.end();
    assert!(log.contains(&format!("try: plug -s tls://localhost:{port} --ca FILE list")), "{log}");
}

#[test]
fn check_warns_of_tokens_that_are_over() {
    let token = |name: &str, year: u32, digit: char| {
        let hash = digit.to_string().repeat(64);
        format!("[tokens.{name}]\nhash = \"sha256:{hash}\"\nexpires = \"{year}-01-31\"\n")
    };
    let dir = dir_with(&format!("{}{}[plugins.echo]\n", token("old", 2020, '0'), token("new", 2999, '1')));
    let output = run(dir.path(), &["check"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), "plugins.toml: good; 1 plugins, 1 enabled\n"));
    let expected = "warning: tokens.old has expired; nobody can use it: make another with `plugd token new old`, or \
                    remove the section\n";
    assert_eq!(stderr(&output), expected);
}

#[test]
fn json_logs_are_json_on_every_line() {
    let dir = dir_with("[server]\nlog_format = \"json\"\n[plugins.echo]\n");
    let (running, _) = Running::start(dir.path(), &["--listen", "tcp://127.0.0.1:0"]);
    running.signal(Signal::SIGTERM);
    let (_, log) = running.end();
    assert!(log.lines().count() >= 2, "{log}");
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert!(event["message"].is_string() && event["level"].is_string(), "{event}");
    }
}

#[cfg(unix)]
#[test]
fn a_unix_socket_is_private_replaces_a_dead_one_and_goes_with_its_server() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("plugd.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket that nobody serves"));
    let address = format!("unix:{}", path.display());
    let (running, line) = Running::start(dir.path(), &["--listen", &address]);
    assert_eq!(line, format!("plugd listening on {address}\n"));
    assert_eq!(fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o600);
    let second = run(dir.path(), &["--listen", &address]);
    assert!(stderr(&second).contains("another server is running there?"), "{}", stderr(&second));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(0));
    assert!(!path.exists());
}
