//! `plug call COMMAND --flag VALUE` and `--help`: arguments by the server's own description of them.

use serde_json::json;

use crate::support::process::{EVERYTHING, Plugd};

/// A command whose parameters are named like options of plug.
const NAMED: &str = r#"
[plugins.ops.config.commands.say]
argv = ["printf", "%s,%s", "{data}", "{count}"]
summary = "says what it is told"
parameters.data = { type = "string" }
parameters.count = { type = "integer", min = 1, max = 100, default = 10 }
"#;

const OPS: &str = "[plugins.ops]\nhandler = \"shell\"\naccess.allow = [\"any\"]\n";

fn named() -> Plugd {
    Plugd::start(&format!("{OPS}{NAMED}"))
}

#[test]
fn flags_reach_the_handler_with_their_types() {
    let server = Plugd::start(EVERYTHING);
    std::fs::create_dir_all(server.file("a/b")).expect("a directory");
    std::fs::write(server.file("a/b/c"), "x").expect("a file");
    let deep = server.run(["call", "files.ls", "--path", "a", "--recursive"]);
    assert_eq!((deep.code, &*deep.stderr, deep.text().contains("\"b/c\"")), (Some(0), "", true), "{deep:?}");
    let flat = server.run(["call", "files.ls", "--no-recursive", "path=a"]);
    assert_eq!((flat.code, flat.text().contains("\"b/c\"")), (Some(0), false), "{flat:?}");
    let list = server.run(["call", "shell.exec", "--argv", "printf", "--argv=-%s", "--argv", "a b"]);
    assert_eq!((list.code, list.text()), (Some(0), "-a b"), "{list:?}");
    let map = server.run(["call", "shell.exec", "--shell", "echo $LANG,$TERM", "--env", "LANG=C", "--env", "TERM=x"]);
    assert_eq!((map.code, map.text()), (Some(0), "C,x\n"), "{map:?}");
}

#[test]
fn our_own_options_work_beside_flags() {
    let server = Plugd::start(EVERYTHING);
    for line in [
        &["-s", &*server.address, "call", "shell.exec", "--argv", "cat", "--data", "in", "--timeout", "30s"][..],
        &["call", "-s", &*server.address, "shell.exec", "--data=in", "--argv", "cat"],
        &["call", "shell.exec", "--argv", "cat", "-s", &*server.address, "--data", "in"],
    ] {
        let mut call = server.plug(line);
        let outcome = crate::support::process::Outcome::from(
            call.env("PLUG_SERVER", "tcp://127.0.0.1:1").output().expect("the client's program"),
        );
        assert_eq!((outcome.code, outcome.text()), (Some(0), "in"), "{line:?}: {outcome:?}");
    }
    let envelope = server.run(["call", "shell.exec", "--argv", "cat", "--data", "in", "--json"]).json();
    assert_eq!(envelope["data"], "in");
}

#[test]
fn an_option_of_ours_goes_before_an_argument_of_its_name() {
    let server = named();
    let outcome = server.run(["call", "ops.say", "--count", "3", "--data", "payload", "data=argument"]);
    assert_eq!((outcome.code, outcome.text()), (Some(0), "argument,3"), "{outcome:?}");
    let help = server.run(["call", "ops.say", "--help"]);
    let (flags, others) = help.text().split_once("Arguments without a flag").expect("a table of them");
    assert!(
        flags.contains("--count INTEGER") && flags.contains("integer, 1 to 100") && flags.contains("default 10"),
        "{flags}"
    );
    assert!(others.contains("data=TEXT") && !flags.contains("--data"), "{}", help.text());
}

#[test]
fn help_has_a_line_for_each_argument() {
    let server = Plugd::start(EVERYTHING);
    let help = server.run(["call", "files.ls", "--help"]);
    assert_eq!((help.code, &*help.stderr), (Some(0), ""));
    let line = |flag: &str| {
        help.text().lines().find(|line| line.trim_start().starts_with(flag)).unwrap_or_default().to_owned()
    };
    assert!(help.text().starts_with("files.ls: "), "{}", help.text());
    assert!(line("--path TEXT|JSON").contains("text or object"), "{}", help.text());
    assert!(line("--recursive, --no-recursive").contains("boolean"), "{}", help.text());
    assert!(line("--limit INTEGER").contains("integer"), "{}", help.text());
    let envelope = server.run(["--json", "call", "files.ls", "-h"]).json();
    assert_eq!(
        (&envelope["data"]["command"], &envelope["data"]["operation"]["name"]),
        (&json!("files.ls"), &json!("ls"))
    );
    assert!(envelope["data"]["operation"]["args"]["properties"]["recursive"].is_object());
    let nested = server.run(["call", "shell.exec", "--help"]);
    assert!(nested.text().contains("--pty.rows INTEGER"), "{}", nested.text());
    let single = server.run(["call", "upper", "--help"]);
    assert!(single.text().contains("Usage: plug call upper\n"), "{}", single.text());
    // Without a command it is about plug alone, and no server is asked.
    let own = server.run(["-s", "tcp://127.0.0.1:1", "call", "--help"]);
    assert!(own.code == Some(0) && own.text().contains("--timeout"), "{own:?}");
}

#[test]
fn wrong_flags_and_values_are_usage_errors_that_say_what_is_allowed() {
    let server = named();
    for (words, parts) in [
        (&["--cuont", "3"][..], &["unexpected argument '--cuont'", "a similar argument exists: '--count'"][..]),
        (&["--count", "three"], &["invalid value 'three' for '--count <INTEGER>'", "allowed: integer, 1 to 100"]),
        (&["--count", "101"], &["allowed: integer, 1 to 100"]),
        (&["--count", "1", "--count", "2"], &["cannot be used multiple times"]),
        (&["--count", "1", "count:=2"], &["argument \"count\" given twice"]),
    ] {
        let outcome = server.run(["call", "ops.say", "data=x"].iter().chain(words));
        assert_eq!((outcome.code, outcome.text()), (Some(2), ""), "{outcome:?}");
        parts.iter().for_each(|part| assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr));
    }
    let outcome = server.run(["call", "ops.say", "--cuont", "3", "--json"]);
    assert_eq!((outcome.code, &outcome.json()["error"]["kind"]), (Some(2), &json!("usage")));
    let message = outcome.json()["error"]["message"].to_string();
    assert!(message.contains("a similar argument exists: '--count'"), "{message}");
}

#[test]
fn commands_that_nobody_can_describe_fail_as_their_call_would() {
    let server = Plugd::start(EVERYTHING);
    for (command, part) in [
        ("uper", "did you mean \"upper\"?"),
        ("files.lss", "did you mean \"ls\"?"),
        ("files", "has several operations; name one"),
    ] {
        for flag in ["--help", "--path=x"] {
            let outcome = server.run(["call", command, flag]);
            assert_eq!((outcome.code, outcome.text()), (Some(64 + 5), ""), "{outcome:?}");
            assert!(outcome.stderr.contains(part), "{}", outcome.stderr);
        }
    }
    let outcome = server.run(["-s", "tcp://127.0.0.1:1", "call", "files.ls", "--path", "x"]);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
}
