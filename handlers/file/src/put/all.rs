//! Stores many small files in one call.

use std::pin::pin;
use std::sync::Arc;

use plugd_core::wire::End;
use plugd_core::{Call, Status};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::intake::{Intake, SmallFile};
use super::upload::{Nearby, Receipt, Upload};
use crate::Shared;
use crate::blocking::blocking;
use crate::entry::json_line;
use crate::path_text::PathText;

/// The arguments of `put_all`: there are none, for each file has its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoArgs {}

/// What became of one file.
#[derive(Debug, Serialize)]
struct FileLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathText>,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// As `put` has it in its trailer.
    Receipt(Receipt),
    /// As it would stand in the end of `put`.
    Status(Box<RawValue>),
}

/// How many files there were; the trailer.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Counts {
    stored: u64,
    failed: u64,
}

/// Stores files as they come. What has arrived together is stored in one go, and its receipts leave together.
pub(crate) async fn put_all(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let NoArgs {} = call.args()?;
    let (input, output) = call.split();
    let (mut intake, mut counts) = (Intake::new(shared), Counts::default());
    loop {
        intake.fill(input).await?;
        let files = intake.take();
        if files.is_empty() {
            break;
        }
        let shared = Arc::clone(shared);
        let mut stored = pin!(blocking(move || store(&shared, files, counts)));
        let lines;
        (lines, counts) = loop {
            tokio::select! {
                biased;
                stored = &mut stored => break stored?,
                received = intake.receive(input), if intake.has_room() => received?,
            }
        };
        output.send(lines).await?;
    }
    output.set_trailer(&counts)?;
    intake.end()
}

/// Stores files one by one, and says in lines what became of them.
fn store(shared: &Arc<Shared>, files: Vec<SmallFile>, mut counts: Counts) -> Result<(Vec<u8>, Counts), Status> {
    let (mut nearby, mut lines) = (Nearby::default(), Vec::new());
    for SmallFile { path, request, content } in files {
        let stored = request.and_then(|request| {
            let (order, parents) = (request.order, request.parents);
            let upload = Upload::prepare_near(shared, order, None, false, parents, &mut nearby)?;
            upload.finish_whole(content, request.digest)
        });
        let outcome = match stored {
            Ok(receipt) => {
                counts.stored += 1;
                Outcome::Receipt(receipt)
            }
            Err(status) => {
                counts.failed += 1;
                Outcome::Status(end_of(status)?)
            }
        };
        lines.extend(json_line(&FileLine { path, outcome })?);
    }
    Ok((lines, counts))
}

/// A failure as it stands in the end of a call.
fn end_of(status: Status) -> Result<Box<RawValue>, Status> {
    let end = String::from_utf8(End::from(status).encode()).ok().and_then(|end| RawValue::from_string(end).ok());
    end.ok_or_else(|| Status::internal("unserialisable", "a status is no JSON"))
}
