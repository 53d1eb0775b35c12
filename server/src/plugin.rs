//! The plugins of a running server, and how a command finds one of their operations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plugd_core::{Code, Context, Handler, Operation, Origin, Registry, StartError, Status, did_you_mean};

use crate::config::{PluginConfig, RESERVED};
use crate::handlers::SHIPPED;
use crate::introspection;

/// The most names that one message lists; more would drown what it says.
const NAMES_LISTED_MAX: usize = 20;

/// A plugin that was built.
pub(crate) struct Plugin {
    pub(crate) name: Arc<str>,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) operations: Vec<(Arc<str>, Operation)>,
    pub(crate) deadline_max: Option<Duration>,
}

impl Plugin {
    pub(crate) fn new(
        name: &str,
        handler: Arc<dyn Handler>,
        operations: &[Operation],
        deadline_max: Option<Duration>,
    ) -> Plugin {
        let operations = operations.iter().map(|operation| (operation.name().into(), operation.clone())).collect();
        Plugin { name: name.into(), handler, operations, deadline_max }
    }

    /// The operation of this name; without a name, the only one there is.
    fn operation(&self, name: Option<&str>) -> Result<&(Arc<str>, Operation), Status> {
        let found = match name {
            Some(name) => self.operations.iter().find(|(known, _)| **known == *name),
            None => self.operations.first().filter(|_| self.operations.len() == 1),
        };
        found.ok_or_else(|| self.unknown_operation(name))
    }

    fn unknown_operation(&self, name: Option<&str>) -> Status {
        let known = || self.operations.iter().map(|(name, _)| &**name);
        let asked = match name {
            Some(name) => format!("no operation {name:?} in plugin \"{}\"{}", self.name, did_you_mean(name, known())),
            None => format!("plugin \"{}\" has several operations; name one", self.name),
        };
        not_found("unknown-operation", format!("{asked}; available: {}", listed(known())))
    }
}

/// Every plugin that can be called, and the names of those that cannot.
pub(crate) struct Plugins {
    enabled: BTreeMap<Arc<str>, Plugin>,
    disabled: Vec<String>,
    linked: Vec<&'static str>,
}

/// A command that was found.
#[derive(Clone, Copy)]
pub(crate) struct Route<'a> {
    pub(crate) plugin: &'a Plugin,
    pub(crate) operation_name: &'a Arc<str>,
    pub(crate) operation: &'a Operation,
}

impl Plugins {
    /// Builds every enabled plugin, in the order of the names, and the server's own.
    pub(crate) fn build(
        configs: Vec<PluginConfig>,
        registry: &Registry,
        context: &Context,
    ) -> Result<Plugins, (String, StartError)> {
        let mut enabled = BTreeMap::new();
        let mut disabled = Vec::new();
        let mut catalogue = introspection::Catalogue::default();
        for config in configs {
            let Some(descriptor) = registry.handler(&config.handler).filter(|_| config.enabled) else {
                disabled.push(config.name);
                continue;
            };
            let operations = config.blueprint.operations().to_vec();
            catalogue.add(&config.name, descriptor, &operations);
            let handler = config.blueprint.build(context).map_err(|error| (config.name.clone(), error))?;
            let plugin = Plugin::new(&config.name, handler, &operations, config.deadline_max);
            enabled.insert(plugin.name.clone(), plugin);
        }
        let itself = introspection::plugin(catalogue);
        enabled.insert(itself.name.clone(), itself);
        Ok(Plugins { enabled, disabled, linked: registry.names().collect() })
    }

    /// Finds what `PLUGIN` or `PLUGIN.OPERATION` names.
    ///
    /// # Errors
    ///
    /// `not_found`, with a reason that tells a misspelt plugin, a disabled one, a handler that this program lacks and
    /// an unknown operation apart, and with what would be accepted.
    pub(crate) fn find(&self, command: &str) -> Result<Route<'_>, Status> {
        let dot = command.bytes().position(|byte| byte == b'.');
        let (name, operation) = dot.map_or((command, None), |dot| (&command[..dot], Some(&command[dot + 1..])));
        let plugin = self.enabled.get(name).ok_or_else(|| self.unknown_plugin(name))?;
        let (operation_name, operation) = plugin.operation(operation)?;
        Ok(Route { plugin, operation_name, operation })
    }

    fn unknown_plugin(&self, name: &str) -> Status {
        let callable = || self.enabled.keys().map(|name| &**name).filter(|name| *name != RESERVED);
        let available = listed(callable());
        if self.disabled.iter().any(|disabled| disabled == name) {
            let text = format!("plugin \"{name}\" is disabled on this server; available: {available}");
            return not_found("plugin-disabled", text);
        }
        if SHIPPED.contains(&name) && !self.linked.contains(&name) {
            let text = format!("handler \"{name}\" is not linked into this server; available: {available}");
            return not_found("handler-not-linked", text);
        }
        let hint = did_you_mean(name, callable());
        not_found("unknown-plugin", format!("no plugin {name:?}{hint}; available: {available}"))
    }
}

fn not_found(reason: &'static str, message: String) -> Status {
    Status::new(Code::NotFound, reason, message).with_origin(Origin::Server)
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.get(NAMES_LISTED_MAX..) {
        Some(rest) if !rest.is_empty() => {
            format!("{} and {} more", names[..NAMES_LISTED_MAX].join(", "), rest.len())
        }
        _ if names.is_empty() => "nothing".to_owned(),
        _ => names.join(", "),
    }
}
