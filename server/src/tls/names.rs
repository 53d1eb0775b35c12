//! The names that a client's certificate proves.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// The subject alternative names of a certificate that was verified, as text: hosts, URIs, addresses of mail and of IP. What
/// its subject says beside them proves nothing (RFC 6125).
pub(super) fn of(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(certificate) else { return Vec::new() };
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    let Ok(Some((_, SubjectAltName(names)))) = names else { return Vec::new() };
    names.iter().filter_map(text).collect()
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
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn every_kind_of_name_is_told_as_text() {
        let mut params = CertificateParams::new(vec!["ops.example".to_owned(), "10.0.0.7".to_owned()]).expect("names");
        params.subject_alt_names.push(SanType::URI("spiffe://a/b".try_into().expect("a URI")));
        params.subject_alt_names.push(SanType::Rfc822Name("a@b.example".try_into().expect("an address")));
        params.subject_alt_names.push(SanType::IpAddress("2001:db8::1".parse().expect("an address")));
        let certificate = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        assert_eq!(of(certificate.der()), ["ops.example", "10.0.0.7", "spiffe://a/b", "a@b.example", "2001:db8::1"]);
        assert_eq!(of(&CertificateDer::from(&b"no certificate"[..])), Vec::<String>::new());
    }
}
