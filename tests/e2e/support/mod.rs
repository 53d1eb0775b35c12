//! What the tests share.

pub(crate) mod commands;
pub(crate) mod demo;
pub(crate) mod depot;
pub(crate) mod evil;
pub(crate) mod fake;
pub(crate) mod layers;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod server;
pub(crate) mod teletype;
pub(crate) mod terminal;
pub(crate) mod tls;

use std::time::Duration;

use tokio::time::timeout;

/// How long a test waits for something that should come at once, before it calls it missing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what should come at once.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} within {PATIENCE:?}"),
    }
}

/// Waits until something holds that should do so at once.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let polled = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, polled).await;
}
