//! Names the handler crates, so that the linker keeps them and what they register.

/// Links the crates of the features that are on, and lists all of them.
macro_rules! handlers {
    ($(use $package:ident as $feature:literal;)*) => {
        $(
            #[cfg(feature = $feature)]
            use $package as _;
        )*

        /// The handlers that plugd comes with. A program may be built without some of them, and can then say so.
        pub(crate) const SHIPPED: &[&str] = &[$($feature),*];

        /// Those that this program is built with.
        pub(crate) const CHOSEN: &[&str] = &[$(#[cfg(feature = $feature)] $feature),*];
    };
}

handlers! {
    use plugd_echo as "echo";
    use plugd_file as "file";
    use plugd_shell as "shell";
    use plugd_upper as "upper";
}

#[cfg(test)]
mod tests {
    use plugd_core::{Registry, RegistryError};

    use super::*;

    #[test]
    fn exactly_the_chosen_handlers_are_linked() {
        let registry = match Registry::linked() {
            Err(RegistryError::Empty) => return assert!(CHOSEN.is_empty()),
            linked => linked.expect("handlers that fit together"),
        };
        assert_eq!(registry.names().collect::<Vec<_>>(), CHOSEN);
        for handler in registry.handlers() {
            assert_eq!(handler.package(), format!("plugd-{}", handler.name()));
        }
    }
}
