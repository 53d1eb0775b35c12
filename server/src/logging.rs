//! Where log lines go: standard error, as text or as JSON, and the audit wherever it was told to go.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::{AuditTarget, LogFormat};

/// What the lines of the audit are sent to, those of calls and those of commands.
const AUDIT: &str = "plugd::audit";

/// Reads a filter, or says why it is none.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder().parse(filter).map_err(|error| {
        format!("{filter:?} is no log filter: {error}; allowed: error, warn, info, debug, trace, or TARGET=LEVEL, ...")
    })
}

/// Sends the events of this process to standard error, and panics with them; the audit goes to its own target.
///
/// `base_dir` is where the path of an audit file starts from.
///
/// # Errors
///
/// What is wrong with the filter, or why the audit cannot go where it should.
pub(crate) fn init(filter: &str, format: LogFormat, audit: &AuditTarget, base_dir: &Path) -> Result<(), String> {
    let filter = parse_filter(filter)?;
    match audit_layer(audit, base_dir)? {
        // One layer with one filter costs less for each event that nobody wants.
        None => {
            let builder = tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(io::stderr)
                .with_ansi(io::stderr().is_terminal());
            match format {
                LogFormat::Text => builder.try_init(),
                LogFormat::Json => builder.json().flatten_event(true).try_init(),
            }
            .map_err(|error| error.to_string())?;
        }
        Some(audit) => {
            let layer = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
            let log: Box<dyn Layer<Registry> + Send + Sync> = match format {
                LogFormat::Text => Box::new(layer),
                LogFormat::Json => Box::new(layer.json().flatten_event(true)),
            };
            // Both must want an event: the operator's filter, and the rule that the audit is not said twice.
            let log = log.with_filter(filter).with_filter(filter_fn(is_no_audit));
            let audit = audit.with_filter(Targets::new().with_target(AUDIT, LevelFilter::INFO));
            let layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> = vec![Box::new(log), Box::new(audit)];
            tracing_subscriber::registry().with(layers).try_init().map_err(|error| error.to_string())?;
        }
    }
    std::panic::set_hook(Box::new(|panic| tracing::error!(target: "plugd::panic", "{panic}")));
    Ok(())
}

fn is_no_audit(metadata: &Metadata<'_>) -> bool {
    metadata.target() != AUDIT
}

/// What takes the audit, when it does not go where the log goes.
fn audit_layer(audit: &AuditTarget, base_dir: &Path) -> Result<Option<Box<dyn Layer<Registry> + Send + Sync>>, String> {
    match audit {
        AuditTarget::Log => Ok(None),
        AuditTarget::File(path) => {
            let path = base_dir.join(path);
            let refused = |error| format!("cannot write the audit to {}: {error}", path.display());
            let file = Arc::new(open_private(&path).map_err(refused)?);
            Ok(Some(Box::new(fmt::layer().json().flatten_event(true).with_writer(file))))
        }
        AuditTarget::Journald => journald().map(Some),
    }
}

/// Opens a file to add lines to. It tells who ran what, which is nobody's business but its owner's.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(target_os = "linux")]
fn journald() -> Result<Box<dyn Layer<Registry> + Send + Sync>, String> {
    let layer = tracing_journald::layer().map_err(|error| format!("cannot write the audit to journald: {error}"))?;
    Ok(Box::new(layer.with_syslog_identifier("plugd-audit".to_owned())))
}

#[cfg(not(target_os = "linux"))]
fn journald() -> Result<Box<dyn Layer<Registry> + Send + Sync>, String> {
    Err("cannot write the audit to journald: there is none on this system".to_owned())
}
