//! The command line of the file verbs.

use std::ffi::OsString;

use clap::{ArgAction, Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use super::digest::Algorithm;

/// How many connections a command may use; each costs the server a slot, and more than this has shown no gain.
const JOBS_MAX: i64 = 32;

/// How often a transfer may be tried again: with the longest pauses that is most of a day.
const RETRY_MAX: i64 = 10_000;

const GET_AFTER_HELP: &str = "\
Examples:
  plug get report.pdf                 into the file of that name here
  plug get a.txt b.txt texts/         several into a directory
  plug get 'logs/*.gz' .              what matches, as the server lists it
  plug get -r photos .                a tree, as ./photos
  plug get -r photos pictures         the same, as pictures
  plug get backup.tar - | tar t       to stdout
Interrupted or cut off, a large file stays in .NAME.plug-part; the same command carries on.";

const PUT_AFTER_HELP: &str = "\
Examples:
  plug put report.pdf                 under that name in the plugin's root
  plug put a.txt b.txt texts/         several into a directory
  plug put -r photos backup/          a tree, which becomes backup/photos
  tar c . | plug put - backup.tar     from stdin
Interrupted or cut off, the server keeps what came of a large file; the same command carries on.";

const SYNC_AFTER_HELP: &str = "\
Examples:
  plug sync --push site www           makes www on the server like site here
  plug sync --pull www site           makes site here like www on the server
  plug sync --push site www --delete -n
Files are alike when size and modification time are; --checksum compares digests instead. What is here and what is
there is said by --push and --pull, so that no colon in a name and no missing one changes the direction.
A glob without a slash matches names at any depth, one with a slash matches whole paths below SOURCE. Nothing is
deleted that is excluded, nor when any part of the source could not be read, nor when a transfer failed.";

/// The verbs that move files, and those around them.
#[derive(Debug, Subcommand)]
pub(crate) enum FileVerb {
    /// Fetch files; each appears under its name only when size and digest are right
    #[command(after_help = GET_AFTER_HELP)]
    Get(Get),
    /// Drop files; the server shows each under its name only when size and digest are right
    #[command(after_help = PUT_AFTER_HELP)]
    Put(Put),
    /// Make a directory there like one here, or the other way round
    #[command(after_help = SYNC_AFTER_HELP)]
    Sync(Sync),
    /// List a directory; with --json one line for each entry
    #[command(disable_help_flag = true)]
    Ls(Ls),
    /// Show what is known about a file
    Stat(Stat),
    /// Show the digest of a file, made by the server
    Digest(Digest),
    /// Make directories
    Mkdir(Mkdir),
    /// Remove files, or with -r whole directories
    Rm(Rm),
    /// Rename a file or a directory
    Mv(Mv),
    /// Copy a file on the server
    Cp(Cp),
    /// Show how much space the plugin's file system has
    #[command(disable_help_flag = true)]
    Df(Df),
}

impl FileVerb {
    /// Whether stderr is for programs: an object a line.
    pub(crate) fn tells_events(&self) -> bool {
        let transfer = match self {
            FileVerb::Get(options) => &options.transfer,
            FileVerb::Put(options) => &options.transfer,
            FileVerb::Sync(options) => &options.transfer,
            _ => return false,
        };
        transfer.progress == ProgressMode::Json
    }
}

/// How much of a file must have reached the disk before it is shown under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// Nothing: the system writes it when it likes
    None,
    /// The file's content
    File,
    /// The file's content and its name
    Full,
}

/// How a transfer shows how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum ProgressMode {
    /// Bars on a terminal, nothing off it
    #[default]
    Auto,
    /// One JSON object a line, on stderr, and nothing else there
    Json,
    /// Nothing
    None,
}

/// What get, put and sync have in common.
#[derive(Debug, Clone, Args)]
pub(crate) struct Transfer {
    /// How often to try again after a lost connection or a server that is restarting, for each file; the pauses grow
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=RETRY_MAX))]
    pub(crate) retry: u32,
    /// How many connections to use when there are many files
    #[arg(short, long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=JOBS_MAX))]
    pub(crate) jobs: u32,
    /// What to verify the content with
    #[arg(long, value_enum, value_name = "ALGORITHM", default_value_t)]
    pub(crate) digest: Algorithm,
    /// What must have reached the disk before a file appears; for get none when absent, for put what the server says
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) durability: Option<Durability>,
    /// How to show progress
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub(crate) progress: ProgressMode,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Files on the server, then the file or directory here; `-` is stdout. With one REMOTE alone, its last part
    #[arg(required = true, value_name = "REMOTE... [LOCAL]")]
    pub(crate) paths: Vec<OsString>,
    /// Fetch directories with everything below them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Keep modification time and permissions, of directories as well
    #[arg(short, long)]
    pub(crate) preserve: bool,
    /// Leave files alone that are there already
    #[arg(long)]
    pub(crate) no_clobber: bool,
    #[command(flatten)]
    pub(crate) transfer: Transfer,
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// Files here, then the file or directory on the server; `-` is stdin. With one LOCAL alone, its last part
    #[arg(required = true, value_name = "LOCAL... [REMOTE]")]
    pub(crate) paths: Vec<OsString>,
    /// Drop directories with everything below them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Keep modification time and permissions of files
    #[arg(short, long)]
    pub(crate) preserve: bool,
    /// Leave files alone that are there already
    #[arg(long)]
    pub(crate) no_clobber: bool,
    /// Replace the file only while it is this one: its digest (ALGORITHM:HEX), or its etag as stat shows it
    #[arg(long, value_name = "DIGEST|ETAG", conflicts_with_all = ["no_clobber", "recursive"])]
    pub(crate) if_match: Option<String>,
    #[command(flatten)]
    pub(crate) transfer: Transfer,
}

#[derive(Debug, Args)]
#[group(id = "direction", required = true, multiple = false, args = ["push", "pull"])]
pub(crate) struct Sync {
    /// SOURCE is here and DESTINATION on the server
    #[arg(long)]
    pub(crate) push: bool,
    /// SOURCE is on the server and DESTINATION here
    #[arg(long)]
    pub(crate) pull: bool,
    /// The directory that is read
    pub(crate) source: OsString,
    /// The directory that becomes like it
    pub(crate) destination: OsString,
    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Delete what the source does not have
    #[arg(long)]
    pub(crate) delete: bool,
    /// Take only files that match; may come several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// Leave out what matches, on both sides; may come several times
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Compare digests instead of modification times
    #[arg(long)]
    pub(crate) checksum: bool,
    #[command(flatten)]
    pub(crate) transfer: Transfer,
}

/// What `ls` sorts by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Default)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SortKey {
    /// The name, byte by byte
    #[default]
    Name,
    /// The size, smallest first
    Size,
    /// The modification time, oldest first
    Mtime,
    /// As it comes, at once
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The directory on the server; the plugin's root when absent
    pub(crate) path: Option<OsString>,
    /// List what is in the directories below as well
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Show sizes for people: 1.5K, 23M, 4.0G
    #[arg(short = 'h', long)]
    pub(crate) human: bool,
    /// Show only what matches
    #[arg(long, value_name = "GLOB")]
    pub(crate) glob: Option<String>,
    /// What to sort by
    #[arg(long, value_enum, value_name = "KEY", default_value_t)]
    pub(crate) sort: SortKey,
    /// Sort the other way round
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Show at most so many entries
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Args)]
pub(crate) struct Stat {
    /// The file or directory on the server
    pub(crate) path: OsString,
    /// Describe a symbolic link itself
    #[arg(short = 'P', long)]
    pub(crate) no_follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Digest {
    /// The files on the server
    #[arg(required = true)]
    pub(crate) paths: Vec<OsString>,
    /// Which digest
    #[arg(long, value_enum, value_name = "ALGORITHM", default_value_t)]
    pub(crate) digest: Algorithm,
}

#[derive(Debug, Args)]
pub(crate) struct Mkdir {
    /// The directories on the server
    #[arg(required = true)]
    pub(crate) paths: Vec<OsString>,
    /// Make missing directories above as well; a directory that exists is no failure
    #[arg(short, long)]
    pub(crate) parents: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The files on the server; of a symbolic link, the link
    #[arg(required = true)]
    pub(crate) paths: Vec<OsString>,
    /// Remove directories with everything below them
    #[arg(short, long)]
    pub(crate) recursive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Mv {
    /// What is renamed
    pub(crate) from: OsString,
    /// Its new path
    pub(crate) to: OsString,
    /// Fail when something has the new path
    #[arg(long)]
    pub(crate) no_clobber: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// The file that is copied
    pub(crate) from: OsString,
    /// The path of the copy
    pub(crate) to: OsString,
    /// Fail when something has that path
    #[arg(long)]
    pub(crate) no_clobber: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Df {
    /// Show sizes for people: 1.5K, 23M, 4.0G
    #[arg(short = 'h', long)]
    pub(crate) human: bool,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}
