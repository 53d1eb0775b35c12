//! The verbs for files: what is here stays whole, private and in its place, whatever comes and whatever fails.

use std::ffi::OsStr;
use std::fs::{self, File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::evil;
use crate::support::process::{EVERYTHING, Outcome, Plugd, plug};
use crate::support::proxy::{Fate, Proxy};
use crate::support::server::TestServer;

/// More than is held in memory, so that a partial file stands beside the target.
const SIZE: usize = 3_000_000;

/// Bytes that no short period repeats, so that a piece out of place shows.
fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("text")).collect();
    names.sort();
    names
}

/// A server, and an empty directory for what is fetched.
fn world() -> (Plugd, PathBuf) {
    let server = Plugd::start(EVERYTHING);
    let down = server.dir.path().join("down");
    fs::create_dir(&down).expect("a directory");
    (server, down)
}

/// Runs plug in `dir`, against the server that lies.
async fn against_evil(server: &TestServer, dir: &Path, args: &[&str]) -> Outcome {
    let mut command = Command::new(plug());
    command.args(["-s", &format!("tcp://{}", server.address)]).args(args).current_dir(dir);
    tokio::task::spawn_blocking(move || command.output().expect("plug runs")).await.expect("no panic").into()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn a_tree_whose_name_is_a_link_in_the_destination_goes_nowhere() {
    let (server, down) = world();
    let elsewhere = server.dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory");
    fs::create_dir_all(server.file("tree/sub")).expect("a directory");
    fs::write(server.file("tree/f"), "x").expect("a file");
    symlink("../elsewhere", down.join("tree")).expect("a link");
    for remote in ["tr*", "tree"] {
        let get = server.run(["get", "-r", remote, "down/"]);
        assert_eq!(get.code, Some(5), "{get:?}");
        assert!(get.stderr.contains("cannot open down/tree: a symbolic link, which is not followed"), "{get:?}");
        assert!(names(&elsewhere).is_empty(), "{get:?}");
    }
    // A destination that the user names is the one that is meant.
    let get = server.run(["get", "-r", "tree", "down/tree"]);
    assert_eq!((get.code, names(&elsewhere)), (Some(0), vec!["f".to_owned(), "sub".to_owned()]), "{get:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_cannot_be_set_fails_one_file_alone() {
    let server = TestServer::start("[plugins.evil]\n").await;
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("down")).expect("a directory");
    fs::write(dir.path().join("down/a"), evil::CONTENT).expect("a file");
    let args = ["get", "-rp", "times", "down", "--digest", "md5", "-j", "1"];
    let get = against_evil(&server, dir.path(), &args).await;
    assert_eq!(get.code, Some(5), "{get:?}");
    assert!(get.stderr.contains("down/a: cannot set the time of") && get.stderr.contains("got "), "{get:?}");
}

#[test]
fn a_private_file_is_private_from_its_first_byte() {
    for (len, is_preserved) in [(SIZE, true), (SIZE, false), (10, true), (10, false)] {
        let (server, down) = world();
        let content = sample(len);
        fs::write(server.file("f"), &content).expect("a file");
        fs::set_permissions(server.file("f"), fs::Permissions::from_mode(0o600)).expect("a file");
        let mut args = vec!["get", "f", "down/f", "--retry", "0"];
        if is_preserved {
            args.push("-p");
        } else {
            fs::write(down.join("f"), "old").expect("a file");
            fs::set_permissions(down.join("f"), fs::Permissions::from_mode(0o600)).expect("a file");
        }
        if len == SIZE {
            let fate = Fate { content: content[..16].to_vec(), cut_at: Some(1_000_000), flip_at: None };
            let proxy = Proxy::start(&server.address, vec![fate]);
            let cut: Outcome =
                server.plug(&args).env("PLUG_SERVER", &proxy.address).output().expect("plug runs").into();
            assert_eq!(cut.code, Some(4), "{cut:?}");
            assert_eq!(mode(&down.join(".f.plug-part")), 0o600, "{args:?}");
        }
        let get = server.run(&args);
        assert_eq!((get.code, mode(&down.join("f"))), (Some(0), 0o600), "{get:?}");
    }
}

#[test]
fn a_full_disk_leaves_the_old_file_and_what_can_be_carried_on() {
    let (server, down) = world();
    fs::write(server.file("large"), sample(SIZE)).expect("a file");
    fs::write(server.file("small"), sample(200_000)).expect("a file");
    // A limit on the length of files fails a write as a full disk does; it is in blocks of 512 bytes.
    for (name, blocks) in [("large", 4096), ("small", 200)] {
        fs::write(down.join(name), "old").expect("a file");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).arg(plug()).args(["-s", &server.address, "get", name, "down/"]);
        let get: Outcome = command.current_dir(server.dir.path()).output().expect("plug runs").into();
        assert_eq!(get.code, Some(5), "{get:?}");
        assert_eq!(fs::read_to_string(down.join(name)).expect("a file"), "old", "{get:?}");
    }
    assert_eq!(names(&down), [".large.plug-part", ".large.plug-part.json", "large", "small"]);
    let get = server.run(["get", "large", "down/"]);
    assert!(get.stderr.contains("resumed from 2097152"), "{get:?}");
    let get = server.run(["get", "large", "small", "down/"]);
    assert_eq!((get.code, names(&down)), (Some(0), vec!["large".to_owned(), "small".to_owned()]), "{get:?}");
}

#[test]
fn a_partial_that_is_of_no_use_any_more_goes_away() {
    let (server, down) = world();
    let content = sample(SIZE);
    fs::write(server.file("f"), &content).expect("a file");
    let fate = Fate { content: content[..16].to_vec(), cut_at: Some(1_000_000), flip_at: None };
    let proxy = Proxy::start(&server.address, vec![fate]);
    let mut command = server.plug(["get", "f", "down/f", "--retry", "0"]);
    let cut: Outcome = command.env("PLUG_SERVER", &proxy.address).output().expect("plug runs").into();
    assert_eq!(cut.code, Some(4), "{cut:?}");
    assert_eq!(names(&down), [".f.plug-part", ".f.plug-part.json"]);
    fs::write(down.join("f"), &content).expect("a file");
    let get = server.run(["get", "f", "down/f"]);
    assert!(get.stderr.contains("unchanged"), "{get:?}");
    assert_eq!(names(&down), ["f"]);
}

#[test]
fn what_is_told_to_programs_has_the_names_as_they_are() {
    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    fs::create_dir(&up).expect("a directory");
    for name in [&b"line\nend"[..], b"\xff\xfe"] {
        fs::write(up.join(OsStr::from_bytes(name)), "x").expect("a file");
    }
    symlink("nowhere", up.join("back\\slash\u{1b}")).expect("a link");
    let expected = |top: &str| {
        let hex: String = top.bytes().map(|byte| format!("{byte:02x}")).collect();
        [json!(format!("{top}/back\\slash\u{1b}")), json!(format!("{top}/line\nend")), json!({"hex": hex + "2ffffe"})]
    };
    for (args, expected) in
        [(["put", "-r", "up", "tree"], &expected("tree")[..]), (["get", "-r", "tree", "down"], &expected("down")[1..])]
    {
        let moved = server.run(args.iter().chain(&["--progress", "json"]));
        assert_eq!(moved.code, Some(0), "{moved:?}");
        let event = |line| serde_json::from_str::<Value>(line).expect("an event")["name"].clone();
        let told: Vec<Value> = moved.stderr.lines().map(event).collect();
        assert!(expected.iter().all(|name| told.contains(name)) && told.len() == expected.len(), "{moved:?}");
    }
    let get = server.run(["--json", "get", "tree/line\nend", "down/a\nb"]);
    assert_eq!(get.json()["data"]["name"], "down/a\nb", "{get:?}");
}

#[test]
fn no_clobber_passes_over_what_is_there_in_both_directions() {
    let (server, down) = world();
    fs::create_dir(server.file("tree")).expect("a directory");
    for (name, len) in [("large", SIZE), ("new", 1), ("small", 10)] {
        fs::write(server.file("tree").join(name), sample(len)).expect("a file");
    }
    for name in ["large", "small"] {
        fs::write(down.join(name), "old").expect("a file");
    }
    for args in [["get", "-r", "tree", "down"], ["put", "-r", "down", "tree"]] {
        let moved = server.run(["--json"].iter().chain(&args).chain(&["--no-clobber"]));
        assert_eq!(moved.code, Some(0), "{moved:?}");
        let skipped = if args[0] == "get" { 2 } else { 3 };
        let data = &moved.json()["data"];
        assert_eq!((&data["skipped"], &data["failed"]), (&json!(skipped), &json!(0)), "{moved:?}");
    }
    assert_eq!(fs::read_to_string(down.join("large")).expect("a file"), "old");
    assert!(down.join("new").exists());
}

/// Sets when something was modified.
fn set_time(path: &Path, seconds: u64) {
    let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(seconds));
    File::open(path).and_then(|file| file.set_times(times)).expect("a time");
}

fn time(path: &Path) -> i64 {
    fs::metadata(path).expect("a file").mtime()
}

#[test]
fn directories_keep_times_and_permissions_on_request() {
    let (server, down) = world();
    let tree = server.file("tree");
    fs::create_dir_all(tree.join("a/b")).expect("directories");
    for name in ["a/f", "a/b/f"] {
        fs::write(tree.join(name), sample(300_000)).expect("a file");
    }
    for (seconds, name) in [(3_000, "a/b"), (2_000, "a"), (1_000, "")] {
        fs::set_permissions(tree.join(name), fs::Permissions::from_mode(0o550)).expect("a directory");
        set_time(&tree.join(name), seconds);
    }
    fs::create_dir(down.join("synced")).expect("a directory");
    fs::write(down.join("synced/extra"), "x").expect("a file");
    for (args, root) in [
        (&["get", "-rp", "tree", "down/got"][..], "got"),
        (&["sync", "--pull", "tree", "down/synced", "--delete"], "synced"),
    ] {
        let root = down.join(root);
        let got = server.run(args);
        assert_eq!(got.code, Some(0), "{got:?}");
        assert_eq!((time(&root.join("a")), time(&root.join("a/b"))), (2_000, 3_000), "{got:?}");
        assert_eq!((mode(&root.join("a")), mode(&root.join("a/b"))), (0o750, 0o750), "the owner can carry on");
    }
    assert_eq!(time(&down.join("got")), 1_000);
    server.run(["get", "-r", "tree", "down/plain"]);
    assert!(time(&down.join("plain/a")) > 3_000);
}

#[test]
fn what_a_killed_program_left_is_swept_when_it_is_old() {
    let (server, down) = world();
    fs::write(server.file("f"), "x").expect("a file");
    for name in [".plug-1f-0.tmp", ".plug-1f-1.tmp", ".plug-notes.tmp"] {
        fs::write(down.join(name), "half").expect("a file");
    }
    for name in [".plug-1f-0.tmp", ".plug-notes.tmp"] {
        set_time(&down.join(name), 1_000_000_000);
    }
    let get = server.run(["get", "f", "down/"]);
    assert_eq!(
        (get.code, names(&down)),
        (Some(0), [".plug-1f-1.tmp", ".plug-notes.tmp", "f"].map(String::from).into())
    );
}

#[test]
fn more_directories_than_descriptors_are_fetched_over_many_connections() {
    let (server, down) = world();
    for index in 0..400 {
        let directory = server.file("tree").join(format!("d{index}"));
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join("f"), "x").expect("a file");
    }
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 48; exec \"$@\"", "sh"]).arg(plug());
    command.args(["-s", &server.address, "get", "-r", "tree", "down/tree", "-j", "8"]);
    let get: Outcome = command.current_dir(server.dir.path()).output().expect("plug runs").into();
    assert_eq!(get.code, Some(0), "{get:?}");
    assert_eq!(names(&down.join("tree")).len(), 400);
}

#[test]
fn two_puts_to_one_name_leave_one_whole_and_the_conditional_loser_a_conflict() {
    let (server, _) = world();
    for (more, codes) in [(&[][..], [Some(0), Some(0)]), (&["--no-clobber"][..], [Some(0), Some(64 + 6)])] {
        let contents = [sample(SIZE), sample(SIZE + 1)];
        let target = format!("target-{}", more.len());
        let running = ["one", "two"].map(|name| {
            let content = if name == "one" { &contents[0] } else { &contents[1] };
            fs::write(server.dir.path().join(name), content).expect("a file");
            let mut command = server.plug(["put", name, &target].iter().chain(more));
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug runs")
        });
        let ended = running.map(|child| Outcome::from(child.wait_with_output().expect("a child")));
        let mut found = [ended[0].code, ended[1].code];
        found.sort_unstable();
        assert_eq!(found, codes, "{ended:?}");
        let published = fs::read(server.file(&target)).expect("a file");
        let winner = contents.iter().position(|content| *content == published).expect("one of them, whole");
        assert_eq!(ended[winner].code, Some(0), "{ended:?}");
    }
}

#[test]
fn two_gets_to_one_name_never_mix() {
    let (server, down) = world();
    let content = sample(30_000_000);
    fs::write(server.file("f"), &content).expect("a file");
    let running = [0, 1].map(|_| {
        let mut command = server.plug(["get", "f", "down/f"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("plug runs")
    });
    let ended = running.map(|child| Outcome::from(child.wait_with_output().expect("a child")));
    for outcome in &ended {
        let is_told = outcome.code == Some(5) && outcome.stderr.contains("another plug is fetching this file");
        assert!(outcome.code == Some(0) || is_told, "{outcome:?}");
    }
    assert!(ended.iter().any(|outcome| outcome.code == Some(0)), "{ended:?}");
    assert!(fs::read(down.join("f")).expect("a file") == content);
    assert_eq!(names(&down), ["f"]);
}

#[test]
fn a_deep_tree_makes_the_round_trip() {
    let server = Plugd::start(EVERYTHING);
    let deep: PathBuf = vec!["d"; 200].iter().collect();
    fs::create_dir_all(server.dir.path().join("up").join(&deep)).expect("directories");
    fs::write(server.dir.path().join("up").join(&deep).join("f"), "deep").expect("a file");
    assert_eq!(server.run(["put", "-r", "up", "tree"]).code, Some(0));
    assert_eq!(server.run(["get", "-r", "tree", "down"]).code, Some(0));
    assert_eq!(fs::read_to_string(server.dir.path().join("down").join(&deep).join("f")).expect("a file"), "deep");
}
