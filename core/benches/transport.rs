//! What the two halves of a framed stream cost for each frame, with system calls left out.

use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use plugd_core::transport::{Inbound, Outbound};
use plugd_core::wire::{FrameHeader, FrameLimits, Kind};

fn main() {
    divan::main();
}

/// Frames in one read or write, as in the busiest row of the benchmarks.
const FRAMES: usize = 16;

const SMALL_LEN: usize = 64;

/// Longer than what is copied behind its header.
const LARGE_LEN: usize = 4 << 10;

#[divan::bench(args = [SMALL_LEN, LARGE_LEN])]
fn frames_cut_out_of_one_read(bencher: Bencher, payload_len: usize) {
    let header = FrameHeader::new(Kind::Data, payload_len as u32).encode();
    let arriving = [&header[..], &vec![b'x'; payload_len]].concat().repeat(FRAMES);
    let mut inbound = Inbound::new(FrameLimits::default());
    let mut cx = Context::from_waker(Waker::noop());
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        let mut io = &arriving[..];
        let mut taken = 0;
        while taken < FRAMES {
            assert!(inbound.poll_fill(&mut io, &mut cx).is_ready(), "memory is always ready");
            while let Some(frame) = inbound.take().expect("a good frame") {
                black_box(frame);
                taken += 1;
            }
        }
    });
}

#[divan::bench(args = [SMALL_LEN, LARGE_LEN])]
fn frames_gathered_into_one_write(bencher: Bencher, payload_len: usize) {
    let payload = Bytes::from(vec![b'x'; payload_len]);
    let mut outbound = Outbound::new();
    let mut io = tokio::io::sink();
    let mut cx = Context::from_waker(Waker::noop());
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        for _ in 0..FRAMES {
            outbound.push(FrameHeader::new(Kind::Data, payload_len as u32), black_box(&payload).clone());
        }
        assert!(matches!(outbound.poll_flush(&mut io, &mut cx), Poll::Ready(Ok(()))), "a sink takes everything");
    });
}
