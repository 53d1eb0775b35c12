//! The names that a client's certificate proves.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The subject alternative names of a certificate that was verified, as text: hosts, URIs, addresses of mail and of IP. What
/// its subject says beside them proves nothing (RFC 6125).
///
/// # Errors
///
/// When they cannot be read: nobody could deny who has such a certificate.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Vec<String>, der::Error> {
    let certificate = Certificate::from_der(certificate)?;
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>()?;
    Ok(names.map(|(_, SubjectAltName(names))| names.iter().filter_map(text).collect()).unwrap_or_default())
}

fn text(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(text) | GeneralName::Rfc822Name(text) | GeneralName::UniformResourceIdentifier(text) => {
            Some(text.to_string())
        }
        GeneralName::IpAddress(bytes) => {
            let four = <[u8; 4]>::try_from(bytes.as_bytes()).map(|octets| Ipv4Addr::from(octets).to_string());
            let sixteen = || <[u8; 16]>::try_from(bytes.as_bytes()).map(|octets| Ipv6Addr::from(octets).to_string());
            four.or_else(|_| sixteen()).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};

    use super::*;

    #[test]
    fn every_kind_of_name_is_told_as_text() {
        let mut params = CertificateParams::new(vec!["ops.example".to_owned(), "10.0.0.7".to_owned()]).expect("names");
        params.subject_alt_names.push(SanType::URI("spiffe://a/b".try_into().expect("a URI")));
        params.subject_alt_names.push(SanType::Rfc822Name("a@b.example".try_into().expect("an address")));
        params.subject_alt_names.push(SanType::IpAddress("2001:db8::1".parse().expect("an address")));
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let found = of(certificate.der()).expect("names");
        assert_eq!(found, ["ops.example", "10.0.0.7", "spiffe://a/b", "a@b.example", "2001:db8::1"]);
    }

    #[test]
    fn names_that_cannot_be_read_are_not_no_names() {
        assert!(of(&CertificateDer::from(&b"no certificate"[..])).is_err());
        let mut params = CertificateParams::default();
        let broken = CustomExtension::from_oid_content(&[2, 5, 29, 17], vec![0x30, 0x84]);
        params.custom_extensions.push(broken);
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        assert!(of(certificate.der()).is_err());
        let none = CertificateParams::default().self_signed(&KeyPair::generate().expect("a key"));
        assert_eq!(of(none.expect("a certificate").der()), Ok(Vec::new()));
    }
}
