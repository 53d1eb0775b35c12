//! The handler over a connection in memory and a directory on disk.

mod changes;
mod conditions;
mod confinement;
mod cuts;
mod gets;
mod listings;
mod put_alls;
mod puts;
mod settings;
mod space;
mod world;
