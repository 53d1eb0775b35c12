//! `plugd cert`: makes certificates to try TLS with.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::{Failure, print};
use crate::access::certificate_name;

/// How long the certificates hold, in days: long enough to try things out, too short to be relied on.
const DAYS: u64 = 90;

/// How far clocks may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// The names of a server that is tried on one machine.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The files that are made.
const FILES: [&str; 5] = ["ca.pem", "server.pem", "server.key", "client.pem", "client.key"];

#[derive(Debug, Subcommand)]
pub(super) enum Cert {
    /// Make a CA, a certificate for a server and one for a client, which hold for 90 days
    Dev(Dev),
}

#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Where to write them; what is there already is left alone
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// A name or address of the server, beside localhost, 127.0.0.1 and ::1; may be given several times
    #[arg(long, value_name = "HOST")]
    name: Vec<String>,
    /// The name of the client, for rules of access
    #[arg(long, value_name = "NAME", default_value = "dev", value_parser = certificate_name)]
    client: String,
}

pub(super) fn run(cert: &Cert) -> Result<(), Failure> {
    let Cert::Dev(wanted) = cert;
    for name in FILES {
        let path = wanted.out.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(Failure::Refused(format!(
                "{}: exists already; nothing was written; move it away, or name another directory with --out",
                path.display()
            )));
        }
    }
    let made = make(wanted).map_err(|error| Failure::Refused(format!("cannot make certificates: {error}")))?;
    fs::create_dir_all(&wanted.out)
        .map_err(|error| Failure::Refused(format!("{}: cannot be made: {error}", wanted.out.display())))?;
    for (name, text) in FILES.iter().zip(&made) {
        let path = wanted.out.join(name);
        write(&path, text)
            .map_err(|error| Failure::Refused(format!("{}: cannot be written: {error}", path.display())))?;
    }
    print(&usage(wanted))
}

/// The contents of [`FILES`]. The key of the CA is forgotten, so that nobody can make others with it.
fn make(wanted: &Dev) -> Result<[String; 5], rcgen::Error> {
    let mut ca = params(Vec::new(), "plugd development CA")?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let signed = |names: Vec<String>, title: &str, purpose: ExtendedKeyUsagePurpose| {
        let mut params = params(names, title)?;
        params.extended_key_usages = vec![purpose];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok::<_, rcgen::Error>([params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()])
    };
    let server_names = LOCAL_NAMES.map(str::to_owned).into_iter().chain(wanted.name.clone()).collect();
    let [server, server_key] = signed(server_names, "plugd development server", ExtendedKeyUsagePurpose::ServerAuth)?;
    let client_names = vec![wanted.client.clone()];
    let [client, client_key] = signed(client_names, "plugd development client", ExtendedKeyUsagePurpose::ClientAuth)?;
    Ok([ca_certificate, server, server_key, client, client_key])
}

fn params(names: Vec<String>, title: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + Duration::from_secs(DAYS * 24 * 60 * 60)).into();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, title);
    Ok(params)
}

/// Writes a file that is not there yet; keys are nobody else's.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let is_key = path.extension().is_some_and(|extension| extension == "key");
    let mode = if is_key { 0o600 } else { 0o644 };
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())
}

/// What can be pasted as it stands: a configuration, and a call from this directory.
fn usage(wanted: &Dev) -> String {
    let [ca, _, _, client, key] = FILES.map(|name| shown(&wanted.out.join(name)));
    format!(
        "wrote {} to {}; they hold for {DAYS} days\n\nplugins.toml beside them:\n\n[server]\nlisten = \
         [\"tls://127.0.0.1:7585\"]\n\n[server.tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\nclient_ca = \
         \"ca.pem\"\nclient_certificates = \"optional\"\n\n[plugins.echo]\naccess = {{ allow = [{:?}] }}\n\nTo try it:\n\nplugd \
         --config {}\nplug -s tls://localhost:7585 --ca {ca} --cert {client} --key {key} whoami\n",
        FILES.join(", "),
        wanted.out.display(),
        format!("cert:{}", wanted.client),
        shown(&wanted.out.join("plugins.toml")),
    )
}

/// A path as a shell takes it, without the `./` that says nothing.
fn shown(path: &Path) -> String {
    let text = path.strip_prefix(".").unwrap_or(path).display().to_string();
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+@:,".contains(letter);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
