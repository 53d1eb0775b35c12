//! `plug bench` against servers that misbehave: each is named and counted, and none holds the bench.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plugd_core::Status;
use plugd_core::wire::Kind;
use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::fake::{Fake, Peer, closing};
use crate::support::process::{Outcome, plug};

/// How long a bench may take before it is said to hang, in seconds.
const HANG_S: &str = "30";

/// A payload that no socket buffers whole, in bytes.
const LONG: usize = 32_000_000;

fn run(server: &Fake, words: &str) -> Outcome {
    let mut command = Command::new("timeout");
    command.arg(HANG_S).arg(plug()).args(["-s", &server.address, "--json", "bench"]).args(words.split(' '));
    command.stdin(Stdio::null()).output().expect("timeout, of the package coreutils").into()
}

/// The exit code and the report, which there is whenever the load was begun.
fn report(server: &Fake, words: &str) -> (Option<i32>, Value) {
    let outcome = run(server, words);
    assert_ne!(outcome.code, Some(124), "a bench that hangs: {words}");
    (outcome.code, outcome.json()["data"].clone())
}

fn draining() -> Status {
    Status::unavailable("draining", "the server is stopping")
}

#[test]
fn a_connection_that_is_closed_with_work_left_is_a_failure() {
    let server = Fake::polite(|_, mut peer| {
        peer.call()?;
        peer.close(Status::ok())
    });
    let (code, report) = report(&server, "any -n 10 -c 2 --expect any");
    assert_eq!((code, &report["right"]), (Some(4), &json!(2)), "{report}");
    assert_eq!(report["failures"], json!({"connection lost: closed by the server": 2}));
    assert_eq!(report["unsent"], json!(8));
}

#[test]
fn a_connection_that_is_closed_after_the_last_answer_is_none() {
    let server = Fake::polite(|_, mut peer| {
        peer.call()?;
        peer.close(Status::ok())
    });
    let (code, report) = report(&server, "any -n 1 --expect any");
    assert_eq!((code, &report["right"], &report["failed"]), (Some(0), &json!(1), &json!(0)), "{report}");
}

#[test]
fn a_connection_that_a_failed_call_closes_is_one_failure() {
    let server = Fake::polite(|_, mut peer| {
        peer.call()?;
        peer.close(draining())
    });
    let (code, report) = report(&server, "any -n 10 -c 2 --expect any");
    assert_eq!((code, &report["right"], &report["unsent"]), (Some(64 + 14), &json!(0), &json!(8)), "{report}");
    assert_eq!(report["failures"], json!({"unavailable (draining)": 2}));
}

#[test]
fn an_idle_connection_that_a_good_end_closed_is_a_failure() {
    let server = Fake::polite(|_, mut peer| {
        peer.call()?;
        peer.close(Status::ok())
    });
    let (code, report) = report(&server, "any --idle -d 1h -c 2 --expect any");
    assert_eq!((code, &report["right"]), (Some(4), &json!(2)), "{report}");
    assert_eq!(report["failures"], json!({"connection lost: closed by the server": 2}));
}

#[test]
fn a_stream_that_ends_well_before_its_input_is_a_failure_of_its_own() {
    let server = Fake::polite(|_, mut peer| {
        peer.until(Kind::Data)?;
        peer.data(b"x")?;
        peer.end(Status::ok())?;
        peer.ignore()
    });
    let (code, report) = report(&server, "any --stream --expect any -n 10");
    assert_eq!((code, &report["right"]), (Some(4), &json!(1)), "{report}");
    assert_eq!(report["failures"], json!({"the call ended before its input": 1}));
}

#[test]
fn bytes_that_are_no_answer_hold_no_bench_that_has_a_timeout() {
    let server = Fake::polite(|_, mut peer| peer.drip());
    for mode in ["", "--stream", "--fresh"] {
        let (code, report) =
            report(&server, &format!("any -n 3 --timeout 300ms --expect any {mode}").trim_end().replace("  ", " "));
        assert_eq!((code, &report["failures"]), (Some(64 + 4), &json!({"no answer within 300ms": 1})), "{report}");
        assert_eq!(report["unsent"], json!(2), "{mode}");
    }
}

#[test]
fn a_stream_that_never_ends_is_a_failure() {
    let server = Fake::polite(|_, mut peer| {
        peer.until(Kind::Data)?;
        peer.data(b"x")?;
        peer.drip()
    });
    let (code, report) = report(&server, "any --stream -n 1 --timeout 300ms --expect any");
    assert_eq!((code, &report["right"]), (Some(64 + 4), &json!(1)), "{report}");
    assert_eq!(report["failures"], json!({"no answer within 300ms": 1}));
}

#[test]
fn an_answer_before_its_request_breaks_the_protocol() {
    let server = Fake::polite(|_, mut peer| {
        peer.data(b"x")?;
        peer.ignore()
    });
    let (code, report) = report(&server, &format!("any --stream -n 1 --size {LONG} --expect any"));
    assert_eq!((code, &report["failures"]), (Some(4), &json!({"an answer before its request": 1})), "{report}");
}

#[test]
fn a_server_that_never_greets_is_tried_no_more_after_the_first_wait() {
    let server = Fake::silent(|_, peer| peer.ignore());
    let (code, report) = report(&server, "any -c 200 --timeout 300ms --expect any");
    assert_eq!((code, &report["failures"]), (Some(64 + 4), &json!({"no answer within 300ms": 200})), "{report}");
    // One is of the program itself, and 64 are tried at once.
    assert!(server.accepted() <= 65, "{}", server.accepted());
}

#[test]
fn a_server_that_never_answers_does_not_hold_the_bench() {
    let server = Fake::polite(|_, mut peer| io::copy(&mut peer.0, &mut io::sink()).map(drop));
    for words in ["any --expect first", "any --expect any", "any --expect any --fresh", "any --expect any --idle"] {
        let outcome = run(&server, &format!("{words} --timeout 200ms -d 1h"));
        assert_eq!(outcome.code, Some(64 + 4), "{words}: {outcome:?}");
        assert!(outcome.text().contains("within 200ms"), "{}", outcome.text());
    }
}

#[test]
fn at_a_rate_a_connection_that_fails_leaves_its_share_unsent() {
    let server = Fake::polite(|index, mut peer| {
        // The first is of the program itself, and one of the three others never answers.
        if index == 2 {
            return peer.ignore();
        }
        loop {
            peer.call()?;
            peer.end(Status::ok())?;
        }
    });
    let (code, report) = report(&server, "any -n 30 -c 3 --rate 1000 --timeout 2s --expect any");
    assert_eq!((code, &report["right"], &report["failed"]), (Some(64 + 4), &json!(20), &json!(1)), "{report}");
    assert_eq!(report["unsent"], json!(9));
}

#[test]
fn what_was_not_begun_to_be_written_when_the_time_is_over_is_dropped() {
    let server = Fake::polite(|_, peer| peer.ignore());
    let (_, report) = report(&server, &format!("any -d 100ms -p 8 --size {LONG} --timeout 300ms --expect any"));
    assert_eq!(report["failures"], json!({"no answer within 300ms": 1}), "{report}");
}

#[test]
fn the_load_has_the_server_to_itself() {
    let (first, rest) = mpsc::channel::<Peer>();
    let rest = Mutex::new(rest);
    let server = Fake::silent(move |index, mut peer| {
        match index {
            0 => first.send(peer).map_err(io::Error::other)?,
            _ => {
                let other = rest.lock().expect("no panic").recv().map_err(io::Error::other)?;
                io::copy(&mut { other.0 }, &mut io::sink())?;
                peer.greet()?;
                peer.call()?;
                peer.end(Status::ok())?;
            }
        }
        Ok(())
    });
    let (code, report) = report(&server, "any -n 1 --expect any --timeout 5s");
    assert_eq!((code, &report["right"]), (Some(0), &json!(1)), "{report}");
}

#[test]
fn more_answers_than_requests_break_the_protocol_and_are_not_counted() {
    for (words, is_stream) in [("any -n 3 --expect any", false), ("any -n 3 --expect any --stream", true)] {
        let server = Fake::polite(move |_, mut peer| {
            peer.until(if is_stream { Kind::Data } else { Kind::EndOfInput })?;
            let answers: Vec<u8> = (0..5).flat_map(|_| answer(is_stream)).collect();
            peer.0.write_all(&answers)?;
            peer.ignore()
        });
        let (code, report) = report(&server, words);
        assert_eq!((code, &report["right"]), (Some(4), &json!(1)), "{report}");
        assert_eq!(report["failures"], json!({"protocol broken: more answers than requests": 1}));
    }
}

fn answer(is_stream: bool) -> Vec<u8> {
    let kind = if is_stream { Kind::Data } else { Kind::End };
    crate::support::raw::frame(kind, if is_stream { b"x" } else { b"" })
}

#[test]
fn no_thread_begins_before_all_are_connected() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = events.clone();
    let server = Fake::silent(move |index, mut peer| {
        if index == 2 {
            // Long enough for the other connection to begin, where it does not wait.
            std::thread::sleep(Duration::from_millis(300));
        }
        // Before the client can hear it, and begin.
        if index > 0 {
            seen.lock().expect("no panic").push("greeted");
        }
        peer.greet()?;
        peer.call()?;
        seen.lock().expect("no panic").push("called");
        peer.end(Status::ok())?;
        peer.ignore()
    });
    let (code, _) = report(&server, "any -n 2 -c 2 --threads 2 --expect any --rate 1000");
    assert_eq!(code, Some(0));
    assert_eq!(*events.lock().expect("no panic"), ["greeted", "greeted", "called", "called"]);
}

#[test]
fn a_held_connection_waits_for_the_whole_word_of_the_server() {
    let (tell, rest) = mpsc::channel();
    let server = Fake::polite(move |_, mut peer| {
        peer.call()?;
        peer.end(Status::ok())?;
        let word = closing(Status::unavailable("idle-timeout", "no call for a while"));
        for piece in [&word[..5], &word[5..]] {
            // So that each comes alone.
            std::thread::sleep(Duration::from_millis(100));
            peer.0.write_all(piece)?;
        }
        let rest = peer.0.read_to_end(&mut Vec::new());
        tell.send(rest.ok()).map_err(io::Error::other)
    });
    let (code, report) = report(&server, "any --idle -d 1h --expect any");
    assert_eq!((code, &report["failures"]), (Some(64 + 14), &json!({"unavailable (idle-timeout)": 1})), "{report}");
    let rest = rest.recv_timeout(PATIENCE).expect("the end of the connection");
    assert_eq!(rest, Some(0), "a call on a connection that the server is closing");
}

#[test]
fn a_request_that_cannot_be_written_ends_with_the_last_word_of_the_server() {
    let server = Fake::polite(|_, mut peer| {
        // EOI stays unread, so that closing resets the connection.
        peer.until(Kind::Data)?;
        peer.end(Status::ok())?;
        std::thread::sleep(Duration::from_millis(100));
        peer.close(draining())
    });
    let (code, report) = report(&server, "any -n 2 --rate 2 --expect any");
    assert_eq!((code, &report["right"]), (Some(64 + 14), &json!(1)), "{report}");
    assert_eq!(report["failures"], json!({"unavailable (draining)": 1}));
}
