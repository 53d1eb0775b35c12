//! TLS at listeners: which certificates a server shows and takes, and how they are read again.

mod names;
mod section;
mod stream;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

pub(crate) use self::section::{TlsSection, TlsSettings, TlsTable};
pub(crate) use self::stream::TlsStream;

/// What the protocol is called where TLS asks (ALPN, RFC 7301). A client that offers nothing is served as well.
const ALPN: &[u8] = b"plugd/1";

/// How a listener meets its peers; connections that are there keep what they began with.
#[derive(Debug)]
pub(crate) struct Tls {
    settings: TlsSettings,
    base_dir: PathBuf,
    config: ArcSwap<ServerConfig>,
}

/// Why certificates or keys are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// What the files hold does not fit together.
    #[error("{0}")]
    Config(String),
}

/// A configuration that was read again and is not in force yet.
pub(crate) struct Renewed<'t> {
    tls: &'t Tls,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the certificates and keys that the settings name.
    pub(crate) fn load(settings: TlsSettings, base_dir: &Path) -> Result<Tls, TlsError> {
        let config = load(&settings, base_dir)?.into();
        Ok(Tls { settings, base_dir: base_dir.to_owned(), config })
    }

    /// Reads them again, for connections to come once that is [put in force](Renewed::put_in_force).
    pub(crate) fn renewed(&self) -> Result<Renewed<'_>, TlsError> {
        Ok(Renewed { tls: self, config: load(&self.settings, &self.base_dir)? })
    }

    /// What a connection that comes now begins with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

impl Renewed<'_> {
    pub(crate) fn put_in_force(self) {
        self.tls.config.store(self.config);
    }
}

/// Shakes hands, and returns the names that the client's certificate proves; none without one.
///
/// # Cancellation
///
/// Dropping the future drops the connection.
pub(crate) async fn accept(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<(TlsStream, Vec<String>)> {
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let names = certificate.map(names::of).transpose();
    let names = names.map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the client's certificate has unreadable names: {error}"))
    })?;
    Ok((TlsStream::new(stream), names.unwrap_or_default()))
}

fn load(settings: &TlsSettings, base_dir: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&base_dir.join(&settings.certificate))?;
    let key_path = base_dir.join(&settings.key);
    let key = private_key(&key_path)?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|error| TlsError::Config(error.to_string()))?;
    let builder = match client_verifier(settings, base_dir, provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        let problem = format!("does not fit the certificate {}: {error}", settings.certificate.display());
        TlsError::File { path: key_path, problem }
    })?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    if settings.clients.is_some() {
        // Who resumes a session shows no certificate, and its old one may have expired since.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(Arc::new(config))
}

fn client_verifier(
    settings: &TlsSettings,
    base_dir: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some((ca, is_required)) = &settings.clients else { return Ok(None) };
    let path = base_dir.join(ca);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&path)? {
        roots.add(certificate).map_err(|error| TlsError::File { path: path.clone(), problem: error.to_string() })?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let builder = if *is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map(Some).map_err(|error| TlsError::File { path, problem: error.to_string() })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |problem: String| TlsError::File { path: path.to_owned(), problem };
    let found = CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    let found = found.map_err(|error| refused(words(&error, "certificate")))?;
    if found.is_empty() { Err(refused("no certificate in it; allowed: PEM".to_owned())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let refused = |problem: String| TlsError::File { path: path.to_owned(), problem };
    let file = File::open(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
    let found = file.metadata().map_err(|error| refused(format!("cannot be read: {error}")))?;
    // Root may let a group read what it keeps for services.
    let others = if found.uid() == 0 { 0o027 } else { 0o077 };
    if found.mode() & others != 0 {
        let mode = found.mode() & 0o777;
        return Err(refused(format!("others can use this key (mode {mode:04o}); make it private: chmod 600")));
    }
    PrivateKeyDer::from_pem_reader(file).map_err(|error| refused(words(&error, "private key")))
}

fn words(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        pem::Error::NoItemsFound => format!("no {what} in it; allowed: PEM"),
        other => format!("no PEM: {other:?}"),
    }
}
