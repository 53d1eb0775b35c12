//! The handler over a connection in memory, with real commands.

#[path = "../../../echo/tests/memory/mod.rs"]
mod memory;

mod ends;
mod jobs;
mod limits;
mod named;
mod streams;
mod terminals;
mod tree;
mod world;
