//! The JSON Schema of a whole configuration: the sections as they are read, and in each plugin the settings of its handler.

use plugd_core::{Descriptor, LayerDescriptor, NAME_LEN_MAX, Registry};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::RESERVED;
use super::section::{PluginSection, ServerSection};
use crate::identity::TokenSection;

/// The schema (draft 2020-12) of every configuration that the handlers of `registry` can serve.
///
/// What no schema can say, such as that an address is free or a number within a bound that depends on another, is left to
/// `plugd check`.
pub(crate) fn schema(registry: &Registry) -> Value {
    let mut parts = Map::new();
    for handler in registry.handlers() {
        parts.insert(handler.name().to_owned(), plugin(handler, registry));
    }
    let any = choice(registry.handlers().map(|handler| named(handler.name())).collect());
    let own = |name: &str| {
        let others = registry.handlers().filter(|handler| handler.name() != name).map(|handler| named(handler.name()));
        choice([json!({ "$ref": format!("#/$defs/{name}") })].into_iter().chain(others).collect())
    };
    let plugins: Map<String, Value> =
        registry.handlers().map(|handler| (handler.name().to_owned(), own(handler.name()))).collect();
    let name = format!("^[a-z][a-z0-9_-]{{0,{}}}$", NAME_LEN_MAX - 1);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "plugins.toml",
        "description": "What plugd serves.",
        "type": "object",
        "additionalProperties": false,
        "required": ["plugins"],
        "properties": {
            "server": server(registry),
            "layers": layers(registry),
            "groups": {
                "description": "Lists of callers by name, for the rules of access.",
                "type": "object",
                "propertyNames": { "pattern": name },
                "additionalProperties": { "type": "array", "items": { "type": "string" } },
            },
            "tokens": {
                "description": "What callers may prove themselves with, by name.",
                "type": "object",
                "propertyNames": { "pattern": name },
                "additionalProperties": section::<TokenSection>(),
            },
            "plugins": {
                "description": "The plugins, each a table of its own.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {
                    "pattern": name,
                    "not": { "const": RESERVED },
                },
                "properties": plugins,
                "additionalProperties": any,
            },
        },
        "$defs": parts,
    })
}

fn server(registry: &Registry) -> Value {
    let mut section = section::<ServerSection>();
    section["properties"]["layers"]["items"] = layer_names(registry);
    // It is another one on every machine.
    if let Some(workers) = section["properties"]["workers"].as_object_mut() {
        workers.remove("default");
    }
    section
}

fn layer_names(registry: &Registry) -> Value {
    json!({ "enum": registry.layers().map(LayerDescriptor::name).collect::<Vec<_>>() })
}

fn layers(registry: &Registry) -> Value {
    let settings = |layer: &LayerDescriptor| {
        let mut settings = layer.settings_schema().as_value().clone();
        clean(&mut settings);
        settings["description"] = layer.summary().into();
        (layer.name().to_owned(), settings)
    };
    json!({
        "description": "The settings of layers, each a table of its own.",
        "type": "object",
        "additionalProperties": false,
        "properties": registry.layers().map(settings).collect::<Map<String, Value>>(),
    })
}

/// A plugin that says which handler it has.
fn named(handler: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{handler}"), "required": ["handler"] })
}

fn choice(mut alternatives: Vec<Value>) -> Value {
    if alternatives.len() == 1 { alternatives.remove(0) } else { json!({ "oneOf": alternatives }) }
}

/// A section of a plugin with this handler.
fn plugin(handler: &Descriptor, registry: &Registry) -> Value {
    let mut section = section::<PluginSection>();
    section["properties"]["layers"]["items"] = layer_names(registry);
    let mut settings = handler.describe()["settings"].take();
    clean(&mut settings);
    if settings["required"].as_array().is_some_and(|required| !required.is_empty()) {
        section["required"] = json!(["config"]);
    }
    section["title"] = format!("a plugin of the handler {}", handler.name()).into();
    section["description"] = handler.summary().into();
    section["properties"]["handler"] = json!({ "const": handler.name(), "description": handler.summary() });
    section["properties"]["config"] = settings;
    section
}

fn section<S: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<S>().to_value();
    clean(&mut schema);
    schema
}

/// What only the root of a schema has, and the names of our types, which say nothing to an operator. A struct allows what it
/// names and no more.
fn clean(schema: &mut Value) {
    if let Value::Object(members) = schema {
        members.remove("$schema");
        members.remove("title");
        if members.contains_key("properties") || members.get("type") == Some(&"object".into()) {
            members.entry("additionalProperties").or_insert(false.into());
        }
    }
}
