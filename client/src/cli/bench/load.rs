//! Makes the load: threads, and on each the connections that are its share.

use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::gate::Gate;
use super::lane::{Lane, Source};
use super::pace::{Pace, Quota, Rate};
use super::socket::Socket;
use super::stall::Patience;
use super::tally::{Tally, Trouble};
use super::timer::Timer;
use super::work::{Mode, Work};

/// How much is read at once, in bytes.
const READ_LEN: usize = 256 << 10;

/// How much load, and for how long.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) gate: Gate,
    pub(crate) work: Work,
    pub(crate) connections: u32,
    pub(crate) pipeline: u32,
    pub(crate) rate: Option<Rate>,
    /// How long requests are begun; `None` until all were made.
    pub(crate) duration: Option<Duration>,
    /// How many requests are to be made; `None` as many as the time allows.
    pub(crate) requests: Option<u64>,
    /// Those of them that no connection has begun, where no rate says whose they are.
    pub(crate) quota: Quota,
    pub(crate) patience: Patience,
    pub(crate) threads: u32,
}

/// What the connections of one thread share.
#[derive(Debug)]
pub(crate) struct Load {
    plan: Arc<Plan>,
    start: Instant,
    state: Mutex<State>,
}

/// What is never used by two connections at once.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tally: Tally,
    pub(crate) buf: Box<[u8]>,
}

/// A connection that was made before the clock starts.
#[derive(Debug)]
struct Seat {
    index: u32,
    socket: Socket,
    /// Where there is a rate.
    timer: Option<Timer>,
}

impl Plan {
    /// The most requests that are made.
    fn request_count(&self) -> u64 {
        self.requests.unwrap_or(u64::MAX)
    }
}

impl Load {
    pub(crate) fn new(plan: Arc<Plan>, start: Instant) -> Load {
        Load { plan, start, state: Mutex::new(State { tally: Tally::new(), buf: vec![0; READ_LEN].into() }) }
    }

    pub(crate) fn work(&self) -> &Work {
        &self.plan.work
    }

    pub(crate) fn patience(&self) -> Patience {
        self.plan.patience
    }

    pub(crate) fn pipeline(&self) -> u64 {
        self.plan.pipeline.into()
    }

    /// When no more requests are begun.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.plan.duration.map(|duration| self.start + duration)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suffer(&self, trouble: Trouble, count: u64) {
        self.lock().tally.suffer(trouble, count);
    }

    /// The pace of the connection `index`.
    fn pace(&self, rate: Rate, index: u32, timer: Timer) -> Pace {
        Pace::new(self.start, rate, self.plan.request_count(), index, self.plan.connections, timer)
    }
}

/// Makes the whole load, and returns what came of it and how long it took.
pub(crate) fn run(plan: &Arc<Plan>) -> io::Result<(Tally, Duration)> {
    let start = Arc::new(OnceLock::new());
    let (connected, all_connected) = mpsc::channel();
    let threads = (0..plan.threads).map(|index| {
        let (plan, connected, start) = (plan.clone(), connected.clone(), start.clone());
        // Spread as evenly as whole connections allow.
        let bound = |index| (u64::from(plan.connections) * u64::from(index) / u64::from(plan.threads)) as u32;
        let share = bound(index)..bound(index + 1);
        thread::Builder::new().name(format!("load-{index}")).spawn(move || run_share(plan, share, connected, &start))
    });
    let threads = threads.collect::<io::Result<Vec<_>>>()?;
    drop(connected);
    // Nothing is ever sent: this ends when each thread is connected, or has failed.
    let _: Result<(), _> = all_connected.recv();
    let start = *start.get_or_init(Instant::now);
    let mut tally = Tally::new();
    for thread in threads {
        let share = thread.join().map_err(|_| io::Error::other("a thread of the load panicked"))?;
        tally.add(share?);
    }
    Ok((tally, start.elapsed()))
}

/// Makes the load of one thread, once all threads have dropped their `connected`.
fn run_share(
    plan: Arc<Plan>,
    share: Range<u32>,
    connected: mpsc::Sender<()>,
    start: &OnceLock<Instant>,
) -> io::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (seats, troubles) = connect_all(&plan, share.clone()).await?;
        drop(connected);
        // The runtime may be blocked here: nothing runs on it.
        let load = Arc::new(Load::new(plan, *start.wait()));
        for trouble in troubles {
            load.suffer(trouble, 1);
        }
        let mut lanes = JoinSet::new();
        match load.work().mode {
            Mode::Fresh => share.for_each(|index| drop(lanes.spawn(run_fresh(load.clone(), index)))),
            _ => seats.into_iter().for_each(|seat| drop(lanes.spawn(run_kept(load.clone(), seat)))),
        }
        while let Some(lane) = lanes.join_next().await {
            lane.map_err(io::Error::other)?;
        }
        let tally = std::mem::replace(&mut load.lock().tally, Tally::new());
        Ok(tally)
    })
}

/// Makes the connections that are kept.
async fn connect_all(plan: &Arc<Plan>, share: Range<u32>) -> io::Result<(Vec<Seat>, Vec<Trouble>)> {
    let (mut seats, mut troubles) = (Vec::new(), Vec::new());
    if plan.work.mode == Mode::Fresh {
        return Ok((seats, troubles));
    }
    let mut greetings = JoinSet::new();
    for index in share {
        let plan = plan.clone();
        greetings.spawn(async move {
            let greeting = plan.gate.greet(&plan.work, plan.patience.quiet, plan.rate.is_some());
            greeting.await.map(|(socket, timer)| Seat { index, socket, timer })
        });
    }
    while let Some(greeted) = greetings.join_next().await {
        match greeted.map_err(io::Error::other)? {
            Ok(seat) => seats.push(seat),
            Err(trouble) => troubles.push(trouble),
        }
    }
    Ok((seats, troubles))
}

/// Makes requests on a connection, or holds it and makes one before and one after.
async fn run_kept(load: Arc<Load>, seat: Seat) {
    let source = match load.plan.rate.zip(seat.timer) {
        Some((rate, timer)) => Source::Pace(load.pace(rate, seat.index, timer)),
        None if load.work().mode == Mode::Idle => Source::Caller,
        None => Source::Quota(&load.plan.quota),
    };
    let mut lane = Lane::new(&load, seat.socket, source);
    let outcome = match load.work().mode {
        Mode::Idle => run_idle(&load, &mut lane).await,
        _ => lane.run().await,
    };
    if let Err(trouble) = outcome {
        load.suffer(trouble, lane.in_flight().max(1));
    }
    load.lock().tally.begun += lane.begun();
}

/// Makes a request, since a server bounds the time to the first one, waits, and makes another.
async fn run_idle(load: &Load, lane: &mut Lane<'_>) -> Result<(), Trouble> {
    lane.make_one(Instant::now()).await?;
    let is_open = lane.hold(load.end().unwrap_or(load.start)).await?;
    if !is_open {
        // The server's last words were counted as they came.
        return Ok(());
    }
    lane.make_one(Instant::now()).await
}

/// Makes one connection after the other, each with one request.
async fn run_fresh(load: Arc<Load>, index: u32) {
    let timer = load.plan.rate.map(|rate| load.plan.gate.timer().map(|timer| load.pace(rate, index, timer)));
    let mut pace = match timer.transpose() {
        Ok(pace) => pace,
        Err(trouble) => return load.suffer(trouble, 1),
    };
    while let Some(due) = next_due(&load, &mut pace).await {
        load.lock().tally.begun += 1;
        let Err(trouble) = visit(&load, due).await else { continue };
        // A server that is gone would be asked as fast as this machine can, one that is silent for ever.
        let is_gone = matches!(trouble, Trouble::Connect(_) | Trouble::Stalled(_));
        load.suffer(trouble, 1);
        if is_gone {
            return;
        }
    }
}

/// When the next request is due; `None` when there is none.
async fn next_due(load: &Load, pace: &mut Option<Pace>) -> Option<Instant> {
    let due = match pace {
        None => Instant::now(),
        Some(pace) => {
            let due = pace.due()?;
            poll_fn(|cx| pace.poll_until(due, cx)).await.ok()?;
            pace.advance();
            due
        }
    };
    if load.end().is_some_and(|end| Instant::now() >= end) {
        return None;
    }
    (pace.is_some() || load.plan.quota.take(1) == 1).then_some(due)
}

/// Makes one request on a connection of its own.
async fn visit(load: &Load, due: Instant) -> Result<(), Trouble> {
    let socket = load.plan.gate.connect().await?;
    let outcome = Lane::new(load, socket, Source::Caller).make_one(due).await;
    load.plan.gate.left();
    outcome
}
