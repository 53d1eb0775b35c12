//! How many calls a plugin takes at once and in a time, in all and from one peer.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use plugd_core::wire::DEADLINE_MAX;
use plugd_core::{
    CallFacts, Context, Layer, LayerDescriptor, LayerSettings, Metrics, Origin, Passage, Refusal, SettingError,
    StartError, Status,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::limits::{PeerKey, come_back};

/// The layer's name.
pub(crate) const NAME: &str = "limits";

/// What a count of calls may be: more than there can be connections is no limit.
const CALLS_MAX: RangeInclusive<u32> = 1..=100_000;

/// The fastest rate, in calls per second; above it the time between two calls has too few nanoseconds left.
const RATE_MAX: u32 = 1_000_000;

/// How many peers may be remembered at the most; one costs about 100 bytes.
const PEERS_MAX: RangeInclusive<u32> = 16..=1_000_000;

pub(crate) fn descriptor() -> LayerDescriptor {
    LayerDescriptor::new(NAME, "limits calls at once and in a time, in all and from one peer")
        .settings::<LimitsSettings>()
}

/// What the calls of a plugin may use: the table `limits` of a plugin, and `[layers.limits]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsSettings {
    /// How long a call may take; a caller may ask for less, never for more.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "Option<plugd_core::schema::TimeSpan>")]
    pub(crate) deadline: Option<Duration>,
    /// How many calls of the plugin may run at once.
    calls_max: Option<u32>,
    /// How many calls of the plugin one peer may have running at once.
    calls_per_peer_max: Option<u32>,
    /// How many calls of the plugin one peer may begin in a time, such as `100/s`, `30/m` or `1000/h`.
    rate: Option<String>,
    /// How many calls one peer may begin at once, when it has begun none for a while; as many as `rate` says in its time
    /// unless told otherwise.
    burst: Option<u32>,
    /// How many peers are remembered at once.
    peers_max: u32,
}

impl Default for LimitsSettings {
    fn default() -> LimitsSettings {
        LimitsSettings {
            deadline: None,
            calls_max: None,
            calls_per_peer_max: None,
            rate: None,
            burst: None,
            peers_max: 10_000,
        }
    }
}

impl LimitsSettings {
    /// Whether there is something to count. A deadline alone needs no layer: the router watches it.
    pub(crate) fn counts(&self) -> bool {
        self.calls_max.is_some() || self.calls_per_peer_max.is_some() || self.rate.is_some()
    }

    fn rate(&self) -> Result<Option<Rate>, SettingError> {
        let Some(text) = &self.rate else { return Ok(None) };
        let refused = |found: &str| {
            let message = format!("{found}; allowed: N/s, N/m or N/h, at least 1 and at most {RATE_MAX}/s");
            SettingError::new("rate", message)
        };
        let parts = text.split_once('/').and_then(|(calls, unit)| {
            let unit = match unit {
                "s" => Duration::from_secs(1),
                "m" => Duration::from_secs(60),
                "h" => Duration::from_secs(3600),
                _ => return None,
            };
            Some((calls.parse::<u32>().ok()?, unit))
        });
        let (calls, unit) = parts.ok_or_else(|| refused(&format!("{text:?} is no rate")))?;
        if calls == 0 || f64::from(calls) > f64::from(RATE_MAX) * unit.as_secs_f64() {
            return Err(refused(&format!("{text:?} is out of range")));
        }
        let pause = unit / calls;
        Ok(Some(Rate { text: text.clone(), pause, tolerance: pause.saturating_mul(self.burst.unwrap_or(calls) - 1) }))
    }
}

impl LayerSettings for LimitsSettings {
    type Layer = Limits;

    fn check(&self) -> Result<(), Vec<SettingError>> {
        let mut errors = Vec::new();
        let mut within = |key: &str, found: Option<u32>, allowed: RangeInclusive<u32>| {
            if let Some(found) = found.filter(|found| !allowed.contains(found)) {
                let message = format!("{found} is out of range; allowed: {} to {}", allowed.start(), allowed.end());
                errors.push(SettingError::new(key, message));
            }
        };
        within("calls_max", self.calls_max, CALLS_MAX);
        within("calls_per_peer_max", self.calls_per_peer_max, CALLS_MAX);
        within("burst", self.burst, 1..=RATE_MAX);
        within("peers_max", Some(self.peers_max), PEERS_MAX);
        let allowed = Duration::from_millis(1)..=DEADLINE_MAX;
        if let Some(found) = self.deadline.filter(|found| !allowed.contains(found)) {
            let [found, least, most] = [found, *allowed.start(), *allowed.end()].map(humantime::format_duration);
            errors.push(SettingError::new("deadline", format!("{found} is out of range; allowed: {least} to {most}")));
        }
        if self.burst != Some(0) {
            errors.extend(self.rate().err());
        }
        if self.burst.is_some() && self.rate.is_none() {
            errors.push(SettingError::new("burst", "there is no rate; say one, such as `rate = \"100/s\"`"));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn build(self, _context: &Context) -> Result<Limits, StartError> {
        let rate = self.rate().map_err(|error| StartError::new(error.to_string()))?;
        Ok(Limits {
            deadline: self.deadline,
            calls_max: self.calls_max,
            calls_per_peer_max: self.calls_per_peer_max,
            rate,
            peers_max: self.peers_max as usize,
            plugins: RwLock::default(),
        })
    }
}

/// A token bucket as the time until which it is drawn (GCRA, ITU-T I.371): one moment for each peer, and no refilling.
#[derive(Debug)]
struct Rate {
    text: String,
    /// Between two calls of a peer that begins as many as it may.
    pause: Duration,
    /// How far ahead of that a peer may be.
    tolerance: Duration,
}

/// Counts the calls of the plugins that it stands around.
#[derive(Debug)]
pub(crate) struct Limits {
    deadline: Option<Duration>,
    calls_max: Option<u32>,
    calls_per_peer_max: Option<u32>,
    rate: Option<Rate>,
    peers_max: usize,
    /// As many as are configured.
    plugins: RwLock<HashMap<Arc<str>, Arc<Counts>>>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU32,
    refused: [AtomicU64; Limit::ALL.len()],
    peers: Mutex<HashMap<PeerKey, PeerCounts>>,
}

#[derive(Debug)]
struct PeerCounts {
    calls: u32,
    /// When the peer will have as many calls to begin as it ever has.
    drawn_until: Instant,
}

/// Which limit a call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Calls,
    CallsPerPeer,
    Rate,
    Peers,
}

impl Limit {
    const ALL: [Limit; 4] = [Limit::Calls, Limit::CallsPerPeer, Limit::Rate, Limit::Peers];

    fn reason(self) -> &'static str {
        match self {
            Limit::Calls => "calls-max",
            Limit::CallsPerPeer => "calls-per-peer-max",
            Limit::Rate => "rate",
            Limit::Peers => "peers-max",
        }
    }
}

/// A limit that a call ran into, and in how long the same call would pass, where that is known.
type Reached = (Limit, Option<Duration>);

impl Layer for Limits {
    fn enter(&self, call: &mut CallFacts<'_>) -> Result<Passage, Refusal> {
        if let Some(deadline) = self.deadline {
            call.shorten_deadline(deadline);
        }
        let counts = self.counts(call.plugin);
        self.admit(&counts, PeerKey::of(call.caller), Instant::now()).map(Passage::holding).map_err(|reached| {
            counts.refused[reached.0 as usize].fetch_add(1, Ordering::Relaxed);
            self.refusal(call.plugin, reached)
        })
    }

    fn measure(&self, metrics: &mut Metrics) {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<_> = plugins.iter().collect();
        sorted.sort_by_key(|(plugin, _)| (*plugin).clone());
        for (plugin, counts) in sorted {
            for limit in Limit::ALL {
                let labels = [("plugin", &**plugin), ("limit", limit.reason())];
                let refused = counts.refused[limit as usize].load(Ordering::Relaxed);
                metrics.counter("plugd_limits_refused_total", "Calls that a limit refused.", &labels, refused);
            }
            let peers = counts.peers().len() as u64;
            metrics.gauge("plugd_limits_peers", "Peers that are remembered.", &[("plugin", plugin)], peers);
        }
    }
}

impl Limits {
    fn counts(&self, plugin: &str) -> Arc<Counts> {
        if let Some(counts) = self.plugins.read().unwrap_or_else(PoisonError::into_inner).get(plugin) {
            return counts.clone();
        }
        let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        plugins.entry(plugin.into()).or_default().clone()
    }

    /// Takes what a call needs; all of it, or nothing.
    fn admit(&self, counts: &Arc<Counts>, key: PeerKey, now: Instant) -> Result<Permit, Reached> {
        let calls_max = self.calls_max.unwrap_or(u32::MAX);
        let more = |calls: u32| (calls < calls_max).then(|| calls + 1);
        if counts.calls.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return Err((Limit::Calls, None));
        }
        // From here on the permit gives back what was taken.
        let mut permit = Permit { counts: counts.clone(), peer: None };
        if self.calls_per_peer_max.is_none() && self.rate.is_none() {
            return Ok(permit);
        }
        self.admit_peer(&mut counts.peers(), key, now)?;
        permit.peer = Some(key);
        Ok(permit)
    }

    fn admit_peer(&self, peers: &mut HashMap<PeerKey, PeerCounts>, key: PeerKey, now: Instant) -> Result<(), Reached> {
        if !peers.contains_key(&key) && peers.len() >= self.peers_max {
            forget(peers, self.peers_max / 2, now);
            if peers.len() >= self.peers_max {
                return Err((Limit::Peers, None));
            }
        }
        let peer = peers.entry(key).or_insert(PeerCounts { calls: 0, drawn_until: now });
        if self.calls_per_peer_max.is_some_and(|allowed| peer.calls >= allowed) {
            return Err((Limit::CallsPerPeer, None));
        }
        if let Some(rate) = &self.rate {
            let drawn_until = peer.drawn_until.max(now);
            let ahead = drawn_until - now;
            if ahead > rate.tolerance {
                return Err((Limit::Rate, Some(ahead - rate.tolerance)));
            }
            peer.drawn_until = drawn_until + rate.pause;
        }
        peer.calls += 1;
        Ok(())
    }

    fn refusal(&self, plugin: &str, (limit, wait): Reached) -> Refusal {
        let allowed = |allowed: Option<u32>| allowed.unwrap_or_default();
        let text = match limit {
            Limit::Calls => format!("too many calls of \"{plugin}\" at once; allowed: {}", allowed(self.calls_max)),
            Limit::CallsPerPeer => {
                let allowed = allowed(self.calls_per_peer_max);
                format!("too many calls of \"{plugin}\" at once from your address; allowed: {allowed}")
            }
            Limit::Rate => {
                let rate = self.rate.as_ref().map_or("", |rate| &rate.text);
                format!("too many calls of \"{plugin}\" from your address; allowed: {rate}")
            }
            Limit::Peers => format!("too many callers of \"{plugin}\"; allowed: {}", self.peers_max),
        };
        let status = Status::resource_exhausted(limit.reason(), text).with_origin(Origin::Limit).with_retry(true);
        let refusal = Refusal::from(status);
        match wait {
            Some(wait) => refusal.with_trailer(&come_back(wait)),
            None => refusal,
        }
    }
}

impl Counts {
    fn peers(&self) -> MutexGuard<'_, HashMap<PeerKey, PeerCounts>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room: forgets peers about whom there is nothing to remember, and then, until `left` remain, those that have used
/// the least of their rate lately. A peer with a running call is never forgotten. Half of all at a time, so that new peers
/// in a row do not look at everybody each.
fn forget(peers: &mut HashMap<PeerKey, PeerCounts>, left: usize, now: Instant) {
    peers.retain(|_, peer| peer.calls > 0 || peer.drawn_until > now);
    if peers.len() <= left {
        return;
    }
    let mut idle: Vec<Instant> = peers.values().filter(|peer| peer.calls == 0).map(|peer| peer.drawn_until).collect();
    let surplus = (peers.len() - left).min(idle.len());
    if surplus == 0 {
        return;
    }
    let (_, last, _) = idle.select_nth_unstable(surplus - 1);
    let last = *last;
    peers.retain(|_, peer| peer.calls > 0 || peer.drawn_until > last);
}

/// A place among the calls that run at once, given back when it is dropped.
struct Permit {
    counts: Arc<Counts>,
    /// The peer whose place it is as well.
    peer: Option<PeerKey>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counts.calls.fetch_sub(1, Ordering::AcqRel);
        let Some(key) = self.peer else { return };
        let mut peers = self.counts.peers();
        if let Some(peer) = peers.get_mut(&key) {
            peer.calls -= 1;
            if peer.calls == 0 && peer.drawn_until <= Instant::now() {
                peers.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn limits(settings: Value) -> Limits {
        let settings: LimitsSettings = serde_json::from_value(settings).expect("settings");
        settings.check().expect("good settings");
        settings.build(&Context::default()).expect("limits")
    }

    fn complaint(settings: Value) -> String {
        let settings: LimitsSettings = serde_json::from_value(settings).expect("settings");
        let errors = settings.check().expect_err("bad settings");
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    const ANNA: PeerKey = PeerKey::Address(1);
    const BERT: PeerKey = PeerKey::Address(2);

    #[test]
    fn a_place_is_free_again_when_its_call_has_ended() {
        let limits = limits(json!({ "calls_max": 3, "calls_per_peer_max": 2 }));
        let (counts, now) = (limits.counts("a"), Instant::now());
        let admit = |key| limits.admit(&counts, key, now);
        let refused = |key| admit(key).err().expect("refused").0;
        let first = admit(ANNA).expect("the first");
        let _second = admit(ANNA).expect("the second");
        assert_eq!(refused(ANNA), Limit::CallsPerPeer);
        let third = admit(BERT).expect("the third");
        assert_eq!(refused(BERT), Limit::Calls);
        drop((first, third));
        let _again = admit(ANNA).expect("a free place");
        assert_eq!(counts.peers().len(), 1, "nobody without a call is remembered");
        assert_eq!(limits.counts("b").calls.load(Ordering::Relaxed), 0, "each plugin has a count of its own");
    }

    #[test]
    fn a_rate_allows_its_burst_and_then_its_pace() {
        let limits = limits(json!({ "rate": "10/s", "burst": 3 }));
        let (counts, start) = (limits.counts("a"), Instant::now());
        let admit = |key, ms| limits.admit(&counts, key, start + Duration::from_millis(ms)).map(drop);
        for _ in 0..3 {
            assert_eq!(admit(ANNA, 0), Ok(()));
        }
        assert_eq!(admit(ANNA, 0), Err((Limit::Rate, Some(Duration::from_millis(100)))));
        assert_eq!(admit(BERT, 0), Ok(()), "another peer");
        assert_eq!(admit(ANNA, 99), Err((Limit::Rate, Some(Duration::from_millis(1)))));
        assert_eq!(admit(ANNA, 100), Ok(()));
        assert_eq!(admit(ANNA, 100), Err((Limit::Rate, Some(Duration::from_millis(100)))));
        for _ in 0..3 {
            assert_eq!(admit(ANNA, 10_000), Ok(()), "a rest fills the burst and no more");
        }
        assert!(admit(ANNA, 10_000).is_err());
    }

    #[test]
    fn no_more_peers_are_remembered_than_allowed() {
        let limits = limits(json!({ "rate": "1/h", "calls_per_peer_max": 5, "peers_max": 16 }));
        let (counts, now) = (limits.counts("a"), Instant::now());
        let held = limits.admit(&counts, ANNA, now).expect("a call");
        for peer in 100..10_000 {
            limits.admit(&counts, PeerKey::Address(peer), now).expect("room for a new peer");
            assert!(counts.peers().len() <= 16);
        }
        assert!(counts.peers().contains_key(&ANNA), "who has a running call is not forgotten");
        drop(held);
        let held: Vec<_> = (100..116).map(|peer| limits.admit(&counts, PeerKey::Address(peer), now)).collect();
        let held = held.into_iter().filter_map(Result::ok).count();
        assert!(held > 8, "{held}");
    }

    #[test]
    fn when_every_remembered_peer_has_a_call_a_new_one_is_refused() {
        let limits = limits(json!({ "calls_per_peer_max": 5, "peers_max": 16 }));
        let (counts, now) = (limits.counts("a"), Instant::now());
        let admit = |peer| limits.admit(&counts, PeerKey::Address(peer), now);
        let held: Vec<Permit> = (0..16).map(|peer| admit(peer).expect("room")).collect();
        assert_eq!(admit(99).err(), Some((Limit::Peers, None)));
        assert!(admit(3).is_ok(), "a known peer may go on");
        drop(held);
        assert!(admit(99).is_ok());
    }

    #[test]
    fn nothing_means_no_limit_but_nothing() {
        assert_eq!(complaint(json!({ "calls_max": 0 })), "calls_max: 0 is out of range; allowed: 1 to 100000");
        assert_eq!(complaint(json!({ "peers_max": 0 })), "peers_max: 0 is out of range; allowed: 16 to 1000000");
        assert_eq!(complaint(json!({ "burst": 5 })), "burst: there is no rate; say one, such as `rate = \"100/s\"`");
        assert_eq!(complaint(json!({ "rate": "1/s", "burst": 0 })), "burst: 0 is out of range; allowed: 1 to 1000000");
        for rate in ["0/s", "10", "1/d", "-1/s", "1.5/s", "2000000/s", "/s", "4000000000/m"] {
            let complaint = complaint(json!({ "rate": rate }));
            assert!(complaint.ends_with("allowed: N/s, N/m or N/h, at least 1 and at most 1000000/s"), "{complaint}");
        }
        let settings = |value| serde_json::from_value::<LimitsSettings>(value).expect("settings");
        assert!(!settings(json!({ "deadline": "3s" })).counts() && settings(json!({ "rate": "1/s" })).counts());
    }
}
