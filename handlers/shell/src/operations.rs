//! What a plugin with given settings offers, described.

use plugd_core::{Operation, Streaming};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::args::{ExecArgs, JobArgs, JobsArgs, KillArgs, LogsArgs, PtyArgs};
use crate::relay::CHANNEL_STDERR;
use crate::settings::{CommandSettings, ShellSettings};
use crate::stdin::CHANNEL_CONTROL;

/// Names that no command may have, since the plugin's own operations do.
pub(crate) const RESERVED: [&str; 5] = ["exec", "jobs", "logs", "attach", "kill"];

/// Names that no parameter may have, since every command takes them.
pub(crate) const RESERVED_ARGUMENTS: [&str; 2] = ["pty", "detach"];

/// Everything that a plugin of this handler may offer, but for what its settings name.
pub(crate) fn all() -> Vec<Operation> {
    [vec![exec()], of_jobs(true)].concat()
}

/// What a plugin with these settings offers.
pub(crate) fn of(settings: &ShellSettings) -> Vec<Operation> {
    let mut operations = Vec::new();
    if settings.allow_any_command {
        operations.push(exec());
    }
    operations.extend(settings.commands.iter().map(|(name, command)| named(name, command, settings)));
    if settings.jobs_max > 0 {
        let has_effects = settings.allow_any_command || settings.commands.values().any(|command| !command.read_only);
        operations.extend(of_jobs(has_effects));
    }
    operations
}

/// An operation that runs a command and hands its streams through.
fn streaming(operation: Operation) -> Operation {
    operation
        .streams(Streaming::Both)
        .input_channel(CHANNEL_CONTROL, "control")
        .output_channel(CHANNEL_STDERR, "stderr")
}

fn exec() -> Operation {
    let exec = Operation::new("exec", "runs a command with the input as its standard input");
    streaming(exec).runs_programs().args::<ExecArgs>()
}

fn named(name: &str, command: &CommandSettings, settings: &ShellSettings) -> Operation {
    let summary = match command.summary.as_str() {
        "" => format!("runs {}", command.argv.join(" ")),
        summary => summary.to_owned(),
    };
    let operation = streaming(Operation::new(name.to_owned(), summary)).args_schema(schema(command, settings));
    if command.read_only { operation } else { operation.runs_programs() }
}

/// The arguments of a named command: its parameters, and what every command takes.
fn schema(command: &CommandSettings, settings: &ShellSettings) -> Schema {
    let parameters = command.parameters.iter();
    let mut properties: Map<String, Value> =
        parameters.clone().map(|(name, parameter)| (name.clone(), parameter.schema())).collect();
    if command.allows_pty(settings) {
        let mut pty = schema_of::<PtyArgs>();
        pty.insert("description".to_owned(), "a terminal of this size instead of pipes".into());
        properties.insert("pty".to_owned(), pty.into());
    }
    if settings.jobs_max > 0 {
        let summary = "end the call at once and let the command run; see the operation jobs";
        properties.insert("detach".to_owned(), json!({ "type": "boolean", "default": false, "description": summary }));
    }
    let required: Vec<&String> =
        parameters.filter(|(_, parameter)| parameter.is_required()).map(|(name, _)| name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("required".to_owned(), json!(required));
    schema.insert("additionalProperties".to_owned(), false.into());
    schema.into()
}

fn schema_of<T: JsonSchema>() -> Map<String, Value> {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let Value::Object(mut schema) = settings.into_generator().into_root_schema_for::<T>().to_value() else {
        return Map::new();
    };
    schema.remove("title");
    schema
}

/// What there is for commands that outlive their calls.
fn of_jobs(has_effects: bool) -> Vec<Operation> {
    let jobs = Operation::new("jobs", "lists the commands that run detached, and those that ended lately, a line each");
    let logs = Operation::new("logs", "sends what a job has printed, and what it prints");
    let attach = Operation::new("attach", "joins a job: what it prints from now on, and input for it");
    let kill = Operation::new("kill", "ends a job, or sends it a signal");
    let attach = streaming(attach).args::<JobArgs>();
    let kill = kill.args::<KillArgs>();
    let (attach, kill) = if has_effects { (attach.has_effects(), kill.has_effects()) } else { (attach, kill) };
    vec![
        jobs.streams(Streaming::Server).args::<JobsArgs>(),
        logs.streams(Streaming::Server).output_channel(CHANNEL_STDERR, "stderr").args::<LogsArgs>(),
        attach,
        kill,
    ]
}
