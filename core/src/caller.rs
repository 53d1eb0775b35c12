//! Who calls: where a connection comes from, and what it has proven of itself.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Where a caller is connected from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP connection from this address.
    Tcp(SocketAddr),
    /// A connection over a unix socket.
    Unix,
    /// A connection within this process.
    Memory,
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => write!(out, "{address}"),
            Peer::Unix => out.write_str("unix"),
            Peer::Memory => out.write_str("memory"),
        }
    }
}

/// Who calls. It is found once per connection.
///
/// ```
/// use plugd_core::{Caller, Peer, Principal};
///
/// let caller = Caller::new(Peer::Unix).known_as(Principal::of_uid(1000));
/// assert_eq!(caller.to_string(), "uid:1000 at unix");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// Where the caller is connected from.
    pub peer: Peer,
    /// What the connection has proven of itself.
    pub principal: Principal,
}

impl Caller {
    /// A caller that is known by its connection alone.
    pub fn new(peer: Peer) -> Caller {
        Caller { peer, principal: Principal::default() }
    }

    /// The same caller, once more is known of it.
    #[must_use]
    pub fn known_as(self, principal: Principal) -> Caller {
        Caller { principal, ..self }
    }
}

/// `PRINCIPAL at PEER`, or the peer alone when nothing more is known.
impl fmt::Display for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.principal.strongest() {
            Some(proof) => write!(out, "{proof} at {}", self.peer),
            None => write!(out, "{}", self.peer),
        }
    }
}

/// What a connection has proven of itself beside its address: the uid of the process at the other end of a unix socket,
/// the names of a client certificate, the name of a token. All of them may hold at once; by default none does.
///
/// A clone is a pointer: a connection that has proven nothing keeps nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Principal(Option<Arc<Proofs>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Proofs {
    uid: Option<u32>,
    certificate_names: Vec<String>,
    token: Option<String>,
}

impl Principal {
    /// The process at the other end of a unix socket runs as this user.
    pub fn of_uid(uid: u32) -> Principal {
        Principal::default().with(|proofs| proofs.uid = Some(uid))
    }

    /// The connection came with a valid client certificate for these subject alternative names.
    #[must_use]
    pub fn with_certificate_names(self, names: Vec<String>) -> Principal {
        self.with(|proofs| proofs.certificate_names = names)
    }

    /// The caller knows the token of this name.
    #[must_use]
    pub fn with_token(self, name: impl Into<String>) -> Principal {
        self.with(|proofs| proofs.token = Some(name.into()))
    }

    fn with(self, prove: impl FnOnce(&mut Proofs)) -> Principal {
        let mut proofs = self.0.map(Arc::unwrap_or_clone).unwrap_or_default();
        prove(&mut proofs);
        Principal(Some(Arc::new(proofs)))
    }

    /// The uid of the process at the other end of a unix socket.
    pub fn uid(&self) -> Option<u32> {
        self.0.as_ref()?.uid
    }

    /// The subject alternative names of the client's certificate; none without one.
    pub fn certificate_names(&self) -> &[String] {
        self.0.as_ref().map_or(&[], |proofs| &proofs.certificate_names)
    }

    /// The name of the caller's token.
    pub fn token(&self) -> Option<&str> {
        self.0.as_ref()?.token.as_deref()
    }

    /// The one proof that says most, as a rule names it: a token before a certificate before a uid.
    fn strongest(&self) -> Option<String> {
        // Whoever signs certificates may put anything into them; a log line stays one.
        let certificate = || self.certificate_names().first().map(|name| format!("cert:{}", name.escape_debug()));
        let uid = || self.uid().map(|uid| format!("uid:{uid}"));
        self.token().map(|name| format!("token:{name}")).or_else(certificate).or_else(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_proof_names_a_caller() {
        let caller = |principal| Caller::new(Peer::Memory).known_as(principal).to_string();
        let uid = Principal::of_uid(7);
        let certificate = uid.clone().with_certificate_names(vec!["ops.example".to_owned(), "b".to_owned()]);
        assert_eq!(caller(Principal::default()), "memory");
        assert_eq!(caller(uid), "uid:7 at memory");
        assert_eq!(caller(certificate.clone()), "cert:ops.example at memory");
        let all = certificate.with_token("ci");
        assert_eq!(caller(all.clone()), "token:ci at memory");
        assert_eq!((all.uid(), all.certificate_names().len(), all.token()), (Some(7), 2, Some("ci")));
    }
}
