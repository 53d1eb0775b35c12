//! Runs handlers in memory, without ports and without sleeps, for their authors' tests. Feature `testing`.
//!
//! A [`Plugin`] is an instance of a handler, built from settings as a server builds it. [`Plugin::call`] makes a call of it
//! from what the caller says; awaited, it gives everything that came back. [`TestCall::start`] gives the caller's side of a
//! call that runs instead: for one that cancels, reads slowly, ends its input early, or vanishes. Arguments are checked
//! against the operation's schema first, and panics, deadlines and cancellation become statuses, as in a server.
//!
//! ```
//! use plugd_core::prelude::*;
//! use plugd_core::testing::Plugin;
//!
//! #[derive(Debug)]
//! struct Length;
//!
//! #[async_trait]
//! impl Handler for Length {
//!     async fn handle(&self, call: &mut Call) -> Result<(), Status> {
//!         let mut len = 0;
//!         while let Some(data) = call.recv().await? {
//!             len += data.len();
//!         }
//!         call.send(format!("{len}\n")).await
//!     }
//! }
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let descriptor = Descriptor::new("length", "counts").operation(Operation::new("length", "counts")).handler(|| Length);
//! let plugin = Plugin::of(&descriptor, serde_json::json!({}));
//! let answer = plugin.call("length").send("hello, ").send("world").await;
//! assert_eq!(answer.ok().text(), "12\n");
//! # });
//! ```
//!
//! [`conformance!`](crate::conformance) expands to the tests that every handler must pass, and [`replay()`] runs calls again
//! that `plug --record` has stored.

mod answer;
mod call;
pub mod conformance;
mod generate;
mod plugin;
mod readme;
mod replay;
mod serve;
mod session;

pub use answer::Answer;
pub use call::TestCall;
pub use plugin::Plugin;
pub use readme::check_readme;
pub use replay::{Recorded, RecordedData, RecordedStatus, Replay, replay};
pub use session::{Receiver, Sender, Session};
