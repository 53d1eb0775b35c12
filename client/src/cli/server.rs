//! The servers of a command line: how each of them is reached, from its options, profiles and the environment.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use super::failure::Failure;
use super::profiles::Profile;
use crate::{Connector, ServerAddress, SetupError, Tls, TlsFiles, Token};

/// The variable that holds a token itself.
const TOKEN: &str = "PLUG_TOKEN";

/// The variable that names a file with a token.
const TOKEN_FILE: &str = "PLUG_TOKEN_FILE";

/// What stands in for `--ca`, `--cert` and `--key`.
const CA: &str = "PLUG_CA";
const CERT: &str = "PLUG_CERT";
const KEY: &str = "PLUG_KEY";

/// How a server is told who calls, and how it is known itself.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Means {
    /// Prove who calls with the token in FILE, which nobody else may read; or else with PLUG_TOKEN or PLUG_TOKEN_FILE
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub(crate) token_file: Option<PathBuf>,

    /// Send a token over TCP without TLS to other machines too, where everybody on the way can read it
    #[arg(long, global = true)]
    pub(crate) insecure_cleartext_token: bool,

    /// Trust only servers of tls:// whose CA is in FILE, in PEM form, not the system's list of CAs [env: PLUG_CA]
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub(crate) ca: Option<PathBuf>,

    /// Show the certificate in FILE, in PEM form, to a server of tls:// that asks for one [env: PLUG_CERT]
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub(crate) cert: Option<PathBuf>,

    /// The key of that certificate, in PEM form, in a file that nobody else may read [env: PLUG_KEY]
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub(crate) key: Option<PathBuf>,

    /// Expect the certificate of a server of tls:// to be for NAME instead of the host
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) server_name: Option<String>,
}

/// A server, and how it is reached.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Makes connections, without waiting for a server that is not up.
    pub(crate) connector: Connector,
    /// The name that it goes by, where that is not its address.
    pub(crate) label: Option<String>,
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
    /// Finds what would have no effect, which whoever gave it should know.
    pub(crate) fn check<'s>(&self, servers: impl Iterator<Item = &'s ServerAddress>) -> Result<(), Failure> {
        let servers: Vec<&ServerAddress> = servers.collect();
        let is_tls = |server: &&ServerAddress| matches!(server, ServerAddress::Tls { .. });
        let given = [
            ("--ca", self.ca.is_some()),
            ("--cert", self.cert.is_some()),
            ("--key", self.key.is_some()),
            ("--server-name", self.server_name.is_some()),
        ];
        match given.iter().find(|(_, is_given)| *is_given) {
            Some((option, _)) if !servers.iter().any(is_tls) => {
                let servers: Vec<String> = servers.iter().map(|server| server.to_string()).collect();
                let text = format!("{option} is for servers of tls://; given: {}", servers.join(", "));
                Err(Failure::Usage(text))
            }
            _ => Ok(()),
        }
    }

    /// What the command line says, and for the rest what a profile says.
    pub(crate) fn over(&self, profile: &Profile) -> Means {
        let (cert, key) = match (&self.cert, &self.key) {
            (None, None) => (profile.cert.clone(), profile.key.clone()),
            given => (given.0.clone(), given.1.clone()),
        };
        Means {
            token_file: self.token_file.clone().or_else(|| profile.token_file.clone()),
            insecure_cleartext_token: self.insecure_cleartext_token,
            ca: self.ca.clone().or_else(|| profile.ca.clone()),
            cert,
            key,
            server_name: self.server_name.clone().or_else(|| profile.server_name.clone()),
        }
    }

    /// How the server at `address` is reached.
    pub(crate) fn connector(&self, address: &ServerAddress) -> Result<Connector, Failure> {
        let mut connector = Connector::new(address.clone());
        if let Some(token) = self.token()? {
            connector = connector.token(token);
        }
        if matches!(address, ServerAddress::Tls { .. }) {
            connector = connector.tls(self.tls()?);
        }
        if self.insecure_cleartext_token {
            connector = connector.allow_cleartext_token();
        }
        Ok(connector)
    }

    fn tls(&self) -> Result<Tls, Failure> {
        let path = |given: &Option<PathBuf>, name| given.clone().or_else(|| variable(name).map(PathBuf::from));
        // A certificate and its key come from one place.
        let (certificate, key) = match (&self.cert, &self.key) {
            (None, None) => (path(&None, CERT), path(&None, KEY)),
            (certificate, key) => (certificate.clone(), key.clone()),
        };
        let tls = Tls::load(&TlsFiles { ca: path(&self.ca, CA), certificate, key })?;
        match &self.server_name {
            Some(name) => Ok(tls.server_name(name)?),
            None => Ok(tls),
        }
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
pub(super) fn variable(name: &str) -> Option<OsString> {
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
