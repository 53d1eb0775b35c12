//! The tokens that a server knows: names and hashes, and never a token itself.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// What the tokens that plugd makes begin with, so that one that leaked is recognised where it lies.
pub(crate) const TOKEN_PREFIX: &str = "plugd_";

/// The length of a hash, in bytes.
const HASH_LEN: usize = 32;

/// A token as a server knows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(super) name: Arc<str>,
    pub(super) hash: [u8; HASH_LEN],
    /// When it ends.
    pub(super) expires: Option<SystemTime>,
}

impl Token {
    /// Whether a text is this token; it takes the same time whether it is or not.
    pub(super) fn is(&self, text: &str) -> bool {
        self.hash.ct_eq(&hash(text)).into()
    }
}

/// Every token of a configuration.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tokens(Arc<[Arc<Token>]>);

/// What a token turns out to be.
pub(super) enum Verdict<'t> {
    Good(&'t Arc<Token>),
    Expired(&'t Token),
    Unknown,
}

impl Tokens {
    pub(super) fn new(tokens: Vec<Arc<Token>>) -> Tokens {
        Tokens(tokens.into())
    }

    /// Finds the token that a text is. It takes the same time whether and where there is one: every hash is compared, and
    /// each in constant time.
    pub(super) fn judge(&self, text: &str, now: SystemTime) -> Verdict<'_> {
        let hash = hash(text);
        let mut place = 0_u32;
        for (index, token) in (1_u32..).zip(self.0.iter()) {
            place.conditional_assign(&index, token.hash.ct_eq(&hash));
        }
        match place.checked_sub(1).and_then(|index| self.0.get(index as usize)) {
            Some(token) if token.expires.is_some_and(|expires| expires <= now) => Verdict::Expired(token),
            Some(token) => Verdict::Good(token),
            None => Verdict::Unknown,
        }
    }

    /// Whether a token that was good still is one of these.
    pub(super) fn holds(&self, token: &Token, now: SystemTime) -> bool {
        let same = self.0.iter().find(|known| known.name == token.name && known.hash == token.hash);
        same.is_some_and(|same| same.expires.is_none_or(|expires| now < expires))
    }

    /// The names of those that have ended.
    pub(crate) fn expired(&self, now: SystemTime) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |token| token.expires.is_some_and(|expires| expires <= now)).map(|token| &*token.name)
    }
}

fn hash(text: &str) -> [u8; HASH_LEN] {
    Sha256::digest(text.as_bytes()).into()
}

/// The hash of a token as a configuration has it.
pub(crate) fn hash_text(token: &str) -> String {
    format!("sha256:{}", Hex(&hash(token)))
}

struct Hex<'b>(&'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// Reads the hash of a token.
pub(super) fn parse_hash(text: &str) -> Option<[u8; HASH_LEN]> {
    let digits = text.strip_prefix("sha256:")?;
    if digits.len() != 2 * HASH_LEN || !digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut hash = [0; HASH_LEN];
    for (byte, place) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[place..place + 2], 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use super::*;

    fn token(name: &str, text: &str, expires: Option<SystemTime>) -> Arc<Token> {
        Arc::new(Token { name: name.into(), hash: hash(text), expires })
    }

    #[test]
    fn a_hash_survives_the_round_trip() {
        assert_eq!(parse_hash(&hash_text("t")), Some(hash("t")));
        for text in ["", "sha256:", "sha256:00", &hash_text("t").to_uppercase(), &format!("{}0", hash_text("t"))] {
            assert_eq!(parse_hash(text), None, "{text}");
        }
    }

    #[test]
    fn a_token_is_found_until_it_ends() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let tokens = Tokens::new(vec![token("a", "1", None), token("b", "2", Some(now))]);
        assert!(matches!(tokens.judge("1", now), Verdict::Good(token) if &*token.name == "a"));
        assert!(matches!(tokens.judge("2", now), Verdict::Expired(token) if &*token.name == "b"));
        assert!(matches!(tokens.judge("2", now - Duration::from_nanos(1)), Verdict::Good(_)));
        assert!(matches!(tokens.judge("3", now), Verdict::Unknown));
        assert!(matches!(tokens.judge("", now), Verdict::Unknown));
        assert_eq!(tokens.expired(now).collect::<Vec<_>>(), ["b"]);
    }

    /// How far apart two samples lie, in their common standard errors (Welch).
    fn t_value(a: &[f64], b: &[f64]) -> f64 {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let error = |values: &[f64]| {
            let mean = mean(values);
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            squares / (values.len() - 1) as f64 / values.len() as f64
        };
        (mean(a) - mean(b)).abs() / (error(a) + error(b)).sqrt()
    }

    /// Without what the machine did in between: the slowest tenth of each sample says nothing of the code.
    fn trimmed(mut values: Vec<f64>) -> Vec<f64> {
        values.sort_by(f64::total_cmp);
        values.truncate(values.len() * 9 / 10);
        values
    }

    #[test]
    #[ignore = "measures time, on a quiet machine and a release build; docs/security.md has the command"]
    fn a_wrong_token_takes_the_same_time_wherever_it_is_wrong() {
        const TRIES: usize = 10_000;
        let good = format!("{TOKEN_PREFIX}{}", "a".repeat(43));
        let shorter = good[..good.len() - 1].to_owned();
        let mut tokens = Tokens::new(vec![token("first", "x", None), token("ci", "", None), token("last", "y", None)]);
        let wrong = |text: &str, place: usize| {
            let mut text = text.as_bytes().to_vec();
            text[place] = b'!';
            String::from_utf8(text).expect("text")
        };
        // A longer text takes longer to hash, whatever the server knows: what may tell nothing is whether its length is right.
        let guesses = [
            ("first byte", wrong(&good, 0), hash(&good)),
            ("last byte", wrong(&good, good.len() - 1), hash(&good)),
            ("length", wrong(&shorter, 0), hash(&good)),
            ("bytes", wrong(&shorter, 0), hash(&shorter)),
        ];
        let mut times = [const { Vec::new() }; 4];
        let mut text = String::with_capacity(good.len());
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while times.iter().any(|times| times.len() < TRIES) {
            // In no order, and in the same memory on both sides: where things lie, and what the processor remembers of the
            // one before, is the same for all.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let index = (state >> 62) as usize;
            text.clear();
            let (_, guess, known) = &guesses[index];
            text.push_str(guess);
            let own = "nobody else has them";
            Arc::get_mut(&mut Arc::get_mut(&mut tokens.0).expect(own)[1]).expect(own).hash = *known;
            let now = SystemTime::now();
            let begun = Instant::now();
            black_box(tokens.judge(black_box(&text), now));
            times[index].push(begun.elapsed().as_nanos() as f64);
        }
        let times = times.map(trimmed);
        for [a, b] in [[0, 1], [2, 3]] {
            let t = t_value(&times[a], &times[b]);
            let mean = |index: usize| times[index].iter().sum::<f64>() / times[index].len() as f64;
            let (one, other) = (guesses[a].0, guesses[b].0);
            println!("wrong in its {one} {:.1} ns, in its {other} {:.1} ns, t = {t:.2}", mean(a), mean(b));
            assert!(t < 4.5, "{one}, {other}: {t}");
        }
    }
}
