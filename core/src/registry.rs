//! The handlers that are linked into this program.

use std::collections::BTreeMap;

use crate::name::illegal_or_repeated;
use crate::{Descriptor, Operation, is_legal_name, nearest};

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

/// Every handler of this program, by name.
#[derive(Debug)]
pub struct Registry {
    handlers: BTreeMap<&'static str, Descriptor>,
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
    /// A handler, or one of its operations, has no legal name.
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
        Registry::of(inventory::iter::<Registration>().map(|registration| registration.descriptor()))
    }

    /// Collects the given handlers, for programs and tests that do not rely on the linker.
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
        if handlers.is_empty() { Err(RegistryError::Empty) } else { Ok(Registry { handlers }) }
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

    #[test]
    fn handlers_are_sorted_by_name() {
        let registry = Registry::of([descriptor("b", "p"), descriptor("a", "p")]).expect("two handlers");
        assert_eq!(registry.names().collect::<Vec<_>>(), ["a", "b"]);
    }
}
