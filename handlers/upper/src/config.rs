//! What an operator may set.

use plugd_core::{Context, Settings, StartError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Upper;

/// The settings of the handler `upper`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpperSettings {
    /// What is upper-cased: every letter of Unicode, or the letters a to z in bytes of any kind.
    pub mode: Mode,
    /// What becomes of bytes that are no UTF-8, in the mode `unicode`.
    pub invalid: Invalid,
}

/// What is upper-cased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every letter that Unicode gives an upper case, in text that is UTF-8.
    #[default]
    Unicode,
    /// The letters a to z; all other bytes pass as they are.
    Ascii,
}

/// What becomes of bytes that are no UTF-8.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Invalid {
    /// They end the call.
    #[default]
    Fail,
    /// They pass as they are.
    Pass,
}

impl Settings for UpperSettings {
    type Handler = Upper;

    fn build(self, _context: &Context) -> Result<Upper, StartError> {
        Ok(Upper::new(self))
    }
}
