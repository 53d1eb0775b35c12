//! Names that are no text, and the verbs that work with names alone.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::support::process::{EVERYTHING, Plugd};

/// Every kind of name that a file system has and a careless program stumbles over.
fn odd_names() -> Vec<OsString> {
    let odd: [&[u8]; 7] = [b"\xff\xfe", b"a\nb", b"\x1b[31mred", b" ", b"-r", b"*?[x]", "\u{202e}txt".as_bytes()];
    odd.into_iter().map(OsStr::from_bytes).map(OsStr::to_owned).chain([OsString::from("n".repeat(255))]).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn any_name_makes_the_round_trip() {
    let server = Plugd::start(EVERYTHING);
    let up = server.dir.path().join("up");
    fs::create_dir(&up).expect("a directory");
    for (index, name) in odd_names().iter().enumerate() {
        fs::write(up.join(name), format!("content {index}")).expect("a file");
    }
    let put = server.run(["put", "-r", "up", "tree"]);
    assert_eq!(put.code, Some(0), "{put:?}");
    let get = server.run(["get", "-r", "tree", "down"]);
    assert_eq!(get.code, Some(0), "{get:?}");
    for (index, name) in odd_names().iter().enumerate() {
        for place in [server.file("tree"), server.dir.path().join("down")] {
            assert_eq!(fs::read_to_string(place.join(name)).expect("a file"), format!("content {index}"), "{name:?}");
        }
        // One by one as well, by a name on the command line.
        let remote = [b"tree/", name.as_bytes()].concat();
        let get = server.run([OsStr::new("get"), OsStr::new("--"), OsStr::from_bytes(&remote), OsStr::new("one")]);
        assert_eq!(get.code, Some(0), "{get:?}");
        assert_eq!(fs::read_to_string(server.dir.path().join("one")).expect("a file"), format!("content {index}"));
    }
}

#[test]
fn names_are_lossless_for_programs_and_one_line_for_people() {
    let server = Plugd::start(EVERYTHING);
    for name in odd_names() {
        fs::write(server.file("").join(name), "x").expect("a file");
    }
    let text = server.run(["ls"]);
    assert_eq!((text.code, text.text().lines().count()), (Some(0), odd_names().len()), "{text:?}");
    assert!(text.text().chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    assert!(text.text().contains("\\xff\\xfe") && text.text().contains("a\\nb"), "{text:?}");
    let mut listed: Vec<OsString> = lines(server.run(["--json", "ls"]).text())
        .into_iter()
        .map(|line| match &line["name"] {
            Value::String(text) => text.into(),
            name => {
                let hex = name["hex"].as_str().expect("a name in hex").as_bytes();
                let byte =
                    |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("hex");
                OsString::from_vec(hex.chunks(2).map(byte).collect())
            }
        })
        .collect();
    let mut expected = odd_names();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

#[test]
fn a_name_that_is_too_long_is_refused_with_a_reason() {
    let server = Plugd::start(EVERYTHING);
    fs::write(server.dir.path().join("up"), "x").expect("a file");
    for name in ["n".repeat(256), "d/".repeat(2500)] {
        let put = server.run(["put", "up", &name]);
        assert_eq!(put.code, Some(64 + 3), "{put:?}");
        assert!(put.stderr.contains("(bad-path)"), "{put:?}");
    }
}

#[test]
fn ls_looks_like_the_one_of_the_shell() {
    let server = Plugd::start(EVERYTHING);
    fs::create_dir_all(server.file("d/e")).expect("a directory");
    fs::write(server.file("big"), vec![0; 3 << 20]).expect("a file");
    fs::write(server.file("d/e/small.c"), "x").expect("a file");
    symlink("big", server.file("link")).expect("a link");
    let text = server.run(["ls", "-h"]);
    let rows: Vec<Vec<&str>> = text.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..2], ["-rw-r--r--", "3.0M"], "{text:?}");
    assert_eq!((rows[1][0], rows[1][3]), ("drwxr-xr-x", "d/"));
    assert!(text.text().lines().nth(2).is_some_and(|line| line.ends_with("link -> big")), "{text:?}");

    let names = |args: &[&str]| -> Vec<String> {
        let lines = lines(server.run([&["--json", "ls"], args].concat()).text());
        lines.iter().map(|line| line["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(names(&["-r"]), ["big", "d", "d/e", "d/e/small.c", "link"]);
    assert_eq!(names(&["-r", "--glob", "*.c"]), ["d/e/small.c"]);
    assert_eq!(names(&["--reverse", "--limit", "1"]), ["link"]);
    assert_eq!(names(&["d/e"]), ["small.c"]);
    assert_eq!(*names(&["--sort", "size"]).last().expect("an entry"), "big");
    let help = server.run(["ls", "--help"]);
    assert!(help.text().contains("--human"), "{help:?}");
}

#[test]
fn a_listing_that_fails_ends_with_the_failure() {
    let server = Plugd::start(EVERYTHING);
    let missing = server.run(["--json", "ls", "none"]);
    assert_eq!(missing.code, Some(64 + 5));
    let lines = lines(missing.text());
    assert_eq!((lines.len(), &lines[0]["ok"]), (1, &json!(false)), "{missing:?}");
}

#[test]
fn names_are_made_moved_copied_and_removed() {
    let server = Plugd::start(EVERYTHING);
    assert_eq!(server.run(["mkdir", "a"]).code, Some(0));
    let again = server.run(["mkdir", "a", "b"]);
    assert_eq!(again.code, Some(64 + 6), "one of two failed: {again:?}");
    assert!(server.file("b").is_dir(), "the other went well");
    assert_eq!(server.run(["mkdir", "-p", "a", "c/d"]).code, Some(0));
    fs::write(server.file("a/f"), "content").expect("a file");
    let copied = server.run(["cp", "a/f", "c/d/g"]);
    assert_eq!(copied.code, Some(0), "{copied:?}");
    assert_eq!(server.run(["cp", "a/f", "c/d/g", "--no-clobber"]).code, Some(64 + 6));
    assert_eq!(server.run(["mv", "a/f", "h"]).code, Some(0));
    assert_eq!(server.run(["mv", "h", "c/d/g", "--no-clobber"]).code, Some(64 + 6));
    assert!(!server.file("a/f").exists() && server.file("h").exists());
    assert_eq!(server.run(["rm", "c"]).code, Some(64 + 9), "not empty");
    assert_eq!(server.run(["rm", "-r", "c"]).code, Some(0));
    assert!(!server.file("c").exists());
    symlink("/etc/passwd", server.file("out")).expect("a link");
    assert_eq!(server.run(["rm", "out"]).code, Some(0), "of a link, the link");
    assert_eq!(server.run(["rm", "none"]).code, Some(64 + 5));
}

#[test]
fn stat_digest_and_df_tell_what_is_known() {
    let server = Plugd::start(EVERYTHING);
    fs::write(server.file("f"), "abc").expect("a file");
    symlink("f", server.file("link")).expect("a link");
    let digest = server.run(["digest", "f", "link"]);
    let expected = "900150983cd24fb0d6963f7d28e17f72  f\n900150983cd24fb0d6963f7d28e17f72  link\n";
    assert_eq!((digest.code, digest.text()), (Some(0), expected), "{digest:?}");
    let digest = server.run(["--json", "digest", "f", "--digest", "sha256"]).json();
    assert!(digest["data"]["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:ba7816bf")), "{digest}");
    assert_eq!(server.run(["digest", "f", "--digest", "none"]).code, Some(2));
    assert_eq!(server.run(["--json", "stat", "link"]).json()["data"]["kind"], "file");
    assert_eq!(server.run(["--json", "stat", "-P", "link"]).json()["data"]["kind"], "symlink");
    let df = server.run(["--json", "df"]).json();
    assert!(df["data"]["available"].as_u64().is_some_and(|bytes| bytes > 0), "{df}");
    assert!(server.run(["df", "-h"]).text().contains("available"));
}
