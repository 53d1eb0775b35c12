//! The handler over a connection in memory, with real commands.

mod ends;
mod jobs;
mod limits;
mod named;
mod streams;
mod terminals;
mod tree;
mod world;
