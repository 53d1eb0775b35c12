//! The seam around plugins: what looks at each call before its handler does, and hears how it ended.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::settings::{read_checked, schema_of, unknown_settings};
use crate::{Caller, Context, Handler, Metrics, NoArguments, Operation, Origin, SettingError, StartError, Status};

/// Stands around plugins, such as a limit, a count of calls, or a rule of who may call what.
///
/// The configuration says which layers stand around which plugin, and in which order. One instance serves every plugin
/// that its settings are for; state by plugin is kept by [`CallFacts::plugin`], and there are only as many as are
/// configured.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use plugd_core::{CallFacts, Layer, LayerDescriptor, Passage, Refusal, Status};
///
/// /// Lets one call in two pass.
/// #[derive(Debug, Default)]
/// struct EveryOther(AtomicU64);
///
/// impl Layer for EveryOther {
///     fn enter(&self, call: &mut CallFacts<'_>) -> Result<Passage, Refusal> {
///         match self.0.fetch_add(1, Ordering::Relaxed) % 2 {
///             0 => Ok(Passage::open()),
///             _ => Err(Status::unavailable("odd", format!("not this call of {}", call.plugin)).into()),
///         }
///     }
/// }
///
/// plugd_core::register_layer!(|| LayerDescriptor::new("every-other", "lets one call in two pass").layer(EveryOther::default));
/// ```
pub trait Layer: Send + Sync + 'static {
    /// Looks at a call before its arguments are checked and its handler runs, and lets it pass or refuses it. What is
    /// asked for before this layer, by an outer one, was granted.
    ///
    /// It runs in the connection's own task: it must not wait or block. A layer that has to wait is a handler around the
    /// handler; see [`Layer::wrap`].
    ///
    /// # Errors
    ///
    /// The end of the call, which then reaches neither an inner layer nor the handler.
    fn enter(&self, call: &mut CallFacts<'_>) -> Result<Passage, Refusal> {
        let _ = call;
        Ok(Passage::open())
    }

    /// Puts a handler around the handler of `plugin`, when the plugin is built. By default it does not.
    ///
    /// What such a handler returns counts as the handler's own word. [`Handler::stop`] is told to the innermost alone.
    fn wrap(&self, plugin: &PluginFacts<'_>, inner: Arc<dyn Handler>) -> Arc<dyn Handler> {
        let _ = plugin;
        inner
    }

    /// Adds what the layer counts to what `plugd.metrics` answers.
    fn measure(&self, metrics: &mut Metrics) {
        let _ = metrics;
    }
}

/// A plugin as a layer sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct PluginFacts<'a> {
    /// The plugin's name.
    pub name: &'a str,
    /// The name of its handler.
    pub handler: &'a str,
    /// What it offers.
    pub operations: &'a [Operation],
}

impl<'a> PluginFacts<'a> {
    /// A plugin, for the server and for tests of layers.
    pub fn new(name: &'a str, handler: &'a str, operations: &'a [Operation]) -> PluginFacts<'a> {
        PluginFacts { name, handler, operations }
    }
}

/// A call that nobody has looked at but the router: what it names, and who asks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallFacts<'a> {
    /// The plugin's name.
    pub plugin: &'a str,
    /// The operation.
    pub operation: &'a Operation,
    /// Who calls.
    pub caller: &'a Caller,
    /// The arguments as JSON text, as they came: unchecked.
    pub args: Option<&'a RawValue>,
    /// What the caller says beside the arguments; `None` means nothing.
    pub metadata: Option<&'a BTreeMap<String, String>>,
    /// How long the call may take, as far as the caller, the plugin and the outer layers say; `None` means without end.
    /// The router watches it: see [`CallFacts::shorten_deadline`].
    pub deadline: Option<Duration>,
}

impl<'a> CallFacts<'a> {
    /// A call without arguments, metadata and deadline, for the server and for tests of layers.
    pub fn new(plugin: &'a str, operation: &'a Operation, caller: &'a Caller) -> CallFacts<'a> {
        CallFacts { plugin, operation, caller, args: None, metadata: None, deadline: None }
    }

    /// Lets the call take no longer than `deadline_max`.
    pub fn shorten_deadline(&mut self, deadline_max: Duration) {
        self.deadline = Some(self.deadline.map_or(deadline_max, |deadline| deadline.min(deadline_max)));
    }
}

/// How a call ended, whoever ended it: the handler, a panic, the deadline, the caller, a layer within, the server.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct CallEnd<'a> {
    /// The status that the caller is told.
    pub status: &'a Status,
    /// What goes with it.
    pub trailer: Option<&'a Map<String, Value>>,
    /// Payload that was read from the caller, in bytes.
    pub received: u64,
    /// Payload that was taken for the caller, in bytes.
    pub sent: u64,
}

impl<'a> CallEnd<'a> {
    /// An end without payload, for the server and for tests of layers.
    pub fn new(status: &'a Status, trailer: Option<&'a Map<String, Value>>) -> CallEnd<'a> {
        CallEnd { status, trailer, received: 0, sent: 0 }
    }
}

type Ended = Box<dyn FnOnce(&CallEnd<'_>) + Send>;

/// One call's way through a layer, until its end.
#[must_use = "a call that is not watched to its end ends for its layer at once"]
pub struct Passage(Option<Ended>);

impl Passage {
    /// Lets a call pass without watching it.
    pub fn open() -> Passage {
        Passage(None)
    }

    /// Lets a call pass, and calls `ended` with its end: exactly once, also when the handler panicked or was dropped, and
    /// when the connection is. It must not wait or block. Inner layers hear of an end first.
    pub fn until(ended: impl FnOnce(&CallEnd<'_>) + Send + 'static) -> Passage {
        Passage(Some(Box::new(ended)))
    }

    /// Lets a call pass, and holds `permit` until its end.
    pub fn holding(permit: impl Send + 'static) -> Passage {
        Passage::until(move |_| drop(permit))
    }

    /// Whether nobody waits for the end.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Tells the layer how the call ended; the router does.
    pub fn end(self, end: &CallEnd<'_>) {
        if let Some(ended) = self.0 {
            ended(end);
        }
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Passage").field("is_open", &self.is_open()).finish()
    }
}

/// How a layer ends a call that it does not let pass.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Refusal {
    /// What the caller is told. Its origin says who refuses: [`Origin::Limit`], [`Origin::Access`], or else
    /// [`Origin::Server`].
    pub status: Status,
    /// What goes with it, such as when to come back.
    pub trailer: Option<Map<String, Value>>,
}

impl Refusal {
    /// Adds something for programs to the end. What is no JSON object is left out.
    #[must_use]
    pub fn with_trailer(mut self, trailer: &impl Serialize) -> Refusal {
        self.trailer = serde_json::to_value(trailer).ok().and_then(|value| match value {
            Value::Object(trailer) => Some(trailer),
            _ => None,
        });
        self
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        let status = match status.origin() {
            Origin::Limit | Origin::Access => status,
            _ => status.with_origin(Origin::Server),
        };
        Refusal { status, trailer: None }
    }
}

/// The settings of a layer: plain data that knows how to check itself and what to become.
pub trait LayerSettings: DeserializeOwned + JsonSchema + Send + 'static {
    /// What the settings build.
    type Layer: Layer;

    /// Checks what types cannot say. It has no effects.
    ///
    /// # Errors
    ///
    /// Every setting that cannot be.
    fn check(&self) -> Result<(), Vec<SettingError>> {
        Ok(())
    }

    /// Builds the layer, once the whole configuration has been accepted and every address is bound.
    ///
    /// # Errors
    ///
    /// What keeps the layer from working; the server then does not start, or stays as it was.
    fn build(self, context: &Context) -> Result<Self::Layer, StartError>;
}

type Build = Box<dyn FnOnce(&Context) -> Result<Arc<dyn Layer>, StartError> + Send>;

/// Settings of a layer that were checked, ready to become one.
pub struct LayerBlueprint(Build);

impl LayerBlueprint {
    /// Builds the layer; see [`LayerSettings::build`].
    ///
    /// # Errors
    ///
    /// As [`LayerSettings::build`].
    pub fn build(self, context: &Context) -> Result<Arc<dyn Layer>, StartError> {
        (self.0)(context)
    }
}

impl fmt::Debug for LayerBlueprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LayerBlueprint").finish_non_exhaustive()
    }
}

type Prepare = Box<dyn Fn(Value) -> Result<LayerBlueprint, Vec<SettingError>> + Send + Sync>;

/// What a crate says of a layer.
pub struct LayerDescriptor {
    name: &'static str,
    summary: &'static str,
    settings: Schema,
    prepare: Option<Prepare>,
    package: &'static str,
    version: &'static str,
}

impl fmt::Debug for LayerDescriptor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("LayerDescriptor")
            .field("name", &self.name)
            .field("package", &self.package)
            .finish_non_exhaustive()
    }
}

impl LayerDescriptor {
    /// Describes the layer `name`, which is a [legal name](crate::is_legal_name).
    pub fn new(name: &'static str, summary: &'static str) -> LayerDescriptor {
        let settings = schema_of::<NoArguments>();
        LayerDescriptor { name, summary, settings, prepare: None, package: "", version: "" }
    }

    /// Says that the layer has no settings, and how to make it.
    #[must_use]
    pub fn layer<L: Layer>(mut self, make: fn() -> L) -> LayerDescriptor {
        let schema = self.settings.clone();
        self.prepare = Some(Box::new(move |settings| {
            let unknown = unknown_settings(&schema, &settings);
            if !unknown.is_empty() {
                return Err(unknown);
            }
            Ok(LayerBlueprint(Box::new(move |_| Ok(Arc::new(make())))))
        }));
        self
    }

    /// Says which settings the layer has; they build it.
    #[must_use]
    pub fn settings<S: LayerSettings>(mut self) -> LayerDescriptor {
        self.settings = schema_of::<S>();
        let schema = self.settings.clone();
        self.prepare = Some(Box::new(move |settings| {
            let settings = read_checked(&schema, settings, S::check)?;
            Ok(LayerBlueprint(Box::new(move |context| Ok(Arc::new(settings.build(context)?)))))
        }));
        self
    }

    pub(crate) fn registered_by(self, package: &'static str, version: &'static str) -> LayerDescriptor {
        LayerDescriptor { package, version, ..self }
    }

    /// The layer's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// One line for people.
    pub fn summary(&self) -> &'static str {
        self.summary
    }

    /// The JSON Schema of its settings.
    pub fn settings_schema(&self) -> &Schema {
        &self.settings
    }

    /// The package that registered the layer.
    pub fn package(&self) -> &'static str {
        self.package
    }

    /// The version of that package.
    pub fn version(&self) -> &'static str {
        self.version
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.prepare.is_some()
    }

    /// Checks settings, without any effect.
    ///
    /// # Errors
    ///
    /// Every unknown key, every value of a wrong type, and everything that [`LayerSettings::check`] finds.
    pub fn prepare(&self, settings: Value) -> Result<LayerBlueprint, Vec<SettingError>> {
        match &self.prepare {
            Some(prepare) => prepare(settings),
            None => Err(vec![SettingError::new("", "the layer does not say how it is built")]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_says_that_the_server_refuses_unless_a_limit_or_access_does() {
        let origin = |status: Status| Refusal::from(status).status.origin();
        assert_eq!(origin(Status::unavailable("a", "b")), Origin::Server);
        assert_eq!(origin(Status::unavailable("a", "b").with_origin(Origin::Limit)), Origin::Limit);
        assert_eq!(origin(Status::not_found("a", "b").with_origin(Origin::Access)), Origin::Access);
        let refusal = Refusal::from(Status::unavailable("a", "b"));
        assert_eq!(refusal.clone().with_trailer(&json!(3)).trailer, None);
        assert_eq!(refusal.with_trailer(&json!({ "a": 3 })).trailer, json!({ "a": 3 }).as_object().cloned());
    }

    #[test]
    fn a_permit_is_held_until_the_end_and_not_longer() {
        let (permit, held) = mpsc::channel::<()>();
        let passage = Passage::holding(permit);
        assert_eq!(held.try_recv(), Err(mpsc::TryRecvError::Empty));
        passage.end(&CallEnd::new(&Status::ok(), None));
        assert_eq!(held.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn a_deadline_only_becomes_shorter() {
        let (operation, caller) = (Operation::new("run", ""), Caller::new(crate::Peer::Memory));
        let mut call = CallFacts::new("a", &operation, &caller);
        for (asked, left) in [(5, 5), (9, 5), (2, 2)] {
            call.shorten_deadline(Duration::from_secs(asked));
            assert_eq!(call.deadline, Some(Duration::from_secs(left)));
        }
    }
}
