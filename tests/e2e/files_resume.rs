//! Transfers that are cut, corrupted or overtaken by a change, and carried on.

use std::fs::{self, File, FileTimes};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::process::{EVERYTHING, Outcome, Plugd, feed, wait_until};
use crate::support::proxy::{Fate, Proxy};

/// What the server sends, and the client reads, at once.
const CHUNK: usize = 256 << 10;

const SIZE: usize = 1_500_001;

/// Headers, ends and other small things that a transfer costs beside its content.
const OVERHEAD: usize = 32 << 10;

/// Bytes that no period repeats, so that a piece out of place shows; other ones for another `seed`.
fn sample(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn cut(content: &[u8], at: usize) -> Fate {
    Fate { content: content[..16].to_vec(), cut_at: Some(at), flip_at: None }
}

fn flip(content: &[u8], at: usize) -> Fate {
    Fate { content: content[..16].to_vec(), cut_at: None, flip_at: Some(at) }
}

/// Runs `plug` through the proxy.
fn through(proxy: &Proxy, server: &Plugd, args: &[&str]) -> Outcome {
    server.plug(args).env("PLUG_SERVER", &proxy.address).output().expect("the client's program").into()
}

/// Everything in a directory but what the server keeps for itself.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("a name")).collect();
    names.retain(|name| name != ".plugd-uploads");
    names.sort();
    names
}

/// A directory for what is fetched.
fn down(server: &Plugd) -> std::path::PathBuf {
    let dir = server.dir.path().join("down");
    fs::create_dir_all(&dir).expect("a directory");
    dir
}

/// How many bytes the server keeps of uploads that are not whole.
fn kept(server: &Plugd) -> u64 {
    let uploads = fs::read_dir(server.file(".plugd-uploads")).into_iter().flatten().flatten();
    uploads.filter_map(|upload| Some(upload.metadata().ok()?.len())).max().unwrap_or(0)
}

/// Other content with the same size and the same modification time.
fn change_unseen(path: &Path, content: &[u8]) {
    let modified = fs::metadata(path).expect("a file").modified().expect("a time");
    fs::write(path, content).expect("a file");
    let file = File::options().write(true).open(path).expect("a file");
    file.set_times(FileTimes::new().set_modified(modified)).expect("a file");
}

#[rstest]
#[case::at_once(0)]
#[case::one_byte(1)]
#[case::before_a_chunk(CHUNK - 1)]
#[case::a_chunk(CHUNK)]
#[case::after_a_chunk(CHUNK + 1)]
#[case::before_the_end(SIZE - 1)]
#[case::the_end(SIZE)]
fn a_get_that_is_cut_carries_on_by_itself(#[case] at: usize) {
    let server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 1);
    fs::write(server.file("f"), &content).expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&content, at)]);
    let get = through(&proxy, &server, &["--json", "get", "f", "down"]);
    assert_eq!((get.code, proxy.met()), (Some(0), 1), "{get:?}");
    assert!(fs::read(server.dir.path().join("down")).expect("a file") == content);
    let receipt = &get.json()["data"];
    assert_eq!((&receipt["verified"], &receipt["size"]), (&json!(true), &json!(SIZE)), "{receipt}");
    assert!(receipt["resumed_from"].as_u64().expect("a number") as usize + CHUNK > at, "{receipt}");
    assert!(proxy.moved_down() <= SIZE + CHUNK + OVERHEAD, "{} bytes", proxy.moved_down());
    assert!(!get.stderr.contains('\r'), "{get:?}");
    assert!(names(server.dir.path()).iter().all(|name| !name.contains("plug-")), "{:?}", names(server.dir.path()));
}

#[rstest]
#[case::at_once(0)]
#[case::one_byte(1)]
#[case::before_a_chunk(CHUNK - 1)]
#[case::a_chunk(CHUNK)]
#[case::after_a_chunk(CHUNK + 1)]
#[case::before_the_end(SIZE - 1)]
#[case::the_end(SIZE)]
fn a_put_that_is_cut_carries_on_by_itself(#[case] at: usize) {
    let server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 2);
    fs::write(server.dir.path().join("up"), &content).expect("a file");
    fs::write(server.file("f"), "old").expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&content, at)]);
    let put = through(&proxy, &server, &["--json", "put", "up", "f"]);
    assert_eq!((put.code, proxy.met()), (Some(0), 1), "{put:?}");
    assert!(fs::read(server.file("f")).expect("a file") == content);
    let receipt = &put.json()["data"];
    assert_eq!((&receipt["verified"], &receipt["published"]), (&json!(true), &json!(true)), "{receipt}");
    // The connection may have swallowed what the server had not read yet, but what it has read it keeps.
    assert!(proxy.moved_up() <= 2 * SIZE + OVERHEAD, "{} bytes", proxy.moved_up());
    assert!(!put.stderr.contains('\r'), "{put:?}");
    assert_eq!(names(&server.file("")), ["f"]);
}

#[test]
fn many_cuts_are_survived_while_tries_are_left() {
    let server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 3);
    fs::write(server.file("f"), &content).expect("a file");
    // Each connection begins elsewhere in the content, which the server reads in chunks.
    let fates = (0..3).map(|index| cut(&content[index * CHUNK..], CHUNK)).collect();
    let proxy = Proxy::start(&server.address, fates);
    let get = through(&proxy, &server, &["--json", "get", "f", "down", "--digest", "blake3", "--retry", "3"]);
    assert_eq!((get.code, proxy.met()), (Some(0), 3), "{get:?}");
    assert!(fs::read(server.dir.path().join("down")).expect("a file") == content);
    assert_eq!(get.stderr.matches("try ").count(), 3, "{get:?}");
}

#[test]
fn a_get_without_retries_keeps_its_partial_and_says_so_and_another_run_carries_on() {
    let server = Plugd::start(EVERYTHING);
    let (content, dir) = (sample(SIZE, 4), down(&server));
    fs::write(server.file("f"), &content).expect("a file");
    fs::write(dir.join("f"), "old").expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&content, 3 * CHUNK + 100)]);
    let get = through(&proxy, &server, &["get", "f", "down/f", "--retry", "0"]);
    assert_eq!(get.code, Some(4), "{get:?}");
    assert!(get.stderr.contains("kept ") && get.stderr.contains("down/.f.plug-part"), "{get:?}");
    assert_eq!(fs::read_to_string(dir.join("f")).expect("a file"), "old");
    assert_eq!(names(&dir), [".f.plug-part", ".f.plug-part.json", "f"]);
    let rest = through(&proxy, &server, &["--json", "get", "f", "down/f"]);
    assert_eq!(rest.code, Some(0), "{rest:?}");
    assert_eq!(rest.json()["data"]["resumed_from"], 3 * CHUNK);
    assert!(fs::read(dir.join("f")).expect("a file") == content);
    assert_eq!(names(&dir), ["f"]);
}

#[test]
fn a_put_without_retries_is_carried_on_by_another_run() {
    let server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 5);
    fs::write(server.dir.path().join("up"), &content).expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&content, SIZE - 1)]);
    let put = through(&proxy, &server, &["put", "up", "f", "--retry", "0"]);
    assert_eq!(put.code, Some(4), "{put:?}");
    assert!(put.stderr.contains("the server keeps what came of f"), "{put:?}");
    assert_eq!(names(&server.file("")).len(), 0, "what is not whole is not to be seen");
    let rest = through(&proxy, &server, &["--json", "put", "up", "f"]);
    assert_eq!(rest.code, Some(0), "{rest:?}");
    assert!(rest.json()["data"]["resumed_from"].as_u64().expect("a number") > 0, "{rest:?}");
    assert!(fs::read(server.file("f")).expect("a file") == content);
}

#[rstest]
#[case::get(true)]
#[case::put(false)]
fn a_server_that_restarts_in_between_is_waited_for(#[case] is_get: bool) {
    let mut server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 6);
    let (source, target) = (server.dir.path().join("up"), server.dir.path().join("down"));
    fs::write(if is_get { server.file("f") } else { source }, &content).expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&content, SIZE / 2)]);
    let args = if is_get { ["--json", "get", "f", "down"] } else { ["--json", "put", "up", "f"] };
    let mut command = server.plug(args);
    command.env("PLUG_SERVER", &proxy.address).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("plug runs");
    wait_until("the cut", || proxy.met() == 1);
    wait_until("something to be kept", || is_get || kept(&server) > 0);
    server.restart(EVERYTHING);
    let outcome: Outcome = child.wait_with_output().expect("a child").into();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(fs::read(if is_get { target } else { server.file("f") }).expect("a file") == content);
    assert!(outcome.json()["data"]["resumed_from"].as_u64().expect("a number") > 0, "{outcome:?}");
}

#[rstest]
fn one_bit_flipped_on_the_way_is_data_loss(
    #[values("md5", "blake3", "sha256")] algorithm: &str,
    #[values(1000, SIZE)] len: usize,
) {
    let server = Plugd::start(EVERYTHING);
    let (content, dir) = (sample(len, 7), down(&server));
    fs::write(server.file("f"), &content).expect("a file");
    fs::write(dir.join("f"), "old").expect("a file");
    let proxy = Proxy::start(&server.address, vec![flip(&content, len / 2)]);
    let get = through(&proxy, &server, &["get", "f", "down/f", "--digest", algorithm]);
    assert_eq!((get.code, proxy.met()), (Some(64 + 15), 1), "{get:?}");
    assert!(get.stderr.contains("digest-mismatch"), "{get:?}");
    assert_eq!(fs::read_to_string(dir.join("f")).expect("a file"), "old");
    assert_eq!(names(&dir), ["f"], "content that is wrong serves nobody");

    fs::write(server.dir.path().join("up"), &content).expect("a file");
    fs::write(server.file("g"), "old").expect("a file");
    let proxy = Proxy::start(&server.address, vec![flip(&content, len / 2)]);
    let put = through(&proxy, &server, &["put", "up", "g", "--digest", algorithm]);
    assert_eq!((put.code, proxy.met()), (Some(64 + 15), 1), "{put:?}");
    assert!(put.stderr.contains("digest-mismatch"), "{put:?}");
    assert_eq!(fs::read_to_string(server.file("g")).expect("a file"), "old");
}

#[test]
fn a_bit_that_was_wrong_in_an_earlier_run_is_found_and_the_file_begun_anew() {
    let server = Plugd::start(EVERYTHING);
    let (content, dir) = (sample(SIZE, 8), down(&server));
    fs::write(server.file("f"), &content).expect("a file");
    let fate = Fate { flip_at: Some(7), ..cut(&content, SIZE - 1) };
    let proxy = Proxy::start(&server.address, vec![fate]);
    let get = through(&proxy, &server, &["--json", "get", "f", "down/f"]);
    assert_eq!((get.code, proxy.met()), (Some(0), 2), "{get:?}");
    assert_eq!(get.json()["data"]["resumed_from"], 0);
    assert!(fs::read(dir.join("f")).expect("a file") == content);
}

#[rstest]
#[case::begun_anew(&[], 0)]
#[case::without_retries(&["--retry", "0"], 64 + 10)]
fn a_source_that_changed_unseen_is_never_mixed_by_get(#[case] more: &[&str], #[case] code: i32) {
    let server = Plugd::start(EVERYTHING);
    let (old, new, dir) = (sample(SIZE, 9), sample(SIZE, 10), down(&server));
    fs::write(server.file("f"), &old).expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&old, 3 * CHUNK)]);
    let get = through(&proxy, &server, &["get", "f", "down/f", "--retry", "0"]);
    assert_eq!(get.code, Some(4), "{get:?}");
    change_unseen(&server.file("f"), &new);
    let get = through(&proxy, &server, &[&["get", "f", "down/f"], more].concat());
    assert_eq!(get.code, Some(code), "{get:?}");
    match code {
        0 => assert!(fs::read(dir.join("f")).expect("a file") == new),
        _ => {
            assert!(get.stderr.contains("source-changed"), "{get:?}");
            assert_eq!(names(&dir).len(), 0, "what came of the old one is of no use");
        }
    }
}

#[test]
fn a_source_that_changed_unseen_is_never_mixed_by_put() {
    let server = Plugd::start(EVERYTHING);
    let (old, new) = (sample(SIZE, 11), sample(SIZE, 12));
    let up = server.dir.path().join("up");
    fs::write(&up, &old).expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&old, 3 * CHUNK)]);
    assert_eq!(through(&proxy, &server, &["put", "up", "f", "--retry", "0"]).code, Some(4));
    change_unseen(&up, &new);
    let put = through(&proxy, &server, &["--json", "put", "up", "f"]);
    assert_eq!((put.code, &put.json()["data"]["resumed_from"]), (Some(0), &json!(0)), "{put:?}");
    assert!(fs::read(server.file("f")).expect("a file") == new);
}

#[test]
fn a_finished_transfer_moves_nothing_when_it_is_run_again() {
    let server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 13);
    fs::write(server.dir.path().join("up"), &content).expect("a file");
    for algorithm in ["md5", "blake3"] {
        for (index, verb) in [["put", "up", "f"], ["get", "f", "down"]].into_iter().enumerate() {
            assert_eq!(server.run(verb).code, Some(0));
            let proxy = Proxy::start(&server.address, Vec::new());
            let again = through(
                &proxy,
                &server,
                &[&["--json", "--digest", algorithm][..1], &verb, &["--digest", algorithm]].concat(),
            );
            assert_eq!(again.code, Some(0), "{again:?}");
            let receipt = &again.json()["data"];
            let facts = (&receipt["unchanged"], &receipt["bytes"], &receipt["published"]);
            assert_eq!(facts, (&json!(true), &json!(0), &json!(false)), "{verb:?}");
            let moved = [proxy.moved_up(), proxy.moved_down()][index];
            assert!(moved < OVERHEAD, "{moved} bytes");
        }
    }
}

#[test]
fn an_interrupted_get_keeps_its_partial_and_says_so() {
    let server = Plugd::start(EVERYTHING);
    let (content, dir) = (sample(SIZE, 14), down(&server));
    fs::write(server.file("f"), &content).expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&content, 3 * CHUNK)]);
    // It waits before its next try, and is interrupted there.
    let mut command = server.plug(["get", "f", "down/f"]);
    command.env("PLUG_SERVER", &proxy.address).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("plug runs");
    wait_until("the cut", || proxy.met() == 1 && dir.join(".f.plug-part.json").exists());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGSTOP).expect("a running client");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("a running client");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT).expect("a running client");
    let outcome: Outcome = child.wait_with_output().expect("a child").into();
    match outcome.code {
        Some(130) => assert!(outcome.stderr.contains(".f.plug-part; the same command carries on"), "{outcome:?}"),
        // It may have been done just before.
        code => assert_eq!(code, Some(0), "{outcome:?}"),
    }
    assert_eq!(through(&proxy, &server, &["get", "f", "down/f"]).code, Some(0));
    assert!(fs::read(dir.join("f")).expect("a file") == content);
    assert_eq!(names(&dir), ["f"]);
}

#[test]
fn a_cut_on_the_way_to_stdout_is_carried_on_where_it_was() {
    let server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 15);
    fs::write(server.file("f"), &content).expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&content, 2 * CHUNK + 9)]);
    let get = through(&proxy, &server, &["get", "f", "-"]);
    assert_eq!((get.code, proxy.met()), (Some(0), 1), "{}", get.stderr);
    assert!(get.stdout == content);
}

#[test]
fn standard_input_is_not_tried_again() {
    let server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 16);
    let proxy = Proxy::start(&server.address, vec![cut(&content, CHUNK)]);
    let mut command = server.plug(["put", "-", "f"]);
    command.env("PLUG_SERVER", &proxy.address);
    let put = feed(command, &content);
    assert_eq!(put.code, Some(4), "{put:?}");
    assert!(!server.file("f").exists());
}

#[test]
fn conditions_hold_and_change_nothing_when_they_fail() {
    let server = Plugd::start(EVERYTHING);
    let dir = down(&server);
    fs::write(server.dir.path().join("up"), "new").expect("a file");
    fs::write(server.file("f"), "old").expect("a file");
    fs::write(dir.join("f"), "mine").expect("a file");
    let put = server.run(["put", "up", "f", "--no-clobber"]);
    assert_eq!(put.code, Some(64 + 6), "{put:?}");
    assert!(put.stderr.contains("(exists)"), "{put:?}");
    let get = server.run(["get", "f", "down/f", "--no-clobber"]);
    assert_eq!(get.code, Some(64 + 6), "{get:?}");
    assert_eq!(fs::read_to_string(dir.join("f")).expect("a file"), "mine");
    let wrong = format!("md5:{}", "0".repeat(32));
    let put = server.run(["put", "up", "f", "--if-match", &wrong]);
    assert_eq!(put.code, Some(64 + 9), "{put:?}");
    assert_eq!(fs::read_to_string(server.file("f")).expect("a file"), "old");
    let etag = server.run(["--json", "stat", "f"]).json()["data"]["etag"].as_str().expect("an etag").to_owned();
    assert_eq!(server.run(["put", "up", "f", "--if-match", &etag]).code, Some(0));
    assert_eq!(fs::read_to_string(server.file("f")).expect("a file"), "new");
    assert_eq!(server.run(["put", "up", "g", "--no-clobber"]).code, Some(0));
    assert_eq!(server.run(["get", "g", "down/g", "--no-clobber"]).code, Some(0));
}

#[test]
fn time_and_permissions_are_kept_on_request() {
    use std::os::unix::fs::PermissionsExt;

    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    for len in [10, SIZE] {
        fs::write(&up, sample(len, 17)).expect("a file");
        fs::set_permissions(&up, fs::Permissions::from_mode(0o751)).expect("a file");
        let then = std::time::UNIX_EPOCH + std::time::Duration::new(1_234_567_890, 123_456_789);
        let file = File::options().write(true).open(&up).expect("a file");
        file.set_times(FileTimes::new().set_modified(then)).expect("a file");
        assert_eq!(server.run(["put", "-p", "up", "f"]).code, Some(0));
        assert_eq!(server.run(["get", "-p", "f", "down"]).code, Some(0));
        for path in [server.file("f"), server.dir.path().join("down")] {
            let facts = fs::metadata(path).expect("a file");
            assert_eq!((facts.mode() & 0o777, facts.mtime(), facts.mtime_nsec()), (0o751, 1_234_567_890, 123_456_789));
        }
    }
}

#[test]
fn durability_is_asked_for_and_told() {
    let server = Plugd::start(EVERYTHING);
    for len in [10, SIZE] {
        fs::write(server.dir.path().join("up"), sample(len, 18)).expect("a file");
        for durability in ["none", "file", "full"] {
            for verb in [["put", "up"], ["get", "f"]] {
                let target = format!("{len}-{durability}");
                let target = if verb[0] == "put" { "f" } else { &target };
                let args = ["--json", verb[0], verb[1], target, "--durability", durability];
                let _ = fs::remove_file(server.file("f")).is_ok() && verb[0] == "get";
                if verb[0] == "get" {
                    fs::copy(server.dir.path().join("up"), server.file("f")).expect("a file");
                }
                let outcome = server.run(args);
                assert_eq!(outcome.code, Some(0), "{outcome:?}");
                assert_eq!(outcome.json()["data"]["durable"], durability, "{args:?}");
            }
        }
    }
}

#[test]
fn progress_is_told_to_programs_line_by_line() {
    let server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 19);
    fs::write(server.file("f"), &content).expect("a file");
    let proxy = Proxy::start(&server.address, vec![cut(&content, CHUNK)]);
    let get = through(&proxy, &server, &["--json", "get", "f", "down", "--progress", "json"]);
    let events: Vec<Value> = get
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().expect("a kind")).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind != "progress").collect::<Vec<_>>(), [&"retry", &"done"], "{get:?}");
}

#[test]
fn programs_that_read_the_progress_meet_nothing_else() {
    let server = Plugd::start(EVERYTHING);
    let content = sample(SIZE, 20);
    fs::write(server.file("f"), &content).expect("a file");
    fs::write(server.dir.path().join("up"), &content).expect("a file");
    let kinds = |outcome: &Outcome| -> Vec<String> {
        let event = |line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
        let events = outcome.stderr.lines().map(event);
        events
            .map(|event| event["event"].as_str().expect("a kind").to_owned())
            .filter(|kind| kind != "progress")
            .collect()
    };
    for (verb, expected) in [(["get", "f", "down"], ["kept", "error"]), (["put", "up", "g"], ["kept-there", "error"])] {
        for more in [&["--progress", "json"][..], &["--progress", "json", "--json"]] {
            let proxy = Proxy::start(&server.address, vec![cut(&content, 3 * CHUNK)]);
            let lost = through(&proxy, &server, &[&verb, more, &["--retry", "0"]].concat());
            assert_eq!((lost.code, kinds(&lost)), (Some(4), expected.map(str::to_owned).to_vec()), "{lost:?}");
        }
    }
    let missing = server.run(["get", "none", "down", "--progress", "json"]);
    assert_eq!(kinds(&missing), ["failed", "error"]);
    fs::create_dir(server.dir.path().join("empty")).expect("a directory");
    let synced = server.run(["sync", "--push", "empty", ".", "--delete", "--progress", "json"]);
    assert_eq!((synced.code, kinds(&synced)), (Some(0), vec!["deleted".to_owned()]), "{synced:?}");
}

#[test]
fn a_get_to_what_is_no_file_is_refused_at_once() {
    let server = Plugd::start(EVERYTHING);
    fs::write(server.file("f"), "x").expect("a file");
    let made = std::process::Command::new("mkfifo").arg(server.dir.path().join("pipe")).status().expect("mkfifo runs");
    assert!(made.success());
    for target in ["pipe", "/dev/null"] {
        let get = server.run(["--timeout", "10s", "get", "f", target]);
        assert_eq!(get.code, Some(5), "{get:?}");
    }
    let put = server.run(["--timeout", "10s", "put", "pipe", "g"]);
    assert_eq!(put.code, Some(5), "{put:?}");
    assert!(!server.file("g").exists());
}

/// The most memory that a process has had at once, in KiB.
fn memory_peak(id: u32) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[test]
fn a_huge_file_takes_little_memory_on_both_sides() {
    const HUGE: u64 = (5 << 30) + 1;
    let server = Plugd::start(EVERYTHING);
    File::create(server.file("huge")).and_then(|file| file.set_len(HUGE)).expect("a sparse file");
    let mut command = server.plug(["get", "huge", "-", "--digest", "none"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug runs");
    let mut stdout = child.stdout.take().expect("a pipe");
    // A program that has ended tells no more what it took: it is asked when all but a little has come.
    let mut moved = std::io::copy(&mut (&mut stdout).take(HUGE - (1 << 20)), &mut std::io::sink()).expect("a reader");
    let peaks = [memory_peak(server.id()), memory_peak(child.id())];
    moved += std::io::copy(&mut stdout, &mut std::io::sink()).expect("a reader");
    let outcome: Outcome = child.wait_with_output().expect("a child").into();
    assert_eq!((outcome.code, moved), (Some(0), HUGE), "{outcome:?}");
    for peak in peaks {
        assert!(peak.is_some_and(|peak| peak < 64 << 10), "{peak:?} KiB");
    }
}
