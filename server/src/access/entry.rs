//! One entry of a list of callers, as an operator writes it and as it is compared.

use std::net::IpAddr;

use nix::unistd::User;
use plugd_core::{Caller, Peer, did_you_mean};

use super::network::Network;
use crate::identity::TOKEN_PREFIX;

/// The kinds of entries with what stands behind their colon, sorted.
const KINDS: [(&str, &str); 6] = [
    ("cert", "NAME"),
    ("group", "NAME"),
    ("net", "ADDRESS[/BITS]"),
    ("token", "NAME"),
    ("uid", "NUMBER"),
    ("user", "NAME"),
];

/// The entry that stands for everybody.
const ANY: &str = "any";

/// The uid that the kernel gives to nobody: it means "leave it alone" (setreuid(2)).
const NO_UID: u32 = u32::MAX;

/// An entry, resolved: what is compared never has to be looked up again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    text: String,
    who: Who,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Any,
    Network(Network),
    Uid(u32),
    Token(String),
    Certificate(String),
}

/// What an entry was read as.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Term {
    Entry(Entry),
    Group(String),
}

impl Entry {
    /// Whether `caller` is meant. Whoever has not proven anything is matched by a network and by `any` alone.
    pub(super) fn matches(&self, caller: &Caller) -> bool {
        let Caller { peer, principal, .. } = caller;
        match &self.who {
            Who::Any => true,
            Who::Network(network) => matches!(peer, Peer::Tcp(address) if network.contains(address.ip())),
            Who::Uid(uid) => principal.uid() == Some(*uid),
            Who::Token(name) => principal.token() == Some(name),
            Who::Certificate(name) => principal.certificate_names().iter().any(|found| is_same_name(name, found)),
        }
    }

    /// The entry as it was written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether everybody is meant.
    pub(crate) fn is_any(&self) -> bool {
        self.who == Who::Any
    }

    /// Whether a connection over TCP, TLS or a unix socket can be meant at all.
    pub(crate) fn can_come_by(&self, way: Way) -> bool {
        match &self.who {
            Who::Any | Who::Token(_) => true,
            Who::Network(_) => way != Way::Unix,
            Who::Uid(_) => way == Way::Unix,
            Who::Certificate(_) => matches!(way, Way::Tls { asks: true, .. }),
        }
    }
}

/// What kind of listener a connection comes in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Tcp,
    Tls {
        /// Whether clients are asked for certificates, and need one.
        asks: bool,
        requires: bool,
    },
    Unix,
}

/// Names of hosts are the same in upper and lower case (RFC 4343); addresses of mail and URIs are not.
fn is_same_name(one: &str, other: &str) -> bool {
    let is_exact = one.contains(['@', '/']);
    if is_exact { one == other } else { one.eq_ignore_ascii_case(other) }
}

impl Term {
    /// Reads an entry. `tokens` are the names of the tokens that the configuration knows.
    ///
    /// # Errors
    ///
    /// What was found and what is allowed.
    pub(super) fn parse<'t>(text: &str, tokens: impl Iterator<Item = &'t str> + Clone) -> Result<Term, String> {
        let (kind, value) = match text.split_once(':') {
            Some(parts) => parts,
            None if text == ANY => ("any", ""),
            None => return Err(unknown_kind(text, text)),
        };
        let who = match kind {
            "any" if text == ANY => Who::Any,
            "group" => return Ok(Term::Group(value.to_owned())),
            "net" => Who::Network(Network::parse(value).map_err(|problem| format!("{text:?}: {problem}"))?),
            "uid" => Who::Uid(uid(value).ok_or_else(|| format!("{text:?}: {value:?} is no uid"))?),
            "user" => Who::Uid(uid_of(value).map_err(|problem| format!("{text:?}: {problem}"))?),
            "token" if tokens.clone().any(|known| known == value) => Who::Token(value.to_owned()),
            "token" if value.starts_with(TOKEN_PREFIX) => {
                return Err(
                    "a token itself stands here, known to whoever reads this; name it, and make another".to_owned()
                );
            }
            "token" => return Err(unknown_token(value, tokens)),
            "cert" => Who::Certificate(certificate_name(value).map_err(|problem| format!("{text:?}: {problem}"))?),
            _ => return Err(unknown_kind(text, kind)),
        };
        Ok(Term::Entry(Entry { text: text.to_owned(), who }))
    }
}

fn uid(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|uid| is_number && *uid != NO_UID)
}

fn uid_of(user: &str) -> Result<u32, String> {
    match User::from_name(user) {
        Ok(Some(found)) => Ok(found.uid.as_raw()),
        Ok(None) if uid(user).is_some() => Err(format!("no user {user:?} on this machine; a number is uid:{user}")),
        Ok(None) => Err(format!("no user {user:?} on this machine")),
        Err(error) => Err(format!("user {user:?} cannot be looked up: {error}")),
    }
}

fn unknown_token<'t>(name: &str, known: impl Iterator<Item = &'t str> + Clone) -> String {
    let hint = did_you_mean(name, known.clone());
    let known: Vec<&str> = known.collect();
    let known = if known.is_empty() { "none; add one with [tokens.NAME]".to_owned() } else { known.join(", ") };
    format!("unknown token {name:?}{hint}; known: {known}")
}

fn unknown_kind(text: &str, kind: &str) -> String {
    let hint = did_you_mean(kind, KINDS.iter().map(|(kind, _)| *kind).chain([ANY]));
    let allowed: Vec<String> = KINDS.iter().map(|(kind, value)| format!("{kind}:{value}")).collect();
    format!("unknown kind of entry {text:?}{hint}; allowed: {ANY}, {}", allowed.join(", "))
}

/// A name as certificates have it. What could never be in one is a mistake, and so is what means more than one name: a denial
/// of `*.example` would deny nobody.
pub(crate) fn certificate_name(text: &str) -> Result<String, String> {
    if text.contains('*') {
        return Err("a certificate is compared by its whole name; name each".to_owned());
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{text:?} is no name that a certificate may have"));
    }
    // The one way in which an address is written, as the names of a certificate are.
    Ok(text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |address| address.to_string()))
}

#[cfg(test)]
mod tests {
    use plugd_core::Principal;

    use super::*;

    fn parse(text: &str) -> Result<Term, String> {
        Term::parse(text, ["ci", "ops"].into_iter())
    }

    fn matches(text: &str, caller: &Caller) -> bool {
        match parse(text).expect(text) {
            Term::Entry(entry) => entry.matches(caller),
            Term::Group(_) => panic!("{text} is a group"),
        }
    }

    #[test]
    fn each_kind_compares_what_was_proven_and_nothing_else() {
        let tcp = Caller::new(Peer::Tcp("10.0.0.5:9".parse().expect("an address")));
        let unix = Caller::new(Peer::Unix).known_as(Principal::of_uid(1000));
        let names = vec!["ops.example".to_owned(), "spiffe://a/b".to_owned()];
        let known = tcp.clone().known_as(Principal::default().with_certificate_names(names).with_token("ci"));
        assert!(matches("any", &tcp) && matches("any", &unix) && matches("any", &Caller::new(Peer::Memory)));
        assert!(matches("net:10.0.0.0/8", &tcp) && matches("net:10.0.0.5", &known));
        assert!(!matches("net:0.0.0.0/0", &unix) && !matches("net:::/0", &unix) && !matches("net:10.0.0.6", &tcp));
        assert!(matches("uid:1000", &unix) && !matches("uid:1001", &unix) && !matches("uid:0", &tcp));
        assert!(matches("token:ci", &known) && !matches("token:ops", &known) && !matches("token:ci", &tcp));
        assert!(matches("cert:ops.example", &known) && matches("cert:OPS.example", &known));
        assert!(matches("cert:spiffe://a/b", &known) && !matches("cert:spiffe://a/B", &known));
        let address = vec!["2001:db8::1".to_owned()];
        assert!(matches(
            "cert:2001:DB8:0::1",
            &tcp.clone().known_as(Principal::default().with_certificate_names(address))
        ));
        assert!(!matches("cert:example", &known) && !matches("cert:ops.example", &unix));
    }

    #[test]
    fn a_user_is_its_uid() {
        assert!(matches("user:root", &Caller::new(Peer::Unix).known_as(Principal::of_uid(0))));
        assert_eq!(
            parse("user:no-such-user"),
            Err("\"user:no-such-user\": no user \"no-such-user\" on this machine".into())
        );
        let numeric = parse("user:4294967294").expect_err("a number");
        assert!(numeric.ends_with("a number is uid:4294967294"), "{numeric}");
    }

    #[test]
    fn what_cannot_be_resolved_says_what_is_allowed() {
        let complaint = |text: &str| parse(text).expect_err(text);
        let allowed = "allowed: any, cert:NAME, group:NAME, net:ADDRESS[/BITS], token:NAME, uid:NUMBER, user:NAME";
        assert_eq!(
            complaint("ned:10.0.0.1"),
            format!("unknown kind of entry \"ned:10.0.0.1\"; did you mean \"net\"?; {allowed}")
        );
        for text in ["", "all!", "*", "any:", ":", "10.0.0.1", "Any", "UID:1"] {
            assert!(complaint(text).starts_with(&format!("unknown kind of entry {text:?}")), "{}", complaint(text));
        }
        assert_eq!(complaint("token:opps"), "unknown token \"opps\"; did you mean \"ops\"?; known: ci, ops");
        assert!(!complaint("token:plugd_s3cret").contains("s3cret"));
        let none = Term::parse("token:ci", std::iter::empty()).expect_err("no tokens");
        assert_eq!(none, "unknown token \"ci\"; known: none; add one with [tokens.NAME]");
        for text in ["uid:", "uid:-1", "uid:+1", "uid:4294967295", "uid:99999999999", "uid:root", "uid: 1"] {
            assert!(complaint(text).ends_with("is no uid"), "{}", complaint(text));
        }
        for text in ["cert:*.example", "cert:*"] {
            assert!(complaint(text).ends_with("is compared by its whole name; name each"), "{}", complaint(text));
        }
        for text in ["cert:", "cert:a b", "cert:a\n", "cert:b\u{fc}cher.example"] {
            assert!(complaint(text).ends_with("is no name that a certificate may have"), "{}", complaint(text));
        }
    }
}
