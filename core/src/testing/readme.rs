//! The tables of a handler's README, made from what the handler says of itself.

use std::path::Path;

use serde_json::Value;

use crate::{Descriptor, Operation, Registry, allowed_values};

/// The variable that makes [`check_readme`] write.
const UPDATE: &str = "PLUGD_UPDATE_README";

/// Checks that the README of a handler of this program tells its settings and operations as they are: the tables that stand
/// between `<!-- settings -->` and `<!-- /settings -->`, and between `<!-- operations -->` and `<!-- /operations -->`.
///
/// With `PLUGD_UPDATE_README=1` in the environment it writes them there instead.
///
/// ```no_run
/// plugd_core::testing::check_readme("echo", concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"));
/// ```
///
/// # Panics
///
/// When a table is not as it should be, the marks are missing, or no such handler is linked.
pub fn check_readme(handler: &str, path: impl AsRef<Path>) {
    let path = path.as_ref();
    let registry = Registry::linked().expect("a sound registry");
    let descriptor = registry.handler(handler).unwrap_or_else(|| panic!("no handler {handler:?} is linked"));
    let before = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let with_settings = put(&before, "settings", &settings(descriptor));
    let after = put(&with_settings, "operations", &operations(descriptor.operations()));
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        std::fs::write(path, after).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let different = before.lines().zip(after.lines()).find(|(before, after)| before != after);
    assert!(
        before == after,
        "{} does not tell what the handler {handler} is; {UPDATE}=1 mends it; first difference: {different:#?}",
        path.display()
    );
}

/// Puts `table` between the marks of `name`.
fn put(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, after) = parts.unwrap_or_else(|| panic!("a README needs the lines {begin:?} and {end:?}"));
    format!("{before}{begin}\n{table}\n{end}{after}")
}

fn settings(descriptor: &Descriptor) -> String {
    let description = descriptor.describe();
    let mut rows = Vec::new();
    collect_settings(&description["settings"], "", &mut rows);
    table(["setting", "allowed", "default", "meaning"], rows, "None.")
}

/// A row for each setting, and for each within it: `outer.inner`, `outer.NAME.inner` in a map, `outer[].inner` in a list.
fn collect_settings(schema: &Value, prefix: &str, rows: &mut Vec<[String; 4]>) {
    for property in properties(schema) {
        let name = format!("{prefix}{}", property.name);
        let default = match (property.is_required, property.default) {
            (true, _) => "required".to_owned(),
            (false, Some(default)) => format!("`{default}`"),
            (false, None) => "none".to_owned(),
        };
        rows.push([format!("`{name}`"), allowed_values(property.schema), default, meaning(property.schema)]);
        for (parts, between) in [
            (property.schema, "."),
            (&property.schema["additionalProperties"], ".NAME."),
            (&property.schema["items"], "[]."),
        ] {
            for schema in alternatives(parts) {
                collect_settings(schema, &format!("{name}{between}"), rows);
            }
        }
    }
}

/// The schemas of which one holds.
fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let several = schema["anyOf"].as_array().or(schema["oneOf"].as_array());
    std::iter::once(schema).chain(several.into_iter().flatten())
}

fn operations(operations: &[Operation]) -> String {
    let rows = operations.iter().map(|operation| {
        let arguments = properties(operation.args_schema_value()).into_iter().map(|property| match property.default {
            _ if property.is_required => format!("**`{}`**", property.name),
            Some(default) => format!("`{}` (`{default}`)", property.name),
            None => format!("`{}`", property.name),
        });
        let arguments: Vec<String> = arguments.collect();
        let effects = if operation.effects() { "yes" } else { "no" };
        let streams = operation.streaming().name();
        [
            format!("`{}`", operation.name()),
            streams.to_owned(),
            effects.to_owned(),
            or_none(arguments),
            operation.summary().to_owned(),
        ]
    });
    table(["operation", "streams", "effects", "arguments", "meaning"], rows.collect(), "None.")
}

fn or_none(texts: Vec<String>) -> String {
    if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
}

struct Property<'a> {
    name: &'a str,
    schema: &'a Value,
    default: Option<&'a Value>,
    is_required: bool,
}

/// The properties of a schema, those that are required first.
fn properties(schema: &Value) -> Vec<Property<'_>> {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let properties = schema["properties"].as_object().into_iter().flatten();
    let mut properties: Vec<Property<'_>> = properties
        .map(|(name, schema)| Property {
            name,
            schema,
            default: schema.get("default").filter(|default| !default.is_null()),
            is_required: required.contains(&name.as_str()),
        })
        .collect();
    properties.sort_by_key(|property| !property.is_required);
    properties
}

/// The doc comment, as one line.
fn meaning(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: Vec<[String; COLUMNS]>, without_rows: &str) -> String {
    if rows.is_empty() {
        return format!("{without_rows}\n");
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let escaped = |row: &[String; COLUMNS]| line(&row.each_ref().map(|cell| cell.replace('|', "\\|")));
    line(&head.map(str::to_owned))
        + &line(&head.map(|_| "---".to_owned()))
        + &rows.iter().map(escaped).collect::<String>()
}
