//! Digests of whole files, in the form `ALGORITHM:HEX`.

use std::fmt;
use std::io::{self, Read};

use clap::ValueEnum;
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::name::hex;

/// How much of a file is read at once, in bytes.
pub(crate) const READ_LEN: usize = 256 << 10;

/// Which digest a transfer is verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Algorithm {
    /// MD5, as in the original protocol; finds accidents, not attacks
    #[default]
    Md5,
    /// BLAKE3, the fastest one that is also safe
    Blake3,
    /// SHA-256
    Sha256,
    /// None: only the size is checked
    None,
}

impl Algorithm {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "md5",
            Algorithm::Blake3 => "blake3",
            Algorithm::Sha256 => "sha256",
            Algorithm::None => "none",
        }
    }

    pub(crate) fn is_none(self) -> bool {
        self == Algorithm::None
    }

    pub(crate) fn hasher(self) -> Hasher {
        match self {
            Algorithm::Md5 => Hasher::Md5(Md5::new()),
            Algorithm::Blake3 => Hasher::Blake3(Box::new(blake3::Hasher::new())),
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::None => Hasher::None,
        }
    }

    /// The digest of everything that `file` has from where it stands; `None` when this is no algorithm.
    pub(crate) fn digest_of(self, file: &mut impl Read) -> io::Result<Option<String>> {
        let mut hasher = self.hasher();
        let mut buf = vec![0; READ_LEN];
        loop {
            match file.read(&mut buf) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(read) => hasher.update(&buf[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A digest in the making.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    Md5(Md5),
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
    None,
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Md5(hasher) => hasher.update(bytes),
            Hasher::Blake3(hasher) => drop(hasher.update(bytes)),
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::None => {}
        }
    }

    /// The digest as `ALGORITHM:HEX`, or `None` when none is made.
    pub(crate) fn finish(self) -> Option<String> {
        match self {
            Hasher::Md5(hasher) => Some(format!("md5:{}", hex(&hasher.finalize()))),
            Hasher::Blake3(hasher) => Some(format!("blake3:{}", hex(blake3::Hasher::finalize(&hasher).as_bytes()))),
            Hasher::Sha256(hasher) => Some(format!("sha256:{}", hex(&hasher.finalize()))),
            Hasher::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    // RFC 1321, the BLAKE3 paper's test vectors, FIPS 180-2.
    #[rstest]
    #[case(Algorithm::Md5, Some("md5:900150983cd24fb0d6963f7d28e17f72"))]
    #[case(Algorithm::Blake3, Some("blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"))]
    #[case(Algorithm::Sha256, Some("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))]
    #[case(Algorithm::None, None)]
    fn digests_are_the_published_ones(#[case] algorithm: Algorithm, #[case] digest: Option<&str>) {
        assert_eq!(algorithm.digest_of(&mut &b"abc"[..]).expect("bytes").as_deref(), digest);
    }
}
