//! The unit on the wire: a fixed binary header with the payload's length, then the payload.

use bytes::{Buf, Bytes};

/// The length of a frame's header, in bytes.
pub const FRAME_HEADER_LEN: usize = 8;

/// The channel that every call has; the others are side channels, such as standard error.
pub const CHANNEL_MAIN: u8 = 0;

/// The longest payload of a DATA frame that any side may announce to accept, 16 MiB: a frame is held whole in memory.
pub const DATA_LEN_MAX: u32 = 16 << 20;

/// The longest payload of a DATA frame that every side accepts, 64 KiB, whatever else it announces.
pub const DATA_LEN_MAX_LEAST: u32 = 64 << 10;

/// The longest payload of a DATA frame that a side accepts unless it is told otherwise, 1 MiB.
pub const DATA_LEN_MAX_DEFAULT: u32 = 1 << 20;

/// The longest payload of the frames that hold JSON, 64 KiB: names and numbers fit many times over, files belong in data.
pub const HEADER_LEN_MAX: u32 = 64 << 10;

/// The lowest bound on JSON frames that a side may set, 1 KiB.
pub const HEADER_LEN_MAX_LEAST: u32 = 1 << 10;

const FLAG_MORE: u8 = 0x01;
const FLAG_CLOSE: u8 = 0x02;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Opens a call; from the client; a JSON object.
    Open = 1,
    /// The handler's own header, before its first data; from the server; a JSON object.
    Head = 2,
    /// Payload, either way; raw bytes.
    Data = 3,
    /// The caller has sent all its input; from the client; empty.
    EndOfInput = 4,
    /// The caller gives up; from the client; empty.
    Cancel = 5,
    /// The call has ended; from the server; a JSON object, or empty for plain success.
    End = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Open,
            2 => Kind::Head,
            3 => Kind::Data,
            4 => Kind::EndOfInput,
            5 => Kind::Cancel,
            6 => Kind::End,
            _ => return None,
        })
    }

    /// The name that the protocol page uses.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Open => "OPEN",
            Kind::Head => "HEAD",
            Kind::Data => "DATA",
            Kind::EndOfInput => "EOI",
            Kind::Cancel => "CANCEL",
            Kind::End => "END",
        }
    }

    fn flags_allowed(self) -> u8 {
        match self {
            Kind::Data => FLAG_MORE,
            Kind::End => FLAG_CLOSE,
            _ => 0,
        }
    }
}

/// The longest payloads that one side of a connection accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// For DATA frames, in bytes.
    pub data_len_max: u32,
    /// For OPEN, HEAD and END frames, in bytes.
    pub header_len_max: u32,
}

impl Default for FrameLimits {
    fn default() -> FrameLimits {
        FrameLimits { data_len_max: DATA_LEN_MAX_DEFAULT, header_len_max: HEADER_LEN_MAX }
    }
}

impl FrameLimits {
    fn payload_len_max(self, kind: Kind) -> u32 {
        match kind {
            Kind::Data => self.data_len_max,
            Kind::Open | Kind::Head | Kind::End => self.header_len_max,
            Kind::EndOfInput | Kind::Cancel => 0,
        }
    }
}

/// The fixed part of a frame.
///
/// ```text
/// offset  size  field
///      0     1  kind, see `Kind`
///      1     1  flags: 0x01 MORE (DATA only), 0x02 CLOSE (END only), all others 0
///      2     1  channel, 0 unless the kind is DATA
///      3     1  reserved, 0
///      4     4  length of the payload that follows: u32 BE
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame is for.
    pub kind: Kind,
    /// On DATA: the message goes on in the next DATA frame of this channel.
    pub more: bool,
    /// On END: the connection closes after this frame.
    pub close: bool,
    /// The channel of a DATA frame, [`CHANNEL_MAIN`] on every other kind.
    pub channel: u8,
    /// The length of the payload, in bytes.
    pub payload_len: u32,
}

/// Why bytes are no frame. The stream cannot be picked up again after one of these: close it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first byte names no kind.
    #[error("unknown frame kind {found}; known: 1 to 6")]
    UnknownKind {
        /// The byte that was found.
        found: u8,
    },
    /// A flag is set that this kind does not have.
    #[error("flags {found:#04x} not allowed on {}", .kind.name())]
    Flags {
        /// The kind of the frame.
        kind: Kind,
        /// All its flags.
        found: u8,
    },
    /// A channel is named on a frame that belongs to none, or the reserved byte is set.
    #[error("reserved byte of {} is not zero", .kind.name())]
    Reserved {
        /// The kind of the frame.
        kind: Kind,
    },
    /// The announced payload is longer than this side accepts.
    #[error("{} of {found} bytes too long; allowed: {allowed}", .kind.name())]
    TooLong {
        /// The kind of the frame.
        kind: Kind,
        /// The announced length of the payload, in bytes.
        found: u32,
        /// The longest payload of this kind, in bytes.
        allowed: u32,
    },
}

impl FrameHeader {
    /// The header of a frame without flags on the main channel.
    pub fn new(kind: Kind, payload_len: u32) -> FrameHeader {
        FrameHeader { kind, more: false, close: false, channel: CHANNEL_MAIN, payload_len }
    }

    /// Writes the header.
    #[inline]
    pub fn encode(self) -> [u8; FRAME_HEADER_LEN] {
        let flags = if self.more { FLAG_MORE } else { 0 } | if self.close { FLAG_CLOSE } else { 0 };
        let [a, b, c, d] = self.payload_len.to_be_bytes();
        [self.kind as u8, flags, self.channel, 0, a, b, c, d]
    }

    /// Reads a header and checks it against `limits`.
    ///
    /// # Errors
    ///
    /// [`FrameError`], before a byte of the payload has been read or any memory taken for it.
    #[inline]
    pub fn decode(bytes: [u8; FRAME_HEADER_LEN], limits: FrameLimits) -> Result<FrameHeader, FrameError> {
        let [kind, flags, channel, reserved, a, b, c, d] = bytes;
        let kind = Kind::from_byte(kind).ok_or(FrameError::UnknownKind { found: kind })?;
        if flags & !kind.flags_allowed() != 0 {
            return Err(FrameError::Flags { kind, found: flags });
        }
        if reserved != 0 || (channel != CHANNEL_MAIN && kind != Kind::Data) {
            return Err(FrameError::Reserved { kind });
        }
        let payload_len = u32::from_be_bytes([a, b, c, d]);
        let allowed = limits.payload_len_max(kind);
        if payload_len > allowed {
            return Err(FrameError::TooLong { kind, found: payload_len, allowed });
        }
        Ok(FrameHeader { kind, more: flags & FLAG_MORE != 0, close: flags & FLAG_CLOSE != 0, channel, payload_len })
    }
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its fixed part.
    pub header: FrameHeader,
    /// Its payload, as long as the header says.
    pub payload: Bytes,
}

impl Frame {
    /// Reads the header of the frame at the front of `buf` and leaves it there; `None` while it is not whole.
    ///
    /// # Errors
    ///
    /// [`FrameError`] as soon as the header is whole and wrong.
    #[inline]
    pub fn peek(buf: &[u8], limits: FrameLimits) -> Result<Option<FrameHeader>, FrameError> {
        buf.first_chunk().map(|bytes| FrameHeader::decode(*bytes, limits)).transpose()
    }

    /// Takes one whole frame off the front of `buf`, or leaves `buf` alone while the frame is not whole.
    ///
    /// The payload shares the memory of `buf`; nothing is copied.
    ///
    /// # Errors
    ///
    /// [`FrameError`] as soon as the header is whole and wrong.
    #[inline]
    pub fn take(buf: &mut Bytes, limits: FrameLimits) -> Result<Option<Frame>, FrameError> {
        let Some(header) = Frame::peek(buf, limits)? else {
            return Ok(None);
        };
        let end = FRAME_HEADER_LEN + header.payload_len as usize;
        if buf.len() < end {
            return Ok(None);
        }
        let payload = buf.slice(FRAME_HEADER_LEN..end);
        buf.advance(end);
        Ok(Some(Frame { header, payload }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        let payload = proptest::collection::vec(any::<u8>(), 0..300);
        (1u8..=6, any::<bool>(), any::<u8>(), payload).prop_map(|(kind, flag, channel, payload)| {
            let kind = Kind::from_byte(kind).expect("1 to 6 are kinds");
            let payload = if matches!(kind, Kind::EndOfInput | Kind::Cancel) { Vec::new() } else { payload };
            let header = FrameHeader {
                more: flag && kind == Kind::Data,
                close: flag && kind == Kind::End,
                channel: if kind == Kind::Data { channel } else { CHANNEL_MAIN },
                ..FrameHeader::new(kind, payload.len() as u32)
            };
            Frame { header, payload: payload.into() }
        })
    }

    fn encode(frames: &[Frame]) -> Vec<u8> {
        frames.iter().flat_map(|frame| [&frame.header.encode()[..], &frame.payload].concat()).collect()
    }

    fn take_all(buf: &mut Bytes) -> Vec<Frame> {
        std::iter::from_fn(|| Frame::take(buf, FrameLimits::default()).expect("only good frames")).collect()
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_wherever_the_stream_is_cut(
            frames in proptest::collection::vec(any_frame(), 0..4)
        ) {
            let stream = encode(&frames);
            for cut in 0..=stream.len() {
                let mut buf = Bytes::copy_from_slice(&stream[..cut]);
                let mut taken = take_all(&mut buf);
                buf = [&buf[..], &stream[cut..]].concat().into();
                taken.extend(take_all(&mut buf));
                prop_assert_eq!(&taken, &frames);
                prop_assert!(buf.is_empty());
            }
        }

        #[test]
        fn frames_come_out_as_they_went_in_byte_by_byte(frames in proptest::collection::vec(any_frame(), 0..6)) {
            let mut buf = Bytes::new();
            let mut taken = Vec::new();
            for byte in encode(&frames) {
                buf = [&buf[..], &[byte]].concat().into();
                taken.extend(take_all(&mut buf));
            }
            prop_assert_eq!(taken, frames);
        }

        #[test]
        fn noise_never_panics_and_never_takes_more_than_a_frame_may_hold(
            noise in proptest::collection::vec(any::<u8>(), 0..64)
        ) {
            let mut buf = Bytes::from(noise);
            while let Ok(Some(frame)) = Frame::take(&mut buf, FrameLimits::default()) {
                prop_assert_eq!(frame.payload.len(), frame.header.payload_len as usize);
            }
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_from_the_header_alone() {
        let limits = FrameLimits::default();
        let exact = FrameHeader::new(Kind::Data, limits.data_len_max);
        assert_eq!(FrameHeader::decode(exact.encode(), limits), Ok(exact));
        for found in [limits.data_len_max + 1, u32::MAX] {
            let header = FrameHeader::new(Kind::Data, found).encode();
            let error = FrameError::TooLong { kind: Kind::Data, found, allowed: limits.data_len_max };
            assert_eq!(FrameHeader::decode(header, limits), Err(error));
        }
    }

    #[test]
    fn empty_kinds_take_no_payload() {
        let header = FrameHeader::new(Kind::Cancel, 1).encode();
        let error = FrameHeader::decode(header, FrameLimits::default()).expect_err("CANCEL is empty");
        assert_eq!(error.to_string(), "CANCEL of 1 bytes too long; allowed: 0");
    }

    #[test]
    fn flags_channels_and_reserved_bytes_are_checked() {
        let refused = |bytes| FrameHeader::decode(bytes, FrameLimits::default()).expect_err("not allowed");
        assert_eq!(refused([0, 0, 0, 0, 0, 0, 0, 0]), FrameError::UnknownKind { found: 0 });
        assert_eq!(refused([3, 2, 0, 0, 0, 0, 0, 0]), FrameError::Flags { kind: Kind::Data, found: 2 });
        assert_eq!(refused([6, 0, 1, 0, 0, 0, 0, 0]), FrameError::Reserved { kind: Kind::End });
        assert_eq!(refused([3, 0, 1, 9, 0, 0, 0, 0]), FrameError::Reserved { kind: Kind::Data });
    }
}
