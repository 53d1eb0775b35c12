//! `plug` over TLS: what works over TCP works over it, and a server that is not the one that was meant is called nothing.

use std::path::Path;
use std::process::Command;

use rstest::rstest;
use rustls::version::{TLS12, TLS13};

use crate::support::process::{EVERYTHING, Outcome, Plugd, feed};
use crate::support::tls::{Authority, Terminator};

/// A server under TLS, with a certificate for `localhost` from a CA of its own.
struct Secured {
    plugd: Plugd,
    authority: Authority,
    terminator: Terminator,
}

impl Secured {
    fn start() -> Secured {
        let (plugd, authority) = (Plugd::start(EVERYTHING), Authority::new());
        let terminator = Terminator::start(&plugd.address, &authority.issue("localhost"), &[&TLS13], None);
        Secured { plugd, authority, terminator }
    }

    /// The client, told to call this server.
    fn plug(&self, args: &[&str]) -> Command {
        let mut command = plug(&self.plugd, &url(&self.terminator), args);
        command.env("PLUG_CA", self.authority.ca());
        command
    }

    fn run(&self, args: &[&str]) -> Outcome {
        run(&mut self.plug(args))
    }
}

fn url(terminator: &Terminator) -> String {
    format!("tls://localhost:{}", terminator.port)
}

fn plug(plugd: &Plugd, server: &str, args: &[&str]) -> Command {
    let mut command = plugd.plug(args);
    command.env("PLUG_SERVER", server);
    for name in ["PLUG_CA", "PLUG_CERT", "PLUG_KEY"] {
        command.env_remove(name);
    }
    command
}

fn run(command: &mut Command) -> Outcome {
    Outcome::from(command.output().expect("plug runs"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

/// Tries twice: the second time with `--json`.
fn refused(plugd: &Plugd, server: &str, args: &[&str], code: i32, what: &str) {
    let outcome = run(&mut plug(plugd, server, &[args, &["ping"]].concat()));
    assert!(outcome.code == Some(code) && outcome.stderr.contains(what), "{what}: {outcome:?}");
    let outcome = run(&mut plug(plugd, server, &[args, &["ping", "--json"]].concat()));
    assert!(outcome.code == Some(code) && outcome.text().contains("\"ok\":false"), "{outcome:?}");
}

#[test]
fn calls_and_commands_go_over_tls() {
    let server = Secured::start();
    let outcome = server.run(&["call", "upper", "--data", "hello"]);
    assert_eq!((outcome.code, outcome.text()), (Some(0), "HELLO"), "{outcome:?}");
    let outcome = feed(server.plug(&["exec", "--", "sh", "-c", "cat; echo err >&2; exit 3"]), b"from-in\n");
    assert_eq!((outcome.code, outcome.text(), &*outcome.stderr), (Some(3), "from-in\n", "err\n"));
    let by_name = ["--server-name", "localhost", "-s", &format!("tls://127.0.0.1:{}", server.terminator.port), "ping"];
    let outcome = server.run(&by_name);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

#[test]
fn much_goes_over_tls_in_both_directions() {
    let server = Secured::start();
    let mut held = vec![0; 16 << 20];
    blake3::Hasher::new().update(b"much").finalize_xof().fill(&mut held);
    std::fs::write(server.plugd.dir.path().join("held"), &held).expect("a file");
    let outcome = server.run(&["put", "held", "much"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let outcome = server.run(&["get", "much", "back"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(std::fs::read(server.plugd.dir.path().join("back")).expect("a file") == held, "another content came back");
}

#[test]
fn trees_go_over_tls() {
    let server = Secured::start();
    let tree = server.plugd.dir.path().join("tree");
    std::fs::create_dir(&tree).expect("a directory");
    for index in 0..300 {
        std::fs::write(tree.join(format!("{index}")), format!("content {index}")).expect("a file");
    }
    for args in [["put", "-r", "tree", "there"], ["get", "-r", "there", "back"]] {
        let outcome = server.run(&args);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
    let back = server.plugd.dir.path().join("back");
    let find = |name: &str| {
        std::fs::read_to_string(back.join(name)).or_else(|_| std::fs::read_to_string(back.join("tree").join(name)))
    };
    assert_eq!(find("299").expect("a file that came back"), "content 299");
}

#[rstest]
#[case::calls(&[])]
#[case::messages(&["--stream"])]
#[case::fresh(&["--fresh"])]
#[case::deep(&["--pipeline", "16", "--size", "100000"])]
fn load_goes_over_tls(#[case] args: &[&str]) {
    let server = Secured::start();
    let outcome = server.run(&[&["bench", "echo", "-c", "4", "-n", "400"], args].concat());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

/// A caller that has gone takes its command with it, as over TCP.
#[test]
fn an_interrupted_call_ends_its_command() {
    use nix::sys::signal::{Signal, kill};
    let server = Secured::start();
    let mut call = server.plug(&["exec", "--", "sh", "-c", "echo $$; trap '' TERM; while :; do sleep 1000; done"]);
    let mut client = call.stdout(std::process::Stdio::piped()).spawn().expect("plug runs");
    let mut id = String::new();
    let stdout = client.stdout.as_mut().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut id).expect("a line of text");
    kill(nix::unistd::Pid::from_raw(client.id() as i32), Signal::SIGINT).expect("a running client");
    assert_eq!(client.wait().expect("a child").code(), Some(130));
    let process = format!("/proc/{}/exe", id.trim());
    crate::support::process::wait_until("end of the command", || !Path::new(&process).exists());
}

#[test]
fn a_server_that_is_another_is_not_called() {
    let (plugd, authority, other) = (Plugd::start(EVERYTHING), Authority::new(), Authority::new());
    let ca = authority.ca();
    let trusted = ["--ca", text(&ca)];
    let start = |files, version| url(&Terminator::start(&plugd.address, &files, &[version], None));
    let good = start(authority.issue("localhost"), &TLS13);
    let foreign = start(other.issue("localhost"), &TLS13);
    refused(&plugd, &foreign, &trusted, 3, "from no CA that is trusted here; name its CA with --ca");
    // Where the system's list of CAs is, this variable says (rustls-native-certs).
    let by_list = |list: &Path| run(plug(&plugd, &good, &["ping"]).env("SSL_CERT_FILE", list));
    let outcome = by_list(&other.ca());
    assert!(outcome.code == Some(3) && outcome.stderr.contains("from no CA that is trusted here"), "{outcome:?}");
    assert_eq!(by_list(&ca).code, Some(0));
    let misnamed = start(authority.issue("other.example"), &TLS13);
    refused(&plugd, &misnamed, &trusted, 3, "certificate is for other.example, not for localhost");
    let other_name = [&trusted[..], &["--server-name", "third.example"]].concat();
    refused(&plugd, &good, &other_name, 3, "certificate is for localhost, not for third.example");
    let expired = start(authority.issue_until("localhost", 2001), &TLS13);
    refused(&plugd, &expired, &trusted, 3, "certificate has expired: 2001-01-01T00:00:00Z");
    let old = start(authority.issue("localhost"), &TLS12);
    refused(&plugd, &old, &trusted, 3, "speaks no TLS 1.3");
    let plain = plugd.address.replace("tcp://127.0.0.1", "tls://localhost");
    refused(&plugd, &plain, &trusted, 3, "or no TLS at all; without it, it is tcp://");
    // A wrong certificate does not become right by waiting.
    refused(&plugd, &foreign, &["--wait", "1h", "--ca", text(&ca)], 3, "from no CA that is trusted here");
    let outcome = run(plug(&plugd, &foreign, &["bench", "echo", "-n", "1"]).env("PLUG_CA", &ca));
    assert!(outcome.code == Some(3) && outcome.stderr.contains("from no CA"), "{outcome:?}");
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let (plugd, authority, other) = (Plugd::start(EVERYTHING), Authority::new(), Authority::new());
    let terminator = Terminator::start(&plugd.address, &authority.issue("localhost"), &[&TLS13], Some(&authority));
    let (server, ca) = (url(&terminator), authority.ca());
    let (certificate, key) = authority.issue("client");
    let shown = ["--ca", text(&ca), "--cert", text(&certificate), "--key", text(&key)];
    let outcome = run(&mut plug(&plugd, &server, &[&shown[..], &["ping"]].concat()));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let mut by_environment = plug(&plugd, &server, &["ping"]);
    let outcome = run(by_environment.env("PLUG_CA", &ca).env("PLUG_CERT", &certificate).env("PLUG_KEY", &key));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let (foreign, foreign_key) = other.issue("client");
    let strange = ["--ca", text(&ca), "--cert", text(&foreign), "--key", text(&foreign_key)];
    for _ in 0..5 {
        refused(&plugd, &server, &["--ca", text(&ca)], 3, "asks for a client certificate; see --cert and --key");
        refused(&plugd, &server, &strange, 3, "refuses the client certificate");
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_before_anybody_is_called() {
    let (plugd, authority) = (Plugd::start(EVERYTHING), Authority::new());
    let (certificate, key) = authority.issue("client");
    let (ca, (certificate, key)) = (authority.ca(), (text(&certificate), text(&key)));
    let server = "tls://localhost:1";
    let missing = authority.dir().join("missing");
    refused(&plugd, server, &["--ca", text(&missing)], 5, "cannot read CA");
    refused(&plugd, server, &["--ca", key], 2, "it holds no certificate in PEM form");
    refused(&plugd, server, &["--ca", text(&ca), "--cert", certificate], 2, "it has no key");
    refused(&plugd, server, &["--ca", text(&ca), "--key", key], 2, "it has no certificate");
    refused(&plugd, server, &["--ca", text(&ca), "--cert", certificate, "--key", certificate], 2, "mode is");
    let (_, other) = authority.issue("other");
    refused(&plugd, server, &["--ca", text(&ca), "--cert", certificate, "--key", text(&other)], 2, "does not go with");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(key, private).expect("a file of ours");
    let open = ["--ca", text(&ca), "--cert", certificate, "--key", key];
    refused(&plugd, server, &open, 2, "its mode is 0640; allowed: 0600 or less; chmod 600 ");
    refused(&plugd, "tcp://localhost:1", &["--ca", text(&ca)], 2, "--ca is for servers of tls://");
}
