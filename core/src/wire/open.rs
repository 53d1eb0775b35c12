//! The opening header: which command is called, with which arguments, until when.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::json::{JSON_DEPTH_MAX, json_depth_exceeds, require_object};

/// The longest command, in bytes: two names and the dot between them, with room.
pub const COMMAND_LEN_MAX: usize = 160;

/// The most entries of metadata in one opening header: enough for a trace and a few labels.
pub const METADATA_ENTRIES_MAX: usize = 32;

/// The longest token, in bytes: those that plugd makes have 49, and others' fit as well.
pub const TOKEN_LEN_MAX: usize = 512;

/// The shortest deadline that may be asked for: with none at all a call might run or not, as chance has it.
const DEADLINE_LEAST: Duration = Duration::from_millis(1);

/// The longest deadline that may be asked for, 30 days: further away is a mistake, or a clock's overflow.
pub const DEADLINE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The JSON object in an OPEN frame.
///
/// ```text
/// command      string, required: PLUGIN or PLUGIN.OPERATION
/// args         object, the operation's arguments; absent means none
/// deadline_ms  integer, how long the call may take from its arrival, in milliseconds; absent means no wish
/// metadata     object of strings that the server passes to the handler untouched; absent means none
/// auth         object, what the caller proves itself with from this call on; absent means what it proved before
/// ```
///
/// Other keys are refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Open<'a> {
    /// What is called: a plugin, or a plugin and one of its operations with a dot between them.
    #[serde(borrow)]
    pub command: Cow<'a, str>,
    /// The operation's arguments, an object as JSON text; `None` means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Box<RawValue>>,
    /// How long the call may take from its arrival at the server, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// What the handler is told beside the arguments, untouched.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What the caller proves itself with from this call on; `None` means with nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "auth")]
    pub auth: Option<Auth>,
}

/// Reads what a caller proves itself with. What is wrong with it is told without repeating any of it: it may be a secret in the
/// wrong place.
fn auth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Auth>, D::Error> {
    Option::deserialize(deserializer).map_err(|_| D::Error::custom("auth is something else than {\"token\": STRING}"))
}

/// What a caller proves itself with. The server takes it off the header: no handler and no log ever sees it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// A secret that the server knows by a name.
    pub token: String,
}

/// Shows that there is something, and not what.
impl fmt::Debug for Auth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Auth").finish_non_exhaustive()
    }
}

/// Why an opening header is refused. The frame was whole, so the connection stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The payload is no JSON object of the documented shape.
    #[error("opening header is malformed: {0}")]
    Json(serde_json::Error),
    /// Arrays and objects nest too deep.
    #[error("opening header nests too deep; allowed: {JSON_DEPTH_MAX} levels")]
    Depth,
    /// The command is empty or too long.
    #[error("command of {found} bytes refused; allowed: 1 to {COMMAND_LEN_MAX}")]
    CommandLen {
        /// Its length in bytes.
        found: usize,
    },
    /// The arguments are something else than an object.
    #[error("arguments must be an object")]
    Args,
    /// The deadline has passed already or is too far away.
    #[error("deadline of {found} ms out of range; allowed: {} to {}", DEADLINE_LEAST.as_millis(), DEADLINE_MAX.as_millis())]
    Deadline {
        /// The deadline that was asked for, in milliseconds.
        found: u64,
    },
    /// There is too much metadata.
    #[error("{found} entries of metadata refused; allowed: {METADATA_ENTRIES_MAX}")]
    Metadata {
        /// The number of entries.
        found: usize,
    },
    /// The token is empty or too long.
    #[error("token of {found} bytes refused; allowed: 1 to {TOKEN_LEN_MAX}")]
    TokenLen {
        /// Its length in bytes.
        found: usize,
    },
}

impl<'a> Open<'a> {
    /// A call of `command` without arguments.
    pub fn new(command: impl Into<Cow<'a, str>>) -> Open<'a> {
        Open { command: command.into(), args: None, deadline_ms: None, metadata: BTreeMap::new(), auth: None }
    }

    /// Reads the payload of an OPEN frame.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which says what was found and what is allowed.
    pub fn decode(payload: &'a [u8]) -> Result<Open<'a>, OpenError> {
        if let Some(command) = bare_command(payload) {
            return Ok(Open::new(command));
        }
        if json_depth_exceeds(payload, JSON_DEPTH_MAX) {
            return Err(OpenError::Depth);
        }
        require_object(payload).map_err(OpenError::Json)?;
        let open: Open<'a> = serde_json::from_slice(payload).map_err(OpenError::Json)?;
        open.check()?;
        Ok(open)
    }

    fn check(&self) -> Result<(), OpenError> {
        if self.command.is_empty() || self.command.len() > COMMAND_LEN_MAX {
            return Err(OpenError::CommandLen { found: self.command.len() });
        }
        if self.args.as_ref().is_some_and(|args| !args.get().starts_with('{')) {
            return Err(OpenError::Args);
        }
        if let Some(found) = self.deadline_ms
            && !(DEADLINE_LEAST..=DEADLINE_MAX).contains(&Duration::from_millis(found))
        {
            return Err(OpenError::Deadline { found });
        }
        if self.metadata.len() > METADATA_ENTRIES_MAX {
            return Err(OpenError::Metadata { found: self.metadata.len() });
        }
        if let Some(auth) = &self.auth
            && (auth.token.is_empty() || auth.token.len() > TOKEN_LEN_MAX)
        {
            return Err(OpenError::TokenLen { found: auth.token.len() });
        }
        Ok(())
    }

    /// Writes the payload of an OPEN frame.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and JSON text always serialise")
    }
}

/// The command of a header that holds nothing else, in the form in which most clients write it; `None` means look closer.
///
/// Most headers of busy callers look like this, and reading them in full is a third of a small call.
fn bare_command(payload: &[u8]) -> Option<&str> {
    let command = payload.strip_prefix(br#"{"command":""#)?.strip_suffix(br#""}"#)?;
    let is_plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if command.is_empty() || command.len() > COMMAND_LEN_MAX || !command.iter().all(is_plain) {
        return None;
    }
    std::str::from_utf8(command).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        Open::decode(json.as_bytes()).expect_err("a refused header").to_string()
    }

    #[test]
    fn a_full_header_survives_the_round_trip() {
        let json =
            r#"{"command":"docs.get","args":{"path":"a\n"},"deadline_ms":5,"metadata":{"k":"v"},"auth":{"token":"t"}}"#;
        let open = Open::decode(json.as_bytes()).expect("a good header");
        assert_eq!(open.command, "docs.get");
        assert_eq!(open.deadline_ms, Some(5));
        assert_eq!(open.encode(), json.as_bytes());
    }

    #[test]
    fn a_token_is_never_shown() {
        let open = Open::decode(br#"{"command":"a","auth":{"token":"secret"}}"#).expect("a good header");
        assert!(!format!("{open:?}").contains("secret"), "{open:?}");
        for auth in
            [r#""secret""#, r#"{"secret":1}"#, r#"{"token":["secret"]}"#, r#"{"token":"secret","x":1}"#, r#"["secret""#]
        {
            let found = refusal(&format!(r#"{{"command":"a","auth":{auth}}}"#));
            assert!(found.contains("auth is something else") && !found.contains("secret"), "{found}");
        }
    }

    #[test]
    fn the_short_way_reads_what_the_long_way_reads() {
        for json in [
            r#"{"command":"echo"}"#,
            r#"{"command":"my-files_2.get"}"#,
            r#"{"command":""}"#,
            r#"{"command":"a\"}"#,
            r#"{"command":"a","x":"b"}"#,
            r#"{"command":"A"}"#,
            "{\"command\":\"\u{e4}\"}",
        ] {
            let long_way = serde_json::from_str::<Open<'_>>(json).ok().filter(|open| open.check().is_ok());
            let found = Open::decode(json.as_bytes()).ok();
            assert_eq!(found.map(|open| open.command), long_way.map(|open| open.command), "{json}");
        }
        assert_eq!(bare_command(br#"{"command":"echo"}"#), Some("echo"));
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        assert!(refusal("not json").starts_with("opening header is malformed: expected"));
        assert!(refusal("{}").contains("missing field `command`"));
        assert!(refusal(r#" ["upper",null,5000,{}]"#).contains("expected an object, found an array"));
        assert!(refusal(r#"{"command":"a","comand":1}"#).contains("unknown field `comand`"));
        assert!(refusal(r#"{"command":"a","command":"b"}"#).contains("duplicate field"));
        assert_eq!(refusal(r#"{"command":""}"#), "command of 0 bytes refused; allowed: 1 to 160");
        assert_eq!(refusal(r#"{"command":"a","args":[1]}"#), "arguments must be an object");
        assert_eq!(
            refusal(r#"{"command":"a","deadline_ms":9999999999999}"#),
            "deadline of 9999999999999 ms out of range; allowed: 1 to 2592000000"
        );
        assert!(refusal(r#"{"command":"a","deadline_ms":0}"#).contains("deadline of 0 ms out of range"));
        assert_eq!(refusal(r#"{"command":"a","auth":{"token":""}}"#), "token of 0 bytes refused; allowed: 1 to 512");
        let deep = format!(r#"{{"command":"a","args":{}1{}}}"#, r#"{"a":"#.repeat(100), "}".repeat(100));
        assert_eq!(refusal(&deep), "opening header nests too deep; allowed: 32 levels");
    }
}
