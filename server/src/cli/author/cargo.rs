//! Runs cargo and reads what it says of packages.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use semver::{Version, VersionReq};
use serde::Deserialize;
use tokio::process::Command;

use crate::cli::Failure;

/// What `cargo metadata` says, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) packages: Vec<Package>,
    resolve: Option<Resolve>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Package {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: Version,
    pub(super) manifest_path: PathBuf,
    pub(super) dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) req: VersionReq,
    /// `dev` and `build` are of no concern to who uses the package.
    pub(super) kind: Option<String>,
    pub(super) path: Option<PathBuf>,
}

impl Package {
    /// The name by which code uses its library.
    pub(super) fn library(&self) -> Option<String> {
        let is_library = |target: &&Target| target.kind.iter().any(|kind| kind == "lib" || kind == "rlib");
        self.targets.iter().find(is_library).map(|target| target.name.replace('-', "_"))
    }

    pub(super) fn dir(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }
}

impl Metadata {
    /// Whether the package `from` uses the package `to`, by however many others.
    pub(super) fn reaches(&self, from: &str, to: &str) -> bool {
        let (mut seen, mut open) = (HashSet::new(), vec![from]);
        while let Some(id) = open.pop() {
            if id == to {
                return true;
            }
            if seen.insert(id) {
                open.extend(self.uses(id));
            }
        }
        false
    }

    fn uses(&self, id: &str) -> impl Iterator<Item = &str> {
        let nodes = self.resolve.iter().flat_map(|resolve| &resolve.nodes);
        nodes.filter(move |node| node.id == id).flat_map(|node| &node.dependencies).map(String::as_str)
    }
}

/// The cargo that runs this program, or the one on the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cargo {
    /// Whether it may ask a registry.
    pub(super) offline: bool,
}

impl Cargo {
    /// What cargo knows of the package at `manifest` alone.
    pub(super) async fn package(self, manifest: &Path) -> Result<Metadata, Failure> {
        self.metadata(manifest, &["--no-deps"]).await
    }

    /// What cargo knows of the package at `manifest` and of everything below it; writes its lock file. Packages of other
    /// systems are left out: nobody has fetched them, and so they could not be looked at offline.
    pub(super) async fn graph(self, manifest: &Path) -> Result<Metadata, Failure> {
        self.metadata(manifest, &["--filter-platform", &host().await?]).await
    }

    async fn metadata(self, manifest: &Path, args: &[&str]) -> Result<Metadata, Failure> {
        let mut command = self.command("metadata", manifest);
        command.args(["--format-version", "1"]).args(args);
        serde_json::from_slice(&run(command).await?)
            .map_err(|error| Failure::Refused(format!("cannot read what cargo says of its packages: {error}")))
    }

    /// Builds the program of the package at `manifest`, and gives its path. What cargo says goes to standard error.
    pub(super) async fn build(self, manifest: &Path) -> Result<PathBuf, Failure> {
        #[derive(Deserialize)]
        struct Message {
            executable: Option<PathBuf>,
        }
        let mut command = self.command("build", manifest);
        command.args(["--release", "--message-format", "json-render-diagnostics"]);
        let messages = run(command).await?;
        let messages = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        messages
            .filter_map(|message: Message| message.executable)
            .next_back()
            .ok_or_else(|| Failure::Refused("cargo built no program".to_owned()))
    }

    /// Removes what a package left where cargo keeps its output. That it may fail is of no consequence.
    pub(super) async fn clean(self, manifest: &Path, package: &str) {
        let mut command = self.command("clean", manifest);
        command.args(["--release", "--package", package]).stderr(Stdio::null());
        let _ = run(command).await;
    }

    fn command(self, verb: &str, manifest: &Path) -> Command {
        let mut command = program();
        command.arg(verb).arg("--manifest-path").arg(manifest);
        if self.offline {
            command.arg("--offline");
        }
        command
    }
}

fn program() -> Command {
    let cargo = std::env::var_os("CARGO");
    Command::new(cargo.as_deref().unwrap_or(OsStr::new("cargo")))
}

/// The system that cargo runs on, and builds for.
async fn host() -> Result<String, Failure> {
    let mut command = program();
    command.args(["--version", "--verbose"]);
    let text = String::from_utf8_lossy(&run(command).await?).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::Refused("cargo does not say what system it runs on".to_owned()))
}

/// Runs cargo to its end, and gives what it wrote to standard output. Standard error is the user's.
async fn run(mut command: Command) -> Result<Vec<u8>, Failure> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().map_err(|error| {
        let text = format!("cannot run cargo: {error}; it comes with the Rust toolchain: https://rustup.rs");
        Failure::Refused(text)
    })?;
    let Output { status, stdout, .. } = child.wait_with_output().await.map_err(cannot_follow)?;
    match status.success() {
        true => Ok(stdout),
        false => Err(Failure::Refused("cargo failed; what it said stands above".to_owned())),
    }
}

fn cannot_follow(error: io::Error) -> Failure {
    Failure::Refused(format!("cannot follow cargo: {error}"))
}
