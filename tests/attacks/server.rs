//! The server that is attacked: plugd as it is, and beside its handlers one that misbehaves in every way.

#[path = "../e2e/support/demo.rs"]
mod demo;

fn main() -> std::process::ExitCode {
    plugd_server::main()
}
