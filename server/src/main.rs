//! The program `plugd`.

fn main() -> std::process::ExitCode {
    plugd_server::main()
}
