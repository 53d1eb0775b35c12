//! The program `plug`.

fn main() -> std::process::ExitCode {
    plugd_client::cli::main()
}
