//! Runs what may wait for a disk away from the threads that serve connections.

use plugd_core::{Call, Input, Status};
use tokio::task::spawn_blocking;

/// Runs `work` on a thread that may wait. When the future is dropped, `work` still runs to its end.
///
/// A thread of the runtime's pool is held only while the disk works, never while a caller is waited for: the pool is
/// bounded, and callers that stand still would stop every other use of the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(Status::unavailable("stopping", "the server is stopping").with_detail(error)),
        },
    }
}

/// Waits for work that takes long without receiving or sending, but no longer than the call goes on.
pub(crate) async fn while_called<T>(
    call: &mut Call,
    work: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let cancelled = call.cancelled();
    tokio::select! {
        biased;
        result = work => result,
        () = cancelled => Err(stop_of(call.split().0).await),
    }
}

/// The status that a cancelled call ends with.
pub(crate) async fn stop_of(input: &mut Input) -> Status {
    loop {
        match input.recv_data().await {
            Err(status) => return status,
            // What was handed over before the call was stopped.
            Ok(Some(_)) => {}
            Ok(None) => return Status::cancelled("cancelled", "the call was cancelled"),
        }
    }
}
