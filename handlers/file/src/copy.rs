//! Copies a file on the server: the copy appears all at once, like a file that is put.

use std::sync::Arc;

use plugd_core::{Call, Status};

use crate::Shared;
use crate::blocking::{Parked, blocking, while_called};
use crate::change::FromToArgs;
use crate::digest::Algorithm;
use crate::entry::PERMISSION_BITS;
use crate::put::{Order, Receipt, Upload};
use crate::source::Source;

/// How many bytes are copied before the caller may stop it: some milliseconds' work.
const STEP_LEN: u64 = 16 << 20;

/// Copies a file.
pub(crate) async fn copy(shared: &Arc<Shared>, call: &mut Call) -> Result<(), Status> {
    let args: FromToArgs = call.args()?;
    let shared = Arc::clone(shared);
    let (source, mut upload) = blocking(move || prepare(&shared, &args)).await?;
    let mut position = 0;
    while position < source.meta().size() {
        let source = Arc::clone(&source);
        let step = blocking(move || {
            let copied = upload.copy(&source, STEP_LEN)?;
            Ok((upload, copied))
        });
        let copied;
        (upload, copied) = while_called(call, step).await?;
        position += copied;
    }
    let receipt = blocking(move || finish(&source, upload.take())).await?;
    call.set_trailer(&receipt)
}

fn prepare(shared: &Arc<Shared>, args: &FromToArgs) -> Result<(Arc<Source>, Parked<Upload>), Status> {
    let source = Source::new(args.from.as_path(), shared.root.open_file(args.from.as_path())?)?;
    let order = Order {
        path: args.to.as_path().to_owned(),
        size: Some(source.meta().size()),
        algorithm: Algorithm::None,
        no_clobber: args.no_clobber,
        replaces: None,
        mtime: None,
        mode: Some(source.meta().mode & PERMISSION_BITS),
        durability: shared.settings.durability,
    };
    let upload = Upload::prepare(shared, order, None, false, false)?;
    Ok((source, Parked::new(upload)))
}

fn finish(source: &Source, upload: Upload) -> Result<Receipt, Status> {
    source.ensure_unchanged()?;
    upload.finish(&[], None)
}
