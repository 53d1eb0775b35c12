//! `plug` and the token that it proves itself with: where it comes from, where it goes, and where it never goes.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;

use plugd_core::Status;
use plugd_core::wire::{End, Kind, Open};
use rstest::rstest;
use serde_json::json;

use crate::support::fake::{Fake, Peer};
use crate::support::process::{Outcome, plug};
use crate::support::raw::frame;

/// What no output may hold.
const SECRET: &str = "plugd_0123456789";

/// A server that answers each call by its name, and says which tokens it was sent: one a call.
fn listener() -> (Fake, mpsc::Receiver<(String, Option<String>)>) {
    let (told, heard) = mpsc::channel();
    let fake = Fake::polite(move |_, mut peer| {
        loop {
            let (kind, payload) = peer.frame()?;
            if kind != Kind::Open {
                continue;
            }
            let open = Open::decode(&payload).expect("a good header");
            let _ = told.send((open.command.to_string(), open.auth.as_ref().map(|auth| auth.token.clone())));
            peer.until(Kind::EndOfInput)?;
            answer(&mut peer, &open.command)?;
        }
    });
    (fake, heard)
}

fn answer(peer: &mut Peer, command: &str) -> std::io::Result<()> {
    match command {
        "plugd.whoami" => {
            let trailer = json!({"peer": "127.0.0.1:5", "uid": null, "certificate_names": [], "token": "ci"});
            let mut end = End::from(Status::ok());
            end.trailer = trailer.as_object().cloned();
            peer.0.write_all(&frame(Kind::End, &end.encode()))
        }
        "plugd.list" => {
            let list = json!({"server": "plugd", "version": "1", "plugins": [
                {"name": "shell", "operations": [{"name": "jobs"}]}]});
            peer.data(list.to_string().as_bytes())?;
            peer.end(Status::ok())
        }
        _ => peer.end(Status::ok()),
    }
}

/// The client, without an environment that tells it who calls.
fn client(server: &str, args: &[&str]) -> Command {
    let mut command = Command::new(plug());
    command.env("PLUG_SERVER", server).args(args).stdin(Stdio::null());
    for name in ["PLUG_TOKEN", "PLUG_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command
}

fn run(command: &mut Command) -> Outcome {
    Outcome::from(command.output().expect("plug runs"))
}

fn token_file(dir: &Path, text: &str, mode: u32) -> PathBuf {
    let path = dir.join("token");
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a file of ours");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

fn no_secret_in(outcome: &Outcome) {
    assert!(!outcome.text().contains(SECRET) && !outcome.stderr.contains(SECRET), "{outcome:?}");
}

#[test]
fn a_token_comes_from_a_file_or_from_the_environment() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = token_file(dir.path(), &format!("{SECRET}\n"), 0o600);
    let (fake, heard) = listener();
    let sent = |command: &mut Command| {
        let outcome = run(command);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        heard.recv().expect("a call")
    };
    let ping = |token: &str| ("plugd.ping".to_owned(), Some(token.to_owned()));
    assert_eq!(sent(&mut client(&fake.address, &["ping", "--token-file", text(&file)])), ping(SECRET));
    assert_eq!(sent(client(&fake.address, &["ping"]).env("PLUG_TOKEN", "other")), ping("other"));
    assert_eq!(sent(client(&fake.address, &["ping"]).env("PLUG_TOKEN_FILE", &file)), ping(SECRET));
    let both = &["ping", "--token-file", text(&file)];
    assert_eq!(sent(client(&fake.address, both).env("PLUG_TOKEN", "other")), ping(SECRET));
    assert_eq!(sent(client(&fake.address, &["ping"]).env("PLUG_TOKEN", "")).1, None);
}

#[rstest]
#[case::call(&["call", "echo", "--data", ""])]
#[case::list(&["list"])]
#[case::jobs(&["jobs"])]
#[case::exec(&["exec", "true"])]
#[case::bench(&["bench", "echo", "-c", "3", "-n", "30", "--expect", "any"])]
#[case::fresh(&["bench", "echo", "-c", "3", "-n", "3", "--expect", "any", "--fresh"])]
#[case::flags(&["call", "echo", "--deep"])]
fn each_connection_proves_itself_once(#[case] args: &[&str]) {
    let (fake, heard) = listener();
    let outcome = run(client(&fake.address, args).env("PLUG_TOKEN", SECRET));
    no_secret_in(&outcome);
    let calls: Vec<_> = heard.try_iter().collect();
    let proofs = calls.iter().filter(|(_, token)| token.as_deref() == Some(SECRET)).count();
    // A connection that was made only to be looked at made no call.
    let bare = if args[0] == "bench" { 1 } else { 0 };
    assert!(proofs == fake.accepted() || proofs + bare == fake.accepted(), "{calls:?}, {outcome:?}");
    assert!(proofs > 0 && calls.iter().all(|(_, token)| token.as_deref().is_none_or(|token| token == SECRET)));
}

#[test]
fn a_recording_holds_no_token() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (fake, _heard) = listener();
    let record = dir.path().join("calls.jsonl");
    let args = ["--record", text(&record), "call", "echo", "--data", "hello", "--json"];
    let outcome = run(client(&fake.address, &args).env("PLUG_TOKEN", SECRET));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    no_secret_in(&outcome);
    let recorded = std::fs::read_to_string(&record).expect("a recording");
    assert!(recorded.contains("echo") && !recorded.contains(SECRET) && !recorded.contains("auth"), "{recorded}");
}

#[rstest]
#[case::others_read(0o644, SECRET, "its mode is 0644; allowed: 0600 or less; chmod 600 ")]
#[case::a_group_reads(0o640, SECRET, "its mode is 0640; allowed: 0600 or less; chmod 600 ")]
#[case::empty(0o600, "\n", "it is empty")]
#[case::two_lines(0o600, "plugd_0123456789\nother", "it has several lines")]
fn a_token_file_that_may_be_known_is_refused(#[case] mode: u32, #[case] held: &str, #[case] what: &str) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = token_file(dir.path(), held, mode);
    let (fake, _heard) = listener();
    for args in [vec!["ping"], vec!["--json", "ping"], vec!["exec", "true"], vec!["call", "echo", "--deep"]] {
        let outcome = run(client(&fake.address, &args).env("PLUG_TOKEN_FILE", &file));
        no_secret_in(&outcome);
        let said = if args[0] == "--json" { outcome.text() } else { &outcome.stderr };
        assert!(outcome.code == Some(2) && said.contains(what), "{outcome:?}");
    }
    assert_eq!(fake.accepted(), 0);
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = token_file(dir.path(), SECRET, 0o600);
    let (link, pipe) = (dir.path().join("link"), dir.path().join("pipe"));
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    let missing = dir.path().join("missing");
    for (path, code, what) in [
        (link.as_path(), 2, "it is a symbolic link"),
        (pipe.as_path(), 2, "it is no regular file"),
        (dir.path(), 2, "it is no regular file"),
        (missing.as_path(), 5, "No such file"),
    ] {
        let outcome = run(&mut client("127.0.0.1:1", &["ping", "--token-file", text(path)]));
        assert!(outcome.code == Some(code) && outcome.stderr.contains(what), "{outcome:?}");
    }
}

#[rstest]
#[case::a_call(&["ping"])]
#[case::load(&["bench", "echo"])]
#[case::a_command(&["exec", "true"])]
fn a_token_is_not_sent_in_clear_text_to_another_machine(#[case] args: &[&str]) {
    // An address that nobody has (RFC 5737): connecting would fail in another way, and late.
    let outcome = run(client("192.0.2.1:1", args).env("PLUG_TOKEN", SECRET));
    assert!(outcome.code == Some(2) && outcome.stderr.contains("tls://"), "{outcome:?}");
    no_secret_in(&outcome);
    let told = [args, &["--insecure-cleartext-token", "--wait", "1ms"]].concat();
    let told = if args[0] == "exec" { [&["--insecure-cleartext-token", "--wait", "1ms"], args].concat() } else { told };
    let outcome = run(client("192.0.2.1:1", &told).env("PLUG_TOKEN", SECRET));
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
}

#[test]
fn whoami_prints_what_the_server_knows() {
    let (fake, _heard) = listener();
    let outcome = run(client(&fake.address, &["whoami"]).env("PLUG_TOKEN", SECRET));
    assert_eq!((outcome.code, outcome.text()), (Some(0), "peer   127.0.0.1:5\ntoken  ci\n"), "{outcome:?}");
    let outcome = run(client(&fake.address, &["whoami", "--json"]).env("PLUG_TOKEN", SECRET));
    let envelope: serde_json::Value = serde_json::from_str(outcome.text()).expect("JSON");
    assert_eq!(envelope["data"]["token"], "ci");
    no_secret_in(&outcome);
}
