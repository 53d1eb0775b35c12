//! The programs themselves, as processes.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::PATIENCE;

/// The plugins of a server that has everything on.
pub(crate) const EVERYTHING: &str = "\
[plugins.echo]

[plugins.upper]

[plugins.files]
handler = \"file\"
config = { root = \"files\", writable = true }

[plugins.shell]
access.allow = [\"net:127.0.0.0/8\"]
config = { allow_any_command = true }
";

/// Where a program is: beside these tests, or in `$PLUGD_BIN_DIR`, so that a release build can be put through them.
fn program(name: &str, built: &str) -> PathBuf {
    match std::env::var_os("PLUGD_BIN_DIR") {
        Some(dir) => Path::new(&dir).join(name),
        None => built.into(),
    }
}

/// The server's program.
pub(crate) fn plugd() -> PathBuf {
    program("plugd", env!("CARGO_BIN_EXE_plugd-under-test"))
}

/// The client's program.
pub(crate) fn plug() -> PathBuf {
    program("plug", env!("CARGO_BIN_EXE_plug-under-test"))
}

fn with_args(program: PathBuf, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// A running server with a directory of its own, ended with the test.
pub(crate) struct Plugd {
    pub(crate) dir: TempDir,
    pub(crate) address: String,
    child: Child,
}

/// Where a server says that it listens, as soon as it does.
fn addresses(server: &mut Child, listeners: usize) -> Vec<String> {
    let lines = BufReader::new(server.stdout.as_mut().expect("a pipe")).lines().take(listeners);
    let address = |line: String| line.strip_prefix("plugd listening on ").expect("an address").to_owned();
    let addresses: Vec<String> = lines.map(|line| address(line.expect("a line of text"))).collect();
    assert_eq!(addresses.len(), listeners, "the server did not start");
    addresses
}

impl Plugd {
    /// Serves `plugins` on a free port.
    pub(crate) fn start(plugins: &str) -> Plugd {
        Plugd::start_by(plugins, with_args(plugd(), &["--log", "warn"]))
    }

    /// Serves `plugins` on a free port, with more settings of the server itself.
    pub(crate) fn start_with(settings: &str, plugins: &str) -> Plugd {
        Plugd::start(&format!("{settings}\n{plugins}"))
    }

    /// Serves `plugins` on a free port, and keeps its log as JSON for [`Plugd::log`].
    pub(crate) fn start_logged(plugins: &str) -> Plugd {
        Plugd::start_logged_by("info", plugins)
    }

    /// The same, with another filter of the log.
    pub(crate) fn start_logged_by(filter: &str, plugins: &str) -> Plugd {
        let mut command = with_args(plugd(), &["--log", filter, "--log-format", "json"]);
        command.stderr(Stdio::piped());
        Plugd::start_by(plugins, command)
    }

    /// Tells the server to stop, waits until it has, and returns the events that it logged.
    pub(crate) fn log(mut self) -> Vec<serde_json::Value> {
        self.signal(Signal::SIGTERM);
        let mut log = String::new();
        let stderr = self.child.stderr.as_mut().expect("a log that is kept");
        std::io::Read::read_to_string(stderr, &mut log).expect("text");
        assert!(self.child.wait().expect("a child").success(), "{log}");
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// Serves `plugins` by a command that ends with the server's program, or becomes it.
    pub(crate) fn start_by(plugins: &str, mut command: Command) -> Plugd {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let text = format!("[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n{plugins}");
        std::fs::write(dir.path().join("plugins.toml"), text).expect("a file");
        command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the server's program");
        let address = addresses(&mut child, 1).remove(0);
        Plugd { dir, address, child }
    }

    /// Serves what the plugins.toml in `dir` says, and keeps the log as [`Plugd::start_logged`] does; returns all of its
    /// `listeners` addresses.
    pub(crate) fn start_in(dir: PathBuf, listeners: usize) -> (Plugd, Vec<String>) {
        let mut command = with_args(plugd(), &["--log", "info", "--log-format", "json", "--config", "plugins.toml"]);
        command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the server's program");
        let addresses = addresses(&mut child, listeners);
        // A directory of its own, as every server has; this one has nothing in it.
        let own = tempfile::tempdir().expect("a temporary directory");
        (Plugd { dir: own, address: addresses[0].clone(), child }, addresses)
    }

    /// Starts the server anew at the address that it had.
    pub(crate) fn restart(&mut self, plugins: &str) {
        self.kill();
        let text = format!("[server]\nlisten = [\"{}\"]\n{plugins}", self.address);
        std::fs::write(self.dir.path().join("plugins.toml"), text).expect("a file");
        let mut command = with_args(plugd(), &["--log", "warn"]);
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        self.child = command.spawn().expect("the server's program");
        assert_eq!(addresses(&mut self.child, 1), [&*self.address]);
    }

    /// The file of this name that the plugin `files` serves.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }

    /// How many sockets the server has open.
    pub(crate) fn sockets(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("a server");
        let is_socket =
            |path: PathBuf| std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        files.flatten().filter(|file| is_socket(file.path())).count()
    }

    /// Sends a signal to the server.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).expect("a running server");
    }

    /// Waits until the server has ended.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("a child")
    }

    /// The id of the server's process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The client, told to call this server from an empty standard input.
    pub(crate) fn plug(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(plug());
        command.env("PLUG_SERVER", &self.address).args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs the client to its end.
    pub(crate) fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        self.plug(args).output().expect("the client's program").into()
    }

    /// Kills the server where it stands.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("a running server");
        self.child.wait().expect("a child");
    }
}

impl Drop for Plugd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that `plug exec` runs on a server, and that is known to run.
pub(crate) struct Remote {
    /// The client.
    pub(crate) client: Child,
    /// What the command's process is in `/proc`, as long as it is.
    process: PathBuf,
}

impl Remote {
    /// Runs a script that says its process id first.
    pub(crate) fn start(server: &Plugd, script: &str) -> Remote {
        let mut call = server.plug(["exec", "--", "sh", "-c", &format!("echo $$; {script}")]);
        let mut client = call.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("plug runs");
        let mut id = String::new();
        BufReader::new(client.stdout.as_mut().expect("a pipe")).read_line(&mut id).expect("a line of text");
        Remote { client, process: format!("/proc/{}/exe", id.trim()).into() }
    }

    /// Sends a signal to the client.
    pub(crate) fn signal_client(&self, signal: Signal) {
        kill(Pid::from_raw(self.client.id() as i32), signal).expect("a running client");
    }

    /// Whether the command's process is still there.
    pub(crate) fn runs(&self) -> bool {
        self.process.exists()
    }

    /// Waits for the end of the command, and then of the client; returns the client's exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        wait_until("end of the command", || !self.runs());
        self.client.wait().expect("a child").code()
    }
}

/// How a program ended, and what it said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Outcome {
        let stderr = String::from_utf8(output.stderr).expect("text on standard error");
        Outcome { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

impl Outcome {
    /// What it printed, as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text on standard output")
    }

    /// What it printed, as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a command to its end with `input` on its standard input.
pub(crate) fn feed(mut command: Command, input: &[u8]) -> Outcome {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        // A command that ends before its input is no failure of the test.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().expect("a child").into()
    })
}

/// Waits until `holds` does.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
