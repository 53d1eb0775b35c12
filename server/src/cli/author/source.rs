//! Where the source of plugd is: others' handlers are built with the core of this very version.

use std::path::{Path, PathBuf};

use clap::Args;
use toml::Table;

use crate::cli::Failure;

/// The version of this program, which is that of its core as well.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where this program was built from.
const BUILT_FROM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// The source of plugd, of this program's own version; without it, where this program was built from
    #[arg(long, env = "PLUGD_SOURCE", value_name = "DIR")]
    source: Option<PathBuf>,
}

/// The source of plugd, of this program's version.
#[derive(Debug)]
pub(super) struct Source {
    dir: PathBuf,
    manifest: Table,
}

impl SourceArgs {
    /// Finds the source and checks that it is of this program's version.
    pub(super) fn find(&self) -> Result<Source, Failure> {
        let dir = self.source.as_deref().unwrap_or(Path::new(BUILT_FROM));
        let missing = |_| {
            let dir = dir.display();
            let text = format!("no source of plugd {VERSION} at {dir}; name it with --source DIR or $PLUGD_SOURCE");
            Failure::Refused(text)
        };
        let dir = dir.canonicalize().map_err(missing)?;
        let text = std::fs::read_to_string(dir.join("Cargo.toml")).map_err(missing)?;
        std::fs::metadata(dir.join("core/Cargo.toml")).map_err(missing)?;
        let source = Source { manifest: text.parse().unwrap_or_default(), dir };
        match source.version() {
            Some(VERSION) => Ok(source),
            found => Err(Failure::Refused(format!(
                "{} holds plugd {}, and this program is plugd {VERSION}; a server is built with the core of its own \
                 version: take the program of that source, or name another with --source DIR",
                source.dir.display(),
                found.unwrap_or("of no known version"),
            ))),
        }
    }
}

impl Source {
    fn version(&self) -> Option<&str> {
        self.manifest.get("workspace")?.get("package")?.get("version")?.as_str()
    }

    /// The directory of one of its crates.
    pub(super) fn package(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The versions of everything that this program was built with.
    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("Cargo.lock")
    }

    /// How this program's source is built, for tests and as a release, as sections of a manifest. What is built in the same way
    /// can be shared.
    pub(super) fn profiles(&self) -> String {
        let profiles = self.manifest.get("profile").map(|profiles| ("profile".to_owned(), profiles.clone()));
        Table::from_iter(profiles).to_string()
    }
}
