//! The handlers and layers that are linked into this program.

use std::collections::BTreeMap;

use crate::name::illegal_or_repeated;
use crate::{Descriptor, LayerDescriptor, Operation, is_legal_name, nearest};

/// What [`register!`](crate::register) leaves for the registry to find.
#[derive(Debug, Clone, Copy)]
pub struct Registration {
    describe: fn() -> Descriptor,
    package: &'static str,
    version: &'static str,
}

impl Registration {
    /// Called by [`register!`](crate::register), which knows the package.
    pub const fn new(describe: fn() -> Descriptor, package: &'static str, version: &'static str) -> Registration {
        Registration { describe, package, version }
    }

    fn descriptor(self) -> Descriptor {
        (self.describe)().registered_by(self.package, self.version)
    }
}

inventory::collect!(Registration);

/// Registers a handler: takes a function, or a closure that captures nothing, that returns its [`Descriptor`].
///
/// A program must name the crate (`use my_handler as _;`), or the linker leaves it out with everything in it.
#[macro_export]
macro_rules! register {
    ($describe:expr $(,)?) => {
        $crate::inventory::submit! {
            $crate::Registration::new($describe, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        }
    };
}

/// What [`register_layer!`](crate::register_layer) leaves for the registry to find.
#[derive(Debug, Clone, Copy)]
pub struct LayerRegistration {
    describe: fn() -> LayerDescriptor,
    package: &'static str,
    version: &'static str,
}

impl LayerRegistration {
    /// Called by [`register_layer!`](crate::register_layer), which knows the package.
    pub const fn new(
        describe: fn() -> LayerDescriptor,
        package: &'static str,
        version: &'static str,
    ) -> LayerRegistration {
        LayerRegistration { describe, package, version }
    }
}

inventory::collect!(LayerRegistration);

/// Registers a layer: takes a function, or a closure that captures nothing, that returns its [`LayerDescriptor`]. As with
/// [`register!`](crate::register), a program must name the crate.
#[macro_export]
macro_rules! register_layer {
    ($describe:expr $(,)?) => {
        $crate::inventory::submit! {
            $crate::LayerRegistration::new($describe, env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
        }
    };
}

/// Every handler and every layer of this program, by name.
#[derive(Debug)]
pub struct Registry {
    handlers: BTreeMap<&'static str, Descriptor>,
    layers: BTreeMap<&'static str, LayerDescriptor>,
}

/// Why the linked handlers cannot work together. The program was built wrongly; no configuration helps.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No handler is linked.
    #[error("no handler is linked into this program; name the handler crates in it: `use plugd_echo as _;`")]
    Empty,
    /// Two crates, or two versions of one, register the same name.
    #[error("handler \"{name}\" is registered twice: by {first} and by {second}")]
    Duplicate {
        /// The handler's name.
        name: &'static str,
        /// The package that came first, with its version.
        first: String,
        /// The package that came second, with its version.
        second: String,
    },
    /// Two crates, or two versions of one, register a layer of the same name.
    #[error("layer \"{name}\" is registered twice: by {first} and by {second}")]
    DuplicateLayer {
        /// The layer's name.
        name: &'static str,
        /// The package that came first, with its version.
        first: String,
        /// The package that came second, with its version.
        second: String,
    },
    /// A layer does not say how it is built.
    #[error("layer \"{layer}\" of {package} lacks `.layer(..)` or `.settings::<..>()`")]
    IncompleteLayer {
        /// The layer's name.
        layer: &'static str,
        /// The package that registers it.
        package: &'static str,
    },
    /// A handler, one of its operations, or a layer has no legal name.
    #[error("{package} registers the illegal name \"{name}\"; allowed: [a-z][a-z0-9_-]*, at most 64 bytes")]
    IllegalName {
        /// The name.
        name: String,
        /// The package that registers it.
        package: &'static str,
    },
    /// A handler describes two operations of one name.
    #[error("handler \"{handler}\" of {package} describes the operation \"{operation}\" twice")]
    DuplicateOperation {
        /// The handler's name.
        handler: &'static str,
        /// The operation's name.
        operation: String,
        /// The package that registers it.
        package: &'static str,
    },
    /// A handler has no operation, or does not say how it is built.
    #[error("handler \"{handler}\" of {package} lacks an operation, or `.handler(..)` or `.settings::<..>()`")]
    Incomplete {
        /// The handler's name.
        handler: &'static str,
        /// The package that registers it.
        package: &'static str,
    },
}

impl Registry {
    /// Collects what is linked into this program, sorted by name.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]; the program was built wrongly.
    pub fn linked() -> Result<Registry, RegistryError> {
        let layers = inventory::iter::<LayerRegistration>()
            .map(|layer| (layer.describe)().registered_by(layer.package, layer.version));
        Registry::of(inventory::iter::<Registration>().map(|registration| registration.descriptor()))?
            .with_layers(layers)
    }

    /// Collects the given handlers and no layers, for programs and tests that do not rely on the linker.
    ///
    /// # Errors
    ///
    /// As [`Registry::linked`].
    pub fn of(descriptors: impl IntoIterator<Item = Descriptor>) -> Result<Registry, RegistryError> {
        let mut handlers: BTreeMap<&'static str, Descriptor> = BTreeMap::new();
        // The linker promises no order; sorted, the same program always reports the same error.
        let mut descriptors: Vec<Descriptor> = descriptors.into_iter().collect();
        descriptors.sort_by_key(|descriptor| (descriptor.name(), descriptor.package(), descriptor.version()));
        for descriptor in descriptors {
            check(&descriptor)?;
            if let Some(first) = handlers.get(descriptor.name()) {
                let (first, second) = (origin(first), origin(&descriptor));
                return Err(RegistryError::Duplicate { name: descriptor.name(), first, second });
            }
            handlers.insert(descriptor.name(), descriptor);
        }
        if handlers.is_empty() { Err(RegistryError::Empty) } else { Ok(Registry { handlers, layers: BTreeMap::new() }) }
    }

    /// Adds the given layers.
    ///
    /// # Errors
    ///
    /// As [`Registry::linked`].
    pub fn with_layers(
        mut self,
        descriptors: impl IntoIterator<Item = LayerDescriptor>,
    ) -> Result<Registry, RegistryError> {
        let mut descriptors: Vec<LayerDescriptor> = descriptors.into_iter().collect();
        descriptors.sort_by_key(|descriptor| (descriptor.name(), descriptor.package(), descriptor.version()));
        for descriptor in descriptors {
            let (name, package) = (descriptor.name(), descriptor.package());
            if !is_legal_name(name) {
                return Err(RegistryError::IllegalName { name: name.to_owned(), package });
            }
            if !descriptor.is_complete() {
                return Err(RegistryError::IncompleteLayer { layer: name, package });
            }
            let origin = |layer: &LayerDescriptor| format!("{} {}", layer.package(), layer.version());
            if let Some(first) = self.layers.get(name) {
                let (first, second) = (origin(first), origin(&descriptor));
                return Err(RegistryError::DuplicateLayer { name, first, second });
            }
            self.layers.insert(name, descriptor);
        }
        Ok(self)
    }

    /// The layer of this name.
    pub fn layer(&self, name: &str) -> Option<&LayerDescriptor> {
        self.layers.get(name)
    }

    /// Every layer, sorted by name.
    pub fn layers(&self) -> impl Iterator<Item = &LayerDescriptor> {
        self.layers.values()
    }

    /// The handler of this name.
    pub fn handler(&self, name: &str) -> Option<&Descriptor> {
        self.handlers.get(name)
    }

    /// Every handler, sorted by name.
    pub fn handlers(&self) -> impl Iterator<Item = &Descriptor> {
        self.handlers.values()
    }

    /// The names of all handlers, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.handlers.keys().copied()
    }

    /// The handler name that `name` was probably meant to be.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        nearest(name, self.handlers.keys().copied())
    }
}

fn origin(descriptor: &Descriptor) -> String {
    format!("{} {}", descriptor.package(), descriptor.version())
}

fn check(descriptor: &Descriptor) -> Result<(), RegistryError> {
    let (handler, package) = (descriptor.name(), descriptor.package());
    if let Some(name) = illegal_or_repeated([handler]) {
        return Err(RegistryError::IllegalName { name: name.to_owned(), package });
    }
    if let Some(name) = illegal_or_repeated(descriptor.operations().iter().map(Operation::name)) {
        let name = name.to_owned();
        return Err(match is_legal_name(&name) {
            true => RegistryError::DuplicateOperation { handler, operation: name, package },
            false => RegistryError::IllegalName { name, package },
        });
    }
    if !descriptor.is_complete() {
        return Err(RegistryError::Incomplete { handler, package });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{Call, Handler, Status};

    #[derive(Debug)]
    struct Nothing;

    #[async_trait]
    impl Handler for Nothing {
        async fn handle(&self, _call: &mut Call) -> Result<(), Status> {
            Ok(())
        }
    }

    fn descriptor(name: &'static str, package: &'static str) -> Descriptor {
        let descriptor = Descriptor::new(name, "").operation(Operation::new("run", "")).handler(|| Nothing);
        descriptor.registered_by(package, "1.0.0")
    }

    #[test]
    fn two_handlers_of_one_name_are_refused_by_naming_both_crates() {
        let error = Registry::of([descriptor("a", "two"), descriptor("a", "one")]).expect_err("a duplicate");
        assert_eq!(error.to_string(), "handler \"a\" is registered twice: by one 1.0.0 and by two 1.0.0");
    }

    #[test]
    fn nothing_registered_is_loud() {
        assert_eq!(Registry::of([]).expect_err("nothing"), RegistryError::Empty);
    }

    #[test]
    fn illegal_and_repeated_names_and_unfinished_handlers_are_refused() {
        let error = |descriptor| Registry::of([descriptor]).expect_err("refused");
        assert!(matches!(error(descriptor("A", "p")), RegistryError::IllegalName { name, .. } if name == "A"));
        let twice = descriptor("a", "p").operation(Operation::new("run", ""));
        assert!(matches!(error(twice), RegistryError::DuplicateOperation { operation, .. } if operation == "run"));
        assert!(matches!(error(Descriptor::new("a", "")), RegistryError::Incomplete { .. }));
    }

    #[derive(Debug)]
    struct Open;

    impl crate::Layer for Open {}

    #[test]
    fn layers_are_refused_for_the_same_reasons() {
        let layer = |name, package| LayerDescriptor::new(name, "").layer(|| Open).registered_by(package, "1.0.0");
        let with = |layers: Vec<LayerDescriptor>| {
            let registry = Registry::of([descriptor("a", "p")]).expect("one handler").with_layers(layers);
            registry.map(|registry| registry.layers().map(LayerDescriptor::name).collect::<Vec<_>>())
        };
        assert_eq!(with(vec![layer("b", "p"), layer("a", "p")]), Ok(vec!["a", "b"]));
        let error = with(vec![layer("a", "two"), layer("a", "one")]).expect_err("a duplicate");
        assert_eq!(error.to_string(), "layer \"a\" is registered twice: by one 1.0.0 and by two 1.0.0");
        assert!(matches!(with(vec![layer("A", "p")]), Err(RegistryError::IllegalName { name, .. }) if name == "A"));
        let error = with(vec![LayerDescriptor::new("a", "")]).expect_err("nothing to build");
        assert!(matches!(error, RegistryError::IncompleteLayer { layer: "a", .. }));
    }

    #[test]
    fn handlers_are_sorted_by_name() {
        let registry = Registry::of([descriptor("b", "p"), descriptor("a", "p")]).expect("two handlers");
        assert_eq!(registry.names().collect::<Vec<_>>(), ["a", "b"]);
    }
}
