//! Tells one state of a file from another: by what the file system says of it, or by its content.

use plugd_core::Status;

use crate::digest::Digest;
use crate::entry::Time;
use crate::hex;

/// Which file it is, and in which state. A change of the content shows, even one of the same size that sets the
/// modification time back: nobody can set `ctime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
}

impl Identity {
    /// Whether it is the same file, in whichever state.
    pub(crate) fn is_same_file(&self, other: &Identity) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The same in a short text that tells nothing about the server.
    pub(crate) fn etag(&self) -> String {
        let Identity { device, inode, size, mtime, ctime } = self;
        let mut bytes = [0; 48];
        let numbers = [*device, *inode, *size, mtime.s as u64, ctime.s as u64];
        let nanoseconds = u64::from(mtime.ns) << 32 | u64::from(ctime.ns);
        for (place, number) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(numbers.into_iter().chain([nanoseconds])) {
            *place = number.to_le_bytes();
        }
        hex::encode(&blake3::hash(&bytes).as_bytes()[..12])
    }
}

/// What a caller says a file should be, or should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Version {
    Etag(String),
    Digest(Digest),
}

impl Version {
    /// Reads an etag, or `ALGORITHM:HEX`.
    pub(crate) fn parse(text: &str) -> Result<Version, Status> {
        if text.contains(':') { Digest::parse(text).map(Version::Digest) } else { Ok(Version::Etag(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_shows_each_difference() {
        let time = Time { s: 5, ns: 6 };
        let first = Identity { device: 1, inode: 2, size: 3, mtime: time, ctime: time };
        let later = Time { s: 5, ns: 7 };
        let others = [
            Identity { device: 9, ..first },
            Identity { inode: 9, ..first },
            Identity { size: 9, ..first },
            Identity { mtime: later, ..first },
            Identity { ctime: later, ..first },
        ];
        assert_eq!(first.etag(), Identity { ..first }.etag());
        for other in others {
            assert_ne!(first.etag(), other.etag(), "{other:?}");
        }
    }
}
