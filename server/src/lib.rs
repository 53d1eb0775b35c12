//! Serves the plugins that a configuration enables, over framed connections.
//!
//! A program builds a [`Config`] from the handlers that are linked into it, binds a [`Server`] to it, and runs that
//! until it is told to stop. The program `plugd` is [`main`] and nothing else, so that a server with other handlers
//! needs three lines.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use plugd_server::{Config, Origin, Registry, Server};
//!
//! let registry = Registry::linked()?;
//! let text = "[server]\nlisten = [\"tcp://127.0.0.1:0\"]\n[plugins.echo]\n";
//! let config = Config::parse(&Origin::text(text), &registry, &[])?;
//! let server = Server::bind(config, registry).await?;
//! println!("serving on {}", server.addresses()[0]);
//! let control = server.control();
//! control.drain();
//! server.run().await;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```

mod access;
mod address;
mod alarm;
mod audit;
mod cli;
mod config;
mod connection;
mod handlers;
mod identity;
mod introspection;
mod layers;
mod limits;
mod listener;
mod logging;
mod plugin;
mod process;
mod reload;
mod rescue;
mod router;
mod server;
mod stopping;
mod tls;

pub use address::{AddressError, DEFAULT_PORT, ListenAddress};
pub use cli::main;
pub use config::{AuditTarget, Config, ConfigError, ConfigErrors, LogFormat, Origin, PluginConfig, ServerSettings};
pub use plugd_core::Registry;
pub use plugin::Changes;
pub use reload::ReloadError;
pub use server::{BindError, Control, Server};
pub use tls::TlsError;
