//! Names the handler crates, so that the linker keeps them and what they register.

use plugd_echo as _;
use plugd_file as _;
use plugd_shell as _;
use plugd_upper as _;

/// The handlers that plugd comes with. A program may be built without some of them, and can then say so.
pub(crate) const SHIPPED: [&str; 4] = ["echo", "file", "shell", "upper"];

#[cfg(test)]
mod tests {
    use plugd_core::Registry;

    use super::*;

    #[test]
    fn exactly_the_shipped_handlers_are_linked() {
        let registry = Registry::linked().expect("handlers that fit together");
        assert_eq!(registry.names().collect::<Vec<_>>(), SHIPPED);
        for handler in registry.handlers() {
            assert_eq!(handler.package(), format!("plugd-{}", handler.name()));
        }
    }
}
