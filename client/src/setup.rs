//! Files that a connection is set up with: what went wrong with one, and how those with secrets are read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Permissions that a file with a secret may have: its owner reads and writes it.
const SECRET_MODE: u32 = 0o600;

/// Why a connection cannot be set up as asked; nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A file cannot be read.
    #[error("cannot read {what} {}", path.display())]
    Read {
        /// What it is for, such as `token file`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file, or what it holds, is refused.
    #[error("{what} {} refused: {why}", path.display())]
    Refused {
        /// What it is for, such as `token file`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What was found, and what is allowed.
        why: String,
    },
    /// A value is refused; it is not in the text.
    #[error("{what} refused: {why}")]
    Value {
        /// What it is for, such as `token`.
        what: &'static str,
        /// What was found, and what is allowed.
        why: String,
    },
}

/// A file that a connection is set up with, and what it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'p> {
    pub(crate) what: &'static str,
    pub(crate) path: &'p Path,
    /// The longest that it may be, in bytes.
    pub(crate) len_max: u64,
}

impl Input<'_> {
    /// Reads what anybody may know.
    pub(crate) fn read(self) -> Result<Vec<u8>, SetupError> {
        let file = self.open(OFlags::empty()).map_err(|errno| self.unreadable(errno.into()))?;
        self.read_open(&file)
    }

    /// Reads a secret: the file is no link, and nobody but its owner can read it, who is the user or root.
    pub(crate) fn read_secret(self) -> Result<Vec<u8>, SetupError> {
        let file = match self.open(OFlags::NOFOLLOW) {
            Err(Errno::LOOP) => return Err(self.refused("it is a symbolic link; name the file itself")),
            opened => opened.map_err(|errno| self.unreadable(errno.into()))?,
        };
        // Asked of what is open: the name may lead elsewhere by now.
        let facts = file.metadata().map_err(|error| self.unreadable(error))?;
        if facts.is_file() {
            let user = rustix::process::geteuid().as_raw();
            self.check(facts.uid(), user, facts.mode())?;
        }
        self.read_open(&file)
    }

    /// A pipe that nobody writes to must not be waited for.
    fn open(self, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        rustix::fs::open(self.path, flags, Mode::empty()).map(File::from)
    }

    fn check(self, owner: u32, user: u32, mode: u32) -> Result<(), SetupError> {
        if owner != user && owner != 0 {
            return Err(self.refused(format!("it belongs to the user {owner}; allowed: {user}, who asks, and root")));
        }
        let mode = mode & 0o7777;
        if mode & !SECRET_MODE != 0 {
            let path = self.path.display();
            return Err(self.refused(format!("its mode is {mode:04o}; allowed: 0600 or less; chmod 600 {path}")));
        }
        Ok(())
    }

    fn read_open(self, file: &File) -> Result<Vec<u8>, SetupError> {
        let facts = file.metadata().map_err(|error| self.unreadable(error))?;
        if !facts.is_file() {
            return Err(self.refused("it is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(self.len_max + 1).read_to_end(&mut bytes).map_err(|error| self.unreadable(error))?;
        if bytes.len() as u64 > self.len_max {
            return Err(self.refused(format!("it is too long; allowed: {} bytes", self.len_max)));
        }
        Ok(bytes)
    }

    pub(crate) fn unreadable(self, source: io::Error) -> SetupError {
        SetupError::Read { what: self.what, path: self.path.to_owned(), source }
    }

    pub(crate) fn refused(self, why: impl Into<String>) -> SetupError {
        SetupError::Refused { what: self.what, path: self.path.to_owned(), why: why.into() }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(1000, 1000, 0o100600, true)]
    #[case(1000, 1000, 0o100400, true)]
    #[case(0, 1000, 0o100600, true)]
    #[case(1001, 1000, 0o100600, false)]
    #[case(1000, 0, 0o100600, false)]
    #[case(1000, 1000, 0o100640, false)]
    #[case(1000, 1000, 0o100604, false)]
    #[case(1000, 1000, 0o100601, false)]
    #[case(1000, 1000, 0o100700, false)]
    fn a_secret_belongs_to_the_user_alone(
        #[case] owner: u32,
        #[case] user: u32,
        #[case] mode: u32,
        #[case] good: bool,
    ) {
        let input = Input { what: "token file", path: Path::new("t"), len_max: 1 };
        assert_eq!(input.check(owner, user, mode).is_ok(), good);
    }
}
