//! Other plugins for a server that runs: calls that run end as they began, and no connection is lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plugd_core::{Registry, StartError};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::config::{Config, exposed};
use crate::layers::Layers;
use crate::plugin::{Changes, Plugins};
use crate::server::Control;
use crate::stopping::Stage;
use crate::tls::{Renewed, Tls, TlsError};

/// The sections that are read at the start alone.
const FIXED: [&str; 2] = ["server", "layers"];

/// What a server keeps to build other plugins.
pub(crate) struct Reloading {
    registry: Registry,
    layers: Layers,
    /// Of each address with TLS.
    certificates: Vec<Arc<Tls>>,
    fixed: [Value; 2],
    /// Held while plugins are replaced, one reload at a time; what waits for calls of plugins that were replaced.
    stopping: Mutex<JoinSet<()>>,
}

impl Reloading {
    pub(crate) fn new(registry: Registry, layers: Layers, certificates: Vec<Arc<Tls>>, fixed: [Value; 2]) -> Reloading {
        Reloading { registry, layers, certificates, fixed, stopping: Mutex::default() }
    }

    /// What still waits for calls of plugins that were replaced, once the last reload is over: a server that stops begins no
    /// other.
    pub(crate) fn finish(&self) -> Leftovers {
        Leftovers(std::mem::take(&mut *self.stopping.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Plugins that were replaced and are still to be told.
pub(crate) struct Leftovers(JoinSet<()>);

impl Leftovers {
    /// Waits until every one has been told, for `grace` at most.
    pub(crate) async fn stopped(mut self, grace: Duration) {
        let all_told = async { while self.0.join_next().await.is_some() {} };
        if timeout(grace, all_told).await.is_err() {
            warn!("plugins that were replaced did not stop in time");
        }
    }
}

/// Why a server keeps the plugins that it has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The server has ended, or was told to.
    #[error("the server stops, or has ended")]
    Ended,
    /// The safe defaults forbid these plugins at the addresses that the server listens at.
    #[error("{problem}; the server listens where it did when it started")]
    Exposed {
        /// What is so.
        problem: String,
    },
    /// A certificate or key is of no use.
    #[error("TLS stays as it is")]
    Tls(#[from] TlsError),
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

impl Control {
    /// Serves the plugins of `config` from now on. It is checked against the registry of the server, as the first was.
    ///
    /// Plugins whose sections are the same stay as they are. The others are built while the old ones still serve; when all
    /// are, every call that begins finds the new ones, and each old one is told [`Stopped::Replaced`](plugd_core::Stopped)
    /// when its last call has ended. Tokens are those of `config`, and certificates are read again from where they were. What `[server]` and `[layers]` say takes effect at the next start, and the log says so.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]; then everything is as it was.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn reload(&self, config: Config) -> Result<Changes, ReloadError> {
        let shared = self.shared.upgrade().ok_or(ReloadError::Ended)?;
        let reloading = &shared.reloading;
        let mut stopping = reloading.stopping.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.stopping.is_at(Stage::Draining) {
            return Err(ReloadError::Ended);
        }
        for (section, (before, now)) in FIXED.iter().zip(reloading.fixed.iter().zip(&config.fixed)) {
            if before != now {
                warn!("[{section}] changed; that takes effect when the server starts anew");
            }
        }
        if let Some(problem) = exposed(&config.plugins, &shared.settings) {
            return Err(ReloadError::Exposed { problem });
        }
        let renewed = reloading.certificates.iter().map(|tls| tls.renewed()).collect::<Result<Vec<_>, _>>()?;
        let before = shared.router.plugins();
        let Config { plugins, tokens, base_dir, .. } = config;
        let built = Plugins::build(plugins, &reloading.registry, &base_dir, &reloading.layers, tokens, Some(&before));
        let now = Arc::new(built.map_err(|(plugin, source)| ReloadError::Start { plugin, source })?);
        let (changes, replaced) = now.changes(&before);
        now.start();
        shared.router.replace(now);
        renewed.into_iter().for_each(Renewed::put_in_force);
        // With it goes the last hold on the old ones but for the calls that run.
        drop(before);
        while stopping.try_join_next().is_some() {}
        for plugin in replaced {
            stopping.spawn(plugin.stop(shared.settings.grace));
        }
        info!(?changes, tls_listeners = reloading.certificates.len(), "configuration and certificates read again");
        Ok(changes)
    }
}
