//! What a plugd handler sees of the world, and the framed transport below it.
//!
//! A handler author needs [`Handler`], [`Call`], [`Status`], [`Descriptor`] and [`register!`]; the [`prelude`] holds
//! them all. The server and the client need [`wire`], the bytes of the protocol as pure values, and [`transport`],
//! which moves them over any [`AsyncRead`](tokio::io::AsyncRead) and [`AsyncWrite`](tokio::io::AsyncWrite).
//!
//! This crate knows no files, no configuration files and no sockets: a plugin's settings reach it as plain data.
//!
//! ```
//! use plugd_core::prelude::*;
//!
//! #[derive(Debug)]
//! struct Reverse;
//!
//! #[async_trait]
//! impl Handler for Reverse {
//!     async fn handle(&self, call: &mut Call) -> Result<(), Status> {
//!         while let Some(data) = call.recv().await? {
//!             call.send(data.iter().rev().copied().collect::<Vec<u8>>()).await?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! plugd_core::register!(|| {
//!     Descriptor::new("reverse", "reverses the bytes of each frame")
//!         .operation(Operation::new("reverse", "reverses the bytes of each frame").streams(Streaming::Both))
//!         .handler(|| Reverse)
//! });
//! ```

mod batch;
mod call;
mod caller;
mod context;
mod descriptor;
mod handler;
mod layer;
mod metrics;
mod name;
mod registry;
pub mod schema;
mod settings;
mod status;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transport;
pub mod wire;

pub use batch::Batch;
pub use call::{Call, Data, Input, Output, Request, Rights};
pub use caller::{Caller, Peer, Principal};
pub use context::Context;
pub use descriptor::{Descriptor, NoArguments, Operation, Streaming};
pub use handler::{Handler, Stopped};
pub use layer::{
    CallEnd, CallFacts, Layer, LayerBlueprint, LayerDescriptor, LayerSettings, Passage, PluginFacts, Refusal,
};
pub use metrics::Metrics;
pub use name::{NAME_LEN_MAX, did_you_mean, is_legal_name, nearest};
pub use registry::{LayerRegistration, Registration, Registry, RegistryError};
pub use schema::{UnknownKey, allowed_values, unknown_keys};
pub use settings::{Blueprint, Reading, SettingError, Settings, StartError, Writes, read_settings};
pub use status::{Code, Origin, Status};

#[doc(hidden)]
pub use inventory;

/// Everything that an ordinary handler crate imports.
pub mod prelude {
    pub use crate::{
        Call, Code, Context, Data, Descriptor, Handler, NoArguments, Operation, SettingError, Settings, StartError,
        Status, Stopped, Streaming,
    };
    pub use async_trait::async_trait;
    pub use bytes::Bytes;
}

/// The examples of the pages, run as they stand there.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    mod readme {}
    #[doc = include_str!("../../docs/writing-a-handler.md")]
    mod writing_a_handler {}
}
