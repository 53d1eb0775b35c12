//! `plug get`: fetches a file, and shows it under its name only when it is whole.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use plugd_core::wire::CHANNEL_MAIN;
use serde_json::{Map, json};
use tempfile::NamedTempFile;

use super::answer::Answer;
use super::failure::Failure;
use super::options::Get;
use super::output::Output;
use super::progress;
use super::session::Session;
use super::transfer::{Content, Meter};
use crate::{Receiver, Reply};

/// The permissions of a new file, before the umask takes its share.
const MODE_NEW: u32 = 0o666;

/// Where a fetched file goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    File(PathBuf),
}

/// The place that content is written to until it is known to be whole.
#[derive(Debug)]
enum Sink {
    Stdout(Output),
    File { file: NamedTempFile, path: PathBuf },
}

/// The target that the command line names. Nothing that the server says takes part in it.
pub(crate) fn target(options: &Get, json: bool) -> Result<Target, Failure> {
    match &options.local {
        Some(path) if path.as_os_str() == "-" && json => {
            Err(Failure::Usage("--json and a file on stdout exclude each other; name a local file".to_owned()))
        }
        Some(path) if path.as_os_str() == "-" => Ok(Target::Stdout),
        Some(path) if path.is_dir() => Ok(Target::File(path.join(last_part(&options.remote)?))),
        Some(path) => Ok(Target::File(path.clone())),
        None => Ok(Target::File(last_part(&options.remote)?.into())),
    }
}

fn last_part(remote: &str) -> Result<&str, Failure> {
    match remote.rsplit('/').next().unwrap_or_default() {
        "" | "." | ".." => Err(Failure::Usage(format!("no file name in \"{remote}\"; name a local file as well"))),
        name => Ok(name),
    }
}

pub(crate) async fn run(session: &mut Session<'_>, options: &Get) -> Result<Answer, Failure> {
    let target = target(options, session.options().json)?;
    let command = session.command("get").await?;
    let mut call = session.open(&command, Map::from_iter([("path".to_owned(), json!(options.remote))])).await?;
    let (sender, receiver) = call.split();
    // When sending fails, receiving tells why.
    let _ = sender.finish().await;
    let Some(head) = receiver.head().await?.cloned() else {
        return Err(refusal(receiver).await?);
    };
    let promised = Content::promised(Some(&head), "header of get")?;
    let mut sink = Sink::open(target)?;
    let content = fetch(receiver, &promised, &mut sink).await?;
    let end = receiver.end().await?;
    let reply = Reply { head: Some(head), ..Reply::default() }.ended(end);
    if !reply.status.is_ok() {
        return Err(Failure::Status(Box::new(reply)));
    }
    content.verify(&promised)?;
    let local = sink.publish().await?;
    Ok(content.receipt("got", local.as_deref().unwrap_or(&options.remote), reply))
}

/// Why there is no header: the call ended badly before it.
async fn refusal(receiver: &mut Receiver) -> Result<Failure, Failure> {
    let reply = Reply::default().ended(receiver.end().await?);
    Ok(match reply.status.is_ok() {
        true => Failure::protocol("get answered without a header"),
        false => Failure::Status(Box::new(reply)),
    })
}

async fn fetch(receiver: &mut Receiver, promised: &Content, sink: &mut Sink) -> Result<Content, Failure> {
    let bar = progress::bar(Some(promised.size));
    let mut meter = Meter::default();
    while let Some(data) = receiver.recv().await? {
        if data.channel != CHANNEL_MAIN {
            continue;
        }
        meter.add(&data.payload);
        if meter.size() > promised.size {
            let text = format!("more bytes came than announced: {}", promised.size);
            return Err(Failure::data_loss("size-mismatch", text));
        }
        sink.write(&data.payload).await?;
        bar.inc(data.payload.len() as u64);
    }
    bar.finish_and_clear();
    Ok(meter.content())
}

impl Sink {
    fn open(target: Target) -> Result<Sink, Failure> {
        let Target::File(path) = target else {
            return Ok(Sink::Stdout(Output::stdout()));
        };
        match create_beside(&path) {
            Ok(file) => Ok(Sink::File { file, path }),
            Err(error) => Err(cannot_write(&path, error)),
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Sink::Stdout(stdout) => stdout.write(bytes).await,
            Sink::File { file, path } => file.write_all(bytes).map_err(|error| cannot_write(path, error)),
        }
    }

    /// Shows the content under its name, which is returned when it has one.
    async fn publish(self) -> Result<Option<String>, Failure> {
        match self {
            Sink::Stdout(mut stdout) => stdout.flush().await.map(|()| None),
            Sink::File { file, path } => match file.persist(&path) {
                Ok(_) => Ok(Some(path.to_string_lossy().into_owned())),
                Err(error) => Err(cannot_write(&path, error.error)),
            },
        }
    }
}

fn cannot_write(path: &Path, error: io::Error) -> Failure {
    Failure::io(format!("cannot write {}", path.display()), error)
}

/// A file in the directory of `path`, so that a rename can replace that; it vanishes unless it is published.
fn create_beside(path: &Path) -> io::Result<NamedTempFile> {
    let mode = match path.metadata() {
        // A rename would replace a device or a pipe instead of writing to it.
        Ok(metadata) if !metadata.is_file() => return Err(io::Error::other("not a regular file")),
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(_) => MODE_NEW,
    };
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".plug-").permissions(Permissions::from_mode(mode)).tempfile_in(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(remote: &str, local: Option<&str>) -> Get {
        Get { remote: remote.to_owned(), local: local.map(PathBuf::from) }
    }

    #[test]
    fn the_local_name_comes_from_the_command_line() {
        let file = |name: &str| Target::File(name.into());
        assert_eq!(target(&options("a/b.txt", None), false).expect("a name"), file("b.txt"));
        assert_eq!(target(&options("a/b.txt", Some("c")), false).expect("a name"), file("c"));
        assert_eq!(target(&options("a/b.txt", Some("/")), false).expect("a name"), file("/b.txt"));
        assert_eq!(target(&options("a/b.txt", Some("-")), false).expect("stdout"), Target::Stdout);
    }

    #[test]
    fn a_remote_without_a_file_name_needs_a_local_one() {
        for remote in ["", "a/", "a/..", "."] {
            assert!(matches!(target(&options(remote, None), false), Err(Failure::Usage(_))), "{remote}");
        }
    }

    #[test]
    fn stdout_holds_a_file_or_an_envelope() {
        assert!(matches!(target(&options("a", Some("-")), true), Err(Failure::Usage(_))));
    }

    #[tokio::test]
    async fn a_file_that_is_not_published_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        let mut sink = Sink::open(Target::File(path.clone())).expect("a sink");
        sink.write(b"half").await.expect("room");
        drop(sink);
        assert_eq!(directory.path().read_dir().expect("a directory").count(), 0);
        let mut sink = Sink::open(Target::File(path.clone())).expect("a sink");
        sink.write(b"whole").await.expect("room");
        sink.publish().await.expect("a rename");
        assert_eq!(std::fs::read(&path).expect("a file"), b"whole");
        assert_eq!(directory.path().read_dir().expect("a directory").count(), 1);
    }

    #[test]
    fn a_device_is_never_replaced() {
        assert!(create_beside(Path::new("/dev/null")).is_err());
    }
}
