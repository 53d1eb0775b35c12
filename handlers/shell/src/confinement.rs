//! What a command is kept to, from its first instruction on: its user, its limits, its sandbox.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus,
};
use nix::unistd::{Group, User, getgrouplist};
use plugd_core::StartError;
use rustix::fs::Mode;
use rustix::process::{Gid, Resource, Rlimit, Uid, ioctl_tiocsctty, nice, setrlimit, setsid, umask};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::kernel;
use crate::settings::{SandboxSettings, ShellSettings};

/// The rights that Landlock knows up to here are handled as far as the kernel does; the first of them it must.
const LANDLOCK: ABI = ABI::V5;

/// What every command of a plugin is kept to.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    nice: Option<i32>,
    umask: Option<u32>,
    limits: Vec<(Resource, u64)>,
    account: Option<Account>,
    sandbox: Option<RulesetCreated>,
    pub(crate) cgroup: Option<PathBuf>,
}

/// Who a command runs as.
#[derive(Debug, Clone)]
struct Account {
    user: Option<Uid>,
    group: Gid,
    groups: Vec<Gid>,
}

impl Confinement {
    /// Looks up and opens what the settings name.
    ///
    /// # Errors
    ///
    /// A user, a group or a path that is not there, a kernel without Landlock, a cgroup that cannot be used.
    pub(crate) fn build(settings: &ShellSettings, base_dir: &Path) -> Result<Confinement, StartError> {
        let limits = [
            (Resource::As, settings.memory_max.map(|size| size.as_u64())),
            (Resource::Nofile, settings.files_max),
            (Resource::Nproc, settings.processes_max),
        ];
        let cgroup = settings.cgroup.as_ref().map(|path| base_dir.join(path));
        if let Some(path) = &cgroup {
            check_cgroup(path)?;
        }
        Ok(Confinement {
            nice: settings.nice,
            umask: settings.umask_bits(),
            limits: limits.into_iter().filter_map(|(limit, most)| Some((limit, most?))).collect(),
            account: account(settings.user.as_deref(), settings.group.as_deref())?,
            sandbox: settings.sandbox.as_ref().map(|sandbox| ruleset(sandbox, base_dir)).transpose()?,
            cgroup,
        })
    }

    /// Arranges that `command` begins confined, in a session of its own with a terminal if it `has_terminal`, and in the
    /// control group behind `entrance`. Without any of that it stays as fast to start as it was.
    pub(crate) fn apply(&self, command: &mut Command, has_terminal: bool, entrance: Option<OwnedFd>) -> io::Result<()> {
        let is_confined = self.nice.is_some()
            || self.umask.is_some()
            || !self.limits.is_empty()
            || self.account.is_some()
            || self.sandbox.is_some();
        if !is_confined && !has_terminal && entrance.is_none() {
            return Ok(());
        }
        let (nice_by, mask, limits) = (self.nice, self.umask, self.limits.clone());
        let account = self.account.clone();
        let mut sandbox = self.sandbox.as_ref().map(RulesetCreated::try_clone).transpose()?;
        kernel::before_exec(command, move || {
            if has_terminal {
                setsid()?;
                ioctl_tiocsctty(rustix::stdio::stdin())?;
            }
            if let Some(entrance) = &entrance {
                rustix::io::write(entrance, b"0")?;
            }
            if let Some(nice_by) = nice_by {
                nice(nice_by)?;
            }
            if let Some(mask) = mask {
                umask(Mode::from_raw_mode(mask));
            }
            for (resource, most) in &limits {
                setrlimit(*resource, Rlimit { current: Some(*most), maximum: Some(*most) })?;
            }
            if let Some(account) = &account {
                set_thread_groups(&account.groups)?;
                set_thread_res_gid(account.group, account.group, account.group)?;
                if let Some(user) = account.user {
                    set_thread_res_uid(user, user, user)?;
                }
            }
            match sandbox.take().map(RulesetCreated::restrict_self) {
                Some(Ok(status)) if status.ruleset == RulesetStatus::NotEnforced => Err(not_permitted()),
                Some(Err(_)) => Err(not_permitted()),
                _ => Ok(()),
            }
        });
        Ok(())
    }
}

fn not_permitted() -> io::Error {
    io::Error::from_raw_os_error(libc::EPERM)
}

/// The numbers of the user and the group, and of the user's other groups.
fn account(user: Option<&str>, group: Option<&str>) -> Result<Option<Account>, StartError> {
    let unknown = |what: &str, name: &str| StartError::new(format!("cannot run commands as {what} {name:?}: unknown"));
    let user = match user {
        None => None,
        Some(name) => {
            let found = match name.parse() {
                Ok(number) => User::from_uid(nix::unistd::Uid::from_raw(number)),
                Err(_) => User::from_name(name),
            };
            Some(found.ok().flatten().ok_or_else(|| unknown("user", name))?)
        }
    };
    let group = match group {
        None => None,
        Some(name) => {
            let found = match name.parse() {
                Ok(number) => Group::from_gid(nix::unistd::Gid::from_raw(number)),
                Err(_) => Group::from_name(name),
            };
            Some(found.ok().flatten().ok_or_else(|| unknown("group", name))?)
        }
    };
    let Some(gid) = group.as_ref().map(|group| group.gid).or(user.as_ref().map(|user| user.gid)) else {
        return Ok(None);
    };
    let groups = match &user {
        Some(user) => {
            let name = std::ffi::CString::new(user.name.as_str()).map_err(|_| unknown("user", &user.name))?;
            getgrouplist(&name, gid).map_err(|_| unknown("user", &user.name))?
        }
        None => vec![gid],
    };
    let groups = groups.into_iter().map(|group| Gid::from_raw(group.as_raw())).collect();
    let user = user.map(|user| Uid::from_raw(user.uid.as_raw()));
    Ok(Some(Account { user, group: Gid::from_raw(gid.as_raw()), groups }))
}

/// The rules of Landlock for the paths that the settings name.
fn ruleset(sandbox: &SandboxSettings, base_dir: &Path) -> Result<RulesetCreated, StartError> {
    let unsupported = |error| StartError::new("cannot run commands in a sandbox: no Landlock here").with_source(error);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(|ruleset| {
            ruleset.set_compatibility(CompatLevel::BestEffort).handle_access(AccessFs::from_all(LANDLOCK))
        })
        .and_then(Ruleset::create)
        .map_err(unsupported)?;
    let lists = [(&sandbox.read, AccessFs::from_read(LANDLOCK)), (&sandbox.write, AccessFs::from_all(LANDLOCK))];
    for (paths, access) in lists {
        for path in paths {
            let path = base_dir.join(path);
            let refused = || format!("cannot let commands reach {path:?}");
            let file = PathFd::new(&path).map_err(|error| StartError::new(refused()).with_source(error))?;
            // The rights on directories mean nothing on a file.
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(LANDLOCK) };
            ruleset = ruleset
                .add_rule(PathBeneath::new(file, access))
                .map_err(|error| StartError::new(refused()).with_source(error))?;
        }
    }
    Ok(ruleset)
}

fn check_cgroup(path: &Path) -> Result<(), StartError> {
    let refused = |error| StartError::new(format!("cannot use the control group {path:?}")).with_source(error);
    if !path.join("cgroup.procs").exists() {
        return Err(refused(io::Error::new(io::ErrorKind::NotFound, "no control group of version 2")));
    }
    crate::cgroup::Cgroup::create(path).map(drop).map_err(refused)
}
