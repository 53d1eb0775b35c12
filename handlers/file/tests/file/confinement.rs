//! No path, link or name leads out of the root, waits for a device, or reaches the server's own files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::stat::Mode;
use plugd_core::{Code, Data};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::{UPLOADS, World};
use plugd_core::testing::Plugin;

/// Every operation that takes a path, with its arguments for one.
fn operations(path: &Value) -> Vec<(&'static str, Value)> {
    vec![
        ("get", json!({ "path": path })),
        ("put", json!({ "path": path })),
        ("put", json!({ "path": path, "parents": true })),
        ("ls", json!({ "path": path })),
        ("ls", json!({ "path": path, "recursive": true })),
        ("stat", json!({ "path": path })),
        ("digest", json!({ "path": path })),
        ("copy", json!({ "from": path, "to": "copy" })),
        ("copy", json!({ "from": "file", "to": path })),
        ("mv", json!({ "from": "file", "to": path })),
        // Those that use the name itself.
        ("rm", json!({ "path": path })),
        ("rm", json!({ "path": path, "recursive": true })),
        ("mkdir", json!({ "path": path })),
        ("mkdir", json!({ "path": path, "parents": true })),
        ("mv", json!({ "from": path, "to": "moved" })),
        ("stat", json!({ "path": path, "follow": false })),
    ]
}

/// How many of them follow the last name of their path.
const FOLLOWING: usize = 10;

fn with_links() -> World {
    let world = World::new();
    world.write("file", "hello");
    symlink("../secret", world.path("relative")).expect("a link");
    symlink(world.dir.path().join("secret"), world.path("absolute")).expect("a link");
    symlink("..", world.path("up")).expect("a link");
    symlink("/proc/self/cwd", world.path("magic")).expect("a link");
    world
}

fn assert_untouched(world: &World) {
    assert_eq!(fs::read_to_string(world.dir.path().join("secret")).expect("the secret"), "secret");
    assert_eq!(fs::read_dir(world.dir.path()).expect("a directory").count(), 2, "nothing was made outside");
    assert_eq!(world.text("file"), "hello");
}

#[tokio::test]
async fn no_path_leads_out_of_the_root() {
    let world = with_links();
    let outside = world.dir.path().join("secret").display().to_string();
    let paths =
        ["../secret", &outside, "up/secret", "up/new/x", "up/../../secret", "..", "/", "magic/x", "file/../../secret"];
    for path in paths {
        for (operation, args) in operations(&json!(path)) {
            let found = world.refused(operation, args.clone()).await;
            assert_eq!(found, (Code::PermissionDenied, "outside-root".to_owned()), "{operation} {args}");
            assert_untouched(&world);
        }
    }
}

#[tokio::test]
async fn no_link_leads_out_of_the_root() {
    let world = with_links();
    for link in ["relative", "absolute", "up", "magic"] {
        for (operation, args) in operations(&json!(link)).into_iter().take(FOLLOWING) {
            let found = world.refused(operation, args.clone()).await;
            assert_eq!(found, (Code::PermissionDenied, "outside-root".to_owned()), "{operation} {args}");
            assert_untouched(&world);
        }
        let line = &world.lines("stat", json!({ "path": link, "follow": false })).await[0];
        assert_eq!(line["kind"], "symlink");
        assert_eq!(world.reason("mkdir", json!({ "path": link })).await, "exists");
        world.ask("mv", json!({ "from": link, "to": "moved" })).await;
        world.ask("rm", json!({ "path": "moved", "recursive": true })).await;
        assert!(!world.names().contains(&link.to_owned()), "the link itself is removed");
        assert_untouched(&world);
    }
}

#[tokio::test]
async fn links_within_the_root_are_followed() {
    let world = World::new();
    fs::create_dir(world.path("dir")).expect("a directory");
    world.write("a", "hello");
    symlink("../a", world.path("dir/link")).expect("a link");
    symlink("nowhere", world.path("dir/dangling")).expect("a link");
    assert_eq!(world.ask("get", json!({ "path": "dir/link" })).await.text(), "hello");
    assert_eq!(world.ask("get", json!({ "path": "dir/../a" })).await.text(), "hello");
    for link in ["dir/link", "dir/dangling"] {
        world.put(json!({ "path": link }), "new").await;
        assert_eq!((world.text(link), world.text("a")), ("new".to_owned(), "hello".to_owned()));
    }
}

#[tokio::test]
async fn links_can_be_refused_altogether() {
    let world = World::with(json!({ "symlinks": "refuse" }));
    fs::create_dir(world.path("dir")).expect("a directory");
    world.write("dir/a", "hello");
    symlink("dir", world.path("link")).expect("a link");
    symlink("a", world.path("dir/link")).expect("a link");
    for path in ["link/a", "dir/link"] {
        for operation in ["get", "put", "stat", "digest"] {
            let found = world.refused(operation, json!({ "path": path })).await;
            assert_eq!(found, (Code::FailedPrecondition, "too-many-links".to_owned()), "{operation} {path}");
        }
    }
    assert_eq!(world.reason("ls", json!({ "path": "link" })).await, "too-many-links");
    assert_eq!(world.listed(json!({ "path": "dir" })).await, ["a", "link"], "they are shown all the same");
    assert_eq!(world.ask("get", json!({ "path": "dir/a" })).await.text(), "hello");
    world.ask("rm", json!({ "path": "link" })).await;
    assert_eq!(world.text("dir/a"), "hello");
}

/// What each operation does with a path while the directory in it is swapped, again and again, with a link that leads out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_follows_a_directory_that_is_swapped_with_a_link() {
    for symlinks in ["inside", "refuse"] {
        let world = World::with(json!({ "symlinks": symlinks }));
        world.write("file", "hello");
        let outside = world.dir.path().join("outside");
        for dir in [world.path("swapped"), outside.clone()] {
            fs::create_dir_all(dir.join("sub")).expect("a directory");
            fs::write(dir.join("sub/only"), "inside").expect("a file");
        }
        for (name, content) in [("a", "secret"), ("b", "secret"), ("sub/only", "secret")] {
            fs::write(outside.join(name), content).expect("a file");
        }
        symlink("../outside", world.path("link")).expect("a link");
        let before = tree(&outside);
        let done = AtomicBool::new(false);
        let (mut went_well, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            let swap = || {
                let (one, other) = (world.path("swapped"), world.path("link"));
                while !done.load(Ordering::Relaxed) {
                    renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).expect("both are there");
                }
            };
            scope.spawn(swap);
            let calls = async {
                for round in 0..60 {
                    for (operation, args) in all_at("swapped", round) {
                        let answer = world.call(operation, args.clone(), &[Data::main("inside")]).await;
                        assert!(!answer.text().contains("secret"), "{operation} {args}: {}", answer.text());
                        let is_ours = answer.status.is_ok() || answer.status.code() != Code::Internal;
                        assert!(is_ours, "{operation} {args}: {}", answer.status);
                        *if answer.status.is_ok() { &mut went_well } else { &mut refused } += 1;
                    }
                }
            };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(calls));
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(tree(&outside), before, "nothing outside was made, changed, moved or removed");
        assert!(went_well > 0 && refused > 0, "{went_well} went well, {refused} were refused: nothing was swapped");
    }
}

/// A call of each operation below `dir`.
fn all_at(dir: &str, round: usize) -> Vec<(&'static str, Value)> {
    let path = |name: &str| json!(format!("{dir}/{name}"));
    vec![
        ("put", json!({ "path": path("a"), "parents": round.is_multiple_of(2) })),
        ("put", json!({ "path": path("b"), "token": "t", "no_clobber": true })),
        ("get", json!({ "path": path("a") })),
        ("get", json!({ "path": path("sub/only"), "offset": 1 })),
        ("ls", json!({ "path": dir, "recursive": true })),
        ("stat", json!({ "path": path("a"), "follow": false })),
        ("digest", json!({ "path": path("sub/only") })),
        ("copy", json!({ "from": path("a"), "to": "copied" })),
        ("get", json!({ "path": "copied" })),
        ("copy", json!({ "from": "file", "to": path("b") })),
        ("mv", json!({ "from": path("b"), "to": "moved" })),
        ("get", json!({ "path": "moved" })),
        ("mv", json!({ "from": "copied", "to": path("b") })),
        ("mkdir", json!({ "path": path("new/deep"), "parents": true })),
        ("put", json!({ "path": path("new/deep/x") })),
        ("rm", json!({ "path": path("new"), "recursive": true })),
        ("rm", json!({ "path": path("a") })),
        ("rm", json!({ "path": path("b") })),
    ]
}

/// The files below a directory and their content, sorted.
fn tree(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(tree(&path)),
            false => found.push((path.clone(), fs::read_to_string(&path).expect("text"))),
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn the_servers_own_directory_is_nobodys() {
    let world = World::new();
    world.write("file", "hello");
    let (session, _) = world.begin_put(json!({ "path": "a" }), b"hello").await;
    let [name] = &world.uploads()[..] else { panic!("one upload") };
    for path in [UPLOADS.to_owned(), format!("{UPLOADS}/{name}"), format!("./x/../{UPLOADS}/new")] {
        for (operation, args) in operations(&json!(path)) {
            let found = world.refused(operation, args.clone()).await;
            assert_eq!(found, (Code::PermissionDenied, "reserved-name".to_owned()), "{operation} {args}");
        }
    }
    assert_eq!(world.listed(json!({ "recursive": true })).await, ["file"]);
    assert!(session.finish().await.status.is_ok());
}

#[tokio::test]
async fn bad_and_missing_names_are_told_apart() {
    let world = World::new();
    world.write("file", "hello");
    let long = "x".repeat(256);
    let deep = "d/".repeat(2048);
    for path in ["", "a\0b", &long, &deep] {
        for (operation, args) in operations(&json!(path)) {
            let found = world.refused(operation, args.clone()).await;
            assert_eq!(found, (Code::InvalidArgument, "bad-path".to_owned()), "{operation} {args}");
        }
    }
    for operation in ["get", "ls", "stat", "digest", "rm"] {
        let missing = world.refused(operation, json!({ "path": "missing" })).await;
        assert_eq!(missing, (Code::NotFound, "no-such-file".to_owned()));
    }
    assert_eq!(world.reason("rm", json!({ "path": "." })).await, "bad-path", "the root stays");
    assert_eq!(world.reason("get", json!({ "path": { "hex": "f" } })).await, "bad-arguments");
}

#[tokio::test]
async fn any_name_makes_the_round_trip() {
    let world = World::new();
    let long = "n".repeat(255);
    let names: [(&[u8], Value); 5] = [
        (b"\xff\xfe", json!({ "hex": "fffe" })),
        (b"line\nbreak", json!("line\nbreak")),
        (b"\x1b[31mred", json!("\u{1b}[31mred")),
        (long.as_bytes(), json!(long)),
        (b"\"\\", json!("\"\\")),
    ];
    for (bytes, name) in names {
        world.put(json!({ "path": name }), "hello").await;
        assert_eq!(fs::read(world.path(OsStr::from_bytes(bytes))).expect("a file"), b"hello");
        assert_eq!(world.ask("get", json!({ "path": name })).await.text(), "hello");
        let answer = world.ask("ls", json!({})).await;
        assert_eq!(answer.text().lines().count(), 1, "a name is one line");
        assert_eq!(crate::world::lines(&answer)[0]["name"], name);
        assert_eq!(world.lines("stat", json!({ "path": name })).await[0]["path"], name);
        world.ask("mv", json!({ "from": name, "to": "other" })).await;
        world.ask("copy", json!({ "from": "other", "to": name })).await;
        world.ask("rm", json!({ "path": name })).await;
        world.ask("rm", json!({ "path": "other" })).await;
        let status = world.call("get", json!({ "path": name }), &[]).await.status;
        assert!(!status.message().chars().any(char::is_control), "{status:?}");
    }
    assert_eq!(world.names(), [""; 0]);
}

#[tokio::test]
async fn only_regular_files_are_read_and_written_and_nothing_is_waited_for() {
    let world = World::new();
    world.write("file", "hello");
    fs::create_dir(world.path("dir")).expect("a directory");
    nix::unistd::mkfifo(&world.path("fifo"), Mode::S_IRWXU).expect("a fifo");
    let _socket = UnixListener::bind(world.path("socket")).expect("a socket");
    let all = async {
        for path in ["fifo", "socket"] {
            let path = json!(path);
            for (operation, args) in [
                ("get", json!({ "path": path })),
                ("put", json!({ "path": path })),
                ("digest", json!({ "path": path })),
                ("copy", json!({ "from": path, "to": "copy" })),
                ("copy", json!({ "from": "file", "to": path })),
                ("mv", json!({ "from": path, "to": "moved" })),
                ("mv", json!({ "from": "file", "to": path })),
            ] {
                let found = world.refused(operation, args.clone()).await;
                assert_eq!(found, (Code::FailedPrecondition, "not-a-file".to_owned()), "{operation} {args}");
            }
            assert_eq!(world.reason("ls", json!({ "path": path })).await, "not-a-directory");
            assert_eq!(world.lines("stat", json!({ "path": path })).await[0]["kind"], "other");
        }
        for (operation, args) in [
            ("get", json!({ "path": "dir" })),
            ("digest", json!({ "path": "dir" })),
            ("copy", json!({ "from": "dir", "to": "copy" })),
        ] {
            assert_eq!(world.reason(operation, args).await, "not-a-file", "{operation}");
        }
        for (operation, args) in [
            ("put", json!({ "path": "dir" })),
            ("copy", json!({ "from": "file", "to": "dir" })),
            ("mv", json!({ "from": "file", "to": "dir" })),
        ] {
            assert_eq!(world.reason(operation, args).await, "is-a-directory", "{operation}");
        }
    };
    timeout(Duration::from_secs(10), all).await.expect("nothing to wait for");
    assert_eq!(world.names(), ["dir", "fifo", "file", "socket"]);
}

#[tokio::test]
async fn a_device_is_refused_at_once() {
    let handler = Plugin::linked_in("file", json!({ "root": "/dev" }), Path::new("/"));
    for device in ["null", "zero", "tty"] {
        for operation in ["get", "digest"] {
            let session = handler.call(operation).args(json!({ "path": device })).start().await;
            let answer = timeout(Duration::from_secs(10), session.run(&[])).await.expect("nothing to wait for");
            assert_eq!(answer.status.reason(), "not-a-file", "{operation} {device}");
        }
    }
}

#[tokio::test]
async fn a_read_only_plugin_changes_nothing() {
    let world = World::with(json!({ "writable": false }));
    world.write("file", "hello");
    for (operation, args) in operations(&json!("file")) {
        if matches!(operation, "put" | "rm" | "mkdir" | "mv" | "copy") {
            let found = world.refused(operation, args).await;
            assert_eq!(found, (Code::PermissionDenied, "read-only".to_owned()), "{operation}");
        }
    }
    let answer = world.call("put", json!({ "path": "file" }), &[Data::main("x")]).await;
    assert_eq!(answer.status.reason(), "read-only");
    assert_eq!((world.names(), world.text("file")), (vec!["file".to_owned()], "hello".to_owned()));
    assert!(!world.path(UPLOADS).exists());
}
