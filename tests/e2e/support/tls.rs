//! Certificates made for a test, and a server that takes TLS off and hands the bytes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A CA of a test, and the directory with its certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let authority = Authority { issuer, dir: tempfile::tempdir().expect("a temporary directory") };
        std::fs::write(authority.ca(), authority.issuer.pem()).expect("a file");
        authority
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file with the CA's own certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Files with a certificate for a name, and its key.
    pub(crate) fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue_until(name, 4000)
    }

    /// Files with a certificate that is valid until a year, and its key.
    pub(crate) fn issue_until(&self, name: &str, year: i32) -> (PathBuf, PathBuf) {
        self.issue_for(name, year, Vec::new())
    }

    /// Files with a certificate that is valid for some purposes alone, and its key.
    pub(crate) fn issue_for(
        &self,
        name: &str,
        year: i32,
        purposes: Vec<ExtendedKeyUsagePurpose>,
    ) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages = purposes;
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let file = |end: &str| self.dir.path().join(format!("{name}-{year}.{end}"));
        std::fs::write(file("pem"), certificate.pem()).expect("a file");
        std::fs::write(file("key"), key.serialize_pem()).expect("a file");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(file("key"), private).expect("a file of ours");
        (file("pem"), file("key"))
    }
}

/// Takes TLS off connections, for as long as the tests run.
pub(crate) struct Terminator {
    pub(crate) port: u16,
}

impl Terminator {
    /// Hands what comes on to the server at `upstream`, under a certificate, with the versions of TLS that it speaks.
    /// Where there is an authority for clients, they need a certificate from it.
    pub(crate) fn start(
        upstream: &str,
        (certificate, key): &(PathBuf, PathBuf),
        versions: &[&'static SupportedProtocolVersion],
        clients: Option<&Authority>,
    ) -> Terminator {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(versions).expect("versions of TLS");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.issuer.der().clone()).expect("a certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let chain = vec![CertificateDer::from_pem_file(certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let mut config = builder.with_single_cert(chain, key).expect("a certificate and its key");
        config.alpn_protocols = vec![b"plugd/1".to_vec()];
        Terminator::serve(TlsAcceptor::from(Arc::new(config)), upstream.trim_start_matches("tcp://").to_owned())
    }

    fn serve(acceptor: TlsAcceptor, upstream: String) -> Terminator {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("a port").port();
        listener.set_nonblocking(true).expect("a socket");
        let accept = async move {
            let listener = TcpListener::from_std(listener).expect("a runtime");
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                tokio::spawn(async move {
                    // What goes wrong is for the test to see on the client.
                    let mut near = acceptor.accept(stream).await?;
                    let mut far = TcpStream::connect(upstream).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
            }
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(accept);
        });
        Terminator { port }
    }
}
