//! `plugd`: starts the server and stops it on signals.

use std::io;
use std::time::SystemTime;

use plugd_core::Registry;
use tokio::runtime::{Builder, Runtime};
use tracing::{error, info, warn};

use super::{Cli, Failure, Source, chain, config, print};
use crate::address::ListenAddress;
use crate::config::{Config, PluginConfig, stays_root};
use crate::process::Confinement;
use crate::server::{Control, Server};
use crate::{logging, process};

/// Serves until a signal says stop.
pub(super) fn start(cli: &Cli, registry: Registry) -> Result<(), Failure> {
    let origin = cli.source.origin()?;
    let config = config(&origin, &registry, &cli.listen)?;
    let filter = cli.log.as_deref().unwrap_or(&config.server.log);
    let format = cli.log_format.unwrap_or(config.server.log_format);
    logging::init(filter, format, &config.server.audit, &config.base_dir).map_err(Failure::Refused)?;
    info!(config = %origin.path().display(), version = env!("CARGO_PKG_VERSION"), "starting");
    if config.plugins.iter().all(|plugin| !plugin.enabled) {
        warn!("every plugin is disabled; enable one in the configuration");
    }
    process::raise_limit(config.server.connections_max);
    if stays_root(&config.server) {
        warn!("running as root; name who to become with `user` in [server]");
    }
    warn_of_risks(&config);
    let confinement = process::confine(&config).map_err(Failure::Refused)?;
    let runtime = runtime(config.server.workers).map_err(Failure::Runtime)?;
    let again = Again { source: cli.source.clone(), listen: cli.listen.clone(), confinement };
    let served = runtime.block_on(serve(config, registry, again));
    // Blocking work that outlived its call must not hold up the end of the process.
    runtime.shutdown_background();
    served
}

/// Says which risks are taken, each once, and which tokens have ended.
fn warn_of_risks(config: &Config) {
    for token in config.tokens.expired(SystemTime::now()) {
        warn!(token, "the token has expired; nobody can use it");
    }
    for finding in config.findings.iter().filter(|finding| finding.accepted) {
        warn!(insecure = finding.risk.name(), plugin = finding.plugin, "{}", finding.problem);
    }
}

/// One worker is the main thread itself, which saves the hand-over between threads at each wake-up.
fn runtime(workers: u32) -> io::Result<Runtime> {
    let mut builder = match workers {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    builder.worker_threads(workers as usize).enable_all().build()
}

async fn serve(config: Config, registry: Registry, again: Again) -> Result<(), Failure> {
    let greeting = greeting(&config);
    let server = Server::bind(config, registry).await?;
    let control = server.control();
    let signals = tokio::spawn(heed_signals(control, again).map_err(Failure::Runtime)?);
    for address in server.addresses() {
        print(&format!("plugd listening on {address}\n"))?;
    }
    if let Some(address) = server.addresses().first() {
        info!("try: {} {} {greeting}", client(), reach(address));
    }
    server.run().await;
    signals.abort();
    Ok(())
}

/// What a first caller asks for: something that is there.
fn greeting(config: &Config) -> &'static str {
    let is_upper = |plugin: &PluginConfig| plugin.enabled && plugin.name == "upper" && plugin.access.is_none();
    if config.plugins.iter().any(is_upper) { "call upper --data hello" } else { "list" }
}

/// The options that lead to an address: nobody's certificate is for an address that stands for all of them.
fn reach(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tls { host, port } if matches!(&**host, "0.0.0.0" | "::") => {
            reach(&ListenAddress::Tls { host: "localhost".into(), port: *port })
        }
        ListenAddress::Tls { .. } => format!("-s {address} --ca FILE"),
        _ => format!("-s {address}"),
    }
}

/// How the client is called from where the server was.
fn client() -> &'static str {
    // Cargo tells the programs that it runs where it is itself.
    if std::env::var_os("CARGO").is_some() { "cargo run -q --bin plug --" } else { "plug" }
}

/// How the configuration is read again.
struct Again {
    source: Source,
    listen: Vec<ListenAddress>,
    confinement: Confinement,
}

impl Again {
    /// Reads the configuration again and serves its plugins; with one that cannot be served everything stays as it was.
    #[cfg(unix)]
    fn reload(&self, control: &Control) {
        let config = || {
            let config = config(&self.source.origin()?, &Registry::linked()?, &self.listen)?;
            self.confinement.check(&config).map_err(Failure::Refused)?;
            warn_of_risks(&config);
            control.reload(config).map_err(|error| Failure::Refused(chain(&error)))
        };
        if let Err(failure) = config() {
            for line in chain(&failure).lines() {
                error!("configuration not read again: {line}");
            }
        }
    }
}

/// SIGTERM and SIGINT drain, a second one stops at once; SIGHUP reads the configuration again. The handlers are installed
/// before this returns.
#[cfg(unix)]
fn heed_signals(control: Control, again: Again) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        let mut stops = [Control::drain as fn(&Control), Control::stop_at_once].into_iter();
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => {
                    info!(signal = "SIGHUP", "told to read the configuration again");
                    again.reload(&control);
                    continue;
                }
            };
            info!(signal = name, "told to stop");
            stops.next().unwrap_or(Control::stop_at_once)(&control);
        }
    })
}

#[cfg(not(unix))]
fn heed_signals(control: Control, _again: Again) -> io::Result<impl Future<Output = ()>> {
    Ok(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            control.drain();
            if tokio::signal::ctrl_c().await.is_ok() {
                control.stop_at_once();
            }
        }
    })
}
