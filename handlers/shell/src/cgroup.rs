//! A control group for each command, below one that was delegated to the server.

use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tracing::debug;

/// How often the removal of a group is tried: the kernel lets its last process go a moment after it was reaped.
const REMOVALS_MAX: u32 = 20;

/// A control group of version 2 that holds one command. Dropped, it is killed and removed.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a group below `parent`.
    pub(crate) fn create(parent: &Path) -> io::Result<Cgroup> {
        static LAST: AtomicU64 = AtomicU64::new(0);

        let name = format!("plugd-{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(name);
        fs::create_dir(&path)?;
        Ok(Cgroup { path })
    }

    /// What takes a process in that writes `0` to it.
    pub(crate) fn entrance(&self) -> io::Result<OwnedFd> {
        Ok(fs::OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?.into())
    }

    /// Kills everything in it at once; kernels before Linux 5.14 cannot.
    pub(crate) fn kill(&self) {
        let file = fs::OpenOptions::new().write(true).open(self.path.join("cgroup.kill"));
        let _ = file.and_then(|mut file| file.write_all(b"1"));
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..REMOVALS_MAX {
            match fs::remove_dir(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    self.kill();
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return debug!(%error, path = %self.path.display(), "cannot remove a control group"),
            }
        }
    }
}
