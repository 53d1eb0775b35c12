//! A path as it stands in JSON: a string when its bytes are text, and their hexadecimal digits otherwise.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hex;

/// A path or a name: any bytes, since that is what names are on unix.
///
/// In JSON it is a string when the bytes are UTF-8, and `{"hex": "61ff"}` otherwise, in lower-case digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathText(PathBuf);

impl PathText {
    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }
}

impl<T: Into<PathBuf>> From<T> for PathText {
    fn from(path: T) -> PathText {
        PathText(path.into())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bytes {
    hex: String,
}

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;

        if let Some(text) = self.0.to_str() {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("hex", &hex::encode(self.0.as_os_str().as_bytes()))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PathText, D::Error> {
        deserializer.deserialize_any(PathVisitor)
    }
}

struct PathVisitor;

impl<'de> Visitor<'de> for PathVisitor {
    type Value = PathText;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a string, or {\"hex\": \"61ff\"} for bytes that are no text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PathText, E> {
        Ok(PathText(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PathText, A::Error> {
        let Bytes { hex } = Bytes::deserialize(MapAccessDeserializer::new(map))?;
        let bytes = hex::decode(&hex)
            .ok_or_else(|| A::Error::custom(format!("bad hex {hex:?}; allowed: pairs of hexadecimal digits")))?;
        Ok(PathText(OsString::from_vec(bytes).into()))
    }
}

impl JsonSchema for PathText {
    fn schema_name() -> Cow<'static, str> {
        "Path".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"],
            "properties": { "hex": { "type": "string" } },
            "additionalProperties": false
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_name_makes_the_round_trip() {
        for (bytes, text) in [
            (&b"plain"[..], json!("plain")),
            ("\u{fc}".as_bytes(), json!("\u{fc}")),
            (b"line\nbreak\x1b[31m", json!("line\nbreak\u{1b}[31m")),
            (b"\xff\xfe", json!({ "hex": "fffe" })),
        ] {
            let path = PathText::from(OsString::from_vec(bytes.to_vec()));
            assert_eq!(serde_json::to_value(&path).expect("JSON"), text);
            assert_eq!(serde_json::from_value::<PathText>(text).expect("a path"), path);
        }
    }

    #[test]
    fn bytes_that_are_no_digits_are_refused() {
        for text in [json!({ "hex": "f" }), json!({ "hex": "zz" }), json!({ "hx": "ff" }), json!({}), json!(5)] {
            assert!(serde_json::from_value::<PathText>(text.clone()).is_err(), "{text}");
        }
    }
}
