//! What `plugd` makes for callers, from its making to the call: certificates and tokens, as the documents say.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::process::{Outcome, Plugd, feed, plug, plugd, wait_until};

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Runs the server's program to its end, in a directory.
fn plugd_in(dir: &Path, args: &[&str]) -> Outcome {
    Command::new(plugd()).args(args).current_dir(dir).env_remove("PLUGD_CONFIG").output().expect("plugd runs").into()
}

/// The client in a directory, without anything in its environment that proves who it is.
fn bare(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(plug());
    command.args(args).current_dir(dir).stdin(Stdio::null());
    for name in ["PLUG_SERVER", "PLUG_CONFIG", "PLUG_CA", "PLUG_CERT", "PLUG_KEY", "PLUG_TOKEN", "PLUG_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command
}

fn run(dir: &Path, args: &[&str]) -> Outcome {
    bare(dir, args).output().expect("plug runs").into()
}

/// What was printed between two lines.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from:?} in {text}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to:?} in {rest}")).0
}

fn write(path: PathBuf, text: &str, mode: u32) {
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a file of ours");
}

/// Makes certificates in a directory, whose client is called so.
fn certificates(dir: &Path, client: &str) -> String {
    let outcome = plugd_in(dir, &["cert", "dev", "--client", client]);
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{outcome:?}");
    outcome.text().to_owned()
}

/// Makes a token that is not over before most of us: the token, and its section of plugins.toml.
fn token(name: &str) -> (String, String) {
    let made = plugd_in(dir().path(), &["token", "new", name, "--expires", "2999-01-31"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let section = format!("[tokens.{name}]{}", between(&made.stderr, &format!("[tokens.{name}]"), "\n\n"));
    assert!(section.ends_with("\nexpires = \"2999-01-31\""), "{section}");
    let token = made.text().trim_end().to_owned();
    assert!(made.text().lines().count() == 1 && !made.stderr.contains(&token), "{made:?}");
    (token, format!("{section}\n"))
}

/// The settings of the certificates that lie beside a configuration.
fn tls(wanted: &str) -> String {
    format!(
        "[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \"ca.pem\"\n\
         client_certificates = {wanted:?}\n"
    )
}

fn localhost(address: &str) -> String {
    address.replace("127.0.0.1", "localhost")
}

#[test]
fn certificates_to_try_with_work_as_they_are_shown() {
    let dir = dir();
    let made = plugd_in(dir.path(), &["cert", "dev", "--out", "it's here", "--client", "ops.example"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let out = dir.path().join("it's here");
    let mode = |name: &str| out.join(name).metadata().expect("a file").permissions().mode() & 0o777;
    assert_eq!([mode("server.key"), mode("client.key")], [0o600, 0o600]);

    let text = between(made.text(), "plugins.toml beside them:\n", "To try it:\n").replace(":7585", ":0");
    std::fs::write(out.join("plugins.toml"), text).expect("a file");
    let commands = made.text().split_once("To try it:\n\n").expect("commands").1;
    let (serve, call) = commands.trim_end().split_once('\n').expect("two commands");
    let shell = |line: &str, address: &str| {
        let line = line.replace("tls://localhost:7585", address);
        let program = |name: &str, program: PathBuf| format!("{name}() {{ '{}' \"$@\"; }}; ", program.display());
        let script = format!("{}{}{line}", program("plugd", plugd()), program("plug", plug()));
        Outcome::from(Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().expect("sh runs"))
    };
    assert_eq!(shell(&format!("{serve} check"), "").code, Some(0), "{serve}");
    let (server, addresses) = Plugd::start_in(out, 1);
    let whoami = shell(&format!("{call} --json"), &localhost(&addresses[0]));
    assert_eq!(whoami.code, Some(0), "{call}: {whoami:?}");
    assert_eq!(whoami.json()["data"]["certificate_names"], json!(["ops.example"]));
    let echo = shell(&call.replace("whoami", "call echo --data in"), &localhost(&addresses[0]));
    assert_eq!((echo.code, echo.text()), (Some(0), "in"), "{echo:?}");
    drop(server);
}

#[test]
fn certificates_that_are_there_are_left_alone() {
    let dir = dir();
    std::fs::write(dir.path().join("client.pem"), "mine").expect("a file");
    let refused = plugd_in(dir.path(), &["cert", "dev"]);
    assert_eq!((refused.code, refused.text()), (Some(1), ""), "{refused:?}");
    let expected =
        "client.pem: exists already; nothing was written; move it away, or name another directory with --out";
    assert!(refused.stderr.contains(expected), "{refused:?}");
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a directory").flatten().map(|it| it.file_name()).collect();
    assert_eq!(names, ["client.pem"]);
    assert_eq!(std::fs::read(dir.path().join("client.pem")).expect("a file"), b"mine");
}

#[test]
fn no_certificate_is_made_that_no_rule_can_name() {
    for (name, why) in [("*.example", "compared by its whole name"), ("a b", "no name that a certificate may have")] {
        let dir = dir();
        let refused = plugd_in(dir.path(), &["cert", "dev", "--client", name]);
        assert!(refused.code == Some(2) && refused.stderr.contains(why), "{refused:?}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0);
    }
}

#[test]
fn a_token_holds_until_it_is_over_and_the_log_says_why() {
    let (token, section) = token("ci");
    let dir = dir();
    let text = |section: &str| {
        format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n{section}[plugins.echo]\naccess.allow = [\"token:ci\"]\n")
    };
    let config = dir.path().join("plugins.toml");
    std::fs::write(&config, text(&section)).expect("a file");
    write(dir.path().join("ci.token"), &format!("{token}\n"), 0o600);
    let (server, addresses) = Plugd::start_in(dir.path().to_owned(), 1);
    let call = || run(dir.path(), &["-s", &addresses[0], "--token-file", "ci.token", "call", "echo", "--data", "in"]);
    let good = call();
    assert_eq!((good.code, good.text()), (Some(0), "in"), "{good:?}");

    std::fs::write(&config, text(&section.replace("2999", "2020"))).expect("a file");
    server.signal(Signal::SIGHUP);
    wait_until("end of the token", || call().code == Some(64 + 16));
    assert!(call().stderr.contains("unauthenticated (bad-token): no token of this server"));
    let log = server.log();
    assert!(log.iter().any(|event| event["why"] == "expired" && event["token"] == "ci"), "{log:#?}");
    assert!(log.iter().any(|event| event["message"] == "the token has expired; nobody can use it"), "{log:#?}");
}

#[test]
fn no_token_is_made_that_is_over_already() {
    let refused = plugd_in(dir().path(), &["token", "new", "ci", "--expires", "2020-01-31"]);
    assert!(refused.code == Some(2) && refused.stdout.is_empty(), "{refused:?}");
    assert!(refused.stderr.contains("2020-01-31 is over; allowed: "), "{refused:?}");
}

/// The commands that `plug list` shows, without those of the server itself.
fn shown(list: &Outcome) -> Vec<String> {
    let list = list.json();
    let plugins = list["data"]["plugins"].as_array().expect("plugins");
    let operations = |plugin: &serde_json::Value| {
        let name = |operation: &serde_json::Value| operation["name"].as_str().map(str::to_owned);
        plugin["operations"].as_array().expect("operations").iter().filter_map(name).collect::<Vec<_>>()
    };
    plugins.iter().filter(|plugin| plugin["name"] != "plugd").flat_map(operations).collect()
}

#[test]
fn one_way_in_is_for_looking_and_the_other_for_who_has_a_certificate() {
    let dir = dir();
    certificates(dir.path(), "ops.example");
    let text = format!(
        "[server]\nlisten = [\"tcp://127.0.0.1:0\", \"tls://127.0.0.1:0\"]\n{}\
         [plugins.files]\nhandler = \"file\"\nconfig = {{ root = \"files\", writable = true }}\n\
         access = {{ allow = [\"cert:ops.example\"], operations.ls = {{ allow = [\"net:127.0.0.0/8\"] }} }}\n",
        tls("required")
    );
    std::fs::write(dir.path().join("plugins.toml"), text).expect("a file");
    let (_server, addresses) = Plugd::start_in(dir.path().to_owned(), 2);
    let (open, guarded) = (addresses[0].clone(), localhost(&addresses[1]));
    let known = ["-s", &guarded, "--ca", "ca.pem", "--cert", "client.pem", "--key", "client.key"];
    let put = |ways: &[&str]| feed(bare(dir.path(), &[ways, &["put", "-", "a"]].concat()), b"content");

    assert_eq!(shown(&run(dir.path(), &["-s", &open, "list", "--json"])), ["ls"]);
    let refused = put(&["-s", &open]);
    assert!(refused.code != Some(0) && !dir.path().join("files/a").exists(), "{refused:?}");
    let stored = put(&known);
    assert_eq!(stored.code, Some(0), "{stored:?}");
    assert_eq!(std::fs::read(dir.path().join("files/a")).expect("a file"), b"content");
    let all = shown(&run(dir.path(), &[&known[..], &["list", "--json"]].concat()));
    assert!(["get", "put", "rm", "ls"].iter().all(|name| all.iter().any(|shown| shown == name)), "{all:?}");
    let listed = run(dir.path(), &["-s", &open, "ls"]);
    assert!(listed.code == Some(0) && listed.text().contains(" a\n"), "{listed:?}");
    let unknown = run(dir.path(), &["-s", &guarded, "--ca", "ca.pem", "ls"]);
    assert!(unknown.code == Some(3) && unknown.stderr.contains("asks for a client certificate"), "{unknown:?}");
}

#[test]
fn a_profile_has_all_that_a_guarded_server_asks_for() {
    let (token, section) = token("ci");
    let dir = dir();
    certificates(dir.path(), "ops.example");
    let plugins = "[plugins.echo]\naccess.allow = [\"token:ci\"]\n";
    let text = format!("[server]\nlisten = [\"tls://127.0.0.1:0\"]\n{}{section}{plugins}", tls("required"));
    std::fs::write(dir.path().join("plugins.toml"), text).expect("a file");
    let (_server, addresses) = Plugd::start_in(dir.path().to_owned(), 1);

    let home = dir.path().join("home");
    let profiles = home.join(".config/plugd");
    std::fs::create_dir_all(&profiles).expect("a directory");
    for name in ["ca.pem", "client.pem", "client.key"] {
        // Modes are copied as well.
        std::fs::copy(dir.path().join(name), profiles.join(name)).expect("a file");
    }
    write(profiles.join("prod.token"), &token, 0o600);
    let profile = format!(
        "[profiles.prod]\nserver = \"{}\"\nca = \"ca.pem\"\ncert = \"client.pem\"\nkey = \"client.key\"\n\
         token_file = \"prod.token\"\n",
        localhost(&addresses[0])
    );
    std::fs::write(profiles.join("client.toml"), profile).expect("a file");
    let by_profile = |args: &[&str]| {
        let mut command = bare(dir.path(), &[&["-s", "@prod"], args].concat());
        Outcome::from(command.env_remove("XDG_CONFIG_HOME").env("HOME", &home).output().expect("plug runs"))
    };
    let whoami = by_profile(&["whoami", "--json"]).json();
    assert_eq!(
        (&whoami["data"]["certificate_names"], &whoami["data"]["token"]),
        (&json!(["ops.example"]), &json!("ci"))
    );
    assert_eq!(by_profile(&["call", "echo", "--data", "in"]).text(), "in");
    std::fs::set_permissions(profiles.join("client.key"), PermissionsExt::from_mode(0o644)).expect("a file of ours");
    let open = by_profile(&["ping"]);
    assert!(open.code == Some(2) && open.stderr.contains("client.key refused: its mode is 0644"), "{open:?}");
}

/// The matrix of a configuration with a way in of each kind: its lines with single spaces, and the exit code.
fn exposure(plugins: &str) -> (Vec<String>, Option<i32>) {
    let dir = dir();
    certificates(dir.path(), "ops.example");
    let text = format!(
        "[server]\nlisten = [\"tcp://127.0.0.1:7584\", \"unix:/run/plugd.sock\", \"tls://0.0.0.0:7585\"]\n\
         insecure = [\"root\"]\n{}{plugins}",
        tls("required")
    );
    std::fs::write(dir.path().join("plugins.toml"), text).expect("a file");
    let outcome = plugd_in(dir.path(), &["check", "--exposure"]);
    // Whether somebody tests as root is none of this.
    let lines = outcome.text().lines().filter(|line| !line.contains("as root,") && !line.contains("\"root\""));
    let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(plugd_in(dir.path(), &["check"]).code, outcome.code, "check says the same");
    (lines, outcome.code)
}

#[test]
fn the_matrix_shows_each_way_in_and_its_exit_code_what_is_forbidden() {
    let guarded = "[plugins.echo]\naccess = { allow = [\"uid:1000\", \"cert:ops.example\", \"net:127.0.0.0/8\"] }\n\
                   [plugins.upper]\naccess = { allow = [\"cert:ops.example\"] }\n";
    let (lines, code) = exposure(guarded);
    let expected = [
        "LISTENER COMMAND EFFECT WHO",
        "tcp://127.0.0.1:7584 echo.echo - net:127.0.0.0/8",
        "tcp://127.0.0.1:7584 upper.upper - nobody",
        "unix:/run/plugd.sock echo.echo - uid:1000",
        "unix:/run/plugd.sock upper.upper - nobody",
        "tls://0.0.0.0:7585 echo.echo - cert:ops.example, net:127.0.0.0/8, with a client certificate",
        "tls://0.0.0.0:7585 upper.upper - cert:ops.example, with a client certificate",
    ];
    assert_eq!((lines, code), (expected.map(str::to_owned).to_vec(), Some(0)));

    let files = "[plugins.files]\nhandler = \"file\"\nconfig = { root = \"files\", writable = true }\n";
    let (lines, code) = exposure(&format!("{guarded}{files}"));
    let has = |line: &str| lines.iter().any(|found| found == line);
    assert!(has("tls://0.0.0.0:7585 files.put changes any (no rule), with a client certificate"), "{lines:#?}");
    let why = "plugins.files changes or runs things for everybody who reaches tls://0.0.0.0:7585; say who may call it";
    let forbidden: Vec<&String> = lines.iter().filter(|line| line.starts_with("forbidden: ")).collect();
    assert!(code == Some(1) && forbidden.len() == 1 && forbidden[0].contains(why), "{lines:#?}");
    let (lines, code) = exposure(&format!("{guarded}{files}access = {{ allow = [\"cert:ops.example\"] }}\n"));
    assert_eq!((code, lines.iter().any(|line| line.starts_with("forbidden: "))), (Some(0), false), "{lines:#?}");
}
