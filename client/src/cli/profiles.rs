//! Named servers, from the user's file of profiles.
//!
//! ```text
//! $PLUG_CONFIG, or $XDG_CONFIG_HOME/plugd/client.toml, or ~/.config/plugd/client.toml
//! ```
//!
//! Each `[profiles.NAME]` holds a server and what reaches it; paths in it are relative to the file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use plugd_core::did_you_mean;
use serde::{Deserialize, Deserializer};
use toml::de::{DeTable, DeValue};

use super::failure::Failure;
use super::options::{parse_timeout, parse_wait};
use super::server::variable;
use super::text::one_line;
use crate::setup::Input;
use crate::{AddressError, ServerAddress};

/// The variable that names another file.
const CONFIG: &str = "PLUG_CONFIG";

/// The longest file, in bytes: some thousand profiles.
const FILE_LEN_MAX: u64 = 1 << 20;

/// The keys of a profile.
const KEYS: [&str; 8] = ["server", "ca", "cert", "key", "server_name", "token_file", "timeout", "wait"];

/// A server as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerName {
    /// By its address.
    Address(ServerAddress),
    /// By the name of a profile, which stands behind an `@`.
    Profile(String),
}

impl FromStr for ServerName {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<ServerName, AddressError> {
        match text.strip_prefix('@') {
            Some(name) => Ok(ServerName::Profile(name.to_owned())),
            None => text.parse().map(ServerName::Address),
        }
    }
}

impl Default for ServerName {
    fn default() -> ServerName {
        ServerName::Address(ServerAddress::default())
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerName::Address(address) => address.fmt(out),
            ServerName::Profile(name) => write!(out, "@{name}"),
        }
    }
}

/// A server and what reaches it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    #[serde(deserialize_with = "parsed")]
    pub(crate) server: ServerAddress,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) cert: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    #[serde(default, deserialize_with = "timeout")]
    pub(crate) timeout: Option<Duration>,
    #[serde(default, deserialize_with = "wait")]
    pub(crate) wait: Option<Duration>,
}

fn parsed<'de, D: Deserializer<'de>>(from: D) -> Result<ServerAddress, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

fn timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    parse_timeout(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

fn wait<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    parse_wait(&String::deserialize(from)?).map(Some).map_err(serde::de::Error::custom)
}

/// The user's profiles.
#[derive(Debug)]
pub(crate) struct Profiles {
    path: PathBuf,
    profiles: BTreeMap<String, Profile>,
}

impl Profiles {
    /// Reads the user's file.
    pub(crate) fn of_user() -> Result<Profiles, Failure> {
        let path = path().ok_or_else(|| {
            Failure::Usage(format!("no file of profiles: none of {CONFIG}, XDG_CONFIG_HOME and HOME is set"))
        })?;
        let bytes = Input { what: "profiles", path: &path, len_max: FILE_LEN_MAX }.read()?;
        let text = String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("{}: no UTF-8", path.display())))?;
        Profiles::parse(path, &text).map_err(Failure::Usage)
    }

    /// Reads the text of a file; an error says where in it.
    fn parse(path: PathBuf, text: &str) -> Result<Profiles, String> {
        let at = |offset: usize, what: &str| {
            let (line, column) = position(text, offset);
            format!("{}:{line}:{column}: {}", path.display(), one_line(what.trim()))
        };
        let offset = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
        let document = DeTable::parse(text).map_err(|error| at(offset(&error), error.message()))?.into_inner();
        if let Some((offset, what)) = unknown(&document) {
            return Err(at(offset, &what));
        }
        let mut document: File = toml::from_str(text).map_err(|error| at(offset(&error), error.message()))?;
        let dir = path.parent().map(Path::to_owned).unwrap_or_default();
        for profile in document.profiles.values_mut() {
            let paths = [&mut profile.ca, &mut profile.cert, &mut profile.key, &mut profile.token_file];
            for path in paths.into_iter().flatten() {
                *path = dir.join(&*path);
            }
        }
        Ok(Profiles { path, profiles: document.profiles })
    }

    /// The profile of this name.
    pub(crate) fn find(&self, name: &str) -> Result<&Profile, Failure> {
        self.profiles.get(name).ok_or_else(|| {
            let hint = did_you_mean(name, self.names());
            let known = self.names().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            Failure::Usage(format!("{}: no profile \"{name}\"{hint}; available: {known}", self.path.display()))
        })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().map(String::as_str)
    }
}

/// What nobody knows in the file, or what is no table, and where; serde would not say what is nearest.
fn unknown(document: &DeTable<'_>) -> Option<(usize, String)> {
    if let Some(key) = document.keys().find(|key| key.get_ref() != "profiles") {
        let hint = did_you_mean(key.get_ref(), ["profiles"]);
        return Some((key.span().start, format!("unknown section \"{}\"{hint}; allowed: profiles", key.get_ref())));
    }
    let section = document.get("profiles")?;
    let DeValue::Table(tables) = section.get_ref() else {
        return Some((section.span().start, "profiles must be tables, [profiles.NAME]".to_owned()));
    };
    tables.iter().find_map(|(name, profile)| {
        let DeValue::Table(keys) = profile.get_ref() else {
            return Some((profile.span().start, format!("\"{}\" must be a table", name.get_ref())));
        };
        let key = keys.keys().find(|key| !KEYS.contains(&key.get_ref().as_ref()))?;
        let hint = did_you_mean(key.get_ref(), KEYS);
        Some((key.span().start, format!("unknown key \"{}\"{hint}; allowed: {}", key.get_ref(), KEYS.join(", "))))
    })
}

/// What the file holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    profiles: BTreeMap<String, Profile>,
}

fn path() -> Option<PathBuf> {
    if let Some(path) = variable(CONFIG) {
        return Some(path.into());
    }
    // A relative directory is to be ignored (XDG Base Directory Specification).
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = config.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))?;
    Some(config.join("plugd/client.toml"))
}

/// The line and the column of a byte offset, both from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn parse(text: &str) -> Result<Profiles, String> {
        Profiles::parse("/etc/x/client.toml".into(), text)
    }

    #[test]
    fn the_sample_of_the_documentation_is_read() {
        let calling = include_str!("../../../docs/calling.md");
        let sample = calling.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a sample");
        let profiles = parse(sample).expect("a good file");
        let prod = profiles.find("prod").expect("a profile");
        assert_eq!(prod.server.to_string(), "tls://plugd.example:7584");
        assert_eq!(prod.token_file.as_deref(), Some(Path::new("/etc/x/prod.token")));
        assert_eq!(prod.wait, Some(Duration::from_secs(10)));
    }

    #[rstest]
    #[case(
        "[profiles.a]\nserver = \"h\"\ntoken_fil = \"t\"\n",
        ":3:1: unknown key \"token_fil\"; did you mean \"token_file\"?"
    )]
    #[case("[profiles.a]\nserver = 5\n", ":2:10: invalid type: integer")]
    #[case("[profiles.a]\nserver = \"ssl://h\"\n", ":2:10: scheme \"ssl://\" not supported")]
    #[case("[profiles.a]\nca = \"x\"\n", ":1:1: missing field `server`")]
    #[case("[profiles.a]\nserver = \"h\"\ntimeout = \"soon\"\n", ":3:11: ")]
    #[case("[profile.a]\n", ":1:2: unknown section \"profile\"; did you mean \"profiles\"?")]
    #[case("profiles = 1\n", ":1:12: profiles must be tables")]
    #[case("[profiles.a\n", ":1:")]
    fn a_wrong_file_is_refused_where_it_is_wrong(#[case] text: &str, #[case] expected: &str) {
        let error = parse(text).expect_err("a wrong file");
        assert!(error.starts_with(&format!("/etc/x/client.toml{expected}")), "{error}");
    }

    #[test]
    fn an_unknown_profile_is_answered_with_the_nearest() {
        let profiles = parse("[profiles.prod]\nserver = \"h\"\n").expect("a good file");
        let line = profiles.find("prd").expect_err("no such profile").line().expect("a line");
        assert!(line.ends_with("no profile \"prd\"; did you mean \"prod\"?; available: prod"), "{line}");
    }
}
