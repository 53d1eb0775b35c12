//! End-to-end tests: real sockets, and real processes where a process is what matters.

mod connection;
mod knocks;
mod lifecycle;
mod support;
mod vectors;
