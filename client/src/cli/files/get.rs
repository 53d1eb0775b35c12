//! `plug get`: fetches files, trees and what matches a glob.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use plugd_core::Origin;
use tokio::sync::mpsc::Sender;

use super::directories::Directories;
use super::facts::{Entry, Facts, Kind};
use super::glob::{has_glob, split_glob};
use super::listing::Listing;
use super::local::{self, Directory, Tree, facts_of};
use super::name::Name;
use super::options::Get;
use super::progress::Progress;
use super::remote::{LsArgs, Remote};
use super::tally::Tally;
use super::transfer::Terms;
use super::transfer::get::{GetJob, Target, queue, run as transfer};
use crate::Status;
use crate::cli::answer::Answer;
use crate::cli::failure::Failure;
use crate::cli::session::Session;

/// Where fetched files go, as the command line says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    Stdout,
    /// The file itself.
    File(PathBuf),
    /// A directory that each file or tree is put in.
    Into(PathBuf),
}

impl Destination {
    /// The destination of what turned out to be one file: a directory only where there is one.
    fn for_one(self) -> Destination {
        match self {
            Destination::Into(path) if !path.is_dir() && !path.as_os_str().as_bytes().ends_with(b"/") => {
                Destination::File(path)
            }
            destination => destination,
        }
    }
}

/// What the command line asks for. Nothing that the server says takes part in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    remotes: Vec<Name>,
    destination: Destination,
}

pub(crate) fn plan(options: &Get, json: bool) -> Result<Plan, Failure> {
    let (remotes, local) = match options.paths.as_slice() {
        [only] => (std::slice::from_ref(only), None),
        [remotes @ .., local] => (remotes, Some(local)),
        [] => return Err(Failure::Usage("nothing to get".to_owned())),
    };
    let remotes: Vec<Name> = remotes.iter().map(|remote| Name::from(remote.as_os_str())).collect();
    let several = remotes.len() > 1 || remotes.iter().any(has_glob);
    let destination = match local {
        Some(local) if local == "-" && (remotes.len() > 1 || options.recursive) => {
            return Err(Failure::Usage("stdout takes one file; name a local directory".to_owned()));
        }
        Some(local) if local == "-" && json => {
            let text = "--json and a file on stdout exclude each other; name a local file";
            return Err(Failure::Usage(text.to_owned()));
        }
        Some(local) if local == "-" => Destination::Stdout,
        // A tree goes to the same place whether that exists or not, so that the same command carries on.
        Some(local) if options.recursive && !several && Name::from(local.as_os_str()).file_name().is_some() => {
            Destination::File(local.into())
        }
        Some(local) => into_or_as(local, several, remotes.len() > 1)?,
        None => Destination::Into(".".into()),
    };
    if matches!(destination, Destination::Into(_)) {
        for remote in remotes.iter().filter(|remote| !has_glob(remote)) {
            last_part(remote, options.recursive)?;
        }
    }
    Ok(Plan { remotes, destination })
}

/// `several`: there may be more than one file; `surely`: there is.
fn into_or_as(local: &OsString, several: bool, surely: bool) -> Result<Destination, Failure> {
    let path = PathBuf::from(local);
    let is_directory = path.is_dir();
    if surely && !is_directory && path.exists() {
        return Err(Failure::Usage(format!("\"{}\" is no directory; several files need one", path.display())));
    }
    match is_directory || several || local.as_bytes().ends_with(b"/") {
        true => Ok(Destination::Into(path)),
        false => Ok(Destination::File(path)),
    }
}

/// The name that a file gets here. Of a tree, the name may be missing: what is in the root goes into the destination.
fn last_part(remote: &Name, recursive: bool) -> Result<Option<Name>, Failure> {
    let name = match recursive {
        true => Some(remote.split_last().1).filter(|name| name.parts_below().is_ok()),
        false => remote.file_name(),
    };
    match name {
        None if !recursive => Err(Failure::Usage(format!("no file name in \"{remote}\"; name a local file as well"))),
        name => Ok(name),
    }
}

pub(crate) async fn run(session: &mut Session<'_>, options: &Get) -> Result<Answer, Failure> {
    let Plan { remotes, destination } = plan(options, session.options().json)?;
    let many = options.recursive || remotes.len() > 1 || remotes.iter().any(has_glob);
    let progress = Progress::new(options.transfer.progress, many);
    let _bars = progress.bars();
    let terms = Terms::of(&options.transfer, options.preserve, options.no_clobber, many);
    let remote = Remote::of(session, "get", terms.retry, &progress).await?;
    let tally = Tally::new("got", progress.clone());
    let (jobs, queue) = queue();
    let directories = Directories::default();
    let lister = Lister {
        remote: &remote,
        terms: &terms,
        tally: &tally,
        directories: &directories,
        jobs,
        recursive: options.recursive,
        alone: remotes.len() == 1,
        taken: RefCell::default(),
    };
    let lanes = if many { options.transfer.jobs } else { 1 };
    let transfer = transfer(&remote, queue, lanes, &terms, &tally);
    let (listed, moved) = tokio::join!(lister.all(&remotes, &destination), transfer);
    directories.set(&tally);
    progress.finish();
    moved?;
    listed?;
    if many { tally.of_many() } else { tally.of_one() }
}

/// Makes the directory that a tree goes to. In a directory that the user names, the last part may be of the server's
/// choice, and a link of that name leads elsewhere.
fn root_of(path: &Path, destination: &Destination) -> Result<Directory, Failure> {
    let Destination::Into(into) = destination else { return Directory::create(path) };
    let into_it = Directory::create(into)?;
    match path.file_name() {
        Some(name) if path != into => {
            into_it.make_child(name).map_err(|error| local::failure("cannot open", path, error))
        }
        _ => Ok(into_it),
    }
}

/// Finds what is to be fetched.
struct Lister<'l> {
    remote: &'l Remote,
    terms: &'l Terms,
    tally: &'l Tally,
    directories: &'l Directories,
    jobs: Sender<GetJob>,
    recursive: bool,
    /// Whether the command line names one remote path.
    alone: bool,
    /// Where files of this command go already.
    taken: RefCell<HashSet<PathBuf>>,
}

impl Lister<'_> {
    /// Queues everything. The queue ends with this.
    async fn all(self, remotes: &[Name], destination: &Destination) -> Result<(), Failure> {
        for remote in remotes {
            match self.one(remote, destination).await {
                // Others may still go well, where it is only this one that fails.
                Err(failure @ (Failure::Status(_) | Failure::Io { .. })) => {
                    self.tally.failed(remote, failure, self.terms.many);
                }
                listed => listed?,
            }
        }
        Ok(())
    }

    async fn one(&self, remote: &Name, destination: &Destination) -> Result<(), Failure> {
        if *destination == Destination::Stdout {
            return self.push(GetJob::new(remote.clone(), Target::stdout(), None)).await;
        }
        let facts = match has_glob(remote) || self.recursive {
            true => self.facts(remote).await?,
            false => None,
        };
        match facts {
            // A name that only looks like a glob is one.
            None if has_glob(remote) => self.matching(remote, destination).await,
            Some(facts) if self.alone && facts.is_file() => {
                let destination = destination.clone().for_one();
                self.found(remote, Some(facts), &destination).await
            }
            facts => self.found(remote, facts, destination).await,
        }
    }

    async fn found(&self, remote: &Name, facts: Option<Facts>, destination: &Destination) -> Result<(), Failure> {
        let is_tree = self.recursive && facts.as_ref().is_some_and(Facts::is_dir);
        let path = match destination {
            Destination::Into(directory) => match last_part(remote, is_tree)? {
                Some(name) => directory.join(name.as_os_str()),
                None => directory.clone(),
            },
            Destination::File(path) if !is_tree && path.is_dir() => {
                path.join(last_part(remote, false)?.unwrap_or_default().as_os_str())
            }
            Destination::File(path) => path.clone(),
            Destination::Stdout => return Err(Failure::Usage("stdout takes one file".to_owned())),
        };
        if !self.taken.borrow_mut().insert(path.clone()) {
            let text = format!("another file of this command goes to {}", path.display());
            return Err(Failure::io("cannot write", io::Error::other(text)));
        }
        match is_tree {
            true => {
                let root = root_of(&path, destination)?;
                facts.into_iter().for_each(|facts| self.keep(&root, Name::default(), facts));
                self.tree(remote, root).await
            }
            false => self.file(remote, &path, facts, destination).await,
        }
    }

    /// Queues one file. Where one is here already, it is asked whether that is the one.
    async fn file(
        &self,
        remote: &Name,
        path: &Path,
        facts: Option<Facts>,
        destination: &Destination,
    ) -> Result<(), Failure> {
        let is_here = facts_of(path).is_some_and(|here| here.is_file());
        let facts = match facts {
            None if is_here => self.facts(remote).await?,
            facts => facts,
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        let directory = match destination {
            Destination::Into(into) => Directory::create(into)?,
            _ => Directory::open(directory)?,
        };
        let Some(name) = path.file_name() else {
            return Err(local::failure("cannot write", path, io::Error::other("a directory")));
        };
        self.push(GetJob::new(remote.clone(), Target::Place { directory, name: name.to_owned() }, facts)).await
    }

    /// Queues what matches a glob.
    async fn matching(&self, remote: &Name, destination: &Destination) -> Result<(), Failure> {
        let (base, glob, recursive) = split_glob(remote)?;
        let mut trees = Vec::new();
        let mut found = 0_u64;
        let args = LsArgs { path: Some(&base), recursive, ..LsArgs::default() };
        let mut listing = Listing::new(self.remote, args, self.terms.retry, self.tally.progress());
        while let Some(Entry { name, facts }) = listing.next().await? {
            if !glob.matches(&name) {
                continue;
            }
            found += 1;
            name.parts_below().map_err(Failure::protocol)?;
            let path = if base.as_bytes() == b"." { name } else { base.join(&name) };
            match facts.kind {
                // Trees are listed after this listing, of which there is one at a time.
                Kind::Dir if self.recursive => trees.push((path, facts)),
                Kind::Dir => self.tally.skipped(&path, "a directory; -r fetches it"),
                Kind::Other => self.tally.skipped(&path, "not a regular file"),
                // Of a link, nothing is known about what it leads to.
                Kind::Symlink => self.told(self.found(&path, None, destination).await, &path)?,
                Kind::File => self.told(self.found(&path, Some(facts), destination).await, &path)?,
            }
        }
        if found == 0 {
            let text = format!("nothing matches \"{remote}\"");
            return Err(Failure::found(Status::not_found("no-match", text).with_origin(Origin::Caller)));
        }
        for (path, facts) in trees {
            self.told(self.found(&path, Some(facts), destination).await, &path)?;
        }
        Ok(())
    }

    /// Queues everything below a directory.
    async fn tree(&self, remote: &Name, root: Directory) -> Result<(), Failure> {
        let mut tree = Tree::new(root.clone());
        let args = LsArgs { path: Some(remote), recursive: true, ..LsArgs::default() };
        let mut listing = Listing::new(self.remote, args, self.terms.retry, self.tally.progress());
        while let Some(Entry { name, facts }) = listing.next().await? {
            let path = remote.join(&name);
            match facts.kind {
                Kind::Dir => {
                    let made = tree.directory(&name).map(|_| self.keep(&root, name, facts));
                    self.told(made, &path)?;
                }
                Kind::Symlink => self.tally.skipped(&path, "a symbolic link"),
                Kind::Other => self.tally.skipped(&path, "not a regular file"),
                Kind::File => match tree.place(&name) {
                    Ok((directory, name)) => {
                        let target = Target::Place { directory, name };
                        self.push(GetJob::new(path, target, Some(facts))).await?;
                    }
                    Err(failure) => self.told(Err(failure), &path)?,
                },
            }
        }
        Ok(())
    }

    /// Remembers what a directory is to have in the end.
    fn keep(&self, root: &Directory, path: Name, facts: Facts) {
        if self.terms.preserve {
            self.directories.add(root, path, facts);
        }
    }

    /// Counts what failed for one file, unless it is the end of everything.
    fn told(&self, result: Result<(), Failure>, path: &Name) -> Result<(), Failure> {
        match result {
            Err(failure @ (Failure::Status(_) | Failure::Io { .. })) => {
                self.tally.failed(path, failure, true);
                Ok(())
            }
            result => result,
        }
    }

    async fn facts(&self, path: &Name) -> Result<Option<Facts>, Failure> {
        self.remote.facts(path, self.terms.retry, self.tally.progress()).await
    }

    async fn push(&self, job: GetJob) -> Result<(), Failure> {
        if let Some(facts) = &job.known {
            self.tally.progress().expect(facts.size);
        }
        // When the lanes have ended, they say why.
        let _ = self.jobs.send(job).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::files::options::FileVerb;
    use crate::cli::options::{Options, Verb};

    fn planned(args: &[&str], json: bool) -> Result<(Vec<String>, Destination), Failure> {
        let options = Options::try_parse_from(["plug", "get"].iter().chain(args)).expect("a command line");
        let Verb::Files(FileVerb::Get(options)) = options.verb else { panic!("get was asked for") };
        let Plan { remotes, destination } = plan(&options, json)?;
        Ok((remotes.iter().map(Name::to_string).collect(), destination))
    }

    #[test]
    fn the_local_name_comes_from_the_command_line() {
        let as_planned = |args: &[&str]| planned(args, false).expect("a plan").1;
        assert_eq!(as_planned(&["a/b.txt"]), Destination::Into(".".into()));
        assert_eq!(as_planned(&["a/b.txt", "c"]), Destination::File("c".into()));
        assert_eq!(as_planned(&["a/b.txt", "/"]), Destination::Into("/".into()));
        assert_eq!(as_planned(&["a/b.txt", "new/"]), Destination::Into("new/".into()));
        assert_eq!(as_planned(&["a", "b", "new"]), Destination::Into("new".into()));
        assert_eq!(as_planned(&["a*", "new"]), Destination::Into("new".into()));
        assert_eq!(as_planned(&["-r", "a", "."]), Destination::Into(".".into()));
        assert_eq!(as_planned(&["-r", "a", "/tmp"]), Destination::File("/tmp".into()));
        assert_eq!(as_planned(&["-r", "a", "/tmp/"]), Destination::Into("/tmp/".into()));
        assert_eq!(as_planned(&["a", "-"]), Destination::Stdout);
    }

    #[test]
    fn a_remote_without_a_file_name_needs_a_local_one() {
        for remote in ["", "a/", "a/..", "."] {
            assert!(matches!(planned(&[remote], false), Err(Failure::Usage(_))), "{remote}");
        }
        planned(&["-r", "a/"], false).expect("a tree has a name");
    }

    #[test]
    fn stdout_holds_one_file_or_an_envelope() {
        assert!(matches!(planned(&["a", "-"], true), Err(Failure::Usage(_))));
        assert!(matches!(planned(&["a", "b", "-"], false), Err(Failure::Usage(_))));
        planned(&["a[1]", "-"], false).expect("a name that looks like a glob");
    }
}
