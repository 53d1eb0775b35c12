//! Remembers the digests of files, so that an unchanged file is not read again for one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::digest::{Algorithm, Digest};
use crate::version::Identity;

/// The most digests that are remembered: about 16 MiB.
const DIGESTS_MAX: usize = 65_536;

/// How long a file must have been left alone before its digest is remembered, in seconds. A file system's clock ticks
/// coarsely, and a change within one tick would not show.
const QUIET_S_LEAST: i64 = 2;

type Key = (Identity, Algorithm);

/// The digests that were computed last. What is asked for stays; of the rest the older half goes when it is full.
#[derive(Debug, Default)]
pub(crate) struct DigestCache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Digest>,
    old: HashMap<Key, Digest>,
}

impl DigestCache {
    pub(crate) fn find(&self, identity: &Identity, algorithm: Algorithm) -> Option<Digest> {
        let key = (*identity, algorithm);
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = generations.young.get(&key) {
            return Some(*digest);
        }
        let digest = generations.old.remove(&key)?;
        generations.insert(key, digest);
        Some(digest)
    }

    /// Remembers a digest of a file that had the same identity before and after it was read.
    pub(crate) fn remember(&self, identity: &Identity, digest: Digest) {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        if identity.ctime.s <= now_s - QUIET_S_LEAST {
            let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            generations.insert((*identity, digest.algorithm()), digest);
        }
    }
}

impl Generations {
    fn insert(&mut self, key: Key, digest: Digest) {
        if self.young.len() >= DIGESTS_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, digest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Time;

    fn identity(inode: u64, ctime_s: i64) -> Identity {
        let time = Time { s: ctime_s, ns: 0 };
        Identity { device: 1, inode, size: 5, mtime: time, ctime: time }
    }

    fn digest() -> Digest {
        Digest::parse("md5:5d41402abc4b2a76b9719d911017c592").expect("a digest")
    }

    #[test]
    fn a_digest_is_found_for_the_same_state_and_algorithm_alone() {
        let cache = DigestCache::default();
        cache.remember(&identity(1, 100), digest());
        assert_eq!(cache.find(&identity(1, 100), Algorithm::Md5), Some(digest()));
        assert_eq!(cache.find(&identity(1, 101), Algorithm::Md5), None);
        assert_eq!(cache.find(&identity(1, 100), Algorithm::Sha256), None);
    }

    #[test]
    fn a_file_that_changed_a_moment_ago_is_not_remembered() {
        let cache = DigestCache::default();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() as i64;
        cache.remember(&identity(1, now_s), digest());
        assert_eq!(cache.find(&identity(1, now_s), Algorithm::Md5), None);
    }

    #[test]
    fn it_stays_within_its_bound_and_keeps_what_is_asked_for() {
        let cache = DigestCache::default();
        for inode in 0..3 * DIGESTS_MAX as u64 {
            cache.remember(&identity(inode, 100), digest());
            if inode % 1000 == 0 {
                assert!(cache.find(&identity(0, 100), Algorithm::Md5).is_some(), "{inode}");
            }
        }
        let generations = cache.0.lock().expect("no panic");
        assert!(generations.young.len() + generations.old.len() <= DIGESTS_MAX);
    }
}
