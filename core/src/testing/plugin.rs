//! An instance of a handler that is called without a server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::call::TestCall;
use crate::{Blueprint, Context, Descriptor, Handler, Operation, Registry, StartError, Stopped};

/// An instance of a handler. Clones are one.
#[derive(Clone)]
pub struct Plugin {
    pub(super) handler: Arc<dyn Handler>,
    context: Context,
    pub(super) operations: Arc<[Operation]>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Plugin").field("operations", &self.operations).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Builds an instance of a handler that is linked into the test; name its crate there (`use my_handler as _;`). Relative
    /// paths in settings start from the present directory.
    ///
    /// # Panics
    ///
    /// When there is no such handler, the settings are wrong, or the instance cannot be built: with the server's own words.
    #[track_caller]
    pub fn linked(name: &str, settings: Value) -> Plugin {
        Plugin::linked_in(name, settings, Path::new("."))
    }

    /// As [`Plugin::linked`], with relative paths in settings from `base_dir`.
    ///
    /// # Panics
    ///
    /// As [`Plugin::linked`].
    #[track_caller]
    pub fn linked_in(name: &str, settings: Value, base_dir: &Path) -> Plugin {
        let registry = Registry::linked().unwrap_or_else(|error| panic!("{error}"));
        let known: Vec<&str> = registry.names().collect();
        let descriptor = registry.handler(name);
        let descriptor = descriptor.unwrap_or_else(|| panic!("no handler {name:?} is linked; linked: {known:?}"));
        Plugin::of_in(descriptor, settings, base_dir)
    }

    /// Builds an instance of a handler that need not be registered.
    ///
    /// # Panics
    ///
    /// When the settings are wrong, or the instance cannot be built: with the server's own words.
    #[track_caller]
    pub fn of(descriptor: &Descriptor, settings: Value) -> Plugin {
        Plugin::of_in(descriptor, settings, Path::new("."))
    }

    /// As [`Plugin::of`], with relative paths in settings from `base_dir`.
    ///
    /// # Panics
    ///
    /// As [`Plugin::of`].
    #[track_caller]
    pub fn of_in(descriptor: &Descriptor, settings: Value, base_dir: &Path) -> Plugin {
        let blueprint = descriptor.prepare(settings).unwrap_or_else(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            panic!("settings of {}: {}", descriptor.name(), errors.join("; "))
        });
        let built = Plugin::build(blueprint, base_dir);
        built.unwrap_or_else(|error| panic!("{} cannot start: {error}", descriptor.name()))
    }

    /// Builds an instance from settings that were checked.
    ///
    /// # Errors
    ///
    /// What keeps the instance from working.
    pub fn build(blueprint: Blueprint, base_dir: &Path) -> Result<Plugin, StartError> {
        let operations = blueprint.operations().into();
        let context = Context::new(base_dir);
        let handler = blueprint.build(&context)?;
        context.start();
        Ok(Plugin { handler, context, operations })
    }

    /// Begins to say a call of an operation. One that the plugin does not offer reaches the handler here, which a server
    /// would never let happen.
    pub fn call(&self, operation: &str) -> TestCall {
        TestCall::new(self.clone(), operation)
    }

    /// Tells the instance to stop, as a server does when it ends, and waits until its handler and its work have.
    ///
    /// # Panics
    ///
    /// When its work goes on for longer than `grace`.
    pub async fn stop(&self, why: Stopped, grace: Duration) {
        let ((), left) = tokio::join!(self.handler.stop(why), self.context.stop(grace));
        assert_eq!(left, 0, "pieces of work that did not stop within {grace:?}");
    }

    /// What the instance offers.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }
}
