//! `plug bench`: what it counts, and how it ends when something goes wrong.

use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::process::{EVERYTHING, Outcome, Plugd, plug, wait_until};

/// The report of `plug --json bench` with these words.
fn report(server: &Plugd, words: &str) -> (Option<i32>, Value) {
    let outcome = server.run(["--json", "bench"].into_iter().chain(words.split_whitespace()));
    (outcome.code, outcome.json()["data"].clone())
}

#[test]
fn every_mode_makes_as_many_requests_as_were_asked_for() {
    let server = Plugd::start(EVERYTHING);
    for (words, mode) in [
        ("echo -n 500 -c 7 -p 5", "calls"),
        ("echo -n 500 -c 7 -p 5 --stream", "messages"),
        ("echo -n 100 -c 7 --fresh", "fresh"),
        ("echo -n 500 -c 7 -p 5 --threads 3", "calls"),
        ("echo -n 40 -c 2 -p 3 --size 300000 --stream", "messages"),
        ("echo -n 40 -c 2 -p 3 --size 300000", "calls"),
        ("upper -n 500 -c 3 -p 9 --stream", "messages"),
        ("files.ls -n 50 -c 2 --size 0 --fresh", "fresh"),
        ("shell.exec argv:=[\"cat\"] -n 20 -c 2 --expect same", "calls"),
        ("plugd.list -n 50 --expect any --size 0", "calls"),
    ] {
        let (code, report) = report(&server, words);
        let wanted = words.split_whitespace().skip_while(|word| *word != "-n").nth(1).expect("-n");
        assert_eq!((code, &report["mode"]), (Some(0), &json!(mode)), "{words}: {report}");
        assert_eq!((report["right"].to_string().as_str(), &report["failed"]), (wanted, &json!(0)), "{words}");
        let latency = |name: &str| report["latency_us"][name].as_f64().expect("a number");
        assert!(latency("p50") > 0.0 && latency("p50") <= latency("p99_9") && latency("p99_9") <= latency("max"));
    }
}

#[test]
fn idle_connections_are_held_and_each_is_asked_before_and_after() {
    let server = Plugd::start(EVERYTHING);
    let (code, report) = report(&server, "echo --idle -c 60 -d 300ms");
    assert_eq!((code, &report["right"], &report["mode"]), (Some(0), &json!(120), &json!("idle")));
    assert!(report["elapsed_s"].as_f64().expect("a number") >= 0.3);
}

#[test]
fn an_idle_connection_that_the_server_closes_is_a_failure_by_name() {
    let server = Plugd::start_with("idle_timeout = \"100ms\"", EVERYTHING);
    let (code, report) = report(&server, "echo --idle -c 3 -d 60s --expect any");
    assert_eq!(code, Some(64 + 14));
    assert_eq!((&report["right"], &report["failures"]), (&json!(3), &json!({"unavailable (idle-timeout)": 3})));
}

#[test]
fn a_report_for_people_names_rate_and_latency() {
    let server = Plugd::start(EVERYTHING);
    let outcome = server.run(["bench", "upper", "-n", "100"]);
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""));
    for part in
        ["upper on tcp://", "1 connection x 1 in flight", "calls/s", "100 right", "p50 ", "p99.9 ", "failed   0"]
    {
        assert!(outcome.text().contains(part), "{part} in {}", outcome.text());
    }
    assert!(!outcome.text().contains('#'), "a histogram, and no terminal: {}", outcome.text());
}

#[test]
fn a_histogram_is_drawn_on_a_terminal() {
    let server = Plugd::start(EVERYTHING);
    let line = format!("{} -s {} bench echo -n 50", plug().display(), server.address);
    let output = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output();
    let text = String::from_utf8(output.expect("script, of the package bsdutils").stdout).expect("text");
    assert!(text.contains("<= ") && text.contains(" %  #"), "{text}");
}

#[test]
fn a_command_that_fails_fails_the_bench() {
    let server = Plugd::start(EVERYTHING);
    let unknown = server.run(["bench", "uper"]);
    assert_eq!((unknown.code, unknown.text()), (Some(64 + 5), ""));
    assert!(unknown.stderr.contains("did you mean \"upper\""), "{}", unknown.stderr);

    let (code, report) = report(&server, "files.stat path=none --expect any -n 10 -c 2");
    assert_eq!(code, Some(64 + 5));
    assert_eq!((&report["right"], &report["failures"]), (&json!(0), &json!({"not_found (no-such-file)": 10})));
}

#[test]
fn wrong_answers_are_counted() {
    let server = Plugd::start(EVERYTHING);
    for mode in ["", "--stream"] {
        let (code, report) = report(&server, &format!("upper --expect same -n 10 {mode}"));
        assert_eq!((code, &report["failures"]), (Some(64 + 15), &json!({"wrong answer": 10})), "{mode}");
    }
    let (code, report) = report(&server, "shell.exec argv:=[\"date\",\"+%N\"] -n 5");
    assert_eq!((code, &report["failures"]), (Some(64 + 15), &json!({"wrong answer": 5})));
}

/// Runs the client against a server that is killed once the load has begun: the command leaves a file behind.
fn end_in_the_middle(then: &str, words: &[&str]) -> Outcome {
    let mut server = Plugd::start(EVERYTHING);
    let seen = server.dir.path().join("seen");
    let argv = json!(["sh", "-c", format!("touch {}; {then}", seen.display())]);
    let mut command = server.plug(["--json", "bench", "shell.exec", "-d", "1h", "--expect", "any"]);
    command.arg(format!("argv:={argv}")).args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = command.spawn().expect("plug runs");
    wait_until("a call of the load", || seen.exists());
    server.kill();
    client.wait_with_output().expect("a child").into()
}

#[test]
fn a_server_that_goes_away_is_named_and_every_unanswered_request_counted() {
    for (then, words, kinds) in [
        ("echo x", &["-c", "4", "-p", "8"][..], &["connection lost"][..]),
        ("cat", &["-c", "4", "-p", "8", "--stream"], &["connection lost"]),
        ("echo x", &["-c", "4", "--fresh"], &["connection lost", "cannot connect"]),
    ] {
        let outcome = end_in_the_middle(then, words);
        let envelope = outcome.json();
        assert!(matches!(outcome.code, Some(3 | 4)), "{outcome:?}");
        assert_eq!(envelope["ok"], json!(false));
        let failures = envelope["data"]["failures"].as_object().expect("an object");
        assert!(!failures.is_empty(), "{envelope}");
        for name in failures.keys() {
            assert!(kinds.iter().any(|kind| name.starts_with(kind)), "{name}");
        }
        let failed = envelope["data"]["failed"].as_u64().expect("a number");
        assert!((1..=32).contains(&failed), "{envelope}");
    }
}

#[test]
fn nobody_there_is_no_connection() {
    let outcome: Outcome =
        Command::new(plug()).args(["-s", "127.0.0.1:1", "bench", "echo"]).output().expect("plug").into();
    assert_eq!((outcome.code, outcome.text()), (Some(3), ""));
}

#[test]
fn more_connections_than_descriptors_are_counted_and_the_others_go_on() {
    let server = Plugd::start(EVERYTHING);
    let outcome = run_with_descriptors(40, &server, "echo -c 60 -n 200 --expect any");
    let report = &outcome.json()["data"];
    assert_eq!((outcome.code, &report["right"]), (Some(3), &json!(200)), "{report}");
    let failures = report["failures"].as_object().expect("an object");
    let (name, count) = failures.iter().next().expect("a failure");
    let open = 60 - count.as_u64().expect("a number");
    assert!((1..40).contains(&open) && failures.len() == 1, "{report}");
    let parts =
        ["cannot connect: Too many open files", "at most 40 descriptors (ulimit -n)", &format!("{open} connections")];
    assert!(parts.iter().all(|part| name.contains(part)), "{name}");
}

#[test]
fn more_fresh_connections_than_descriptors_are_counted_and_no_more_are_tried() {
    let server = Plugd::start(EVERYTHING);
    let outcome = run_with_descriptors(40, &server, "echo --fresh -c 500 -d 10s --expect any");
    let report = &outcome.json()["data"];
    assert_eq!(
        (outcome.code, report["failures"].as_object().map(serde_json::Map::len)),
        (Some(3), Some(1)),
        "{report}"
    );
    let name = report["failures"].to_string();
    assert!(name.contains("connections are open, at most 40 descriptors (ulimit -n)"), "{name}");
}

#[test]
fn what_connections_that_were_never_made_were_to_send_at_a_rate_is_unsent() {
    let server = Plugd::start(EVERYTHING);
    let outcome = run_with_descriptors(40, &server, "echo -c 60 -n 120 --rate 2000 --expect any");
    let report = &outcome.json()["data"];
    let number = |name: &str| report[name].as_u64().expect("a number");
    assert_eq!(outcome.code, Some(3));
    assert_eq!((number("right"), number("unsent")), (2 * (60 - number("failed")), 2 * number("failed")), "{report}");
    assert!(number("right") > 0, "{report}");
}

/// Runs a bench that may open so many descriptors.
fn run_with_descriptors(count: u32, server: &Plugd, words: &str) -> Outcome {
    let script = format!("ulimit -n {count}; exec {} --json bench {words}", plug().display());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("PLUG_SERVER", &server.address).stdin(Stdio::null());
    command.output().expect("sh runs").into()
}

#[test]
fn a_call_that_hangs_is_past_its_deadline_by_the_word_of_the_server() {
    let server = Plugd::start(EVERYTHING);
    let words = "shell.exec argv:=[\"sleep\",\"60\"] --timeout 300ms --expect any -n 2 -c 2";
    let (code, report) = report(&server, words);
    assert_eq!((code, &report["right"], &report["failed"]), (Some(64 + 4), &json!(0), &json!(2)), "{report}");
    assert_eq!(report["failures"], json!({"deadline_exceeded (deadline)": 2}));
}

#[test]
fn at_a_rate_latency_counts_the_time_in_line() {
    let server = Plugd::start(EVERYTHING);
    // Each call takes at least 50 ms, and one is due every 10 ms: the last waits for those before it.
    let (code, report) = report(&server, "shell.exec argv:=[\"sleep\",\"0.05\"] --rate 100 -n 20");
    assert_eq!((code, &report["right"]), (Some(0), &json!(20)));
    let max_us = report["latency_us"]["max"].as_f64().expect("a number");
    assert!(max_us >= 20.0 * 50_000.0 - 19.0 * 10_000.0, "{report}");
}

#[test]
fn a_rate_is_kept_and_not_exceeded() {
    let server = Plugd::start(EVERYTHING);
    let (code, report) = report(&server, "echo --rate 200 -n 60 -c 3");
    assert_eq!((code, &report["right"], &report["unsent"]), (Some(0), &json!(60), &json!(0)));
    // The last of 60 is due after 59 steps of 5 ms.
    assert!(report["elapsed_s"].as_f64().expect("a number") >= 0.295, "{report}");
}

#[test]
fn a_rate_that_is_not_reached_says_so() {
    let server = Plugd::start(EVERYTHING);
    let (code, report) = report(&server, "shell.exec argv:=[\"sleep\",\"0.1\"] --rate 1000 -d 300ms");
    assert_eq!(code, Some(0));
    assert!(report["unsent"].as_u64().expect("a number") > 200, "{report}");
}

#[test]
fn at_a_rate_no_more_than_what_is_due_is_sent_and_nothing_is_forgotten() {
    let server = Plugd::start(EVERYTHING);
    for mode in ["", "-p 4", "--stream", "--fresh"] {
        let (code, report) = report(&server, &format!("echo --rate 200 -d 300ms -c 3 --threads 2 {mode}"));
        assert_eq!(code, Some(0), "{report}");
        let sum = ["right", "unsent"].map(|name| report[name].as_u64().expect("a number")).iter().sum::<u64>();
        assert_eq!(sum, 60, "{mode}: {report}");
    }
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_sent() {
    for (words, part) in [
        ("echo -c 0", "0 is not in 1.."),
        ("echo --rate 0", "allowed: a number from 0.001"),
        ("echo --stream --fresh", "cannot be used with"),
        ("echo -n 1 -d 1s", "cannot be used with"),
        ("echo x", "no key in argument"),
        ("echo --size 999999999999", "is not in 0.."),
    ] {
        let words = ["-s", "127.0.0.1:1", "bench"].into_iter().chain(words.split(' '));
        let outcome: Outcome = Command::new(plug()).args(words).output().expect("plug runs").into();
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(part), "{part} in {}", outcome.stderr);
    }
    let server = Plugd::start(EVERYTHING);
    let outcome = server.run(["bench", "echo", "--stream", "--size", "0"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
}

#[test]
fn a_unix_socket_is_loaded_as_well() {
    let dir = tempfile::tempdir().expect("a directory");
    let listen = format!("unix:{}/socket", dir.path().display());
    let config = dir.path().join("plugins.toml");
    std::fs::write(&config, format!("[server]\nlisten = [\"{listen}\"]\n[plugins.echo]\n")).expect("a file");
    let mut server = Command::new(crate::support::process::plugd());
    server.arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = server.spawn().expect("the server's program");
    let mut first = [0; 1];
    server.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("a listening server");
    let outcome: Outcome = Command::new(plug())
        .args(["-s", &listen, "bench", "echo", "-n", "50", "-p", "4"])
        .output()
        .expect("plug")
        .into();
    server.kill().expect("a running server");
    server.wait().expect("a child");
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""));
}
