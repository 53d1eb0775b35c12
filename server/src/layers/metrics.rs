//! How many calls there were, by plugin, operation and status, how long they took, and what they moved.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use plugd_core::{CallEnd, CallFacts, Code, Layer, LayerDescriptor, Metrics as Measured, Passage, Refusal};

/// Upper bounds of the buckets of a call's time, in microseconds: from what a local echo takes to what a person waits.
const BOUNDS_US: [u64; 12] =
    [50, 100, 250, 1_000, 5_000, 25_000, 100_000, 500_000, 1_000_000, 5_000_000, 30_000_000, 300_000_000];

pub(super) fn descriptor() -> LayerDescriptor {
    LayerDescriptor::new("metrics", "counts calls, their time and their bytes, for plugd.metrics")
        .layer(Metrics::default)
}

/// Counts since the server started.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By plugin and operation: as many as there are operations.
    plugins: RwLock<BTreeMap<String, BTreeMap<String, Arc<Counts>>>>,
}

#[derive(Debug, Default)]
struct Counts {
    running: AtomicU64,
    by_code: [AtomicU64; Code::ALL.len()],
    within: [AtomicU64; BOUNDS_US.len()],
    sum_us: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Layer for Metrics {
    fn enter(&self, call: &mut CallFacts<'_>) -> Result<Passage, Refusal> {
        let counts = self.counts(call.plugin, call.operation.name());
        counts.running.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        Ok(Passage::until(move |end| counts.ended(end, started.elapsed())))
    }

    fn measure(&self, metrics: &mut Measured) {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        for (plugin, operations) in &*plugins {
            for (operation, counts) in operations {
                counts.measure(metrics, plugin, operation);
            }
        }
    }
}

impl Metrics {
    fn counts(&self, plugin: &str, operation: &str) -> Arc<Counts> {
        let plugins = self.plugins.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = plugins.get(plugin).and_then(|operations| operations.get(operation)) {
            return counts.clone();
        }
        drop(plugins);
        let mut plugins = self.plugins.write().unwrap_or_else(PoisonError::into_inner);
        plugins.entry(plugin.to_owned()).or_default().entry(operation.to_owned()).or_default().clone()
    }
}

impl Counts {
    fn ended(&self, end: &CallEnd<'_>, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.by_code[usize::from(end.status.code().number())].fetch_add(1, Ordering::Relaxed);
        if let Some(bucket) = BOUNDS_US.iter().position(|bound| took_us <= *bound) {
            self.within[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
        self.received.fetch_add(end.received, Ordering::Relaxed);
        self.sent.fetch_add(end.sent, Ordering::Relaxed);
    }

    fn measure(&self, metrics: &mut Measured, plugin: &str, operation: &str) {
        let labels = [("plugin", plugin), ("operation", operation)];
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        metrics.gauge("plugd_calls_running", "Calls that run.", &labels, read(&self.running));
        let mut calls = 0;
        for code in Code::ALL {
            let count = read(&self.by_code[usize::from(code.number())]);
            calls += count;
            if count > 0 {
                let labels = [labels[0], labels[1], ("code", code.name())];
                metrics.counter("plugd_calls_total", "Calls that ended, by the code of their status.", &labels, count);
            }
        }
        let within: Vec<(f64, u64)> =
            BOUNDS_US.iter().zip(&self.within).map(|(bound, count)| (*bound as f64 / 1e6, read(count))).collect();
        let help = "Time from a call's opening header to its end.";
        metrics.histogram("plugd_call_seconds", help, &labels, &within, read(&self.sum_us) as f64 / 1e6, calls);
        let help = "Payload that was read from callers.";
        metrics.counter("plugd_received_bytes_total", help, &labels, read(&self.received));
        let help = "Payload that was taken for callers.";
        metrics.counter("plugd_sent_bytes_total", help, &labels, read(&self.sent));
    }
}
