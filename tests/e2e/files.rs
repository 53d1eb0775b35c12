//! The verbs for files over the file handler: whole files, or nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use md5::{Digest, Md5};
use rstest::rstest;

use crate::support::process::{EVERYTHING, Plugd, feed, plugd, wait_until};

fn md5_hex(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that no short period repeats, so that a piece out of place shows.
fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| name != ".plugd-uploads")
        .collect();
    names.sort();
    names
}

#[test]
fn a_large_file_goes_up_and_comes_down_with_its_md5_shown_and_checked() {
    let server = Plugd::start(EVERYTHING);
    let content = sample(70_000_001);
    let digest = md5_hex(&content);
    let local = server.dir.path().join("up.bin");
    fs::write(&local, &content).expect("a file");

    let put = server.run(["put", "up.bin", "kept.bin"]);
    assert_eq!(put.code, Some(0), "{put:?}");
    assert!(put.stderr.contains("70000001") && put.stderr.contains(&digest), "{put:?}");
    assert!(fs::read(server.file("kept.bin")).expect("the file") == content);
    assert_eq!(names(&server.file("")), ["kept.bin"]);

    let get = server.run(["get", "kept.bin", "down.bin"]);
    assert_eq!((get.code, get.text()), (Some(0), ""), "{get:?}");
    assert!(get.stderr.contains("70000001") && get.stderr.contains(&digest), "{get:?}");
    assert!(!get.stderr.contains('\r'), "no progress bar where standard error is no terminal: {get:?}");
    assert!(fs::read(server.dir.path().join("down.bin")).expect("the file") == content);
}

#[rstest]
#[case::empty(0)]
#[case::one_byte(1)]
#[case::one_chunk(262_144)]
#[case::one_chunk_and_a_byte(262_145)]
fn a_file_of_any_size_survives_both_ways(#[case] len: usize) {
    let server = Plugd::start(EVERYTHING);
    let content = sample(len);
    let put = feed(server.plug(["put", "-", "f"]), &content);
    assert_eq!(put.code, Some(0), "{put:?}");
    let get = server.run(["get", "f", "-"]);
    assert_eq!(get.code, Some(0), "{get:?}");
    assert!(get.stdout == content);
}

#[test]
fn a_put_replaces_the_whole_file_or_nothing() {
    let server = Plugd::start(EVERYTHING);
    fs::write(server.file("f"), "old").expect("a file");
    let wrong = "0".repeat(32);
    let refused = feed(server.plug(["call", "files.put", "path=f", &format!("digest=md5:{wrong}")]), b"new");
    assert_eq!(refused.code, Some(64 + 15), "{refused:?}");
    assert_eq!(fs::read_to_string(server.file("f")).expect("the file"), "old");
    let refused = feed(server.plug(["call", "files.put", "path=f", "size:=4"]), b"new");
    assert_eq!(refused.code, Some(64 + 15), "{refused:?}");
    assert_eq!(fs::read_to_string(server.file("f")).expect("the file"), "old");
    let accepted = feed(server.plug(["put", "-", "f"]), b"new");
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    assert_eq!(fs::read_to_string(server.file("f")).expect("the file"), "new");
    assert_eq!(names(&server.file("")), ["f"]);
}

#[test]
fn a_private_file_stays_private_when_it_is_replaced() {
    use std::os::unix::fs::PermissionsExt;

    let server = Plugd::start(EVERYTHING);
    fs::write(server.file("f"), "old").expect("a file");
    fs::set_permissions(server.file("f"), fs::Permissions::from_mode(0o600)).expect("a file");
    assert_eq!(feed(server.plug(["put", "-", "f"]), b"new").code, Some(0));
    assert_eq!(fs::metadata(server.file("f")).expect("the file").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_client_that_vanishes_within_a_put_changes_nothing() {
    let server = Plugd::start(EVERYTHING);
    fs::write(server.file("f"), "old").expect("a file");
    let mut child = server.plug(["put", "-", "f"]).stdin(Stdio::piped()).spawn().expect("plug runs");
    std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), &sample(1_000_000)).expect("a reader");
    wait_until("the upload to begin", || uploads(&server) == 1);
    child.kill().expect("a running client");
    child.wait().expect("a child");
    wait_until("the upload to be undone", || names(&server.file("")) == ["f"] && uploads(&server) == 0);
    assert_eq!(fs::read_to_string(server.file("f")).expect("the file"), "old");
}

/// How many uploads the server has room for, open and not yet under their names.
fn uploads(server: &Plugd) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", server.id())).expect("a server");
    let is_upload = |path: PathBuf| {
        let path = path.to_string_lossy();
        path.contains(".plugd-uploads/") || path.contains("(deleted)")
    };
    files.flatten().filter(|file| fs::read_link(file.path()).is_ok_and(is_upload)).count()
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    // A limit on the length of files, which every system has, fails a write as a full disk does.
    let mut command = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f 2048; exec {} --log warn \"$@\"", plugd().display());
    command.args(["-c", &script, "sh"]);
    let server = Plugd::start_by(EVERYTHING, command);
    fs::write(server.file("f"), "old").expect("a file");
    let full = feed(server.plug(["put", "-", "f"]), &sample(3_000_000));
    assert_eq!(full.code, Some(64 + 8), "{full:?}");
    assert!(full.stderr.contains("(no-space)"), "{full:?}");
    assert_eq!(server.run(["get", "f", "-"]).text(), "old");
    let fits = feed(server.plug(["put", "-", "f"]), &sample(700_000));
    assert_eq!(fits.code, Some(0), "the space came back: {fits:?}");
}

#[rstest]
#[case::parent("../plugins.toml", 64 + 7)]
#[case::deep_parent("sub/../../plugins.toml", 64 + 7)]
#[case::absolute("/etc/passwd", 64 + 7)]
#[case::symlink_out("out", 64 + 7)]
#[case::through_a_symlink_out("outdir/plugins.toml", 64 + 7)]
#[case::missing("none", 64 + 5)]
#[case::empty("", 64 + 3)]
#[case::nul("a\0b", 64 + 3)]
fn nothing_outside_the_root_is_reachable(#[case] path: &str, #[case] code: i32) {
    let server = Plugd::start(EVERYTHING);
    fs::create_dir(server.file("sub")).expect("a directory");
    symlink(server.dir.path().join("plugins.toml"), server.file("out")).expect("a link");
    symlink(server.dir.path(), server.file("outdir")).expect("a link");
    let before = fs::read(server.dir.path().join("plugins.toml")).expect("the file");
    let args = serde_json::json!({ "path": path }).to_string();
    for operation in ["files.get", "files.stat", "files.ls"] {
        let outcome = server.run(["call", operation, "--args", &args]);
        assert_eq!(outcome.code, Some(code), "{operation}: {outcome:?}");
        assert!(!outcome.stderr.contains(&*server.dir.path().to_string_lossy()), "{operation}: {outcome:?}");
    }
    if path != "none" {
        let put = feed(server.plug(["call", "files.put", "--args", &args]), b"overwritten");
        assert_eq!(put.code, Some(code), "{put:?}");
    }
    assert_eq!(fs::read(server.dir.path().join("plugins.toml")).expect("the file"), before);
    assert!(!server.dir.path().join("a").exists());
}

#[test]
fn a_fifo_is_refused_at_once() {
    let server = Plugd::start(EVERYTHING);
    let made = Command::new("mkfifo").arg(server.file("fifo")).status().expect("mkfifo runs");
    assert!(made.success());
    let outcome = server.run(["--timeout", "10s", "get", "fifo", "-"]);
    assert_eq!(outcome.code, Some(64 + 9), "{outcome:?}");
}

#[test]
fn ls_and_stat_show_what_is_there() {
    let server = Plugd::start(EVERYTHING);
    fs::write(server.file("b.txt"), "12345").expect("a file");
    fs::create_dir(server.file("a")).expect("a directory");
    fs::write(server.file("with\nnewline"), "").expect("a file");
    let text = server.run(["ls"]);
    assert_eq!(text.code, Some(0), "{text:?}");
    assert_eq!(text.text().lines().count(), 3, "a name is one line: {text:?}");
    let lines = server.run(["--json", "ls"]);
    let list: Vec<serde_json::Value> =
        lines.text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let listed: Vec<(&str, &str)> = list
        .iter()
        .map(|entry| (entry["name"].as_str().expect("a name"), entry["kind"].as_str().expect("a kind")))
        .collect();
    assert_eq!(listed, [("a", "dir"), ("b.txt", "file"), ("with\nnewline", "file")]);
    let stat = server.run(["--json", "stat", "b.txt"]).json();
    assert_eq!(stat["data"]["size"], 5);
}

#[test]
fn a_failed_get_leaves_the_local_file_alone() {
    let server = Plugd::start(EVERYTHING);
    let local = server.dir.path().join("mine");
    fs::write(&local, "mine").expect("a file");
    assert_eq!(server.run(["get", "none", "mine"]).code, Some(64 + 5));
    assert_eq!(fs::read_to_string(&local).expect("the file"), "mine");
    let before = names(server.dir.path());
    assert_eq!(server.run(["get", "none"]).code, Some(64 + 5));
    assert_eq!(names(server.dir.path()), before);
}

#[test]
fn a_read_only_plugin_takes_nothing() {
    let server = Plugd::start("[plugins.docs]\nhandler = \"file\"\nconfig = { root = \"files\" }\n");
    fs::write(server.file("f"), "content").expect("a file");
    let put = feed(server.plug(["put", "-", "f"]), b"new");
    assert_eq!(put.code, Some(64 + 7), "{put:?}");
    assert!(put.stderr.contains("(read-only)"), "{put:?}");
    assert_eq!(server.run(["get", "f", "-"]).text(), "content");
}

#[test]
fn two_plugins_with_one_operation_must_be_told_apart() {
    let plugins = "[plugins.a]\nhandler = \"file\"\nconfig = { root = \"a\" }\n[plugins.b]\nhandler = \"file\"\nconfig = { root = \"b\" }\n";
    let server = Plugd::start(plugins);
    fs::write(server.dir.path().join("b/f"), "from b").expect("a file");
    let unclear = server.run(["get", "f", "-"]);
    assert_ne!(unclear.code, Some(0));
    assert!(unclear.stderr.contains("a, b") && unclear.stderr.contains("--plugin"), "{unclear:?}");
    let clear = server.run(["--plugin", "b", "get", "f", "-"]);
    assert_eq!((clear.code, clear.text()), (Some(0), "from b"), "{clear:?}");
}
