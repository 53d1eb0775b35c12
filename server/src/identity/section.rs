//! `[tokens.NAME]` as it is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use plugd_core::{NAME_LEN_MAX, SettingError, is_legal_name};
use schemars::JsonSchema;
use serde::Deserialize;

use super::tokens::{Token, Tokens, parse_hash};

/// The most tokens of one configuration: each one that is presented is compared with all of them.
const TOKENS_MAX: usize = 4096;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The section `[tokens.NAME]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenSection {
    /// The hash of the token, as `plugd token new` prints it: sha256: and 64 hexadecimal digits.
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub(crate) hash: String,
    /// The last day on which it holds, or when it ends, in UTC: 2027-01-31 or 2027-01-31T12:00:00Z.
    #[serde(default)]
    pub(crate) expires: Option<String>,
}

impl TokenSection {
    /// Reads all sections. What is wrong comes with its path from `tokens` on.
    pub(crate) fn read(sections: &BTreeMap<String, TokenSection>) -> (Tokens, Vec<SettingError>) {
        let mut errors = Vec::new();
        if sections.len() > TOKENS_MAX {
            errors.push(SettingError::new("", format!("{} tokens; allowed: {TOKENS_MAX}", sections.len())));
        }
        let mut tokens: Vec<Arc<Token>> = Vec::new();
        for (name, section) in sections {
            let mut refuse = |key: &[&str], message: String| {
                let path = [name.as_str()].iter().chain(key).map(|part| (*part).to_owned()).collect();
                errors.push(SettingError { path, message });
            };
            if !is_legal_name(name) {
                let message = format!("illegal token name; allowed: [a-z][a-z0-9_-]*, at most {NAME_LEN_MAX} bytes");
                refuse(&[], message);
            }
            let expires = section.expires.as_deref().map(parse_end).transpose();
            let expires = expires.map_err(|message| refuse(&["expires"], message)).ok().flatten();
            let Some(hash) = parse_hash(&section.hash) else {
                // What stands there may be the token itself.
                let message = "no hash; allowed: sha256: and 64 hexadecimal digits, as `plugd token new` prints it";
                refuse(&["hash"], message.to_owned());
                continue;
            };
            if let Some(other) = tokens.iter().find(|token| token.hash == hash) {
                refuse(&["hash"], format!("the same as that of the token \"{}\"", other.name));
            }
            tokens.push(Arc::new(Token { name: name.as_str().into(), hash, expires }));
        }
        (Tokens::new(tokens), errors)
    }
}

/// When a token ends: a day ends with its last moment.
pub(crate) fn parse_end(text: &str) -> Result<SystemTime, String> {
    let day = humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).map(|begin| begin + DAY);
    day.or_else(|_| humantime::parse_rfc3339(text)).map_err(|_| {
        format!(
            "{text:?} is no date; allowed: a day, such as 2027-01-31, or a time in UTC, such as 2027-01-31T12:00:00Z"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(hash: &str, expires: Option<&str>) -> Vec<String> {
        let section = TokenSection { hash: hash.to_owned(), expires: expires.map(str::to_owned) };
        let sections = [("ci".to_owned(), section.clone()), ("ops".to_owned(), section)].into();
        TokenSection::read(&sections)
            .1
            .iter()
            .map(|error| format!("{}: {}", error.path.join("."), error.message))
            .collect()
    }

    #[test]
    fn what_is_wrong_is_told_without_the_value_that_may_be_a_secret() {
        let found = read("plugd_secret", Some("tomorrow"));
        assert_eq!(found.len(), 4);
        assert_eq!(
            found[1],
            "ci.hash: no hash; allowed: sha256: and 64 hexadecimal digits, as `plugd token new` prints it"
        );
        assert!(found[0].starts_with("ci.expires: \"tomorrow\" is no date; allowed: a day"), "{found:?}");
        assert_eq!(read(&super::super::hash_text("t"), None), ["ops.hash: the same as that of the token \"ci\""]);
    }

    #[test]
    fn a_day_ends_with_its_last_moment() {
        let end = |text: &str| humantime::format_rfc3339(parse_end(text).expect("a date")).to_string();
        assert_eq!(end("2027-01-31"), "2027-02-01T00:00:00Z");
        assert_eq!(end("2027-01-31T12:00:00Z"), "2027-01-31T12:00:00Z");
    }
}
