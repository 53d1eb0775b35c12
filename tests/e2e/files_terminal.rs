//! Progress on a terminal, and what stays on the screen.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::process::{EVERYTHING, Plugd, wait_until};
use crate::support::proxy::Proxy;
use crate::support::terminal::OnTerminal;

/// Slow enough to be watched: some megabytes a second.
const DELAY: Duration = Duration::from_millis(20);

/// Large enough for a bar of its own, which takes some seconds.
const SIZE: usize = 6_000_000;

/// A server with two large files, one of which has a name that would steer a terminal, and a slow way to it.
fn world() -> (Plugd, Proxy) {
    let server = Plugd::start(EVERYTHING);
    fs::create_dir(server.file("tree")).expect("a directory");
    for name in ["a", "b\u{1b}[31m"] {
        fs::write(server.file("tree").join(name), vec![7; SIZE]).expect("a file");
    }
    let proxy = Proxy::start_slow(&server.address, Vec::new(), DELAY);
    (server, proxy)
}

fn plug(server: &Plugd, proxy: &Proxy, args: &[&str]) -> Command {
    let mut command = server.plug(args);
    command.env("PLUG_SERVER", &proxy.address);
    command
}

fn down(server: &Plugd) -> PathBuf {
    server.dir.path().join("down")
}

#[test]
fn a_bar_for_each_running_file_and_one_for_the_total_come_and_go() {
    let (server, proxy) = world();
    let get = OnTerminal::start(plug(&server, &proxy, &["get", "-r", "tree", "down"]));
    wait_until("the bars", || {
        let written = get.written();
        ["down/a ", "down/b\\u{1b}[31m ", "total ", "MiB/s, ", "s left"].iter().all(|part| written.contains(part))
    });
    assert!(get.written().contains('\r') && !get.written().contains("stalled"), "{}", get.written());
    server.signal(Signal::SIGSTOP);
    wait_until("a word on the silence", || get.written().contains("stalled"));
    server.signal(Signal::SIGCONT);
    let (code, screen) = get.end();
    assert_eq!((code, screen), (Some(0), vec!["got 2 files, 12000000 bytes".to_owned()]));
}

#[test]
fn an_upload_has_a_bar_too() {
    let (server, proxy) = world();
    fs::write(server.dir.path().join("up"), vec![7; SIZE]).expect("a file");
    let put = OnTerminal::start(plug(&server, &proxy, &["put", "up", "f", "--digest", "none"]));
    wait_until("the bar", || put.written().contains("f  ") && put.written().contains("MiB/s, "));
    let (code, screen) = put.end();
    assert_eq!((code, screen), (Some(0), vec!["put f, 6000000 bytes".to_owned()]));
}

#[test]
fn an_interrupt_takes_the_bars_away_and_says_what_is_kept() {
    let (server, proxy) = world();
    let get = OnTerminal::start(plug(&server, &proxy, &["get", "-r", "tree", "down"]));
    wait_until("the bars", || {
        ["down/a ", "down/b", "total "].iter().all(|part| get.written().contains(part))
            && down(&server).join(".a.plug-part.json").exists()
    });
    get.signal(Signal::SIGINT);
    let (code, screen) = get.end();
    assert_eq!(code, Some(130), "{screen:?}");
    assert!(!screen.is_empty() && screen.iter().all(|line| line.starts_with("plug: kept ")), "{screen:?}");
}
