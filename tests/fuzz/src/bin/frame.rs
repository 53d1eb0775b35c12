//! A stream of frames: the same frames come out however the bytes arrive, and each is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use plugd_core::transport::Inbound;
use plugd_core::wire::{FRAME_HEADER_LEN, Frame, FrameError, FrameLimits};
use tokio::runtime::{Builder, Runtime};

/// Small limits, so that both sides of them are met.
const LIMITS: FrameLimits = FrameLimits { data_len_max: 512, header_len_max: 256 };

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_len, bytes) = input;
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let whole = read(&runtime, bytes, bytes.len().max(1));
    assert_eq!(whole, read(&runtime, bytes, usize::from(piece_len).max(1)), "in pieces of {piece_len}");
    let (frames, error) = whole;
    let written: Vec<u8> =
        frames.iter().flat_map(|frame| [&frame.header.encode()[..], &frame.payload].concat()).collect();
    assert_eq!(written, bytes[..written.len()]);
    match error {
        Some(error) => assert!(!error.to_string().is_empty()),
        None => assert!(bytes.len() - written.len() < FRAME_HEADER_LEN + LIMITS.data_len_max as usize),
    }
});

/// Reads all frames, from bytes that come in pieces of one length.
fn read(runtime: &Runtime, bytes: &[u8], piece_len: usize) -> (Vec<Frame>, Option<FrameError>) {
    let (mut inbound, mut frames) = (Inbound::new(LIMITS), Vec::new());
    for mut piece in bytes.chunks(piece_len) {
        while !piece.is_empty() {
            runtime.block_on(inbound.fill(&mut piece)).expect("memory does not fail");
        }
        loop {
            match inbound.take() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
