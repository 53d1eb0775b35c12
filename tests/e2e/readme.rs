//! Runs the commands of the README, as they stand there.

use std::process::Command;

use crate::support::process::{EVERYTHING, Plugd, plug};

const README: &str = include_str!("../../README.md");

/// A command of the README with what it shows of the answer.
struct Shown {
    command: String,
    answer: String,
}

/// Every command in a `console` block that starts with `wanted`.
fn shown(wanted: &str) -> Vec<Shown> {
    let blocks = README.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let commands = blocks.flat_map(|block| block.split("$ ").skip(1));
    commands
        .filter_map(|text| text.split_once('\n'))
        .filter(|(command, _)| command.contains(wanted))
        .map(|(command, answer)| Shown { command: command.to_owned(), answer: answer.to_owned() })
        .collect()
}

#[test]
fn the_first_screen_starts_the_server_and_gets_an_answer() {
    let first_screen: Vec<&str> = README.lines().take(20).collect();
    assert!(first_screen.iter().any(|line| line.starts_with("$ cargo run ")));
    assert!(first_screen.iter().any(|line| line.starts_with("$ cargo test --workspace")));
    let server = Plugd::start(EVERYTHING);
    let [call] = &shown("cargo run -q --bin plug -- ")[..] else { panic!("one call on the first screen") };
    let command = call.command.split('#').next().expect("split yields at least one part");
    assert_eq!(run(&server, &command.replace("cargo run -q --bin plug --", "plug")), call.answer);
}

#[test]
fn every_call_answers_what_the_readme_shows() {
    let server = Plugd::start(EVERYTHING);
    let calls: Vec<Shown> = shown("plug ").into_iter().filter(|call| !call.command.starts_with("cargo")).collect();
    assert!(calls.len() >= 4, "{} calls", calls.len());
    for Shown { command, answer } in calls {
        assert_eq!(run(&server, &command), answer, "{command}");
    }
}

/// Runs a line of shell in which `plug` is the client, and shows its output as a terminal would: on lines of its own,
/// and with a note of the exit code that a shell would not show.
fn run(server: &Plugd, line: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("plug() {{ {} \"$@\"; }}; {{ {line}; }} 2>&1", plug().display())])
        .env("PLUG_SERVER", &server.address)
        .stdin(std::process::Stdio::null())
        .output()
        .expect("sh runs");
    let mut text = String::from_utf8(output.stdout).expect("text");
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    match output.status.code() {
        Some(0) => text,
        code => format!("{text}[exit {}]\n", code.expect("an exit code")),
    }
}
