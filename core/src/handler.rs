//! The seam between plugd and everything that it can do.

use async_trait::async_trait;

use crate::{Call, Status};

/// Answers calls.
///
/// One instance serves every call of its plugin, many at once; state that calls share lives in the instance. A handler
/// sees neither a socket nor a frame nor another handler: it receives and sends data through the [`Call`] and returns.
/// The server turns what it returns, a panic, a missed deadline or a cancellation into the one end of the call.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one call.
    ///
    /// Input that is not received is read and thrown away after the return.
    ///
    /// # Cancellation
    ///
    /// When the caller cancels or vanishes, the deadline passes or the server stops, [`Call::cancelled`] resolves and
    /// receiving and sending fail with the status that the call will end with. A handler that has not returned a grace
    /// time later (2 s by default) is dropped at its next `await`, so what must be undone belongs in a `Drop`.
    ///
    /// # Errors
    ///
    /// The status to end the call with. Its origin is the handler, whatever it says.
    async fn handle(&self, call: &mut Call) -> Result<(), Status>;

    /// Is told, once, that no call will come any more and none runs; by default it does nothing. Work that the instance
    /// runs in its [`Context`](crate::Context) is told at the same time, and has the same time.
    ///
    /// # Cancellation
    ///
    /// What has not returned after the grace time is dropped. A process that is killed, and a server that is
    /// dropped, tell nobody: what must be undone in any case belongs in a `Drop`.
    async fn stop(&self, why: Stopped) {
        let _ = why;
    }
}

/// Why an instance is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The configuration was read again, and this plugin has other settings, is disabled, or is gone.
    Replaced,
    /// The server ends.
    ServerEnds,
}
