//! `plug completion`: real shells, which complete from a live server.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plugd_core::Status;
use serde_json::json;

use crate::support::fake::Fake;
use crate::support::process::{EVERYTHING, Outcome, Plugd, plug};
use crate::support::teletype::Terminal;

/// A place where the client is called `plug`, with a cache of its own.
struct Home {
    dir: tempfile::TempDir,
    server: String,
}

impl Home {
    fn new(server: &str) -> Home {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("bin")).expect("a directory");
        symlink(plug(), dir.path().join("bin/plug")).expect("a link");
        Home { dir, server: server.to_owned() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, program: &str) -> Command {
        let bins = std::env::var("PATH").expect("a path");
        let mut command = Command::new(program);
        command.env("PATH", format!("{}:{bins}", self.path().join("bin").display()));
        command.env("HOME", self.path()).env("XDG_CACHE_HOME", self.path().join("cache"));
        command.env("PLUG_SERVER", &self.server).current_dir(self.path()).stdin(std::process::Stdio::null());
        command
    }

    /// What the client offers for the words of a line, the last of which is typed.
    fn candidates(&self, words: &[&str]) -> Vec<String> {
        let mut plug = self.command("plug");
        let outcome =
            Outcome::from(plug.env("PLUG_COMPLETE", "fish").arg("--").args(words).output().expect("plug runs"));
        assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""));
        outcome.text().lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    /// What bash offers at the end of a line, by the function that the script defines.
    fn bash(&self, line: &str, word: &str) -> Vec<String> {
        let script = format!(
            "set -eu; eval \"$(plug completion bash)\"; complete -p plug >&2; \
             COMP_LINE={line:?}; COMP_POINT=${{#COMP_LINE}}; _plug plug {word:?} ''; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let outcome = Outcome::from(self.command("bash").args(["-c", &script]).output().expect("bash runs"));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stderr.contains("-F _plug plug"), "{outcome:?}");
        outcome.text().lines().map(str::to_owned).collect()
    }
}

#[test]
fn bash_completes_verbs_commands_flags_and_values() {
    let server = Plugd::start(EVERYTHING);
    let home = Home::new(&server.address);
    assert_eq!(home.bash("plug comp", "comp"), ["completion"]);
    assert_eq!(home.bash("plug call up", "up"), ["upper"]);
    assert_eq!(home.bash("plug call files.st", "files.st"), ["files.stat"]);
    assert_eq!(home.bash("plug describe up", "up"), ["upper"]);
    assert_eq!(home.bash("plug bench ec", "ec"), ["echo"]);
    assert_eq!(home.bash("plug call files.ls --rec", "--rec"), ["--record", "--recursive"]);
    assert_eq!(home.bash("plug call files.ls --sort=na", "na"), ["name"]);
    assert_eq!(home.bash("plug call files.ls --recursive --sort na", "na"), ["name"]);
    let all = home.bash("plug call ", "");
    for command in ["echo", "files.get", "shell.exec", "upper"] {
        assert!(all.iter().any(|candidate| candidate == command), "{command} in {all:?}");
    }
    assert!(!all.iter().any(|candidate| candidate.starts_with('-')), "{all:?}");
}

#[test]
fn the_key_works_in_a_bash_at_a_terminal() {
    let server = Plugd::start(EVERYTHING);
    // The server is on the line, with the colons at which bash takes words apart.
    let home = Home::new("tcp://127.0.0.1:1");
    let mut terminal = Terminal::start(home.command("bash").args(["--noprofile", "--norc", "-i"]));
    terminal.types("PS1='re''ady '; eval \"$(plug completion bash)\"\n");
    terminal.shows("ready ");
    terminal.types(&format!("plug -s {} call upp\t --data h\"i t\"here; exit\n", server.address));
    terminal.shows("HI THERE");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn the_server_on_the_line_is_the_one_that_is_asked() {
    let server = Plugd::start(EVERYTHING);
    let home = Home::new("tcp://127.0.0.1:1");
    let line = format!("plug -s {} call files.ls --recu", server.address);
    assert_eq!(home.bash(&line, "--recu"), ["--recursive"]);
    assert_eq!(home.candidates(&["plug", "call", "--server", &server.address, "up"]), ["upper"]);
}

#[test]
fn a_server_that_does_not_answer_holds_no_shell_up_and_what_it_said_is_remembered() {
    let mut server = Plugd::start(EVERYTHING);
    let home = Home::new(&server.address);
    assert_eq!(home.candidates(&["plug", "call", "files.ls", "--recurs"]), ["--recursive"]);
    server.kill();
    assert_eq!(home.candidates(&["plug", "call", "files.ls", "--recurs"]), ["--recursive"]);
    assert_eq!(home.candidates(&["plug", "call", "upp"]), ["upper"]);

    let silent = Fake::silent(|_, peer| peer.ignore());
    let home = Home::new(&silent.address);
    let start = Instant::now();
    assert_eq!(home.candidates(&["plug", "call", "upp"]), Vec::<String>::new());
    // Half a second, and much more for a machine that is busy; the client would wait for ever.
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!((silent.accepted(), home.candidates(&["plug", "pin"])), (1, vec!["ping".to_owned()]));
    assert_eq!(silent.accepted(), 1, "verbs are no question to a server");
}

#[test]
fn a_description_is_asked_for_once_for_each_hash() {
    let described = Arc::new(AtomicUsize::new(0));
    let version = Arc::new(AtomicUsize::new(1));
    let server = Fake::polite({
        let (described, version) = (described.clone(), version.clone());
        move |_, mut peer| loop {
            let (_, open) = peer.frame()?;
            peer.call()?;
            let version = version.load(Ordering::SeqCst);
            let is_list = String::from_utf8_lossy(&open).contains("plugd.list");
            let operation =
                json!({"name": "go", "args": {"properties": {format!("speed{version}"): {"type": "integer"}}}});
            let answer = match is_list {
                true => {
                    json!({"hash": version.to_string(), "plugins": [{"name": "car", "operations": [{"name": "go"}]}]})
                }
                false => json!({"name": "car", "operations": [operation], "hash": version.to_string()}),
            };
            described.fetch_add(usize::from(!is_list), Ordering::SeqCst);
            peer.data(answer.to_string().as_bytes())?;
            peer.end(Status::ok())?;
        }
    });
    let home = Home::new(&server.address);
    for (now, flag, asked) in [(1, "--speed1", 1), (1, "--speed1", 1), (2, "--speed2", 2), (2, "--speed2", 2)] {
        version.store(now, Ordering::SeqCst);
        assert_eq!(home.candidates(&["plug", "call", "car.go", "--spee"]), [flag]);
        assert_eq!(described.load(Ordering::SeqCst), asked);
    }
}

#[test]
fn names_that_a_shell_would_run_are_never_offered() {
    let server = Fake::polite(|_, mut peer| {
        loop {
            peer.call()?;
            let names = ["ok", "$(touch x)", "`id`", "a b", "a;b", "\u{1b}[31m"].map(|name| json!({"name": name}));
            let plugins = names.map(|name| json!({"name": name["name"], "operations": [{"name": "go"}]}));
            peer.data(json!({"hash": "1", "plugins": plugins}).to_string().as_bytes())?;
            peer.end(Status::ok())?;
        }
    });
    let home = Home::new(&server.address);
    assert_eq!(home.candidates(&["plug", "call", ""]), ["ok"]);
    assert_eq!(home.bash("plug call ", ""), ["ok"]);
}

/// Whether a shell is there to be tested; where `$PLUGD_ALL_SHELLS` is set, as `.ci/run` does, it must be.
fn has(shell: &str) -> bool {
    let is_there = Command::new(shell).args(["-c", "true"]).status().is_ok_and(|status| status.success());
    let is_needed = std::env::var_os("PLUGD_ALL_SHELLS").is_some();
    assert!(is_there || !is_needed, "{shell} is missing; install it: apt-get install {shell}");
    if !is_there {
        eprintln!("NOT RUN: {shell} is not installed; apt-get install {shell}");
    }
    is_there
}

#[test]
fn fish_completes_commands_flags_and_values() {
    if !has("fish") {
        return;
    }
    let server = Plugd::start(EVERYTHING);
    let home = Home::new(&server.address);
    for (line, expected) in [
        ("plug call upp", "upper\t"),
        ("plug call files.ls --recurs", "--recursive\t"),
        ("plug call files.ls --sort na", "name\t"),
    ] {
        let script = format!("plug completion fish | source; complete -C {line:?}");
        let outcome =
            Outcome::from(home.command("fish").args(["--no-config", "-c", &script]).output().expect("fish runs"));
        assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""), "{outcome:?}");
        let lines: Vec<&str> = outcome.text().lines().collect();
        assert!(lines.len() == 1 && format!("{}\t", lines[0]).starts_with(expected), "{line}: {lines:?}");
    }
}

#[test]
fn the_key_works_in_a_zsh_at_a_terminal() {
    if !has("zsh") {
        return;
    }
    let server = Plugd::start(EVERYTHING);
    let home = Home::new(&server.address);
    let mut terminal = Terminal::start(home.command("zsh").args(["-f", "-i"]));
    terminal.types("PS1='re''ady '; autoload -U compinit; compinit -u -D; source <(plug completion zsh)\n");
    terminal.shows("ready ");
    terminal.types("plug call upp\t--data 'hi there'; plug call files.ls --recurs\t--json; exit\n");
    terminal.shows("HI THERE");
    terminal.shows("{\"ok\":true");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn an_unknown_shell_is_refused_by_naming_the_known_ones() {
    let home = Home::new("tcp://127.0.0.1:1");
    let outcome = Outcome::from(home.command("plug").args(["completion", "tcsh"]).output().expect("plug runs"));
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("[possible values: bash, zsh, fish]"), "{}", outcome.stderr);
}
