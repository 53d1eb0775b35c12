//! `[server.tls]` as it is written, and what it means at each address.

use std::collections::BTreeMap;
use std::path::PathBuf;

use plugd_core::{SettingError, did_you_mean};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::address::ListenAddress;

/// Whether clients are asked for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(crate) enum ClientCertificates {
    /// Nobody is asked.
    #[default]
    None,
    /// Who has one proves its names.
    Optional,
    /// Nobody gets in without one.
    Required,
}

/// The section `[server.tls]`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TlsSection {
    /// The server's certificate and those between it and its CA, as PEM; relative to the configuration file.
    certificate: Option<PathBuf>,
    /// The key of that certificate, as PEM, which nobody else may read.
    key: Option<PathBuf>,
    /// The CA whose client certificates are taken, as PEM; no other is.
    client_ca: Option<PathBuf>,
    /// Whether clients are asked for certificates: none, optional or required.
    client_certificates: ClientCertificates,
    /// What is otherwise at one address, by its URL in `listen`.
    at: BTreeMap<String, TlsAtSection>,
}

/// What is otherwise at one address.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(inline)]
pub(crate) struct TlsAtSection {
    /// The server's certificate there.
    certificate: Option<PathBuf>,
    /// The key of that certificate.
    key: Option<PathBuf>,
    /// The CA whose client certificates are taken there.
    client_ca: Option<PathBuf>,
    /// Whether clients are asked for certificates there.
    client_certificates: Option<ClientCertificates>,
}

/// What TLS is at every address.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsTable(TlsSection);

/// What TLS is at one address. The paths are relative to the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// The CA of clients, and whether they need a certificate; `None` when nobody is asked for one.
    pub(super) clients: Option<(PathBuf, bool)>,
}

impl TlsSection {
    /// Checks the section for the addresses that the configuration listens at; paths of errors start at the section `server`.
    pub(crate) fn check(self, listen: &[ListenAddress]) -> (TlsTable, Vec<SettingError>) {
        let urls: Vec<String> = listen.iter().filter(|address| address.is_tls()).map(ToString::to_string).collect();
        let mut errors = Vec::new();
        for url in self.at.keys().filter(|url| !urls.contains(url)) {
            let hint = did_you_mean(url, urls.iter().map(String::as_str));
            let message = format!(
                "not listened at{hint}; allowed: {}",
                if urls.is_empty() { "none".to_owned() } else { urls.join(", ") }
            );
            errors.push(SettingError { path: vec!["tls".to_owned(), "at".to_owned(), url.clone()], message });
        }
        let table = TlsTable(self);
        for (index, address) in listen.iter().enumerate().filter(|(_, address)| address.is_tls()) {
            if let Err(message) = table.at(address) {
                errors.push(SettingError::new(&format!("listen.{index}"), format!("{address} {message}")));
            }
        }
        (table, errors)
    }
}

impl TlsTable {
    /// Whether clients are asked for certificates at an address, and whether they need one.
    pub(crate) fn clients_at(&self, address: &ListenAddress) -> (bool, bool) {
        let clients = self.at(address).ok().and_then(|settings| settings.clients);
        clients.map_or((false, false), |(_, is_required)| (true, is_required))
    }

    /// What TLS is at an address.
    ///
    /// # Errors
    ///
    /// What is missing, as the end of a message about the address.
    pub(crate) fn at(&self, address: &ListenAddress) -> Result<TlsSettings, String> {
        let TlsTable(everywhere) = self;
        let here = everywhere.at.get(&address.to_string()).cloned().unwrap_or_default();
        let missing =
            |key: &str| format!("needs `{key}` in [server.tls]; `plugd cert dev` makes what is needed to try it");
        let certificate = here.certificate.or(everywhere.certificate.clone()).ok_or_else(|| missing("certificate"))?;
        let key = here.key.or(everywhere.key.clone()).ok_or_else(|| missing("key"))?;
        let ca = here.client_ca.or(everywhere.client_ca.clone());
        let clients = match (here.client_certificates.unwrap_or(everywhere.client_certificates), ca) {
            (ClientCertificates::None, None) => None,
            (ClientCertificates::None, Some(_)) => {
                return Err(
                    "has a `client_ca` and asks nobody for a certificate; say `client_certificates = \"optional\"` or \
                            \"required\""
                        .to_owned(),
                );
            }
            (_, None) => return Err(missing("client_ca")),
            (wanted, Some(ca)) => Some((ca, wanted == ClientCertificates::Required)),
        };
        Ok(TlsSettings { certificate, key, clients })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(section: Value) -> (TlsTable, Vec<String>) {
        let section: TlsSection = serde_json::from_value(section).expect("a section");
        let listen =
            ["tcp://127.0.0.1:1", "tls://0.0.0.0:2", "tls://0.0.0.0:3"].map(|url| url.parse().expect("an address"));
        let (table, errors) = section.check(&listen);
        (table, errors.iter().map(|error| format!("{}: {}", error.path.join("."), error.message)).collect())
    }

    #[test]
    fn what_is_said_at_an_address_takes_the_place_of_what_is_said_everywhere() {
        let (table, errors) = check(json!({
            "certificate": "c", "key": "k", "client_ca": "ca", "client_certificates": "optional",
            "at": { "tls://0.0.0.0:3": { "client_ca": "other", "client_certificates": "required" } }
        }));
        assert_eq!(errors, Vec::<String>::new());
        let at = |url: &str| table.at(&url.parse().expect("an address")).expect("settings").clients;
        assert_eq!(at("tls://0.0.0.0:2"), Some(("ca".into(), false)));
        assert_eq!(at("tls://0.0.0.0:3"), Some(("other".into(), true)));
    }

    #[test]
    fn what_is_missing_or_would_do_nothing_is_told() {
        let (_, errors) = check(json!({}));
        assert_eq!(errors.len(), 2);
        assert!(errors[0].starts_with("listen.1: tls://0.0.0.0:2 needs `certificate` in [server.tls]"), "{errors:?}");
        let (_, errors) = check(json!({ "certificate": "c", "key": "k", "client_certificates": "required" }));
        assert!(errors[0].contains("needs `client_ca`"), "{errors:?}");
        let (_, errors) = check(json!({ "certificate": "c", "key": "k", "client_ca": "ca" }));
        assert!(errors[0].contains("asks nobody for a certificate"), "{errors:?}");
        let (_, errors) = check(json!({ "certificate": "c", "key": "k", "at": { "tls://0.0.0.0:4": {} } }));
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("tls.at.tls://0.0.0.0:4: not listened at; did you mean"), "{errors:?}");
    }
}
