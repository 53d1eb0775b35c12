//! Serves files below one directory.

mod config;
mod entry;
mod get;
mod list;
mod put;
mod refusal;
mod root;

pub use config::FileSettings;
use plugd_core::prelude::*;
pub use root::Root;
use schemars::JsonSchema;
use serde::Deserialize;

/// Serves the files below one directory, and nothing outside it.
#[derive(Debug, Clone)]
pub struct File {
    root: Root,
    writable: bool,
}

impl File {
    /// A handler for what lies below `root`.
    pub fn new(root: Root, writable: bool) -> File {
        File { root, writable }
    }
}

#[async_trait]
impl Handler for File {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        match call.operation() {
            "get" => get::get(&self.root, call).await,
            "put" if !self.writable => Err(Status::permission_denied("read-only", "this plugin does not accept files")),
            "put" => put::put(&self.root, call).await,
            "ls" => list::ls(&self.root, call).await,
            "stat" => list::stat(&self.root, call).await,
            other => Err(Status::unimplemented("unknown-operation", format!("unknown operation {other:?}"))),
        }
    }
}

/// The arguments of an operation on one path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PathArgs {
    /// The path, relative to the plugin's root.
    path: String,
}

fn descriptor() -> Descriptor {
    let get = Operation::new("get", "streams a file, after a header with its size, modification time and MD5");
    let put = Operation::new("put", "stores the input as a file, all of it or nothing");
    let ls = Operation::new("ls", "lists a directory, one JSON object per line");
    let stat = Operation::new("stat", "describes a file or a directory in one JSON object");
    Descriptor::new("file", "serves files below one directory")
        .operation(get.streams(Streaming::Server).args::<PathArgs>())
        .operation(
            put.streams(Streaming::Client).has_effects().input_channel(put::CHANNEL_MD5, "md5").args::<put::PutArgs>(),
        )
        .operation(ls.streams(Streaming::Server).args::<list::LsArgs>())
        .operation(stat.args::<PathArgs>())
        .settings::<FileSettings>()
}

plugd_core::register!(descriptor);
