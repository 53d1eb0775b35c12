//! `plugd new-handler` and `plugd build`: handlers by others, and servers with them.

mod build;
mod cargo;
mod crates;
mod new_handler;
mod source;
mod workspace;

pub(super) use build::{Build, build};
pub(super) use new_handler::{NewHandler, new_handler};
