//! Fetches files.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;
use plugd_core::wire::CHANNEL_MAIN;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc};

use super::write::{Fetch, Printed, Work, Writer, cannot_begin, exists};
use super::{Again, FLIGHTS_MAX, LaneEnd, SMALL_SIZE_MAX, Terms, come_to, failed, is_one_too_many};
use crate::cli::failure::Failure;
use crate::cli::files::digest::Algorithm;
use crate::cli::files::facts::{Facts, Kind};
use crate::cli::files::local::{self, Directory};
use crate::cli::files::name::Name;
use crate::cli::files::options::Durability;
use crate::cli::files::partial::{self, Partial};
use crate::cli::files::remote::{Remote, has_reason, parse_object};
use crate::cli::files::retry::{Retries, passes};
use crate::cli::files::tally::{Receipt, Tally};
use crate::{Client, Receiver, Reply, Sender};

/// How many jobs wait for a lane; each may hold a directory open.
const QUEUE_LEN: usize = 128;

/// A file to fetch.
#[derive(Debug, Clone)]
pub(crate) struct GetJob {
    pub(crate) remote: Name,
    pub(crate) target: Target,
    /// What it is called in messages.
    pub(crate) shown: Name,
    /// What is known about the file on the server.
    pub(crate) known: Option<Facts>,
    /// Whether the file that is here may be the one already; its digest is asked for then.
    pub(crate) compare: bool,
    /// Whether what an earlier try left is not to be used.
    pub(crate) anew: bool,
    /// The permissions of the file that is replaced.
    pub(crate) replaced_mode: Option<u32>,
}

/// Where a fetched file goes.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Stdout(Arc<StdMutex<Printed>>),
    Place { directory: Directory, name: OsString },
}

impl GetJob {
    pub(crate) fn new(remote: Name, target: Target, known: Option<Facts>) -> GetJob {
        let shown = match &target {
            Target::Stdout(_) => remote.clone(),
            Target::Place { directory, name } => Name::from(directory.path_of(name).as_os_str()),
        };
        GetJob { remote, target, shown, known, compare: true, anew: false, replaced_mode: None }
    }
}

impl Target {
    pub(crate) fn stdout() -> Target {
        Target::Stdout(Arc::new(StdMutex::new(Printed::new())))
    }
}

/// The arguments of `get`.
#[derive(Debug, Serialize)]
struct GetArgs<'a> {
    path: &'a Name,
    algorithm: Algorithm,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_match: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_none_match: Option<&'a str>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The header of `get`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct GetHead {
    pub(crate) size: u64,
    #[serde(default)]
    mtime_s: i64,
    #[serde(default)]
    mtime_ns: u32,
    #[serde(default)]
    mode: u32,
    #[serde(default)]
    pub(crate) etag: Option<String>,
    #[serde(default)]
    pub(crate) offset: u64,
    #[serde(default)]
    pub(crate) digest: Option<String>,
    #[serde(default)]
    unchanged: bool,
}

impl GetHead {
    pub(crate) fn facts(&self) -> Facts {
        let GetHead { size, mtime_s, mtime_ns, mode, .. } = *self;
        Facts { kind: Kind::File, size, mtime_s, mtime_ns, mode, etag: self.etag.clone(), target: None }
    }
}

/// A call that was sent and has not ended.
#[derive(Debug)]
struct Flight {
    job: GetJob,
    partial: Option<Box<Partial>>,
    offset: u64,
    etag: Option<String>,
    /// The digest of the file that is here.
    digest: Option<String>,
}

/// Jobs for all lanes.
#[derive(Debug)]
pub(crate) struct Queue(Mutex<mpsc::Receiver<GetJob>>);

/// Makes the two ends of a queue.
pub(crate) fn queue() -> (mpsc::Sender<GetJob>, Queue) {
    let (jobs, received) = mpsc::channel(QUEUE_LEN);
    (jobs, Queue(Mutex::new(received)))
}

/// Fetches everything from the queue, over `lanes` connections, or fewer where the server has no room for so many.
///
/// # Errors
///
/// What ended a lane. What became of each file, the tally says.
pub(crate) async fn run(
    remote: &Remote,
    queue: Queue,
    lanes: u32,
    terms: &Terms,
    tally: &Tally,
) -> Result<(), Failure> {
    let left = Again::new();
    let lane = |is_first: bool| {
        let again = Again::new();
        let writer = Writer::start(terms.clone(), tally.clone(), again.clone(), remote.leftovers.clone());
        let lane =
            Lane { remote, queue: &queue, terms, tally, again, left: &left, writer, is_first, worked: Cell::default() };
        async move { lane.run().await }
    };
    let ended = join_all((0..lanes).map(|index| lane(index == 0))).await;
    // A producer must not wait for lanes that have all ended.
    queue.0.lock().await.close();
    // What was left by a lane without a connection when the others had ended already.
    come_to(ended)?;
    if left.is_empty() { Ok(()) } else { come_to(vec![lane(true).await]) }
}

struct Lane<'l> {
    remote: &'l Remote,
    queue: &'l Queue,
    terms: &'l Terms,
    tally: &'l Tally,
    again: Again<GetJob>,
    /// What lanes have left that got no connection.
    left: &'l Again<GetJob>,
    writer: Writer,
    is_first: bool,
    /// Whether any call was answered.
    worked: Cell<bool>,
}

impl Lane<'_> {
    async fn run(&self) -> LaneEnd {
        let ended = self.fetch().await;
        if !self.worked.get() {
            std::iter::from_fn(|| self.again.take()).for_each(|job| self.left.push(job));
        }
        LaneEnd { worked: self.worked.get(), failure: ended.err() }
    }

    async fn fetch(&self) -> Result<(), Failure> {
        let mut retries = Retries::new(self.terms.retry);
        let mut files = self.tally.files();
        while let Some(job) = self.next().await {
            self.again.push(job);
            let ended = match self.remote.client().await {
                Ok(client) => self.fly(client).await,
                Err(failure) => Err(failure),
            };
            self.writer.sync().await;
            if self.tally.files() > files {
                files = self.tally.files();
                retries.refill();
            }
            match ended {
                Err(failure) if is_one_too_many(&failure) && !self.is_first && !self.worked.get() => {
                    return Err(failure);
                }
                Err(failure) => retries.pause(failure, self.tally.progress()).await?,
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Takes the next job, waiting for it.
    async fn next(&self) -> Option<GetJob> {
        match self.again.take().or_else(|| self.left.take()) {
            Some(job) => Some(job),
            None => self.queue.0.lock().await.recv().await,
        }
    }

    /// Takes the next job if there is one at once.
    fn next_now(&self) -> Option<GetJob> {
        let again = self.again.take().or_else(|| self.left.take());
        again.or_else(|| self.queue.0.try_lock().ok()?.try_recv().ok())
    }

    /// Uses one connection for as long as it lasts and there are jobs.
    async fn fly(&self, client: Client) -> Result<(), Failure> {
        let (mut sender, mut receiver) = client.into_halves();
        let (flights, mut received) = mpsc::channel(FLIGHTS_MAX);
        let held = RefCell::new(None);
        let (mut sent, mut usable) = (Ok(()), true);
        let ended: Result<(), Failure> = {
            let receive = async {
                while usable && let Some(flight) = received.recv().await {
                    usable = self.receive(&mut receiver, flight).await?;
                }
                Ok(())
            };
            let (mut send, mut receive) = (pin!(self.send(&mut sender, flights, &held)), pin!(receive));
            tokio::select! {
                biased;
                ended = &mut receive => ended,
                ended = &mut send => {
                    sent = ended;
                    receive.await
                }
            }
        };
        // What was taken or sent ahead and got no answer is to be sent again.
        held.into_inner().into_iter().for_each(|job| self.again.push(job));
        while let Ok(flight) = received.try_recv() {
            self.again.push(flight.job);
        }
        ended?;
        sent?;
        if usable {
            self.remote.keep(Client::from_halves(sender, receiver));
        }
        Ok(())
    }

    /// Sends calls ahead. A job that is taken stands in `held` until its flight is on its way.
    async fn send(
        &self,
        sender: &mut Sender,
        flights: mpsc::Sender<Flight>,
        held: &RefCell<Option<GetJob>>,
    ) -> Result<(), Failure> {
        loop {
            let job = match self.next_now() {
                Some(job) => job,
                None => {
                    sender.flush().await?;
                    let Some(job) = self.next().await else { return Ok(()) };
                    job
                }
            };
            held.replace(Some(job.clone()));
            let shown = job.shown.clone();
            let flight = match self.prepare(sender, job).await {
                Ok(Some(flight)) => flight,
                Ok(None) => {
                    held.take();
                    continue;
                }
                Err(failure @ Failure::Client(_)) => return Err(failure),
                Err(failure) => {
                    held.take();
                    failed(&shown, failure, self.terms, self.tally);
                    continue;
                }
            };
            let open = self.remote.open("get", &flight.args(self.terms.algorithm));
            let flight = match flights.try_send(flight) {
                Ok(()) => None,
                Err(TrySendError::Full(flight) | TrySendError::Closed(flight)) => Some(flight),
            };
            if let Some(flight) = flight {
                sender.flush().await?;
                // Half of them at once, so that calls travel together and not one for each answer.
                let Ok(mut room) = flights.reserve_many(FLIGHTS_MAX / 2).await else { return Ok(()) };
                room.next().expect("half of them is more than none").send(flight);
            }
            held.take();
            sender.send_ahead(&open, Bytes::new()).await?;
        }
    }

    /// Looks at what is here already; `None` when nothing is left to do.
    async fn prepare(&self, sender: &mut Sender, mut job: GetJob) -> Result<Option<Flight>, Failure> {
        let (directory, name) = match &job.target {
            Target::Stdout(printed) => {
                let (offset, etag) = {
                    let printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
                    (printed.len, printed.etag.clone())
                };
                return Ok(Some(Flight { job, partial: None, offset, etag, digest: None }));
            }
            Target::Place { directory, name } => (directory.clone(), name.clone()),
        };
        let path = directory.path_of(&name);
        let here = directory.facts(&name).map_err(|error| local::failure("cannot look at", &path, error))?;
        match &here {
            Some(facts) if facts.is_dir() => {
                return Err(local::failure("cannot write", &path, io::Error::other("a directory")));
            }
            Some(facts) if facts.kind == Kind::Other => {
                return Err(local::failure("cannot write", &path, io::Error::other("not a regular file")));
            }
            Some(_) if self.terms.no_clobber => return Err(exists(&path)),
            _ => {}
        }
        let here = here.filter(Facts::is_file);
        job.replaced_mode = here.as_ref().map(|facts| facts.mode);
        let same_size = |known: &Facts| here.as_ref().is_some_and(|facts| facts.size == known.size);
        let mut digest = None;
        if job.compare && job.known.as_ref().is_some_and(same_size) {
            if self.terms.algorithm.is_none() {
                if here.as_ref().zip(job.known.as_ref()).is_some_and(|(here, known)| here.same_mtime(known)) {
                    self.unchanged(job, None, Reply::default());
                    return Ok(None);
                }
            } else {
                sender.flush().await?;
                digest = self.digest(&directory, &name).await;
            }
        }
        let partial = self.partial(&job, &directory, &name).map_err(|error| cannot_begin(&path, error))?;
        let offset = partial.as_ref().map_or(0, |partial| partial.len);
        let etag = partial.as_ref().map(|partial| partial.origin.etag.clone());
        Ok(Some(Flight { job, partial, offset, etag, digest }))
    }

    /// The digest of the file that is here; one that cannot be read is fetched.
    async fn digest(&self, directory: &Directory, name: &OsString) -> Option<String> {
        let (directory, name, algorithm) = (directory.clone(), name.clone(), self.terms.algorithm);
        let digest = tokio::task::spawn_blocking(move || algorithm.digest_of(&mut directory.open_file(&name)?));
        digest.await.ok()?.ok()?
    }

    /// What an earlier try has left; small files leave nothing.
    fn partial(&self, job: &GetJob, directory: &Directory, name: &OsString) -> io::Result<Option<Box<Partial>>> {
        if job.known.as_ref().is_some_and(|known| known.size <= SMALL_SIZE_MAX) {
            return Ok(None);
        }
        if job.anew {
            partial::forget(directory, name)?;
            return Ok(None);
        }
        let server = self.remote.server().to_string();
        let fits = |origin: &partial::Origin| {
            origin.server == server
                && origin.plugin == self.remote.plugin()
                && origin.path == job.remote
                && !origin.etag.is_empty()
        };
        match Partial::find(directory, name, fits)? {
            Some(empty) if empty.len == 0 => empty.discard().map(|()| None),
            found => Ok(found.map(Box::new)),
        }
    }

    /// Receives one answer. Says whether the connection can be used further.
    async fn receive(&self, receiver: &mut Receiver, mut flight: Flight) -> Result<bool, Failure> {
        let received = self.answer(receiver, &mut flight).await;
        match received {
            Ok(_) => self.worked.set(true),
            Err(_) => {
                self.writer.send(Work::Abort).await;
                self.again.push(flight.job);
            }
        }
        received
    }

    async fn answer(&self, receiver: &mut Receiver, flight: &mut Flight) -> Result<bool, Failure> {
        let Some(object) = receiver.head().await?.cloned() else {
            let reply = Reply::default().ended(receiver.end().await?);
            if reply.status.is_ok() {
                return Err(Failure::protocol("get answered without a header"));
            }
            return self.refused(flight, reply).await;
        };
        let head: GetHead = parse_object(Some(object.clone()), "header of get")?;
        let reply = Reply { head: Some(object), ..Reply::default() };
        if head.unchanged {
            let reply = reply.ended(receiver.end().await?);
            if !reply.status.is_ok() {
                return self.refused(flight, reply).await;
            }
            if flight.digest.is_none() {
                return Err(Failure::protocol("get answered that nothing has changed; nothing was compared"));
            }
            if let Err(failure) = self.preserve(flight, &head) {
                self.tally.failed(&flight.job.shown, failure, self.terms.many);
                return Ok(true);
            }
            if let Some(partial) = flight.partial.take() {
                // Left where it is, it only takes room.
                let _ = partial.discard();
            }
            let job = GetJob { known: Some(head.facts()), ..flight.job.clone() };
            self.unchanged(job, flight.digest.clone(), reply);
            return Ok(true);
        }
        if head.offset != flight.offset || head.offset > head.size {
            return Err(Failure::protocol(format!("get begins at {}; asked: {}", head.offset, flight.offset)));
        }
        if flight.offset > 0 && head.etag != flight.etag {
            return Err(Failure::protocol("get goes on with another file than it began with"));
        }
        let is_small = head.size <= SMALL_SIZE_MAX && matches!(flight.job.target, Target::Place { .. });
        match is_small && flight.offset == 0 {
            true => self.small(receiver, flight, head, reply).await,
            false => self.large(receiver, flight, head, reply).await,
        }
    }

    async fn small(
        &self,
        receiver: &mut Receiver,
        flight: &mut Flight,
        head: GetHead,
        reply: Reply,
    ) -> Result<bool, Failure> {
        let running = self.tally.progress().begin(&flight.job.shown, Some(head.size), 0);
        let mut content = Vec::with_capacity(head.size as usize);
        while let Some(data) = receiver.recv().await? {
            if data.channel != CHANNEL_MAIN {
                continue;
            }
            running.add(data.payload.len());
            content.extend_from_slice(&data.payload);
            if content.len() as u64 > head.size {
                self.too_much(flight, head.size);
                return Ok(false);
            }
        }
        let end = Reply::default().ended(receiver.end().await?);
        if !end.status.is_ok() {
            return self.refused(flight, end).await;
        }
        let file = Box::new(self.file(flight, head, reply));
        self.writer.send_small(file, content, Box::new(end)).await;
        Ok(true)
    }

    async fn large(
        &self,
        receiver: &mut Receiver,
        flight: &mut Flight,
        head: GetHead,
        reply: Reply,
    ) -> Result<bool, Failure> {
        let running = self.tally.progress().begin(&flight.job.shown, Some(head.size), head.offset);
        let (size, mut len) = (head.size, head.offset);
        let file = Box::new(self.file(flight, head, reply));
        let stopped = Arc::clone(&file.stopped);
        self.writer.send(Work::Begin { file, partial: flight.partial.take() }).await;
        while let Some(data) = receiver.recv().await? {
            if data.channel != CHANNEL_MAIN {
                continue;
            }
            len += data.payload.len() as u64;
            if len > size {
                self.writer.send(Work::Abort).await;
                self.too_much(flight, size);
                self.forget(&flight.job).await;
                return Ok(false);
            }
            running.add(data.payload.len());
            self.writer.send_data(data.payload).await;
            if stopped.load(Ordering::Relaxed) {
                // The writer says why; the rest of the answer serves nobody.
                self.writer.send(Work::End(Box::default())).await;
                return Ok(false);
            }
        }
        let end = Reply::default().ended(receiver.end().await?);
        if !end.status.is_ok() {
            self.writer.send(Work::Abort).await;
            return self.refused(flight, end).await;
        }
        self.writer.send(Work::End(Box::new(end))).await;
        Ok(true)
    }

    fn file(&self, flight: &Flight, head: GetHead, reply: Reply) -> Fetch {
        let origin = partial::Origin {
            server: self.remote.server().to_string(),
            plugin: self.remote.plugin().to_owned(),
            path: flight.job.remote.clone(),
            etag: head.etag.clone().unwrap_or_default(),
            size: head.size,
            algorithm: self.terms.algorithm.to_string(),
        };
        Fetch { job: flight.job.clone(), head, reply, origin, stopped: Arc::new(AtomicBool::new(false)) }
    }

    /// The call ended badly: the file is begun anew once, tried again on another connection, or given up.
    async fn refused(&self, flight: &mut Flight, reply: Reply) -> Result<bool, Failure> {
        let failure = Failure::Status(Box::new(reply));
        flight.partial = None;
        if has_reason(&failure, &["source-changed", "bad-offset"]) {
            self.forget(&flight.job).await;
            if !flight.job.anew && self.terms.retry > 0 && !flight.job.target.has_output() {
                self.again.push(GetJob { anew: true, ..flight.job.clone() });
                return Ok(true);
            }
        } else if passes(&failure) {
            return Err(failure);
        }
        self.tally.failed(&flight.job.shown, failure, self.terms.many);
        Ok(true)
    }

    fn too_much(&self, flight: &Flight, size: u64) {
        let failure = Failure::data_loss("size-mismatch", format!("more bytes came than announced: {size}"));
        self.tally.failed(&flight.job.shown, failure, self.terms.many);
    }

    /// Throws away what came of a file that is no more.
    async fn forget(&self, job: &GetJob) {
        self.writer.sync().await;
        if let Target::Place { directory, name } = &job.target {
            // Left where it is, it is found to be wrong by the next try.
            let _ = partial::forget(directory, name);
        }
    }

    /// Sets what a file with the right content has beside it.
    fn preserve(&self, flight: &Flight, head: &GetHead) -> Result<(), Failure> {
        let Target::Place { directory, name } = &flight.job.target else { return Ok(()) };
        if !self.terms.preserve {
            return Ok(());
        }
        let set = directory.open_file(name).and_then(|file| local::preserve(&file, &head.facts()));
        set.map_err(|error| local::failure("cannot set the time of", &directory.path_of(name), error))
    }

    fn unchanged(&self, job: GetJob, digest: Option<String>, reply: Reply) {
        let receipt = Receipt {
            name: job.shown,
            size: job.known.map_or(0, |known| known.size),
            bytes: 0,
            resumed_from: 0,
            verified: digest.is_some(),
            digest,
            durable: Durability::None,
            published: false,
            unchanged: true,
        };
        self.tally.done(receipt, reply);
    }
}

impl Flight {
    fn args(&self, algorithm: Algorithm) -> GetArgs<'_> {
        GetArgs {
            path: &self.job.remote,
            algorithm,
            offset: self.offset,
            if_match: self.etag.as_deref(),
            if_none_match: self.digest.as_deref(),
        }
    }
}

impl Target {
    /// Whether content has gone where it cannot be taken back.
    fn has_output(&self) -> bool {
        match self {
            Target::Stdout(printed) => printed.lock().unwrap_or_else(PoisonError::into_inner).len > 0,
            Target::Place { .. } => false,
        }
    }
}
