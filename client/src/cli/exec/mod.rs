//! The verbs that run commands: `exec`, `sh`, `logs`, `attach`, and `call` where it is shown as they are.
//!
//! A verb becomes a [`Task`] here, which says what is to be called with what input; `conversation` talks with the command,
//! `show` shows its output, and `ending` says how it ended. `many` runs a task on each server.

pub(crate) mod conversation;
pub(crate) mod decode;
pub(crate) mod ending;
pub(crate) mod options;
pub(crate) mod show;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::failure::Failure;
use super::options::{Call, Options, Verb};
use super::stream::Source;
use super::terminal;
use conversation::Input;
use decode::Asked;
use ending::Codes;
use options::{Attach, Exec, Logs, Place, Sh, Shown};
use show::Form;

/// A call that is shown as it comes, on any number of servers.
#[derive(Debug)]
pub(crate) struct Task<'o> {
    pub(crate) command: Command<'o>,
    pub(crate) args: Map<String, Value>,
    pub(crate) given: Given<'o>,
    pub(crate) codes: Codes,
    pub(crate) form: Form,
    pub(crate) asked: Asked,
    pub(crate) report: Option<&'o Path>,
    /// How many servers are asked at once.
    pub(crate) parallel: usize,
    /// Whether the command is to be left running.
    pub(crate) is_detached: bool,
}

/// What is called.
#[derive(Debug)]
pub(crate) enum Command<'o> {
    /// This operation, of the plugin that `--plugin` names or of the only one that offers it.
    Operation(&'static str),
    /// This plugin and operation.
    Named(&'o str),
}

/// What goes to the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given<'o> {
    Nothing,
    Silence,
    Stdin,
    Keys,
    Text(&'o str),
    File(&'o PathBuf),
}

impl Given<'_> {
    pub(crate) async fn open(self) -> Result<Input, Failure> {
        Ok(match self {
            Given::Nothing => Input::Nothing,
            Given::Silence => Input::Silence,
            Given::Stdin => Input::Stream(Source::stdin()?),
            Given::Keys => Input::Keys(Source::stdin()?),
            Given::Text(text) => Input::Text(text.to_owned()),
            Given::File(path) => Input::Whole(Source::open(path).await?),
        })
    }
}

impl<'o> Task<'o> {
    /// The task of a verb that runs a command, or `None` for another verb.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] for what cannot work.
    pub(crate) fn of(options: &'o Options) -> Result<Option<Task<'o>>, Failure> {
        let task = match &options.verb {
            Verb::Exec(exec) => of_exec(options, exec)?,
            Verb::Sh(sh) => of_sh(options, sh)?,
            Verb::Logs(logs) => of_logs(options, logs)?,
            Verb::Attach(attach) => of_attach(options, attach)?,
            Verb::Call(call) if options.servers.len() > 1 || is_shown(&call.shown) => of_call(options, call)?,
            _ => return Ok(None),
        };
        let is_one = matches!(options.verb, Verb::Sh(_) | Verb::Attach(_)) || task.given == Given::Keys;
        if is_one && options.servers.len() > 1 {
            let found = options.servers.len();
            return Err(Failure::Usage(format!("{found} servers given; a terminal and a job are of one")));
        }
        Ok(Some(task))
    }

    fn new(
        options: &Options,
        command: Command<'o>,
        args: Map<String, Value>,
        shown: &'o Shown,
    ) -> Result<Task<'o>, Failure> {
        Ok(Task {
            command,
            args,
            given: Given::Nothing,
            codes: Codes::Exec,
            form: form(options, shown)?,
            asked: Asked::parse(shown.encoding.as_deref())?,
            report: shown.report.as_deref(),
            parallel: shown.parallel.into(),
            is_detached: false,
        })
    }
}

fn form(options: &Options, shown: &Shown) -> Result<Form, Failure> {
    match (options.json, shown.events) {
        (true, true) => Err(Failure::Usage("both --json and --events given; pick one".to_owned())),
        (true, false) => Ok(Form::Collected),
        (false, true) => Ok(Form::Events),
        _ if options.servers.len() == 1 => Ok(Form::Plain),
        _ if shown.group => Ok(Form::Grouped),
        _ => Ok(Form::Lines),
    }
}

/// Whether anything is asked for that `plug call` does not do by itself.
fn is_shown(shown: &Shown) -> bool {
    shown.events || shown.encoding.is_some() || shown.report.is_some()
}

/// Several servers cannot share what is read once.
fn stdin(options: &Options) -> Given<'static> {
    if options.servers.len() == 1 { Given::Stdin } else { Given::Nothing }
}

fn of_exec<'o>(options: &'o Options, exec: &'o Exec) -> Result<Task<'o>, Failure> {
    let mut args = of_place(&exec.place)?;
    match (exec.shell, exec.argv.as_slice()) {
        (false, argv) => args.insert("argv".to_owned(), json!(argv)),
        (true, [line]) => args.insert("shell".to_owned(), json!(line)),
        (true, words) => {
            let found = words.len();
            return Err(Failure::Usage(format!("--shell with {found} arguments; allowed: one line, in quotes")));
        }
    };
    if exec.detach {
        args.insert("detach".to_owned(), true.into());
    }
    if exec.tty {
        args.insert("pty".to_owned(), pty(options, "-t")?);
    }
    let given = match (exec.tty, exec.no_stdin || exec.detach) {
        (true, _) => Given::Keys,
        (false, true) => Given::Nothing,
        (false, false) => stdin(options),
    };
    let task = Task::new(options, Command::Operation("exec"), args, &exec.shown)?;
    Ok(Task { given, is_detached: exec.detach, ..task })
}

fn of_sh<'o>(options: &'o Options, sh: &'o Sh) -> Result<Task<'o>, Failure> {
    let mut args = of_place(&sh.place)?;
    let argv = if sh.argv.is_empty() { json!(["/bin/sh", "-i"]) } else { json!(sh.argv) };
    args.insert("argv".to_owned(), argv);
    args.insert("pty".to_owned(), pty(options, "sh")?);
    Ok(Task {
        command: Command::Operation("exec"),
        args,
        given: Given::Keys,
        codes: Codes::Exec,
        form: Form::Plain,
        asked: Asked::Raw,
        report: sh.report.as_deref(),
        parallel: 1,
        is_detached: false,
    })
}

fn of_logs<'o>(options: &'o Options, logs: &'o Logs) -> Result<Task<'o>, Failure> {
    let args = json!({ "id": logs.id, "from": logs.from, "follow": logs.follow, "stream": logs.stream.name() });
    let task = Task::new(options, Command::Operation("logs"), object(args), &logs.shown)?;
    Ok(Task { codes: Codes::Call, ..task })
}

fn of_attach<'o>(options: &'o Options, attach: &'o Attach) -> Result<Task<'o>, Failure> {
    if attach.tty {
        check_terminal(options, "-t")?;
    }
    let given = match (attach.tty, attach.no_stdin) {
        (true, _) => Given::Keys,
        // The end of the input would be the job's.
        (false, true) => Given::Silence,
        (false, false) => Given::Stdin,
    };
    let args = object(json!({ "id": attach.id }));
    Ok(Task { given, ..Task::new(options, Command::Operation("attach"), args, &attach.shown)? })
}

fn of_call<'o>(options: &'o Options, call: &'o Call) -> Result<Task<'o>, Failure> {
    let given = match (&call.data, &call.file) {
        (Some(text), _) => Given::Text(text),
        (None, Some(path)) => Given::File(path),
        (None, None) => stdin(options),
    };
    let args = super::call::arguments(call)?;
    let task = Task::new(options, Command::Named(&call.command), args, &call.shown)?;
    Ok(Task { given, codes: Codes::Call, ..task })
}

fn of_place(place: &Place) -> Result<Map<String, Value>, Failure> {
    let mut args = Map::new();
    if let Some(cwd) = &place.cwd {
        args.insert("cwd".to_owned(), json!(cwd));
    }
    let mut variables = Map::new();
    for word in &place.env {
        let (name, value) = word
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| Failure::Usage(format!("no variable in --env \"{word}\"; allowed: NAME=VALUE")))?;
        if variables.insert(name.to_owned(), json!(value)).is_some() {
            return Err(Failure::Usage(format!("variable \"{name}\" given twice")));
        }
    }
    if !variables.is_empty() {
        args.insert("env".to_owned(), variables.into());
    }
    Ok(args)
}

fn pty(options: &Options, option: &str) -> Result<Value, Failure> {
    check_terminal(options, option)?;
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let mut pty = json!(terminal::size());
    pty["term"] = term.into();
    Ok(pty)
}

fn check_terminal(options: &Options, option: &str) -> Result<(), Failure> {
    if options.json {
        return Err(Failure::Usage(format!("{option} shows what comes as it comes; leave --json out")));
    }
    terminal::check(option)
}

/// Arguments that are written as one.
fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(object) = value { object } else { Map::new() }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn args(line: &[&str]) -> Result<Value, String> {
        let options = Options::read(["plug"].iter().chain(line)).map_err(|error| error.to_string())?;
        match Task::of(&options) {
            Ok(task) => Ok(Value::Object(task.expect("a task").args)),
            Err(failure) => Err(failure.line().expect("a line")),
        }
    }

    #[rstest]
    #[case(&["exec", "ls", "-l"], json!({"argv": ["ls", "-l"]}))]
    #[case(&["exec", "--shell", "a | b"], json!({"shell": "a | b"}))]
    #[case(&["exec", "--detach", "--", "make"], json!({"argv": ["make"], "detach": true}))]
    #[case(&["exec", "--cwd", "a/b", "-e", "A=1", "--env", "B=x=y", "-e", "C=", "ls"],
           json!({"argv": ["ls"], "cwd": "a/b", "env": {"A": "1", "B": "x=y", "C": ""}}))]
    #[case(&["logs", "-f", "--from", "7", "j1"], json!({"id": "j1", "from": 7, "follow": true, "stream": "both"}))]
    #[case(&["attach", "j1"], json!({"id": "j1"}))]
    #[case(&["-s", "a", "-s", "b", "call", "ops.tail", "lines:=3"], json!({"lines": 3}))]
    fn a_command_line_becomes_arguments(#[case] line: &[&str], #[case] expected: Value) {
        assert_eq!(args(line), Ok(expected));
    }

    #[rstest]
    #[case(&["exec", "--shell", "a", "b"], "--shell with 2 arguments; allowed: one line, in quotes")]
    #[case(&["exec", "-e", "A", "ls"], "no variable in --env \"A\"; allowed: NAME=VALUE")]
    #[case(&["exec", "-e", "=A", "ls"], "no variable in --env \"=A\"; allowed: NAME=VALUE")]
    #[case(&["exec", "-e", "A=1", "-e", "A=2", "ls"], "variable \"A\" given twice")]
    #[case(&["--json", "exec", "--events", "ls"], "both --json and --events given; pick one")]
    #[case(&["--json", "exec", "-t", "ls"], "-t shows what comes as it comes; leave --json out")]
    #[case(&["-s", "a,b", "attach", "j1"], "2 servers given; a terminal and a job are of one")]
    fn what_cannot_work_is_refused(#[case] line: &[&str], #[case] expected: &str) {
        assert_eq!(args(line), Err(expected.to_owned()));
    }

    #[test]
    fn several_servers_share_no_standard_input() {
        let options = Options::read(["plug", "-s", "a,b", "exec", "ls"]).expect("a command line");
        assert_eq!(Task::of(&options).expect("a task").expect("a task").given, Given::Nothing);
    }
}
