//! Where an instance is built, and the work that it does beside its calls.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Where an instance is built, and what runs in its background.
///
/// Clones are the same context: a handler keeps one to start work later.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Context {
    /// The directory that relative paths in settings start from: the configuration file's own.
    pub base_dir: PathBuf,
    background: Arc<Background>,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Default)]
struct Background {
    stopped: CancellationToken,
    stage: Mutex<Stage>,
}

/// What becomes of work that is handed in.
enum Stage {
    /// The instance is being built, and what comes after it may still fail: nothing runs yet.
    Building(Vec<Work>),
    Running(JoinSet<()>),
    Stopped,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Building(Vec::new())
    }
}

impl Context {
    /// A context whose relative paths start from `base_dir`. Its work waits for [`Context::start`].
    pub fn new(base_dir: impl Into<PathBuf>) -> Context {
        Context { base_dir: base_dir.into(), background: Arc::default() }
    }

    /// Runs `work` beside the calls of the instance, on the server's own threads: work that blocks belongs on
    /// `tokio::task::spawn_blocking`.
    ///
    /// What is handed in while the instance is built begins once every plugin was built, so that a start that fails has
    /// no effects; what is handed in to a stopped instance is dropped. A panic ends the work, and is logged.
    ///
    /// # Cancellation
    ///
    /// When the instance is stopped, [`Context::stopped`] resolves. Work that has not ended a grace time later (2 s by
    /// default, the server's setting `grace`) is dropped at its next `await`.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, when the instance runs already.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        match &mut *self.stage() {
            Stage::Building(waiting) => waiting.push(Box::pin(work)),
            Stage::Running(tasks) => {
                // What has ended is let go here, so that short pieces of work do not pile up.
                while tasks.try_join_next().is_some() {}
                tasks.spawn(work);
            }
            Stage::Stopped => {}
        }
    }

    /// Resolves when the instance is stopped; never before.
    ///
    /// The future does not borrow the context. Nothing is lost when it is dropped.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        self.background.stopped.clone().cancelled_owned()
    }

    /// Begins the work that was handed in while the instance was built; the server does, and a test that builds an
    /// instance itself. A second time it does nothing.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, when there is work.
    pub fn start(&self) {
        let mut stage = self.stage();
        if let Stage::Building(waiting) = &mut *stage {
            let mut tasks = JoinSet::new();
            for work in std::mem::take(waiting) {
                tasks.spawn(work);
            }
            *stage = Stage::Running(tasks);
        }
    }

    /// Tells the instance's work to stop, waits until it has, for `grace` at most, and drops what is left; the server
    /// does. Returns how many pieces of work were left.
    ///
    /// # Cancellation
    ///
    /// What still runs is dropped at its next `await` when the future is dropped.
    pub async fn stop(&self, grace: Duration) -> usize {
        self.background.stopped.cancel();
        let Stage::Running(mut tasks) = std::mem::replace(&mut *self.stage(), Stage::Stopped) else { return 0 };
        let all_ended = async { while tasks.join_next().await.is_some() {} };
        let _ = timeout(grace, all_ended).await;
        while tasks.try_join_next().is_some() {}
        tasks.len()
    }

    /// Drops the instance's work at its next `await`, without waiting for it.
    pub fn abort(&self) {
        self.background.stopped.cancel();
        *self.stage() = Stage::Stopped;
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.background.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Context").field("base_dir", &self.base_dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Virtual: the clock stands still but for timers.
    const GRACE: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn work_begins_with_the_start_and_ends_with_the_stop() {
        let context = Context::new(".");
        let (begun, mut has_begun) = oneshot::channel();
        let (ended, has_ended) = oneshot::channel();
        let stopped = context.stopped();
        context.spawn(async move {
            let _ = begun.send(());
            stopped.await;
            let _ = ended.send(());
        });
        tokio::task::yield_now().await;
        assert!(has_begun.try_recv().is_err(), "nothing runs while the rest is built");
        context.start();
        has_begun.await.expect("work that runs");
        assert_eq!(context.stop(GRACE).await, 0);
        has_ended.await.expect("work that was waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_does_not_stop_is_dropped_after_the_grace() {
        let context = Context::new(".");
        context.start();
        let (held, is_dropped) = oneshot::channel::<()>();
        context.spawn(async move {
            let _held = held;
            std::future::pending().await
        });
        context.spawn(async {});
        let begun = tokio::time::Instant::now();
        assert_eq!(context.stop(GRACE).await, 1);
        assert_eq!(begun.elapsed(), GRACE);
        is_dropped.await.expect_err("dropped");
    }

    #[tokio::test]
    async fn what_never_started_and_what_comes_too_late_is_dropped() {
        let context = Context::new(".");
        let (early, is_dropped_early) = oneshot::channel::<()>();
        context.spawn(async move { drop(early) });
        context.abort();
        is_dropped_early.await.expect_err("dropped");
        let (late, is_dropped_late) = oneshot::channel::<()>();
        context.start();
        context.spawn(async move {
            let _ = late.send(());
        });
        is_dropped_late.await.expect_err("dropped");
        context.stopped().await;
    }
}
