//! Serves the plugins that a configuration enables, over framed connections.
