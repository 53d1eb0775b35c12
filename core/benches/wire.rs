//! What reading and writing the fixed part of a frame, an opening header and an end cost.

use std::hint::black_box;

use divan::Bencher;
use plugd_core::wire::{End, FRAME_HEADER_LEN, FrameHeader, FrameLimits, Kind, Open};
use plugd_core::{Code, Status};

fn main() {
    divan::main();
}

mod frame_header {
    use super::*;

    #[divan::bench]
    fn encode() -> [u8; FRAME_HEADER_LEN] {
        black_box(FrameHeader::new(Kind::Data, black_box(64))).encode()
    }

    #[divan::bench]
    fn decode(bencher: Bencher) {
        let bytes = FrameHeader::new(Kind::Data, 64).encode();
        bencher.bench(|| FrameHeader::decode(black_box(bytes), FrameLimits::default()).expect("a good header"));
    }
}

mod open {
    use super::*;

    /// Nothing but the command, which is read without a JSON parser.
    const BARE: &str = r#"{"command":"echo"}"#;

    const WITH_ARGS: &str = r#"{"command":"files.get","args":{"path":"reports/2026/november.pdf"}}"#;

    const WITH_METADATA: &str =
        r#"{"command":"echo","deadline_ms":30000,"metadata":{"trace":"4bf92f3577b34da6","user":"ada"}}"#;

    #[divan::bench]
    fn decode_bare() -> Open<'static> {
        decode(BARE)
    }

    #[divan::bench]
    fn decode_with_args() -> Open<'static> {
        decode(WITH_ARGS)
    }

    #[divan::bench]
    fn decode_with_metadata() -> Open<'static> {
        decode(WITH_METADATA)
    }

    #[divan::bench]
    fn encode_bare(bencher: Bencher) {
        encode(bencher, BARE);
    }

    #[divan::bench]
    fn encode_with_args(bencher: Bencher) {
        encode(bencher, WITH_ARGS);
    }

    #[divan::bench]
    fn encode_with_metadata(bencher: Bencher) {
        encode(bencher, WITH_METADATA);
    }

    fn decode(json: &str) -> Open<'_> {
        Open::decode(black_box(json.as_bytes())).expect("a good header")
    }

    fn encode(bencher: Bencher, json: &str) {
        let open = decode(json);
        bencher.bench_local(|| black_box(&open).encode());
    }
}

mod end {
    use super::*;

    /// The ordinary end, which has no payload.
    fn success() -> End {
        Status::ok().into()
    }

    /// An end that says what was wrong.
    fn refusal() -> End {
        Status::new(Code::NotFound, "unknown-plugin", "no plugin \"uper\"; did you mean \"upper\"?").into()
    }

    #[divan::bench]
    fn encode_success(bencher: Bencher) {
        encode(bencher, success());
    }

    #[divan::bench]
    fn encode_refusal(bencher: Bencher) {
        encode(bencher, refusal());
    }

    #[divan::bench]
    fn decode_success(bencher: Bencher) {
        decode(bencher, success());
    }

    #[divan::bench]
    fn decode_refusal(bencher: Bencher) {
        decode(bencher, refusal());
    }

    fn encode(bencher: Bencher, end: End) {
        bencher.bench_local(|| black_box(&end).encode());
    }

    fn decode(bencher: Bencher, end: End) {
        let payload = end.encode();
        bencher.bench_local(|| End::decode(black_box(&payload)).expect("a good end"));
    }
}
