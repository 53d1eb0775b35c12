//! A digest that is made beside a transfer, on a thread of its own.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::cli::files::digest::{Algorithm, Hasher};

/// How many chunks wait for the hashing thread; a chunk is 1 MiB at most.
const CHUNKS_MAX: usize = 2;

/// A digest in the making.
#[derive(Debug)]
pub(crate) enum Hashing {
    Beside { chunks: SyncSender<Bytes>, thread: JoinHandle<Hasher> },
    Not,
}

impl Hashing {
    /// Goes on with a digest; costs nothing when none is made.
    pub(crate) fn start(algorithm: Algorithm, mut hasher: Hasher) -> Hashing {
        if algorithm.is_none() {
            return Hashing::Not;
        }
        let (chunks, received) = sync_channel::<Bytes>(CHUNKS_MAX);
        let thread = std::thread::spawn(move || {
            for chunk in received {
                hasher.update(&chunk);
            }
            hasher
        });
        Hashing::Beside { chunks, thread }
    }

    pub(crate) fn add(&self, chunk: &Bytes) {
        if let Hashing::Beside { chunks, .. } = self {
            // The thread ends only after this side has.
            let _ = chunks.send(chunk.clone());
        }
    }

    /// What was hashed so far, to be finished or gone on with.
    pub(crate) fn end(self) -> Hasher {
        match self {
            Hashing::Beside { chunks, thread } => {
                drop(chunks);
                thread.join().expect("hashing bytes does not panic")
            }
            Hashing::Not => Hasher::None,
        }
    }
}
