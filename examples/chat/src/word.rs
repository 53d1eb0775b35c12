//! What members and rooms may be called.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest word, in characters: a line still shows what was said.
pub const WORD_LEN_MAX: usize = 32;

/// The name of a member or of a room: 1 to [`WORD_LEN_MAX`] characters, no spaces and no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Word(Arc<str>);

impl Word {
    /// A word of this text.
    ///
    /// # Errors
    ///
    /// What was found and what is allowed.
    pub fn new(text: &str) -> Result<Word, String> {
        let is_good = |char: char| !char.is_whitespace() && !char.is_control();
        match text.chars().count() {
            1..=WORD_LEN_MAX if text.chars().all(is_good) => Ok(Word(text.into())),
            _ => Err(format!("bad name {text:?}; allowed: 1 to {WORD_LEN_MAX} characters without spaces")),
        }
    }
}

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(text: String) -> Result<Word, String> {
        Word::new(&text)
    }
}

impl From<Word> for String {
    fn from(word: Word) -> String {
        word.0.as_ref().to_owned()
    }
}

impl fmt::Display for Word {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
