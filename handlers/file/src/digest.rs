//! The digests of whole files.

use std::fmt;

use md5::{Digest as _, Md5};
use plugd_core::Status;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use sha2::Sha256;

use crate::hex;

/// The longest digest in bytes.
const DIGEST_LEN_MAX: usize = 32;

/// How the content of a file is summed up, so that a change on its way shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Algorithm {
    /// MD5: 16 bytes; finds accidents, not forgeries.
    Md5,
    /// BLAKE3: 32 bytes; the fastest.
    Blake3,
    /// SHA-256: 32 bytes.
    Sha256,
    /// No digest at all.
    None,
}

impl Algorithm {
    /// Every algorithm, the default first.
    pub const ALL: [Algorithm; 4] = [Algorithm::Md5, Algorithm::Blake3, Algorithm::Sha256, Algorithm::None];

    /// The name in arguments, settings and digests.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Md5 => "md5",
            Algorithm::Blake3 => "blake3",
            Algorithm::Sha256 => "sha256",
            Algorithm::None => "none",
        }
    }

    fn digest_len(self) -> usize {
        match self {
            Algorithm::Md5 => 16,
            Algorithm::Blake3 | Algorithm::Sha256 => DIGEST_LEN_MAX,
            Algorithm::None => 0,
        }
    }
}

/// What an algorithm made of some content; on the wire `ALGORITHM:HEX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    algorithm: Algorithm,
    /// As many bytes as the algorithm makes, and zeros behind them.
    bytes: [u8; DIGEST_LEN_MAX],
}

impl Digest {
    /// How long a digest is as text, at most.
    pub(crate) const TEXT_LEN_MAX: usize = "blake3:".len() + 2 * DIGEST_LEN_MAX;

    fn new(algorithm: Algorithm, digest: &[u8]) -> Digest {
        let mut bytes = [0; DIGEST_LEN_MAX];
        bytes[..digest.len()].copy_from_slice(digest);
        Digest { algorithm, bytes }
    }

    /// Reads `ALGORITHM:HEX`, with digits of either case.
    pub(crate) fn parse(text: &str) -> Result<Digest, Status> {
        let parsed = text.split_once(':').and_then(|(name, digits)| {
            let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)?;
            let bytes = hex::decode(digits)?;
            (!bytes.is_empty() && bytes.len() == algorithm.digest_len()).then(|| Digest::new(algorithm, &bytes))
        });
        parsed.ok_or_else(|| Digest::bad(&format!("{text:?}")))
    }

    pub(crate) fn bad(found: &str) -> Status {
        let message = format!("bad digest {found}; allowed: md5:HEX, blake3:HEX or sha256:HEX, with all its digits");
        Status::invalid_argument("bad-digest", message)
    }

    pub(crate) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Digest { algorithm, bytes } = self;
        write!(out, "{}:{}", algorithm.name(), hex::encode(&bytes[..algorithm.digest_len()]))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Sums up content piece by piece.
#[derive(Debug, Clone)]
pub(crate) enum Hasher {
    Md5(Md5),
    Blake3(Box<blake3::Hasher>),
    Sha256(Sha256),
    /// Looks at nothing.
    None,
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Hasher {
        match algorithm {
            Algorithm::Md5 => Hasher::Md5(Md5::new()),
            Algorithm::Blake3 => Hasher::Blake3(Box::default()),
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::None => Hasher::None,
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Hasher::None)
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        match self {
            Hasher::Md5(hasher) => hasher.update(piece),
            Hasher::Blake3(hasher) => drop(hasher.update(piece)),
            Hasher::Sha256(hasher) => hasher.update(piece),
            Hasher::None => {}
        }
    }

    /// The digest of all pieces; `None` when there was nothing to compute.
    pub(crate) fn finish(self) -> Option<Digest> {
        match self {
            Hasher::Md5(hasher) => Some(Digest::new(Algorithm::Md5, &hasher.finalize())),
            Hasher::Blake3(hasher) => Some(Digest::new(Algorithm::Blake3, hasher.finalize().as_bytes())),
            Hasher::Sha256(hasher) => Some(Digest::new(Algorithm::Sha256, &hasher.finalize())),
            Hasher::None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests_come_out_and_are_read_back() {
        for (algorithm, text) in [
            (Algorithm::Md5, "md5:5d41402abc4b2a76b9719d911017c592"),
            (Algorithm::Blake3, "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"),
            (Algorithm::Sha256, "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"),
        ] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"he");
            hasher.update(b"llo");
            let digest = hasher.finish().expect("a digest");
            assert_eq!(digest.to_string(), text);
            let (name, digits) = text.split_once(':').expect("two parts");
            assert_eq!(Digest::parse(&format!("{name}:{}", digits.to_uppercase())), Ok(digest));
        }
        assert_eq!(Hasher::new(Algorithm::None).finish(), None);
    }

    #[test]
    fn what_is_no_digest_is_refused() {
        for text in ["", "md5", "md5:", "md5:00", "none:", "sha1:00", "5d41402abc4b2a76b9719d911017c592"] {
            assert_eq!(Digest::parse(text).expect_err(text).reason(), "bad-digest");
        }
    }
}
