//! Stores the input as a file: all of it under its name, or nothing.

mod all;
mod inflow;
mod intake;
pub(crate) mod partial;
mod publish;
mod receive;
mod upload;

use std::sync::Arc;

pub(crate) use all::{NoArgs, put_all};
pub(crate) use intake::CHANNEL_FILE;
use plugd_core::{Call, Status};
pub(crate) use publish::{Disk, Publisher, rename_to_free};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub(crate) use upload::{Order, Receipt, Upload};

use crate::blocking::{Parked, blocking, while_called};
use crate::config::{Durability, FileSettings};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::entry::{PERMISSION_BITS, Time};
use crate::path_text::PathText;
use crate::source::Source;
use crate::version::Version;
use crate::{Shared, refusal};
use inflow::Inflow;
use partial::Key;

/// The side channel on which a caller may send the digest that it has computed while it sent the data.
pub(crate) const CHANNEL_DIGEST: u8 = 1;

/// The arguments of `put`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutArgs {
    /// The path to store under, relative to the plugin's root. A file that is there already is replaced.
    path: PathText,
    /// How many bytes the file must have. With it, what cannot fit is refused before it is sent.
    #[serde(default)]
    size: Option<u64>,
    /// The digest that is computed and compared: that of `digest`, otherwise md5, unless told otherwise.
    #[serde(default)]
    #[schemars(with = "Algorithm")]
    algorithm: Option<Algorithm>,
    /// The digest that the whole file must have, as ALGORITHM:HEX. It may also come on channel 1, after the data.
    #[serde(default)]
    digest: Option<String>,
    /// A random name for this upload: 1 to 64 letters, digits, "_" and "-". With it, what is cut can be carried on.
    #[serde(default)]
    token: Option<String>,
    /// Whether to carry on where the upload of this token was cut: the header says from where.
    #[serde(default)]
    resume: bool,
    /// Refuse to replace anything.
    #[serde(default)]
    no_clobber: bool,
    /// Refuse unless the file that is there is this version: an etag, or a digest.
    #[serde(default)]
    if_match: Option<String>,
    /// Do nothing when the file that is there is this version: an etag, or a digest.
    #[serde(default)]
    if_none_match: Option<String>,
    /// The modification time to give the file, in seconds since 1970.
    #[serde(default)]
    mtime_s: Option<i64>,
    /// The nanoseconds of that time, below 1000000000.
    #[serde(default)]
    mtime_ns: Option<u32>,
    /// The permission bits to give the file, as a number: 420 is rw-r--r--. Otherwise those of the file that it replaces.
    #[serde(default)]
    mode: Option<u32>,
    /// What the file survives once it is stored, instead of the plugin's own setting.
    #[serde(default)]
    #[schemars(with = "Durability")]
    durability: Option<Durability>,
    /// Whether missing directories are made.
    #[serde(default)]
    parents: bool,
}

#[derive(Debug, Serialize)]
struct Head {
    offset: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unchanged: bool,
}

#[derive(Debug, Serialize)]
struct Unchanged {
    bytes: u64,
    size: u64,
    resumed_from: u64,
    published: bool,
    unchanged: bool,
    etag: String,
}

/// What a call of `put` asks for, beside the order itself.
struct Request {
    order: Order,
    digest: Option<Digest>,
    key: Option<Key>,
    resume: bool,
    if_match: Option<Version>,
    if_none_match: Option<Version>,
    parents: bool,
}

impl Request {
    fn read(args: PutArgs, settings: &FileSettings) -> Result<Request, Status> {
        let digest = args.digest.as_deref().map(Digest::parse).transpose()?;
        let asked = args.algorithm.or(digest.map(|digest| digest.algorithm()));
        let algorithm = settings.algorithm(asked)?;
        if let Some(digest) = digest.filter(|digest| digest.algorithm() != algorithm) {
            return Err(Digest::bad(&format!("{digest} for the algorithm {}", algorithm.name())));
        }
        let key = args.token.as_deref().map(|token| Key::new(token, args.path.as_path())).transpose()?;
        Ok(Request {
            order: Order {
                path: args.path.as_path().to_owned(),
                size: args.size,
                algorithm,
                no_clobber: args.no_clobber,
                replaces: None,
                mtime: mtime(args.mtime_s, args.mtime_ns)?,
                mode: mode(args.mode)?,
                durability: args.durability.unwrap_or(settings.durability),
            },
            digest,
            key,
            resume: args.resume,
            if_match: settings.version(args.if_match)?,
            if_none_match: settings.version(args.if_none_match)?,
            parents: args.parents,
        })
    }
}

fn mtime(s: Option<i64>, ns: Option<u32>) -> Result<Option<Time>, Status> {
    let ns = ns.unwrap_or(0);
    if ns >= 1_000_000_000 {
        let message = format!("mtime_ns {ns} is out of range; allowed: 0 to 999999999");
        return Err(Status::invalid_argument("bad-time", message));
    }
    Ok(s.map(|s| Time { s, ns }))
}

fn mode(mode: Option<u32>) -> Result<Option<u32>, Status> {
    match mode {
        Some(mode) if mode > PERMISSION_BITS => {
            let message = format!("mode {mode} is out of range; allowed: 0 to {PERMISSION_BITS}");
            Err(Status::invalid_argument("bad-mode", message))
        }
        mode => Ok(mode),
    }
}

/// Stores the input. Nothing is visible under the path before the input has ended and was verified.
pub(crate) async fn put(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let mut request = Request::read(call.args()?, &shared.settings)?;
    if let Some(unchanged) = meet_conditions(shared, call, &mut request).await? {
        call.head(&Head { offset: 0, unchanged: true })?;
        return call.set_trailer(&unchanged);
    }
    let claim = match request.key.take() {
        Some(key) => {
            let claim = shared.uploads.claim(key);
            Some(while_called(call, claim).await?)
        }
        None => None,
    };
    let Request { order, digest, resume, parents, .. } = request;
    let mut inflow = Inflow::new(digest);
    // A short input has often come together with the call. Then all of it is done in one go.
    let (input, output) = call.split();
    tokio::select! {
        biased;
        filled = inflow.fill(input), if !resume => filled?,
        () = std::future::ready(()) => {}
    }
    let shared = Arc::clone(shared);
    let prepare = move || Upload::prepare(&shared, order, claim, resume, parents)?.allocate();
    if inflow.is_whole() {
        let receipt = blocking(move || {
            let upload = prepare()?;
            let hasher = Hasher::new(upload.algorithm());
            upload.finish_with(inflow, hasher)
        })
        .await?;
        output.head(&Head { offset: 0, unchanged: false })?;
        return output.set_trailer(&receipt);
    }
    let upload = blocking(move || Ok(Parked::new(prepare()?))).await?;
    output.head(&Head { offset: upload.offset(), unchanged: false })?;
    let receipt = receive::receive(upload, inflow, input, output.cancelled()).await?;
    output.set_trailer(&receipt)
}

/// Checks what the caller says of the file that is there. What it is then, it must still be when it is replaced.
async fn meet_conditions(
    shared: &Arc<Shared>,
    call: &mut Call,
    request: &mut Request,
) -> Result<Option<Unchanged>, Status> {
    if request.if_match.is_none() && request.if_none_match.is_none() {
        return Ok(None);
    }
    let path = request.order.path.clone();
    let existing = {
        let (shared, path) = (Arc::clone(shared), path.clone());
        blocking(move || existing(&shared, &path)).await?
    };
    if let Some(version) = &request.if_match {
        let source = existing.as_ref().ok_or_else(|| refusal::changed(&path))?;
        if !while_called(call, source.is(shared, version)).await? {
            return Err(refusal::changed(&path));
        }
        request.order.replaces = Some(source.meta().identity);
    }
    match (&request.if_none_match, existing) {
        (Some(version), Some(source)) if while_called(call, source.is(shared, version)).await? => Ok(Some(Unchanged {
            bytes: 0,
            size: source.meta().size(),
            resumed_from: 0,
            published: false,
            unchanged: true,
            etag: source.meta().identity.etag(),
        })),
        _ => Ok(None),
    }
}

/// The regular file that stands at the very path, if one does.
fn existing(shared: &Shared, path: &std::path::Path) -> Result<Option<Arc<Source>>, Status> {
    let (place, found) = match shared.root.target(path) {
        Err(status) if status.reason() == "no-such-directory" => return Ok(None),
        target => target?,
    };
    match found {
        Some(meta) if meta.is_file() => match place.open_file() {
            // It was removed or moved since it was found.
            Err(status) if status.reason() == "no-such-file" => Ok(None),
            file => Ok(Some(Source::new(path, file?)?)),
        },
        _ => Ok(None),
    }
}
