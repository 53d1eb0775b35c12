//! Gathers what comes of the input: data in batches that are worth a disk's while, and the digest behind them.

use std::time::Duration;

use bytes::Bytes;
use plugd_core::wire::CHANNEL_MAIN;
use plugd_core::{Data, Input, Status};
use tokio::time::timeout;

use super::CHANNEL_DIGEST;
use crate::SMALL_LEN;
use crate::digest::Digest;

/// How many bytes are written at once; two batches and a frame are in memory at the most.
const BATCH_LEN: usize = 1 << 20;

/// How long data that has come waits for more before it is written.
const BATCH_PAUSE: Duration = Duration::from_millis(50);

/// The input as far as it has come and was not taken.
#[derive(Debug)]
pub(crate) struct Inflow {
    pieces: Vec<Bytes>,
    /// The bytes of the pieces, and what keeping each piece costs.
    cost: usize,
    has_ended: bool,
    announced: Option<Digest>,
    digest_text: Vec<u8>,
}

impl Inflow {
    /// Nothing yet; the argument is a digest that the caller announced before.
    pub(crate) fn new(announced: Option<Digest>) -> Inflow {
        Inflow { pieces: Vec::new(), cost: 0, has_ended: false, announced, digest_text: Vec::new() }
    }

    /// Receives until a batch is full, the input has ended, or nothing more came for a moment.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn fill(&mut self, input: &mut Input) -> Result<(), Status> {
        while !self.has_ended && self.cost < BATCH_LEN {
            let received = match self.pieces.is_empty() {
                true => input.recv_data().await,
                false => match timeout(BATCH_PAUSE, input.recv_data()).await {
                    Ok(received) => received,
                    Err(_) => return Ok(()),
                },
            };
            match received? {
                Some(data) => self.accept(data)?,
                None => self.has_ended = true,
            }
        }
        Ok(())
    }

    fn accept(&mut self, data: Data) -> Result<(), Status> {
        match data.channel {
            CHANNEL_MAIN => {
                self.cost += data.payload.len() + size_of::<Bytes>();
                self.pieces.push(data.payload);
            }
            CHANNEL_DIGEST if self.digest_text.len() + data.payload.len() <= Digest::TEXT_LEN_MAX => {
                self.digest_text.extend_from_slice(&data.payload);
            }
            CHANNEL_DIGEST => return Err(Digest::bad("of too many bytes on channel 1")),
            other => {
                let message = format!("data on channel {other}; allowed: {CHANNEL_MAIN} data, {CHANNEL_DIGEST} digest");
                return Err(Status::invalid_argument("unexpected-channel", message));
            }
        }
        Ok(())
    }

    /// Whether the input has ended, and so little is left of it that writing it is no work to be divided.
    pub(crate) fn is_whole(&self) -> bool {
        self.has_ended && self.cost <= SMALL_LEN as usize
    }

    /// Takes what has come.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        self.cost = 0;
        std::mem::take(&mut self.pieces)
    }

    /// The digests that the whole file must have, once the input has ended.
    pub(crate) fn digests(&self) -> Result<Vec<Digest>, Status> {
        let mut digests = Vec::from_iter(self.announced);
        if !self.digest_text.is_empty() {
            digests.push(Digest::parse(&String::from_utf8_lossy(&self.digest_text))?);
        }
        Ok(digests)
    }
}
