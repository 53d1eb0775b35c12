//! Runs what may wait for a disk away from the threads that serve connections.

use std::ops::{Deref, DerefMut};

use plugd_core::{Call, Input, Status};
use tokio::runtime::Handle;
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

/// A value whose end may wait for a disk: dropped by a future, it is dropped on a thread that may wait.
#[derive(Debug)]
pub(crate) struct Parked<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Parked<T> {
    pub(crate) fn new(value: T) -> Parked<T> {
        Parked(Some(value))
    }

    /// The value itself, on a thread that may wait.
    pub(crate) fn take(mut self) -> T {
        self.0.take().expect(TAKEN)
    }
}

/// Why there is always a value.
const TAKEN: &str = "nobody takes the value and keeps its place";

impl<T: Send + 'static> Deref for Parked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(TAKEN)
    }
}

impl<T: Send + 'static> DerefMut for Parked<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(TAKEN)
    }
}

impl<T: Send + 'static> Drop for Parked<T> {
    fn drop(&mut self) {
        if let (Some(value), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // A runtime that is stopping drops it here and now.
            runtime.spawn_blocking(move || drop(value));
        }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    struct Tell(mpsc::Sender<ThreadId>);

    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[tokio::test]
    async fn what_is_parked_ends_on_another_thread_unless_it_is_taken() {
        let (sender, ended) = mpsc::channel();
        drop(Parked::new(Tell(sender.clone())).take());
        assert_eq!(ended.recv(), Ok(thread::current().id()));
        drop(Parked::new(Tell(sender)));
        assert_ne!(ended.recv(), Ok(thread::current().id()));
    }

    #[test]
    fn without_a_runtime_what_is_parked_ends_where_it_is_dropped() {
        let (sender, ended) = mpsc::channel();
        drop(Parked::new(Tell(sender)));
        assert_eq!(ended.recv(), Ok(thread::current().id()));
    }
}
