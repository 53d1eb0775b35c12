//! `plug call COMMAND --help`: how one operation is called.

use serde_json::Value;

use super::argument::Argument;
use super::kind::Kind;
use crate::cli::describe::{Operation, facts};
use crate::cli::text::{columns, one_line};

const FOOTER: &str =
    "Each can also be given as KEY=TEXT or KEY:=JSON; plug call --help has the options of plug itself.\n";

/// The text for people: what the operation does, and a line for each argument.
pub(crate) fn text(command: &str, operation: &Operation, arguments: &[Argument]) -> String {
    let mut text = format!("{}: {}\n{}", one_line(command), one_line(&operation.summary), facts(operation));
    let flags = if arguments.is_empty() { "" } else { " [--FLAG VALUE]... [KEY=TEXT|KEY:=JSON]..." };
    text += &format!("\nUsage: plug call {}{flags}\n", one_line(command));
    let is_flag = |argument: &&Argument| argument.flag.is_some();
    text += &table("Flags", arguments.iter().filter(is_flag));
    text += &table(
        "Arguments without a flag, since plug has an option of that name",
        arguments.iter().filter(|a| !is_flag(a)),
    );
    text += &notes(arguments);
    text
}

fn table<'a>(title: &str, arguments: impl Iterator<Item = &'a Argument>) -> String {
    let rows: Vec<[String; 4]> = arguments.map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let lines: String = columns(&rows, [false; 4]).lines().map(|line| format!("  {line}\n")).collect();
    format!("\n{title}:\n{lines}")
}

fn row(argument: &Argument) -> [String; 4] {
    [usage(argument), argument.kind.words(), necessity(argument), one_line(&argument.description)]
}

fn usage(argument: &Argument) -> String {
    let Some(flag) = &argument.flag else {
        let sign = if matches!(argument.kind, Kind::Text | Kind::Choice(_)) { "=TEXT" } else { ":=JSON" };
        return one_line(&argument.name()) + sign;
    };
    let more = if argument.kind.is_repeated() { "..." } else { "" };
    match (&argument.kind, &argument.no_flag) {
        (Kind::Boolean, Some(no)) => format!("--{flag}, --{no}"),
        (Kind::Boolean, None) => format!("--{flag}"),
        (kind, _) => format!("--{flag} {}{more}", kind.placeholder()),
    }
}

fn necessity(argument: &Argument) -> String {
    match &argument.default {
        _ if argument.is_required => "required".to_owned(),
        None => "optional".to_owned(),
        Some(Value::String(text)) if !text.is_empty() => format!("default {}", one_line(text)),
        Some(default) => format!("default {}", one_line(&default.to_string())),
    }
}

/// How the kinds are given that need a word, and only those that are there.
fn notes(arguments: &[Argument]) -> String {
    if arguments.is_empty() {
        return "\nIt takes no arguments; plug call --help has the options of plug itself.\n".to_owned();
    }
    let has = |is: fn(&Kind) -> bool| arguments.iter().any(|argument| argument.flag.is_some() && is(&argument.kind));
    let mut notes = String::from("\n");
    if has(Kind::is_repeated) {
        notes += "A flag with ... is given once for each element or entry.\n";
    }
    if has(|kind| *kind == Kind::Object) {
        notes += "An object is given as JSON, by the flags of its members, or by both.\n";
    }
    if has(|kind| !matches!(kind, Kind::Boolean)) {
        notes += "A value that begins with a dash is joined by an equals sign: --FLAG=-VALUE.\n";
    }
    notes + FOOTER
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;
    use crate::cli::flags::argument::arguments;

    fn help(args: Value) -> String {
        let operation = json!({"name": "ls", "summary": "lists", "streaming": "server", "effects": true,
            "channels": [{"number": 1, "name": "log", "direction": "output"}], "args": args});
        let operation: Operation = serde_json::from_value(operation).expect("an operation");
        let taken = HashSet::from(["data".to_owned()]);
        text("files.ls", &operation, &arguments(&operation.args, &taken))
    }

    #[test]
    fn each_argument_has_a_line_in_columns() {
        let args = json!({"required": ["path"], "properties": {
            "data": {"type": "string", "description": "Hidden by plug's own."},
            "deep": {"type": "boolean", "default": false, "description": "Whether to go\non below."},
            "path": {"type": "string", "description": "What to list."},
            "sort": {"enum": ["name", "size"], "default": "name"},
            "tags": {"type": "array", "items": {"type": "integer", "minimum": 1}},
        }});
        assert_eq!(
            help(args),
            "\
files.ls: lists
  answers with a stream; changes or runs something
  side channel 1: log (output)

Usage: plug call files.ls [--FLAG VALUE]... [KEY=TEXT|KEY:=JSON]...

Flags:
  --deep, --no-deep  boolean                      default false  Whether to go on below.
  --path TEXT        text                         required       What to list.
  --sort CHOICE      name | size                  default name
  --tags INTEGER...  list of integer, at least 1  optional

Arguments without a flag, since plug has an option of that name:
  data=TEXT  text  optional  Hidden by plug's own.

A flag with ... is given once for each element or entry.
A value that begins with a dash is joined by an equals sign: --FLAG=-VALUE.
Each can also be given as KEY=TEXT or KEY:=JSON; plug call --help has the options of plug itself.
"
        );
    }

    #[test]
    fn an_operation_without_arguments_says_so() {
        let text = help(json!({"type": "object"}));
        assert!(
            text.ends_with("\n\nIt takes no arguments; plug call --help has the options of plug itself.\n"),
            "{text}"
        );
    }
}
