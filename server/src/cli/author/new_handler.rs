//! `plugd new-handler`: a crate with a handler that works.

use std::fs;
use std::io;
use std::path::{Path, PathBuf, absolute};

use clap::Args;
use plugd_core::{NAME_LEN_MAX, Registry, is_legal_name};

use super::source::{Source, SourceArgs, VERSION};
use super::workspace::Workspace;
use crate::cli::{Failure, print};
use crate::config::RESERVED;

/// Makes a crate with a handler of your own, which builds and passes its tests.
///
/// Within plugd's own workspace the crate becomes a member of it and a feature of the server. Elsewhere it stands for itself,
/// with a small crate beside it that is a server with the handler: `cargo run` there serves it.
#[derive(Debug, Args)]
pub(in crate::cli) struct NewHandler {
    /// The handler's name: lower-case letters, digits, `_` and `-`
    name: String,
    /// The folder to make; without it handlers/NAME within plugd's own workspace, and NAME elsewhere
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    #[command(flatten)]
    source: SourceArgs,
}

/// What other crates of plugd's are called behind their `plugd-`.
const TAKEN: [&str; 4] = ["client", "core", "server", "tests"];

/// Names of the prelude, and others that the code of a handler needs for itself.
const CLASHING: [&str; 24] = [
    "Box",
    "Bytes",
    "Call",
    "Code",
    "Context",
    "Data",
    "Default",
    "Descriptor",
    "Err",
    "Handler",
    "NoArguments",
    "None",
    "Ok",
    "Operation",
    "Option",
    "Result",
    "Self",
    "SettingError",
    "Settings",
    "Some",
    "StartError",
    "Status",
    "Streaming",
    "Vec",
];

/// The files of a crate: where they stand, and their text before names are put in.
const EVERYWHERE: [(&str, &str); 3] = [
    ("src/lib.rs", include_str!("template/lib.rs.txt")),
    ("tests/@NAME@.rs", include_str!("template/test.rs.txt")),
    ("README.md", include_str!("template/README.md.txt")),
];
const MEMBER: [(&str, &str); 1] = [("Cargo.toml", include_str!("template/member.toml.txt"))];
const STANDALONE: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("template/standalone.toml.txt")),
    ("server/Cargo.toml", include_str!("template/server.toml.txt")),
    ("server/src/main.rs", include_str!("template/main.rs.txt")),
    ("plugins.toml", include_str!("template/plugins.toml.txt")),
    (".gitignore", include_str!("template/gitignore.txt")),
];

/// Makes the crate, or says why not; then nothing has changed.
pub(in crate::cli) fn new_handler(wanted: &NewHandler, registry: &Registry) -> Result<(), Failure> {
    let name = wanted.name.as_str();
    check_name(name, registry)?;
    let here = std::env::current_dir().map_err(|error| Failure::Refused(format!("no present directory: {error}")))?;
    let dir = match &wanted.path {
        Some(path) => absolute(path).map_err(|error| cannot_make(path, &error))?,
        None => match Workspace::around(&here) {
            Some(workspace) => workspace.dir().join("handlers").join(name),
            None => here.join(name),
        },
    };
    let parent = dir.parent().unwrap_or(&dir);
    if fs::symlink_metadata(&dir).is_ok() {
        return Err(Failure::Refused(format!("{}: exists already; left alone", dir.display())));
    }
    if !parent.is_dir() {
        return Err(Failure::Refused(format!("{}: its directory {} does not exist", dir.display(), parent.display())));
    }
    match Workspace::around(parent) {
        Some(workspace) => join(name, &dir, &workspace),
        None => stand_alone(name, &dir, &wanted.source.find()?),
    }
}

fn check_name(name: &str, registry: &Registry) -> Result<(), Failure> {
    if !is_legal_name(name) {
        let allowed = format!("[a-z][a-z0-9_-]*, at most {NAME_LEN_MAX} bytes");
        return Err(Failure::Refused(format!("illegal handler name {name:?}; allowed: {allowed}")));
    }
    if let Some(taken) = registry.handler(name) {
        return Err(Failure::Refused(format!(
            "the handler name \"{name}\" is taken: {} {} registers it, and the new crate plugd-{name} would again",
            taken.package(),
            taken.version(),
        )));
    }
    if name == RESERVED || TAKEN.contains(&name) {
        let text =
            format!("the handler name \"{name}\" is taken: plugd-{name} would be named as a crate of plugd itself");
        return Err(Failure::Refused(text));
    }
    Ok(())
}

/// Adds a member to plugd's own workspace.
fn join(name: &str, dir: &Path, workspace: &Workspace) -> Result<(), Failure> {
    let changes = workspace.with_handler(name, dir)?;
    let replace = [("@NAME@", name), ("@CRATE@", &crate_name(name)), ("@TYPE@", &type_name(name))];
    make(dir, EVERYWHERE.iter().chain(&MEMBER), &replace, None).map_err(|error| cannot_make(dir, &error))?;
    let changed = changes.write().map_err(|error| cannot_make(workspace.dir(), &error))?;
    print(&format!(
        "made {}, and named it in {}\n\
         test it:   cargo test -p plugd-{name}\n\
         serve it:  write [plugins.{name}] into plugins.toml, then cargo run\n\
         call it:   cargo run --bin plug -- call {name} --data hello\n",
        dir.display(),
        changed.join(", "),
    ))
}

/// Makes a crate that stands for itself, with a server.
fn stand_alone(name: &str, dir: &Path, source: &Source) -> Result<(), Failure> {
    let text = |name: &str| toml::Value::from(source.package(name).display().to_string()).to_string();
    let replace = [
        ("@NAME@", name),
        ("@CRATE@", &crate_name(name)),
        ("@TYPE@", &type_name(name)),
        ("@VERSION@", VERSION),
        ("@CORE@", &text("core")),
        ("@SERVER@", &text("server")),
        ("@PROFILE@", &source.profiles()),
    ];
    let files = EVERYWHERE.iter().chain(&STANDALONE);
    make(dir, files, &replace, Some(&source.lock())).map_err(|error| cannot_make(dir, &error))?;
    let shown = dir.display();
    print(&format!(
        "made {shown}\n\
         test it:   cd {shown} && cargo test\n\
         serve it:  cd {shown} && cargo run\n\
         call it:   plug call {name} --data hello\n",
    ))
}

/// Makes the folder whole, or not at all.
fn make<'a>(
    dir: &Path,
    files: impl Iterator<Item = &'a (&'a str, &'a str)>,
    replace: &[(&str, &str)],
    lock: Option<&Path>,
) -> io::Result<()> {
    let filled = |text: &str| replace.iter().fold(text.to_owned(), |text, (key, value)| text.replace(key, value));
    let parent = dir.parent().unwrap_or(dir);
    let new = tempfile::Builder::new().prefix(".plugd-new-").tempdir_in(parent)?;
    for (path, text) in files {
        let path = new.path().join(filled(path));
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(path, filled(text))?;
    }
    if let Some(lock) = lock {
        fs::copy(lock, new.path().join("Cargo.lock"))?;
    }
    // A directory for temporary things is its maker's alone; this one is as any other from here on.
    #[cfg(unix)]
    fs::set_permissions(new.path(), fs::metadata(new.path().join("src"))?.permissions())?;
    fs::rename(new.path(), dir)?;
    // Nothing is left there to be removed.
    let _ = new.keep();
    Ok(())
}

fn cannot_make(dir: &Path, error: &io::Error) -> Failure {
    Failure::Refused(format!("{}: cannot be made: {error}", dir.display()))
}

/// How code calls the crate of a handler.
fn crate_name(name: &str) -> String {
    format!("plugd_{}", name.replace('-', "_"))
}

/// The name of the type of a handler: `my-files` becomes `MyFiles`.
fn type_name(name: &str) -> String {
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    let name: String = name.split(['-', '_']).filter(|word| !word.is_empty()).map(capital).collect();
    if CLASHING.contains(&name.as_str()) { name + "Handler" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_named_as_its_handler_unless_that_name_has_a_meaning() {
        let names = ["length", "my-files_2", "a--b", "call", "self"].map(type_name);
        assert_eq!(names, ["Length", "MyFiles2", "AB", "CallHandler", "SelfHandler"]);
    }
}
