//! Serves files below one directory.

mod blocking;
mod change;
mod config;
mod copy;
mod digest;
mod digest_cache;
mod entry;
mod get;
mod hex;
mod list;
mod path_text;
mod put;
mod refusal;
mod root;
mod source;
mod space;
mod version;

use std::io;
use std::path::Path;
use std::sync::Arc;

pub use config::{Durability, FileSettings, Symlinks};
pub use digest::Algorithm;
use digest_cache::DigestCache;
use plugd_core::prelude::*;
use put::partial::{Uploads, sweep_later};
use put::{Disk, Publisher};
use root::Root;
use space::Space;

/// Files up to this many bytes are read or written in one go, which costs one change of threads.
const SMALL_LEN: u64 = 64 << 10;

/// Serves the files below one directory, and nothing outside it.
#[derive(Debug)]
pub struct File(Arc<Shared>);

/// What all calls of a plugin share.
#[derive(Debug)]
struct Shared {
    root: Root,
    settings: FileSettings,
    digests: DigestCache,
    uploads: Arc<Uploads>,
    publisher: Publisher,
    space: Arc<Space>,
}

impl File {
    fn open(path: &Path, settings: FileSettings) -> io::Result<File> {
        Ok(File(Shared::open(path, settings, Disk::default())?))
    }
}

impl Shared {
    fn open(path: &Path, settings: FileSettings, disk: Disk) -> io::Result<Arc<Shared>> {
        let shared = Arc::new(Shared {
            root: Root::open(path, settings.symlinks)?,
            digests: DigestCache::default(),
            uploads: Uploads::new(settings.upload_expiry),
            publisher: Publisher::new(disk),
            space: Space::new(settings.quota.map(|quota| quota.as_u64())),
            settings,
        });
        if shared.settings.writable
            && let Some(pause) = shared.uploads.sweep(&shared)
        {
            sweep_later(&shared, pause);
        }
        Ok(shared)
    }
}

#[async_trait]
impl Handler for File {
    async fn handle(&self, call: &mut Call) -> Result<(), Status> {
        let shared = &self.0;
        match call.operation() {
            "get" => get::get(shared, call).await,
            "ls" => list::ls(shared, call).await,
            "stat" => list::stat(shared, call).await,
            "df" => space::df(shared, call).await,
            "digest" => list::digest(shared, call).await,
            _ if !shared.settings.writable => {
                Err(Status::permission_denied("read-only", "this plugin does not change files"))
            }
            "put" => put::put(shared, call).await,
            "put_all" => put::put_all(shared, call).await,
            "mkdir" => change::mkdir(shared, call).await,
            "rm" => change::rm(shared, call).await,
            "mv" => change::mv(shared, call).await,
            "copy" => copy::copy(shared, call).await,
            other => Err(Status::unimplemented("unknown-operation", format!("unknown operation {other:?}"))),
        }
    }
}

fn descriptor() -> Descriptor {
    let get =
        Operation::new("get", "streams a file, after a header with its facts and before a receipt with its digest");
    let ls = Operation::new("ls", "lists a directory, or all below it, one JSON object per line");
    let stat = Operation::new("stat", "describes a file or a directory in one JSON object");
    let digest = Operation::new("digest", "sums up a file, in one JSON object");
    let put = Operation::new("put", "stores the input as a file, all of it or nothing");
    let put_all =
        Operation::new("put_all", "stores many small files, each of them or nothing, with a receipt for each");
    let mkdir = Operation::new("mkdir", "makes a directory");
    let rm = Operation::new("rm", "removes a file, a link or a directory");
    let mv = Operation::new("mv", "renames a file or a directory, at once");
    let copy = Operation::new("copy", "copies a file on the server, all of it or nothing");
    let df = Operation::new("df", "tells how much space there is, in one JSON object");
    Descriptor::new("file", "serves files below one directory")
        .operation(get.streams(Streaming::Server).args::<get::GetArgs>())
        .operation(
            put.streams(Streaming::Client)
                .has_effects()
                .input_channel(put::CHANNEL_DIGEST, "digest")
                .args::<put::PutArgs>(),
        )
        .operation(
            put_all
                .streams(Streaming::Both)
                .has_effects()
                .input_channel(put::CHANNEL_FILE, "file")
                .args::<put::NoArgs>(),
        )
        .operation(ls.streams(Streaming::Server).args::<list::LsArgs>())
        .operation(stat.args::<list::StatArgs>())
        .operation(digest.args::<list::DigestArgs>())
        .operation(mkdir.has_effects().args::<change::MkdirArgs>())
        .operation(rm.has_effects().args::<change::RmArgs>())
        .operation(mv.has_effects().args::<change::FromToArgs>())
        .operation(copy.has_effects().args::<change::FromToArgs>())
        .operation(df)
        .settings::<FileSettings>()
}

plugd_core::register!(descriptor);
