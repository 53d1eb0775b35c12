//! The reserved plugin `plugd`, under which the server answers for itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use plugd_core::{Call, Caller, Descriptor, Handler, Layer, Metrics, Operation, Rights, Status, did_you_mean};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::access::Access;
use crate::config::RESERVED;
use crate::plugin::Plugin;

/// What can be called, described for those who may call it.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    plugins: BTreeMap<String, Described>,
}

#[derive(Debug)]
struct Described {
    description: Value,
    access: Option<Arc<Access>>,
}

impl Described {
    /// The description as far as `caller` may call what it describes; `None` when that is nothing.
    fn seen_by(&self, caller: &Caller) -> Option<Cow<'_, Value>> {
        let Some(access) = &self.access else { return Some(Cow::Borrowed(&self.description)) };
        let mut description = self.description.clone();
        let operations = description["operations"].as_array_mut()?;
        operations.retain(|operation| operation["name"].as_str().is_some_and(|name| access.admits(name, caller)));
        (!operations.is_empty()).then_some(Cow::Owned(description))
    }
}

impl Catalogue {
    pub(crate) fn add(
        &mut self,
        plugin: &str,
        descriptor: &Descriptor,
        operations: &[Operation],
        access: Option<Arc<Access>>,
    ) {
        let description = describe(plugin, descriptor, operations);
        self.plugins.insert(plugin.to_owned(), Described { description, access });
    }

    /// The list that everybody gets; `None` when it depends on the caller.
    fn common_list(&self) -> Option<String> {
        let is_open = self.plugins.values().all(|described| described.access.is_none());
        is_open.then(|| list(self.plugins.values().map(|described| &described.description)).to_string())
    }

    fn list_for(&self, caller: &Caller) -> Value {
        let seen: Vec<Cow<'_, Value>> =
            self.plugins.values().filter_map(|described| described.seen_by(caller)).collect();
        list(seen.iter().map(|description| &**description))
    }

    /// Whether `caller` may call what the labels of a count name, if they name a plugin.
    fn is_known_to(&self, labels: &[(&'static str, String)], caller: &Caller) -> bool {
        let label = |name| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_str());
        let Some(plugin) = label("plugin") else { return true };
        let Some(Described { access, .. }) = self.plugins.get(plugin) else { return false };
        access.as_ref().is_none_or(|access| match label("operation") {
            Some(operation) => access.admits(operation, caller),
            None => access.admits_any(caller),
        })
    }

    fn describe_for(&self, name: &str, caller: &Caller) -> Result<Cow<'_, Value>, Status> {
        self.plugins.get(name).and_then(|described| described.seen_by(caller)).ok_or_else(|| {
            let is_open = |access: &Option<Arc<Access>>| access.as_ref().is_none_or(|access| access.admits_any(caller));
            let known = self.plugins.iter().filter(|(_, described)| is_open(&described.access));
            let hint = did_you_mean(name, known.map(|(name, _)| name.as_str()));
            Status::not_found("unknown-plugin", format!("no plugin {name:?}{hint}"))
        })
    }
}

fn list<'d>(descriptions: impl Iterator<Item = &'d Value> + Clone) -> Value {
    let hash = hash(descriptions.clone());
    let plugins: Vec<Value> = descriptions.map(summarise).collect();
    json!({ "server": "plugd", "version": env!("CARGO_PKG_VERSION"), "hash": hash, "plugins": plugins })
}

/// Another one as soon as anything in a description is another: what a client remembers holds as long as this does. Of what
/// a caller may not call it tells nothing.
fn hash<'d>(descriptions: impl Iterator<Item = &'d Value>) -> String {
    let mut hasher = blake3::Hasher::new();
    for description in descriptions {
        // Members are sorted, so that equal descriptions are equal texts.
        hasher.update(description.to_string().as_bytes());
    }
    hasher.finalize().to_hex().to_string()
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
    catalogue.add(RESERVED, &descriptor, descriptor.operations(), None);
    let handler = Arc::new(Introspection { list: catalogue.common_list(), catalogue, layers: unique(layers) });
    Plugin::own(RESERVED, handler, descriptor.operations())
}

fn descriptor() -> Descriptor {
    Descriptor::new(RESERVED, "answers for the server itself")
        .operation(Operation::new("list", "lists every plugin that can be called, with its operations"))
        .operation(Operation::new("describe", "describes one plugin with its arguments").args::<DescribeArgs>())
        .operation(Operation::new("metrics", "tells what the layers have counted").args::<MetricsArgs>())
        .operation(Operation::new("ping", "answers, and that is all"))
        .operation(Operation::new("whoami", "tells who the caller is to the server"))
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
    /// The answer to `list`, when it is the same for everybody.
    list: Option<String>,
    catalogue: Catalogue,
    layers: Vec<Arc<dyn Layer>>,
}

impl Introspection {
    /// What was counted, of plugins that `caller` may not call nothing.
    fn metrics(&self, format: &MetricsFormat, caller: &Caller) -> String {
        let mut metrics = Metrics::default();
        for layer in &self.layers {
            layer.measure(&mut metrics);
        }
        // A plugin that is gone since may have been one that this caller was not to know of.
        metrics.retain(|labels| self.catalogue.is_known_to(labels, caller));
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
            "list" => {
                let list = self.list.clone().unwrap_or_else(|| self.catalogue.list_for(call.caller()).to_string());
                call.send(list).await
            }
            "describe" => {
                let args: DescribeArgs = call.args()?;
                let mut description = self.catalogue.describe_for(&args.name, call.caller())?.into_owned();
                description["hash"] = hash(std::iter::once(&description)).into();
                call.send(description.to_string()).await
            }
            "metrics" => {
                let args: MetricsArgs = call.args()?;
                call.send(self.metrics(&args.format, call.caller())).await
            }
            "whoami" => {
                let Caller { peer, principal, .. } = call.caller();
                let known = json!({
                    "peer": peer.to_string(),
                    "uid": principal.uid(),
                    "certificate_names": principal.certificate_names(),
                    "token": principal.token(),
                });
                call.set_trailer(&known)
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
            catalogue.add("a", &descriptor, &[Operation::new("run", "runs").args_schema(args)], None);
            catalogue.list_for(&Caller::new(plugd_core::Peer::Memory))["hash"].as_str().expect("a text").to_owned()
        };
        let most = |most: u32| hash(json_schema!({ "type": "object", "properties": { "n": { "maximum": most } } }));
        assert_eq!(most(1), most(1));
        assert_ne!(most(1), most(2));
    }
}
