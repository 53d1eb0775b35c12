//! The user and the group that the process becomes after it has bound its addresses.

use std::fmt;
use std::io;
use std::path::Path;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist, setgroups, setresgid, setresuid};

/// A user, a group, or both, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    user: Option<Uid>,
    group: Gid,
    /// The user's other groups with `group`, or that alone.
    groups: Vec<Gid>,
}

impl Account {
    /// Finds a user and a group by name or number; without a group, the user's own. `None` when neither is named.
    ///
    /// # Errors
    ///
    /// The setting that names what this machine does not know, and why it is refused.
    pub(crate) fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Account>, (&'static str, String)> {
        let user =
            user.map(|name| known("user", name, by_number(name, Uid::from_raw), User::from_uid, User::from_name));
        let group =
            group.map(|name| known("group", name, by_number(name, Gid::from_raw), Group::from_gid, Group::from_name));
        let (user, group) = (user.transpose()?, group.transpose()?);
        let Some(gid) = group.map(|group| group.gid).or(user.as_ref().map(|user| user.gid)) else { return Ok(None) };
        let groups = match &user {
            Some(user) => groups_of(user, gid).map_err(|error| ("user", format!("{:?}: {error}", user.name)))?,
            None => vec![gid],
        };
        Ok(Some(Account { user: user.map(|user| user.uid), group: gid, groups }))
    }

    /// Makes every thread of this process this user and group, for good.
    ///
    /// # Errors
    ///
    /// When the process is somebody else and may not change that: only root may.
    pub(crate) fn become_it(&self) -> io::Result<()> {
        let user = self.user.unwrap_or_else(geteuid);
        if (geteuid(), getegid()) == (user, self.group) {
            return Ok(());
        }
        setgroups(&self.groups)?;
        setresgid(self.group, self.group, self.group)?;
        Ok(setresuid(user, user, user)?)
    }

    /// Whether whoever takes it is root after that, if the process is now.
    pub(crate) fn stays_root(&self) -> bool {
        self.user.is_none_or(Uid::is_root)
    }

    /// Gives a file or a directory to this user and group.
    ///
    /// # Errors
    ///
    /// Those of chown(2).
    pub(crate) fn own(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, self.user.map(Uid::as_raw), Some(self.group.as_raw()))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => write!(out, "uid {user}, gid {}", self.group),
            None => write!(out, "gid {}", self.group),
        }
    }
}

fn by_number<Id>(name: &str, id: impl FnOnce(u32) -> Id) -> Option<Id> {
    name.parse().ok().map(id)
}

fn known<Id, Found>(
    setting: &'static str,
    name: &str,
    id: Option<Id>,
    from_id: impl FnOnce(Id) -> nix::Result<Option<Found>>,
    from_name: impl FnOnce(&str) -> nix::Result<Option<Found>>,
) -> Result<Found, (&'static str, String)> {
    let found = match id {
        Some(id) => from_id(id),
        None => from_name(name),
    };
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err((setting, format!("no {setting} {name:?} on this machine"))),
        Err(error) => Err((setting, format!("cannot look {setting} {name:?} up: {error}"))),
    }
}

fn groups_of(user: &User, group: Gid) -> io::Result<Vec<Gid>> {
    let name = std::ffi::CString::new(user.name.as_str())?;
    Ok(getgrouplist(&name, group)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found_and_unknown_ones_named() {
        let root = Account::find(Some("root"), None).expect("root is there").expect("an account");
        assert_eq!(Account::find(Some("0"), Some("0")), Ok(Some(root.clone())));
        assert_eq!((root.user, root.group), (Some(Uid::from_raw(0)), Gid::from_raw(0)));
        assert_eq!(Account::find(None, None), Ok(None));
        let (setting, message) = Account::find(None, Some("no-such-group")).expect_err("unknown");
        assert_eq!((setting, message.as_str()), ("group", "no group \"no-such-group\" on this machine"));
        assert_eq!(Account::find(Some("4294967295"), None).expect_err("unknown").0, "user");
    }
}
