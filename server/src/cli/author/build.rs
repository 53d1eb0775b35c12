//! `plugd build`: a server with the handlers of others, of the same core and the same lock file as this one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use plugd_core::did_you_mean;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::Command;

use super::cargo::Cargo;
use super::crates::{Linked, Wanted, check_graph};
use super::source::{Source, SourceArgs};
use crate::cli::{Failure, print};
use crate::handlers::SHIPPED;

/// Builds a server with the handlers of others, or without some of ours.
///
/// A small crate is made in a temporary directory, with the core, the lock file and the release settings that this program
/// was built with, and is removed in the end. Cargo keeps what it has built only where CARGO_TARGET_DIR says so, which makes
/// the next build faster.
#[derive(Debug, Args)]
pub(in crate::cli) struct Build {
    /// A crate with handlers: its path, such as ./my-handler, or NAME@VERSION of a registry; may be given several times
    #[arg(long, value_name = "CRATE")]
    with: Vec<String>,
    /// A handler of ours to leave out; may be given several times
    #[arg(long, value_name = "HANDLER")]
    without: Vec<String>,
    /// Where to write the server; a file that is there is replaced once the new one is good
    #[arg(short, long, value_name = "FILE", default_value = "plugd")]
    output: PathBuf,
    /// Ask no registry; what is not on this machine is an error
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    source: SourceArgs,
}

/// Builds the server, or says why it cannot be; then nothing is left behind.
pub(in crate::cli) fn build(wanted: &Build) -> Result<(), Failure> {
    let shipped = chosen(&wanted.without)?;
    check_output(&wanted.output)?;
    let source = wanted.source.find()?;
    let crates = wanted.with.iter().map(|text| Wanted::parse(text)).collect::<Result<Vec<_>, _>>()?;
    if shipped.is_empty() && crates.is_empty() {
        return Err(Failure::Refused("a server without any handler; add one with --with CRATE".to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let work = Work { source, cargo: Cargo { offline: wanted.offline }, shipped };
    // Whatever ends this, dropping it ends cargo and removes the directory.
    let handlers = runtime.block_on(async {
        tokio::select! {
            done = work.run(crates, &wanted.output) => done,
            stopped = stopped() => Err(stopped),
        }
    })?;
    let mut text = format!("built {} with\n", wanted.output.display());
    for Handler { handler, package, version, summary } in handlers {
        text += &format!("  {handler:<12}{:<22}{summary}\n", format!("{package} {version}"));
    }
    print(&text)
}

/// The handlers of ours that are left.
fn chosen(without: &[String]) -> Result<Vec<&'static str>, Failure> {
    if let Some(unknown) = without.iter().find(|name| !SHIPPED.contains(&name.as_str())) {
        let (hint, known) = (did_you_mean(unknown, SHIPPED.iter().copied()), SHIPPED.join(", "));
        return Err(Failure::Refused(format!("no handler {unknown:?} to leave out{hint}; allowed: {known}")));
    }
    Ok(SHIPPED.iter().copied().filter(|name| without.iter().all(|left_out| left_out != name)).collect())
}

/// Refuses what could not be written in the end, before minutes of work.
fn check_output(output: &Path) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::Refused(format!("-o {}: {why}", output.display())));
    match output.parent() {
        _ if output.is_dir() => refuse("is a directory; name a file"),
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => refuse("its directory does not exist"),
        _ => Ok(()),
    }
}

/// Resolves when the user has had enough.
async fn stopped() -> Failure {
    #[cfg(unix)]
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminated = std::future::pending::<Option<()>>();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
    Failure::Refused("interrupted; nothing was built".to_owned())
}

/// A handler that is linked into the new server, as it says itself.
#[derive(Debug, Deserialize)]
struct Handler {
    handler: String,
    package: String,
    version: String,
    summary: String,
}

/// What a build goes by.
struct Work {
    source: Source,
    cargo: Cargo,
    shipped: Vec<&'static str>,
}

impl Work {
    async fn run(&self, crates: Vec<Wanted>, output: &Path) -> Result<Vec<Handler>, Failure> {
        let mut linked: Vec<Linked> = Vec::new();
        for wanted in crates {
            let found = Linked::find(wanted, &self.source, self.cargo).await?;
            if linked.iter().any(|known| known.name == found.name) {
                return Err(Failure::Refused(format!("the crate {} is named twice", found.name)));
            }
            linked.push(found);
        }
        let dir = tempfile::Builder::new().prefix("plugd-build-").tempdir().map_err(cannot_write)?;
        let project = Project::make(dir, self, &linked).map_err(cannot_write)?;
        let graph = self.cargo.graph(&project.manifest()).await?;
        let libraries = check_graph(&graph, &linked, &self.source)?;
        project.write_main(&libraries).map_err(cannot_write)?;
        let program = self.cargo.build(&project.manifest()).await;
        let finished = match &program {
            Ok(program) => self.finish(program, &project, &linked, output).await,
            Err(_) => Ok(Vec::new()),
        };
        // Where cargo keeps its output for the next time, nothing of this crate shall stay.
        if program.as_ref().map_or(true, |program| !program.starts_with(project.dir.path())) {
            self.cargo.clean(&project.manifest(), &project.name).await;
        }
        program.and(finished)
    }

    /// Asks the new server for its handlers, and puts it where it was asked for when they are as they should be.
    async fn finish(
        &self,
        program: &Path,
        project: &Project,
        linked: &[Linked],
        output: &Path,
    ) -> Result<Vec<Handler>, Failure> {
        let handlers = handlers_of(program, project.dir.path()).await?;
        let is_silent = |linked: &&Linked| handlers.iter().all(|handler| handler.package != linked.name);
        if let Some(silent) = linked.iter().find(is_silent) {
            let text = format!("{} registers no handler; it does so with plugd_core::register!(..)", silent.name);
            return Err(Failure::Refused(text));
        }
        publish(program, output)
            .map_err(|error| Failure::Refused(format!("cannot write {}: {error}", output.display())))?;
        Ok(handlers)
    }
}

/// The crate of the new server.
struct Project {
    dir: TempDir,
    name: String,
}

impl Project {
    fn make(dir: TempDir, work: &Work, linked: &[Linked]) -> io::Result<Project> {
        // Builds that share a directory for cargo's output must not take each other's program.
        let project = Project { dir, name: format!("plugd-built-{}", std::process::id()) };
        fs::create_dir(project.dir.path().join("src"))?;
        fs::write(project.manifest(), project.manifest_text(work, linked))?;
        fs::copy(work.source.lock(), project.dir.path().join("Cargo.lock"))?;
        project.write_main(&[])?;
        Ok(project)
    }

    fn manifest(&self) -> PathBuf {
        self.dir.path().join("Cargo.toml")
    }

    fn manifest_text(&self, work: &Work, linked: &[Linked]) -> String {
        let table = |entries: Vec<(&str, toml::Value)>| {
            toml::Table::from_iter(entries.into_iter().map(|(key, value)| (key.to_owned(), value)))
        };
        let path = |name: &str| toml::Value::from(work.source.package(name).display().to_string());
        let features = work.shipped.iter().copied().map(toml::Value::from).collect::<Vec<_>>();
        let server =
            table(vec![("path", path("server")), ("default-features", false.into()), ("features", features.into())]);
        let mut dependencies = table(vec![("plugd-server", server.into())]);
        dependencies.extend(linked.iter().map(|linked| (linked.name.clone(), linked.requirement.clone())));
        let package = table(vec![
            ("name", self.name.as_str().into()),
            ("version", "0.0.0".into()),
            ("edition", "2024".into()),
            ("publish", false.into()),
        ]);
        let mut manifest = table(vec![
            ("package", package.into()),
            ("dependencies", dependencies.into()),
            // It is no member of a workspace that its directory may lie in.
            ("workspace", toml::Table::new().into()),
        ]);
        if linked.iter().any(|linked| linked.is_foreign) {
            let core = table(vec![("path", path("core"))]);
            let registry = table(vec![("plugd-core", core.into())]);
            manifest.insert("patch".to_owned(), table(vec![("crates-io", registry.into())]).into());
        }
        format!("{manifest}\n{}", work.source.profiles())
    }

    fn write_main(&self, libraries: &[String]) -> io::Result<()> {
        let uses: String = libraries.iter().map(|library| format!("use {library} as _;\n")).collect();
        let main = "fn main() -> std::process::ExitCode {\n    plugd_server::main()\n}\n";
        fs::write(self.dir.path().join("src/main.rs"), format!("{uses}\n{main}"))
    }
}

async fn handlers_of(program: &Path, empty_dir: &Path) -> Result<Vec<Handler>, Failure> {
    #[derive(Deserialize)]
    struct List {
        handlers: Vec<Handler>,
    }
    let failed = |error: String| Failure::Refused(format!("the new server does not work: {error}"));
    let mut command = Command::new(program);
    command.args(["list", "--json"]).current_dir(empty_dir).env_remove("PLUGD_CONFIG").kill_on_drop(true);
    let output = command.output().await.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()));
    }
    let list: List = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    Ok(list.handlers)
}

/// Puts the program in its place in one step, so that a server that runs from there goes on as it is.
fn publish(program: &Path, output: &Path) -> io::Result<()> {
    let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let new = tempfile::Builder::new().prefix(".plugd-").tempfile_in(dir)?;
    fs::copy(program, new.path())?;
    new.persist(output)?;
    Ok(())
}

fn cannot_write(error: io::Error) -> Failure {
    Failure::Refused(format!("cannot write the crate to build: {error}"))
}
