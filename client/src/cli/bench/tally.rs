//! What came of the requests: how many, how long they took, and what went wrong.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use plugd_core::Origin;

use super::answers::Verdict;
use crate::cli::failure::Failure;
use crate::{ClientError, ServerAddress, Status};

/// How many kinds of trouble are told apart, since a server may invent a reason for each call; the others are one kind.
const KINDS_MAX: usize = 32;

/// The longest latency that is told from longer ones: one minute, in nanoseconds.
const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// How finely latencies are told apart, in decimal digits.
const LATENCY_DIGITS: u8 = 3;

/// What can go wrong with a request; ordered, so that it can be counted by kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// The answer was not the expected one.
    Wrong,
    /// The call ended with this status.
    Status { code: u8, reason: String },
    /// No connection was made.
    Connect(String),
    /// The connection broke, or the server closed it, before the answer.
    Lost(String),
    /// The server did not speak the protocol.
    Protocol(String),
    /// The command does not answer one request after the other.
    Early(&'static str),
    /// No answer came for so long.
    Stalled(Duration),
    /// More kinds than are told apart.
    Other,
}

impl Trouble {
    pub(crate) fn of_status(status: &Status) -> Trouble {
        Trouble::Status { code: status.code().number(), reason: status.reason().to_owned() }
    }

    pub(crate) fn lost(error: &io::Error) -> Trouble {
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            // What only the first answer tells under TLS.
            Some(ClientError::Connect { source, .. }) => Trouble::Connect(source.to_string()),
            _ => Trouble::Lost(error.to_string()),
        }
    }

    pub(crate) fn closed() -> Trouble {
        Trouble::Lost("closed by the server".to_owned())
    }

    pub(crate) fn protocol(error: &ClientError) -> Trouble {
        match error {
            ClientError::Protocol(text) => Trouble::Protocol(text.clone()),
            error => Trouble::Protocol(error.to_string()),
        }
    }

    /// Messages are to be answered one by one, and a call that ends well at once answers none.
    pub(crate) fn early_end() -> Trouble {
        Trouble::Early("the call ended before its input")
    }

    /// What comes unasked says nothing about how long answers take.
    pub(crate) fn early_answer() -> Trouble {
        Trouble::Early("an answer before its request")
    }

    /// The word or words for it in a report.
    pub(crate) fn name(&self) -> String {
        match self {
            Trouble::Wrong => "wrong answer".to_owned(),
            Trouble::Status { code, reason } => match plugd_core::Code::from_number(*code) {
                Some(code) => format!("{} ({reason})", code.name()),
                None => format!("status {code} ({reason})"),
            },
            Trouble::Connect(text) => format!("cannot connect: {text}"),
            Trouble::Lost(text) => format!("connection lost: {text}"),
            Trouble::Protocol(text) => format!("protocol broken: {text}"),
            Trouble::Early(text) => (*text).to_owned(),
            Trouble::Stalled(patience) => format!("no answer within {}", humantime::format_duration(*patience)),
            Trouble::Other => "other".to_owned(),
        }
    }

    /// How the program ends when this is what went wrong most.
    pub(crate) fn failure(&self, server: &ServerAddress, text: String) -> Failure {
        let found = |status: Status| Failure::found(status.with_origin(Origin::Caller));
        match self {
            Trouble::Wrong => found(Status::data_loss("wrong-answer", text)),
            Trouble::Status { code, reason } => match plugd_core::Code::from_number(*code) {
                Some(code) => found(Status::new(code, reason.clone(), text)),
                None => found(Status::unknown(reason.clone(), text)),
            },
            Trouble::Connect(_) => {
                ClientError::Connect { address: server.clone(), source: io::Error::other(text) }.into()
            }
            Trouble::Lost(_) => ClientError::Lost(io::Error::other(text)).into(),
            Trouble::Protocol(_) | Trouble::Early(_) => ClientError::Protocol(text).into(),
            Trouble::Stalled(_) => found(Status::deadline_exceeded("no-answer", text)),
            Trouble::Other => found(Status::unknown("many-failures", text)),
        }
    }
}

/// What came of the requests of some connections.
#[derive(Debug)]
pub(crate) struct Tally {
    /// How long each answered request took, in nanoseconds.
    pub(crate) latency_ns: Histogram<u64>,
    /// Requests that were answered as expected.
    pub(crate) right: u64,
    /// Requests that were begun, answered or not.
    pub(crate) begun: u64,
    /// Bytes written and read, frames and all.
    pub(crate) sent_len: u64,
    pub(crate) received_len: u64,
    pub(crate) troubles: BTreeMap<Trouble, u64>,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_MAX_NS, LATENCY_DIGITS);
        Tally {
            latency_ns: latency_ns.expect("1 to a minute and three digits are good bounds"),
            right: 0,
            begun: 0,
            sent_len: 0,
            received_len: 0,
            troubles: BTreeMap::new(),
        }
    }

    /// Notes how long `count` answered requests took.
    pub(crate) fn took(&mut self, latency: Duration, count: u64) {
        self.latency_ns.saturating_record_n(latency.as_nanos() as u64, count);
    }

    /// Notes the verdict on an answer.
    pub(crate) fn judge(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Right => self.right += 1,
            Verdict::Wrong => self.suffer(Trouble::Wrong, 1),
            Verdict::Failed(status) => self.suffer(Trouble::of_status(&status), 1),
        }
    }

    /// Notes what went wrong with `count` requests.
    pub(crate) fn suffer(&mut self, trouble: Trouble, count: u64) {
        let is_known = self.troubles.contains_key(&trouble) || self.troubles.len() < KINDS_MAX;
        *self.troubles.entry(if is_known { trouble } else { Trouble::Other }).or_default() += count;
    }

    /// Adds what another thread has noted.
    pub(crate) fn add(&mut self, other: Tally) {
        self.latency_ns.add(other.latency_ns).expect("equal bounds");
        self.right += other.right;
        self.begun += other.begun;
        self.sent_len += other.sent_len;
        self.received_len += other.received_len;
        for (trouble, count) in other.troubles {
            self.suffer(trouble, count);
        }
    }

    /// What went wrong, by the name that a report has for it, which several kinds may share.
    pub(crate) fn failures(&self) -> BTreeMap<String, u64> {
        let mut failures = BTreeMap::new();
        for (trouble, count) in &self.troubles {
            *failures.entry(trouble.name()).or_default() += count;
        }
        failures
    }

    /// How many requests went wrong.
    pub(crate) fn failed(&self) -> u64 {
        self.troubles.values().sum()
    }

    /// What went wrong most.
    pub(crate) fn worst(&self) -> Option<&Trouble> {
        self.troubles.iter().max_by_key(|(_, count)| **count).map(|(trouble, _)| trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_trouble_are_counted_and_bounded() {
        let mut tally = Tally::new();
        for index in 0..100 {
            tally.suffer(Trouble::Lost(index.to_string()), 1);
        }
        tally.suffer(Trouble::Lost("1".to_owned()), 2);
        assert_eq!(tally.troubles.len(), KINDS_MAX + 1);
        assert_eq!(tally.troubles[&Trouble::Lost("1".to_owned())], 3);
        assert_eq!((tally.failed(), tally.worst()), (102, Some(&Trouble::Other)));
    }

    #[test]
    fn kinds_of_one_name_add_up() {
        let mut tally = Tally::new();
        tally.suffer(Trouble::Lost("x".to_owned()), 1);
        tally.suffer(Trouble::Early("connection lost: x"), 2);
        assert_eq!(tally.failures(), BTreeMap::from([("connection lost: x".to_owned(), 3)]));
    }

    #[test]
    fn tallies_add_up() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        one.judge(Verdict::Right);
        one.took(Duration::from_micros(10), 1);
        other.judge(Verdict::Wrong);
        other.judge(Verdict::Failed(Status::not_found("x", "y")));
        other.took(Duration::from_secs(3600), 2);
        one.add(other);
        assert_eq!((one.right, one.failed(), one.latency_ns.len()), (1, 2, 3));
        assert!(one.latency_ns.max() >= LATENCY_MAX_NS);
        assert_eq!(one.troubles.keys().map(Trouble::name).collect::<Vec<_>>(), ["wrong answer", "not_found (x)"]);
    }
}
