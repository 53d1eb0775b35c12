//! Receives a call's answer in frames, for whoever speaks in them.

use std::io::Read;
use std::net::TcpStream;

use plugd_core::wire::{End, FRAME_HEADER_LEN, FrameHeader, FrameLimits, Kind};

/// How much is received at once, in bytes.
pub const READ_LEN: usize = 256 << 10;

/// Hands on the channel and the payload of DATA frames, in pieces as they come, until the call has ended; `buf` is of
/// [`READ_LEN`].
///
/// # Panics
///
/// When what comes are no frames, or the connection breaks: the figures would mean nothing.
pub fn receive(stream: &mut TcpStream, buf: &mut [u8], sink: &mut dyn FnMut(u8, &[u8])) -> End {
    let limits = FrameLimits::default();
    let (mut filled, mut channel, mut left) = (0, None, 0);
    loop {
        let read = stream.read(&mut buf[filled..]).expect("an open connection");
        assert!(read > 0, "the peer closed");
        filled += read;
        let mut rest = &buf[..filled];
        loop {
            let (payload, after) = rest.split_at(left.min(rest.len()));
            if let Some(channel) = channel.filter(|_| !payload.is_empty()) {
                sink(channel, payload);
            }
            (left, rest) = (left - payload.len(), after);
            let Some((header, after)) = rest.split_first_chunk::<FRAME_HEADER_LEN>() else {
                break;
            };
            let header = FrameHeader::decode(*header, limits).expect("a frame");
            let payload_len = header.payload_len as usize;
            if header.kind == Kind::End {
                let Some(payload) = after.get(..payload_len) else { break };
                return End::decode(payload).expect("an end");
            }
            channel = (header.kind == Kind::Data).then_some(header.channel);
            (left, rest) = (payload_len, after);
        }
        let rest_len = rest.len();
        buf.copy_within(filled - rest_len..filled, 0);
        filled = rest_len;
    }
}
