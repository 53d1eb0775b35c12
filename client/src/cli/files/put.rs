//! `plug put`: drops files and trees.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::facts::{Entry, Facts, Kind};
use super::listing::Listing;
use super::local::{Directory, Found, facts_of, walk};
use super::name::Name;
use super::options::Put;
use super::progress::Progress;
use super::remote::{LsArgs, Remote, is_missing};
use super::tally::Tally;
use super::transfer::Terms;
use super::transfer::jobs::Jobs;
use super::transfer::put::{PutJob, Source, run as transfer};
use crate::cli::answer::Answer;
use crate::cli::failure::Failure;
use crate::cli::session::Session;

/// How many of the server's files are held in memory, to see what is there already. Those beyond are dropped again.
const KNOWN_MAX: usize = 1_000_000;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    locals: Vec<PathBuf>,
    /// The server's file or directory; the plugin's root when absent.
    remote: Option<Name>,
}

pub(crate) fn plan(options: &Put) -> Result<Plan, Failure> {
    let (locals, remote) = match options.paths.as_slice() {
        [only] => (std::slice::from_ref(only), None),
        [locals @ .., remote] => (locals, Some(Name::from(remote.as_os_str()))),
        [] => return Err(Failure::Usage("nothing to put".to_owned())),
    };
    let has_stdin = locals.iter().any(|local| local == "-");
    if has_stdin && (locals.len() > 1 || options.recursive) {
        return Err(Failure::Usage("stdin is one file; put it by itself".to_owned()));
    }
    if has_stdin && remote.is_none() {
        return Err(Failure::Usage("stdin has no name; name the remote file: plug put - REMOTE".to_owned()));
    }
    if remote.is_none() && !options.recursive {
        for local in locals {
            name_of(Path::new(local))?;
        }
    }
    Ok(Plan { locals: locals.iter().map(PathBuf::from).collect(), remote })
}

/// The name that a file gets on the server.
fn name_of(local: &Path) -> Result<Name, Failure> {
    let missing = || format!("no file name in \"{}\"; name the remote file as well", local.display());
    local.file_name().map(Name::from).ok_or_else(|| Failure::Usage(missing()))
}

pub(crate) async fn run(session: &mut Session<'_>, options: &Put) -> Result<Answer, Failure> {
    let Plan { locals, remote: to } = plan(options)?;
    let many = options.recursive || locals.len() > 1;
    let progress = Progress::new(options.transfer.progress, many);
    let _bars = progress.bars();
    let mut terms = Terms::of(&options.transfer, options.preserve, options.no_clobber, many);
    if locals.iter().any(|local| local.as_os_str() == "-") {
        // It cannot be read again.
        terms.retry = 0;
    }
    let remote = Remote::of(session, "put", options.transfer.retry, &progress).await?;
    let tally = Tally::new("put", progress.clone());
    let planner = Planner { remote: &remote, terms: &terms, tally: &tally };
    let there = match &to {
        Some(to) => planner.facts(to).await?,
        None => None,
    };
    let mut uploads = Vec::new();
    for local in locals {
        let name = Name::from(local.as_os_str());
        let upload = planner.upload(local, to.as_ref(), there.as_ref(), options).await;
        match upload {
            Err(failure @ (Failure::Status(_) | Failure::Io { .. })) => {
                tally.failed(&name, failure, many);
            }
            upload => uploads.push(upload?),
        }
    }
    let jobs = Jobs::new();
    let walker = std::thread::spawn({
        let (jobs, tally, terms) = (jobs.clone(), tally.clone(), terms.clone());
        move || {
            uploads.into_iter().all(|upload| upload.push(&jobs, &tally, &terms));
            jobs.complete();
        }
    });
    let lanes = if many { options.transfer.jobs } else { 1 };
    let moved = transfer(&remote, &jobs, lanes, &terms, &tally).await;
    progress.finish();
    moved?;
    drop(walker);
    if many { tally.of_many() } else { tally.of_one() }
}

/// One argument of the command line.
enum Upload {
    One(PutJob, Option<u64>),
    Tree { root: Directory, to: Name, known: HashMap<Name, Facts> },
}

/// Finds out where arguments go, and what is there.
struct Planner<'p> {
    remote: &'p Remote,
    terms: &'p Terms,
    tally: &'p Tally,
}

impl Planner<'_> {
    async fn upload(
        &self,
        local: PathBuf,
        to: Option<&Name>,
        there: Option<&Facts>,
        options: &Put,
    ) -> Result<Upload, Failure> {
        if local.as_os_str() == "-" {
            let to = to.cloned().unwrap_or_default();
            return Ok(Upload::One(self.job(Source::Stdin, to, None, None, options), None));
        }
        let here = facts_of(&local);
        let is_tree = options.recursive && here.as_ref().is_some_and(Facts::is_dir);
        let into = self.terms.many && (!is_tree || options.paths.len() > 2);
        // A tree goes to the same place whether that exists or not, so that the same command carries on.
        let is_directory = match is_tree {
            true => to.is_some_and(|to| to.file_name().is_none()),
            false => there.is_some_and(Facts::is_dir) || to.is_some_and(|to| to.as_bytes().ends_with(b"/")),
        };
        let path = match to {
            Some(to) if is_directory || into => to.join(&tree_name(&local)?),
            Some(to) => to.clone(),
            None => tree_name(&local)?,
        };
        if is_tree {
            let root = Directory::open(&local)?;
            let known = if there.is_some() || to.is_none() { self.known(&path).await? } else { HashMap::new() };
            return Ok(Upload::Tree { root, to: path, known });
        }
        let there = match there {
            Some(facts) if facts.is_file() && to == Some(&path) => Some(facts.clone()),
            _ => self.facts(&path).await?,
        };
        let size = here.as_ref().map(|facts| facts.size);
        Ok(Upload::One(self.job(Source::Named(local), path, here.as_ref(), there.as_ref(), options), size))
    }

    fn job(&self, source: Source, to: Name, here: Option<&Facts>, there: Option<&Facts>, options: &Put) -> PutJob {
        let probe = here.zip(there).is_some_and(|(here, there)| may_be_same(here, there, self.terms));
        PutJob {
            probe: probe && options.if_match.is_none(),
            if_match: options.if_match.clone(),
            ..PutJob::new(source, to)
        }
    }

    /// What is known about a path; where the server refuses to say, the transfer hears why.
    async fn facts(&self, path: &Name) -> Result<Option<Facts>, Failure> {
        match self.remote.facts(path, self.terms.retry, self.tally.progress()).await {
            Err(Failure::Status(_)) => Ok(None),
            facts => facts,
        }
    }

    /// What is below a directory of the server.
    async fn known(&self, path: &Name) -> Result<HashMap<Name, Facts>, Failure> {
        let args = LsArgs { path: Some(path), recursive: true, ..LsArgs::default() };
        let mut listing = Listing::new(self.remote, args, self.terms.retry, self.tally.progress());
        let mut known = HashMap::new();
        loop {
            match listing.next().await {
                Ok(Some(Entry { name, facts })) if known.len() < KNOWN_MAX => drop(known.insert(name, facts)),
                Ok(_) => return Ok(known),
                Err(failure) if is_missing(&failure) => return Ok(known),
                // What cannot be listed is dropped without a look.
                Err(Failure::Status(_)) => return Ok(known),
                Err(failure) => return Err(failure),
            }
        }
    }
}

/// The last part of a path; of one such as `..` or `.`, that of the directory it leads to.
fn tree_name(local: &Path) -> Result<Name, Failure> {
    match local.file_name() {
        Some(name) => Ok(Name::from(name)),
        None => name_of(&local.canonicalize().unwrap_or_default()),
    }
}

/// Whether the server's file is worth asking for its digest.
pub(crate) fn may_be_same(here: &Facts, there: &Facts, terms: &Terms) -> bool {
    let keeps = !terms.preserve || (here.same_mtime(there) && here.mode & 0o777 == there.mode & 0o777);
    there.is_file() && here.size == there.size && keeps && !terms.algorithm.is_none() && !terms.no_clobber
}

impl Upload {
    /// Queues everything. Says whether anybody still takes it.
    fn push(self, jobs: &Jobs<PutJob>, tally: &Tally, terms: &Terms) -> bool {
        match self {
            Upload::One(job, size) => {
                tally.progress().expect(size.unwrap_or_default());
                jobs.push(job)
            }
            Upload::Tree { root, to, known } => {
                if !jobs.push(PutJob::new(Source::Directory, to.clone())) {
                    return false;
                }
                let mut enter = |found: Found| push_found(found, &to, &known, jobs, tally, terms);
                let mut fail = |failure| {
                    tally.failed(&to, failure, true);
                    Ok(())
                };
                walk(&root, &mut enter, &mut fail).is_ok()
            }
        }
    }
}

/// Nobody takes jobs any more.
struct Abandoned;

fn push_found(
    found: Found,
    to: &Name,
    known: &HashMap<Name, Facts>,
    jobs: &Jobs<PutJob>,
    tally: &Tally,
    terms: &Terms,
) -> Result<bool, Abandoned> {
    let Found { path, facts, directory, name } = found;
    let remote = to.join(&path);
    let there = known.get(&path);
    let source = match facts.kind {
        Kind::Dir if there.is_some_and(Facts::is_dir) => return Ok(true),
        Kind::Dir => Source::Directory,
        Kind::File => Source::Found { directory, name },
        Kind::Symlink | Kind::Other => {
            let why = if facts.kind == Kind::Symlink { "a symbolic link" } else { "not a regular file" };
            tally.skipped(&remote, why);
            return Ok(false);
        }
    };
    let probe = there.is_some_and(|there| may_be_same(&facts, there, terms));
    if facts.is_file() {
        tally.progress().expect(facts.size);
    }
    match jobs.push(PutJob { probe, ..PutJob::new(source, remote) }) {
        true => Ok(true),
        false => Err(Abandoned),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::files::options::FileVerb;
    use crate::cli::options::{Options, Verb};

    fn planned(args: &[&str]) -> Result<Plan, Failure> {
        let options = Options::try_parse_from(["plug", "put"].iter().chain(args)).expect("a command line");
        let Verb::Files(FileVerb::Put(options)) = options.verb else { panic!("put was asked for") };
        plan(&options)
    }

    #[test]
    fn the_last_of_several_paths_is_the_remote_one() {
        let plan = |args: &[&str]| planned(args).expect("a plan");
        assert_eq!(plan(&["a/b.txt"]).remote, None);
        assert_eq!(plan(&["a/b.txt", "c/d"]).remote, Some("c/d".into()));
        assert_eq!(plan(&["a", "b", "c/"]).locals, [PathBuf::from("a"), "b".into()]);
        assert_eq!(plan(&["-", "c"]).remote, Some("c".into()));
    }

    #[test]
    fn what_has_no_name_needs_one() {
        for args in [&["-"][..], &["a/.."], &["-", "a", "b"], &["-r", "-", "b"]] {
            assert!(matches!(planned(args), Err(Failure::Usage(_))), "{args:?}");
        }
    }

    #[test]
    fn a_tree_is_named_after_its_directory() {
        assert_eq!(tree_name(Path::new("a/b/")).expect("a name"), "b".into());
        assert_eq!(tree_name(Path::new("/usr/..//usr/.")).expect("a name"), "usr".into());
        assert!(tree_name(Path::new("/")).is_err());
    }
}
