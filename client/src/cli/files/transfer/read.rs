//! The thread of a lane that reads what is put, and hashes it.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use plugd_core::Origin;
use rustix::fs::{Stat, fstat};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot};

use super::group::{GROUPED_SIZE_MAX, Group, Small};
use super::hashing::Hashing;
use super::jobs::Jobs;
use super::put::{PutJob, Source};
use super::{SMALL_SIZE_MAX, Terms};
use crate::Status;
use crate::cli::failure::Failure;
use crate::cli::files::digest::READ_LEN;
use crate::cli::files::facts::Facts;
use crate::cli::files::local;
use crate::cli::files::name::hex;

/// How many pieces wait for the network, of 256 KiB at most.
const QUEUE_LEN: usize = 12;

/// How long to wait before a non-blocking standard input that had nothing is asked again.
const NON_BLOCKING_PAUSE: Duration = Duration::from_millis(5);

/// How long small files wait for others that go with them.
const GROUP_PAUSE: Duration = Duration::from_millis(1);

/// What the thread has read.
#[derive(Debug)]
pub(crate) enum Feed {
    /// What has no content.
    Plain(PutJob),
    /// A file that may be there already.
    Probe { job: PutJob, size: u64, digest: String },
    /// A whole file.
    Small(Small),
    /// Several of them.
    Group(Vec<Small>),
    /// A file whose content follows.
    Begin(Box<Begin>),
    /// Content of the file that has begun.
    Data(Bytes),
    /// The end of its content, with its digest, or why it cannot be sent.
    End(Result<Option<String>, Failure>),
    /// A file that cannot be read.
    Failed { job: PutJob, failure: Failure },
}

/// A file whose content follows, once it is known from where on.
#[derive(Debug)]
pub(crate) struct Begin {
    pub(crate) job: PutJob,
    /// Of a file; nothing is known about stdin.
    pub(crate) facts: Option<Facts>,
    /// The name of the upload at the server, the same for the same file to the same place.
    pub(crate) token: Option<String>,
    /// Takes the offset to begin at; dropped, nothing is read.
    pub(crate) start: oneshot::Sender<u64>,
    /// Set when the rest serves nobody.
    pub(crate) stop: Arc<AtomicBool>,
}

/// What tells one state of a file from another, also when size and modification time were set back.
#[derive(Debug, PartialEq, Eq)]
struct Identity([i64; 7]);

impl Identity {
    fn of(stat: &Stat) -> Identity {
        Identity([
            stat.st_dev as i64,
            stat.st_ino as i64,
            stat.st_size,
            stat.st_mtime,
            stat.st_mtime_nsec as i64,
            stat.st_ctime,
            stat.st_ctime_nsec as i64,
        ])
    }

    /// The same one for the same upload, so that another run carries on; another one as soon as anything differs.
    fn token(&self, place: &str, job: &PutJob) -> String {
        let mut hasher = blake3::Hasher::new();
        for number in self.0 {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(place.as_bytes()).update(&[0]).update(job.remote.as_bytes());
        hex(&hasher.finalize().as_bytes()[..16])
    }
}

/// Starts the thread. It ends when all jobs are finished, or nobody receives any more.
///
/// `place` names the server and its plugin.
pub(crate) fn start(jobs: Jobs<PutJob>, terms: Terms, place: String) -> mpsc::Receiver<Feed> {
    let (feed, received) = mpsc::channel(QUEUE_LEN);
    std::thread::spawn(move || {
        let (group, is_handed_over) = (RefCell::default(), Cell::default());
        let task = Task { feed, terms, place, jobs, group, is_handed_over };
        while let Some(job) = task.next() {
            let kept = job.clone();
            task.is_handed_over.set(false);
            if !task.read(job) {
                // The lane gives back what has reached it.
                if !task.is_handed_over.get() {
                    task.jobs.give_back(kept);
                }
                return;
            }
            if task.group.borrow().is_full() && !task.send_group() {
                return;
            }
        }
    });
    received
}

impl Feed {
    /// The jobs that begin with this.
    pub(crate) fn into_jobs(self) -> Vec<PutJob> {
        match self {
            Feed::Plain(job) | Feed::Probe { job, .. } | Feed::Failed { job, .. } => vec![job],
            Feed::Small(small) => vec![small.job],
            Feed::Group(group) => group.into_iter().map(|small| small.job).collect(),
            Feed::Begin(begin) => vec![begin.job],
            Feed::Data(_) | Feed::End(_) => Vec::new(),
        }
    }
}

struct Task {
    feed: mpsc::Sender<Feed>,
    terms: Terms,
    place: String,
    jobs: Jobs<PutJob>,
    /// What was read and is kept for others to go with it.
    group: RefCell<Group>,
    /// Whether the lane has heard of the job.
    is_handed_over: Cell<bool>,
}

impl Task {
    /// Waits for the next job; what was read does not wait with it. `None` when there are no more, or nobody receives.
    fn next(&self) -> Option<PutJob> {
        if !self.group.borrow().is_empty() {
            let job = self.jobs.take_within(GROUP_PAUSE);
            if job.is_some() {
                return job;
            }
            if !self.send_group() {
                return None;
            }
        }
        self.jobs.take()
    }

    /// Reads one file. Says whether anybody still receives.
    fn read(&self, job: PutJob) -> bool {
        let opened = match &job.source {
            Source::Directory | Source::Removal => return self.send(Feed::Plain(job)),
            Source::Stdin => return self.stdin(job),
            Source::Named(path) => local::open_named(path),
            Source::Found { directory, name } => directory
                .open_file(name)
                .map_err(|error| local::failure("cannot open", &directory.path_of(name), error)),
        };
        match opened.and_then(|file| self.file(&job, file)) {
            Ok(received) => received,
            Err(failure) => self.send(Feed::Failed { job, failure }),
        }
    }

    fn file(&self, job: &PutJob, mut file: File) -> Result<bool, Failure> {
        let cannot = |error| cannot_read(job, error);
        let stat = fstat(&file).map_err(|error| cannot(error.into()))?;
        let (facts, identity) = (Facts::of(&stat), Identity::of(&stat));
        if job.probe && !self.terms.algorithm.is_none() {
            let digest = self.terms.algorithm.digest_of(&mut file).map_err(cannot)?.unwrap_or_default();
            self.unchanged(job, &file, &identity)?;
            return Ok(self.send(Feed::Probe { job: job.clone(), size: facts.size, digest }));
        }
        match facts.size <= SMALL_SIZE_MAX {
            true => self.small(job, file, facts, &identity),
            false => self.large(job, file, facts, &identity),
        }
    }

    fn small(&self, job: &PutJob, file: File, facts: Facts, identity: &Identity) -> Result<bool, Failure> {
        // A file that has grown has other facts afterwards; only what the system makes up as it is read has none before.
        let len_max = facts.size.max(1);
        let mut content = Vec::with_capacity(len_max as usize);
        let read = (&file).take(len_max).read_to_end(&mut content);
        read.map_err(|error| cannot_read(job, error))?;
        self.unchanged(job, &file, identity)?;
        if content.len() as u64 != facts.size {
            return Err(source_changed(job));
        }
        let mut hasher = self.terms.algorithm.hasher();
        hasher.update(&content);
        let digest = hasher.finish();
        let goes_alone = !self.terms.many || job.if_match.is_some() || facts.size > GROUPED_SIZE_MAX;
        let small = Small { job: job.clone(), facts, content: content.into(), digest };
        if goes_alone {
            return Ok(self.send(Feed::Small(small)));
        }
        if !self.group.borrow().takes(&small) && !self.send_group() {
            return Ok(false);
        }
        self.group.borrow_mut().push(small);
        Ok(true)
    }

    fn large(&self, job: &PutJob, mut file: File, facts: Facts, identity: &Identity) -> Result<bool, Failure> {
        let (start, begin_at) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let token = Some(identity.token(&self.place, job));
        let size = facts.size;
        let begin = Begin { job: job.clone(), facts: Some(facts), token, start, stop: Arc::clone(&stop) };
        if !self.send(Feed::Begin(Box::new(begin))) {
            return Ok(false);
        }
        let Ok(offset) = begin_at.blocking_recv() else {
            return Ok(self.send(Feed::End(Ok(None))));
        };
        let sent = self.content(&mut file, offset, size, &stop);
        let ended = match sent {
            Ok(digest) if stop.load(Ordering::Relaxed) => Ok(digest),
            Ok(digest) => self.unchanged(job, &file, identity).map(|()| digest),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(source_changed(job)),
            Err(error) => Err(cannot_read(job, error)),
        };
        Ok(self.send(Feed::End(ended)))
    }

    /// Sends exactly the bytes from `offset` to `size`, and hashes all of them.
    fn content(&self, file: &mut File, offset: u64, size: u64, stop: &AtomicBool) -> io::Result<Option<String>> {
        let mut hasher = self.terms.algorithm.hasher();
        let mut at = 0;
        if self.terms.algorithm.is_none() {
            at = file.seek(SeekFrom::Start(offset))?;
        }
        let mut buf = vec![0; if at < offset { READ_LEN } else { 0 }];
        while at < offset && !stop.load(Ordering::Relaxed) {
            let len = (offset - at).min(READ_LEN as u64) as usize;
            file.read_exact(&mut buf[..len])?;
            hasher.update(&buf[..len]);
            at += len as u64;
        }
        let hashing = Hashing::start(self.terms.algorithm, hasher);
        while at < size && !stop.load(Ordering::Relaxed) {
            let len = (size - at).min(READ_LEN as u64) as usize;
            let mut chunk = BytesMut::zeroed(len);
            file.read_exact(&mut chunk)?;
            let chunk = chunk.freeze();
            hashing.add(&chunk);
            if !self.send(Feed::Data(chunk)) {
                break;
            }
            at += len as u64;
        }
        Ok(hashing.end().finish())
    }

    /// Sends what stdin has, as it comes. It cannot be read again, so there is no token.
    fn stdin(&self, job: PutJob) -> bool {
        let (start, begin_at) = oneshot::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let begin = Begin { job: job.clone(), facts: None, token: None, start, stop: Arc::clone(&stop) };
        if !self.send(Feed::Begin(Box::new(begin))) || begin_at.blocking_recv().is_err() {
            return self.send(Feed::End(Ok(None)));
        }
        let ended = self.stream(&stop).map_err(|error| cannot_read(&job, error));
        self.send(Feed::End(ended))
    }

    fn stream(&self, stop: &AtomicBool) -> io::Result<Option<String>> {
        // A descriptor of our own: the one of the standard library reads ahead through a small buffer.
        let mut file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let hashing = Hashing::start(self.terms.algorithm, self.terms.algorithm.hasher());
        while !stop.load(Ordering::Relaxed) {
            let mut chunk = BytesMut::zeroed(READ_LEN);
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(len) => {
                    chunk.truncate(len);
                    let chunk = chunk.freeze();
                    hashing.add(&chunk);
                    if !self.send(Feed::Data(chunk)) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Somebody who shares the descriptor has made it non-blocking; a file has no event to wait for.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(NON_BLOCKING_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(hashing.end().finish())
    }

    fn unchanged(&self, job: &PutJob, file: &File, before: &Identity) -> Result<(), Failure> {
        let after = fstat(file).map_err(|error| cannot_read(job, error.into()))?;
        if Identity::of(&after) == *before { Ok(()) } else { Err(source_changed(job)) }
    }

    fn send(&self, feed: Feed) -> bool {
        let is_received = self.send_group() && self.feed.blocking_send(feed).is_ok();
        self.is_handed_over.set(is_received || self.is_handed_over.get());
        is_received
    }

    /// Sends what waits for others. When nobody receives any more, its jobs go back.
    fn send_group(&self) -> bool {
        let Some(feed) = self.group.take().into_feed() else { return true };
        match self.feed.blocking_send(feed) {
            Ok(()) => true,
            Err(SendError(feed)) => {
                feed.into_jobs().into_iter().for_each(|job| self.jobs.give_back(job));
                false
            }
        }
    }
}

fn cannot_read(job: &PutJob, error: io::Error) -> Failure {
    match &job.source {
        Source::Named(path) => local::failure("cannot read", path, error),
        Source::Found { directory, name } => local::failure("cannot read", &directory.path_of(name), error),
        Source::Stdin | Source::Directory | Source::Removal => Failure::io("cannot read stdin", error),
    }
}

fn source_changed(job: &PutJob) -> Failure {
    let name = match &job.source {
        Source::Named(path) => crate::cli::text::one_line_of_bytes(path.as_os_str().as_bytes()),
        Source::Found { name, .. } => crate::cli::text::one_line_of_bytes(name.as_bytes()),
        Source::Stdin | Source::Directory | Source::Removal => "stdin".to_owned(),
    };
    let text = format!("{name} was changed while it was read");
    Failure::found(Status::aborted("source-changed", text).with_origin(Origin::Caller))
}
