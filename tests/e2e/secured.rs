//! Who gets in: certificates and tokens, by the programs themselves.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::Signal;
use plugd_core::wire::{HELLO_LEN, Hello};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, Stream};

use crate::support::process::{Outcome, Plugd, plugd, wait_until};
use crate::support::tls::Authority;

/// The name that servers of these tests have in their certificates.
const HOST: &str = "127.0.0.1";

/// A server behind TLS, and the CA of everybody.
struct Guarded {
    plugd: Plugd,
    authority: Authority,
}

impl Guarded {
    /// Serves `plugins`, and asks clients for certificates as `wanted` says.
    fn start(wanted: &str, plugins: &str) -> Guarded {
        Guarded::start_with("", wanted, plugins)
    }

    /// The same, with more settings of the server.
    fn start_with(settings: &str, wanted: &str, plugins: &str) -> Guarded {
        let authority = Authority::new();
        let (certificate, key) = authority.issue(HOST);
        let clients = match wanted {
            "none" => String::new(),
            _ => format!("client_ca = {:?}\nclient_certificates = {wanted:?}\n", authority.ca()),
        };
        let text =
            format!("{settings}\n[server.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{clients}{plugins}");
        let mut command = Command::new(plugd());
        command.args(["--listen", "tls://127.0.0.1:0", "--log", "info", "--log-format", "json"]).stderr(Stdio::piped());
        Guarded { plugd: Plugd::start_by(&text, command), authority }
    }

    /// Calls as whoever has this certificate.
    fn run(&self, certificate: Option<&(PathBuf, PathBuf)>, args: &[&str]) -> Outcome {
        let mut command = bare(&self.plugd, args);
        command.env("PLUG_CA", self.authority.ca());
        if let Some((certificate, key)) = certificate {
            command.env("PLUG_CERT", certificate).env("PLUG_KEY", key);
        }
        command.output().expect("plug runs").into()
    }

    fn port(&self) -> u16 {
        self.plugd.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }
}

/// The client without anything that proves who it is.
fn bare(plugd: &Plugd, args: &[&str]) -> Command {
    let mut command = plugd.plug(args);
    for name in ["PLUG_CA", "PLUG_CERT", "PLUG_KEY", "PLUG_TOKEN", "PLUG_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command
}

/// How many calls a server has logged until it ended.
fn calls(log: &[serde_json::Value]) -> usize {
    log.iter().filter(|event| event["target"] == "plugd::call").count()
}

#[test]
fn without_a_good_certificate_no_call_is_begun() {
    let server = Guarded::start("required", "[plugins.echo]\n");
    let others = Authority::new();
    let authority = &server.authority;
    let server_only = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let bad = [
        ("none", None),
        ("expired", Some(authority.issue_until("late.example", 2000))),
        ("of another CA", Some(others.issue("ops.example"))),
        ("of a server", Some(authority.issue_for("server.example", 3999, server_only))),
    ];
    for (what, certificate) in &bad {
        let outcome = server.run(certificate.as_ref(), &["call", "echo", "--data", "in"]);
        assert_eq!((outcome.code, outcome.text()), (Some(3), ""), "{what}: {outcome:?}");
    }
    let good = authority.issue_for("ops.example", 3998, vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let outcome = server.run(Some(&good), &["call", "echo", "--data", "in"]);
    assert_eq!((outcome.code, outcome.text()), (Some(0), "in"), "{outcome:?}");
    assert_eq!(calls(&server.plugd.log()), 1);
}

#[test]
fn who_is_refused_for_its_certificate_is_in_the_audit() {
    let server = Guarded::start_with("audit = \"file:audit.log\"", "required", "[plugins.echo]\n");
    // To look whether the port is open is no attempt.
    drop(TcpStream::connect((HOST, server.port())).expect("a listening server"));
    let late = server.authority.issue_until("late.example", 2000);
    for certificate in [None, Some(&late)] {
        assert_eq!(server.run(certificate, &["ping"]).code, Some(3));
    }
    let audit = || std::fs::read_to_string(server.plugd.dir.path().join("audit.log")).expect("an audit");
    wait_until("lines of the refused", || audit().lines().count() >= 2);
    let lines: Vec<serde_json::Value> = audit().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    for (line, detail) in lines.iter().zip(["sent no certificates", "xpired"]) {
        assert_eq!((&line["target"], &line["message"]), (&"plugd::audit".into(), &"connection".into()));
        assert_eq!((&line["code"], &line["reason"]), (&"unauthenticated".into(), &"tls-handshake".into()));
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
        assert!(line["detail"].as_str().is_some_and(|text| text.contains(detail)), "{line}");
    }
}

#[test]
fn the_names_of_a_certificate_say_who_calls() {
    let plugins = "[plugins.echo]\naccess.allow = [\"cert:ops.example\"]\n[plugins.upper]\n";
    let server = Guarded::start("optional", plugins);
    let (ops, dev) = (server.authority.issue("ops.example"), server.authority.issue("dev.example"));
    let whoami = server.run(Some(&ops), &["whoami", "--json"]).json();
    assert_eq!(whoami["data"]["certificate_names"], serde_json::json!(["ops.example"]), "{whoami}");
    let outcome = server.run(Some(&ops), &["call", "echo", "--data", "in"]);
    assert_eq!((outcome.code, outcome.text()), (Some(0), "in"), "{outcome:?}");
    for certificate in [Some(&dev), None] {
        let outcome = server.run(certificate, &["call", "echo", "--data", "in"]);
        assert!(outcome.code == Some(69) && outcome.stderr.contains("no plugin \"echo\""), "{outcome:?}");
        let outcome = server.run(certificate, &["call", "upper", "--data", "in"]);
        assert_eq!((outcome.code, outcome.text()), (Some(0), "IN"), "{outcome:?}");
    }
}

/// A session that is resumed brings no certificate, so that nobody would look at whether the old one still is good.
#[test]
fn each_connection_shows_its_certificate_anew() {
    let server = Guarded::start("required", "[plugins.echo]\n");
    let (certificate, key) = server.authority.issue("ops.example");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(server.authority.ca()).expect("a certificate")).expect("a CA");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .expect("a version")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(certificate).expect("a certificate")],
            PrivateKeyDer::from_pem_file(key).expect("a key"),
        )
        .expect("a certificate and its key");
    config.alpn_protocols = vec![b"plugd/1".to_vec()];
    let config = Arc::new(config);
    for round in 0..3 {
        let name = ServerName::try_from(HOST).expect("a name");
        let mut client = ClientConnection::new(config.clone(), name).expect("a client");
        let mut socket = TcpStream::connect((HOST, server.port())).expect("a listening server");
        let mut stream = Stream::new(&mut client, &mut socket);
        stream.write_all(&Hello { data_len_max: 1 << 20 }.encode()).expect("a handshake");
        // What the server says comes after the tickets for another session, if there are any.
        stream.read_exact(&mut [0; HELLO_LEN]).expect("a hello");
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full), "connection {round}");
    }
}

#[test]
fn much_goes_over_a_tls_listener() {
    let plugins = "[plugins.files]\nhandler = \"file\"\nconfig = { root = \"files\", writable = true }\n";
    let server = Guarded::start("none", plugins);
    let mut held = vec![0; 16 << 20];
    blake3::Hasher::new().update(b"much").finalize_xof().fill(&mut held);
    std::fs::write(server.plugd.dir.path().join("held"), &held).expect("a file");
    for args in [["put", "held", "much"], ["get", "much", "back"]] {
        let outcome = server.run(None, &args);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
    assert!(std::fs::read(server.plugd.dir.path().join("back")).expect("a file") == held, "another content came back");
}

#[test]
fn what_is_no_tls_of_today_is_refused_and_the_next_caller_is_served() {
    let server = Guarded::start("none", "[plugins.echo]\n");
    let old = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .expect("a version")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(HOST).expect("a name");
    let mut client = ClientConnection::new(Arc::new(old), name).expect("a client");
    let mut socket = TcpStream::connect((HOST, server.port())).expect("a listening server");
    let error = client.complete_io(&mut socket).expect_err("TLS 1.2");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let mut plain = TcpStream::connect((HOST, server.port())).expect("a listening server");
    plain.write_all(b"PLUG\x01 and no TLS").expect("an open connection");
    let mut answer = Vec::new();
    // The alert may be followed by a reset.
    let _ = plain.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
    assert_eq!(server.run(None, &["call", "echo", "--data", "in"]).text(), "in");
    let log = server.plugd.log();
    let refused = log.iter().filter(|event| event["message"] == "no TLS connection came about").count();
    assert_eq!((refused, calls(&log)), (2, 1), "{log:#?}");
}

#[test]
fn certificates_are_read_again_and_connections_live_on() {
    let server = Guarded::start("none", "[plugins.echo]\n");
    let mut call = bare(&server.plugd, &["call", "echo"]);
    call.env("PLUG_CA", server.authority.ca()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut old = call.spawn().expect("plug runs");
    let (mut input, mut output) =
        (old.stdin.take().expect("a pipe"), BufReader::new(old.stdout.take().expect("a pipe")));
    let mut echo = |text: &str| {
        input.write_all(text.as_bytes()).expect("a pipe");
        let mut line = String::new();
        output.read_line(&mut line).expect("text");
        assert_eq!(line, text);
    };
    echo("before\n");

    let (certificate, key) = server.authority.issue(HOST);
    let others = Authority::new();
    let (new_certificate, new_key) = others.issue(HOST);
    let put = |from: &Path, to: &Path| std::fs::write(to, std::fs::read(from).expect("a file")).expect("a file");
    put(&new_certificate, &certificate);
    server.plugd.signal(Signal::SIGHUP);
    // The certificate and the key do not fit: what was there stays.
    echo("between\n");
    assert_eq!(server.run(None, &["ping"]).code, Some(0));
    put(&new_key, &key);
    server.plugd.signal(Signal::SIGHUP);
    let by_new_ca = || bare(&server.plugd, &["ping"]).env("PLUG_CA", others.ca()).output().expect("plug runs");
    wait_until("new certificate", || by_new_ca().status.success());
    assert_eq!(server.run(None, &["ping"]).code, Some(3), "the old CA knows it no longer");
    echo("after\n");
    drop(input);
    assert!(old.wait().expect("a child").success());
    let log = server.plugd.log();
    let problem = |event: &serde_json::Value| {
        event["message"]
            .as_str()
            .is_some_and(|text| text.contains("TLS stays as it is") && text.contains("does not fit the certificate"))
    };
    assert!(log.iter().any(problem), "{log:#?}");
}

/// Starts a server that is expected not to, and returns what it says.
fn refused(text: &str, args: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("plugins.toml"), text).expect("a file");
    let outcome: Outcome =
        Command::new(plugd()).args(args).current_dir(dir.path()).output().expect("plugd runs").into();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    outcome.stderr
}

#[test]
fn keys_that_others_may_read_and_files_that_are_something_else_are_refused() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue(HOST);
    std::fs::set_permissions(&certificate, PermissionsExt::from_mode(0o600)).expect("a file of ours");
    let config = |certificate: &Path, key: &Path| {
        format!(
            "[server]\nlisten = [\"tls://127.0.0.1:0\"]\n[server.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n\
             [plugins.echo]\n"
        )
    };
    for args in [&[][..], &["check"]] {
        assert!(refused(&config(&key, &key), args).contains("no certificate in it; allowed: PEM"));
        assert!(refused(&config(&certificate, &certificate), args).contains("no private key in it"));
        assert!(refused(&config(&certificate, Path::new("gone")), args).contains("gone: cannot be read"));
        let (_, other) = Authority::new().issue(HOST);
        let found = refused(&config(&certificate, &other), args);
        assert!(found.contains("cannot be read") || found.contains("does not fit"), "{found}");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).expect("a file of ours");
        let found = refused(&config(&certificate, &key), args);
        assert!(found.contains("others can use this key (mode 0644); make it private: chmod 600"), "{found}");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("a file of ours");
    }
}

/// A token by `plugd token new`, and what the configuration says of it.
fn new_token(name: &str) -> (String, String) {
    let outcome: Outcome = Command::new(plugd()).args(["token", "new", name]).output().expect("plugd runs").into();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let token = outcome.text().trim_end().to_owned();
    assert!(token.len() == 49 && token.starts_with("plugd_"), "{token}");
    let section: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with(['[', 'h'])).collect();
    assert!(!outcome.stderr.contains(&token));
    (token, format!("{}\n", section.join("\n")))
}

fn call_with(plugd: &Plugd, token: &str, args: &[&str]) -> Outcome {
    let outcome: Outcome = bare(plugd, args).env("PLUG_TOKEN", token).output().expect("plug runs").into();
    assert!(!outcome.stderr.contains(token), "{outcome:?}");
    outcome
}

#[test]
fn a_token_opens_what_is_for_its_name_until_it_is_taken_away() {
    let (token, section) = new_token("ci");
    let plugins = "[plugins.echo]\naccess.allow = [\"token:ci\"]\n[plugins.upper]\n";
    let server = Plugd::start_logged(&format!("{section}{plugins}"));
    let echo = ["call", "echo", "--data", "in"];
    let outcome = call_with(&server, &token, &echo);
    assert_eq!((outcome.code, outcome.text()), (Some(0), "in"), "{outcome:?}");
    assert_eq!(call_with(&server, &token, &["whoami", "--json"]).json()["data"]["token"], "ci");
    assert_eq!(bare(&server, &echo).output().expect("plug runs").status.code(), Some(69));
    let wrong = call_with(&server, "plugd_wrong", &["call", "upper", "--data", "in"]);
    assert!(wrong.code == Some(64 + 16) && wrong.stderr.contains("bad-token"), "{wrong:?}");

    let mut call = bare(&server, &["call", "echo"]);
    call.env("PLUG_TOKEN", &token).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = call.spawn().expect("plug runs");
    let mut output = BufReader::new(running.stdout.take().expect("a pipe"));
    let input = running.stdin.as_mut().expect("a pipe");
    input.write_all(b"begun\n").expect("a pipe");
    output.read_line(&mut String::new()).expect("text");
    let (_, other) = new_token("ci");
    let text = format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n{other}{plugins}");
    std::fs::write(server.dir.path().join("plugins.toml"), text).expect("a file");
    server.signal(Signal::SIGHUP);
    wait_until("token to be gone", || call_with(&server, &token, &echo).code == Some(64 + 16));
    drop(running.stdin.take());
    assert!(running.wait().expect("a child").success(), "a call that runs ends as it began");
    let log = serde_json::to_string(&server.log()).expect("JSON");
    assert!(!log.contains(&token), "a token in the log");
}

/// By default the log is the audit, and most callers make one call on a connection.
#[test]
fn the_log_names_the_token_of_the_very_call_that_brings_it() {
    let (token, section) = new_token("ci");
    let server = Plugd::start_logged(&format!("{section}[plugins.echo]\n"));
    assert_eq!(call_with(&server, &token, &["call", "echo", "--data", "in"]).code, Some(0));
    assert_eq!(call_with(&server, "plugd_wrong", &["call", "echo", "--data", "in"]).code, Some(64 + 16));
    let log = server.log();
    let peers: Vec<&str> = log
        .iter()
        .filter(|event| event["target"] == "plugd::call")
        .map(|event| event["span"]["peer"].as_str().expect("a peer"))
        .collect();
    assert!(peers.len() == 2 && peers[0].starts_with("token:ci at 127.0.0.1:"), "{peers:?}");
    assert!(peers[1].starts_with("127.0.0.1:"), "{peers:?}");
}

#[test]
fn guessing_leads_to_a_penalty_that_ends() {
    let (token, section) = new_token("ci");
    let settings = "token_failures_max = 3\ntoken_penalty = \"2s\"\n";
    let server = Plugd::start_with(settings, &format!("{section}[plugins.echo]\n"));
    for _ in 0..3 {
        assert_eq!(call_with(&server, "plugd_guess", &["ping"]).code, Some(64 + 16));
    }
    let outcome = call_with(&server, &token, &["ping"]);
    assert!(outcome.code == Some(64 + 8) && outcome.stderr.contains("token-failures"), "{outcome:?}");
    assert!(outcome.stderr.contains("come back in 2 s"), "{outcome:?}");
    let wait_ms = call_with(&server, &token, &["ping", "--json"]).json()["trailer"]["retry_after_ms"].as_u64();
    assert!(wait_ms.is_some_and(|wait_ms| (1..=2_001).contains(&wait_ms)), "{wait_ms:?}");
    assert_eq!(
        bare(&server, &["ping"]).output().expect("plug runs").status.code(),
        Some(0),
        "who proves nothing is served"
    );
    wait_until("end of the penalty", || call_with(&server, &token, &["ping"]).code == Some(0));
}
