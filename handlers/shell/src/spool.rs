//! What a job has printed: the last of it, in a file without a name that ends with the server.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// How many pieces are remembered at the most: 24 bytes each, so that byte after byte in turns costs no more than 1.5 MiB.
const PIECES_MAX: usize = 64 << 10;

/// How long a piece grows before the next begins, in bytes: it is read and sent at once.
const PIECE_LEN_MAX: u64 = 64 << 10;

/// A run of bytes of one stream.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: u64,
    len: u64,
    channel: u8,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// How many bytes were ever pushed.
    end: u64,
    is_closed: bool,
}

impl State {
    fn first(&self) -> u64 {
        self.pieces.front().map_or(self.end, |piece| piece.start)
    }
}

/// What comes next for a reader.
#[derive(Debug)]
pub(crate) enum Next {
    /// Bytes of one stream.
    Bytes(u8, Bytes),
    /// Nothing yet.
    Later,
    /// Nothing any more.
    End,
}

/// The last output of a job, in the order in which it came. Bytes are counted over both streams.
#[derive(Debug)]
pub(crate) struct Spool {
    /// A ring: byte `n` is at `n` modulo the length.
    file: Arc<File>,
    len_max: u64,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Spool {
    /// Makes room for `len_max` bytes on disk.
    pub(crate) fn new(len_max: u64) -> io::Result<Spool> {
        let file = Arc::new(tempfile::tempfile()?);
        Ok(Spool { file, len_max, state: Mutex::default(), changed: watch::Sender::new(()) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves at the next change after this was called.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The first byte that is still kept, and the one after the last.
    pub(crate) fn kept(&self) -> (u64, u64) {
        let state = self.state();
        (state.first(), state.end)
    }

    /// Adds bytes; the oldest make room for them. What the disk does not take is lost, as the oldest is.
    pub(crate) async fn push(&self, channel: u8, mut bytes: Bytes) {
        let piece_len_max = PIECE_LEN_MAX.min(self.len_max / 2).max(1);
        while !bytes.is_empty() {
            let rest = bytes.split_off(bytes.len().min(usize::try_from(piece_len_max).unwrap_or(usize::MAX)));
            let piece = std::mem::replace(&mut bytes, rest);
            let start = self.make_room(piece.len() as u64);
            let (file, len_max, len) = (self.file.clone(), self.len_max, piece.len() as u64);
            // A disk that is slow must not hold up the connections of this thread.
            let _ = spawn_blocking(move || write_ring(&file, start, &piece, len_max)).await;
            self.append(channel, start, len, piece_len_max);
            self.changed.send_replace(());
        }
    }

    /// Forgets the oldest, until `len` more bytes fit.
    fn make_room(&self, len: u64) -> u64 {
        let mut state = self.state();
        while state.pieces.len() >= PIECES_MAX || state.end + len - state.first() > self.len_max {
            if state.pieces.pop_front().is_none() {
                break;
            }
        }
        state.end
    }

    fn append(&self, channel: u8, start: u64, len: u64, piece_len_max: u64) {
        let mut state = self.state();
        match state.pieces.back_mut() {
            Some(last) if last.channel == channel && last.len + len <= piece_len_max => last.len += len,
            _ => state.pieces.push_back(Piece { start, len, channel }),
        }
        state.end = start + len;
    }

    /// Says that nothing follows.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
        self.changed.send_replace(());
    }

    /// Reads what comes at `from`, and moves `from` behind it; past what is kept no longer.
    ///
    /// # Errors
    ///
    /// What reading the disk fails with.
    pub(crate) async fn next(&self, from: &mut u64) -> io::Result<Next> {
        loop {
            let piece = {
                let state = self.state();
                *from = (*from).max(state.first());
                let index = state.pieces.partition_point(|piece| piece.start + piece.len <= *from);
                match state.pieces.get(index) {
                    Some(piece) => *piece,
                    None => return Ok(if state.is_closed { Next::End } else { Next::Later }),
                }
            };
            let (start, len) = (*from, piece.start + piece.len - *from);
            let (file, len_max) = (self.file.clone(), self.len_max);
            let read = spawn_blocking(move || read_ring(&file, start, len, len_max)).await;
            let bytes = read.map_err(io::Error::other)??;
            // Meanwhile newer output may have taken the place.
            if self.state().first() <= start {
                *from = start + len;
                return Ok(Next::Bytes(piece.channel, bytes));
            }
        }
    }
}

fn write_ring(file: &File, start: u64, bytes: &[u8], len_max: u64) -> io::Result<()> {
    let offset = start % len_max;
    let until_end = usize::try_from(len_max - offset).unwrap_or(usize::MAX).min(bytes.len());
    file.write_all_at(&bytes[..until_end], offset)?;
    file.write_all_at(&bytes[until_end..], 0)
}

fn read_ring(file: &File, start: u64, len: u64, len_max: u64) -> io::Result<Bytes> {
    let offset = start % len_max;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let until_end = usize::try_from(len_max - offset).unwrap_or(usize::MAX).min(bytes.len());
    file.read_exact_at(&mut bytes[..until_end], offset)?;
    file.read_exact_at(&mut bytes[until_end..], 0)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(spool: &Spool, mut from: u64) -> Vec<(u8, Vec<u8>)> {
        let mut found: Vec<(u8, Vec<u8>)> = Vec::new();
        while let Next::Bytes(channel, bytes) = spool.next(&mut from).await.expect("a disk") {
            found.push((channel, bytes.to_vec()));
        }
        found
    }

    #[tokio::test]
    async fn output_keeps_its_order_and_its_streams() {
        let spool = Spool::new(1024).expect("a disk");
        for (channel, text) in [(0, "a"), (0, "b"), (1, "c"), (0, "d")] {
            spool.push(channel, text.into()).await;
        }
        assert_eq!(all(&spool, 0).await, [(0, b"ab".to_vec()), (1, b"c".to_vec()), (0, b"d".to_vec())]);
        assert_eq!(all(&spool, 1).await[0], (0, b"b".to_vec()));
    }

    #[tokio::test]
    async fn the_oldest_makes_room_and_the_rest_is_whole() {
        let spool = Spool::new(1000).expect("a disk");
        let bytes: Vec<u8> = (0..5000u32).map(|number| (number % 251) as u8).collect();
        for chunk in bytes.chunks(333) {
            spool.push(0, Bytes::copy_from_slice(chunk)).await;
        }
        let (first, end) = spool.kept();
        assert_eq!(end, 5000);
        assert!((1..=1000).contains(&(end - first)), "{first}");
        let kept = all(&spool, 0).await.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>().concat();
        assert_eq!(kept, bytes[usize::try_from(first).expect("small")..]);
    }
}
