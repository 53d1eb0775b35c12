//! Names and paths as a server takes and tells them: bytes, of which most are text.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cli::text::one_line_of_bytes;

/// The most parts that a path below a destination may have: a server must not make us open directories without end.
pub(crate) const PARTS_MAX: usize = 1024;

/// A path on the server, or below a directory; parts are separated by `/`.
///
/// In JSON it is a string when the bytes are UTF-8, and `{"hex": "61ff"}` otherwise. Shown to people it is one line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Name(Vec<u8>);

#[derive(Serialize, Deserialize)]
struct Hex {
    hex: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Hex(Hex),
}

impl Name {
    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> Name {
        Name(bytes.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }

    /// The path of `other` within the directory of this path.
    pub(crate) fn join(&self, other: &Name) -> Name {
        let mut bytes = self.0.clone();
        if !bytes.is_empty() && !bytes.ends_with(b"/") {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(&other.0);
        Name(bytes)
    }

    /// What stands before the last `/` and after it, trailing ones aside; the first is empty where there is none.
    pub(crate) fn split_last(&self) -> (Name, Name) {
        let end = self.0.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let bytes = &self.0[..end];
        match bytes.iter().rposition(|byte| *byte == b'/') {
            None => (Name::default(), Name::new(bytes)),
            Some(0) => (Name::new(b"/"), Name::new(&bytes[1..])),
            Some(at) => (Name::new(&bytes[..at]), Name::new(&bytes[at + 1..])),
        }
    }

    /// The last part, when that can be a file's name.
    pub(crate) fn file_name(&self) -> Option<Name> {
        let last = self.split_last().1;
        (!self.0.ends_with(b"/") && is_part(last.as_bytes())).then_some(last)
    }

    /// The parts of a path that stays below the directory it is taken in.
    ///
    /// # Errors
    ///
    /// What is wrong with it: a server must not lead us anywhere else.
    pub(crate) fn parts_below(&self) -> Result<Vec<OsString>, &'static str> {
        let mut parts = Vec::new();
        for part in self.0.split(|byte| *byte == b'/') {
            if !is_part(part) {
                return Err("the server sent a name that leads elsewhere");
            }
            parts.push(OsString::from_vec(part.to_vec()));
        }
        if parts.len() > PARTS_MAX { Err("the server sent a path with too many parts") } else { Ok(parts) }
    }
}

/// Whether bytes name an entry of a directory, and not the directory itself, the one above it or several at once.
fn is_part(part: &[u8]) -> bool {
    !part.is_empty() && part != b"." && part != b".." && !part.contains(&0) && !part.contains(&b'/')
}

impl From<&OsStr> for Name {
    fn from(text: &OsStr) -> Name {
        Name(text.as_bytes().to_vec())
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Name {
        Name(text.as_bytes().to_vec())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&one_line_of_bytes(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{self}\"")
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Hex { hex: hex(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        match Text::deserialize(deserializer)? {
            Text::Plain(text) => Ok(Name(text.into_bytes())),
            Text::Hex(Hex { hex }) => unhex(&hex).map(Name).ok_or_else(|| serde::de::Error::custom("no hex digits")),
        }
    }
}

/// Two hex digits a byte, in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.as_bytes().chunks(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[test]
    fn any_bytes_make_the_round_trip_through_json() {
        for (bytes, expected) in [(&b"a\nb"[..], json!("a\nb")), (b"a\xff\xfe", json!({"hex": "61fffe"}))] {
            let value = serde_json::to_value(Name::new(bytes)).expect("a name is JSON");
            assert_eq!(value, expected);
            assert_eq!(serde_json::from_value::<Name>(value).expect("a name"), Name::new(bytes));
        }
        assert!(serde_json::from_value::<Name>(json!({"hex": "6"})).is_err());
        assert!(serde_json::from_value::<Name>(json!({"hex": "é1"})).is_err());
    }

    #[rstest]
    #[case("")]
    #[case("/a")]
    #[case("..")]
    #[case("a/../b")]
    #[case("a//b")]
    #[case("./a")]
    #[case("a/")]
    #[case("a\0b")]
    fn a_path_that_leads_elsewhere_is_refused(#[case] path: &str) {
        assert!(Name::from(path).parts_below().is_err());
    }

    #[test]
    fn a_path_below_has_its_parts() {
        assert_eq!(Name::from("a/b c").parts_below(), Ok(vec!["a".into(), "b c".into()]));
    }

    #[rstest]
    #[case("a/b", "a", "b")]
    #[case("b", "", "b")]
    #[case("a/b//", "a", "b")]
    #[case("/b", "/", "b")]
    fn a_path_has_a_last_part(#[case] path: &str, #[case] before: &str, #[case] last: &str) {
        assert_eq!(Name::from(path).split_last(), (Name::from(before), Name::from(last)));
    }

    #[test]
    fn directories_of_any_spelling_are_no_file_names() {
        for path in ["", ".", "..", "a/", "a/..", "/"] {
            assert_eq!(Name::from(path).file_name(), None, "{path}");
        }
    }
}
