//! The thread of a lane that writes what is fetched, verifies it and shows it under its name.

use std::cell::RefCell;
use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use plugd_core::{Code, Origin};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::get::{GetHead, GetJob, Target};
use super::hashing::Hashing;
use super::temporary::{self, Swept};
use super::{Again, Terms, failed};
use crate::cli::failure::Failure;
use crate::cli::files::digest::{Algorithm, Hasher, READ_LEN};
use crate::cli::files::leftovers::Leftovers;
use crate::cli::files::local::{self, Directory, MODE_NEW};
use crate::cli::files::options::Durability;
use crate::cli::files::partial::{self, Partial};
use crate::cli::files::remote::parse_object;
use crate::cli::files::tally::{Receipt, Tally};
use crate::cli::text::{one_line, one_line_of_bytes};
use crate::{Reply, Status};

/// How many bytes may wait to be written.
const QUEUE_LEN_MAX: usize = 2 << 20;

/// How many pieces of work may wait: small files are one piece each.
const QUEUE_ENTRIES_MAX: usize = 256;

/// The permissions that a file has in any case until it is whole: it is written, and read to be carried on.
const MODE_OWNER: u32 = 0o600;

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Work {
    /// A file that is held in memory, with its share of the queue.
    Small { file: Box<Fetch>, content: Vec<u8>, end: Box<Reply>, room: OwnedSemaphorePermit },
    /// A file whose content follows.
    Begin { file: Box<Fetch>, partial: Option<Box<Partial>> },
    /// Content of the file that has begun, with its share of the queue.
    Data(Bytes, OwnedSemaphorePermit),
    /// The call of the file that has begun ended well.
    End(Box<Reply>),
    /// It did not; what came is kept.
    Abort,
    /// Asks for a word when everything before is done.
    Sync(oneshot::Sender<()>),
}

/// A file that is being fetched.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) job: GetJob,
    pub(crate) head: GetHead,
    pub(crate) reply: Reply,
    /// Where its partial content would come from.
    pub(crate) origin: partial::Origin,
    /// Set when nothing more can be written.
    pub(crate) stopped: Arc<AtomicBool>,
}

/// What the server says at the end of a get.
#[derive(Debug, Deserialize, Default)]
struct Trailer {
    #[serde(default)]
    digest: Option<String>,
}

/// Content that went to stdout, from which another try carries on.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) len: u64,
    pub(crate) etag: Option<String>,
    hasher: Option<Hasher>,
}

impl Printed {
    pub(crate) fn new() -> Printed {
        Printed { len: 0, etag: None, hasher: None }
    }
}

/// The thread, as the lane sees it.
#[derive(Debug)]
pub(crate) struct Writer {
    work: mpsc::Sender<Work>,
    room: Arc<Semaphore>,
}

impl Writer {
    pub(crate) fn start(terms: Terms, tally: Tally, again: Again<GetJob>, leftovers: Leftovers) -> Writer {
        let (work, received) = mpsc::channel(QUEUE_ENTRIES_MAX);
        let task = Task { terms, tally, again, leftovers, swept: RefCell::default() };
        std::thread::spawn(move || task.run(received));
        Writer { work, room: Arc::new(Semaphore::new(QUEUE_LEN_MAX)) }
    }

    pub(crate) async fn send(&self, work: Work) {
        // The thread ends only after this side has.
        let _ = self.work.send(work).await;
    }

    /// Hands content over, once there is room for it.
    pub(crate) async fn send_data(&self, data: Bytes) {
        let room = self.room_for(data.len()).await;
        self.send(Work::Data(data, room)).await;
    }

    /// Hands a whole file over, once there is room for it.
    pub(crate) async fn send_small(&self, file: Box<Fetch>, content: Vec<u8>, end: Box<Reply>) {
        let room = self.room_for(content.len()).await;
        self.send(Work::Small { file, content, end, room }).await;
    }

    async fn room_for(&self, len: usize) -> OwnedSemaphorePermit {
        let room = Arc::clone(&self.room).acquire_many_owned(len.clamp(1, QUEUE_LEN_MAX) as u32).await;
        room.expect("the semaphore is never closed")
    }

    /// Waits until everything that was handed over is done.
    pub(crate) async fn sync(&self) {
        let (done, wait) = oneshot::channel();
        self.send(Work::Sync(done)).await;
        let _ = wait.await;
    }
}

struct Task {
    terms: Terms,
    tally: Tally,
    again: Again<GetJob>,
    leftovers: Leftovers,
    swept: RefCell<Swept>,
}

/// A file whose content comes.
struct Running {
    file: Box<Fetch>,
    sink: Sink,
    hashing: Hashing,
    /// How many bytes there were when it began.
    from: u64,
    len: u64,
    failure: Option<Failure>,
}

enum Sink {
    Stdout(File),
    Partial(Box<Partial>),
    /// Could not be opened.
    Nowhere,
}

impl Task {
    fn run(self, mut received: mpsc::Receiver<Work>) {
        let mut running: Option<Running> = None;
        while let Some(work) = received.blocking_recv() {
            match work {
                Work::Small { file, content, end, room: _room } => self.small(*file, &content, *end),
                Work::Begin { file, partial } => running = Some(self.begin(file, partial)),
                Work::Data(data, _room) => running.iter_mut().for_each(|running| running.write(&data)),
                Work::End(end) => running.take().into_iter().for_each(|running| self.end(running, *end.clone())),
                Work::Abort => running.take().into_iter().for_each(Running::abort),
                // Nobody waits any more when this fails.
                Work::Sync(done) => drop(done.send(())),
            }
        }
    }

    fn small(&self, file: Fetch, content: &[u8], end: Reply) {
        let mut hasher = self.terms.algorithm.hasher();
        hasher.update(content);
        let digest = hasher.finish();
        let verified = verify(&file.head, content.len() as u64, digest.as_deref(), &end);
        match verified.and_then(|()| self.store(&file, content)) {
            Ok(durable) => self.done(file, content.len() as u64, 0, digest, durable, end),
            Err(failure) => failed(&file.job.shown, failure, &self.terms, &self.tally),
        }
    }

    /// Writes a whole file under a name that nobody knows, and renames it.
    fn store(&self, file: &Fetch, content: &[u8]) -> Result<Durability, Failure> {
        let Target::Place { directory, name } = &file.job.target else {
            return Err(Failure::protocol("a file for stdout is never held in memory"));
        };
        self.swept.borrow_mut().sweep(directory);
        let hidden = temporary::name();
        let path = directory.path_of(name);
        let made = directory.create_file(hidden.as_ref(), self.mode_before(file));
        let mut made = made.map_err(|error| local::failure("cannot write", &path, error))?;
        let written = made.write_all(content).and_then(|()| self.finish(&made, file));
        if let Err(error) = written.and_then(|()| directory.rename(hidden.as_ref(), name, self.terms.no_clobber)) {
            let _ = directory.remove(hidden.as_ref());
            return Err(cannot_publish(&path, error));
        }
        self.flush(directory).map_err(|error| local::failure("cannot write", &path, error))
    }

    fn begin(&self, mut file: Box<Fetch>, partial: Option<Box<Partial>>) -> Running {
        let algorithm = self.terms.algorithm;
        let (sink, hasher, failure) = match self.open(&file, partial) {
            Ok((sink, hasher)) => (sink, hasher, None),
            Err(failure) => {
                file.stopped.store(true, Ordering::Relaxed);
                (Sink::Nowhere, Hasher::None, Some(failure))
            }
        };
        file.job.replaced_mode = file.job.replaced_mode.filter(|_| !self.terms.preserve);
        let from = file.head.offset;
        Running { file, sink, hashing: Hashing::start(algorithm, hasher), from, len: from, failure }
    }

    fn open(&self, file: &Fetch, partial: Option<Box<Partial>>) -> Result<(Sink, Hasher), Failure> {
        let algorithm = self.terms.algorithm;
        let (directory, name) = match &file.job.target {
            Target::Stdout(printed) => {
                let hasher = printed.lock().unwrap_or_else(PoisonError::into_inner).hasher.take();
                let out = stdout().map_err(|error| Failure::io("cannot open stdout", error))?;
                return Ok((Sink::Stdout(out), hasher.unwrap_or_else(|| algorithm.hasher())));
            }
            Target::Place { directory, name } => (directory, name),
        };
        let path = directory.path_of(name);
        let opened = match partial {
            Some(partial) => carry_on(*partial, algorithm),
            None => Partial::create(directory, name, self.mode_before(file), file.origin.clone())
                .map(|new| (new, algorithm.hasher())),
        };
        let (partial, hasher) = opened.map_err(|error| cannot_begin(&path, error))?;
        self.leftovers.add(partial.path(), file.head.size);
        Ok((Sink::Partial(Box::new(partial)), hasher))
    }

    fn end(&self, running: Running, end: Reply) {
        let Running { file, sink, hashing, from, len, failure } = running;
        let digest = hashing.end().finish();
        let verified = match failure {
            Some(failure) => Err(failure),
            None => verify(&file.head, len, digest.as_deref(), &end),
        };
        let published = match (verified, sink) {
            (Ok(()), Sink::Partial(partial)) => self.publish(&file, *partial),
            (Ok(()), _) => Ok(Durability::None),
            (Err(failure @ Failure::Status(_)), Sink::Partial(partial)) => {
                // What is not the file's content serves no other try.
                self.leftovers.remove(&partial.path());
                let _ = partial.discard();
                Err(failure)
            }
            (Err(failure), _) => Err(failure),
        };
        match published {
            Ok(durable) => self.done(*file, len - from, from, digest, durable, end),
            Err(failure) => self.failed(*file, from, failure),
        }
    }

    fn publish(&self, file: &Fetch, partial: Partial) -> Result<Durability, Failure> {
        let Target::Place { directory, name } = &file.job.target else {
            return Err(Failure::protocol("stdout has no partial file"));
        };
        let (path, hidden) = (directory.path_of(name), partial.path());
        let finished = self.finish(&partial.file, file);
        finished.map_err(|error| local::failure("cannot write", &path, error))?;
        partial.publish(name, self.terms.no_clobber).map_err(|error| cannot_publish(&path, error))?;
        self.leftovers.remove(&hidden);
        self.flush(directory).map_err(|error| local::failure("cannot write", &path, error))
    }

    /// The permissions of a file until it is whole: nobody may read it who may not in the end.
    fn mode_before(&self, file: &Fetch) -> u32 {
        let mode = if self.terms.preserve { Some(file.head.facts().mode) } else { file.job.replaced_mode };
        mode.map_or(MODE_NEW, |mode| mode & MODE_NEW | MODE_OWNER)
    }

    /// Sets what a file has beside its content, and waits for the disk where that was asked for.
    fn finish(&self, made: &File, file: &Fetch) -> io::Result<()> {
        if self.terms.preserve {
            local::preserve(made, &file.head.facts())?;
        } else if let Some(mode) = file.job.replaced_mode {
            made.set_permissions(Permissions::from_mode(mode & 0o777))?;
        }
        match self.terms.durability {
            Some(Durability::File | Durability::Full) => made.sync_all(),
            _ => Ok(()),
        }
    }

    /// Waits for the name where that was asked for, and says what has reached the disk.
    fn flush(&self, directory: &Directory) -> io::Result<Durability> {
        let durability = self.terms.durability.unwrap_or(Durability::None);
        if durability == Durability::Full {
            directory.flush()?;
        }
        Ok(durability)
    }

    fn done(&self, file: Fetch, bytes: u64, from: u64, digest: Option<String>, durable: Durability, end: Reply) {
        let receipt = Receipt {
            name: file.job.shown,
            size: file.head.size,
            bytes,
            resumed_from: from,
            verified: digest.is_some(),
            digest,
            durable,
            published: true,
            unchanged: false,
        };
        let reply = Reply { status: end.status, trailer: end.trailer, ..file.reply };
        self.tally.done(receipt, reply);
    }

    /// Content that was carried on and is wrong at its end may have been wrong from an earlier try: one more is made.
    fn failed(&self, file: Fetch, from: u64, failure: Failure) {
        let mut job = file.job;
        let may_begin_anew =
            from > 0 && self.terms.retry > 0 && !job.anew && matches!(job.target, Target::Place { .. });
        if may_begin_anew && matches!(&failure, Failure::Status(reply) if reply.status.code() == Code::DataLoss) {
            job.anew = true;
            return self.again.push(job);
        }
        failed(&job.shown, failure, &self.terms, &self.tally);
    }
}

impl Running {
    fn write(&mut self, data: &Bytes) {
        if self.failure.is_some() {
            return;
        }
        // The digest first: it is made while this thread writes.
        self.hashing.add(data);
        let written = match &mut self.sink {
            Sink::Stdout(out) => out.write_all(data).map_err(cannot_print),
            Sink::Partial(partial) => {
                partial.file.write_all(data).map_err(|error| local::failure("cannot write", &partial.path(), error))
            }
            Sink::Nowhere => Ok(()),
        };
        match written {
            Ok(()) => self.len += data.len() as u64,
            Err(failure) => {
                self.file.stopped.store(true, Ordering::Relaxed);
                self.failure = Some(failure);
            }
        }
    }

    /// Keeps what came, for another try.
    fn abort(self) {
        let hasher = self.hashing.end();
        if let Target::Stdout(printed) = &self.file.job.target {
            let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
            printed.len = self.len;
            printed.etag = self.file.head.etag.clone();
            printed.hasher = Some(hasher);
        }
    }
}

/// Compares what came with what the server announced.
fn verify(head: &GetHead, len: u64, digest: Option<&str>, end: &Reply) -> Result<(), Failure> {
    if len != head.size {
        let text = format!("{len} bytes came through; expected: {}", head.size);
        return Err(Failure::data_loss("size-mismatch", text));
    }
    let Some(digest) = digest else { return Ok(()) };
    let trailer: Trailer = match &end.trailer {
        Some(trailer) => parse_object(Some(trailer.clone()), "trailer of get")?,
        None => Trailer::default(),
    };
    match trailer.digest.as_ref().or(head.digest.as_ref()) {
        Some(expected) if expected.eq_ignore_ascii_case(digest) => Ok(()),
        Some(expected) => {
            let text = format!("{digest} came through; expected: {}", one_line(expected));
            Err(Failure::data_loss("digest-mismatch", text))
        }
        None => Err(Failure::protocol("get ended without a digest")),
    }
}

/// Goes on with a partial file: what it holds is hashed again, and not believed.
fn carry_on(mut partial: Partial, algorithm: Algorithm) -> io::Result<(Partial, Hasher)> {
    let mut hasher = algorithm.hasher();
    if !algorithm.is_none() {
        partial.file.seek(SeekFrom::Start(0))?;
        let (mut buf, mut left) = (vec![0; READ_LEN], partial.len);
        while left > 0 {
            let len = left.min(READ_LEN as u64) as usize;
            partial.file.read_exact(&mut buf[..len])?;
            hasher.update(&buf[..len]);
            left -= len as u64;
        }
    }
    partial.seek_to_end()?;
    Ok((partial, hasher))
}

/// A descriptor of our own: the one of the standard library looks for line ends in the payload.
fn stdout() -> io::Result<File> {
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?))
}

fn cannot_print(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::StdoutClosed,
        _ => Failure::io("cannot write to stdout", error),
    }
}

pub(crate) fn cannot_begin(path: &Path, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::WouldBlock => {
            local::failure("cannot write", path, io::Error::other("another plug is fetching this file"))
        }
        _ => local::failure("cannot write", path, error),
    }
}

fn cannot_publish(path: &Path, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => local::failure("cannot write", path, error),
    }
}

/// The failure of `--no-clobber`.
pub(crate) fn exists(path: &Path) -> Failure {
    let text = format!("{} exists here already", one_line_of_bytes(path.as_os_str().as_bytes()));
    Failure::found(Status::already_exists("exists", text).with_origin(Origin::Caller))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::cli::files::transfer::SMALL_SIZE_MAX;

    fn fetch() -> Box<Fetch> {
        let origin = json!({"server": "", "plugin": "", "path": "a", "etag": "", "size": 0, "algorithm": "md5"});
        Box::new(Fetch {
            job: GetJob::new("a".into(), Target::stdout(), None),
            head: serde_json::from_value(json!({"size": SMALL_SIZE_MAX})).expect("a header"),
            reply: Reply::default(),
            origin: serde_json::from_value(origin).expect("an origin"),
            stopped: Arc::default(),
        })
    }

    #[test]
    fn small_files_wait_where_the_disk_is_slower_than_the_network() {
        let (work, mut received) = mpsc::channel(QUEUE_ENTRIES_MAX);
        let writer = Writer { work, room: Arc::new(Semaphore::new(QUEUE_LEN_MAX)) };
        let hand_over = || writer.send_small(fetch(), vec![0; SMALL_SIZE_MAX as usize], Box::default()).now_or_never();
        let taken = (0..).take_while(|_| hand_over().is_some()).count();
        assert_eq!(taken as u64, QUEUE_LEN_MAX as u64 / SMALL_SIZE_MAX);
        received.try_recv().expect("a file");
        hand_over().expect("room for another file");
    }
}
