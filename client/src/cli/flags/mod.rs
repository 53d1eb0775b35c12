//! Flags of the commands that `plug call` calls, from the description that the server gives of them.
//!
//! A command line that holds nothing but options of ours is never brought here, and costs no question. One with other flags
//! behind the command, or with `--help`, is read in two steps: `lenient` finds the server and the command, and, with the
//! answer of `plugd.describe`, `command_line` reads everything. Where a name is plug's own option and an argument too, it
//! is plug's option.

pub(crate) mod argument;
pub(crate) mod command_line;
mod help;
pub(crate) mod kind;
pub(crate) mod lenient;

use std::ffi::OsString;
use std::time::Duration;

use plugd_core::did_you_mean;
use serde_json::json;

use super::answer::Answer;
use super::describe::{self, Operation, Plugin};
use super::failure::Failure;
use super::options::{Options, Verb};
use super::session::Session;
use crate::{Reply, Status};
use argument::{Argument, arguments};
use lenient::Partly;

/// How long a description is waited for, from a server that accepts connections.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a command line is once the server has explained it.
#[derive(Debug)]
pub(crate) enum Explained {
    /// The whole of it.
    Options(Box<Options>),
    /// What the flags are.
    Help(Box<Answer>),
    /// No such flags, or wrong values.
    Wrong(clap::Error),
}

/// Asks the server what the command's flags are, and reads the line with them or tells them.
pub(crate) async fn explain(line: &[OsString], partly: &mut Partly) -> Result<Explained, Failure> {
    partly.options.find_servers()?;
    let Verb::Call(call) = &partly.options.verb else {
        return Err(Failure::Usage("only call has flags of the server's commands".to_owned()));
    };
    let (reply, command, operation) = ask(&partly.options, &call.command).await?;
    let arguments = arguments(&operation.args, &command_line::own_flags());
    if partly.is_help {
        return Ok(Explained::Help(Box::new(help(reply, &command, &operation, &arguments))));
    }
    match command_line::read(line, &arguments) {
        Ok(options) => Ok(Explained::Options(Box::new(options?))),
        Err(error) => Ok(Explained::Wrong(error)),
    }
}

async fn ask(options: &Options, command: &str) -> Result<(Reply, String, Operation), Failure> {
    let mut session = Session::connect(options, options.server()?).await?;
    let (name, operation) = split(command);
    let patience = session.timeout().unwrap_or(PATIENCE).min(PATIENCE);
    let asked = tokio::time::timeout(patience, describe::fetch(&mut session, name)).await;
    session.close().await;
    let text = || format!("no description of \"{name}\" within {}", humantime::format_duration(patience));
    let (reply, _, plugin) =
        asked.unwrap_or_else(|_| Err(Failure::found(Status::deadline_exceeded("deadline", text()))))?;
    let (command, operation) = find(plugin, operation)?;
    Ok((reply, command, operation))
}

/// A command's plugin, and its operation if it names one.
pub(crate) fn split(command: &str) -> (&str, Option<&str>) {
    command.split_once('.').map_or((command, None), |(plugin, operation)| (plugin, Some(operation)))
}

/// The operation, which may go unnamed where it is the only one, and how it is called.
pub(crate) fn find(plugin: Plugin, operation: Option<&str>) -> Result<(String, Operation), Failure> {
    let names: Vec<&str> = plugin.operations.iter().map(|operation| operation.name.as_str()).collect();
    let available = names.join(", ");
    let at = match operation {
        None if names.len() == 1 => Some(0),
        None => {
            let text = format!("plugin \"{}\" has several operations; name one; available: {available}", plugin.name);
            return Err(Failure::found(Status::not_found("no-operation", text)));
        }
        Some(operation) => names.iter().position(|name| *name == operation),
    };
    let Some(at) = at else {
        let operation = operation.unwrap_or_default();
        let hint = did_you_mean(operation, names.iter().copied());
        let text = format!("no operation \"{operation}\" in plugin \"{}\"{hint}; available: {available}", plugin.name);
        return Err(Failure::found(Status::not_found("unknown-operation", text)));
    };
    let command = match operation {
        None => plugin.name.clone(),
        Some(operation) => format!("{}.{operation}", plugin.name),
    };
    let operation = plugin.operations.into_iter().nth(at).expect("the position of one of them");
    Ok((command, operation))
}

fn help(reply: Reply, command: &str, operation: &Operation, arguments: &[Argument]) -> Answer {
    let text = help::text(command, operation, arguments);
    Answer::of_json(reply, json!({ "command": command, "operation": operation }), text)
}
