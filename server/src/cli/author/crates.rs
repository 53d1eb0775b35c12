//! The crates that `plugd build --with` names, and whether they fit to this server's core.

use std::path::{Path, PathBuf};

use semver::{Version, VersionReq};

use super::cargo::{Cargo, Metadata, Package};
use super::source::{Source, VERSION};
use crate::cli::Failure;

/// The package that handlers register themselves in.
const CORE: &str = "plugd-core";

/// A crate as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A directory with a manifest.
    Path(PathBuf),
    /// A package of a registry.
    Registry { name: String, version: String },
}

impl Wanted {
    /// Reads `./DIR`, or `NAME@VERSION`. What looks like a path is one, and so is a directory that is there.
    pub(super) fn parse(text: &str) -> Result<Wanted, Failure> {
        let refuse = |why: String| Err(Failure::Refused(format!("--with {text}: {why}")));
        let path = Path::new(text);
        if text.starts_with('.') || text.contains(std::path::MAIN_SEPARATOR) || path.is_dir() {
            return match path.canonicalize() {
                Ok(path) if path.join("Cargo.toml").is_file() => Ok(Wanted::Path(path)),
                Ok(_) => refuse("no crate is there: it has no Cargo.toml".to_owned()),
                Err(error) => refuse(format!("no crate is there: {error}")),
            };
        }
        let (name, version) = text.split_once('@').unwrap_or((text, "*"));
        let is_name = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
        if name.is_empty() || !name.chars().all(is_name) {
            return refuse("allowed: the path of a crate, such as ./my-handler, or NAME@VERSION".to_owned());
        }
        match VersionReq::parse(version) {
            Ok(_) => Ok(Wanted::Registry { name: name.to_owned(), version: version.to_owned() }),
            Err(error) => refuse(format!("{version:?} is no version: {error}; such as NAME@1.2")),
        }
    }
}

/// A crate to be linked, as a dependency of the server.
#[derive(Debug)]
pub(super) struct Linked {
    pub(super) name: String,
    /// What stands for it in a manifest, as TOML.
    pub(super) requirement: toml::Value,
    /// Whether it, or what it uses, may ask a registry for the core.
    pub(super) is_foreign: bool,
}

impl Linked {
    /// Looks at a crate, as far as that can be done before everything below it is known.
    pub(super) async fn find(wanted: Wanted, source: &Source, cargo: Cargo) -> Result<Linked, Failure> {
        let path = match wanted {
            Wanted::Registry { name, version } => {
                return Ok(Linked { name, requirement: version.into(), is_foreign: true });
            }
            Wanted::Path(path) => path,
        };
        let manifest = path.join("Cargo.toml");
        let Metadata { packages, .. } = cargo.package(&manifest).await?;
        let Some(package) = packages.into_iter().find(|package| package.manifest_path == manifest) else {
            let text = format!("{}: a workspace without a crate of its own; name one of its members", path.display());
            return Err(Failure::Refused(text));
        };
        check_direct_core(&package, source, cargo).await?;
        let asks_registry =
            |package: &Package| package.dependencies.iter().any(|it| it.name == CORE && it.path.is_none());
        Ok(Linked {
            is_foreign: asks_registry(&package),
            name: package.name,
            requirement: toml::Value::Table(
                [("path".to_owned(), path.display().to_string().into())].into_iter().collect(),
            ),
        })
    }
}

/// Refuses a crate whose own manifest asks for another core, before cargo stumbles over two of them.
async fn check_direct_core(package: &Package, source: &Source, cargo: Cargo) -> Result<(), Failure> {
    let ours = source.package("core");
    let own: Version = VERSION.parse().expect("cargo accepts no other version");
    for dependency in package.dependencies.iter().filter(|it| it.name == CORE && it.kind.is_none()) {
        match &dependency.path {
            None if dependency.req.matches(&own) => {}
            None => return Err(other_core(package, &format!("{CORE} {}", dependency.req), source)),
            Some(path) if path.canonicalize().is_ok_and(|path| path == ours) => {}
            Some(path) => {
                let found = cargo.package(&path.join("Cargo.toml")).await?;
                let found = found.packages.iter().find(|package| package.name == CORE);
                let version = found.map_or("of no known version".to_owned(), |core| core.version.to_string());
                return Err(other_core(package, &format!("{CORE} {version} of {}", path.display()), source));
            }
        }
    }
    Ok(())
}

/// Refuses a second core anywhere below, and crates that cannot be handlers. Gives the libraries to name.
pub(super) fn check_graph(graph: &Metadata, linked: &[Linked], source: &Source) -> Result<Vec<String>, Failure> {
    let ours = source.package("core");
    let cores = || graph.packages.iter().filter(|package| package.name == CORE);
    let package = |linked: &Linked| graph.packages.iter().find(|package| package.name == linked.name);
    let mut libraries = Vec::new();
    for package in linked.iter().filter_map(package) {
        if let Some(core) = cores().find(|core| core.dir() != ours && graph.reaches(&package.id, &core.id)) {
            return Err(other_core(package, &format!("{CORE} {} of {}", core.version, core.dir().display()), source));
        }
        let refuse = |why: &str| Failure::Refused(format!("{} {}: {why}", package.name, package.version));
        if !cores().any(|core| graph.reaches(&package.id, &core.id)) {
            return Err(refuse("registers no handler: it does not use plugd-core"));
        }
        libraries.push(package.library().ok_or_else(|| refuse("has no library, and only that can be linked"))?);
    }
    Ok(libraries)
}

fn other_core(package: &Package, found: &str, source: &Source) -> Failure {
    let ours = source.package("core");
    Failure::Refused(format!(
        "{} {} ({}) uses {found}; this server has {CORE} {VERSION} of {}. A handler registers itself in the core that it \
         was built with, so this server would not see it: let it use {CORE} = {{ path = {:?} }}",
        package.name,
        package.version,
        package.dir().display(),
        ours.display(),
        ours,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_a_path_or_a_name_with_a_version() {
        let registry = |name: &str, version: &str| Wanted::Registry { name: name.into(), version: version.into() };
        assert_eq!(Wanted::parse("some-crate@1.2").expect("a crate"), registry("some-crate", "1.2"));
        assert_eq!(Wanted::parse("some-crate").expect("a crate"), registry("some-crate", "*"));
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = here.join("src/..").display().to_string();
        assert_eq!(Wanted::parse(&path).expect("a crate"), Wanted::Path(here.canonicalize().expect("a directory")));
    }

    #[test]
    fn what_is_neither_is_refused_with_what_is_allowed() {
        for (text, why) in [
            ("./none-such", "no crate is there: No such file"),
            ("./src", "no crate is there: it has no Cargo.toml"),
            ("a b", "allowed: the path of a crate, such as ./my-handler, or NAME@VERSION"),
            ("some-crate@one", "\"one\" is no version"),
        ] {
            let error = Wanted::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("--with {text}: {why}")), "{error}");
        }
    }
}
