//! Attacks against the running program: after each the same process answers a fresh call within a second, holds no more
//! memory, descriptors or children than before, and has panicked nowhere but where a handler was asked to.
//!
//! `tests/attacks/run` attacks the release build, with what takes longer as well; docs/security.md has the table.

mod peer;
mod target;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use plugd_core::wire::{Auth, Kind, Open};
use rstest::rstest;
use serde_json::json;
use serde_json::value::to_raw_value;

use peer::{Peer, announce, frame, hello, open};
use target::{GOOD_TOKEN, PROGRAM, Target};

/// Bytes that look like nothing, the same each time (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn with_args(command: &str, args: &serde_json::Value) -> Vec<u8> {
    let open = Open { args: Some(to_raw_value(args).expect("JSON")), ..Open::new(command) };
    frame(Kind::Open, &open.encode())
}

#[test]
fn connections_that_close_at_once() {
    let target = Target::start();
    for _ in 0..2_000 {
        drop(Peer::connect(target.address));
    }
    target.survives(0);
}

#[rstest]
#[case::all_that_can_be_written(u32::MAX)]
#[case::one_byte_too_many((1 << 20) + 1)]
fn a_frame_that_announces_too_much(#[case] len: u32) {
    let target = Target::start();
    let mut peer = Peer::greet(target.address);
    peer.send(&[open("echo"), announce(len)].concat());
    assert_eq!(peer.end(), "frame-too-long");
    target.survives(0);
}

#[test]
fn exactly_the_longest_frame_passes() {
    let target = Target::start();
    let payload = noise(1 << 20);
    let mut peer = Peer::greet(target.address);
    peer.call("echo", &payload);
    assert!(peer.data() == payload, "another payload");
    assert_eq!(peer.end(), "");
    drop(peer);
    target.survives(0);
}

#[test]
fn much_is_announced_and_nothing_sent() {
    let target = Target::start();
    let peers: Vec<Peer> = (0..500)
        .map(|_| {
            let mut peer = Peer::greet(target.address);
            peer.send(&[open("echo"), announce(1 << 20)].concat());
            peer
        })
        .collect();
    assert!(target.growth() < 32 << 20, "{} bytes for announcements", target.growth());
    drop(peers);
    target.survives(0);
}

#[test]
fn frames_without_anything_in_them() {
    let target = Target::start();
    let mut peer = Peer::greet(target.address);
    peer.send(&open("echo"));
    // The server may stop reading before the last of them.
    let _ = peer.try_send(&announce(0).repeat(10_001));
    assert_eq!(peer.end(), "empty-frames-max");
    target.survives(0);
}

#[test]
fn noise_instead_of_a_hello_or_of_frames() {
    let target = Target::start();
    for round in 0..20 {
        let noise = noise(64 << 10).split_off(round);
        let mut peer = Peer::connect(target.address);
        let _ = peer.try_send(&noise);
        peer.until_closed();
        let mut peer = Peer::greet(target.address);
        let _ = peer.try_send(&noise);
        peer.until_closed();
    }
    target.survives(0);
}

#[test]
fn a_tls_client_is_told_by_an_alert() {
    let target = Target::start();
    let mut peer = Peer::connect(target.address);
    // The beginning of a ClientHello (RFC 8446, section 5.1).
    peer.send(&[&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01][..], &noise(512)].concat());
    assert_eq!(peer.until_closed().first(), Some(&0x15));
    target.survives(0);
}

#[test]
fn a_command_that_would_write_its_own_lines_into_the_log() {
    let target = Target::start();
    let mut peer = Peer::greet(target.address);
    let name = "x\r\nINFO forged\u{1b}[2J\0\u{202e}evil";
    peer.send(&[open(name), frame(Kind::EndOfInput, b"")].concat());
    assert_eq!(peer.end(), "unknown-plugin");
    let lines: Vec<String> = target.log().into_iter().filter(|line| line.contains("forged")).collect();
    assert!(!lines.is_empty(), "the call is not in the log");
    for line in &lines {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
        assert!(!line.chars().any(|letter| letter.is_control() || letter == '\u{202e}'), "{line:?}");
    }
    drop(peer);
    target.survives(0);
}

#[test]
fn a_header_that_comes_a_byte_at_a_time() {
    let target = Target::start();
    let mut peer = Peer::greet(target.address);
    let begun = Instant::now();
    for byte in open("echo") {
        if peer.try_send(&[byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
        if begun.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    assert_eq!(peer.end(), "header-timeout");
    target.survives(0);
}

#[test]
fn a_body_that_comes_a_byte_a_second() {
    let target = Target::start();
    let mut peer = Peer::greet(target.address);
    peer.send(&[open("echo"), announce(1 << 20)].concat());
    for _ in 0..4 {
        let _ = peer.try_send(b"x");
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(peer.end(), "body-rate-min");
    target.survives(0);
}

#[test]
fn a_gibibyte_is_asked_for_and_never_read() {
    let target = Target::start();
    let mut peer = Peer::greet(target.address);
    peer.send(&[with_args("demo.fill", &json!({ "len": 1 << 30 })), frame(Kind::EndOfInput, b"")].concat());
    let begun = Instant::now();
    let is_cut = |line: &String| line.contains("write-stalled");
    while !target.log().iter().any(is_cut) {
        assert!(target.growth() < 32 << 20, "{} bytes for who does not read", target.growth());
        assert!(begun.elapsed() < Duration::from_secs(20), "not cut");
        std::thread::sleep(Duration::from_millis(50));
    }
    target.survives(0);
}

#[rstest]
#[case::levels_33(nested(33).into_bytes())]
#[case::levels_129(nested(129).into_bytes())]
#[case::duplicate_keys(br#"{"command":"echo","command":"upper"}"#.to_vec())]
#[case::number_beyond_all(br#"{"command":"echo","deadline_ms":1e999}"#.to_vec())]
#[case::lone_surrogate(br#"{"command":"\ud800"}"#.to_vec())]
#[case::no_utf8(b"{\"command\":\"\xff\xfe\"}".to_vec())]
fn headers_that_no_reader_should_take(#[case] header: Vec<u8>) {
    let target = Target::start();
    let mut peer = Peer::greet(target.address);
    peer.send(&[frame(Kind::Open, &header), frame(Kind::EndOfInput, b"")].concat());
    assert_eq!(peer.end(), "malformed-header");
    peer.call("echo", b"the connection stays");
    assert_eq!(peer.data(), b"the connection stays");
    drop(peer);
    target.survives(0);
}

/// An opening header with so many objects within each other, itself counted.
fn nested(levels: usize) -> String {
    format!(r#"{{"command":"echo","args":{}1{}}}"#, r#"{"a":"#.repeat(levels - 1), "}".repeat(levels - 1))
}

#[test]
fn a_header_of_a_hundred_thousand_levels() {
    let target = Target::start();
    let mut peer = Peer::greet(target.address);
    let _ = peer.try_send(&frame(Kind::Open, nested(100_000).as_bytes()));
    assert_eq!(peer.end(), "frame-too-long");
    target.survives(0);
}

#[test]
fn connections_that_never_say_what_they_want() {
    let target = Target::start();
    let idle: Vec<Peer> = (0..64).map(|_| Peer::greet(target.address)).collect();
    let mut one_more = Peer::connect(target.address);
    one_more.send(&hello());
    one_more.read_hello();
    assert_eq!(one_more.end(), "connections-unidentified-max");
    drop((idle, one_more));
    // Their places come back when the server has seen their ends.
    std::thread::sleep(Duration::from_millis(1500));
    target.survives(0);
}

#[test]
fn a_thousand_panics() {
    let target = Target::start();
    let mut peer = Peer::greet(target.address);
    for _ in 0..1_000 {
        peer.send(&[open("demo.panic"), frame(Kind::EndOfInput, b"")].concat());
        assert_eq!(peer.end(), "panic");
    }
    drop(peer);
    target.survives(1_000);
}

#[test]
fn handlers_that_block_every_thread() {
    let target = Target::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let go_on = dir.path().join("go-on");
    let mut peers = Vec::new();
    for index in 0..4 {
        let entered = dir.path().join(format!("{index}"));
        let mut peer = Peer::greet(target.address);
        peer.send(&with_args("demo.block", &json!({ "until": go_on, "entered": entered })));
        peer.send(&frame(Kind::EndOfInput, b""));
        let begun = Instant::now();
        while !entered.exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "handler {index} was not entered");
            std::thread::sleep(Duration::from_millis(5));
        }
        peers.push(peer);
    }
    let begun = Instant::now();
    target.echo();
    assert!(begun.elapsed() < Duration::from_secs(1), "a fresh call took {:?}", begun.elapsed());
    std::fs::write(&go_on, "").expect("a file");
    for mut peer in peers {
        assert_eq!(peer.end(), "");
    }
    target.survives(0);
}

#[test]
fn input_that_no_handler_reads() {
    const PEERS: usize = 16;
    // What docs/operating.md says that a connection holds at the most.
    const HELD_MAX: usize = 19 << 18;
    let target = Target::start();
    let frames = frame(Kind::Data, &noise(1 << 20)).repeat(8);
    let peers: Vec<Peer> = std::thread::scope(|scope| {
        let senders = (0..PEERS).map(|_| {
            let mut peer = Peer::greet(target.address);
            let frames = &frames;
            scope.spawn(move || {
                peer.send(&open("demo.wait"));
                peer.send_until_stalled(frames);
                peer
            })
        });
        let senders: Vec<_> = senders.collect();
        senders.into_iter().map(|sender| sender.join().expect("a sender")).collect()
    });
    assert!(target.growth() < PEERS * HELD_MAX, "{} bytes for {PEERS} connections", target.growth());
    // An orderly close would stand behind the input, and be seen when the sender's kernel gives up.
    peers.into_iter().for_each(Peer::reset);
    target.survives(0);
}

#[test]
fn a_hundred_connections_for_sixty_four_descriptors() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", PROGRAM]);
    let target = Target::start_by(command);
    let peers: Vec<Peer> = (0..100)
        .map(|_| {
            let mut peer = Peer::connect(target.address);
            peer.send(&[hello(), open("demo.wait")].concat());
            peer
        })
        .collect();
    let begun = Instant::now();
    while !target.log().iter().any(|line| line.contains("Too many open files")) {
        assert!(begun.elapsed() < Duration::from_secs(10), "no descriptor was missing");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (before, watched) = (target.processor_time(), Duration::from_secs(3));
    std::thread::sleep(watched);
    let taken = target.processor_time() - before;
    assert!(taken < watched / 5, "{taken:?} of a processor within {watched:?}");
    drop(peers);
    let begun = Instant::now();
    target.echo();
    assert!(begun.elapsed() < Duration::from_secs(2), "a fresh call took {:?}", begun.elapsed());
    target.survives(0);
}

/// The clock of the day is another for the server alone, by a library that answers for the kernel.
#[test]
#[ignore = "needs libfaketime; .ci/run and tests/attacks/run do it"]
fn a_clock_that_is_set_back_and_ahead() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = dir.path().join("clock");
    let set = |to: u64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        std::fs::write(&clock, format!("{:+}", to as i64 - now as i64)).expect("a file");
    };
    set(YEAR_2026);
    let mut command = Command::new(PROGRAM);
    command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", &clock);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let target = Target::start_by(command);
    let mut idle = Peer::greet(target.address);
    idle.call("echo", b"before");
    assert_eq!((idle.data(), idle.end()), (b"before".to_vec(), String::new()));

    for year in [YEAR_2000, YEAR_2035] {
        let begun = Instant::now();
        let mut silent = Peer::greet(target.address);
        let mut slow = Peer::greet(target.address);
        slow.send(&[open("echo"), announce(1 << 10), vec![0]].concat());
        let mut bounded = Peer::greet(target.address);
        let open = Open { deadline_ms: Some(1_000), ..Open::new("demo.wait") };
        bounded.send(&frame(Kind::Open, &open.encode()));
        // Each has its timer by now, and none of them may follow the clock.
        target.echo();
        set(year);
        target.echo();
        for (peer, reason) in
            [(&mut silent, "header-timeout"), (&mut slow, "body-rate-min"), (&mut bounded, "deadline")]
        {
            assert_eq!(peer.end(), reason);
            let elapsed = begun.elapsed();
            assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&elapsed), "{reason} after {elapsed:?}");
        }
        idle.call("echo", b"after");
        assert_eq!((idle.data(), idle.end()), (b"after".to_vec(), String::new()));
    }
    let log = target.log();
    for year in ["2000-01-01T", "2035-01-01T"] {
        assert!(log.iter().any(|line| line.contains(year)), "the server's clock was never in {year}: {log:#?}");
    }
    drop(idle);
    target.survives(0);
}

// Midnight of the first of January, in seconds since 1970.
const YEAR_2000: u64 = 946_684_800;
const YEAR_2026: u64 = 1_767_225_600;
const YEAR_2035: u64 = 2_051_222_400;

fn faketime() -> PathBuf {
    let dirs = std::fs::read_dir("/usr/lib").expect("a directory").flatten().map(|entry| entry.path());
    let library = dirs.map(|dir| dir.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    library.expect("libfaketime is missing: apt-get install libfaketime")
}

#[test]
#[ignore = "takes 19,000 descriptors; tests/attacks/run does it"]
fn nineteen_thousand_connections_at_a_cap_of_512() {
    let target = Target::start();
    let peers: Vec<Peer> = (0..19_000)
        .map(|index| {
            let mut peer = Peer::connect(target.address);
            if index < 512 {
                peer.send(&[hello(), open("demo.wait")].concat());
                peer.read_hello();
            }
            peer
        })
        .collect();
    assert!(target.growth() < 64 << 20, "{} bytes", target.growth());
    let (admitted, turned_away) = peers.split_at(512);
    let mut turned_away = turned_away.iter();
    assert!(turned_away.all(Peer::is_closed), "somebody over the limit was let in");
    assert!(!admitted.iter().step_by(32).any(Peer::is_closed), "somebody within the limit was turned away");
    drop(peers);
    std::thread::sleep(Duration::from_secs(2));
    target.survives(0);
}

#[test]
#[ignore = "takes a minute of a quiet machine; tests/attacks/run does it"]
fn a_hundred_thousand_resets_beside_a_well_behaved_caller() {
    const RESETS: usize = 100_000;
    let target = Target::start();
    let is_over = AtomicBool::new(false);
    let begun = Instant::now();
    let mut latencies = std::thread::scope(|scope| {
        let behaved = scope.spawn(|| {
            let mut latencies = Vec::new();
            let mut peer = Peer::greet(target.address);
            while !is_over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                peer.call("echo", b"hello");
                assert_eq!(peer.data(), b"hello");
                assert_eq!(peer.end(), "");
                latencies.push(asked.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            latencies
        });
        for _ in 0..RESETS {
            Peer::connect(target.address).reset();
        }
        is_over.store(true, Ordering::Relaxed);
        behaved.join().expect("a caller that was served")
    });
    latencies.sort();
    let p99 = latencies[latencies.len() * 99 / 100];
    println!("{RESETS} resets in {:?}; p99 of {} calls beside them {p99:?}", begun.elapsed(), latencies.len());
    assert!(begun.elapsed() < Duration::from_secs(60) && p99 < Duration::from_millis(500));
    target.survives(0);
}

#[test]
#[ignore = "takes half a minute of a quiet machine; tests/attacks/run does it"]
fn tokens_that_are_wrong_in_different_places_take_the_same_time() {
    const TRIES: usize = 10_000;
    const CALLERS: usize = 48;
    let target = Target::start();
    let wrong = |token: &str| {
        let auth = Some(Auth { token: token.to_owned() });
        frame(Kind::Open, &Open { auth, ..Open::new("echo") }.encode())
    };
    let guesses = [
        wrong(&format!("!{}", &GOOD_TOKEN[1..])),
        wrong(&format!("{}!", &GOOD_TOKEN[..GOOD_TOKEN.len() - 1])),
        wrong(&GOOD_TOKEN[..GOOD_TOKEN.len() - 1]),
    ];
    let next = AtomicUsize::new(0);
    let times: Vec<(usize, f64)> = std::thread::scope(|scope| {
        let callers = (0..CALLERS).map(|_| {
            scope.spawn(|| {
                let mut times = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= guesses.len() * TRIES {
                        return times;
                    }
                    // An address for each guess, so that none of them waits for the guesses before it.
                    let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + index as u32);
                    let mut peer = Peer::greet_from(from, target.address);
                    let begun = Instant::now();
                    peer.send(&guesses[index % guesses.len()]);
                    assert_eq!(peer.end(), "bad-token");
                    times.push((index % guesses.len(), begun.elapsed().as_secs_f64()));
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        callers.into_iter().flat_map(|caller| caller.join().expect("a caller that was answered")).collect()
    });
    let of = |guess: usize| -> Vec<f64> {
        let times = times.iter().filter(|(of, _)| *of == guess);
        times.map(|(_, seconds)| *seconds).collect()
    };
    let first = of(0);
    for (guess, name) in [(1, "last byte"), (2, "length")] {
        let t = t_value(&first, &of(guess));
        println!("wrong in its first byte or its {name}: t = {t:.2} of {TRIES} each");
        assert!(t < 4.5, "{name}: {t}");
    }
    target.survives(0);
}

/// How far apart two samples lie, in their common standard errors (Welch).
fn t_value(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let error = |values: &[f64]| {
        let mean = mean(values);
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        squares / (values.len() - 1) as f64 / values.len() as f64
    };
    (mean(a) - mean(b)).abs() / (error(a) + error(b)).sqrt()
}
