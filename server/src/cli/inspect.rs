//! `plugd check` and `plugd list`: what a configuration would serve.

use std::io::{self, Write};
use std::time::SystemTime;

use plugd_core::Registry;
use serde_json::json;

use super::{Failure, config, print};
use crate::address::ListenAddress;
use crate::config::{Config, Origin, PluginConfig};
use crate::server::load_tls;

/// Says that the configuration is good, or everything that is wrong with it.
pub(super) fn check(origin: &Origin, registry: &Registry, listen: &[ListenAddress]) -> Result<(), Failure> {
    let config = config(origin, registry, listen)?;
    for address in config.server.listen.iter().filter(|address| address.is_tls()) {
        load_tls(&config.server, address, &config.base_dir)?;
    }
    warn_of_tokens(&config);
    let enabled = config.plugins.iter().filter(|plugin| plugin.enabled).count();
    let counts = format!("{} plugins, {enabled} enabled", config.plugins.len());
    print(&format!("{}: good; {counts}\n", origin.path().display()))
}

/// Names the tokens that are over: nothing is wrong with the file, but who holds one is refused.
fn warn_of_tokens(config: &Config) {
    for token in config.tokens.expired(SystemTime::now()) {
        let _ = writeln!(
            io::stderr(),
            "warning: tokens.{token} has expired; nobody can use it: make another with `plugd token new {token}`, or \
             remove the section"
        );
    }
}

/// Lists the linked handlers, and the plugins that use them.
pub(super) fn list(origin: &Origin, registry: &Registry, json: bool) -> Result<(), Failure> {
    // Nothing is not good enough to be served, but there are handlers to show even so.
    let plugins = if origin.is_empty() { Vec::new() } else { config(origin, registry, &[])?.plugins };
    if json { list_json(registry, &plugins) } else { list_text(registry, &plugins) }
}

fn list_json(registry: &Registry, plugins: &[PluginConfig]) -> Result<(), Failure> {
    let handlers: Vec<_> = registry
        .handlers()
        .map(|handler| {
            let plugins: Vec<_> = plugins
                .iter()
                .filter(|plugin| plugin.handler == handler.name())
                .map(|plugin| json!({ "name": plugin.name, "enabled": plugin.enabled }))
                .collect();
            json!({
                "handler": handler.name(),
                "package": handler.package(),
                "version": handler.version(),
                "summary": handler.summary(),
                "plugins": plugins,
            })
        })
        .collect();
    print(&format!("{:#}\n", json!({ "handlers": handlers })))
}

fn list_text(registry: &Registry, plugins: &[PluginConfig]) -> Result<(), Failure> {
    let mut text = format!("{:<12}{:<22}{:<48}{}\n", "HANDLER", "PACKAGE", "SUMMARY", "PLUGINS");
    for handler in registry.handlers() {
        let plugins: Vec<String> = plugins
            .iter()
            .filter(|plugin| plugin.handler == handler.name())
            .map(|plugin| if plugin.enabled { plugin.name.clone() } else { format!("{} (disabled)", plugin.name) })
            .collect();
        let plugins = if plugins.is_empty() { "-".to_owned() } else { plugins.join(", ") };
        let package = format!("{} {}", handler.package(), handler.version());
        text += &format!("{:<12}{package:<22}{:<48}{plugins}\n", handler.name(), handler.summary());
    }
    print(&text)
}
