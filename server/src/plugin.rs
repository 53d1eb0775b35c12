//! The plugins of a running server, and how a command finds one of their operations.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plugd_core::{Caller, Code, Context, Handler, Operation, Origin, Registry, StartError, Status, did_you_mean};

use crate::access::Access;
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
    /// Who may call it; `None` means everybody.
    access: Option<Arc<Access>>,
}

impl Plugin {
    pub(crate) fn new(
        name: &str,
        handler: Arc<dyn Handler>,
        operations: &[Operation],
        deadline_max: Option<Duration>,
    ) -> Plugin {
        let operations = operations.iter().map(|operation| (operation.name().into(), operation.clone())).collect();
        Plugin { name: name.into(), handler, operations, deadline_max, access: None }
    }

    fn guarded_by(self, access: Option<Arc<Access>>) -> Plugin {
        Plugin { access, ..self }
    }

    /// Whether there is anything that `caller` may call.
    fn is_known_to(&self, caller: &Caller) -> bool {
        self.access.as_ref().is_none_or(|access| access.admits_any(caller))
    }

    fn admits(&self, operation: &str, caller: &Caller) -> bool {
        self.access.as_ref().is_none_or(|access| access.admits(operation, caller))
    }

    /// The operation of this name; without a name, the only one there is. What `caller` may not call is not there.
    fn operation(&self, name: Option<&str>, caller: &Caller) -> Result<&(Arc<str>, Operation), Status> {
        let mut known = self.operations.iter().filter(|(known, _)| self.admits(known, caller));
        let found = match name {
            Some(name) => {
                let found = self.operations.iter().find(|(known, _)| **known == *name);
                found.filter(|(known, _)| self.admits(known, caller))
            }
            None => known.next().filter(|_| known.next().is_none()),
        };
        found.ok_or_else(|| {
            let is_hidden = name.is_some_and(|name| self.operations.iter().any(|(known, _)| **known == *name));
            self.unknown_operation(name, caller).with_origin(origin(is_hidden))
        })
    }

    fn unknown_operation(&self, name: Option<&str>, caller: &Caller) -> Status {
        let others = self.operations.iter().map(|(known, _)| &**known).filter(|known| Some(*known) != name);
        let known: Vec<&str> = others.filter(|known| self.admits(known, caller)).collect();
        let known = || known.iter().copied();
        let asked = match name {
            Some(name) => format!("no operation {name:?} in plugin \"{}\"{}", self.name, did_you_mean(name, known())),
            None => format!("plugin \"{}\" has several operations; name one", self.name),
        };
        not_found("unknown-operation", format!("{asked}; available: {}", listed(known())))
    }
}

/// Every plugin that can be called, and the names of those that cannot with who may know of them.
pub(crate) struct Plugins {
    enabled: BTreeMap<Arc<str>, Plugin>,
    disabled: BTreeMap<String, Option<Arc<Access>>>,
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
        let mut disabled = BTreeMap::new();
        let mut catalogue = introspection::Catalogue::default();
        for config in configs {
            let access = config.access.map(Arc::new);
            let Some(descriptor) = registry.handler(&config.handler).filter(|_| config.enabled) else {
                disabled.insert(config.name, access);
                continue;
            };
            let operations = config.blueprint.operations().to_vec();
            catalogue.add(&config.name, descriptor, &operations, access.clone());
            let handler = config.blueprint.build(context).map_err(|error| (config.name.clone(), error))?;
            let plugin = Plugin::new(&config.name, handler, &operations, config.deadline_max).guarded_by(access);
            enabled.insert(plugin.name.clone(), plugin);
        }
        let itself = introspection::plugin(catalogue);
        enabled.insert(itself.name.clone(), itself);
        Ok(Plugins { enabled, disabled, linked: registry.names().collect() })
    }

    /// Finds what `PLUGIN` or `PLUGIN.OPERATION` names, as far as `caller` may call it. What it may not call is answered as
    /// if it were not there, so that nobody can ask for names; only the origin, [`Origin::Access`], tells the log the
    /// difference.
    ///
    /// # Errors
    ///
    /// `not_found`, with a reason that tells a misspelt plugin, a disabled one, a handler that this program lacks and
    /// an unknown operation apart, and with what would be accepted.
    pub(crate) fn find(&self, command: &str, caller: &Caller) -> Result<Route<'_>, Status> {
        let dot = command.bytes().position(|byte| byte == b'.');
        let (name, operation) = dot.map_or((command, None), |dot| (&command[..dot], Some(&command[dot + 1..])));
        let found = self.enabled.get(name);
        let Some(plugin) = found.filter(|plugin| plugin.is_known_to(caller)) else {
            return Err(self.unknown_plugin(name, caller).with_origin(origin(found.is_some())));
        };
        let (operation_name, operation) = plugin.operation(operation, caller)?;
        Ok(Route { plugin, operation_name, operation })
    }

    fn unknown_plugin(&self, name: &str, caller: &Caller) -> Status {
        // A plugin of this name was looked at already: each rule is looked at once, whether it is there or not.
        let others = self.enabled.iter().filter(|(known, _)| ***known != *name && ***known != *RESERVED);
        let known: Vec<&str> =
            others.filter(|(_, plugin)| plugin.is_known_to(caller)).map(|(known, _)| &**known).collect();
        let available = listed(known.iter().copied());
        let is_known = |access: &Option<Arc<Access>>| access.as_ref().is_none_or(|access| access.admits_any(caller));
        if self.disabled.get(name).is_some_and(is_known) {
            let text = format!("plugin \"{name}\" is disabled on this server; available: {available}");
            return not_found("plugin-disabled", text);
        }
        if SHIPPED.contains(&name) && !self.linked.contains(&name) {
            let text = format!("handler \"{name}\" is not linked into this server; available: {available}");
            return not_found("handler-not-linked", text);
        }
        let hint = did_you_mean(name, known);
        not_found("unknown-plugin", format!("no plugin {name:?}{hint}; available: {available}"))
    }
}

/// Who says that something is not there: of what is there, a rule of access does. The log shows it, the caller never sees it.
fn origin(is_hidden: bool) -> Origin {
    if is_hidden { Origin::Access } else { Origin::Server }
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
