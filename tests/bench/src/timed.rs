//! How long the same work takes, by who does it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::rows::{Reach, median};

/// How long a work took.
#[derive(Debug, Serialize)]
pub struct Timed {
    /// The work's name.
    pub name: &'static str,
    /// The least speeds of plug, in those of others.
    pub reach: Reach,
    /// Seconds of each round, by who did it.
    pub seconds: BTreeMap<&'static str, Vec<f64>>,
}

impl Timed {
    /// A work that nobody has done yet.
    pub fn new(name: &'static str, reach: Reach) -> Timed {
        Timed { name, reach, seconds: BTreeMap::new() }
    }

    /// Adds a round of one of them.
    pub fn add(&mut self, who: &'static str, seconds: f64) {
        self.seconds.entry(who).or_default().push(seconds);
    }

    /// The median over the rounds of plug's speed through another's, each of the same round.
    pub fn ratio(&self, other: &str) -> Option<f64> {
        let (ours, others) = (&self.seconds["plug"], self.seconds.get(other)?);
        Some(median(ours.iter().zip(others).map(|(ours, others)| others / ours).collect()))
    }
}
