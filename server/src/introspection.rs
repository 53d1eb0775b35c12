//! The reserved plugin `plugd`, under which the server answers for itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use plugd_core::{Call, Descriptor, Handler, Layer, Metrics, Operation, Status, did_you_mean};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::RESERVED;
use crate::plugin::Plugin;

/// What can be called, described.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    plugins: BTreeMap<String, Value>,
}

impl Catalogue {
    pub(crate) fn add(&mut self, plugin: &str, descriptor: &Descriptor, operations: &[Operation]) {
        self.plugins.insert(plugin.to_owned(), describe(plugin, descriptor, operations));
    }

    fn list(&self) -> Value {
        let plugins: Vec<Value> = self.plugins.values().map(summarise).collect();
        json!({ "server": "plugd", "version": env!("CARGO_PKG_VERSION"), "hash": self.hash(), "plugins": plugins })
    }

    /// Another one as soon as anything in a description is another: what a client remembers holds as long as this does.
    fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for description in self.plugins.values() {
            // Members are sorted, so that equal descriptions are equal texts.
            hasher.update(description.to_string().as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn describe(&self, name: &str) -> Result<&Value, Status> {
        self.plugins.get(name).ok_or_else(|| {
            let known = self.plugins.keys().map(String::as_str);
            let hint = did_you_mean(name, known);
            Status::not_found("unknown-plugin", format!("no plugin {name:?}{hint}"))
        })
    }
}

/// The description of a handler as it serves `operations` under the name `plugin`.
pub(crate) fn describe(plugin: &str, descriptor: &Descriptor, operations: &[Operation]) -> Value {
    let mut description = descriptor.describe_with(operations);
    description["name"] = plugin.into();
    description
}

/// What a list shows of a description: no schemas, no channels.
fn summarise(description: &Value) -> Value {
    let operations = description["operations"].as_array().into_iter().flatten();
    let operations: Vec<Value> = operations
        .map(|operation| {
            json!({
                "name": operation["name"],
                "summary": operation["summary"],
                "streaming": operation["streaming"],
                "effects": operation["effects"],
            })
        })
        .collect();
    json!({
        "name": description["name"],
        "handler": description["handler"],
        "summary": description["summary"],
        "operations": operations,
    })
}

/// Builds the plugin that answers for the server.
pub(crate) fn plugin(mut catalogue: Catalogue, layers: Vec<Arc<dyn Layer>>) -> Plugin {
    let descriptor = descriptor();
    catalogue.add(RESERVED, &descriptor, descriptor.operations());
    let handler = Arc::new(Introspection { list: catalogue.list().to_string(), catalogue, layers: unique(layers) });
    Plugin::own(RESERVED, handler, descriptor.operations())
}

fn descriptor() -> Descriptor {
    Descriptor::new(RESERVED, "answers for the server itself")
        .operation(Operation::new("list", "lists every plugin that can be called, with its operations"))
        .operation(Operation::new("describe", "describes one plugin with its arguments").args::<DescribeArgs>())
        .operation(Operation::new("metrics", "tells what the layers have counted").args::<MetricsArgs>())
        .operation(Operation::new("ping", "answers, and that is all"))
}

/// The arguments of `plugd.describe`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DescribeArgs {
    /// The plugin to describe.
    name: String,
}

/// The arguments of `plugd.metrics`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct MetricsArgs {
    /// How they are told.
    format: MetricsFormat,
}

impl Default for MetricsArgs {
    fn default() -> MetricsArgs {
        MetricsArgs { format: MetricsFormat::Json }
    }
}

/// How counts are told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum MetricsFormat {
    /// One JSON object.
    Json,
    /// The text exposition format of Prometheus.
    Prometheus,
}

struct Introspection {
    list: String,
    catalogue: Catalogue,
    layers: Vec<Arc<dyn Layer>>,
}

impl Introspection {
    fn metrics(&self, format: &MetricsFormat) -> String {
        let mut metrics = Metrics::default();
        for layer in &self.layers {
            layer.measure(&mut metrics);
        }
        match format {
            MetricsFormat::Json => metrics.to_json().to_string(),
            MetricsFormat::Prometheus => metrics.to_prometheus(),
        }
    }
}

/// Each layer once, though it stands around several plugins.
fn unique(layers: Vec<Arc<dyn Layer>>) -> Vec<Arc<dyn Layer>> {
    let mut found: Vec<Arc<dyn Layer>> = Vec::new();
    for layer in layers {
        if !found.iter().any(|known| Arc::ptr_eq(known, &layer)) {
            found.push(layer);
        }
    }
    found
}

#[async_trait]
impl Handler for Introspection {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        match call.operation() {
            "list" => call.send(self.list.clone()).await,
            "describe" => {
                let args: DescribeArgs = call.args()?;
                call.send(self.catalogue.describe(&args.name)?.to_string()).await
            }
            "metrics" => {
                let args: MetricsArgs = call.args()?;
                call.send(self.metrics(&args.format)).await
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use schemars::json_schema;

    use super::*;

    #[test]
    fn the_hash_tells_any_other_description() {
        let hash = |args| {
            let mut catalogue = Catalogue::default();
            let descriptor = descriptor();
            catalogue.add("a", &descriptor, &[Operation::new("run", "runs").args_schema(args)]);
            catalogue.list()["hash"].as_str().expect("a text").to_owned()
        };
        let most = |most: u32| hash(json_schema!({ "type": "object", "properties": { "n": { "maximum": most } } }));
        assert_eq!(most(1), most(1));
        assert_ne!(most(1), most(2));
    }
}
