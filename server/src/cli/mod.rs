//! The command line of the server program.

mod author;
mod cert;
mod describe;
mod exposure;
mod inspect;
mod schema;
mod start;
mod token;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use plugd_core::Registry;

use crate::address::ListenAddress;
use crate::config::{Config, ConfigErrors, LogFormat, Origin};

/// The commented configuration that `plugd init` writes.
const STARTER: &str = include_str!("../../../plugins.toml");

/// Its first line, which names a file that only stands beside it here.
const STARTER_SCHEMA: &str = "#:schema docs/plugins.schema.json\n";

/// The file that is looked for where none is named.
const DEFAULT_FILE: &str = "plugins.toml";

/// Serves the plugins that plugins.toml enables.
///
/// Without a subcommand the server starts. It prints one line for each address when it is ready, and logs to standard
/// error. SIGTERM and SIGINT let running calls finish for the drain time; a second one stops at once. SIGHUP reads the
/// configuration again and serves its plugins; running calls end as they began.
#[derive(Debug, Parser)]
#[command(name = "plugd", version, after_help = "Exit codes: 0 done, 1 refused or failed, 2 wrong usage.")]
struct Cli {
    #[command(flatten)]
    source: Source,
    /// Listen here instead of where the configuration says; may be given several times
    #[arg(long, value_name = "URL")]
    listen: Vec<ListenAddress>,
    /// What to log: a level, or a filter such as `info,plugd::call=debug`
    #[arg(long, env = "PLUGD_LOG", value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", value_parser = parse_log_format)]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
struct Source {
    /// The configuration; without it ./plugins.toml, and without that a built-in one (echo and upper)
    #[arg(long, global = true, env = "PLUGD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and report everything that is wrong with it
    Check {
        /// Show which commands are open to whom at which address, and fail when that is forbidden
        #[arg(long)]
        exposure: bool,
        /// Print JSON
        #[arg(long, requires = "exposure")]
        json: bool,
    },
    /// List the handlers in this program, and the plugins that use them
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Describe a plugin, or a handler: its operations, their arguments, its settings
    Describe {
        /// The plugin's or the handler's name
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a JSON Schema of plugins.toml with the handlers in this program, for editors that complete and check it
    Schema,
    /// Make a crate with a handler of your own, which builds and passes its tests
    NewHandler(author::NewHandler),
    /// Build a server with the handlers of others, or without some of ours; needs the Rust toolchain
    Build(author::Build),
    /// Make tokens, which callers prove themselves with
    #[command(subcommand)]
    Token(token::Token),
    /// Make certificates to try TLS with
    #[command(subcommand)]
    Cert(cert::Cert),
    /// Write a commented plugins.toml to start from
    Init {
        /// Where to write it; an existing file is left alone
        #[arg(default_value = DEFAULT_FILE)]
        file: PathBuf,
    },
}

fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("allowed: text, json".to_owned()),
    }
}

/// Why the program ends with a code other than 0.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Registry(#[from] plugd_core::RegistryError),
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    #[error(transparent)]
    Bind(#[from] crate::server::BindError),
    #[error("{0}")]
    Refused(String),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

/// Runs the program `plugd` with the handlers that are linked into the caller, and returns its exit code.
///
/// A program of one's own names its handler crates and calls this:
///
/// ```no_run
/// // use my_handler as _;
///
/// fn main() -> std::process::ExitCode {
///     plugd_server::main()
/// }
/// ```
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads our output has enough of it.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "{}", chain(&failure));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let registry = Registry::linked()?;
    match &cli.command {
        None => start::start(&cli, registry),
        Some(Command::Check { exposure: true, json }) => {
            exposure::show(&cli.source.origin()?, &registry, &cli.listen, *json)
        }
        Some(Command::Check { .. }) => inspect::check(&cli.source.origin()?, &registry, &cli.listen),
        Some(Command::List { json }) => inspect::list(&cli.source.origin()?, &registry, *json),
        Some(Command::Describe { name, json }) => describe::describe(cli.source.origin(), &registry, name, *json),
        Some(Command::Schema) => schema::schema(&registry),
        Some(Command::NewHandler(wanted)) => author::new_handler(wanted, &registry),
        Some(Command::Build(wanted)) => author::build(wanted),
        Some(Command::Token(wanted)) => token::run(wanted),
        Some(Command::Cert(wanted)) => cert::run(wanted),
        Some(Command::Init { file }) => init(file),
    }
}

impl Source {
    /// Reads the file that is named, or found, or built in.
    fn origin(&self) -> Result<Origin, ConfigErrors> {
        match &self.config {
            Some(file) => Origin::file(file),
            None if PathBuf::from(DEFAULT_FILE).exists() => Origin::file(DEFAULT_FILE.as_ref()),
            None => Ok(Origin::built_in()),
        }
    }
}

fn init(path: &PathBuf) -> Result<(), Failure> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Refused(format!("{}: exists already; left alone", path.display())),
        _ => Failure::Refused(format!("{}: cannot be written: {error}", path.display())),
    };
    let mut file = std::fs::File::create_new(path).map_err(refused)?;
    let starter = STARTER.strip_prefix(STARTER_SCHEMA).unwrap_or(STARTER);
    file.write_all(starter.as_bytes()).map_err(refused)?;
    print(&format!("wrote {}; start the server with: plugd --config {0}\n", path.display()))
}

fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Output)
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn config(origin: &Origin, registry: &Registry, listen: &[ListenAddress]) -> Result<Config, Failure> {
    Ok(Config::parse(origin, registry, listen)?)
}
