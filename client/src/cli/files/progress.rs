//! How far transfers have come: bars on a terminal, events for programs, nothing otherwise.
//!
//! ```text
//! {"event": "progress", "name": "a", "bytes": 1048576, "size": 4194304, "stalled": false}   each second, for each file
//! {"event": "retry", "failure": "connection lost ...", "try": 1, "allowed": 5, "pause_ms": 200}
//! {"event": "done", ...receipt}
//! {"event": "failed", "name": "b", "failure": "not_found (no-such-file): ..."}
//! {"event": "skipped", "name": "c", "why": "a symbolic link"}
//! {"event": "deleted", "name": "d"}
//! {"event": "kept", "name": ".a.plug-part", "bytes": 1048576, "size": 4194304}   here, when the program ends before
//! {"event": "kept-there", "name": "a"}                                           by the server
//! {"event": "error", "failure": "..."}                                           why the program ends
//! ```
//!
//! Off a terminal no carriage return is ever written.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::name::Name;
use super::options::ProgressMode;
use crate::cli::failure::Failure;

/// How often events are written and stalled files looked for.
const TICK: Duration = Duration::from_secs(1);

/// A file that got no byte for so long is called stalled.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// Files up to this size, in bytes, have no bar of their own: they come and go faster than an eye can follow.
const BAR_SIZE_LEAST: u64 = 1 << 20;

/// Shows how far transfers have come. Clones speak of the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Progress(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    sort: Sort,
    running: Mutex<Vec<Weak<Count>>>,
}

#[derive(Debug)]
enum Sort {
    Bars { bars: MultiProgress, total: Option<ProgressBar> },
    Events,
    Quiet,
}

/// Takes the bars away when it is dropped, which an interrupted command does as well.
#[derive(Debug)]
pub(crate) struct Bars(Progress);

impl Drop for Bars {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// One running file.
#[derive(Debug)]
pub(crate) struct Running {
    count: Option<Arc<Count>>,
    total: Option<Share>,
}

/// What one file has added to the total.
#[derive(Debug)]
struct Share {
    total: ProgressBar,
    size: Option<u64>,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Count {
    name: Name,
    size: Option<u64>,
    bytes: AtomicU64,
    bar: ProgressBar,
    seen: Mutex<(u64, Instant)>,
}

impl Progress {
    /// `many`: a line for the total stands below those of the files.
    pub(crate) fn new(mode: ProgressMode, many: bool) -> Progress {
        let sort = match mode {
            ProgressMode::Json => Sort::Events,
            ProgressMode::Auto if io::stderr().is_terminal() => {
                let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
                let total = many.then(|| bars.add(ProgressBar::new(0).with_style(style(TOTAL)).with_prefix("total")));
                Sort::Bars { bars, total }
            }
            ProgressMode::Auto | ProgressMode::None => Sort::Quiet,
        };
        let progress = Progress(Arc::new(Shown { sort, running: Mutex::default() }));
        progress.watch();
        progress
    }

    /// Sees to it that no bars stay on the screen.
    pub(crate) fn bars(&self) -> Bars {
        Bars(self.clone())
    }

    /// Says that a file of so many bytes is to come.
    pub(crate) fn expect(&self, size: u64) {
        if let Sort::Bars { total: Some(total), .. } = &self.0.sort {
            total.inc_length(size);
        }
    }

    /// A file begins, or goes on with what it had before.
    pub(crate) fn begin(&self, name: &Name, size: Option<u64>, from: u64) -> Running {
        let total = match &self.0.sort {
            Sort::Quiet => return Running { count: None, total: None },
            Sort::Bars { total, .. } => total.clone(),
            Sort::Events => None,
        };
        let total = total.map(|total| Share::of(total, size, from));
        if size.is_some_and(|size| size < BAR_SIZE_LEAST) {
            return Running { count: None, total };
        }
        let bar = match &self.0.sort {
            Sort::Bars { bars, .. } => {
                let style = style(if size.is_some() { SIZED } else { UNSIZED });
                let bar = ProgressBar::new(size.unwrap_or_default()).with_prefix(name.to_string()).with_style(style);
                let bar = bars.insert(0, bar);
                bar.set_position(from);
                bar.reset_eta();
                bar
            }
            _ => ProgressBar::hidden(),
        };
        let seen = Mutex::new((from, Instant::now()));
        let count = Arc::new(Count { name: name.clone(), size, bytes: AtomicU64::new(from), bar, seen });
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|count| count.strong_count() > 0);
        running.push(Arc::downgrade(&count));
        Running { count: Some(count), total }
    }

    /// A file is passed over, since it is there already.
    pub(crate) fn pass(&self, size: u64) {
        if let Sort::Bars { total: Some(total), .. } = &self.0.sort {
            total.inc(size);
        }
    }

    /// A last line for people; programs have the events.
    pub(crate) fn note(&self, line: String) -> Option<String> {
        (!matches!(self.0.sort, Sort::Events)).then_some(line)
    }

    /// A line for people, above the bars.
    pub(crate) fn line(&self, line: &str) {
        match &self.0.sort {
            // A closed stderr changes nothing.
            Sort::Bars { bars, .. } => drop(bars.println(line)),
            Sort::Quiet => drop(writeln!(io::stderr(), "{line}")),
            Sort::Events => {}
        }
    }

    /// An object for programs.
    pub(crate) fn event(&self, event: impl FnOnce() -> Value) {
        if matches!(self.0.sort, Sort::Events) {
            let _ = writeln!(io::stderr(), "{}", event());
        }
    }

    pub(crate) fn retry(&self, failure: &Failure, made: u32, allowed: u32, pause: Duration) {
        let why = failure.line().unwrap_or_default();
        self.line(&format!("plug: {why}; try {made} of {allowed} in {} ms", pause.as_millis()));
        let pause_ms = pause.as_millis() as u64;
        self.event(|| json!({"event": "retry", "failure": why, "try": made, "allowed": allowed, "pause_ms": pause_ms}));
    }

    /// Takes the bars away.
    pub(crate) fn finish(&self) {
        if let Sort::Bars { bars, total } = &self.0.sort {
            if let Some(total) = total {
                total.finish_and_clear();
            }
            let _ = bars.clear();
        }
    }

    fn watch(&self) {
        if matches!(self.0.sort, Sort::Quiet) {
            return;
        }
        let shown = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                let Some(shown) = shown.upgrade() else { return };
                shown.tick();
            }
        });
    }
}

impl Shown {
    fn tick(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for count in running.iter().filter_map(Weak::upgrade) {
            let (bytes, stalled) = (count.bytes.load(Ordering::Relaxed), count.is_stalled());
            count.bar.set_message(if stalled { "stalled" } else { "" });
            if matches!(self.sort, Sort::Events) {
                let Count { name, size, .. } = &*count;
                let event =
                    json!({"event": "progress", "name": name, "bytes": bytes, "size": size, "stalled": stalled});
                let _ = writeln!(io::stderr(), "{event}");
            }
        }
    }
}

impl Count {
    /// Whether nothing has come for a while.
    fn is_stalled(&self) -> bool {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != bytes {
            *seen = (bytes, Instant::now());
        }
        seen.1.elapsed() >= STALLED_AFTER
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Running {
    pub(crate) fn add(&self, bytes: usize) {
        if let Some(count) = &self.count {
            count.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            count.bar.inc(bytes as u64);
        }
        if let Some(total) = &self.total {
            total.add(bytes as u64);
        }
    }
}

impl Share {
    fn of(total: ProgressBar, size: Option<u64>, from: u64) -> Share {
        let share = Share { total, size, bytes: AtomicU64::new(0) };
        share.add(from);
        share
    }

    fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.total.inc(bytes);
    }
}

impl Drop for Share {
    /// What did not come to its end is counted again by the next try.
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if self.size.is_some_and(|size| bytes < size) {
            self.total.dec(bytes);
        }
    }
}

const SIZED: &str =
    "{prefix:24!} {bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left {msg}";
const UNSIZED: &str = "{prefix:24!} {spinner} {binary_bytes} {binary_bytes_per_sec} {msg}";
const TOTAL: &str = "{prefix:24!} {bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_good() {
        for template in [SIZED, UNSIZED, TOTAL] {
            ProgressStyle::with_template(template).expect("a good template");
        }
    }

    #[test]
    fn what_is_tried_again_counts_once() {
        let total = ProgressBar::hidden();
        let first = Running { count: None, total: Some(Share::of(total.clone(), Some(10), 0)) };
        first.add(6);
        assert_eq!(total.position(), 6);
        drop(first);
        let second = Running { count: None, total: Some(Share::of(total.clone(), Some(10), 6)) };
        second.add(4);
        drop(second);
        assert_eq!(total.position(), 10);
    }

    #[test]
    fn a_file_without_bytes_is_stalled_after_a_while() {
        let long_ago = Instant::now().checked_sub(STALLED_AFTER).expect("a clock that has run for some seconds");
        let count = Count {
            name: Name::default(),
            size: None,
            bytes: AtomicU64::new(7),
            bar: ProgressBar::hidden(),
            seen: Mutex::new((7, long_ago)),
        };
        assert!(count.is_stalled());
        count.bytes.store(8, Ordering::Relaxed);
        assert!(!count.is_stalled());
    }
}
