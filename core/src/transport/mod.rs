//! Moves frames over any byte stream.
//!
//! [`Inbound`] and [`Outbound`] are the two halves of a framed stream; the client drives them itself. A server wraps a
//! stream in a [`Connection`], which yields one opening header after the other and, for each, the [`Input`](crate::Input)
//! and [`Output`](crate::Output) that a handler sees, and a [`Watch`] that keeps the stream moving meanwhile.
//!
//! Nothing here knows plugin names, deadlines or how an outcome becomes a status; the server's router does.

mod connection;
mod exchange;
mod file_part;
mod inbound;
mod outbound;
mod stream;

pub use connection::{Connection, Departure, GreetError};
pub use exchange::{Interrupt, Progress, State, Traffic, Violation, Watch};
pub use file_part::{FilePart, SourceError};
pub use inbound::Inbound;
pub use outbound::Outbound;
pub use stream::{Plain, Stream};

pub(crate) use exchange::{Exchange, FileRest};
