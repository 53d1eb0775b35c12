//! What get and put say about a file, and what they check.

use std::fmt::Write;

use md5::{Digest, Md5};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::failure::Failure;
use super::text::one_line;
use crate::Reply;

/// Size and digest of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// In bytes.
    pub(crate) size: u64,
    /// MD5, 32 hex digits in lower case.
    pub(crate) md5: String,
}

impl Content {
    /// Reads `size` and `md5` from a header or a trailer.
    pub(crate) fn promised(object: Option<&Map<String, Value>>, whose: &str) -> Result<Content, Failure> {
        let member = |name: &str| object.and_then(|object| object.get(name));
        let size = member("size").and_then(Value::as_u64);
        let md5 = member("md5").and_then(Value::as_str).map(str::to_ascii_lowercase);
        let missing = || Failure::protocol(format!("{whose} lacks size or md5"));
        Ok(Content { size: size.ok_or_else(missing)?, md5: md5.ok_or_else(missing)? })
    }

    /// Refuses content that is not the one that was promised.
    pub(crate) fn verify(&self, promised: &Content) -> Result<(), Failure> {
        let Content { size, md5 } = self;
        if *size != promised.size {
            let text = format!("{size} bytes came through; expected: {}", promised.size);
            return Err(Failure::data_loss("size-mismatch", text));
        }
        if *md5 != promised.md5 {
            let text = format!("md5 {md5} came through; expected: {}", one_line(&promised.md5));
            return Err(Failure::data_loss("digest-mismatch", text));
        }
        Ok(())
    }

    /// The receipt, for people and for programs.
    pub(crate) fn receipt(&self, did: &str, name: &str, reply: Reply) -> Answer {
        let Content { size, md5 } = self;
        let note = format!("{did} {}, {size} bytes, md5 {md5}", one_line(name));
        let data = json!({ "name": name, "size": size, "md5": md5 });
        Answer { note: Some(note), ..Answer::of_json(reply, data, String::new()) }
    }
}

/// Measures content while it passes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    size: u64,
    hasher: Md5,
}

impl Meter {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    /// How many bytes have passed.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn content(self) -> Content {
        let mut md5 = String::new();
        for byte in self.hasher.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(md5, "{byte:02x}");
        }
        Content { size: self.size, md5 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(bytes: &[u8]) -> Content {
        let mut meter = Meter::default();
        meter.add(bytes);
        meter.content()
    }

    #[test]
    fn the_digest_is_the_one_of_rfc_1321() {
        let content = measured(b"abc");
        assert_eq!(content, Content { size: 3, md5: "900150983cd24fb0d6963f7d28e17f72".to_owned() });
    }

    #[test]
    fn other_content_is_data_loss() {
        let reason = |promised: &Content| match measured(b"abc").verify(promised) {
            Err(Failure::Status(reply)) => reply.status.reason().to_owned(),
            other => panic!("data loss expected, found {other:?}"),
        };
        assert_eq!(reason(&Content { size: 4, ..measured(b"abc") }), "size-mismatch");
        assert_eq!(reason(&measured(b"abd")), "digest-mismatch");
    }

    #[test]
    fn a_header_without_a_digest_promises_nothing() {
        let head = json!({"size": 3});
        Content::promised(head.as_object(), "header of get").expect_err("no md5");
    }
}
