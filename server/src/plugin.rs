//! The plugins of a running server, and how a command finds one of their operations.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use plugd_core::{
    Caller, Code, Context, Handler, Layer, Operation, Origin, PluginFacts, Registry, Rights, StartError, Status,
    Stopped, did_you_mean,
};
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, warn};

use crate::access::Access;
use crate::config::{PluginConfig, RESERVED};
use crate::handlers::SHIPPED;
use crate::identity::Tokens;
use crate::introspection;
use crate::layers::Layers;

/// The most names that one message lists; more would drown what it says.
const NAMES_LISTED_MAX: usize = 20;

/// A plugin that was built.
pub(crate) struct Plugin {
    pub(crate) name: Arc<str>,
    /// The handler, within those that layers put around it.
    pub(crate) handler: Arc<dyn Handler>,
    /// What stands around it, the outermost first.
    pub(crate) layers: Vec<Arc<dyn Layer>>,
    pub(crate) operations: Vec<(Arc<str>, Operation)>,
    pub(crate) deadline_max: Option<Duration>,
    instance: Instance,
    /// What it was built from, to tell whether it would be built otherwise; `None` for the server's own.
    source: Option<Value>,
    /// Cancelled when nobody can call it any more and no call runs.
    gone: CancellationToken,
    _gone: DropGuard,
}

/// What a plugin's settings built, as far as it has a life of its own.
#[derive(Clone)]
pub(crate) struct Instance {
    handler: Arc<dyn Handler>,
    context: Context,
}

impl Instance {
    /// Tells the handler and its work to stop, and waits for both, for `grace` at most.
    pub(crate) async fn stop(&self, plugin: &str, why: Stopped, grace: Duration) {
        let told = timeout(grace, AssertUnwindSafe(self.handler.stop(why)).catch_unwind());
        let (told, left) = tokio::join!(told, self.context.stop(grace));
        match told {
            Ok(Ok(())) => {}
            Ok(Err(_)) => error!(plugin, "the handler panicked when it was told to stop"),
            Err(_) => warn!(plugin, "the handler did not stop in time"),
        }
        if left > 0 {
            warn!(plugin, left, "work of the handler did not stop in time; dropped");
        }
    }
}

impl Plugin {
    /// The server's own plugin, which has no life and no layers.
    pub(crate) fn own(name: &str, handler: Arc<dyn Handler>, operations: &[Operation]) -> Plugin {
        let instance = Instance { handler: handler.clone(), context: Context::default() };
        Plugin::new(name, handler, Vec::new(), operations, None, instance, None)
    }

    fn new(
        name: &str,
        handler: Arc<dyn Handler>,
        layers: Vec<Arc<dyn Layer>>,
        operations: &[Operation],
        deadline_max: Option<Duration>,
        instance: Instance,
        source: Option<Value>,
    ) -> Plugin {
        let operations = operations.iter().map(|operation| (operation.name().into(), operation.clone())).collect();
        let gone = CancellationToken::new();
        let _gone = gone.clone().drop_guard();
        Plugin { name: name.into(), handler, layers, operations, deadline_max, instance, source, gone, _gone }
    }
}

/// A plugin, and who may call it: a plugin outlives the rule around it.
#[derive(Clone)]
struct Served {
    plugin: Arc<Plugin>,
    /// `None` means everybody.
    access: Option<Arc<Access>>,
}

impl Served {
    /// Whether there is anything that `caller` may call.
    fn is_known_to(&self, caller: &Caller) -> bool {
        self.access.as_ref().is_none_or(|access| access.admits_any(caller))
    }

    fn admits(&self, operation: &str, caller: &Caller) -> bool {
        self.access.as_ref().is_none_or(|access| access.admits(operation, caller))
    }

    /// The operation of this name; without a name, the only one there is. What `caller` may not call is not there.
    fn operation(&self, name: Option<&str>, caller: &Caller) -> Result<usize, Status> {
        let operations = &self.plugin.operations;
        let there = name.and_then(|name| operations.iter().position(|(known, _)| **known == *name));
        let found = match name {
            Some(_) => there.filter(|index| self.admits(&operations[*index].0, caller)),
            None => {
                let mut known = (0..operations.len()).filter(|index| self.admits(&operations[*index].0, caller));
                known.next().filter(|_| known.next().is_none())
            }
        };
        found.ok_or_else(|| self.unknown_operation(name, caller).with_origin(origin(there.is_some())))
    }

    fn unknown_operation(&self, name: Option<&str>, caller: &Caller) -> Status {
        let others = self.plugin.operations.iter().map(|(known, _)| &**known).filter(|known| Some(*known) != name);
        let known: Vec<&str> = others.filter(|known| self.admits(known, caller)).collect();
        let known = || known.iter().copied();
        let plugin = &self.plugin.name;
        let asked = match name {
            Some(name) => format!("no operation {name:?} in plugin \"{plugin}\"{}", did_you_mean(name, known())),
            None => format!("plugin \"{plugin}\" has several operations; name one"),
        };
        not_found("unknown-operation", format!("{asked}; available: {}", listed(known())))
    }
}

/// Every plugin that can be called, and the names of those that cannot, with who may know of them.
pub(crate) struct Plugins {
    enabled: BTreeMap<Arc<str>, Served>,
    disabled: BTreeMap<String, Option<Arc<Access>>>,
    linked: Vec<&'static str>,
    /// What callers prove themselves with; rules name them, so that they change together.
    tokens: Tokens,
}

/// A command that was found. As long as there is one its plugin is not stopped.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) plugin: Arc<Plugin>,
    operation: usize,
    access: Option<Arc<Access>>,
}

impl Route {
    pub(crate) fn operation_name(&self) -> &Arc<str> {
        &self.plugin.operations[self.operation].0
    }

    pub(crate) fn operation(&self) -> &Operation {
        &self.plugin.operations[self.operation].1
    }

    /// Who may call what of the plugin; `None` means everybody everything.
    pub(crate) fn rights(&self) -> Option<Arc<dyn Rights>> {
        self.access.as_ref().map(|access| access.clone() as Arc<dyn Rights>)
    }
}

/// A plugin that nobody can call any more.
pub(crate) struct Replaced {
    pub(crate) name: Arc<str>,
    instance: Instance,
    gone: CancellationToken,
}

impl Replaced {
    /// Waits until its last call has ended, and stops it.
    pub(crate) async fn stop(self, grace: Duration) {
        self.gone.cancelled().await;
        self.instance.stop(&self.name, Stopped::Replaced, grace).await;
    }
}

/// What changed from one set of plugins to the next, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changes {
    /// Plugins that can be called now, and could not before.
    pub added: Vec<String>,
    /// Plugins with other settings; calls that run end as they began.
    pub replaced: Vec<String>,
    /// Plugins that cannot be called any more.
    pub removed: Vec<String>,
    /// Plugins that stay as they are, for others to call.
    pub guarded: Vec<String>,
}

impl Plugins {
    /// Builds every enabled plugin, in the order of the names, and the server's own. Plugins of `before` that would be built
    /// from the same stay as they are. Nothing runs beside calls until [`Plugins::start`].
    pub(crate) fn build(
        configs: Vec<PluginConfig>,
        registry: &Registry,
        base_dir: &Path,
        layers: &Layers,
        tokens: Tokens,
        before: Option<&Plugins>,
    ) -> Result<Plugins, (String, StartError)> {
        let mut enabled = BTreeMap::new();
        let mut disabled = BTreeMap::new();
        let mut catalogue = introspection::Catalogue::default();
        let mut measured = layers.all();
        for mut config in configs {
            let access = config.access.take().map(Arc::new);
            let Some(descriptor) = registry.handler(&config.handler).filter(|_| config.enabled) else {
                disabled.insert(config.name, access);
                continue;
            };
            catalogue.add(&config.name, descriptor, config.blueprint.operations(), access.clone());
            let same = before.and_then(|before| before.enabled.get(&*config.name));
            let plugin = match same.filter(|same| same.plugin.source.as_ref() == Some(&config.source)) {
                Some(same) => same.plugin.clone(),
                None => {
                    let name = config.name.clone();
                    Arc::new(build(config, base_dir, layers).map_err(|error| (name, error))?)
                }
            };
            measured.extend(plugin.layers.iter().cloned());
            enabled.insert(plugin.name.clone(), Served { plugin, access });
        }
        let itself = Arc::new(introspection::plugin(catalogue, measured));
        enabled.insert(itself.name.clone(), Served { plugin: itself, access: None });
        Ok(Plugins { enabled, disabled, linked: registry.names().collect(), tokens })
    }

    /// What callers prove themselves with.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Begins the work that instances do beside their calls.
    pub(crate) fn start(&self) {
        for Served { plugin, .. } in self.enabled.values() {
            plugin.instance.context.start();
        }
    }

    /// Tells every instance that the server ends.
    pub(crate) async fn stop(&self, grace: Duration) {
        let plugins = self.enabled.values().map(|served| &served.plugin);
        let stops = plugins.map(|plugin| plugin.instance.stop(&plugin.name, Stopped::ServerEnds, grace));
        futures_util::future::join_all(stops).await;
    }

    /// What is other than it was `before`.
    pub(crate) fn changes(&self, before: &Plugins) -> (Changes, Vec<Replaced>) {
        let mut changes = Changes::default();
        let mut replaced = Vec::new();
        let names =
            |plugins: &Plugins| plugins.enabled.keys().filter(|name| &***name != RESERVED).cloned().collect::<Vec<_>>();
        for name in names(before) {
            let (old, new) = (&before.enabled[&name], self.enabled.get(&name));
            match new {
                Some(new) if Arc::ptr_eq(&old.plugin, &new.plugin) => {
                    if old.access != new.access {
                        changes.guarded.push(name.to_string());
                    }
                    continue;
                }
                Some(_) => changes.replaced.push(name.to_string()),
                None => changes.removed.push(name.to_string()),
            }
            replaced.push(Replaced { name, instance: old.plugin.instance.clone(), gone: old.plugin.gone.clone() });
        }
        let is_new = |name: &Arc<str>| !before.enabled.contains_key(name);
        changes.added = names(self).iter().filter(|name| is_new(name)).map(|name| name.to_string()).collect();
        (changes, replaced)
    }

    /// Finds what `PLUGIN` or `PLUGIN.OPERATION` names, as far as `caller` may call it. What it may not call is answered as
    /// if it were not there, so that nobody can ask for names; only the origin, [`Origin::Access`], tells the log the
    /// difference.
    ///
    /// # Errors
    ///
    /// `not_found`, with a reason that tells a misspelt plugin, a disabled one, a handler that this program lacks and
    /// an unknown operation apart, and with what would be accepted.
    pub(crate) fn find(&self, command: &str, caller: &Caller) -> Result<Route, Status> {
        let dot = command.bytes().position(|byte| byte == b'.');
        let (name, operation) = dot.map_or((command, None), |dot| (&command[..dot], Some(&command[dot + 1..])));
        let found = self.enabled.get(name);
        let Some(served) = found.filter(|served| served.is_known_to(caller)) else {
            return Err(self.unknown_plugin(name, caller).with_origin(origin(found.is_some())));
        };
        let operation = served.operation(operation, caller)?;
        Ok(Route { plugin: served.plugin.clone(), operation, access: served.access.clone() })
    }

    fn unknown_plugin(&self, name: &str, caller: &Caller) -> Status {
        // A plugin of this name was looked at already: each rule is looked at once, whether it is there or not.
        let others = self.enabled.iter().filter(|(known, _)| ***known != *name && ***known != *RESERVED);
        let known: Vec<&str> =
            others.filter(|(_, served)| served.is_known_to(caller)).map(|(known, _)| &**known).collect();
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

fn build(config: PluginConfig, base_dir: &Path, layers: &Layers) -> Result<Plugin, StartError> {
    let context = Context::new(base_dir);
    let operations = config.blueprint.operations().to_vec();
    let innermost = config.blueprint.build(&context)?;
    let layers = layers.around(&config.layers, &config.limits)?;
    let facts = PluginFacts::new(&config.name, &config.handler, &operations);
    let handler = layers.iter().rev().fold(innermost.clone(), |inner, layer| layer.wrap(&facts, inner));
    let instance = Instance { handler: innermost, context };
    let deadline_max = config.limits.deadline;
    Ok(Plugin::new(&config.name, handler, layers, &operations, deadline_max, instance, Some(config.source)))
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
