//! Follows docs/writing-a-handler.md as somebody does who has nothing but that page, `plugd`, `plug` and the Rust toolchain: its
//! files are written, its commands typed into one shell, and what it shows has to come.
//!
//! It builds two programs, offline, and takes minutes: `cargo test -p plugd-tests --test author -- --ignored --nocapture`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const GUIDE: &str = include_str!("../../docs/writing-a-handler.md");

/// How long one command may take: a release build of everything, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the page has its reader do.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    /// Write a file of the crate.
    File(&'a str, &'a str),
    /// Add lines below `[dependencies]`.
    Dependencies(&'a str),
    /// Write plugins.toml.
    Config(&'a str),
    /// Type this, and see those lines.
    Command(&'a str, Vec<&'a str>),
}

fn steps(page: &str) -> Vec<Step<'_>> {
    let mut steps = Vec::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("\n```") {
        let (kind, after) = after.split_once('\n').expect("a block has a first line");
        let (block, after) = after.split_once("```\n").expect("a block has an end");
        rest = after;
        let paragraph = before.rsplit("\n\n").next().unwrap_or_default().trim_start();
        match kind {
            "console" => steps.extend(commands(block)),
            "toml" if paragraph.starts_with("In `Cargo.toml`") => steps.push(Step::Dependencies(block)),
            "toml" if block.starts_with("[server]") => steps.push(Step::Config(block)),
            _ => {
                if let Some((path, _)) = paragraph.strip_prefix("The whole of `").and_then(|text| text.split_once('`'))
                {
                    steps.push(Step::File(path, block));
                }
            }
        }
    }
    steps
}

fn commands(block: &str) -> impl Iterator<Item = Step<'_>> {
    let commands = block.strip_prefix("$ ").expect("a block of commands begins with one").split("\n$ ");
    commands.map(|text| {
        let mut lines = text.lines();
        Step::Command(lines.next().unwrap_or_default(), lines.filter(|line| !line.is_empty()).collect())
    })
}

/// One shell, with everything that it and its children say.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
}

impl Shell {
    fn start(dir: &Path, programs: &Path) -> Shell {
        let path = std::env::var("PATH").expect("a path");
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]).current_dir(dir);
        command.env("PATH", format!("{}:{path}", programs.display())).env("CARGO_NET_OFFLINE", "true");
        command.env("XDG_CACHE_HOME", dir.join("cache"));
        // Those of this crate, which cargo gives to tests, are not the reader's, and other ones make some crates compile anew.
        let is_ours = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_ours)) {
            command.env_remove(name);
        }
        // What both builds share is compiled once.
        command.env("CARGO_TARGET_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory"));
        command.env_remove("PLUGD_CONFIG").env_remove("PLUG_SERVER").env("CARGO_TERM_COLOR", "never");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash");
        let (says, output) = channel();
        let stdout = child.stdout.take().expect("a pipe");
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).all(|line| says.send(line).is_ok())
        });
        let mut shell = Shell { input: child.stdin.take().expect("a pipe"), child, output };
        shell.types("exec 2>&1");
        shell
    }

    fn types(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("a shell that runs");
    }

    /// Everything up to a line that `is_last`, which is the end of what is returned.
    fn until(&self, what: &str, is_last: impl Fn(&str) -> bool) -> Vec<String> {
        let mut lines = Vec::new();
        let due = Instant::now() + PATIENCE;
        loop {
            match self.output.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("{what} takes more than {PATIENCE:?}: {lines:#?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("{what} ended the shell: {lines:#?}"),
            }
            if lines.last().is_some_and(|line| is_last(line)) {
                return lines;
            }
        }
    }

    /// Runs a command to its end, and returns what it said and its exit code.
    fn run(&mut self, command: &str) -> (Vec<String>, String) {
        self.types(command);
        self.types("echo \"[ended $?]\"");
        let mut lines = self.until(command, |line| line.starts_with("[ended "));
        let ended = lines.pop().unwrap_or_default();
        (lines, ended)
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // The server in the background is the shell's, and ends with it.
        let _ = writeln!(self.input, "kill $(jobs -p); exit");
        let _ = self.child.wait();
    }
}

fn programs(dir: &Path) -> PathBuf {
    let place = dir.join("programs");
    std::fs::create_dir(&place).expect("a directory");
    let built = [("plugd", env!("CARGO_BIN_EXE_plugd-under-test")), ("plug", env!("CARGO_BIN_EXE_plug-under-test"))];
    for (name, built) in built {
        let program = std::env::var_os("PLUGD_BIN_DIR").map_or(PathBuf::from(built), |dir| Path::new(&dir).join(name));
        symlink(program, place.join(name)).expect("a link");
    }
    place
}

#[test]
#[ignore = "builds two programs, which takes minutes; .ci/run does it"]
fn the_guide_leads_from_an_empty_folder_to_a_server_with_a_handler_of_ones_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut shell = Shell::start(dir.path(), &programs(dir.path()));
    let crate_dir = dir.path().join("lines");
    let begun = Instant::now();
    let mut is_changing = false;
    for step in steps(GUIDE) {
        println!(
            "{:6.1} s: {}",
            begun.elapsed().as_secs_f64(),
            format!("{step:?}").chars().take(100).collect::<String>()
        );
        match step {
            Step::File(path, text) => std::fs::write(crate_dir.join(path), text).expect(path),
            Step::Dependencies(lines) => {
                let path = crate_dir.join("Cargo.toml");
                let manifest = std::fs::read_to_string(&path).expect("a manifest");
                let with = manifest.replacen("\n[dependencies]\n", &format!("\n[dependencies]\n{lines}"), 1);
                assert_ne!(with, manifest);
                std::fs::write(path, with).expect("a manifest");
            }
            Step::Config(text) => {
                let text = text.replace("127.0.0.1:7584", "127.0.0.1:0");
                std::fs::write(crate_dir.join("plugins.toml"), text).expect("a configuration");
            }
            Step::Command(command, _) if command.ends_with('&') => {
                shell.types(command);
                let lines = shell.until(command, |line| line.starts_with("plugd listening on "));
                let address =
                    lines.last().and_then(|line| line.strip_prefix("plugd listening on ")).expect("an address");
                shell.types(&format!("export PLUG_SERVER={address}"));
            }
            Step::Command(command, expected) => {
                let due = Instant::now() + PATIENCE;
                loop {
                    let (lines, ended) = shell.run(command);
                    let missing = expected.iter().find(|expected| !lines.iter().any(|line| line == **expected));
                    // A signal is heeded soon, not at once.
                    if missing.is_some() && is_changing && Instant::now() < due {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                    assert!(missing.is_none(), "{command}: no line {missing:?} in {lines:#?}");
                    assert!(!expected.is_empty() || ended == "[ended 0]", "{command}: {ended} {lines:#?}");
                    break;
                }
                is_changing = command.starts_with("kill ");
            }
        }
    }
    println!("{:6.1} s from new-handler to the end of the page", begun.elapsed().as_secs_f64());
}

#[test]
fn the_page_has_the_steps_that_it_promises() {
    let steps = steps(GUIDE);
    let files: Vec<&str> =
        steps.iter().filter_map(|step| if let Step::File(path, _) = step { Some(*path) } else { None }).collect();
    assert_eq!(files, ["src/lib.rs", "tests/lines.rs"]);
    let commands: Vec<&str> =
        steps.iter().filter_map(|step| if let Step::Command(line, _) = step { Some(*line) } else { None }).collect();
    for part in
        ["plugd new-handler lines", "cargo test", "plugd build --with", "--help", "--txt", "kill -HUP", "plug call"]
    {
        assert!(commands.iter().any(|command| command.contains(part)), "{part} in {commands:?}");
    }
    assert!(steps.iter().any(|step| matches!(step, Step::Dependencies(_))));
    assert_eq!(steps.iter().filter(|step| matches!(step, Step::Config(_))).count(), 2);
}
