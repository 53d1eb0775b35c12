//! Times and permissions of fetched directories, set when nothing is written into them any more.

use std::cell::RefCell;

use super::facts::Facts;
use super::local::{self, Directory, Tree};
use super::name::Name;
use super::tally::Tally;
use crate::cli::failure::Failure;

/// How many directories are remembered, of about 200 bytes each. Those beyond keep the time of their last change here.
const DIRECTORIES_MAX: usize = 200_000;

/// The permissions that its owner keeps in a directory, so that the same command can carry on.
const MODE_OWNER: u32 = 0o700;

/// What is to be set of the directories of one command.
#[derive(Debug, Default)]
pub(crate) struct Directories(RefCell<Vec<Kept>>);

/// A directory below one that stays open, which the empty path is itself.
#[derive(Debug)]
struct Kept {
    root: Directory,
    path: Name,
    facts: Facts,
}

impl Directories {
    pub(crate) fn add(&self, root: &Directory, path: Name, facts: Facts) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < DIRECTORIES_MAX {
            kept.push(Kept { root: root.clone(), path, facts });
        }
    }

    /// Sets everything; what is in a directory before the directory.
    pub(crate) fn set(self, tally: &Tally) {
        for kept in self.0.into_inner().into_iter().rev() {
            if let Err(failure) = kept.set() {
                let path = kept.root.path_of(kept.path.as_os_str());
                tally.failed(&Name::from(path.as_os_str()), failure, true);
            }
        }
    }
}

impl Kept {
    fn set(&self) -> Result<(), Failure> {
        let directory = match self.path.as_bytes() {
            b"" => Some(self.root.clone()),
            _ => Tree::new(self.root.clone()).look(&self.path)?,
        };
        // One that was left out was not made.
        let Some(directory) = directory else { return Ok(()) };
        let facts = Facts { mode: self.facts.mode | MODE_OWNER, ..self.facts.clone() };
        let set = local::preserve(directory.as_fd(), &facts);
        set.map_err(|error| local::failure("cannot set the time of", &directory.path_of("".as_ref()), error))
    }
}
