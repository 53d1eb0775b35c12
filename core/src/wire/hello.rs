//! The first bytes of each side of a connection.

use super::frame::{DATA_LEN_MAX, DATA_LEN_MAX_LEAST};

/// The length of a hello, in bytes.
pub const HELLO_LEN: usize = 12;

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 1;

const MAGIC: [u8; 5] = *b"PLUGD";

/// What each side says first: the protocol, its version and the largest data frame that it accepts.
///
/// ```text
/// offset  size  field
///      0     5  magic "PLUGD"
///      5     1  version, 1
///      6     2  reserved, 0
///      8     4  data_len_max: u32 BE, the longest payload of a DATA frame that this side accepts, in bytes
/// ```
///
/// `data_len_max` is at least [`DATA_LEN_MAX_LEAST`], so that a client may send before it has read the server's hello,
/// and at most [`DATA_LEN_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The longest payload of a DATA frame that the sender of this hello accepts, in bytes.
    pub data_len_max: u32,
}

/// What knocked on the port instead of a plugd client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knock {
    /// An HTTP request.
    Http,
    /// A TLS client hello.
    Tls,
    /// An ssh banner.
    Ssh,
    /// Anything else.
    Stranger,
}

impl Knock {
    /// Judges by the first bytes that arrived.
    fn of(bytes: &[u8]) -> Knock {
        if bytes.starts_with(b"SSH-") {
            return Knock::Ssh;
        }
        if bytes.starts_with(&[0x16, 0x03]) {
            return Knock::Tls;
        }
        // A request line (RFC 9112, section 3) opens with the method, upper-case by custom, and a space.
        let method_len = bytes.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
        if (3..=16).contains(&method_len) && bytes.get(method_len) == Some(&b' ') {
            return Knock::Http;
        }
        Knock::Stranger
    }

    /// What the knocker is called in messages.
    pub fn name(self) -> &'static str {
        match self {
            Knock::Http => "an HTTP request",
            Knock::Tls => "a TLS client hello",
            Knock::Ssh => "an ssh banner",
            Knock::Stranger => "unknown bytes",
        }
    }
}

/// Why bytes are no hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The magic is missing; the other side does not speak this protocol.
    #[error("expected a plugd hello, found {}", .0.name())]
    Stranger(Knock),
    /// The magic is right and the version is not ours.
    #[error("unsupported protocol version {found}; supported: {VERSION}")]
    Version {
        /// The version that the other side asked for.
        found: u8,
    },
    /// A reserved byte is set.
    #[error("reserved bytes of the hello are not zero")]
    Reserved,
    /// The announced length lies outside the allowed range.
    #[error("announced data frame length {found} out of range; allowed: {DATA_LEN_MAX_LEAST} to {DATA_LEN_MAX}")]
    DataLenMax {
        /// The length that was announced, in bytes.
        found: u32,
    },
}

impl Hello {
    /// Writes the hello.
    pub fn encode(self) -> [u8; HELLO_LEN] {
        let mut bytes = [0; HELLO_LEN];
        bytes[..5].copy_from_slice(&MAGIC);
        bytes[5] = VERSION;
        bytes[8..].copy_from_slice(&self.data_len_max.to_be_bytes());
        bytes
    }

    /// Reads a hello off the front of `bytes`, or returns `None` while it may still become one.
    ///
    /// # Errors
    ///
    /// As soon as the bytes that are there cannot be the beginning of a hello.
    pub fn decode(bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
        let magic_len = bytes.len().min(MAGIC.len());
        if bytes[..magic_len] != MAGIC[..magic_len] {
            return Err(HelloError::Stranger(Knock::of(bytes)));
        }
        if let Some(&found) = bytes.get(5)
            && found != VERSION
        {
            return Err(HelloError::Version { found });
        }
        let Some(hello) = bytes.first_chunk::<HELLO_LEN>() else {
            return Ok(None);
        };
        if hello[6..8] != [0, 0] {
            return Err(HelloError::Reserved);
        }
        let data_len_max = u32::from_be_bytes([hello[8], hello[9], hello[10], hello[11]]);
        if !(DATA_LEN_MAX_LEAST..=DATA_LEN_MAX).contains(&data_len_max) {
            return Err(HelloError::DataLenMax { found: data_len_max });
        }
        Ok(Some(Hello { data_len_max }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_survives_the_round_trip_and_every_cut_of_it_waits_for_more() {
        let hello = Hello { data_len_max: 1 << 20 };
        let bytes = hello.encode();
        for cut in 0..HELLO_LEN {
            assert_eq!(Hello::decode(&bytes[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(Hello::decode(&bytes), Ok(Some(hello)));
    }

    #[test]
    fn knocks_are_told_apart() {
        for (bytes, knock) in [
            (&b"GET / HTTP/1.1\r\n"[..], Knock::Http),
            (b"POST /x HTTP/1.1\r\n", Knock::Http),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Knock::Ssh),
            (&[0x16, 0x03, 0x01, 0x02, 0x00], Knock::Tls),
            (b"hello\r\n", Knock::Stranger),
        ] {
            assert_eq!(Hello::decode(bytes), Err(HelloError::Stranger(knock)));
        }
    }

    #[test]
    fn a_foreign_version_is_told_before_the_rest_has_arrived() {
        assert_eq!(Hello::decode(b"PLUGD\x07"), Err(HelloError::Version { found: 7 }));
    }

    #[test]
    fn reserved_bytes_and_lengths_out_of_range_are_refused() {
        let mut bytes = Hello { data_len_max: DATA_LEN_MAX }.encode();
        bytes[7] = 1;
        assert_eq!(Hello::decode(&bytes), Err(HelloError::Reserved));
        for found in [0, DATA_LEN_MAX_LEAST - 1, DATA_LEN_MAX + 1] {
            let bytes = Hello { data_len_max: found }.encode();
            assert_eq!(Hello::decode(&bytes), Err(HelloError::DataLenMax { found }));
        }
    }
}
