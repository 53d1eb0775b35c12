//! Keeps values by key in an embedded database, and tells who watches what has changed.

mod key;
mod settings;
mod store;

use std::pin::pin;

pub use key::{KEY_LEN_MAX, Key};
use plugd_core::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
pub use settings::KvSettings;
use store::Store;
use tokio::sync::broadcast::error::RecvError;

/// How many keys are read at once: few enough that a list of any length takes little memory.
const PAGE_LEN: usize = 256;

/// A key-value store; every plugin has a database file of its own.
#[derive(Debug)]
pub struct Kv {
    store: Store,
    value_len_max: usize,
}

/// The arguments of `get` and `set`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OneKey {
    /// The key: 1 to 512 bytes of text without control characters.
    key: Key,
}

/// The arguments of `list` and `watch`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keys {
    /// Only keys that begin with this.
    #[serde(default)]
    prefix: String,
}

#[async_trait]
impl Handler for Kv {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        match call.operation() {
            "get" => self.get(call).await,
            "set" => self.set(call).await,
            "list" => self.list(call).await,
            "watch" => self.watch(call).await,
            other => Err(Status::unimplemented("unknown-operation", format!("no operation {other:?}"))),
        }
    }
}

impl Kv {
    async fn get(&self, call: &mut Call) -> Result<(), Status> {
        let OneKey { key } = call.args()?;
        let Some(value) = self.store.get(key.clone()).await? else {
            return Err(Status::not_found("unknown-key", format!("no key \"{key}\"")));
        };
        call.head(&json!({ "len": value.len() }))?;
        call.send(value).await
    }

    /// The value is stored once the caller has sent it to its end; a call that is cut changes nothing.
    async fn set(&self, call: &mut Call) -> Result<(), Status> {
        let OneKey { key } = call.args()?;
        let mut value = Vec::new();
        while let Some(data) = call.recv().await? {
            if value.len() + data.len() > self.value_len_max {
                let text = format!("value of more than {0} bytes; allowed: {0}", self.value_len_max);
                return Err(Status::resource_exhausted("value-too-long", text));
            }
            value.extend_from_slice(&data);
        }
        let len = value.len();
        let replaced = self.store.set(key, value).await?;
        call.set_trailer(&json!({ "len": len, "replaced": replaced }))
    }

    async fn list(&self, call: &mut Call) -> Result<(), Status> {
        let Keys { prefix } = call.args()?;
        let mut after = None;
        loop {
            let page = self.store.keys(prefix.clone(), after, PAGE_LEN).await?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            call.send(page.iter().map(|key| format!("{key}\n")).collect::<String>()).await?;
            after = Some(last);
        }
    }

    async fn watch(&self, call: &mut Call) -> Result<(), Status> {
        let Keys { prefix } = call.args()?;
        let mut cancelled = pin!(call.cancelled());
        let mut changes = self.store.changes();
        // From here on nothing is missed, and the caller may know.
        call.head(&json!({ "prefix": prefix }))?;
        loop {
            let change = tokio::select! {
                () = &mut cancelled => return Ok(()),
                change = changes.recv() => change,
            };
            let event = match change {
                Ok(change) if !change.key.starts_with(&prefix) => continue,
                Ok(change) => json!({ "key": change.key, "len": change.len }),
                // A watcher that reads slowly loses the oldest changes; it hears how many, and may list.
                Err(RecvError::Lagged(missed)) => json!({ "missed": missed }),
                Err(RecvError::Closed) => return Ok(()),
            };
            call.send(format!("{event}\n")).await?;
        }
    }
}

fn descriptor() -> Descriptor {
    Descriptor::new("kv", "keeps values by key")
        .operation(Operation::new("get", "answers with the value of a key").args::<OneKey>())
        .operation(
            Operation::new("set", "makes the input the value of a key")
                .streams(Streaming::Client)
                .has_effects()
                .args::<OneKey>(),
        )
        .operation(Operation::new("list", "lists keys, one a line").streams(Streaming::Server).args::<Keys>())
        .operation(
            Operation::new("watch", "tells of each change, one JSON object a line")
                .streams(Streaming::Server)
                .args::<Keys>(),
        )
        .settings::<KvSettings>()
}

plugd_core::register!(descriptor);
