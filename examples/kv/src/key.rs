//! What a key may be.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = 512;

/// A key: 1 to [`KEY_LEN_MAX`] bytes of text without control characters, so that a list has one a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Key(Arc<str>);

impl TryFrom<String> for Key {
    type Error = String;

    fn try_from(text: String) -> Result<Key, String> {
        match text.len() {
            1..=KEY_LEN_MAX if !text.contains(char::is_control) => Ok(Key(text.into())),
            1..=KEY_LEN_MAX => Err(format!("key {text:?} has control characters; allowed: none")),
            len => Err(format!("key of {len} bytes; allowed: 1 to {KEY_LEN_MAX}")),
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.0.as_ref().to_owned()
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
