//! Who may call what, over real sockets: by address on loopback, by uid over a unix socket.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use plugd_client::Client;
use plugd_core::wire::{Hello, Kind, Open};
use plugd_server::{Config, ListenAddress, Origin, Registry, Server};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::process::{Outcome, Plugd, plug};
use crate::support::raw::{RawPeer, eoi, frame};
use crate::support::server::TestServer;

const STRANGER: &str = "127.0.0.1:0";
const FRIEND: &str = "127.0.0.2:0";

/// A server with secrets from everybody but [`FRIEND`].
const GUARDED: &str = r#"
[plugins.echo]

[plugins.secret]
handler = "upper"
access.allow = ["net:127.0.0.2"]

[plugins.off]
handler = "upper"
enabled = false
access.allow = ["net:127.0.0.2"]

[plugins.ops]
handler = "shell"
config.jobs_max = 0
config.commands.tail = { argv = ["true"], read_only = true }
config.commands.up = { argv = ["true"], read_only = true }
access.allow = ["any"]
access.operations.up.allow = ["net:127.0.0.2"]
"#;

/// A server that has no more than what [`STRANGER`] may call of the other.
const BARE: &str = r#"
[plugins.echo]

[plugins.ops]
handler = "shell"
config.jobs_max = 0
config.commands.tail = { argv = ["true"], read_only = true }
"#;

/// Everything that somebody might ask in search of names. Nothing of it runs a command: the arguments are no good.
fn questions() -> Vec<Value> {
    let names = ["echo", "secret", "secret.upper", "secret.x", "secrt", "off", "off.upper", "of", "nothing", ""];
    let operations = ["ops", "ops.tail", "ops.up", "ops.upp", "ops.tial", "ops.", "ops.exec"];
    let bare = names.iter().filter(|name| !name.is_empty()).map(|name| json!({ "command": name }));
    let odd = names.iter().chain(&operations).map(|name| json!({ "command": name, "args": { "nope": 1 } }));
    let described = ["echo", "secret", "secrt", "off", "ops", "plugd", "nothing"];
    let described = described.map(|name| json!({ "command": "plugd.describe", "args": { "name": name } }));
    bare.chain(odd).chain(described).chain([json!({ "command": "plugd.list" })]).collect()
}

/// Every byte that the server answers to [`questions`], each asked twice.
async fn answers(server: SocketAddr, from: &str) -> Vec<u8> {
    let mut peer = RawPeer::over(connect(server, from).await);
    let questions = questions().into_iter().flat_map(|question| [question.clone(), question]);
    let calls: Vec<u8> =
        questions.flat_map(|question| [frame(Kind::Open, question.to_string().as_bytes()), eoi()].concat()).collect();
    peer.send(&[&Hello { data_len_max: 1 << 20 }.encode()[..], &calls].concat()).await;
    peer.stream.shutdown().await.expect("an open connection");
    peer.rest().await
}

async fn connect(server: SocketAddr, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(from.parse().expect("an address")).expect("an address of loopback");
    socket.connect(server).await.expect("a listening server")
}

/// The end of a call of `command`, in a word.
async fn end(client: &mut Client, command: &str) -> String {
    match client.call(&Open::new(command), "x").await {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn what_may_not_be_called_answers_as_what_is_not_there_to_the_last_byte() {
    let (guarded, bare) = (TestServer::start(GUARDED).await, TestServer::start(BARE).await);
    let found = answers(guarded.address, STRANGER).await;
    let expected = answers(bare.address, STRANGER).await;
    assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(&expected));
    assert!(!String::from_utf8_lossy(&found).contains("access"));
    let friend = answers(guarded.address, FRIEND).await;
    let friend = String::from_utf8_lossy(&friend);
    for part in
        ["plugin \\\"off\\\" is disabled", "\"name\":\"secret\"", "available: tail, up", "did you mean \\\"secret\\\"?"]
    {
        assert!(friend.contains(part), "{part} in {friend}");
    }
}

#[tokio::test]
async fn addresses_of_loopback_are_told_apart_on_connections_side_by_side() {
    let server = TestServer::start(GUARDED).await;
    let mut stranger = Client::over(connect(server.address, STRANGER).await);
    let mut friend = Client::over(connect(server.address, FRIEND).await);
    for _ in 0..3 {
        assert_eq!(end(&mut friend, "secret").await, "ok");
        let refused = end(&mut stranger, "secret").await;
        assert!(refused.contains("no plugin \"secret\"; available: echo, ops"), "{refused}");
        assert_eq!(end(&mut stranger, "echo").await, "ok");
    }
}

#[tokio::test]
async fn an_ipv4_caller_of_an_ipv6_socket_is_an_ipv4_caller() {
    let plugins = "[plugins.mapped]\nhandler = \"upper\"\naccess.allow = [\"net:::/0\"]\n\
                   [plugins.plain]\nhandler = \"upper\"\naccess.allow = [\"net:127.0.0.0/8\"]\n";
    let text = format!("[server]\nlisten = [\"tcp://[::]:0\"]\n{plugins}");
    let (addresses, _serving) = serve(&text).await;
    let ListenAddress::Tcp { port, .. } = addresses[0] else { panic!("a TCP address") };
    let mut caller = Client::over(connect(SocketAddr::from(([127, 0, 0, 1], port)), STRANGER).await);
    assert_eq!(end(&mut caller, "plain").await, "ok");
    assert!(end(&mut caller, "mapped").await.contains("unknown-plugin"));
}

#[test]
fn the_log_says_what_the_caller_is_not_told() {
    let server = Plugd::start_logged("[plugins.secret]\nhandler = \"upper\"\naccess.allow = [\"uid:1\"]\n");
    for command in ["secret", "nothing"] {
        let refused = server.run(["call", command, "--json"]);
        assert_eq!(
            (refused.code, refused.json()["status"]["origin"].as_str()),
            (Some(69), Some("server")),
            "{refused:?}"
        );
    }
    let log = server.log();
    let event = |command: &str| {
        let command = format!("{command:?}");
        log.iter().find(|event| event["span"]["command"] == command).expect("a call")
    };
    assert_eq!((&event("secret")["reason"], &event("secret")["origin"]), (&"unknown-plugin".into(), &"access".into()));
    assert_eq!(event("nothing")["origin"], "server");
}

async fn serve(text: &str) -> (Vec<ListenAddress>, Serving) {
    let registry = Registry::linked().expect("handlers that fit together");
    let config = Config::parse(&Origin::text(text), &registry, &[]).expect("a good configuration");
    let server = Server::bind(config, registry).await.expect("a free port");
    (server.addresses().to_vec(), Serving(tokio::spawn(server.run())))
}

/// A server that ends with the test.
struct Serving(tokio::task::JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Somebody else, whom every system has.
const NOBODY: u32 = 65534;

/// A rule for each way to mean a user.
fn rules(me: u32) -> String {
    let rules = [
        ("mine", format!("allow = [\"uid:{me}\"]")),
        ("theirs", format!("allow = [\"uid:{NOBODY}\"]")),
        ("user", "allow = [\"user:root\"]".to_owned()),
        ("group", "allow = [\"group:others\"]".to_owned()),
        ("not-theirs", format!("allow = [\"any\"], deny = [\"uid:{NOBODY}\"]")),
        ("no-others", "allow = [\"any\"], deny = [\"group:others\"]".to_owned()),
        ("by-net", "allow = [\"net:0.0.0.0/0\", \"net:::/0\"]".to_owned()),
        ("anybody", "allow = [\"any\"]".to_owned()),
        ("nobody", "allow = []".to_owned()),
    ];
    let rules = rules.map(|(name, rule)| format!("[plugins.{name}]\nhandler = \"upper\"\naccess = {{ {rule} }}\n"));
    format!("[groups]\nothers = [\"group:inner\"]\ninner = [\"uid:{NOBODY}\"]\n{}", rules.concat())
}

/// The plugins that a caller is shown, after each was called and did as the list says.
fn callable(run: impl Fn(&[&str]) -> Outcome) -> Vec<String> {
    let list = run(&["list", "--json"]);
    assert_eq!(list.code, Some(0), "{list:?}");
    let plugins = list.json()["data"]["plugins"].as_array().expect("a list").clone();
    let shown: Vec<String> = plugins
        .iter()
        .filter_map(|plugin| plugin["name"].as_str())
        .filter(|name| *name != "plugd")
        .map(str::to_owned)
        .collect();
    for name in ["mine", "theirs", "user", "group", "not-theirs", "no-others", "by-net", "anybody", "nobody"] {
        let expected = if shown.iter().any(|shown| shown == name) { 0 } else { 69 };
        let called = run(&["call", name, "--data", "x"]);
        assert_eq!(called.code, Some(expected), "{name}: {called:?}");
    }
    shown
}

/// Runs `plug` as `uid`; `None` when this process may not become it.
fn run_as(program: &Path, socket: &Path, uid: u32, args: &[&str]) -> Option<Outcome> {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PLUG_SERVER", format!("unix:{}", socket.display())).current_dir("/");
    if uid != geteuid().as_raw() {
        command.uid(uid).gid(uid);
    }
    match command.output() {
        Ok(output) => Some(Outcome::from(output)),
        Err(error) => {
            eprintln!("cannot run a program as uid {uid}: {error}");
            None
        }
    }
}

/// The client where everybody may run it, and a directory that everybody may enter.
fn for_everybody() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("a directory of ours");
    let program = dir.path().join("plug");
    std::fs::copy(plug(), &program).expect("the client's program");
    (dir, program)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_over_a_unix_socket_are_their_users() {
    let (dir, program) = for_everybody();
    let socket = dir.path().join("plugd.sock");
    let me = geteuid().as_raw();
    let text = format!("[server]\nlisten = [\"unix:{}\"]\nunix_mode = \"0666\"\n{}", socket.display(), rules(me));
    let (_, _serving) = serve(&text).await;

    let mine = callable(|args| run_as(&program, &socket, me, args).expect("ourselves"));
    let as_root = if me == 0 { vec!["user"] } else { vec![] };
    let expected = [vec!["anybody", "mine", "no-others", "not-theirs"], as_root].concat();
    if me != NOBODY {
        assert_eq!(mine, expected);
    }
    // Only root becomes somebody else, and not where it is root in name alone.
    if me == 0 && run_as(&program, &socket, NOBODY, &["ping"]).is_some() {
        let theirs = callable(|args| run_as(&program, &socket, NOBODY, args).expect("nobody"));
        assert_eq!(theirs, ["anybody", "group", "theirs"]);
    }
}

fn config(text: &str) -> Config {
    Config::parse(&Origin::text(text), &Registry::linked().expect("handlers that fit together"), &[])
        .expect("a good one")
}

#[tokio::test]
async fn another_rule_holds_for_the_next_call_and_leaves_the_plugin_as_it_is() {
    let journal = "guarded";
    let text = |group: &str, rule: &str| {
        format!(
            "[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n[groups]\nfriends = [\"{group}\"]\n[plugins.a]\nhandler = \"living\"\n\
             config = {{ journal = \"{journal}\", name = \"a\" }}\n{rule}"
        )
    };
    let by_group = "access.allow = [\"group:friends\"]\n";
    let server = Server::bind(config(&text("net:127.0.0.1", by_group)), Registry::linked().expect("handlers")).await;
    let server = server.expect("a free port");
    let ListenAddress::Tcp { port, .. } = server.addresses()[0] else { panic!("a TCP address") };
    let control = server.control();
    let _serving = Serving(tokio::spawn(server.run()));
    let mut caller = Client::over(connect(SocketAddr::from(([127, 0, 0, 1], port)), STRANGER).await);
    assert_eq!(end(&mut caller, "a.name").await, "ok");
    // The section of the plugin is the same; what the group means is not.
    let changes = control.reload(config(&text("net:127.0.0.2", by_group))).expect("good plugins");
    assert_eq!((changes.guarded, changes.replaced), (vec!["a".to_owned()], Vec::new()));
    assert!(end(&mut caller, "a.name").await.contains("unknown-plugin"));
    let changes = control.reload(config(&text("any", ""))).expect("good plugins");
    assert_eq!((changes.guarded, changes.replaced), (vec!["a".to_owned()], Vec::new()));
    assert_eq!(end(&mut caller, "a.name").await, "ok");
    assert!(!crate::support::layers::journal(journal).iter().any(|line| line.contains("told")));
}

#[tokio::test]
async fn a_reload_is_judged_by_where_the_server_listens() {
    let files = "[plugins.files]\nhandler = \"file\"\nconfig.root = \"never-made\"\n";
    let open = config("[server]\nlisten = [\"tcp://0.0.0.0:0\"]\n[plugins.echo]\n");
    let server = Server::bind(open, Registry::linked().expect("handlers")).await.expect("a free port");
    let control = server.control();
    let _serving = Serving(tokio::spawn(server.run()));
    // The new file says loopback, and would be good at a start.
    let local = config(&format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n{files}"));
    let error = control.reload(local).expect_err("open to everybody").to_string();
    assert!(
        error.starts_with("plugins.files changes or runs things for everybody who reaches tcp://0.0.0.0:0"),
        "{error}"
    );
    let as_root = config(&format!("{files}access.allow = [\"any\"]\n"));
    if geteuid().is_root() {
        let error = control.reload(as_root).expect_err("as root").to_string();
        assert!(error.starts_with("as root, files would change or run things"), "{error}");
    }
}

#[tokio::test]
async fn counts_of_what_may_not_be_called_are_not_told() {
    let plugins = format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\nlayers = [\"metrics\"]\n{GUARDED}");
    let (addresses, _serving) = serve(&plugins).await;
    let ListenAddress::Tcp { port, .. } = addresses[0] else { panic!("a TCP address") };
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let mut friend = Client::over(connect(server, FRIEND).await);
    for command in ["secret", "echo"] {
        assert_eq!(end(&mut friend, command).await, "ok");
    }
    let mut stranger = Client::over(connect(server, STRANGER).await);
    for (caller, sees_it) in [(&mut friend, true), (&mut stranger, false)] {
        for args in ["{}", r#"{"format":"prometheus"}"#] {
            let mut open = Open::new("plugd.metrics");
            open.args = Some(serde_json::value::RawValue::from_string(args.to_owned()).expect("JSON"));
            let reply = caller.call(&open, "").await.expect("counts").bytes();
            let text = String::from_utf8_lossy(&reply).into_owned();
            assert_eq!((text.contains("secret"), text.contains("echo")), (sees_it, true), "{text}");
        }
    }
}

#[tokio::test]
async fn counts_of_a_plugin_that_is_gone_since_are_told_to_nobody() {
    let text = |plugins: &str| {
        format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\nlayers = [\"metrics\"]\n[plugins.echo]\n{plugins}")
    };
    let guarded = text("[plugins.secret]\nhandler = \"upper\"\naccess.allow = [\"net:127.0.0.2\"]\n");
    let server = Server::bind(config(&guarded), Registry::linked().expect("handlers")).await.expect("a free port");
    let ListenAddress::Tcp { port, .. } = server.addresses()[0] else { panic!("a TCP address") };
    let control = server.control();
    let _serving = Serving(tokio::spawn(server.run()));
    let server = SocketAddr::from(([127, 0, 0, 1], port));
    let mut friend = Client::over(connect(server, FRIEND).await);
    for command in ["secret", "echo"] {
        assert_eq!(end(&mut friend, command).await, "ok");
    }
    control.reload(config(&text(""))).expect("good plugins");
    let mut stranger = Client::over(connect(server, STRANGER).await);
    let reply = stranger.call(&Open::new("plugd.metrics"), "").await.expect("counts").bytes();
    let told = String::from_utf8_lossy(&reply);
    assert!(told.contains("echo") && !told.contains("secret"), "{told}");
}
