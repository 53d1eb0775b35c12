//! Pieces of data that arrived together.

use bytes::{Buf, Bytes, BytesMut};

use crate::Data;
use crate::wire::{FRAME_HEADER_LEN, Frame, FrameHeader, FrameLimits, Kind};

/// The frames of a batch were checked against their limits when they were cut.
const UNLIMITED: FrameLimits = FrameLimits { data_len_max: u32::MAX, header_len_max: u32::MAX };

/// Up to this length bytes are short, in bytes: new memory for each read would cost more than it saves.
const SHORT_LEN_MAX: usize = 16 << 10;

/// Pieces of input that arrived together, still as they came: to be taken apart, or to be passed on as they are.
///
/// It is an iterator over its [`Data`]. Passing it to [`Output::send_batch`](crate::Output::send_batch) instead costs
/// next to nothing for each piece. It holds at most 16 KiB of short pieces, or one long one.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Whole DATA frames, one behind the other.
    frames: Bytes,
    payload_len: usize,
    longest_len: u32,
    empty_count: u32,
}

impl Batch {
    /// Cuts DATA frames that are whole off the front of `arrived`, until another kind of frame comes, or a bad one, or
    /// `len_max` bytes were taken.
    pub(crate) fn cut(arrived: &mut BytesMut, limits: FrameLimits, len_max: usize) -> Batch {
        let (mut taken, mut payload_len, mut longest_len, mut empty_count) = (0, 0, 0, 0);
        while taken < len_max
            && let Ok(Some(FrameHeader { kind: Kind::Data, payload_len: len, .. })) =
                Frame::peek(&arrived[taken..], limits)
        {
            let end = taken + FRAME_HEADER_LEN + len as usize;
            if arrived.len() < end {
                break;
            }
            payload_len += len as usize;
            longest_len = longest_len.max(len);
            // There are never as many as would not fit.
            empty_count = u32::wrapping_add(empty_count, u32::from(len == 0));
            taken = end;
        }
        Batch { frames: take_front(arrived, taken), payload_len, longest_len, empty_count }
    }

    /// Whether nothing is left in it.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many bytes of payload are left in it.
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// How many of its frames had no payload when it was cut.
    pub(crate) fn empty_count(&self) -> u32 {
        self.empty_count
    }

    /// What it takes of the memory for reading ahead.
    pub(crate) fn cost(&self) -> usize {
        self.frames.len() + size_of::<Batch>()
    }

    /// Its frames as they came, when none of their payloads is longer than `len_max` bytes.
    pub(crate) fn frames_within(&self, len_max: u32) -> Option<&Bytes> {
        (self.longest_len <= len_max).then_some(&self.frames)
    }
}

/// Takes bytes off the front. What is short leaves its memory with `arrived`, to be read into again; what is long and
/// nearly all there is takes it along, so that its holder may write to it.
pub(crate) fn take_front(arrived: &mut BytesMut, len: usize) -> Bytes {
    if len <= SHORT_LEN_MAX || arrived.len() - len > FRAME_HEADER_LEN {
        return arrived.split_to(len).freeze();
    }
    let rest = BytesMut::from(&arrived[len..]);
    let mut front = std::mem::replace(arrived, rest);
    front.truncate(len);
    front.freeze()
}

impl Iterator for Batch {
    type Item = Data;

    #[inline]
    fn next(&mut self) -> Option<Data> {
        let FrameHeader { channel, more, payload_len, .. } = Frame::peek(&self.frames, UNLIMITED).ok()??;
        let end = FRAME_HEADER_LEN + payload_len as usize;
        self.payload_len -= payload_len as usize;
        // The last piece takes the memory over, so that its holder may write to it.
        let mut payload =
            if end == self.frames.len() { std::mem::take(&mut self.frames) } else { self.frames.split_to(end) };
        payload.advance(FRAME_HEADER_LEN);
        Some(Data { channel, more, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: FrameHeader, payload: &[u8]) -> Vec<u8> {
        [&FrameHeader { payload_len: payload.len() as u32, ..header }.encode()[..], payload].concat()
    }

    fn arrived() -> BytesMut {
        let more = FrameHeader { more: true, channel: 3, ..FrameHeader::new(Kind::Data, 0) };
        let data = FrameHeader::new(Kind::Data, 0);
        [frame(more, b"ab"), frame(data, b""), frame(data, b"cde"), frame(FrameHeader::new(Kind::EndOfInput, 0), b"")]
            .concat()[..]
            .into()
    }

    #[test]
    fn a_batch_is_what_arrived_up_to_another_kind_of_frame() {
        let mut bytes = arrived();
        let batch = Batch::cut(&mut bytes, FrameLimits::default(), usize::MAX);
        assert_eq!((batch.payload_len(), batch.empty_count(), bytes.len()), (5, 1, FRAME_HEADER_LEN));
        let pieces: Vec<Data> = batch.collect();
        let first = Data { channel: 3, more: true, payload: Bytes::from_static(b"ab") };
        assert_eq!(pieces, [first, Data::main(""), Data::main("cde")]);
    }

    #[test]
    fn a_batch_ends_at_its_bound_before_a_part_of_a_frame_and_before_a_bad_one() {
        let cut = |mut bytes: BytesMut, limits, len_max| Batch::cut(&mut bytes, limits, len_max).count();
        let limits = FrameLimits::default();
        assert_eq!(cut(arrived(), limits, 1), 1);
        assert_eq!(cut(arrived(), limits, 11), 2);
        assert_eq!(cut(arrived().split_to(28), limits, usize::MAX), 2);
        assert_eq!(cut(arrived(), FrameLimits { data_len_max: 2, ..limits }, usize::MAX), 2);
        assert_eq!(cut(BytesMut::new(), limits, usize::MAX), 0);
    }

    #[test]
    fn frames_are_passed_on_only_to_who_takes_the_longest() {
        let batch = Batch::cut(&mut arrived(), FrameLimits::default(), usize::MAX);
        assert_eq!(batch.frames_within(3), Some(&arrived().split_to(29).freeze()));
        assert_eq!(batch.frames_within(2), None);
    }

    #[test]
    fn a_long_piece_owns_its_memory() {
        let mut bytes = BytesMut::from(&frame(FrameHeader::new(Kind::Data, 0), &[7; SHORT_LEN_MAX])[..]);
        let batch = Batch::cut(&mut bytes, FrameLimits::default(), usize::MAX);
        let last = batch.last().expect("a piece");
        assert!(last.payload.try_into_mut().is_ok());
    }
}
