//! Commands that the operator has named: their operations, and what callers may say to them.

use std::fs;
use std::path::Path;

use plugd_core::{Blueprint, Code, Registry};
use serde_json::{Value, json};

use plugd_core::testing::{Answer, Plugin};

fn prepare(settings: Value) -> Result<Blueprint, Vec<String>> {
    let registry = Registry::linked().expect("a sound registry");
    let prepared = registry.handler("shell").expect("linked").prepare(settings);
    prepared.map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// A command `say` that prints its arguments, a line each.
fn say(argv: &[&str], parameters: Value) -> Value {
    let argv = [&["printf", "%s\\n"], argv].concat();
    json!({ "commands": { "say": { "argv": argv, "parameters": parameters } } })
}

async fn call(settings: Value, dir: &Path, args: Value) -> Answer {
    let handler: Plugin = Plugin::linked_in("shell", settings, dir);
    handler.call("say").args(args).start().await.run(&[]).await
}

async fn said(settings: Value, args: Value) -> Result<String, String> {
    let answer = call(settings, Path::new(""), args).await;
    match answer.status.is_ok() {
        true => Ok(answer.text()),
        false => {
            assert_eq!((answer.status.code(), answer.status.reason()), (Code::InvalidArgument, "bad-arguments"));
            Err(answer.status.message().to_owned())
        }
    }
}

#[test]
fn each_named_command_is_an_operation_with_its_parameters() {
    let command = json!({
        "argv": ["tail", "-n", "{lines}", "{follow}", "--", "{file}"],
        "summary": "shows the end of a log",
        "read_only": true,
        "parameters": {
            "lines": { "type": "integer", "min": 1, "max": 100, "default": 10 },
            "follow": { "type": "flag", "argument": "-f" },
            "file": { "type": "path", "below": "logs", "summary": "which log" },
        },
    });
    let settings = json!({ "commands": { "tail": command }, "jobs_max": 0 });
    let blueprint = prepare(settings).expect("good settings");
    let [tail] = blueprint.operations() else { panic!("{:?}", blueprint.operations()) };
    assert_eq!((tail.name(), tail.summary(), tail.effects()), ("tail", "shows the end of a log", false));
    let registry = Registry::linked().expect("a sound registry");
    let description = registry.handler("shell").expect("linked").describe_with(blueprint.operations());
    let args = &description["operations"][0]["args"];
    assert_eq!(args["properties"]["lines"]["maximum"], 100);
    assert_eq!(args["properties"]["follow"]["type"], "boolean");
    assert!(args["properties"]["file"]["description"].as_str().is_some_and(|text| text.starts_with("which log; ")));
    assert_eq!(args["required"], json!(["file"]));
    assert!(tail.check_args(r#"{"lnes": 5}"#).is_err_and(|status| status.message().contains("\"lines\"?")));
}

#[test]
fn operations_and_effects_follow_the_settings() {
    let names = |settings: Value| -> Vec<(String, bool)> {
        let blueprint = prepare(settings).expect("good settings");
        blueprint.operations().iter().map(|op| (op.name().to_owned(), op.effects())).collect()
    };
    let jobs = |effects| [("jobs", false), ("logs", false), ("attach", effects), ("kill", effects)];
    let owned = |list: &[(&str, bool)]| list.iter().map(|(name, yes)| ((*name).to_owned(), *yes)).collect::<Vec<_>>();
    let any = names(json!({ "allow_any_command": true }));
    assert_eq!(any, owned(&[&[("exec", true)][..], &jobs(true)].concat()));
    let command = |read_only: bool| json!({ "commands": { "up": { "argv": ["uptime"], "read_only": read_only } } });
    assert_eq!(names(command(true)), owned(&[&[("up", false)][..], &jobs(false)].concat()));
    assert_eq!(names(command(false)), owned(&[&[("up", true)][..], &jobs(true)].concat()));
}

#[test]
fn everything_that_is_wrong_with_the_settings_comes_at_once_with_its_place() {
    let settings = json!({
        "commands": {
            "exec": { "argv": ["true"] },
            "a": { "argv": [] },
            "b": {
                "argv": ["{x}", "{flg}", "a{flag}", "{path}", "{text}", "{number}", "{choice}"],
                "cwd": "x",
                "commands_max": 1000,
                "parameters": {
                    "x": { "type": "string", "pattern": "(", "min": 1 },
                    "flag": { "type": "flag" },
                    "path": { "type": "path", "default": "/etc" },
                    "text": { "type": "string", "length_max": 0, "pattern": "a+", "default": "b" },
                    "number": { "type": "integer", "min": 5, "max": 1 },
                    "choice": { "type": "choice" },
                    "unused": { "type": "flag", "argument": "-x" },
                    "pty": { "type": "string" },
                },
            },
        },
        "encoding": "klingon",
        "umask": "9",
        "nice": 20,
        "grace": "2h",
        "sandbox": {},
        "env": { "A=B": "x" },
    });
    let errors = prepare(settings).expect_err("bad settings");
    for expected in [
        "commands.exec: \"exec\" cannot name a command",
        "commands.a.argv: no program",
        "commands.b.argv.0: the program may not come from the caller",
        "commands.b.argv.1: no parameter \"flg\"; did you mean \"flag\"?; declared: ",
        "commands.b.argv.2: the flag \"flag\" stands for a whole argument",
        "commands.b.commands_max: 1000 is out of range; allowed: 1 to 64",
        "commands.b.parameters.x.pattern: no regular expression: ",
        "commands.b.parameters.x.min: a parameter of type string has none; it belongs to integer",
        "commands.b.parameters.flag.argument: no argument to add",
        "commands.b.parameters.path.default: \"/etc\"; allowed: a path without .. and not absolute",
        "commands.b.parameters.text.length_max: 0 is out of range; allowed: 1 to 131071",
        "commands.b.parameters.text.default: ",
        "commands.b.parameters.number.max: 1 is below the least, 5",
        "commands.b.parameters.choice.values: nothing to choose from",
        "commands.b.parameters.unused: unused; write {unused} in argv",
        "commands.b.parameters.pty: \"pty\" cannot name a parameter",
        "encoding: unknown encoding \"klingon\"",
        "umask: \"9\" is no mask; allowed: \"000\" to \"777\", in octal",
        "nice: 20 is out of range; allowed: -20 to 19",
        "grace: 2h is out of range; allowed: 0s to 1m",
        "sandbox: nothing may be read",
        "env.A=B: ",
    ] {
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected} in {errors:#?}");
    }
}

#[tokio::test]
async fn wrong_arguments_are_refused_with_their_place_and_what_is_allowed() {
    let settings = say(
        &["{lines}", "{level}", "{name}", "{loud}"],
        json!({
            "lines": { "type": "integer", "min": 1, "max": 100 },
            "level": { "type": "choice", "values": ["info", "warn"] },
            "name": { "type": "string", "pattern": "[a-z]+", "length_max": 5 },
            "loud": { "type": "flag", "argument": "--loud" },
        }),
    );
    let good = json!({ "lines": "20", "level": "warn", "name": "abc", "loud": true });
    assert_eq!(said(settings.clone(), good).await, Ok("20\nwarn\nabc\n--loud\n".to_owned()));
    let quiet = json!({ "lines": 1, "level": "info", "name": "a" });
    assert_eq!(said(settings.clone(), quiet).await, Ok("1\ninfo\na\n".to_owned()));
    let bad = said(settings.clone(), json!({ "lines": 500, "level": "debug", "name": "ABC", "loud": "yes" })).await;
    assert_eq!(
        bad,
        Err("argument \"level\": \"debug\"; allowed: \"info\", \"warn\"; \
             argument \"lines\": 500; allowed: an integer, 1 to 100; argument \"loud\": \"yes\"; allowed: true, false"
            .to_owned())
    );
    let missing = said(settings.clone(), json!({ "level": "info", "name": "abc" })).await;
    assert_eq!(missing, Err("argument \"lines\": missing; allowed: an integer, 1 to 100".to_owned()));
    // What no schema says of a text, and numbers that came as one.
    let bad = said(settings.clone(), json!({ "lines": "500", "level": "info", "name": "ABC" })).await;
    assert_eq!(
        bad,
        Err("argument \"lines\": \"500\"; allowed: 1 to 100; \
             argument \"name\": \"ABC\"; allowed: a text of at most 5 bytes like [a-z]+"
            .to_owned())
    );
    // The whole text must be like the pattern, and a line end is part of it.
    for name in ["ab1", "ab\n", ""] {
        assert!(
            said(settings.clone(), json!({ "lines": 1, "level": "info", "name": name })).await.is_err(),
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn a_secret_reaches_its_command_and_no_message() {
    let settings = |more: Value| {
        let mut parameter = json!({ "type": "string", "pattern": "[a-z0-9]+", "secret": true });
        parameter.as_object_mut().expect("a table").extend(more.as_object().cloned().unwrap_or_default());
        say(&["--key={key}"], json!({ "key": parameter }))
    };
    assert_eq!(said(settings(json!({})), json!({ "key": "s3cret" })).await, Ok("--key=s3cret\n".to_owned()));
    for wrong in [json!("S3CRET!"), json!(["s3cret"]), json!({ "s3cret": 1 })] {
        let message = said(settings(json!({})), json!({ "key": wrong })).await.expect_err("refused");
        assert!(message.contains("\"key\"") && !message.to_lowercase().contains("s3cret"), "{message}");
    }
    let errors = prepare(settings(json!({ "default": "s3cret" }))).expect_err("a secret that everybody reads");
    assert_eq!(errors, ["commands.say.parameters.key.default: a secret has none: everybody could read it"]);
    let blueprint = prepare(settings(json!({}))).expect("good settings");
    assert_eq!(blueprint.operations()[0].args_schema_value()["properties"]["key"]["writeOnly"], true);
}

#[tokio::test]
async fn a_value_is_one_literal_argument() {
    let settings = || say(&["{text}", "<{text}>"], json!({ "text": { "type": "string" } }));
    for text in ["a b;$(id)", "`id`", "a\nb", "'\"", "*", "{text}", "", "$HOME"] {
        assert_eq!(said(settings(), json!({ "text": text })).await, Ok(format!("{text}\n<{text}>\n")), "{text:?}");
    }
}

#[tokio::test]
async fn a_value_becomes_no_option() {
    let text = |extra: Value| {
        let mut parameter = json!({ "type": "string" });
        parameter.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        json!({ "text": parameter })
    };
    let refused = said(say(&["{text}"], text(json!({}))), json!({ "text": "-rf" })).await.expect_err("refused");
    assert!(refused.starts_with("argument \"text\": begins with \"-\""), "{refused}");
    let allowed = say(&["{text}"], text(json!({ "allow_dash": true })));
    assert_eq!(said(allowed, json!({ "text": "-rf" })).await, Ok("-rf\n".to_owned()));
    let behind = json!({ "commands": { "say": {
        "argv": ["printf", "%s\\n", "--", "{text}"], "parameters": text(json!({})),
    } } });
    assert_eq!(said(behind, json!({ "text": "-rf" })).await, Ok("--\n-rf\n".to_owned()));
}

#[tokio::test]
async fn a_path_stays_below_its_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("logs/old")).expect("a directory");
    fs::write(dir.path().join("logs/app.log"), "").expect("a file");
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("logs/out")).expect("a link");
    std::os::unix::fs::symlink("app.log", dir.path().join("logs/in")).expect("a link");
    let settings = |must_exist: bool| {
        say(&["{file}"], json!({ "file": { "type": "path", "below": "logs", "must_exist": must_exist } }))
    };
    let base = dir.path().canonicalize().expect("a directory");
    for (file, must_exist) in [("app.log", true), ("in", true), ("old", true), ("new.log", false), ("old/new", false)] {
        let answer = call(settings(must_exist), dir.path(), json!({ "file": file })).await;
        assert_eq!(answer.text(), format!("{}\n", base.join("logs").join(file).display()), "{}", answer.status);
    }
    for (file, must_exist, why) in [
        ("new.log", true, "does not exist"),
        ("no/new", false, "has no directory to be in"),
        ("out", true, "leads out of its directory"),
        ("out", false, "leads out of its directory"),
        ("../secret", false, "without .."),
        ("/etc/passwd", false, "not absolute"),
        ("", false, "allowed: a path"),
    ] {
        let answer = call(settings(must_exist), dir.path(), json!({ "file": file })).await;
        assert_eq!(answer.status.reason(), "bad-arguments", "{file}");
        assert!(answer.status.message().contains(why), "{file}: {}", answer.status);
    }
}

#[tokio::test]
async fn only_what_is_named_can_be_run() {
    let handler = Plugin::linked_in("shell", say(&["x"], json!({})), Path::new(""));
    let answer = handler.call("exec").args(json!({ "argv": ["id"] })).start().await.run(&[]).await;
    assert_eq!((answer.status.code(), answer.text()), (Code::Unimplemented, String::new()));
}

#[tokio::test]
async fn a_named_command_has_limits_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("there")).expect("a directory");
    let settings = json!({ "commands": {
        "say": { "argv": ["sh", "-c", "pwd; cat; sleep 1000"], "cwd": "there", "stdin": false, "time_max": "300ms" },
    } });
    let answer = call(settings, dir.path(), json!({})).await;
    assert_eq!((answer.status.code(), answer.status.reason()), (Code::DeadlineExceeded, "time-max"));
    assert!(answer.text().ends_with("/there\n"), "{}", answer.text());
}
