//! Where log lines go: standard error, as text or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Reads a filter, or says why it is none.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(filter).map_err(|error| {
        format!("{filter:?} is no log filter: {error}; allowed: error, warn, info, debug, trace, or TARGET=LEVEL, ...")
    })
}

/// Sends the events of this process to standard error, and panics with them.
///
/// # Errors
///
/// What is wrong with the filter.
pub(crate) fn init(filter: &str, format: LogFormat) -> Result<(), String> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let result = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    result.map_err(|error| error.to_string())?;
    std::panic::set_hook(Box::new(|panic| tracing::error!(target: "plugd::panic", "{panic}")));
    Ok(())
}
