//! Makes the load: threads, and on each the connections that are its share.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use plugd_core::wire::{HELLO_LEN, Hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::lane::Lane;
use super::pace::{Pace, Quota};
use super::socket::{Socket, Target};
use super::tally::{Tally, Trouble};
use super::work::{Mode, Work};

/// How many connections are being made at once by a thread: a server's backlog is finite.
const CONNECTING_MAX: usize = 64;

/// How much is read at once, in bytes.
const READ_LEN: usize = 256 << 10;

/// How much load, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    pub(crate) work: Arc<Work>,
    pub(crate) connections: u32,
    pub(crate) pipeline: u32,
    pub(crate) rate: Option<f64>,
    /// How long requests are begun; `None` until the quota is used up.
    pub(crate) duration: Option<Duration>,
    pub(crate) quota: Arc<Quota>,
    /// How long an answer may keep a connection waiting.
    pub(crate) patience: Duration,
    pub(crate) threads: u32,
}

/// What the connections of one thread share.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) work: Arc<Work>,
    pub(crate) quota: Arc<Quota>,
    pub(crate) patience: Duration,
    plan: Plan,
    start: Instant,
    state: Mutex<State>,
}

/// What is never used by two connections at once.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) tally: Tally,
    pub(crate) buf: Box<[u8]>,
}

impl Load {
    fn new(plan: &Plan) -> Load {
        let state = State { tally: Tally::new(), buf: vec![0; READ_LEN].into() };
        Load {
            work: plan.work.clone(),
            quota: plan.quota.clone(),
            patience: plan.patience,
            plan: plan.clone(),
            start: Instant::now(),
            state: Mutex::new(state),
        }
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
}

/// Makes the whole load, and returns what came of it and how long it took.
pub(crate) fn run(plan: &Plan) -> io::Result<(Tally, Duration)> {
    let threads: Vec<_> = (0..plan.threads)
        .map(|index| {
            let plan = plan.clone();
            // Spread as evenly as whole connections allow.
            let bound = |index| (u64::from(plan.connections) * u64::from(index) / u64::from(plan.threads)) as u32;
            let share = bound(index)..bound(index + 1);
            thread::Builder::new().name(format!("load-{index}")).spawn(move || run_share(&plan, share))
        })
        .collect();
    let mut tally = Tally::new();
    let mut elapsed = Duration::ZERO;
    for thread in threads {
        let share = thread?.join().map_err(|_| io::Error::other("a thread of the load panicked"))?;
        let (share, took) = share?;
        tally.add(share);
        elapsed = elapsed.max(took);
    }
    Ok((tally, elapsed))
}

fn run_share(plan: &Plan, share: Range<u32>) -> io::Result<(Tally, Duration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (sockets, troubles) = connect_all(plan, share.clone()).await;
        let load = Arc::new(Load::new(plan));
        for trouble in troubles {
            load.suffer(trouble, 1);
        }
        let mut lanes = JoinSet::new();
        match plan.work.mode {
            Mode::Fresh => share.for_each(|index| drop(lanes.spawn(run_fresh(load.clone(), index)))),
            _ => {
                sockets.into_iter().for_each(|(index, socket)| drop(lanes.spawn(run_kept(load.clone(), socket, index))))
            }
        }
        while lanes.join_next().await.is_some() {}
        let elapsed = load.start.elapsed();
        let tally = std::mem::replace(&mut load.lock().tally, Tally::new());
        Ok((tally, elapsed))
    })
}

/// Makes the connections that are kept, before the clock starts.
async fn connect_all(plan: &Plan, share: Range<u32>) -> (Vec<(u32, Socket)>, Vec<Trouble>) {
    let (mut sockets, mut troubles) = (Vec::new(), Vec::new());
    if plan.work.mode == Mode::Fresh {
        return (sockets, troubles);
    }
    let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut greetings = JoinSet::new();
    for index in share {
        let (plan, connecting) = (plan.clone(), connecting.clone());
        greetings.spawn(async move {
            let _permit = connecting.acquire().await;
            (index, greet(&plan).await)
        });
    }
    while let Some(greeted) = greetings.join_next().await {
        match greeted {
            Ok((index, Ok(socket))) => sockets.push((index, socket)),
            Ok((_, Err(trouble))) => troubles.push(trouble),
            Err(_) => troubles.push(Trouble::Other),
        }
    }
    (sockets, troubles)
}

/// Connects, and exchanges hellos.
async fn greet(plan: &Plan) -> Result<Socket, Trouble> {
    let mut socket = plan.target.connect().await?;
    let exchange = async {
        socket.write_all(&plan.work.opening).await?;
        let mut hello = [0; HELLO_LEN];
        socket.read_exact(&mut hello).await.map(|_| hello)
    };
    let hello = timeout(plan.patience, exchange).await.map_err(|_| Trouble::Stalled(plan.patience))?;
    match Hello::decode(&hello.map_err(|error| Trouble::lost(&error))?) {
        Ok(_) => Ok(socket),
        Err(error) => Err(Trouble::Protocol(error.to_string())),
    }
}

/// Makes requests on a connection, or holds it and makes one.
async fn run_kept(load: Arc<Load>, socket: Socket, index: u32) {
    let Plan { rate, connections, pipeline, .. } = load.plan;
    let pace = match rate.map(|rate| Pace::new(load.start, rate, index, connections)).transpose() {
        Ok(pace) => pace,
        Err(error) => return load.suffer(Trouble::Connect(error.to_string()), 1),
    };
    let mut lane = Lane::new(&load, socket, pace, pipeline.into());
    let outcome = match load.work.mode {
        Mode::Idle => run_idle(&load, &mut lane).await,
        _ => lane.run().await,
    };
    if let Err(trouble) = outcome {
        load.suffer(trouble, lane.in_flight().max(1));
    }
}

/// Makes a request, since a server bounds the time to the first one, waits, and makes another.
async fn run_idle(load: &Load, lane: &mut Lane<'_>) -> Result<(), Trouble> {
    lane.begin_one(Instant::now());
    lane.run().await?;
    let is_open = lane.hold(load.end().unwrap_or(load.start)).await?;
    if !is_open {
        // The server's last words were counted as they came.
        return Ok(());
    }
    lane.begin_one(Instant::now());
    lane.run().await
}

/// Makes one connection after the other, each with one request.
async fn run_fresh(load: Arc<Load>, index: u32) {
    let Plan { rate, connections, .. } = load.plan;
    let mut pace = match rate.map(|rate| Pace::new(load.start, rate, index, connections)).transpose() {
        Ok(pace) => pace,
        Err(error) => return load.suffer(Trouble::Connect(error.to_string()), 1),
    };
    while let Some(begun) = next_begin(&load, &mut pace).await {
        let visit = async {
            let socket = load.plan.target.connect().await?;
            let mut lane = Lane::new(&load, socket, None, 1);
            lane.begin_one(begun);
            lane.run().await
        };
        if let Err(trouble) = visit.await {
            // A server that is gone would be asked as fast as this machine can.
            let is_gone = matches!(trouble, Trouble::Connect(_));
            load.suffer(trouble, 1);
            if is_gone {
                return;
            }
        }
    }
}

/// When the next request begins; `None` when there is none.
async fn next_begin(load: &Load, pace: &mut Option<Pace>) -> Option<Instant> {
    let begun = match pace {
        None => Instant::now(),
        Some(pace) => {
            let due = pace.due();
            if load.end().is_some_and(|end| Instant::now() >= end) {
                load.lock().tally.unsent += load.end().map_or(0, |end| pace.skip_until(end));
                return None;
            }
            if load.end().is_none_or(|end| due < end) {
                std::future::poll_fn(|cx| pace.poll_due(cx)).await.ok()?;
            }
            pace.advance();
            due
        }
    };
    let is_early = load.end().is_none_or(|end| begun < end);
    (is_early && load.quota.take(1) == 1).then_some(begun)
}
