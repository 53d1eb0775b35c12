//! Who calls, as far as a token tells: what a connection has proven, and what becomes of those who guess.

mod penalty;
mod section;
mod tokens;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use plugd_core::wire::Auth;
use plugd_core::{Caller, Origin, Status};
use tracing::warn;

use crate::limits::{PeerKey, Seldom};

use self::penalty::Penalties;
pub(crate) use self::section::{TokenSection, parse_end};
pub(crate) use self::tokens::{TOKEN_PREFIX, Tokens, hash_text};
use self::tokens::{Token, Verdict};

/// How a server treats tokens.
#[derive(Debug)]
pub(crate) struct Gate {
    penalties: Penalties,
    /// Whether tokens are taken where others may read them on their way.
    takes_cleartext: bool,
    refused: Seldom,
}

/// Why a call is refused before anything of it is looked at; no other follows on its connection.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: Status,
    /// How long the answer waits, so that guessing takes its time.
    pub(crate) delay: Duration,
    /// In how long the same would be looked at, where that is known.
    pub(crate) wait: Option<Duration>,
}

impl Gate {
    /// `failures_max` wrong tokens from one peer are answered; then it is refused until `penalty` has passed without one.
    pub(crate) fn new(failures_max: u32, penalty: Duration, takes_cleartext: bool) -> Gate {
        let penalties = Penalties::new(failures_max, penalty);
        Gate { penalties, takes_cleartext, refused: Seldom::default() }
    }
}

/// What one connection has proven by a token.
#[derive(Debug)]
pub(crate) struct Identity {
    /// Whether nobody but the two ends can read what is sent.
    is_private: bool,
    proof: Option<Box<Proof>>,
}

#[derive(Debug)]
struct Proof {
    token: Arc<Token>,
    /// That of the plugins, and with them of the tokens, in which it was found.
    generation: u64,
}

impl Identity {
    pub(crate) fn new(is_private: bool) -> Identity {
        Identity { is_private, proof: None }
    }

    /// Whether a call can go on without a word about identity.
    #[inline]
    pub(crate) fn is_settled(&self, auth: Option<&Auth>) -> bool {
        self.proof.is_none() && auth.is_none()
    }

    /// Looks at what a call proves, and at whether what the connection proved before still holds. `tokens` are those of
    /// `generation`.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the caller is who it was.
    #[cold]
    pub(crate) fn check(
        &mut self,
        auth: Option<&Auth>,
        caller: &mut Caller,
        (generation, tokens): (u64, &Tokens),
        gate: &Gate,
    ) -> Result<(), Refused> {
        let now = SystemTime::now();
        if let Some(proof) = &mut self.proof {
            if !tokens.holds(&proof.token, now) {
                return Err(refused("token-revoked", "the token of this connection holds no longer"));
            }
            proof.generation = generation;
        }
        let Some(auth) = auth else { return Ok(()) };
        // Others at its address may guess as they like.
        if self.proof.as_ref().is_some_and(|proof| proof.token.is(&auth.token)) {
            return Ok(());
        }
        let token = self.prove(&auth.token, caller, tokens, gate, now)?;
        match &self.proof {
            Some(_) => {
                Err(refused("token-changed", "this connection has proven another token; open another connection"))
            }
            None => {
                caller.principal = caller.principal.clone().with_token(&*token.name);
                self.proof = Some(Box::new(Proof { token, generation }));
                Ok(())
            }
        }
    }

    /// Whether what was proven was looked at since the tokens changed last, and cannot expire.
    pub(crate) fn is_fresh(&self, generation: u64) -> bool {
        self.proof.as_ref().is_none_or(|proof| proof.generation == generation && proof.token.expires.is_none())
    }

    fn prove(
        &self,
        text: &str,
        caller: &Caller,
        tokens: &Tokens,
        gate: &Gate,
        now: SystemTime,
    ) -> Result<Arc<Token>, Refused> {
        if !self.is_private && !gate.takes_cleartext {
            let text = "a token came in clear text over a network; use tls://, and make a new token";
            return Err(refused("cleartext-token", text));
        }
        let peer = PeerKey::of(caller);
        if let Some(wait) = gate.penalties.left(peer) {
            return Err(penalised(wait));
        }
        let (name, why) = match tokens.judge(text, now) {
            Verdict::Good(token) => return Ok(token.clone()),
            Verdict::Expired(token) => (Some(token.name.clone()), "expired"),
            Verdict::Unknown => (None, "unknown"),
        };
        let delay = gate.penalties.failed(peer);
        if let Some(count) = gate.refused.count() {
            warn!(peer = %caller, token = name.as_deref(), why, count, "token refused");
        }
        // Whoever guesses does not learn which guess was once right.
        Err(Refused { delay, ..refused("bad-token", "no token of this server") })
    }
}

fn refused(reason: &'static str, text: &str) -> Refused {
    let status = Status::unauthenticated(reason, text).with_origin(Origin::Access);
    Refused { status, delay: Duration::ZERO, wait: None }
}

fn penalised(wait: Duration) -> Refused {
    let text = format!("too many wrong tokens from this address; come back in {} s", wait.as_secs() + 1);
    let status = Status::resource_exhausted("token-failures", text).with_origin(Origin::Limit).with_retry(true);
    Refused { status, delay: Duration::ZERO, wait: Some(wait) }
}

#[cfg(test)]
mod tests {
    use plugd_core::{Code, Peer};

    use super::*;

    const PENALTY: Duration = Duration::from_secs(60);

    struct World {
        gate: Gate,
        tokens: Tokens,
    }

    impl World {
        fn new(failures_max: u32) -> World {
            World { gate: Gate::new(failures_max, PENALTY, false), tokens: tokens(&[("ci", "good"), ("ops", "other")]) }
        }

        fn try_on(&self, identity: &mut Identity, caller: &mut Caller, token: &str) -> (Code, String) {
            let auth = Auth { token: token.to_owned() };
            match identity.check(Some(&auth), caller, (1, &self.tokens), &self.gate) {
                Ok(()) => (Code::Ok, String::new()),
                Err(refused) => (refused.status.code(), refused.status.reason().to_owned()),
            }
        }

        fn try_token(&self, peer: &str, token: &str) -> (Code, String) {
            let mut caller = Caller::new(Peer::Tcp(peer.parse().expect("an address")));
            self.try_on(&mut Identity::new(true), &mut caller, token)
        }
    }

    fn tokens(named: &[(&str, &str)]) -> Tokens {
        let section = |text: &str| TokenSection { hash: hash_text(text), expires: None };
        let sections = named.iter().map(|(name, text)| ((*name).to_owned(), section(text))).collect();
        TokenSection::read(&sections).0
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_tokens_of_one_peer_lead_to_a_penalty_that_ends() {
        let world = World::new(3);
        for _ in 0..3 {
            assert_eq!(world.try_token("10.0.0.1:1", "wrong"), (Code::Unauthenticated, "bad-token".to_owned()));
        }
        let penalised = (Code::ResourceExhausted, "token-failures".to_owned());
        assert_eq!(world.try_token("10.0.0.1:2", "good"), penalised);
        assert_eq!(world.try_token("10.0.0.2:1", "good").0, Code::Ok, "others are not meant");
        tokio::time::advance(PENALTY - Duration::from_millis(1)).await;
        assert_eq!(world.try_token("10.0.0.1:3", "good"), penalised);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(world.try_token("10.0.0.1:4", "good").0, Code::Ok);
    }

    #[tokio::test]
    async fn a_connection_keeps_the_one_token_that_it_has_proven() {
        let world = World::new(3);
        let (mut identity, mut caller) = (Identity::new(true), Caller::new(Peer::Memory));
        assert_eq!(world.try_on(&mut identity, &mut caller, "good").0, Code::Ok);
        assert_eq!(caller.principal.token(), Some("ci"));
        assert_eq!(world.try_on(&mut identity, &mut caller, "good").0, Code::Ok);
        assert_eq!(world.try_on(&mut identity, &mut caller, "other").1, "token-changed");
        assert_eq!(caller.principal.token(), Some("ci"));
    }

    #[tokio::test]
    async fn who_has_proven_a_token_is_left_alone_when_others_at_its_address_guess() {
        let world = World::new(3);
        let mut caller = Caller::new(Peer::Tcp("10.0.0.1:1".parse().expect("an address")));
        let mut identity = Identity::new(true);
        assert_eq!(world.try_on(&mut identity, &mut caller, "good").0, Code::Ok);
        for _ in 0..3 {
            assert_eq!(world.try_token("10.0.0.1:2", "wrong").0, Code::Unauthenticated);
        }
        assert_eq!(world.try_token("10.0.0.1:3", "good").0, Code::ResourceExhausted);
        assert_eq!(world.try_on(&mut identity, &mut caller, "good").0, Code::Ok);
        assert_eq!(world.try_on(&mut identity, &mut caller, "other").1, "token-failures", "no guesses go this way");
    }

    #[tokio::test]
    async fn a_token_that_is_taken_away_holds_no_longer_on_connections_that_proved_it() {
        let world = World::new(3);
        let (mut identity, mut caller) = (Identity::new(true), Caller::new(Peer::Memory));
        assert_eq!(world.try_on(&mut identity, &mut caller, "good").0, Code::Ok);
        assert!(identity.is_fresh(1) && !identity.is_fresh(2));
        let same = tokens(&[("ci", "good")]);
        assert!(identity.check(None, &mut caller, (2, &same), &world.gate).is_ok());
        for others in [tokens(&[("ops", "other")]), tokens(&[("ci", "new")]), tokens(&[("renamed", "good")])] {
            let refused = identity.check(None, &mut caller, (3, &others), &world.gate).expect_err("revoked");
            assert_eq!(refused.status.reason(), "token-revoked");
        }
    }

    #[tokio::test]
    async fn a_token_in_clear_text_is_refused_and_counts_for_nothing() {
        let world = World::new(1);
        let mut caller = Caller::new(Peer::Tcp("10.0.0.1:1".parse().expect("an address")));
        for _ in 0..3 {
            let found = world.try_on(&mut Identity::new(false), &mut caller, "wrong");
            assert_eq!(found, (Code::Unauthenticated, "cleartext-token".to_owned()));
        }
        assert_eq!(world.try_token("10.0.0.1:1", "good").0, Code::Ok);
    }
}
