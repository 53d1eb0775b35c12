//! Calls any plugin of a plugd server, from a program or from a shell.
//!
//! [`Client`] is one connection and makes one call after the other on it; [`Exchange`] is a call that streams. The two
//! halves of a connection, [`Sender`] and [`Receiver`], also work apart, so that calls can be sent ahead of their
//! answers. The program `plug` is [`cli::main`] and uses nothing else.
//!
//! A call has ended well only when its end has arrived: a connection that breaks before is [`ClientError::Lost`].
//!
//! ```no_run
//! use plugd_client::{Client, Open, ServerAddress};
//!
//! # async fn shout() -> Result<(), Box<dyn std::error::Error>> {
//! let address: ServerAddress = "tcp://127.0.0.1:7584".parse()?;
//! let mut client = Client::connect(&address).await?;
//! let reply = client.call(&Open::new("upper"), "hello").await?;
//! assert_eq!(reply.bytes(), "HELLO");
//! # Ok(())
//! # }
//! ```

mod address;
pub mod cli;
mod client;
mod connect;
mod error;
mod exchange;
mod progress;
mod receiver;
mod recording;
mod reply;
mod sender;
mod setup;
mod tls;
mod token;

pub use address::{AddressError, PORT_DEFAULT, ServerAddress};
pub use client::Client;
pub use connect::Connector;
pub use error::{CallError, ClientError};
pub use exchange::Exchange;
pub use plugd_core::wire::Open;
pub use plugd_core::{Code, Data, Origin, Status};
pub use receiver::Receiver;
pub use recording::{RECORDED_LEN_MAX, Recorder};
pub use reply::{REPLY_LEN_MAX, Reply};
pub use sender::Sender;
pub use setup::SetupError;
pub use tls::{Tls, TlsFiles};
pub use token::Token;
