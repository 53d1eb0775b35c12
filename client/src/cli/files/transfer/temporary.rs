//! The names of small files until they are whole, and what is left of them when a program is killed.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use crate::cli::files::local::Directory;

/// What all of these names begin with.
const BEGIN: &[u8] = b".plug-";

/// What all of them end in.
const END: &[u8] = b".tmp";

/// A file of such a name is written within moments. One that is older belongs to a program that was killed, maybe on
/// another machine that shares the directory.
const AGE_LEAST: Duration = Duration::from_secs(60 * 60);

/// How many directories are remembered as swept, of 16 bytes each; those beyond are not swept.
const SWEPT_MAX: usize = 100_000;

/// Tells the names of this process apart.
static NUMBERS: AtomicU32 = AtomicU32::new(0);

/// A name that nobody else gives.
pub(crate) fn name() -> String {
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    format!(".plug-{:x}-{number:x}.tmp", std::process::id())
}

fn is_one(name: &OsStr) -> bool {
    let Some(middle) = name.as_bytes().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END)) else {
        return false;
    };
    let is_number = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let mut numbers = middle.split(|byte| *byte == b'-');
    numbers.next().is_some_and(is_number) && numbers.next().is_some_and(is_number) && numbers.next().is_none()
}

/// The directories that were swept.
#[derive(Debug, Default)]
pub(crate) struct Swept(HashSet<(u64, u64)>);

impl Swept {
    /// Removes what programs that were killed have left in a directory, once.
    pub(crate) fn sweep(&mut self, directory: &Directory) {
        if self.0.len() < SWEPT_MAX && directory.identity().is_ok_and(|identity| self.0.insert(identity)) {
            // What cannot be removed only takes room.
            let _ = sweep(directory);
        }
    }
}

fn sweep(directory: &Directory) -> io::Result<()> {
    let latest = SystemTime::now().checked_sub(AGE_LEAST);
    for name in directory.names_that(is_one)? {
        let facts = directory.facts(&name)?;
        if facts.is_some_and(|facts| facts.is_file() && facts.modified() < latest) {
            directory.remove(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_given_here_are_known() {
        assert!(is_one(OsStr::new(&name())));
        for other in [".plug-.tmp", ".plug-1.tmp", ".plug-1-.tmp", ".plug-x-1.tmp", ".plug-1-2-3.tmp", "plug-1-2.tmp"] {
            assert!(!is_one(OsStr::new(other)), "{other}");
        }
    }
}
