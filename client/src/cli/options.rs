//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};

use serde_json::{Map, Value};

use super::bench::options::Bench;
use super::completion::Completion;
use super::exec::options::{Attach, Exec, Kill, Logs, Sh, Shown};
use super::failure::Failure;
use super::files::options::FileVerb;
use super::profiles::{Profiles, ServerName};
use super::server::{Means, Server};
use super::text::one_line;
use super::{bench, call, exec, files};
use crate::Recorder;

const AFTER_HELP: &str = "\
Exit codes:
  0         the call ended well
  2         usage: the command line cannot work
  3         cannot connect
  4         connection lost, or protocol broken, before the end of the call
  5         local failure: a file or stdout cannot be written, an answer is too long to hold
  64+CODE   the call ended with a failing status: 65 cancelled, 66 unknown,
            67 invalid_argument, 68 deadline_exceeded, 69 not_found, 70 already_exists,
            71 permission_denied, 72 resource_exhausted, 73 failed_precondition, 74 aborted,
            75 out_of_range, 76 unimplemented, 77 internal, 78 unavailable, 79 data_loss,
            80 unauthenticated
  128+N     stopped by signal N; 130 is Ctrl-C
`plug exec` exits with the command's own code, or 128+N for its signal; for 124 to 127 see `plug exec --help`. Of several
servers the greatest code counts.

With --json, one line on stdout holds the result or the failure:
  {\"ok\": true, \"status\": {\"code\": 0, \"name\": \"ok\", \"reason\": \"\", \"message\": \"\",
   \"origin\": \"handler\", \"retry\": false}, \"head\": null, \"data\": \"text\", \"side\": {}, \"trailer\": null}
  \"data\" is text, or a JSON value for list, describe, ping, bench and the verbs for files; bytes that are no
  UTF-8 stand in \"data_base64\" instead. \"side\" holds side channels by number, in the same way.
  When this side fails there is no \"status\" but \"error\": {\"kind\": \"connect\", \"message\": \"...\"};
  kinds are connect, lost, protocol, usage, io, limit and signal. At most 64 MiB of payload are collected.
  ls prints one line for each entry instead, as it comes, and the object only when it fails, as the last line.
  Verbs that run commands add \"end\", one word, and \"exit_code\"; several servers print a line each, with \"server\".";

const CALL_AFTER_HELP: &str = "\
Examples:
  echo hello | plug call upper
  plug call upper --data hello
  plug call docs.ls --path reports --recursive
  plug call docs.ls path=reports recursive:=true
  plug call docs.ls --help
  plug call shell.exec 'argv:=[\"uname\", \"-a\"]'
  plug call docs.stat --args '{\"path\": \"a.txt\"}' --json
  plug call upper --file big.txt > BIG.TXT
  plug -s a -s b call ops.uptime --parallel 20
The flags of a COMMAND stand behind it; `plug call COMMAND --help` asks the server what they are. An option above always
means plug: an argument of the same name is given as KEY=TEXT. Behind -- only KEY=TEXT and KEY:=JSON follow.
Several servers are given no standard input; --data and --file go to each of them.";

const COMPLETION_AFTER_HELP: &str = "\
Examples:
  eval \"$(plug completion bash)\"           in ~/.bashrc
  source <(plug completion zsh)             in ~/.zshrc, behind compinit
  plug completion fish | source             in ~/.config/fish/config.fish
The server is that of -s on the line that is typed, or else of PLUG_SERVER; it is waited for half a second, and what it said
before stands in for it.";

/// Calls the plugins of a plugd server.
///
/// The payload of an answer goes to stdout and everything else to stderr, in every mode.
#[derive(Debug, Parser)]
#[command(name = "plug", version, after_long_help = AFTER_HELP, after_help = "See --help for exit codes and --json.")]
pub(crate) struct Options {
    /// The server: tls://HOST:PORT, tcp://HOST:PORT, HOST:PORT, unix:/PATH or @PROFILE; exec, logs and call take several, one -s each or with commas
    #[arg(short = 's', long = "server", env = "PLUG_SERVER", value_name = "URL", global = true, value_delimiter = ',',
          default_values_t = [ServerName::default()])]
    pub(crate) servers: Vec<ServerName>,

    /// The servers, and how each is reached, once that is found out.
    #[arg(skip)]
    pub(crate) reached: Vec<Server>,

    /// The time that the call may take once connected, such as 500ms, 30s or 5m; the server is told. For bench, each call
    #[arg(long, value_name = "TIME", global = true, value_parser = parse_timeout)]
    pub(crate) timeout: Option<Duration>,

    /// The time to wait for a server that is not up yet, such as 10s
    #[arg(long, value_name = "TIME", global = true, value_parser = parse_wait)]
    pub(crate) wait: Option<Duration>,

    /// Print one JSON object for results and failures alike
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// The plugin that exec, jobs and the verbs for files call; needed only when several offer the operation
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) plugin: Option<String>,

    /// Append the calls that this makes to FILE, a JSON object a line, to be replayed as tests; see docs/calling.md
    #[arg(long, value_name = "FILE", global = true, value_hint = ValueHint::FilePath)]
    pub(crate) record: Option<PathBuf>,

    /// What stores the calls, once the file is open.
    #[arg(skip)]
    pub(crate) recorder: Option<Recorder>,

    #[command(flatten)]
    pub(crate) means: Means,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the commands that the server offers
    List,
    /// Describe a plugin: its operations, their arguments and its settings
    Describe(Describe),
    /// Ask the server for a sign of life
    Ping,
    /// Tell who this caller is to the server: address, uid, names in its certificate, token
    Whoami,
    /// Call any command, with data from stdin unless told otherwise
    #[command(after_help = CALL_AFTER_HELP)]
    Call(Call),
    #[command(flatten)]
    Files(FileVerb),
    /// Run a command, with stdin, stdout, stderr and exit code handed through
    #[command(after_help = exec::options::AFTER_HELP)]
    Exec(Exec),
    /// Work in a shell on the server; ~. at the start of a line leaves
    Sh(Sh),
    /// List the commands that run detached, and those that ended lately
    Jobs,
    /// Show what a job has printed
    Logs(Logs),
    /// Join a job: what it prints from now on, and input for it; leaving lets it run
    Attach(Attach),
    /// End a job
    Kill(Kill),
    /// Load a command, and measure how many answers come and how fast
    #[command(after_help = bench::options::AFTER_HELP)]
    Bench(Bench),
    /// Print a script with which a shell completes commands, operations and flags, those of a live server among them
    #[command(after_help = COMPLETION_AFTER_HELP)]
    Completion(Completion),
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// The plugin
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Call {
    /// PLUGIN.OPERATION, or PLUGIN when it has just one operation
    pub(crate) command: String,
    /// Arguments: KEY=TEXT, or KEY:=JSON for numbers, lists and the like; --KEY VALUE works too, see COMMAND --help
    #[arg(value_name = "KEY=TEXT|KEY:=JSON")]
    pub(crate) arguments: Vec<String>,
    /// Arguments as one JSON object
    #[arg(long, value_name = "JSON")]
    pub(crate) args: Option<String>,
    /// Send this text instead of stdin
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub(crate) data: Option<String>,
    /// Send this file instead of stdin
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) shown: Shown,
    /// What flags of the command gave, once the server has explained them; see `flags`.
    #[arg(skip)]
    pub(crate) flags: Map<String, Value>,
}

pub(crate) fn parse_wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if wait > plugd_core::wire::DEADLINE_MAX {
        return Err("out of range; allowed: at most 30days".to_owned());
    }
    Ok(wait)
}

pub(crate) fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if timeout < Duration::from_millis(1) || timeout > plugd_core::wire::DEADLINE_MAX {
        return Err("out of range; allowed: 1ms to 30days".to_owned());
    }
    Ok(timeout)
}

impl Options {
    /// Reads the command line.
    pub(crate) fn read(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Options, clap::Error> {
        Options::of_matches(&Options::command().try_get_matches_from(arguments)?)
    }

    /// Reads a command line that was taken apart.
    pub(crate) fn of_matches(matches: &ArgMatches) -> Result<Options, clap::Error> {
        Options::from_arg_matches(matches).map_err(|error| error.format(&mut Options::command()))
    }

    /// Finds out how the servers are reached, for which files with secrets are read.
    pub(crate) fn find_servers(&mut self) -> Result<(), Failure> {
        let is_profile = |name: &ServerName| matches!(name, ServerName::Profile(_));
        let profiles = self.servers.iter().any(is_profile).then(Profiles::of_user).transpose()?;
        let reach = |name: &ServerName| self.reach(name, profiles.as_ref());
        let reached: Vec<Server> = self.servers.iter().map(reach).collect::<Result<_, Failure>>()?;
        self.means.check(reached.iter().map(Server::address))?;
        self.reached = reached;
        Ok(())
    }

    /// How a server is reached; what the command line says counts more than what its profile says.
    fn reach(&self, name: &ServerName, profiles: Option<&Profiles>) -> Result<Server, Failure> {
        let (timeout, wait) = (self.timeout, self.wait);
        match (name, profiles) {
            (ServerName::Profile(profile), Some(profiles)) => {
                let profile = profiles.find(profile)?;
                Ok(Server {
                    connector: self.means.over(profile).connector(&profile.server)?,
                    label: Some(name.to_string()),
                    timeout: timeout.or(profile.timeout),
                    wait: wait.or(profile.wait),
                })
            }
            (ServerName::Address(address), _) => {
                Ok(Server { connector: self.means.connector(address)?, label: None, timeout, wait })
            }
            (ServerName::Profile(_), None) => Err(Failure::Usage(format!("no profiles were read for {name}"))),
        }
    }

    /// The first of the servers, the only one for most verbs.
    pub(crate) fn server(&self) -> Result<&Server, Failure> {
        self.reached.first().ok_or_else(|| Failure::Usage("no server given; see -s".to_owned()))
    }

    /// Opens the file that `--record` names.
    pub(crate) fn open_record(&mut self) -> Result<(), Failure> {
        let Some(path) = &self.record else { return Ok(()) };
        if matches!(self.verb, Verb::Bench(_)) {
            let text = "--record stores calls one by one; bench makes as many as it can; leave one of the two out";
            return Err(Failure::Usage(text.to_owned()));
        }
        let name = one_line(&path.to_string_lossy());
        let recorder = Recorder::append_to(path).map_err(|error| Failure::io(format!("cannot write {name}"), error))?;
        self.recorder = Some(recorder);
        Ok(())
    }

    /// Finds what cannot work before anybody is called.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.servers.len() > 1 {
            let found = self.servers.len();
            return Err(Failure::Usage(format!("{found} servers given; only exec, logs and call take several")));
        }
        self.verb.check(self.json)
    }
}

impl Verb {
    fn check(&self, json: bool) -> Result<(), Failure> {
        match self {
            Verb::Call(options) => call::arguments(options).map(drop),
            Verb::Files(verb) => files::check(verb, json),
            Verb::Bench(options) => options.arguments().map(drop),
            _ => Ok(()),
        }
    }

    /// Whether stderr is for programs: an object a line.
    pub(crate) fn tells_events(&self) -> bool {
        matches!(self, Verb::Files(verb) if verb.tells_events())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn what_follows_a_command_is_the_commands_own() {
        let options = Options::read(["plug", "exec", "ls", "--json", "-s", "x"]).expect("a command line");
        assert!(!options.json);
        let Verb::Exec(exec) = options.verb else { panic!("exec was asked for") };
        assert_eq!(exec.argv, ["ls", "--json", "-s", "x"]);
    }

    #[test]
    fn options_before_a_command_are_ours() {
        let options = Options::read(["plug", "exec", "--json", "--", "ls"]).expect("a command line");
        assert!(options.json);
    }

    #[test]
    fn several_servers_are_given_one_by_one_or_with_commas() {
        let options = Options::read(["plug", "-s", "a", "-s", "b,c:1", "exec", "true"]).expect("a command line");
        let servers: Vec<String> = options.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["tcp://a:7584", "tcp://b:7584", "tcp://c:1"]);
        let behind = Options::read(["plug", "exec", "-s", "a", "-s", "b", "--", "true"]).expect("a command line");
        assert_eq!(behind.servers.len(), 2);
    }

    #[test]
    fn a_bad_server_is_refused_by_naming_what_is_allowed() {
        let error = Options::read(["plug", "-s", "ssl://x", "list"]).expect_err("not supported");
        assert!(error.to_string().contains("not supported"), "{error}");
    }
}
