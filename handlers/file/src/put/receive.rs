//! Moves the input into an upload: while one batch is written and summed up, the next one arrives.

use std::pin::pin;
use std::sync::Arc;

use plugd_core::{Input, Status};

use super::inflow::Inflow;
use super::upload::{Receipt, Upload};
use crate::blocking::{Parked, blocking, stop_of};
use crate::digest::Hasher;
use crate::source::HASH_STEP_LEN;

/// Receives the whole input and publishes the file, unless another call takes the upload over.
pub(super) async fn receive(
    upload: Parked<Upload>,
    inflow: Inflow,
    input: &mut Input,
    cancelled: impl Future<Output = ()>,
) -> Result<Receipt, Status> {
    let Some(superseded) = upload.superseded() else {
        return transfer(upload, inflow, input, cancelled).await;
    };
    let status = upload.superseded_status();
    tokio::select! {
        biased;
        () = superseded.cancelled() => Err(status),
        receipt = transfer(upload, inflow, input, cancelled) => receipt,
    }
}

async fn transfer(
    mut upload: Parked<Upload>,
    mut inflow: Inflow,
    input: &mut Input,
    cancelled: impl Future<Output = ()>,
) -> Result<Receipt, Status> {
    let mut hasher = Hasher::new(upload.algorithm());
    if upload.offset() > 0 && !hasher.is_none() {
        (upload, hasher) = tokio::select! {
            biased;
            () = cancelled => return Err(stop_of(input).await),
            hashed = hash_beginning(upload, hasher) => hashed?,
        };
    }
    loop {
        if let Err(status) = inflow.fill(input).await {
            return give_up(upload, inflow, status).await;
        }
        if inflow.is_whole() {
            return blocking(move || upload.take().finish_with(inflow, hasher)).await;
        }
        let filled;
        (upload, hasher, filled) = step(upload, hasher, &mut inflow, input).await?;
        if let Err(status) = filled {
            return give_up(upload, inflow, status).await;
        }
    }
}

/// Sums up what is there already of an upload that is carried on.
async fn hash_beginning(mut upload: Parked<Upload>, mut hasher: Hasher) -> Result<(Parked<Upload>, Hasher), Status> {
    let mut position = 0;
    while position < upload.offset() {
        (upload, hasher, position) = blocking(move || {
            let position = upload.hash(position, position + HASH_STEP_LEN, &mut hasher)?;
            Ok((upload, hasher, position))
        })
        .await?;
    }
    Ok((upload, hasher))
}

/// Writes and sums up what has come, at the same time, while more comes. The last result is that of the coming.
async fn step(
    mut upload: Parked<Upload>,
    mut hasher: Hasher,
    inflow: &mut Inflow,
    input: &mut Input,
) -> Result<(Parked<Upload>, Hasher, Result<(), Status>), Status> {
    let pieces = Arc::new(inflow.take());
    let written = {
        let pieces = Arc::clone(&pieces);
        blocking(move || {
            upload.write(&pieces)?;
            Ok(upload)
        })
    };
    let hashed = async {
        if hasher.is_none() {
            return Ok(hasher);
        }
        blocking(move || {
            pieces.iter().for_each(|piece| hasher.update(piece));
            Ok(hasher)
        })
        .await
    };
    let mut work = pin!(async { tokio::try_join!(written, hashed) });
    let mut filled = None;
    loop {
        tokio::select! {
            biased;
            done = &mut work => {
                let (upload, hasher) = done?;
                return Ok((upload, hasher, filled.unwrap_or(Ok(()))));
            }
            result = inflow.fill(input), if filled.is_none() => filled = Some(result),
        }
    }
}

/// Ends an upload whose call is over.
async fn give_up(upload: Parked<Upload>, inflow: Inflow, status: Status) -> Result<Receipt, Status> {
    blocking(move || {
        upload.take().give_up(inflow);
        Err(status)
    })
    .await
}
