//! Writes to stdout and stderr without ever panicking or blocking the program's end.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::exit;
use super::failure::Failure;

/// A standard stream, written as it comes.
#[derive(Debug)]
pub(crate) struct Output {
    file: io::Result<Target>,
}

/// How a stream is written.
#[derive(Debug)]
enum Target {
    /// At once: a file and /dev/null keep nobody waiting for a reader, and are not worth two changes of threads each time.
    Direct(File),
    /// On another thread, so that a full pipe keeps no signal from us.
    Threaded(tokio::fs::File),
}

impl Target {
    fn new(file: File) -> Target {
        match never_waits(&file) {
            true => Target::Direct(file),
            false => Target::Threaded(tokio::fs::File::from_std(file)),
        }
    }
}

fn never_waits(file: &File) -> bool {
    let is_null = |found: &fs::Metadata| {
        found.file_type().is_char_device() && fs::metadata("/dev/null").is_ok_and(|null| null.rdev() == found.rdev())
    };
    file.metadata().is_ok_and(|found| found.is_file() || is_null(&found))
}

impl Output {
    pub(crate) fn stdout() -> Output {
        Output::of(&io::stdout())
    }

    pub(crate) fn stderr() -> Output {
        Output::of(&io::stderr())
    }

    /// A descriptor of our own: the one of the standard library looks for line ends in the payload.
    fn of(stream: &impl AsFd) -> Output {
        let owned = stream.as_fd().try_clone_to_owned();
        Output { file: owned.map(|owned| Target::new(File::from(owned))) }
    }

    fn file(&mut self) -> Result<&mut Target, Failure> {
        self.file.as_mut().map_err(|error| broken(io::Error::from(error.kind())))
    }

    /// Begins to write `bytes`; an error may show only in the next call.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.file()? {
            Target::Direct(file) => file.write_all(bytes),
            Target::Threaded(file) => file.write_all(bytes).await,
        }
        .map_err(broken)
    }

    /// Waits until everything is written.
    pub(crate) async fn flush(&mut self) -> Result<(), Failure> {
        match self.file()? {
            Target::Direct(_) => Ok(()),
            Target::Threaded(file) => file.flush().await.map_err(broken),
        }
    }

    /// Writes `bytes` and waits until that is done.
    pub(crate) async fn print(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.write(bytes).await?;
        self.flush().await
    }
}

fn broken(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::StdoutClosed,
        _ => Failure::io("cannot write to stdout", error),
    }
}

/// Says on stderr why there is no answer, and returns the exit code. A closed stderr changes nothing.
pub(crate) fn complain(failure: &Failure) -> u8 {
    if let Some(line) = failure.line() {
        let _ = writeln!(io::stderr(), "plug: {line}");
    }
    exit::of_failure(failure)
}

/// Says the same as an object in a line of its own.
pub(crate) fn complain_to_programs(failure: &Failure) {
    if let Some(line) = failure.line() {
        note(Some(&json!({"event": "error", "failure": line}).to_string()));
    }
}

/// Prints a line on stderr, if there is one.
pub(crate) fn note(line: Option<&str>) {
    if let Some(line) = line {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// Prints to stdout before there is a runtime, and returns the exit code.
pub(crate) fn print_blocking(bytes: &[u8], exit: u8) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => exit,
        Err(_) => exit::LOCAL,
    }
}
