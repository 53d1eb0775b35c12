//! `plug describe`: what a plugin can do and how it is called.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::directory;
use super::failure::Failure;
use super::flags::kind::Kind;
use super::options;
use super::session::Session;
use super::text::{columns, one_line};
use crate::Reply;

/// The answer of `plugd.describe`; keys that this program does not know are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    #[serde(default)]
    handler: String,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    package: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    pub(crate) operations: Vec<Operation>,
    #[serde(default)]
    settings: Value,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Operation {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) summary: String,
    #[serde(default)]
    streaming: String,
    #[serde(default)]
    effects: bool,
    #[serde(default)]
    channels: Vec<Channel>,
    /// A JSON Schema.
    #[serde(default)]
    pub(crate) args: Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct Channel {
    number: u8,
    name: String,
    #[serde(default)]
    direction: String,
}

pub(crate) async fn run(session: &mut Session<'_>, options: &options::Describe) -> Result<Answer, Failure> {
    let (reply, data, plugin) = fetch(session, &options.name).await?;
    Ok(Answer::of_json(reply, data, text(&plugin)))
}

/// Asks the server for the description of a plugin, and returns its answer as it came too.
pub(crate) async fn fetch(session: &mut Session<'_>, name: &str) -> Result<(Reply, Value, Plugin), Failure> {
    let args = Map::from_iter([("name".to_owned(), json!(name))]);
    let reply = session.call("plugd.describe", args).await?;
    let data = directory::json(&reply, "plugd.describe")?;
    let plugin = serde_json::from_value(data.clone())
        .map_err(|error| Failure::protocol(format!("answer of plugd.describe is malformed: {error}")))?;
    Ok((reply, data, plugin))
}

fn text(plugin: &Plugin) -> String {
    let mut text = format!("{}: {}\n", one_line(&plugin.name), one_line(&plugin.summary));
    let origin = format!("handler {}, from {} {}", plugin.handler, plugin.package, plugin.version);
    text += &format!("{}\n", one_line(&origin));
    for operation in &plugin.operations {
        describe_operation(&mut text, plugin, operation);
    }
    let settings = members(&plugin.settings);
    if !settings.is_empty() {
        text += &format!("\nsettings\n{}", indented(&settings));
    }
    text
}

fn describe_operation(text: &mut String, plugin: &Plugin, operation: &Operation) {
    let command = match plugin.operations.len() {
        1 => plugin.name.clone(),
        _ => format!("{}.{}", plugin.name, operation.name),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{}: {}", one_line(&command), one_line(&operation.summary));
    *text += &facts(operation);
    *text += &indented(&members(&operation.args));
}

/// How the operation moves data, and what it changes, in lines.
pub(crate) fn facts(operation: &Operation) -> String {
    let effects = if operation.effects { "; changes or runs something" } else { "" };
    let mut text = format!("  {}{effects}\n", streaming(&operation.streaming));
    for channel in &operation.channels {
        let direction = if channel.direction.is_empty() { String::new() } else { format!(" ({})", channel.direction) };
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "  side channel {}: {}", channel.number, one_line(&format!("{}{direction}", channel.name)));
    }
    text
}

fn streaming(name: &str) -> &'static str {
    match name {
        "client" => "takes a stream, answers once",
        "server" => "answers with a stream",
        "both" => "takes a stream, answers with a stream",
        _ => "answers once",
    }
}

fn indented(rows: &[[String; 4]]) -> String {
    columns(rows, [false; 4]).lines().map(|line| format!("  {line}\n")).collect()
}

/// The members of an object that a JSON Schema describes: name, type, necessity and description.
fn members(schema: &Value) -> Vec<[String; 4]> {
    let Some(properties) = schema["properties"].as_object() else {
        return Vec::new();
    };
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    let row = |(name, member): (&String, &Value)| {
        let description = member["description"].as_str().unwrap_or_default();
        [
            one_line(name),
            Kind::of(member).words(),
            necessity(member, required(name)),
            one_line(&description.replace('\n', " ")),
        ]
    };
    properties.iter().map(row).collect()
}

fn necessity(member: &Value, required: bool) -> String {
    match member.get("default") {
        _ if required => "required".to_owned(),
        None | Some(Value::Null) => "optional".to_owned(),
        Some(default) => format!("default {}", one_line(&default.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_tell_type_necessity_and_meaning() {
        let schema = json!({"properties": {
            "argv": {"type": "array", "items": {"type": "string"}, "description": "the command"},
            "depth": {"type": ["integer", "null"], "minimum": 1, "maximum": 9, "default": null},
            "mode": {"enum": ["a", "b"], "default": "a"},
            "user": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
        }, "required": ["argv"]});
        let row = |cells: [&str; 4]| cells.map(str::to_owned);
        assert_eq!(
            members(&schema),
            [
                row(["argv", "list of text", "required", "the command"]),
                row(["depth", "integer, 1 to 9", "optional", ""]),
                row(["mode", "a | b", "default \"a\"", ""]),
                row(["user", "text or integer", "optional", ""]),
            ]
        );
    }

    #[test]
    fn a_plugin_is_described_in_readable_lines() {
        let plugin = json!({"name": "upper", "handler": "upper", "summary": "shouts", "package": "p", "version": "1",
            "operations": [{"name": "upper", "summary": "upper-cases", "streaming": "both", "effects": false,
                "channels": [{"number": 1, "name": "log"}], "args": {"type": "object"}}], "settings": {}});
        let plugin = serde_json::from_value(plugin).expect("a description");
        assert_eq!(
            text(&plugin),
            "upper: shouts\nhandler upper, from p 1\n\nupper: upper-cases\n  \
             takes a stream, answers with a stream\n  side channel 1: log\n"
        );
    }
}
