//! What a server offers, asked for in a time that nobody notices, or remembered.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::timeout;

use super::cache::{Cache, Known};
use crate::cli::describe::Plugin;
use crate::cli::directory::Directory;
use crate::cli::server::Server;
use crate::{CallError, Client, Open};

/// How long a server is waited for in all: a shell stands still meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a server offers, as far as it was asked.
#[derive(Debug, Default)]
pub(crate) struct Knowledge {
    pub(crate) directory: Option<Directory>,
    pub(crate) plugin: Option<Plugin>,
}

impl Knowledge {
    /// Asks the server what it offers, and for the description of one plugin unless that is remembered; what a server said
    /// before stands in for one that does not answer in time.
    pub(crate) async fn of(server: &Server, plugin: Option<&str>) -> Knowledge {
        let cache = Cache::of_user();
        let remembered = cache.as_ref().and_then(|cache| cache.read(server.address()));
        let known = match timeout(PATIENCE, ask(server, plugin, remembered.as_ref())).await {
            Ok(Ok(known)) => {
                if let Some(cache) = cache.filter(|_| remembered.as_ref() != Some(&known)) {
                    // Without a place to remember it, it is asked for again.
                    let _ = cache.write(server.address(), &known);
                }
                Some(known)
            }
            _ => remembered,
        };
        known.map(|known| Knowledge::read(&known, plugin)).unwrap_or_default()
    }

    fn read(known: &Known, plugin: Option<&str>) -> Knowledge {
        let described = plugin.and_then(|plugin| known.plugins.get(plugin));
        Knowledge {
            directory: serde_json::from_value(known.list.clone()).ok(),
            plugin: described.and_then(|described| serde_json::from_value(described.clone()).ok()),
        }
    }
}

async fn ask(server: &Server, plugin: Option<&str>, remembered: Option<&Known>) -> Result<Known, CallError> {
    let mut client = server.connector.connect().await?;
    let list = call(&mut client, &Open::new("plugd.list")).await?;
    let hash = hash_of(&list);
    let same = remembered.filter(|known| hash.as_ref() == Some(&known.hash));
    let mut known = same.cloned().unwrap_or_else(|| Known::new(server.address(), hash.unwrap_or_default(), list));
    if let Some(plugin) = plugin.filter(|plugin| !known.plugins.contains_key(*plugin)) {
        let mut open = Open::new("plugd.describe");
        let args = Map::from_iter([("name".to_owned(), plugin.into())]);
        open.args = Some(serde_json::value::to_raw_value(&args).expect("a JSON value always serialises"));
        // There may be no such plugin, and still others to offer.
        if let Ok(described) = call(&mut client, &open).await {
            known.plugins.insert(plugin.to_owned(), described);
        }
    }
    Ok(known)
}

async fn call(client: &mut Client, open: &Open<'_>) -> Result<Value, CallError> {
    let reply = client.call(open, "").await?;
    // What is no JSON offers nothing.
    Ok(serde_json::from_slice(&reply.bytes()).unwrap_or_default())
}

/// The hash of everything that the server describes, as its list tells it. A server that tells none may have changed in
/// ways that its list does not show, and nothing of what it said before holds.
fn hash_of(list: &Value) -> Option<String> {
    list["hash"].as_str().filter(|hash| !hash.is_empty()).map(str::to_owned)
}
