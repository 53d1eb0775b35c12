//! Files that the process may write: those of its plugins, where the kernel can hold it to that.
//!
//! It is Landlock's work (landlock(7)), which binds a thread and those that it starts: so it happens before the runtime has
//! any. What is open already, as the log and the audit are, stays open.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use plugd_core::Writes;
use tracing::info;

use super::Account;
use crate::address::ListenAddress;
use crate::config::Config;

/// What a process may write.
#[derive(Debug)]
pub(crate) enum Confinement {
    /// Whatever its user may.
    None,
    /// What is in these directories.
    Below(BTreeSet<PathBuf>),
}

impl Confinement {
    /// Whether the plugins of another configuration could do their work.
    ///
    /// # Errors
    ///
    /// The plugin that could not, and why.
    pub(crate) fn check(&self, config: &Config) -> Result<(), String> {
        let Confinement::Below(allowed) = self else { return Ok(()) };
        for plugin in config.plugins.iter().filter(|plugin| plugin.enabled) {
            let is_allowed = match plugin.blueprint.writes() {
                Writes::Nothing => true,
                Writes::Below(directories) => directories.iter().all(|directory| {
                    let directory = rooted(&config.base_dir, directory);
                    allowed.iter().any(|allowed| directory.starts_with(allowed))
                }),
                Writes::Anything => false,
            };
            if !is_allowed {
                let name = &plugin.name;
                return Err(format!(
                    "plugin \"{name}\" writes where this process may not since its start (Landlock); start the server anew"
                ));
            }
        }
        Ok(())
    }
}

/// Confines this process to what its enabled plugins say that they write, and says in the log how far that went.
///
/// # Errors
///
/// When a directory that a plugin writes in cannot be made or opened, or the kernel refuses although it knows Landlock.
pub(crate) fn confine(config: &Config) -> Result<Confinement, String> {
    let enabled = || config.plugins.iter().filter(|plugin| plugin.enabled);
    if !config.server.landlock {
        info!("not confined: landlock = false");
        return Ok(Confinement::None);
    }
    if let Some(plugin) = enabled().find(|plugin| *plugin.blueprint.writes() == Writes::Anything) {
        info!(plugin = plugin.name, "not confined: this plugin may write anywhere");
        return Ok(Confinement::None);
    }
    let directories: BTreeSet<PathBuf> = enabled()
        .filter_map(|plugin| match plugin.blueprint.writes() {
            Writes::Below(directories) => Some(directories),
            Writes::Nothing | Writes::Anything => None,
        })
        .flatten()
        .map(|directory| rooted(&config.base_dir, directory))
        .collect();
    for directory in &directories {
        make(directory, config.server.account.as_ref())
            .map_err(|error| format!("cannot make directory {}: {error}", directory.display()))?;
    }
    let sockets = config.server.listen.iter().filter_map(|address| match address {
        ListenAddress::Unix(path) => Some(rooted(path.parent().unwrap_or(Path::new("")), Path::new(""))),
        ListenAddress::Tcp { .. } | ListenAddress::Tls { .. } => None,
    });
    if !landlock::restrict(&directories, &sockets.collect())? {
        info!("not confined: this kernel has no Landlock of version 2");
        return Ok(Confinement::None);
    }
    info!(?directories, "confined: files are written in these directories only");
    Ok(Confinement::Below(directories))
}

/// An empty path is the present directory, which has a name of its own for the operating system.
fn rooted(base_dir: &Path, path: &Path) -> PathBuf {
    Path::new(".").join(base_dir).join(path)
}

/// Makes a directory and what is above it; what is new belongs to `account`.
fn make(directory: &Path, account: Option<&Account>) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        make(parent, account)?;
    }
    fs::create_dir(directory)?;
    account.map_or(Ok(()), |account| account.own(directory))
}

#[cfg(target_os = "linux")]
mod landlock {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use landlock::{
        ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
        RulesetCreatedAttr, RulesetError, RulesetStatus, make_bitflags,
    };

    /// Without the second version nothing could be renamed from one directory into another.
    const LEAST: ABI = ABI::V2;

    /// The newest version whose rights are known here; older kernels hold the process to fewer.
    const NEWEST: ABI = ABI::V6;

    /// What a socket needs of the directory that it is in: to be made, and to be removed at the end.
    const SOCKET: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeSock | RemoveFile});

    /// Lets this thread, and those that it starts, write in these directories only; false when the kernel cannot.
    pub(super) fn restrict(directories: &BTreeSet<PathBuf>, sockets: &BTreeSet<PathBuf>) -> Result<bool, String> {
        let Ok(mut ruleset) = ruleset() else { return Ok(false) };
        for directory in directories {
            ruleset = allow(ruleset, directory, AccessFs::from_write(NEWEST))?;
        }
        for directory in sockets {
            ruleset = allow(ruleset, directory, SOCKET)?;
        }
        ruleset = allow(ruleset, Path::new("/dev/null"), AccessFs::WriteFile.into())?;
        let status = ruleset.restrict_self().map_err(|error| format!("cannot confine the process: {error}"))?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }

    fn ruleset() -> Result<RulesetCreated, RulesetError> {
        Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_write(LEAST))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_write(NEWEST))?
            .create()
    }

    fn allow(ruleset: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, String> {
        let refused =
            |error: &dyn std::error::Error| format!("cannot confine the process to {}: {error}", path.display());
        let file = PathFd::new(path).map_err(|error| refused(&error))?;
        ruleset.add_rule(PathBeneath::new(file, access)).map_err(|error| refused(&error))
    }
}

#[cfg(not(target_os = "linux"))]
mod landlock {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    pub(super) fn restrict(_: &BTreeSet<PathBuf>, _: &BTreeSet<PathBuf>) -> Result<bool, String> {
        Ok(false)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A thread of its own, since there is no way back.
    #[test]
    fn a_confined_thread_writes_in_its_directories_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| dir.path().join(path);
        for name in ["a", "b", "other"] {
            fs::create_dir(at(name)).expect("a directory");
        }
        fs::write(at("other/file"), "kept").expect("a file");
        let directories = BTreeSet::from([at("a"), at("b")]);
        std::thread::scope(|scope| {
            let confined = scope.spawn(|| {
                assert!(landlock::restrict(&directories, &BTreeSet::new()).expect("a ruleset"), "no Landlock here");
                fs::write(at("a/file"), "new")?;
                fs::create_dir(at("a/sub"))?;
                fs::rename(at("a/file"), at("b/file"))?;
                assert_eq!(fs::read_to_string(at("other/file"))?, "kept");
                for refused in [
                    fs::write(at("other/file"), "overwritten"),
                    fs::write(at("other/new"), ""),
                    fs::remove_file(at("other/file")),
                    fs::rename(at("b/file"), at("other/moved")),
                ] {
                    let kind = refused.expect_err("a write elsewhere").kind();
                    assert!(
                        matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::CrossesDevices),
                        "{kind:?}"
                    );
                }
                io::Result::Ok(())
            });
            confined.join().expect("no panic").expect("writes in the directories");
        });
        assert_eq!(fs::read_to_string(at("other/file")).expect("a file"), "kept");
    }
}
