//! Drops files.

mod all;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::group::Small;
use super::jobs::Jobs;
use super::read::{Begin, Feed, start};
use super::{FLIGHTS_MAX, LaneEnd, Terms, come_to, failed, is_one_too_many};
use crate::cli::failure::Failure;
use crate::cli::files::change::{MkdirArgs, RmArgs};
use crate::cli::files::digest::Algorithm;
use crate::cli::files::facts::Facts;
use crate::cli::files::local::Directory;
use crate::cli::files::name::Name;
use crate::cli::files::options::Durability;
use crate::cli::files::progress::Running;
use crate::cli::files::remote::{Remote, has_reason, is_false, parse, parse_object};
use crate::cli::files::retry::{Retries, passes};
use crate::cli::files::tally::{Receipt, Tally};
use crate::cli::stream::succeeded;
use crate::cli::text::one_line;
use crate::{Client, ClientError, Data, Receiver, Reply, Sender, Status};

/// The side channel that carries the digest after the data.
const CHANNEL_DIGEST: u8 = 1;

/// The longest answer of a probe, in bytes: one line.
const PROBE_LEN_MAX: usize = 64 << 10;

/// A file to drop.
#[derive(Debug, Clone)]
pub(crate) struct PutJob {
    pub(crate) source: Source,
    pub(crate) remote: Name,
    /// The server's file of this size may be the one already; its digest is asked for first.
    pub(crate) probe: bool,
    /// The file is dropped only while the server's is this one.
    pub(crate) if_match: Option<String>,
    /// Whether what an earlier try left at the server is not to be used.
    pub(crate) anew: bool,
    /// Whether a call for it was lost, and may have done its work.
    pub(crate) lost: bool,
    /// What the server said to a call after a lost one; that may have met its own work.
    pub(crate) doubt: Option<Status>,
}

/// Where content comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Stdin,
    /// A path that the user names.
    Named(PathBuf),
    /// What a walk found.
    Found {
        directory: Directory,
        name: OsString,
    },
    /// A directory, which is only made.
    Directory,
    /// Nothing: what is there is removed; a directory only when it is empty.
    Removal,
}

impl PutJob {
    pub(crate) fn new(source: Source, remote: Name) -> PutJob {
        PutJob { source, remote, probe: false, if_match: None, anew: false, lost: false, doubt: None }
    }
}

/// The arguments of `put`.
#[derive(Debug, Serialize)]
struct PutArgs<'a> {
    path: &'a Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    algorithm: Algorithm,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    resume: bool,
    #[serde(skip_serializing_if = "is_false")]
    no_clobber: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_match: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime_s: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime_ns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<Durability>,
    #[serde(skip_serializing_if = "is_false")]
    parents: bool,
}

/// The arguments of `digest`.
#[derive(Debug, Serialize)]
struct DigestArgs<'a> {
    path: &'a Name,
    algorithm: Algorithm,
}

/// The answer of `digest`.
#[derive(Debug, Deserialize)]
struct Digested {
    size: u64,
    digest: String,
}

/// The header of `put`.
#[derive(Debug, Deserialize)]
struct PutHead {
    #[serde(default)]
    offset: u64,
}

/// The server's receipt.
#[derive(Debug, Deserialize)]
struct Trailer {
    size: u64,
    #[serde(default)]
    digest: Option<String>,
    #[serde(default)]
    verified: bool,
    #[serde(default)]
    durable: Option<Durability>,
    #[serde(default)]
    published: bool,
    #[serde(default)]
    unchanged: bool,
}

/// A call that was sent and has not ended.
#[derive(Debug)]
enum Sending {
    One(Flight),
    /// Of small files, whose receipts come in this order.
    All(VecDeque<Flight>),
}

/// A file that was sent, or what else a call is made for.
#[derive(Debug)]
struct Flight {
    job: PutJob,
    kind: Kind,
    sent: Rc<Sent>,
}

#[derive(Debug)]
enum Kind {
    Plain,
    Probe {
        size: u64,
        digest: String,
    },
    File,
    /// Whose content is sent once it is known from where on.
    Resumable(Option<oneshot::Sender<u64>>),
}

/// What was sent of a file.
#[derive(Debug, Default)]
struct Sent {
    /// How many bytes the whole file has, as far as it was read.
    size: Cell<u64>,
    offset: Cell<u64>,
    digest: RefCell<Option<String>>,
    /// Why the rest could not be sent.
    failure: RefCell<Option<Failure>>,
}

/// Drops everything from the queue, over `lanes` connections, or fewer where the server has no room for so many.
///
/// # Errors
///
/// What ended a lane. What became of each file, the tally says.
pub(crate) async fn run(
    remote: &Remote,
    jobs: &Jobs<PutJob>,
    lanes: u32,
    terms: &Terms,
    tally: &Tally,
) -> Result<(), Failure> {
    let place = format!("{}\0{}", remote.server(), remote.plugin());
    let left = Cell::new(lanes);
    let lanes = join_all((0..lanes).map(|index| {
        let feed = Mutex::new(start(jobs.clone(), terms.clone(), place.clone()));
        let (peeked, within, has_put_all) = (RefCell::new(None), RefCell::new(None), Cell::new(true));
        let (is_first, worked) = (index == 0, Cell::default());
        let lane = Lane { remote, jobs, terms, tally, feed, peeked, within, has_put_all, is_first, worked };
        let left = &left;
        async move {
            let failure = lane.run().await.err();
            lane.give_back_all().await;
            left.set(left.get() - 1);
            if left.get() == 0 {
                jobs.abandon();
            }
            LaneEnd { worked: lane.worked.get(), failure }
        }
    }));
    come_to(lanes.await)
}

struct Lane<'l> {
    remote: &'l Remote,
    jobs: &'l Jobs<PutJob>,
    terms: &'l Terms,
    tally: &'l Tally,
    feed: Mutex<mpsc::Receiver<Feed>>,
    /// What was taken from it to see whether there is anything.
    peeked: RefCell<Option<Feed>>,
    /// Stops the reading of the file whose content is being sent.
    within: RefCell<Option<Arc<AtomicBool>>>,
    /// Whether the server takes many files in one call, as far as it has said.
    has_put_all: Cell<bool>,
    is_first: bool,
    /// Whether any call was answered.
    worked: Cell<bool>,
}

impl Lane<'_> {
    async fn run(&self) -> Result<(), Failure> {
        let mut retries = Retries::new(self.terms.retry);
        let mut files = self.tally.files();
        loop {
            self.skip_rest().await;
            // The connection is made when there is something to send.
            let Some(feed) = self.next().await else { return Ok(()) };
            self.peeked.replace(Some(feed));
            let ended = match self.remote.client().await {
                Ok(client) => self.fly(client).await,
                Err(failure) => Err(failure),
            };
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
    }

    /// Takes what comes next, waiting for it.
    async fn next(&self) -> Option<Feed> {
        match self.next_now() {
            Some(feed) => Some(feed),
            None => self.feed.lock().await.recv().await,
        }
    }

    /// Takes what comes next if it is there at once.
    fn next_now(&self) -> Option<Feed> {
        self.peeked.take().or_else(|| self.feed.try_lock().ok()?.try_recv().ok())
    }

    /// Passes over what is left of a file whose call was lost.
    async fn skip_rest(&self) {
        let within = self.within.take();
        if let Some(stop) = &within {
            stop.store(true, Ordering::Relaxed);
            while !matches!(self.next().await, None | Some(Feed::End(_))) {}
        }
    }

    /// Leaves what was read to other lanes.
    async fn give_back_all(&self) {
        let mut feed = self.feed.lock().await;
        feed.close();
        let give_back = |feed: Feed| feed.into_jobs().into_iter().for_each(|job| self.jobs.give_back(job));
        self.peeked.take().into_iter().for_each(give_back);
        while let Some(one) = feed.recv().await {
            give_back(one);
        }
    }

    /// Uses one connection for as long as it lasts and there are jobs.
    async fn fly(&self, client: Client) -> Result<(), Failure> {
        let (mut sender, mut receiver) = client.into_halves();
        let (flights, mut received) = mpsc::channel(FLIGHTS_MAX);
        let mut sent = Ok(());
        let ended: Result<(), Failure> = {
            let receive = async {
                while let Some(sending) = received.recv().await {
                    match sending {
                        Sending::One(flight) => self.receive(&mut receiver, flight).await?,
                        Sending::All(flights) => self.receive_all(&mut receiver, flights).await?,
                    }
                }
                Ok(())
            };
            let (mut send, mut receive) = (pin!(self.send(&mut sender, flights)), pin!(receive));
            tokio::select! {
                biased;
                ended = &mut receive => ended,
                ended = &mut send => {
                    sent = ended;
                    receive.await
                }
            }
        };
        // What was sent ahead and got no answer is to be sent again.
        while let Ok(sending) = received.try_recv() {
            match sending {
                Sending::One(flight) => self.lost(flight),
                Sending::All(flights) => flights.into_iter().for_each(|flight| self.lost(flight)),
            }
        }
        ended?;
        sent?;
        self.remote.keep(Client::from_halves(sender, receiver));
        Ok(())
    }

    async fn send(&self, sender: &mut Sender, flights: mpsc::Sender<Sending>) -> Result<(), Failure> {
        loop {
            // A place first: what was read must never be held by a future that may be dropped.
            let place = match flights.try_reserve() {
                Ok(place) => place,
                Err(_) => {
                    sender.flush().await?;
                    let Ok(place) = flights.reserve().await else { return Ok(()) };
                    place
                }
            };
            let feed = match self.next_now() {
                Some(feed) => feed,
                None => {
                    sender.flush().await?;
                    let Some(feed) = self.next().await else { return Ok(()) };
                    feed
                }
            };
            match feed {
                Feed::Begin(begin) => self.send_large(sender, place, *begin).await?,
                Feed::Failed { job, failure } => self.failed_here(job, failure),
                Feed::Data(_) | Feed::End(_) => {}
                Feed::Plain(job) => {
                    let open = match job.source {
                        Source::Removal => self.remote.open("rm", &RmArgs { path: &job.remote, recursive: false }),
                        _ => self.remote.open("mkdir", &MkdirArgs { path: &job.remote, parents: true }),
                    };
                    place.send(Sending::One(Flight { job, kind: Kind::Plain, sent: Rc::default() }));
                    sender.send_ahead(&open, Bytes::new()).await?;
                }
                Feed::Probe { job, size, digest } => {
                    let args = DigestArgs { path: &job.remote, algorithm: self.terms.algorithm };
                    let open = self.remote.open("digest", &args);
                    let kind = Kind::Probe { size, digest };
                    place.send(Sending::One(Flight { job, kind, sent: Rc::default() }));
                    sender.send_ahead(&open, Bytes::new()).await?;
                }
                Feed::Small(small) => self.send_small(sender, place, small).await?,
                Feed::Group(group) if self.has_put_all.get() => self.send_all(sender, place, group).await?,
                Feed::Group(mut group) => {
                    let last = group.pop();
                    if !group.is_empty() {
                        self.peeked.replace(Some(Feed::Group(group)));
                    }
                    if let Some(small) = last {
                        self.send_small(sender, place, small).await?;
                    }
                }
            }
        }
    }

    /// Sends a file whose content is at hand.
    async fn send_small(
        &self,
        sender: &mut Sender,
        place: mpsc::Permit<'_, Sending>,
        small: Small,
    ) -> Result<(), Failure> {
        let args = self.args(&small.job, Some(&small.facts), small.digest.as_deref(), None);
        let open = self.remote.open("put", &args);
        let (flight, content) = self.depart(small);
        place.send(Sending::One(flight));
        Ok(not_ended(sender.send_ahead(&open, content).await)?)
    }

    /// A file that is about to be sent, and its content.
    fn depart(&self, Small { job, facts, content, digest }: Small) -> (Flight, Bytes) {
        let sent = Rc::new(Sent { digest: RefCell::new(digest), ..Sent::default() });
        sent.size.set(content.len() as u64);
        self.tally.progress().begin(&job.remote, Some(facts.size), 0).add(content.len());
        (Flight { job, kind: Kind::File, sent }, content)
    }

    /// Sends a file whose content comes piece by piece.
    async fn send_large(
        &self,
        sender: &mut Sender,
        place: mpsc::Permit<'_, Sending>,
        begin: Begin,
    ) -> Result<(), Failure> {
        let Begin { job, facts, token, start, stop } = begin;
        self.within.replace(Some(Arc::clone(&stop)));
        let open = self.remote.open("put", &self.args(&job, facts.as_ref(), None, token.as_deref()));
        let shown = job.remote.clone();
        let sent = Rc::new(Sent::default());
        let (told, offset) = oneshot::channel();
        let kind = if token.is_some() { Kind::Resumable(Some(told)) } else { Kind::File };
        let is_resumable = token.is_some();
        place.send(Sending::One(Flight { job, kind, sent: Rc::clone(&sent) }));
        sender.open(&open).await?;
        // Reading may take its time, and the server waits for the opening header only so long.
        not_ended(sender.flush().await)?;
        let from = if is_resumable { offset.await.ok() } else { Some(0) };
        if let Some(from) = from {
            sent.offset.set(from);
            sent.size.set(from);
            // Where the reading has ended, its end says why.
            let _ = start.send(from);
        } else {
            stop.store(true, Ordering::Relaxed);
            drop(start);
        }
        let running = self.tally.progress().begin(&shown, facts.map(|facts| facts.size), from.unwrap_or(0));
        let ended = self.send_content(sender, &stop, &sent, &running).await?;
        self.within.replace(None);
        match ended {
            Ok(Some(digest)) if !stop.load(Ordering::Relaxed) => {
                sent.digest.replace(Some(digest.clone()));
                not_ended(sender.feed(Data { channel: CHANNEL_DIGEST, ..Data::main(digest) }).await)?;
                Ok(not_ended(sender.finish().await)?)
            }
            Ok(_) => Ok(not_ended(sender.finish().await)?),
            Err(failure) => {
                sent.failure.replace(Some(failure));
                Ok(not_ended(sender.cancel().await)?)
            }
        }
    }

    /// Sends content up to its end, and passes over the rest of it when the call has ended before.
    async fn send_content(
        &self,
        sender: &mut Sender,
        stop: &AtomicBool,
        sent: &Sent,
        running: &Running,
    ) -> Result<Result<Option<String>, Failure>, Failure> {
        loop {
            let feed = match self.next_now() {
                Some(feed) => Some(feed),
                None => {
                    not_ended(sender.flush().await)?;
                    self.next().await
                }
            };
            match feed {
                Some(Feed::Data(_)) if stop.load(Ordering::Relaxed) => {}
                Some(Feed::Data(chunk)) => {
                    let len = chunk.len();
                    match sender.feed(Data::main(chunk)).await {
                        Ok(()) => {
                            sent.size.set(sent.size.get() + len as u64);
                            running.add(len);
                        }
                        Err(ClientError::Ended) => stop.store(true, Ordering::Relaxed),
                        Err(error) => return Err(error.into()),
                    }
                }
                Some(Feed::End(ended)) => return Ok(ended),
                _ => return Ok(Err(Failure::protocol("reading ended within a file"))),
            }
        }
    }

    fn args<'a>(
        &'a self,
        job: &'a PutJob,
        facts: Option<&Facts>,
        digest: Option<&'a str>,
        token: Option<&'a str>,
    ) -> PutArgs<'a> {
        let preserved = facts.filter(|_| self.terms.preserve);
        PutArgs {
            path: &job.remote,
            size: facts.map(|facts| facts.size),
            algorithm: self.terms.algorithm,
            digest,
            token,
            resume: token.is_some() && !job.anew,
            no_clobber: self.terms.no_clobber,
            if_match: job.if_match.as_deref(),
            mtime_s: preserved.map(|facts| facts.mtime_s),
            mtime_ns: preserved.map(|facts| facts.mtime_ns),
            mode: preserved.map(|facts| facts.mode & 0o777),
            durability: self.terms.durability,
            parents: self.terms.many,
        }
    }

    /// The connection was lost before the end of the call.
    fn lost(&self, flight: Flight) {
        self.jobs.give_back(PutJob { lost: true, ..flight.job });
    }

    async fn receive(&self, receiver: &mut Receiver, mut flight: Flight) -> Result<(), Failure> {
        let reply = match self.reply(receiver, &mut flight).await {
            Ok(reply) => reply,
            Err(failure) => {
                self.lost(flight);
                return Err(failure);
            }
        };
        if let Some(failure) = flight.sent.failure.take() {
            self.remote.leftovers.remove_upload(&flight.job.remote);
            self.failed_here(flight.job, failure);
            return Ok(());
        }
        let answered = succeeded(reply);
        if answered.as_ref().is_err_and(passes) {
            self.lost(flight);
            return answered.map(drop);
        }
        self.worked.set(true);
        self.remote.leftovers.remove_upload(&flight.job.remote);
        match answered {
            Ok(reply) => self.succeeded(flight, reply),
            Err(failure) => self.refused(flight, failure),
        }
        Ok(())
    }

    async fn reply(&self, receiver: &mut Receiver, flight: &mut Flight) -> Result<Reply, Failure> {
        let start = match &mut flight.kind {
            Kind::Plain | Kind::Probe { .. } => return Ok(receiver.reply(PROBE_LEN_MAX).await?),
            Kind::File => None,
            Kind::Resumable(start) => start.take(),
        };
        let head = receiver.head().await?.cloned();
        if let (Some(start), Some(object)) = (start, &head) {
            let head: PutHead = parse_object(Some(object.clone()), "header of put")?;
            self.remote.leftovers.add_upload(&flight.job.remote);
            // A sender that has gone needs no offset.
            let _ = start.send(head.offset);
        }
        Ok(Reply { head, ..Reply::default() }.ended(receiver.end().await?))
    }

    fn succeeded(&self, flight: Flight, reply: Reply) {
        let Flight { job, kind, sent } = flight;
        match kind {
            Kind::Plain => {
                if matches!(job.source, Source::Removal) {
                    self.tally.deleted(&job.remote);
                }
                self.jobs.finish();
            }
            Kind::Probe { size, digest } => self.probed(job, size, digest, reply),
            Kind::File | Kind::Resumable(_) => {
                let trailer = parse_object(reply.trailer.clone(), "trailer of put");
                self.stored(&job, &sent, trailer, reply);
            }
        }
    }

    /// The server has stored the file, and says so in its receipt.
    fn stored(&self, job: &PutJob, sent: &Sent, trailer: Result<Trailer, Failure>, reply: Reply) {
        match trailer.and_then(|trailer| self.receipt(job, sent, trailer)) {
            Ok(receipt) => self.tally.done(receipt, reply),
            Err(failure) => self.tally.failed(&job.remote, failure, self.terms.many),
        }
        self.jobs.finish();
    }

    /// The server has a file of the same size: it is the same one, or it is to be replaced.
    fn probed(&self, job: PutJob, size: u64, digest: String, reply: Reply) {
        let same = parse::<Digested>(&reply.bytes(), "digest")
            .is_ok_and(|there| there.size == size && there.digest.eq_ignore_ascii_case(&digest));
        if same {
            let receipt = Receipt {
                name: job.remote,
                size,
                bytes: 0,
                resumed_from: 0,
                digest: Some(digest),
                verified: true,
                durable: Durability::None,
                published: false,
                unchanged: true,
            };
            self.tally.done(receipt, reply);
            return self.jobs.finish();
        }
        match job.doubt {
            None => self.jobs.give_back(PutJob { probe: false, ..job }),
            // The lost call had not done its work: somebody else has.
            Some(status) => {
                self.tally.failed(&job.remote, Failure::found(status), self.terms.many);
                self.jobs.finish();
            }
        }
    }

    /// The server's receipt says what it received, and that it has compared that with the digest.
    fn receipt(&self, job: &PutJob, sent: &Sent, trailer: Trailer) -> Result<Receipt, Failure> {
        let (size, digest) = (sent.size.get(), sent.digest.take());
        if trailer.size != size {
            let text = format!("{} bytes came through; expected: {size}", trailer.size);
            return Err(Failure::data_loss("size-mismatch", text));
        }
        if let (Some(here), Some(there)) = (&digest, &trailer.digest)
            && !here.eq_ignore_ascii_case(there)
        {
            let text = format!("{} came through; expected: {here}", one_line(there));
            return Err(Failure::data_loss("digest-mismatch", text));
        }
        if digest.is_some() && !trailer.verified {
            return Err(Failure::data_loss("not-verified", "the server did not verify the digest".to_owned()));
        }
        Ok(Receipt {
            name: job.remote.clone(),
            size,
            bytes: size - sent.offset.get().min(size),
            resumed_from: sent.offset.get(),
            digest,
            verified: trailer.verified,
            durable: trailer.durable.unwrap_or(Durability::None),
            published: trailer.published,
            unchanged: trailer.unchanged,
        })
    }

    /// The call ended badly: the file is begun anew, or given up.
    fn refused(&self, flight: Flight, failure: Failure) {
        let Flight { job, kind, sent } = flight;
        let may_begin_anew = self.terms.retry > 0 && !job.anew;
        let name = job.remote.clone();
        match (&kind, failure) {
            (Kind::Probe { .. }, failure) if job.doubt.is_none() => {
                drop(failure);
                return self.jobs.give_back(PutJob { probe: false, ..job });
            }
            // A lost call may have done its work, which the next one then meets.
            (Kind::File | Kind::Resumable(_), Failure::Status(reply))
                if job.lost
                    && job.doubt.is_none()
                    && !self.terms.algorithm.is_none()
                    && ["exists", "changed"].contains(&reply.status.reason()) =>
            {
                let doubt = Some(reply.status.clone());
                return self.jobs.give_back(PutJob { probe: true, doubt, ..job });
            }
            // What the server had kept may have been wrong from an earlier try.
            (Kind::Resumable(_), failure)
                if may_begin_anew
                    && (sent.offset.get() > 0 || has_reason(&failure, &["bad-offset"]))
                    && has_reason(&failure, &["digest-mismatch", "size-mismatch", "bad-offset"]) =>
            {
                return self.jobs.give_back(PutJob { anew: true, ..job });
            }
            (Kind::Probe { .. }, _) => {
                let status = job.doubt.unwrap_or_else(Status::ok);
                self.tally.failed(&name, Failure::found(status), self.terms.many);
            }
            // What is left in it was left out of the comparison, and so is the directory.
            (Kind::Plain, failure) if has_reason(&failure, &["not-empty", "no-such-file"]) => {}
            (_, failure) => failed(&name, failure, self.terms, self.tally),
        }
        self.jobs.finish();
    }

    /// The file cannot be read here, or was changed meanwhile, after which it is begun anew once.
    fn failed_here(&self, job: PutJob, failure: Failure) {
        if has_reason(&failure, &["source-changed"]) && !job.anew && self.terms.retry > 0 {
            return self.jobs.give_back(PutJob { anew: true, ..job });
        }
        self.tally.failed(&job.remote, failure, self.terms.many);
        self.jobs.finish();
    }
}

/// A call that has ended takes no more input; its end says why.
fn not_ended(sent: Result<(), ClientError>) -> Result<(), ClientError> {
    match sent {
        Err(ClientError::Ended) => Ok(()),
        sent => sent,
    }
}
