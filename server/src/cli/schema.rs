//! `plugd schema`: the whole of plugins.toml, for editors.

use plugd_core::Registry;

use super::{Failure, print};
use crate::config;

/// Prints the JSON Schema of a configuration that the handlers in this program can serve.
pub(super) fn schema(registry: &Registry) -> Result<(), Failure> {
    print(&format!("{:#}\n", config::schema(registry)))
}
