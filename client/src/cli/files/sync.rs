//! `plug sync`: makes a directory there like one here, or the other way round.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use plugd_core::Origin;
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use super::directories::Directories;
use super::facts::{Entry, Facts, Kind};
use super::glob::Selection;
use super::listing::Listing;
use super::local::{self, Directory, Found, Tree, facts_of, walk};
use super::name::Name;
use super::options::Sync;
use super::progress::Progress;
use super::remote::{LsArgs, Remote};
use super::tally::Tally;
use super::transfer::Terms;
use super::transfer::get::{self, GetJob, Target};
use super::transfer::jobs::Jobs;
use super::transfer::put::{self, PutJob, Source};
use crate::cli::answer::Answer;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::{Reply, Status};

/// How many entries of the destination are held in memory, to be compared; about 200 bytes each.
const ENTRIES_MAX: usize = 4_000_000;

pub(crate) fn selection(options: &Sync) -> Result<Selection, Failure> {
    Selection::new(&options.include, &options.exclude)
}

pub(crate) async fn run(session: &mut Session<'_>, options: &Sync) -> Result<Answer, Failure> {
    let progress = Progress::new(options.transfer.progress, true);
    let _bars = progress.bars();
    let terms = Terms::of(&options.transfer, true, false, true);
    let remote = Remote::of(session, if options.push { "put" } else { "get" }, terms.retry, &progress).await?;
    let tally = Tally::new("synced", progress.clone());
    let comparison = Arc::new(Comparison {
        selection: selection(options)?,
        checksum: options.checksum,
        dry_run: options.dry_run,
        tally: tally.clone(),
        plan: Mutex::default(),
    });
    let side = Side { remote: &remote, terms: &terms, tally: &tally, comparison: &comparison, options };
    let done = match options.push {
        true => side.push(Path::new(&options.source), &Name::from(options.destination.as_os_str())).await,
        false => side.pull(&Name::from(options.source.as_os_str()), Path::new(&options.destination)).await,
    };
    progress.finish();
    done?;
    let answer = tally.of_many()?;
    Ok(if options.dry_run { comparison.answer() } else { answer })
}

/// What is to be done about an entry of the source.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is left out, with everything below it.
    Exclude,
    /// Nothing, but what is below it counts.
    Pass,
    /// A directory is to be made.
    Make,
    /// A file is to be moved; its content may be there already.
    Move { probe: bool },
}

/// Compares a source with what the destination has, and remembers what a dry run would do.
#[derive(Debug)]
struct Comparison {
    selection: Selection,
    checksum: bool,
    dry_run: bool,
    tally: Tally,
    plan: Mutex<Vec<(&'static str, Name)>>,
}

/// What the destination has and the source was not seen to have yet.
type Rest = BTreeMap<Name, Facts>;

impl Comparison {
    /// Whether an entry of the destination takes part.
    fn takes(&self, path: &Name, facts: &Facts) -> bool {
        !self.selection.excludes_at_any_depth(path) && (facts.is_dir() || self.selection.includes(path))
    }

    fn add(&self, rest: &mut Rest, path: Name, facts: Facts) -> Result<(), Failure> {
        if self.takes(&path, &facts) {
            rest.insert(path, Facts { etag: None, target: None, ..facts });
        }
        match rest.len() {
            0..=ENTRIES_MAX => Ok(()),
            _ => {
                let text = format!("destination too large to compare; allowed: {ENTRIES_MAX} entries");
                Err(Failure::found(Status::resource_exhausted("too-many-entries", text).with_origin(Origin::Caller)))
            }
        }
    }

    /// Judges an entry of the source, and takes its like out of the rest.
    fn judge(&self, path: &Name, facts: &Facts, rest: &mut Rest) -> Verdict {
        if self.selection.excludes_at_any_depth(path) {
            return Verdict::Exclude;
        }
        let there = rest.remove(path);
        match (facts.kind, there) {
            (Kind::Symlink | Kind::Other, there) => {
                if there.is_some_and(|there| there.is_dir()) {
                    // What stands in the place of something that is skipped is not known to be unwanted.
                    keep_below(path, rest);
                }
                let why = if facts.kind == Kind::Symlink { "a symbolic link" } else { "not a regular file" };
                self.tally.skipped(path, why);
                Verdict::Pass
            }
            (Kind::File, _) if !self.selection.includes(path) => Verdict::Pass,
            (Kind::Dir, Some(there)) if !there.is_dir() => self.conflict(path, "a directory", "a file"),
            (Kind::File, Some(there)) if there.is_dir() => self.conflict(path, "a file", "a directory"),
            (Kind::Dir, there) => match there.is_none() && self.selection.includes_all() {
                true => Verdict::Make,
                false => Verdict::Pass,
            },
            (Kind::File, Some(there)) if there.is_file() && there.size == facts.size => {
                if !self.checksum && there.same_mtime(facts) {
                    self.tally.unchanged();
                    return Verdict::Pass;
                }
                Verdict::Move { probe: self.checksum }
            }
            (Kind::File, _) => Verdict::Move { probe: false },
        }
    }

    fn conflict(&self, path: &Name, here: &str, there: &str) -> Verdict {
        let text = format!("{here} in the source is {there} in the destination; remove that first");
        let status = Status::failed_precondition("is-a-directory", text).with_origin(Origin::Caller);
        self.tally.failed(path, Failure::found(status), true);
        Verdict::Exclude
    }

    fn note(&self, what: &'static str, path: &Name) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).push((what, path.clone()));
    }

    /// What a dry run would have done, as payload.
    fn answer(&self) -> Answer {
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let text = plan.iter().map(|(what, path)| format!("{what} {path}\n")).collect();
        let data: Vec<Value> = plan.iter().map(|(what, path)| json!({"action": what, "path": path})).collect();
        Answer::of_json(Reply::default(), json!(data), text)
    }

    /// What of the rest is to be deleted: what is in a directory before the directory.
    fn deletions(&self, rest: Rest) -> impl Iterator<Item = Name> + use<> {
        // A directory of which only some files take part is not known to be unwanted.
        let directories = self.selection.includes_all();
        rest.into_iter().rev().filter(move |(_, facts)| directories || !facts.is_dir()).map(|(path, _)| path)
    }
}

/// Takes everything below a directory out of the rest.
fn keep_below(directory: &Name, rest: &mut Rest) {
    let below = Name::new([directory.as_bytes(), b"/"].concat());
    let paths = rest.range(below.clone()..).map(|(path, _)| path);
    let paths: Vec<Name> = paths.take_while(|path| path.as_bytes().starts_with(below.as_bytes())).cloned().collect();
    for path in paths {
        rest.remove(&path);
    }
}

struct Side<'s> {
    remote: &'s Remote,
    terms: &'s Terms,
    tally: &'s Tally,
    comparison: &'s Arc<Comparison>,
    options: &'s Sync,
}

impl Side<'_> {
    async fn push(&self, source: &Path, to: &Name) -> Result<(), Failure> {
        let root = Directory::open(source)?;
        let rest = self.remote_rest(to).await?;
        let jobs = Jobs::new();
        if !self.options.dry_run {
            jobs.push(PutJob::new(Source::Directory, to.clone()));
        }
        let source = Name::from(source.as_os_str());
        let walker = tokio::task::spawn_blocking({
            let (jobs, to, comparison) = (jobs.clone(), to.clone(), Arc::clone(self.comparison));
            move || {
                let walked = comparison.walk_source(&source, &root, &to, &jobs, rest);
                jobs.complete();
                walked
            }
        });
        put::run(self.remote, &jobs, self.options.transfer.jobs, self.terms, self.tally).await?;
        let (rest, is_whole) = walker.await.map_err(|_| Failure::protocol("reading the source panicked"))?;
        if !self.may_delete(is_whole) {
            return Ok(());
        }
        let jobs = Jobs::new();
        let remover = tokio::task::spawn_blocking({
            let (jobs, to, comparison) = (jobs.clone(), to.clone(), Arc::clone(self.comparison));
            move || {
                for path in comparison.deletions(rest) {
                    if comparison.dry_run {
                        comparison.note("delete", &path);
                    } else if !jobs.push(PutJob::new(Source::Removal, to.join(&path))) {
                        return;
                    }
                }
                jobs.complete();
            }
        });
        // One after the other: a directory must be empty before its turn.
        let removed = put::run(self.remote, &jobs, 1, self.terms, self.tally).await;
        let _ = remover.await;
        removed
    }

    /// What the server has in the destination.
    async fn remote_rest(&self, to: &Name) -> Result<Rest, Failure> {
        let mut rest = Rest::new();
        if self.remote.facts(to, self.terms.retry, self.tally.progress()).await?.is_none() {
            return Ok(rest);
        }
        let args = LsArgs { path: Some(to), recursive: true, ..LsArgs::default() };
        let mut listing = Listing::new(self.remote, args, self.terms.retry, self.tally.progress());
        while let Some(Entry { name, facts }) = listing.next().await? {
            self.comparison.add(&mut rest, name, facts)?;
        }
        Ok(rest)
    }

    async fn pull(&self, source: &Name, to: &Path) -> Result<(), Failure> {
        let mut rest = self.local_rest(to)?;
        let root = match self.options.dry_run {
            true => None,
            false => Some(Directory::create(to)?),
        };
        let (jobs, queue) = get::queue();
        let directories = Directories::default();
        let list = self.list_source(source, root.clone(), jobs, &mut rest, &directories);
        let transfer = get::run(self.remote, queue, self.options.transfer.jobs, self.terms, self.tally);
        let (is_whole, moved) = tokio::join!(list, transfer);
        moved?;
        if self.may_delete(is_whole?) {
            self.delete_rest(root, rest);
        }
        directories.set(self.tally);
        Ok(())
    }

    fn delete_rest(&self, root: Option<Directory>, rest: Rest) {
        let mut tree = root.map(Tree::new);
        for path in self.comparison.deletions(rest) {
            match &mut tree {
                None => self.comparison.note("delete", &path),
                Some(tree) => self.delete_here(tree, &path),
            }
        }
    }

    /// What is here in the destination.
    fn local_rest(&self, to: &Path) -> Result<Rest, Failure> {
        let mut rest = Rest::new();
        if facts_of(to).is_none() {
            return Ok(rest);
        }
        let mut enter = |found: Found| {
            let is_taken = self.comparison.takes(&found.path, &found.facts);
            self.comparison.add(&mut rest, found.path, found.facts).map(|()| is_taken)
        };
        walk(&Directory::open(to)?, &mut enter, &mut Err)?;
        Ok(rest)
    }

    /// Queues what differs. Says whether the whole source was listed.
    async fn list_source(
        &self,
        source: &Name,
        root: Option<Directory>,
        jobs: Sender<GetJob>,
        rest: &mut Rest,
        directories: &Directories,
    ) -> Result<bool, Failure> {
        let mut tree = root.clone().map(Tree::new);
        let args = LsArgs { path: Some(source), recursive: true, ..LsArgs::default() };
        let mut listing = Listing::new(self.remote, args, self.terms.retry, self.tally.progress());
        loop {
            let Entry { name, facts } = match listing.next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(true),
                Err(failure @ Failure::Status(_)) => {
                    self.tally.failed(source, failure, true);
                    return Ok(false);
                }
                Err(failure) => return Err(failure),
            };
            let verdict = self.comparison.judge(&name, &facts, rest);
            let Some(tree) = &mut tree else {
                self.comparison.plan_for(&verdict, "get", &name);
                continue;
            };
            if let Some(root) = root.as_ref().filter(|_| facts.is_dir() && verdict != Verdict::Exclude) {
                directories.add(root, name.clone(), facts.clone());
            }
            let path = source.join(&name);
            let queued = match verdict {
                Verdict::Exclude | Verdict::Pass => Ok(()),
                Verdict::Make => tree.directory(&name).map(drop),
                Verdict::Move { probe } => match tree.place(&name) {
                    Ok((directory, name)) => {
                        self.tally.progress().expect(facts.size);
                        let target = Target::Place { directory, name };
                        let job = GetJob { compare: probe, ..GetJob::new(path.clone(), target, Some(facts)) };
                        // When the lanes have ended, they say why.
                        drop(jobs.send(job).await);
                        Ok(())
                    }
                    Err(failure) => Err(failure),
                },
            };
            if let Err(failure) = queued {
                self.tally.failed(&path, failure, true);
            }
        }
    }

    fn may_delete(&self, is_whole: bool) -> bool {
        let may = self.options.delete && is_whole && !self.tally.has_failures();
        if self.options.delete && !may {
            self.tally.progress().line("plug: nothing is deleted, since not everything went well");
        }
        may
    }

    fn delete_here(&self, tree: &mut Tree, path: &Name) {
        let removed = tree.find(path).and_then(|(directory, name)| {
            let removed = directory.remove_any(&name);
            removed.map_err(|error| local::failure("cannot delete", &directory.path_of(&name), error))
        });
        match removed {
            Ok(true) => self.tally.deleted(path),
            Ok(false) => {}
            Err(failure) => self.tally.failed(path, failure, true),
        }
    }
}

/// Nobody takes jobs any more.
struct Abandoned;

impl Comparison {
    /// Queues what differs. Returns what the source does not have, and whether the whole source was read.
    fn walk_source(
        &self,
        source: &Name,
        root: &Directory,
        to: &Name,
        jobs: &Jobs<PutJob>,
        mut rest: Rest,
    ) -> (Rest, bool) {
        let mut is_whole = true;
        let mut enter = |found: Found| {
            let verdict = self.judge(&found.path, &found.facts, &mut rest);
            let goes_in = verdict != Verdict::Exclude;
            if self.dry_run {
                self.plan_for(&verdict, "put", &found.path);
                return Ok(goes_in);
            }
            let remote = to.join(&found.path);
            let job = match verdict {
                Verdict::Exclude | Verdict::Pass => return Ok(goes_in),
                Verdict::Make => PutJob::new(Source::Directory, remote),
                Verdict::Move { probe } => {
                    self.tally.progress().expect(found.facts.size);
                    let source = Source::Found { directory: found.directory, name: found.name };
                    PutJob { probe, ..PutJob::new(source, remote) }
                }
            };
            if jobs.push(job) { Ok(goes_in) } else { Err(Abandoned) }
        };
        let mut fail = |failure| {
            is_whole = false;
            self.tally.failed(source, failure, true);
            Ok(())
        };
        let walked = walk(root, &mut enter, &mut fail);
        (rest, is_whole && walked.is_ok())
    }

    fn plan_for(&self, verdict: &Verdict, moves: &'static str, path: &Name) {
        match verdict {
            Verdict::Exclude | Verdict::Pass => {}
            Verdict::Make => self.note("mkdir", path),
            Verdict::Move { .. } => self.note(moves, path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::files::options::ProgressMode;

    fn comparison(include: &[&str], exclude: &[&str], checksum: bool) -> Comparison {
        let globs = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        Comparison {
            selection: Selection::new(&globs(include), &globs(exclude)).expect("globs"),
            checksum,
            dry_run: true,
            tally: Tally::new("synced", Progress::new(ProgressMode::None, true)),
            plan: Mutex::default(),
        }
    }

    fn facts(kind: &str, size: u64, mtime_s: i64) -> Facts {
        serde_json::from_value(json!({"kind": kind, "size": size, "mtime_s": mtime_s})).expect("facts")
    }

    fn verdict(comparison: &Comparison, source: Facts, there: Option<Facts>) -> Verdict {
        let mut rest: Rest = there.into_iter().map(|facts| ("a/b.c".into(), facts)).collect();
        comparison.judge(&"a/b.c".into(), &source, &mut rest)
    }

    #[test]
    fn files_are_alike_by_size_and_time_or_by_digest() {
        let (quick, thorough) = (comparison(&[], &[], false), comparison(&[], &[], true));
        let file = |size, mtime_s| facts("file", size, mtime_s);
        assert_eq!(verdict(&quick, file(1, 5), Some(file(1, 5))), Verdict::Pass);
        assert_eq!(verdict(&quick, file(1, 5), Some(file(1, 6))), Verdict::Move { probe: false });
        assert_eq!(verdict(&quick, file(1, 5), Some(file(2, 5))), Verdict::Move { probe: false });
        assert_eq!(verdict(&quick, file(1, 5), None), Verdict::Move { probe: false });
        assert_eq!(verdict(&thorough, file(1, 5), Some(file(1, 5))), Verdict::Move { probe: true });
        assert_eq!(verdict(&quick, file(1, 5), Some(facts("symlink", 1, 5))), Verdict::Move { probe: false });
    }

    #[test]
    fn what_is_something_else_there_is_left_and_told() {
        let comparison = comparison(&[], &[], false);
        assert_eq!(verdict(&comparison, facts("file", 1, 1), Some(facts("dir", 1, 1))), Verdict::Exclude);
        assert_eq!(verdict(&comparison, facts("dir", 1, 1), Some(facts("file", 1, 1))), Verdict::Exclude);
        assert!(comparison.tally.has_failures());
    }

    #[test]
    fn what_is_left_out_is_neither_moved_nor_deleted() {
        let comparison = comparison(&["*.c"], &["x"], false);
        let file = || facts("file", 1, 1);
        let mut rest = Rest::new();
        for (path, facts) in [("x/a.c", file()), ("a.c", file()), ("a.h", file()), ("d", facts("dir", 1, 1))] {
            comparison.add(&mut rest, path.into(), facts).expect("room");
        }
        assert_eq!(comparison.judge(&"x/b.c".into(), &file(), &mut rest), Verdict::Exclude);
        assert_eq!(comparison.judge(&"b.h".into(), &file(), &mut rest), Verdict::Pass);
        assert_eq!(comparison.deletions(rest).collect::<Vec<_>>(), ["a.c".into()]);
    }

    #[test]
    fn what_stands_in_the_place_of_a_skipped_link_is_kept_with_everything_below() {
        let comparison = comparison(&[], &[], false);
        let paths = [("a", "dir"), ("a-b", "file"), ("a/b", "dir"), ("a/b/c", "file"), ("a0", "file")];
        let mut rest = paths.iter().map(|(path, kind)| (Name::from(*path), facts(kind, 0, 0))).collect();
        assert_eq!(comparison.judge(&"a".into(), &facts("symlink", 0, 0), &mut rest), Verdict::Pass);
        assert_eq!(rest.into_keys().collect::<Vec<_>>(), ["a-b".into(), "a0".into()]);
    }

    #[test]
    fn a_file_that_is_left_out_is_no_conflict() {
        let comparison = comparison(&["*.h"], &[], false);
        assert_eq!(verdict(&comparison, facts("file", 1, 1), Some(facts("dir", 1, 1))), Verdict::Pass);
        assert!(!comparison.tally.has_failures());
    }

    #[test]
    fn a_directory_is_deleted_after_what_is_in_it() {
        let comparison = comparison(&[], &[], false);
        let paths = ["a", "a/b", "a/b/c", "a-b"];
        let rest = paths.iter().map(|path| (Name::from(*path), facts("dir", 0, 0))).collect();
        let order: Vec<String> = comparison.deletions(rest).map(|path| path.to_string()).collect();
        assert_eq!(order, ["a/b/c", "a/b", "a-b", "a"]);
    }
}
