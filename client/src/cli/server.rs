//! The servers of a command line: how each of them is reached, from its options and the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::failure::Failure;
use crate::{Connector, ServerAddress, SetupError, Token};

/// The variable that holds a token itself.
const TOKEN: &str = "PLUG_TOKEN";

/// The variable that names a file with a token.
const TOKEN_FILE: &str = "PLUG_TOKEN_FILE";

/// How a server is told who calls.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Means {
    /// Prove who calls with the token in FILE, which nobody else may read; or else with PLUG_TOKEN or PLUG_TOKEN_FILE
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,

    /// Send a token over TCP without TLS to other machines too, where everybody on the way can read it
    #[arg(long, global = true)]
    pub(crate) insecure_cleartext_token: bool,
}

/// A server, and how it is reached.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Makes connections, without waiting for a server that is not up.
    pub(crate) connector: Connector,
    /// The time that a call may take.
    pub(crate) timeout: Option<Duration>,
    /// The time to wait for the server to come up.
    pub(crate) wait: Option<Duration>,
}

impl Server {
    pub(crate) fn address(&self) -> &ServerAddress {
        self.connector.address()
    }
}

impl Means {
    /// How the server at `address` is reached.
    pub(crate) fn connector(&self, address: &ServerAddress) -> Result<Connector, Failure> {
        let mut connector = Connector::new(address.clone());
        if let Some(token) = self.token()? {
            connector = connector.token(token);
        }
        if self.insecure_cleartext_token {
            connector = connector.allow_cleartext_token();
        }
        Ok(connector)
    }

    fn token(&self) -> Result<Option<Token>, Failure> {
        if let Some(path) = &self.token_file {
            return Ok(Some(Token::read_file(path)?));
        }
        if let Some(text) = variable(TOKEN) {
            // What is no text is no token either, and is not shown.
            let token = Token::new(text.to_str().unwrap_or_default());
            return Ok(Some(token.map_err(|error| Failure::Usage(format!("{TOKEN}: {error}")))?));
        }
        let path = variable(TOKEN_FILE).map(PathBuf::from);
        Ok(path.map(|path| Token::read_file(&path)).transpose()?)
    }
}

/// A variable of the environment; an empty one is none.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Failure {
        match error {
            SetupError::Read { source, what, path } => {
                Failure::io(format!("cannot read {what} {}", path.display()), source)
            }
            error => Failure::Usage(error.to_string()),
        }
    }
}
