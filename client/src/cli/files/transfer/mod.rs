//! Moves files over a few connections, many small ones in flight at once.
//!
//! Each connection is a lane: it takes jobs from a queue, sends calls ahead of their answers, and has a thread beside it
//! that reads or writes the files, so that a disk never keeps the network waiting and the other way round. A job whose
//! connection was lost goes back, and is tried again where it stopped.

pub(crate) mod get;
mod group;
mod hashing;
pub(crate) mod jobs;
pub(crate) mod put;
mod read;
mod temporary;
mod write;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::digest::Algorithm;
use super::name::Name;
use super::options::{Durability, Transfer};
use super::remote::has_reason;
use super::tally::Tally;
use crate::cli::failure::Failure;

/// Files up to this size, in bytes, are held in memory until they are verified: one chunk, which is what a cut may cost.
pub(crate) const SMALL_SIZE_MAX: u64 = 256 << 10;

/// How many calls may be in flight on a connection: enough to hide a round trip, few enough to begin anew.
const FLIGHTS_MAX: usize = 64;

/// What the files of one command have in common.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) algorithm: Algorithm,
    pub(crate) retry: u32,
    pub(crate) durability: Option<Durability>,
    pub(crate) preserve: bool,
    pub(crate) no_clobber: bool,
    /// Whether other files go on when one fails.
    pub(crate) many: bool,
}

impl Terms {
    pub(crate) fn of(transfer: &Transfer, preserve: bool, no_clobber: bool, many: bool) -> Terms {
        let Transfer { retry, digest, durability, .. } = *transfer;
        Terms { algorithm: digest, retry, durability, preserve, no_clobber, many }
    }
}

/// Counts what failed. Of many files, one that is there already is only passed over where that was asked for.
fn failed(name: &Name, failure: Failure, terms: &Terms, tally: &Tally) {
    match terms.many && terms.no_clobber && has_reason(&failure, &["exists"]) {
        true => tally.skipped(name, "it exists"),
        false => tally.failed(name, failure, terms.many),
    }
}

/// How a lane fared: whether any call was ever answered on it, and what ended it.
#[derive(Debug)]
struct LaneEnd {
    worked: bool,
    failure: Option<Failure>,
}

/// What all lanes have come to. One that never had a connection is not missed where others have done the work.
fn come_to(lanes: Vec<LaneEnd>) -> Result<(), Failure> {
    let is_done = lanes.iter().any(|lane| lane.worked && lane.failure.is_none());
    let had_connection = |failure: &Failure| !is_one_too_many(failure) && failure.kind() != "connect";
    let is_missed = |lane: &LaneEnd| lane.worked || !is_done || lane.failure.as_ref().is_some_and(had_connection);
    lanes.into_iter().filter(is_missed).find_map(|lane| lane.failure).map_or(Ok(()), Err)
}

/// Whether the server has no room for a connection beside those that it has.
fn is_one_too_many(failure: &Failure) -> bool {
    has_reason(failure, &["connections-max"])
}

/// Jobs that go back to their lane. Clones are one.
#[derive(Debug)]
pub(crate) struct Again<J>(Arc<Mutex<VecDeque<J>>>);

impl<J> Again<J> {
    fn new() -> Again<J> {
        Again(Arc::default())
    }

    fn push(&self, job: J) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self) -> Option<J> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl<J> Clone for Again<J> {
    fn clone(&self) -> Again<J> {
        Again(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Status;

    fn ended(worked: bool, failed: bool) -> LaneEnd {
        LaneEnd { worked, failure: failed.then(|| Failure::found(Status::resource_exhausted("connections-max", ""))) }
    }

    #[test]
    fn a_lane_without_a_connection_is_missed_only_when_nobody_has_done_its_work() {
        assert!(come_to(vec![ended(true, false), ended(false, true)]).is_ok());
        assert!(come_to(vec![ended(false, false), ended(false, true)]).is_err());
        assert!(come_to(vec![ended(true, false), ended(true, true)]).is_err());
        assert!(come_to(vec![ended(false, false)]).is_ok());
        let lost = LaneEnd { worked: false, failure: Some(Failure::protocol("x")) };
        assert!(come_to(vec![ended(true, false), lost]).is_err());
    }
}
