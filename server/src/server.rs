//! A server from bind to stop.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use plugd_core::{Registry, StartError};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::address::ListenAddress;
use crate::config::{Config, Risk, ServerSettings};
use crate::connection::{self, Shared};
use crate::identity::Gate;
use crate::layers::Layers;
use crate::limits::{Full, Places, Seldom};
use crate::listener::{Arrival, Listener};
use crate::plugin::Plugins;
use crate::process::Account;
use crate::reload::Reloading;
use crate::rescue::Rescue;
use crate::router::Router;
use crate::stopping::{Stage, Stopping};
use crate::tls::{Tls, TlsError};

/// How long the accept loop rests after an error such as "too many open files", which only time mends.
const ACCEPT_ERROR_PAUSE: Duration = Duration::from_millis(100);

/// How long calls that were stopped may take, beyond the grace of their handlers, to write their ends.
const LAST_ENDS_TIMEOUT: Duration = Duration::from_secs(3);

/// How many connections over the limit are told so at once; the rest are dropped, since each costs a descriptor.
const REFUSALS_MAX: usize = 64;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}{}", hint(.source))]
    Listen {
        /// The address.
        address: ListenAddress,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What an address needs for TLS is missing, or of no use.
    #[error("cannot serve TLS at {address}")]
    Tls {
        /// The address.
        address: ListenAddress,
        /// Why.
        #[source]
        source: TlsError,
    },
    /// The process may not become the user and group of the settings.
    #[error("cannot become {account}; only root may")]
    Account {
        /// The user and the group.
        account: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer could not be built.
    #[error("layer \"{layer}\" cannot start")]
    Layer {
        /// The layer.
        layer: String,
        /// Why.
        #[source]
        source: StartError,
    },
    /// A plugin could not be built.
    #[error("plugin \"{plugin}\" cannot start")]
    Start {
        /// The plugin.
        plugin: String,
        /// Why.
        #[source]
        source: StartError,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another server is running there? port 0 takes a free one)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need privileges)",
        _ => "",
    }
}

/// Tells a running server to stop.
#[derive(Clone)]
pub struct Control {
    stopping: Stopping,
    at_once: CancellationToken,
    /// Gone with the server.
    pub(crate) shared: Weak<Shared>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Control").field("stopping", &self.stopping).finish_non_exhaustive()
    }
}

impl Control {
    /// Stops accepting connections and beginning calls; calls that run may finish within the drain time. A call that
    /// has not, ends with origin `drain`.
    pub fn drain(&self) {
        self.stopping.advance(Stage::Draining);
    }

    /// Stops at once: connections are dropped where they are, and [`Server::run`] returns.
    pub fn stop_at_once(&self) {
        self.drain();
        self.at_once.cancel();
    }
}

/// A server that is bound to its addresses and has built its plugins.
pub struct Server {
    shared: Arc<Shared>,
    listeners: Vec<Arc<Listener>>,
    addresses: Vec<ListenAddress>,
    control: Control,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Server {
    /// Binds every address, becomes the user of the settings if they name one, then builds every enabled plugin, and when all
    /// are built begins the work that they do beside their calls. The registry is the one that `config` was checked against.
    ///
    /// # Errors
    ///
    /// [`BindError`]; nothing is left bound.
    pub async fn bind(config: Config, registry: Registry) -> Result<Server, BindError> {
        let Config { server: settings, plugins, layers, tokens, fixed, base_dir, .. } = config;
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        let mut certificates = Vec::new();
        for address in &settings.listen {
            let refused = |source| BindError::Listen { address: address.clone(), source };
            let tls = match address.is_tls() {
                true => Some(Arc::new(load_tls(&settings, address, &base_dir)?)),
                false => None,
            };
            let congestion = settings.congestion.as_deref();
            certificates.extend(tls.clone());
            let listener = Listener::bind(address, congestion, settings.unix_mode, tls).await.map_err(refused)?;
            addresses.push(listener.address().map_err(refused)?);
            listeners.push(Arc::new(listener));
        }
        if let Some(account) = &settings.account {
            become_account(account, &addresses)?;
        }
        let layers = Layers::build(layers, &base_dir).map_err(|(layer, source)| BindError::Layer { layer, source })?;
        let plugins = Plugins::build(plugins, &registry, &base_dir, &layers, tokens, None)
            .map_err(|(plugin, source)| BindError::Start { plugin, source })?;
        plugins.start();
        let stopping = Stopping::default();
        let router = Router::new(plugins, settings.grace);
        let reloading = Reloading::new(registry, layers, certificates, fixed);
        let connections = AtomicU64::new(1);
        let takes_cleartext = settings.accepted.contains(&Risk::CleartextTokens);
        let gate = Gate::new(settings.token_failures_max, settings.token_penalty, takes_cleartext);
        let stops = stopping.clone();
        let shared = Arc::new(Shared { router, settings, stopping: stops, connections, reloading, gate });
        let control = Control { stopping, at_once: CancellationToken::new(), shared: Arc::downgrade(&shared) };
        Ok(Server { shared, listeners, addresses, control })
    }

    /// Where the server listens, in the order of the configuration, with the port that port 0 became.
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// A handle that stops the server.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Serves until [`Control`] says stop and the last call has ended.
    ///
    /// # Cancellation
    ///
    /// Dropping the future stops at once; handlers are dropped soon after.
    pub async fn run(self) {
        let Server { shared, listeners, control, .. } = self;
        let connections = Arc::new(Connections::new(&shared));
        let mut accepting = JoinSet::new();
        for listener in &listeners {
            accepting.spawn(accept(listener.clone(), shared.clone(), connections.clone()));
        }
        let accept_too = {
            // The sockets are closed and the plugins dropped with the server, and not when the rescue has noticed its end.
            let listeners: Vec<Weak<Listener>> = listeners.iter().map(Arc::downgrade).collect();
            let (shared, connections) = (Arc::downgrade(&shared), Arc::downgrade(&connections));
            move || match (shared.upgrade(), connections.upgrade()) {
                (Some(shared), Some(connections)) => accept_again(&listeners, &shared, &connections),
                _ => JoinSet::new(),
            }
        };
        let let_go_too = {
            let connections = Arc::downgrade(&connections);
            move || connections.upgrade().into_iter().for_each(|connections| let_go(&mut connections.tasks()))
        };
        let _rescue = Rescue::watch(accept_too, let_go_too);
        drop(listeners);
        tokio::select! {
            () = control.stopping.reached(Stage::Draining) => {}
            () = control.at_once.cancelled() => {}
        }
        accepting.shutdown().await;
        let mut tasks = std::mem::take(&mut *connections.tasks());
        tokio::select! {
            () = drain(&shared, &mut tasks) => {}
            () = control.at_once.cancelled() => info!("stopping at once"),
        }
        // Whoever is still there is dropped before this returns, since a handler may have commands to kill.
        if timeout(LAST_ENDS_TIMEOUT, tasks.shutdown()).await.is_err() {
            warn!("a handler blocks its thread; left behind");
        }
        let grace = shared.settings.grace;
        let replaced = shared.reloading.finish();
        let plugins = shared.router.plugins();
        let told = async { tokio::join!(plugins.stop(grace), replaced.stopped(grace)) };
        tokio::select! {
            _ = told => {}
            () = control.at_once.cancelled() => {}
        }
    }
}

/// Reads what an address needs for TLS.
pub(crate) fn load_tls(settings: &ServerSettings, address: &ListenAddress, base_dir: &Path) -> Result<Tls, BindError> {
    let found = settings.tls.at(address).map_err(TlsError::Config);
    let loaded = found.and_then(|found| Tls::load(found, base_dir));
    loaded.map_err(|source| BindError::Tls { address: address.clone(), source })
}

/// Becomes another user, who also gets the unix sockets: only their owner may connect.
fn become_account(account: &Account, addresses: &[ListenAddress]) -> Result<(), BindError> {
    let refused = |source| BindError::Account { account: account.to_string(), source };
    for address in addresses {
        if let ListenAddress::Unix(path) = address {
            account.own(path).map_err(refused)?;
        }
    }
    account.become_it().map_err(refused)?;
    info!(%account, "became another user");
    Ok(())
}

/// The connections of a server, and how many more it takes.
struct Connections {
    tasks: Mutex<JoinSet<()>>,
    places: Arc<Places>,
    refusals: Arc<Semaphore>,
    refused: [Seldom; 3],
    failed: Seldom,
}

impl Connections {
    fn new(shared: &Shared) -> Connections {
        Connections {
            tasks: Mutex::default(),
            places: Places::new(shared.settings.connections_max, &shared.settings.limits),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            refused: Default::default(),
            failed: Seldom::default(),
        }
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a connection when there is room for it; else gives it back, with what is full.
    fn take(&self, shared: &Arc<Shared>, arrival: Arrival) -> Option<(Arrival, Full)> {
        let mut tasks = self.tasks();
        let_go(&mut tasks);
        match self.places.take(&arrival.caller) {
            Ok(place) => {
                connection::serve(&mut tasks, shared.clone(), arrival, place);
                None
            }
            Err(full) => Some((arrival, full)),
        }
    }

    /// Turns a connection away when there is room for that, else drops it.
    fn turn_away(&self, shared: &Arc<Shared>, arrival: Arrival, full: Full) {
        if let Some(count) = self.refused[full as usize].count() {
            let (limit, allowed) = (full.reason(), self.places.allowed(full));
            warn!(peer = %arrival.caller, limit, allowed, count, "too many connections");
        }
        if let Ok(permit) = self.refusals.clone().try_acquire_owned() {
            self.tasks().spawn(connection::turn_away(
                shared.clone(),
                arrival.transport,
                self.places.refusal(full),
                permit,
            ));
        }
    }
}

/// Lets go of connections that have ended, each of which holds on to the runtime that it was on.
fn let_go(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.try_join_next() {
        if let Err(error) = ended {
            error!(%error, "connection failed");
        }
    }
}

/// Accepts connections on the runtime that this is called on as well, as long as the server accepts any.
fn accept_again(listeners: &[Weak<Listener>], shared: &Arc<Shared>, connections: &Arc<Connections>) -> JoinSet<()> {
    let mut accepting = JoinSet::new();
    for listener in listeners.iter().filter_map(Weak::upgrade) {
        let listener = match listener.again() {
            Ok(listener) => Arc::new(listener),
            Err(error) => {
                warn!(%error, "cannot accept on another thread");
                continue;
            }
        };
        let (shared, connections) = (shared.clone(), connections.clone());
        accepting.spawn(async move {
            tokio::select! {
                () = shared.stopping.reached(Stage::Draining) => {}
                () = accept(listener, shared.clone(), connections) => {}
            }
        });
    }
    accepting
}

/// Accepts connections until it is aborted.
async fn accept(listener: Arc<Listener>, shared: Arc<Shared>, connections: Arc<Connections>) {
    loop {
        match listener.accept().await {
            Ok(arrival) => {
                debug!(peer = %arrival.caller, "connection accepted");
                let Some((arrival, _)) = connections.take(&shared, arrival) else { continue };
                // Connections that have ended give their places back when their tasks get to it; only those that are
                // really there count.
                yield_now().await;
                if let Some((arrival, full)) = connections.take(&shared, arrival) {
                    connections.turn_away(&shared, arrival, full);
                }
            }
            // The peer was gone before it was looked at; the next one may be waiting.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if let Some(count) = connections.failed.count() {
                    warn!(%error, count, "cannot accept a connection");
                }
                sleep(ACCEPT_ERROR_PAUSE).await;
            }
        }
    }
}

/// Waits for the last connection: first for calls to finish by themselves, then for those that are stopped.
async fn drain(shared: &Shared, connections: &mut JoinSet<()>) {
    let settings = &shared.settings;
    info!(drain_timeout = %humantime::format_duration(settings.drain_timeout), "draining");
    if timeout(settings.drain_timeout, all_ended(connections)).await.is_ok() {
        return info!("drained");
    }
    shared.stopping.advance(Stage::Ended);
    match timeout(settings.grace + LAST_ENDS_TIMEOUT, all_ended(connections)).await {
        Ok(()) => info!("drained; the last calls were ended"),
        Err(_) => warn!("connections dropped that did not end"),
    }
}

async fn all_ended(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}
