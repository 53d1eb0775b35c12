//! TLS on the way to a server: whose certificates are trusted, which one this side shows, and errors in words.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::receiver::Source;
use crate::setup::Input;
use crate::{ClientError, ServerAddress, SetupError};

/// The name of the protocol within TLS (ALPN, RFC 7301).
const PROTOCOL: &[u8] = b"plugd/1";

/// The longest file with certificates or a key, in bytes: all roots of a system are a quarter of it.
const FILE_LEN_MAX: u64 = 1 << 20;

/// The files that TLS is set up with; by default none: the system's roots are trusted, and no certificate is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the only CAs that are trusted, in PEM form.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to a server that asks, and what leads from it to a root, in PEM form.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate, in PEM form; a file that only the user can read.
    pub key: Option<PathBuf>,
}

/// How servers of `tls://` addresses are judged, and what they are shown. It speaks TLS 1.3 only, and nothing makes it
/// accept a certificate that is not valid, or not for the server's name.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Reads the files, and the system's roots where no CA is named.
    ///
    /// # Errors
    ///
    /// [`SetupError`], also for a certificate without a key, a key without a certificate, and one that is not its key.
    pub fn load(files: &TlsFiles) -> Result<Tls, SetupError> {
        let roots = match &files.ca {
            Some(path) => read_roots(path)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .expect("ring has cipher suites of TLS 1.3")
            .with_root_certificates(roots);
        let mut config = match (&files.certificate, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let input = Input { what: "key", path: key, len_max: FILE_LEN_MAX };
                let built =
                    builder.with_client_auth_cert(read_certificates("certificate", certificate)?, read_key(input)?);
                built.map_err(|error| input.refused(format!("it does not go with the certificate: {error}")))?
            }
            (Some(_), None) => return Err(half("certificate", "it has no key; name both")),
            (None, Some(_)) => return Err(half("key", "it has no certificate; name both")),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Tls { config: Arc::new(config), server_name: None })
    }

    /// Expects the server's certificate to be for this name or address, instead of the one that is connected to.
    ///
    /// # Errors
    ///
    /// [`SetupError::Value`] for what is neither.
    pub fn server_name(self, name: &str) -> Result<Tls, SetupError> {
        let refused = |_| half("server name", &format!("{name:?} is no name of a host, and no address"));
        let name = ServerName::try_from(name.to_owned()).map_err(refused)?;
        Ok(Tls { server_name: Some(name), ..self })
    }

    /// Makes the handshake with the server at `host`.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        host: &str,
        address: &ServerAddress,
    ) -> Result<TlsSocket, ClientError> {
        let fail = |source| ClientError::Connect { address: address.clone(), source };
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned())
                .map_err(|_| fail(invalid(format!("no certificate can be for {host:?}; see --server-name"))))?,
        };
        let connected = TlsConnector::from(self.config.clone()).connect(name.clone(), stream).await;
        let stream = connected.map_err(|error| fail(explain(error, &name.to_str())))?;
        Ok(TlsSocket { stream, address: address.clone(), name, has_read: false, is_finished: false })
    }
}

fn half(what: &'static str, why: &str) -> SetupError {
    SetupError::Value { what, why: why.to_owned() }
}

fn read_roots(path: &Path) -> Result<RootCertStore, SetupError> {
    let input = Input { what: "CA", path, len_max: FILE_LEN_MAX };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(input.what, path)? {
        roots.add(certificate).map_err(|error| input.refused(error.to_string()))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, SetupError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(half("list of the system's CAs", &format!("it is empty{cause}; name one with --ca")));
    }
    Ok(roots)
}

fn read_certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let input = Input { what, path, len_max: FILE_LEN_MAX };
    let bytes = input.read()?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(input.refused("it holds no certificate in PEM form")),
    }
}

fn read_key(input: Input<'_>) -> Result<PrivateKeyDer<'static>, SetupError> {
    let bytes = input.read_secret()?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| input.refused("it holds no key in PEM form"))
}

/// A connection under TLS. Dropped, it says goodbye to the server as far as that does not have to wait.
#[derive(Debug)]
pub(crate) struct TlsSocket {
    stream: TlsStream<TcpStream>,
    address: ServerAddress,
    name: ServerName<'static>,
    has_read: bool,
    /// Whether nothing more is to be said.
    is_finished: bool,
}

impl TlsSocket {
    /// Takes the two directions apart.
    pub(crate) fn into_split(self) -> (TlsReader, TlsWriter) {
        let shared = Arc::new(Mutex::new(self));
        (TlsReader(shared.clone()), TlsWriter(shared))
    }

    /// A server may judge this side's certificate only after its own handshake is over: its first words are the verdict.
    fn explain(&self, error: io::Error) -> io::Error {
        let is_verdict = !self.has_read && matches!(cause(&error), Some(rustls::Error::AlertReceived(_)));
        let source = explain(error, &self.name.to_str());
        match is_verdict {
            true => io::Error::other(ClientError::Connect { address: self.address.clone(), source }),
            false => source,
        }
    }

    /// Says that nothing more comes, as far as the socket takes it at once.
    fn finish(&mut self) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        let (socket, session) = self.stream.get_mut();
        session.send_close_notify();
        while session.wants_write() && session.write_tls(&mut AtOnce(socket)).is_ok_and(|len| len > 0) {}
    }

    fn abort(&mut self) {
        self.is_finished = true;
        // A socket that is not connected any more has nothing to reset.
        let _ = self.stream.get_ref().0.set_zero_linger();
    }
}

impl Drop for TlsSocket {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Writes what a socket takes without waiting.
struct AtOnce<'s>(&'s TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for TlsSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf).map_err(|error| self.explain(error));
        self.has_read |= buf.filled().len() > before;
        read
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_finished = true;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The direction in which answers come.
#[derive(Debug)]
pub(crate) struct TlsReader(Arc<Mutex<TlsSocket>>);

/// The direction in which calls go. Dropped, it says that no more come.
#[derive(Debug)]
pub(crate) struct TlsWriter(Arc<Mutex<TlsSocket>>);

/// Nothing that holds the lock waits, and nothing panics half-way.
fn lock(shared: &Mutex<TlsSocket>) -> MutexGuard<'_, TlsSocket> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for TlsReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_read(cx, buf)
    }
}

impl Source for TlsReader {
    fn abort(&self) {
        lock(&self.0).abort();
    }
}

impl AsyncWrite for TlsWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_shutdown(cx)
    }
}

impl Drop for TlsWriter {
    fn drop(&mut self) {
        lock(&self.0).finish();
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|error| error.downcast_ref())
}

/// The error in words that say what to do; `InvalidData` where the two sides cannot come together.
fn explain(error: io::Error, name: &str) -> io::Error {
    match cause(&error) {
        Some(cause) => invalid(words(cause, name)),
        None if error.kind() == io::ErrorKind::UnexpectedEof => io::ErrorKind::UnexpectedEof.into(),
        None => error,
    }
}

fn words(error: &rustls::Error, name: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error, name),
        rustls::Error::AlertReceived(alert) => of_alert(*alert),
        rustls::Error::InvalidMessage(_) => "the server speaks no TLS; without it, it is tcp://".to_owned(),
        rustls::Error::PeerIncompatible(_) => format!("the server speaks no TLS 1.3: {error}"),
        error => error.to_string(),
    }
}

fn of_certificate(error: &CertificateError, name: &str) -> String {
    match error {
        // A bad signature is that of another CA of the same name, such as one that was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the server's certificate is from no CA that is trusted here; name its CA with --ca".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            format!("the server's certificate is for {}, not for {name}; see --server-name", names.join(", "))
        }
        CertificateError::NotValidForName => format!("the server's certificate is not for {name}; see --server-name"),
        CertificateError::ExpiredContext { not_after, .. } => {
            let end = UNIX_EPOCH + Duration::from_secs(not_after.as_secs());
            format!("the server's certificate has expired: {}", humantime::format_rfc3339_seconds(end))
        }
        CertificateError::Expired => "the server's certificate has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet; is the clock right?".to_owned()
        }
        error => format!("the server's certificate is refused: {error}"),
    }
}

/// The name itself, of one that webpki shows as `DnsName("name")`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

fn of_alert(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired => "the server asks for a client certificate; see --cert and --key".to_owned(),
        Alert::ProtocolVersion | Alert::HandshakeFailure => {
            "the server speaks no TLS 1.3, or no TLS at all; without it, it is tcp://".to_owned()
        }
        Alert::NoApplicationProtocol => "the server speaks TLS, but not plugd in it".to_owned(),
        Alert::UnknownCA => "the server refuses the client certificate: it is from another CA".to_owned(),
        Alert::CertificateExpired => "the server refuses the client certificate: it has expired".to_owned(),
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateUnknown
        | Alert::AccessDenied
        | Alert::DecryptError => format!("the server refuses the client certificate: {alert:?}"),
        alert => format!("the server broke the handshake off: {alert:?}"),
    }
}
