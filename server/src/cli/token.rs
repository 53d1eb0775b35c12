//! `plugd token`: makes tokens.

use std::io::{self, Write};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use plugd_core::{NAME_LEN_MAX, is_legal_name};
use rustls::crypto::ring;

use super::{Failure, print};
use crate::identity::{TOKEN_PREFIX, hash_text, parse_end};

/// How much chance is in a token, in bytes.
const TOKEN_LEN: usize = 32;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token: it is printed once, to standard output, and what plugins.toml has to say of it to standard error
    New {
        /// What it is called in plugins.toml: in rules of access, and in the log
        #[arg(value_parser = parse_name)]
        name: String,
        /// The last day on which it holds, or when it ends, in UTC: 2027-01-31 or 2027-01-31T12:00:00Z
        #[arg(long, value_name = "DATE", value_parser = check_end)]
        expires: Option<String>,
    },
}

fn parse_name(text: &str) -> Result<String, String> {
    let refused = || format!("illegal token name; allowed: [a-z][a-z0-9_-]*, at most {NAME_LEN_MAX} bytes");
    if is_legal_name(text) { Ok(text.to_owned()) } else { Err(refused()) }
}

fn check_end(text: &str) -> Result<String, String> {
    let end = parse_end(text)?;
    if end <= SystemTime::now() {
        return Err(format!("{text} is over; allowed: a day that is not, or a time to come, in UTC"));
    }
    Ok(text.to_owned())
}

pub(super) fn run(token: &Token) -> Result<(), Failure> {
    let Token::New { name, expires } = token;
    let mut chance = [0; TOKEN_LEN];
    let filled = ring::default_provider().secure_random.fill(&mut chance);
    filled.map_err(|_| Failure::Refused("the system has no random numbers".to_owned()))?;
    let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(chance));
    let expires = expires.as_ref().map(|end| format!("expires = \"{end}\"\n")).unwrap_or_default();
    print(&format!("{token}\n"))?;
    let text = format!(
        "\nThat is the token; it is nowhere else. Into plugins.toml:\n\n[tokens.{name}]\nhash = \"{}\"\n{expires}\nA caller \
         keeps it in a file of its own (chmod 600) and calls: plug --token-file FILE ...\n",
        hash_text(&token)
    );
    io::stderr().write_all(text.as_bytes()).map_err(Failure::Output)
}
