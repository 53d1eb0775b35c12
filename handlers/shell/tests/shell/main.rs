//! The handler over a connection in memory, with real commands.

#[path = "../../../echo/tests/memory/mod.rs"]
mod memory;

mod ends;
mod world;
