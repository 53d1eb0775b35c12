//! Drops many small files in one call.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use plugd_core::Code;
use plugd_core::wire::{CHANNEL_MAIN, End};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::{Flight, Lane, Sending, Small, Trailer, not_ended};
use crate::cli::failure::Failure;
use crate::cli::files::name::Name;
use crate::cli::files::remote::{has_reason, parse};
use crate::cli::files::retry::passes;
use crate::cli::stream::succeeded;
use crate::{Data, Receiver, Reply, Sender};

/// The side channel on which it is said of each file how it is to be stored.
const CHANNEL_FILE: u8 = 2;

/// The longest line about a file, in bytes: a path, a receipt or the end of a call, with room.
const LINE_LEN_MAX: usize = 128 << 10;

/// What became of one file.
#[derive(Debug, Deserialize)]
struct FileLine {
    #[serde(default)]
    path: Option<Name>,
    #[serde(default)]
    receipt: Option<Trailer>,
    #[serde(default)]
    status: Option<Box<RawValue>>,
}

impl Lane<'_> {
    /// Sends files whose content is at hand.
    pub(super) async fn send_all(
        &self,
        sender: &mut Sender,
        place: mpsc::Permit<'_, Sending>,
        group: Vec<Small>,
    ) -> Result<(), Failure> {
        let (mut flights, mut messages) = (VecDeque::new(), Vec::new());
        for small in group {
            let args = self.args(&small.job, Some(&small.facts), small.digest.as_deref(), None);
            let args = serde_json::to_vec(&args).expect("names and numbers always serialise");
            messages.push(Data { channel: CHANNEL_FILE, ..Data::main(args) });
            let (flight, content) = self.depart(small);
            messages.push(Data::main(content));
            flights.push_back(flight);
        }
        place.send(Sending::All(flights));
        sender.open(&self.remote.open("put_all", &serde_json::Map::new())).await?;
        not_ended(feed_all(sender, messages).await)?;
        Ok(not_ended(sender.finish().await)?)
    }

    /// Receives what became of each file. Those of which nothing is said are sent again.
    pub(super) async fn receive_all(
        &self,
        receiver: &mut Receiver,
        mut flights: VecDeque<Flight>,
    ) -> Result<(), Failure> {
        let received = self.receive_lines(receiver, &mut flights).await;
        let ended = match received {
            Ok(passing) => passing.map_or(Ok(()), Err),
            Err(failure) if is_not_offered(&failure) => {
                self.has_put_all.set(false);
                flights.drain(..).for_each(|flight| self.jobs.give_back(flight.job));
                Ok(())
            }
            // Every file would fare so.
            Err(Failure::Status(reply)) if !passes(&Failure::found(reply.status.clone())) => {
                flights.drain(..).for_each(|flight| self.refused(flight, Failure::found(reply.status.clone())));
                Ok(())
            }
            Err(failure) => Err(failure),
        };
        flights.into_iter().for_each(|flight| self.lost(flight));
        ended
    }

    /// Takes off the front of `flights` what lines come for. Returns why one of them is to be tried again, if any is.
    async fn receive_lines(
        &self,
        receiver: &mut Receiver,
        flights: &mut VecDeque<Flight>,
    ) -> Result<Option<Failure>, Failure> {
        let (mut lines, mut passing) = (Lines::default(), None);
        while let Some(data) = receiver.recv().await? {
            if data.channel != CHANNEL_MAIN {
                continue;
            }
            lines.add(&data.payload);
            while let Some(line) = lines.next()? {
                let failure = self.accept_line(&line, flights)?;
                passing = passing.or(failure);
            }
        }
        succeeded(Reply::default().ended(receiver.end().await?))?;
        match flights.is_empty() {
            true => Ok(passing),
            false => Err(Failure::protocol("answer of put_all has fewer lines than files")),
        }
    }

    /// Notes what became of the first of `flights`; why it is to be tried again, if it is.
    fn accept_line(&self, line: &[u8], flights: &mut VecDeque<Flight>) -> Result<Option<Failure>, Failure> {
        let FileLine { path, receipt, status } = parse(line, "put_all")?;
        let Some(flight) = flights.front() else {
            return Err(Failure::protocol("answer of put_all has more lines than files"));
        };
        if path.is_some_and(|path| path != flight.job.remote) {
            return Err(Failure::protocol(format!("answer of put_all is not about {}", flight.job.remote)));
        }
        let failure = match (receipt, status) {
            (Some(receipt), None) => {
                if let Some(Flight { job, sent, .. }) = flights.pop_front() {
                    self.stored(&job, &sent, Ok(receipt), Reply::default());
                }
                return Ok(None);
            }
            (None, Some(status)) => {
                let end = End::decode(status.get().as_bytes());
                let end = end.map_err(|error| Failure::protocol(format!("answer of put_all is malformed: {error}")))?;
                Failure::found(end.status)
            }
            _ => return Err(Failure::protocol("line of put_all has neither a receipt nor a status, or both")),
        };
        if let Some(flight) = flights.pop_front() {
            if passes(&failure) {
                self.lost(flight);
                return Ok(Some(failure));
            }
            self.refused(flight, failure);
        }
        Ok(None)
    }
}

async fn feed_all(sender: &mut Sender, messages: Vec<Data>) -> Result<(), crate::ClientError> {
    for data in messages {
        sender.feed(data).await?;
    }
    Ok(())
}

/// Whether the server knows no such operation; an older one does not.
fn is_not_offered(failure: &Failure) -> bool {
    let is_unimplemented = matches!(failure, Failure::Status(reply) if reply.status.code() == Code::Unimplemented);
    is_unimplemented || has_reason(failure, &["unknown-operation"])
}

/// Cuts lines out of data as it comes.
#[derive(Default)]
struct Lines {
    rest: BytesMut,
    /// How far it was looked through for an end.
    seen: usize,
}

impl Lines {
    fn add(&mut self, payload: &Bytes) {
        self.rest.extend_from_slice(payload);
    }

    fn next(&mut self) -> Result<Option<BytesMut>, Failure> {
        let end = self.rest[self.seen..].iter().position(|byte| *byte == b'\n');
        if let Some(at) = end {
            let line = self.rest.split_to(self.seen + at + 1);
            self.seen = 0;
            return Ok(Some(line));
        }
        self.seen = self.rest.len();
        match self.seen {
            0..=LINE_LEN_MAX => Ok(None),
            _ => Err(Failure::protocol(format!("line of put_all too long; allowed: {LINE_LEN_MAX} bytes"))),
        }
    }
}
