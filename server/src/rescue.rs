//! Takes new connections on other threads while handlers block every thread of the server's own.
//!
//! A handler should never block its thread, and one that does anyway holds up whoever shares the thread with it. Nothing
//! can move those connections elsewhere, but new ones need not share their fate: a thread of its own asks the server's runtime
//! now and then for a sign of life, and while there is none lets a spare runtime accept in its place. What a spare has
//! accepted it serves to its end; then it is gone, with its threads and descriptors.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::limits::Seldom;

/// Between two questions: four short wake-ups a second cost an idle server nothing that can be measured.
const PAUSE: Duration = Duration::from_millis(250);

/// The same while there are spares. A worker that polls the sockets and is then blocked leaves nobody who does, until the
/// next question wakes another.
const ALERT_PAUSE: Duration = Duration::from_millis(50);

/// How long a sign of life may take. A busy runtime comes to it within milliseconds; that a mere delay is taken for a blocked
/// thread costs a spare that is soon gone.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(250);

/// The threads of a spare, so many handlers can block one.
const SPARE_WORKERS: usize = 16;

/// How many spares there may be: past 64 threads, who blocks them has more than a fault.
const SPARES_MAX: usize = 4;

/// Watches over a runtime until it is dropped; so do its spares.
#[derive(Debug)]
pub(crate) struct Rescue {
    _until: Sender<()>,
}

impl Rescue {
    /// Watches over the runtime that this is called on. `let_go` is called when a spare is gone, for what still holds on to it. `accept` begins to accept on the runtime that it is called on, until
    /// what it returns is dropped.
    pub(crate) fn watch(
        accept: impl Fn() -> JoinSet<()> + Send + 'static,
        let_go: impl Fn() + Send + 'static,
    ) -> Rescue {
        let (until, dropped) = channel();
        let own = Pulse::of(Handle::current());
        let watch = Watch { own, spares: Vec::new(), accept, let_go, exhausted: Seldom::default() };
        let thread = thread::Builder::new().name("plugd-rescue".to_owned());
        if let Err(error) = thread.spawn(move || watch.run(&dropped)) {
            warn!(%error, "no thread to notice handlers that block theirs");
        }
        Rescue { _until: until }
    }
}

struct Watch<A, G> {
    own: Pulse,
    spares: Vec<Spare>,
    accept: A,
    let_go: G,
    exhausted: Seldom,
}

struct Spare {
    runtime: Runtime,
    pulse: Pulse,
    accepting: Option<JoinSet<()>>,
}

impl<A: Fn() -> JoinSet<()>, G: Fn()> Watch<A, G> {
    fn run(mut self, dropped: &Receiver<()>) {
        while dropped.recv_timeout(self.pause()) == Err(RecvTimeoutError::Timeout) {
            if self.own.is_felt() {
                self.retire();
            } else {
                self.relieve();
            }
        }
        for spare in self.spares {
            spare.runtime.shutdown_background();
        }
    }

    fn pause(&self) -> Duration {
        if self.spares.is_empty() { PAUSE } else { ALERT_PAUSE }
    }

    /// Lets the first spare that is not blocked itself accept.
    fn relieve(&mut self) {
        for spare in &mut self.spares {
            if spare.pulse.is_felt() {
                spare.accept(&self.accept);
                return;
            }
        }
        if self.spares.len() == SPARES_MAX {
            if self.exhausted.count().is_some() {
                error!(spares = SPARES_MAX, "handlers block every thread; new connections have to wait");
            }
            return;
        }
        match Spare::start() {
            Ok(mut spare) => {
                warn!("a handler blocks its thread; new connections are served by others");
                spare.accept(&self.accept);
                self.spares.push(spare);
            }
            Err(error) => error!(%error, "a handler blocks its thread, and no other can be started"),
        }
    }

    /// The server's own threads accept again; spares that have nothing left to do go.
    fn retire(&mut self) {
        if self.spares.is_empty() {
            return;
        }
        for index in (0..self.spares.len()).rev() {
            let spare = &mut self.spares[index];
            spare.accepting = None;
            if spare.pulse.is_felt() && spare.runtime.metrics().num_alive_tasks() == 0 {
                self.spares.remove(index).runtime.shutdown_background();
                (self.let_go)();
            }
        }
        if self.spares.is_empty() {
            info!("the server's own threads serve every connection again");
        }
    }
}

impl Spare {
    fn start() -> std::io::Result<Spare> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(SPARE_WORKERS).thread_name("plugd-spare").enable_all().build()?;
        let pulse = Pulse::of(runtime.handle().clone());
        Ok(Spare { runtime, pulse, accepting: None })
    }

    fn accept(&mut self, accept: &impl Fn() -> JoinSet<()>) {
        let _on_it = self.runtime.enter();
        self.accepting.get_or_insert_with(accept);
    }
}

/// Whether a runtime still runs what is spawned on it.
struct Pulse {
    handle: Handle,
    /// The question that is not answered yet; there is never a second one.
    asked: Option<Receiver<()>>,
}

impl Pulse {
    fn of(handle: Handle) -> Pulse {
        Pulse { handle, asked: None }
    }

    fn is_felt(&mut self) -> bool {
        let (asked, timeout) = match self.asked.take() {
            // It has had its time.
            Some(asked) => (asked, Duration::ZERO),
            None => (self.ask(), ANSWER_TIMEOUT),
        };
        match asked.recv_timeout(timeout) {
            Err(RecvTimeoutError::Timeout) => {
                self.asked = Some(asked);
                false
            }
            // A runtime that ends answers nothing, and needs no rescue.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
        }
    }

    fn ask(&self) -> Receiver<()> {
        let (answer, asked) = channel();
        self.handle.spawn(async move { answer.send(()) });
        asked
    }
}
