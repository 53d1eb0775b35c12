//! What a server offers, as `plugd.list` tells it.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::session::Session;
use crate::Reply;

/// What a server offers. Keys that this program does not know are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct Directory {
    pub(crate) plugins: Vec<Plugin>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) summary: String,
    #[serde(default)]
    pub(crate) operations: Vec<Operation>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Operation {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) summary: String,
}

/// Asks the server, and returns its answer as it came too.
pub(crate) async fn fetch(session: &mut Session<'_>) -> Result<(Reply, Directory), Failure> {
    let reply = session.call("plugd.list", Map::new()).await?;
    let directory = serde_json::from_value(json(&reply, "plugd.list")?)
        .map_err(|error| Failure::protocol(format!("answer of plugd.list is malformed: {error}")))?;
    Ok((reply, directory))
}

/// The whole payload of an answer as one JSON value.
pub(crate) fn json(reply: &Reply, command: &str) -> Result<Value, Failure> {
    let parsed = serde_json::from_slice(&reply.bytes());
    parsed.map_err(|error| Failure::protocol(format!("answer of {command} is no JSON: {error}")))
}

impl Directory {
    /// The name of the one plugin that offers `operation`.
    pub(crate) fn only_plugin_with(&self, operation: &str) -> Result<String, Failure> {
        let offers = |plugin: &&Plugin| plugin.operations.iter().any(|offered| offered.name == operation);
        let names: Vec<&str> = self.plugins.iter().filter(offers).map(|plugin| plugin.name.as_str()).collect();
        match names.as_slice() {
            [name] => Ok((*name).to_owned()),
            [] => Err(Failure::Usage(format!("no plugin of this server offers \"{operation}\"; see: plug list"))),
            names => {
                let names = names.join(", ");
                Err(Failure::Usage(format!("several plugins offer \"{operation}\": {names}; pick one with --plugin")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(plugins: &[(&str, &str)]) -> Directory {
        let plugin = |(name, operation): &(&str, &str)| Plugin {
            name: (*name).to_owned(),
            summary: String::new(),
            operations: vec![Operation { name: (*operation).to_owned(), summary: String::new() }],
        };
        Directory { plugins: plugins.iter().map(plugin).collect() }
    }

    #[test]
    fn the_only_plugin_is_picked() {
        let directory = directory(&[("docs", "get"), ("upper", "upper")]);
        assert_eq!(directory.only_plugin_with("get").expect("one plugin"), "docs");
    }

    #[test]
    fn none_and_several_are_told_apart() {
        let directory = directory(&[("docs", "get"), ("files", "get")]);
        let line = |operation| directory.only_plugin_with(operation).expect_err("no single plugin").line();
        assert_eq!(line("put").as_deref(), Some("no plugin of this server offers \"put\"; see: plug list"));
        assert_eq!(line("get").as_deref(), Some("several plugins offer \"get\": docs, files; pick one with --plugin"));
    }
}
