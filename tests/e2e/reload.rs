//! Other plugins for a server that runs, and instances that are told of it.

use nix::sys::signal::Signal;
use plugd_server::{Config, Origin, Registry, ReloadError};

use crate::support::layers::journal;
use crate::support::process::{Plugd, wait_until};
use crate::support::raw::{RawPeer, eoi, open};
use crate::support::server::TestServer;

fn living(journal: &str, plugin: &str, name: &str) -> String {
    format!("[plugins.{plugin}]\nhandler = \"living\"\nconfig = {{ journal = \"{journal}\", name = \"{name}\" }}\n")
}

fn config(plugins: &str) -> Config {
    let text = format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n\n{plugins}");
    Config::parse(&Origin::text(text), &Registry::linked().expect("handlers"), &[]).expect("a good configuration")
}

async fn name_of(peer: &mut RawPeer, command: &str) -> String {
    peer.send(&[open(command), eoi()].concat()).await;
    let name = peer.frame().await.payload;
    peer.end().await;
    String::from_utf8_lossy(&name).into_owned()
}

async fn has(name: &str, line: &str) {
    crate::support::until(line, || journal(name).iter().any(|found| found == line)).await;
}

#[tokio::test]
async fn new_calls_find_new_plugins_and_running_calls_end_as_they_began() {
    let plugins = [living("swap", "a", "old"), living("swap", "same", "same"), living("swap", "off", "off")].concat();
    let server = TestServer::start(&plugins).await;
    let mut running = RawPeer::greet(server.address).await;
    running.send(&open("a.wait")).await;
    assert_eq!(running.frame().await.payload, "waits");
    let mut other = RawPeer::greet(server.address).await;
    assert_eq!(name_of(&mut other, "a.name").await, "old");

    let plugins =
        [living("swap", "a", "new"), living("swap", "same", "same"), living("swap", "added", "added")].concat();
    let changes = server.control.reload(config(&plugins)).expect("good plugins");
    assert_eq!(
        (changes.added, changes.replaced, changes.removed),
        (vec!["added".to_owned()], vec!["a".to_owned()], vec!["off".to_owned()])
    );
    // The same connection, the same opening header.
    assert_eq!(name_of(&mut other, "a.name").await, "new");
    assert_eq!(name_of(&mut other, "added.name").await, "added");
    other.send(&[open("off.name"), eoi()].concat()).await;
    assert_eq!(other.end().await, ("unknown-plugin".to_owned(), false));
    has("swap", "off is told Replaced").await;
    assert!(!journal("swap").contains(&"old is told Replaced".to_owned()), "a call of it runs");

    running.send(&eoi()).await;
    assert_eq!(running.frame().await.payload, "old");
    assert_eq!(running.end().await, (String::new(), false));
    has("swap", "old is told Replaced").await;
    has("swap", "old rests").await;
    assert!(!journal("swap").iter().any(|line| line.starts_with("same is told")));
    drop(other);
    running.send(&open("same.wait")).await;
    assert_eq!(running.frame().await.payload, "waits");
    server.control.drain();
    // What began now would never be told to stop.
    assert!(matches!(server.control.reload(config("[plugins.echo]\n")), Err(ReloadError::Ended)));
    running.send(&eoi()).await;
    assert_eq!(running.frame().await.payload, "same");
    drop(running);
    server.stopped().await;
    for name in ["new", "same", "added"] {
        has("swap", &format!("{name} is told ServerEnds")).await;
        has("swap", &format!("{name} rests")).await;
    }
}

#[tokio::test]
async fn plugins_that_cannot_be_built_leave_everything_as_it_was_and_nothing_begins() {
    let server = TestServer::start(&living("fails", "a", "old")).await;
    let failing = "[plugins.z]\nhandler = \"living\"\nconfig = { journal = \"fails\", name = \"z\", fails = true }\n";
    let plugins = [&living("fails", "a", "new"), failing].concat();
    let error = server.control.reload(config(&plugins)).expect_err("a plugin that fails");
    assert!(matches!(error, ReloadError::Start { plugin, .. } if plugin == "z"));
    let mut peer = RawPeer::greet(server.address).await;
    assert_eq!(name_of(&mut peer, "a.name").await, "old");
    assert_eq!(journal("fails"), ["old works"]);
    let error =
        server.control.reload(config("[plugins.echo]\nlayers = [\"metrics\"]\n")).expect_err("an unknown layer");
    let ReloadError::Start { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.to_string(), "layer \"metrics\" was not configured when the server started");
    let control = server.control.clone();
    drop(peer);
    control.drain();
    server.stopped().await;
    assert!(matches!(control.reload(config("[plugins.echo]\n")), Err(ReloadError::Ended)));
}

#[test]
fn the_program_reads_its_configuration_again_on_sighup_and_keeps_what_it_has_when_that_is_bad() {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec \"$0\" --log info 2>log"]).arg(crate::support::process::plugd());
    let server =
        Plugd::start_by("[plugins.echo]\n[plugins.files]\nhandler = \"file\"\nconfig.root = \"files\"\n", command);
    let says = |part: &str| {
        let log = || std::fs::read_to_string(server.dir.path().join("log")).expect("a log");
        wait_until(part, || log().contains(part));
    };
    let rewrite = |plugins: &str| {
        let text = format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n{plugins}");
        std::fs::write(server.dir.path().join("plugins.toml"), text).expect("a file");
        server.signal(Signal::SIGHUP);
    };
    rewrite("[plugins.upper]\n[plugins.echo]\nenabled = false\n");
    says("added: [\"upper\"], replaced: [], removed: [\"echo\", \"files\"]");
    assert_eq!(server.run(["call", "upper", "--data", "x"]).text(), "X");
    let disabled = server.run(["call", "echo"]);
    assert!(disabled.stderr.contains("plugin \"echo\" is disabled on this server"), "{}", disabled.stderr);
    rewrite("[plugins.upper]\nenabeld = true\n");
    says("plugins.toml:4:1: plugins.upper.enabeld: unknown key");
    rewrite("[plugins.upper]\n[plugins.other]\nhandler = \"file\"\nconfig.root = \"elsewhere\"\n");
    says("\"other\" writes where this process may not since its start");
    assert_eq!(server.run(["call", "upper", "--data", "x"]).text(), "X");
    rewrite("grace = \"1s\"\n[plugins.echo]\n[plugins.upper]\n");
    says("[server] changed; that takes effect when the server starts anew");
    says("added: [\"echo\"], replaced: [], removed: []");
    assert_eq!(server.run(["call", "echo", "--data", "x"]).text(), "x");
}
