//! `plugd describe`: what a plugin or a handler offers, for people or for programs.

use plugd_core::{Registry, allowed_values, did_you_mean};
use serde_json::Value;

use super::{Failure, print};
use crate::config::{Config, ConfigErrors, Origin};
use crate::introspection;

/// Describes the plugin `name`, or the handler of that name. A broken configuration hides plugins, not handlers.
pub(super) fn describe(
    origin: Result<Origin, ConfigErrors>,
    registry: &Registry,
    name: &str,
    json: bool,
) -> Result<(), Failure> {
    let config = origin.and_then(|origin| Config::parse(&origin, registry, &[]));
    let plugin = config.as_ref().ok().and_then(|config| config.plugins.iter().find(|plugin| plugin.name == name));
    let handler = plugin.map_or(name, |plugin| plugin.handler.as_str());
    let Some(descriptor) = registry.handler(handler) else {
        let config = config?;
        let plugins = config.plugins.iter().map(|plugin| plugin.name.as_str());
        let known: Vec<&str> = plugins.chain(registry.handlers().map(|handler| handler.name())).collect();
        let hint = did_you_mean(name, known);
        return Err(Failure::Refused(format!("no plugin and no handler {name:?}{hint}")));
    };
    let operations = plugin.map_or(descriptor.operations(), |plugin| plugin.operations());
    let description = introspection::describe(name, descriptor, operations);
    if json {
        return print(&format!("{description:#}\n"));
    }
    print(&text(&description))
}

fn text(description: &Value) -> String {
    let of = |key: &str| description[key].as_str().unwrap_or_default();
    let mut text = format!("{} (handler {}, {} {})\n", of("name"), of("handler"), of("package"), of("version"));
    text += &format!("  {}\n", of("summary"));
    text += &properties("settings", &description["settings"], "  ");
    for operation in description["operations"].as_array().into_iter().flatten() {
        let of = |key: &str| operation[key].as_str().unwrap_or_default();
        let effects = if operation["effects"] == true { ", changes or runs things" } else { "" };
        text += &format!("\n  {}: {}\n    streams: {}{effects}\n", of("name"), of("summary"), of("streaming"));
        for channel in operation["channels"].as_array().into_iter().flatten() {
            let of = |key: &str| channel[key].as_str().unwrap_or_default();
            text += &format!("    channel {}: {} ({})\n", channel["number"], of("name"), of("direction"));
        }
        text += &properties("arguments", &operation["args"], "    ");
    }
    text
}

/// The properties of a schema, a line each: name, what is allowed, default, meaning.
fn properties(title: &str, schema: &Value, indent: &str) -> String {
    let Some(properties) = schema["properties"].as_object().filter(|properties| !properties.is_empty()) else {
        return String::new();
    };
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut text = format!("{indent}{title}:\n");
    for (name, property) in properties {
        let default = match property.get("default").filter(|default| !default.is_null()) {
            Some(default) => format!("; default {default}"),
            None if required.contains(&name.as_str()) => "; required".to_owned(),
            None => String::new(),
        };
        let meaning = property["description"].as_str().unwrap_or_default();
        text += &format!("{indent}  {name} ({}{default}): {meaning}\n", allowed_values(property));
    }
    text
}
