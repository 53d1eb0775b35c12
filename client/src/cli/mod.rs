//! The program `plug`, as a library so that other packages can build it too.
//!
//! Each verb has a module that makes its calls and returns an `Answer` or a `Failure`; only this module prints those and
//! chooses the exit code. Verbs that run commands are `Task`s, which `many` runs on each server and whose output is shown as
//! it comes.

mod answer;
mod arguments;
mod bench;
mod call;
mod completion;
mod describe;
mod directory;
mod envelope;
mod exec;
mod exit;
mod failure;
mod files;
mod flags;
mod jobs;
mod list;
mod many;
mod options;
mod output;
mod ping;
mod profiles;
mod server;
mod session;
mod signals;
mod stream;
mod terminal;
mod text;
mod whoami;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;

use answer::Answer;
use envelope::Envelope;
use exec::Task;
use failure::Failure;
use flags::Explained;
use flags::lenient::{self, Partly};
use options::{Options, Verb};
use output::Output;
use session::Session;
use signals::Signals;
use text::one_line;

use crate::Recorder;

/// Runs the program `plug` on the arguments of this process.
pub fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return ExitCode::from(output::complain(&Failure::io("cannot start", source))),
    };
    if let Some(shell) = completion::asking_shell() {
        let exit = runtime.block_on(completion::answer(shell, std::env::args_os().collect()));
        // A name that is still looked up must not keep a shell waiting.
        runtime.shutdown_background();
        return ExitCode::from(exit);
    }
    let exit = runtime.block_on(run_line(&std::env::args_os().collect::<Vec<_>>()));
    // A thread may be blocked in reading a terminal; the program ends without it.
    runtime.shutdown_background();
    ExitCode::from(exit)
}

/// Prints what clap says, which may be help; the envelope was asked for where `--json` stands among the arguments.
fn refuse(error: &clap::Error) -> u8 {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked_for && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let mut line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        for tip in text.lines().filter_map(|line| line.trim_start().strip_prefix("tip: ")) {
            line += &format!("; {tip}");
        }
        let failure = Failure::Usage(line);
        return output::print_blocking(&Envelope::of_failure(&failure).line(), exit::USAGE);
    }
    match error.print() {
        Ok(()) if asked_for => exit::OK,
        Ok(()) => exit::USAGE,
        Err(_) => exit::LOCAL,
    }
}

async fn run_line(line: &[OsString]) -> u8 {
    match Options::read(line) {
        Ok(options) => run(options).await,
        Err(error) => match lenient::read(line, error) {
            Ok(mut partly) => run_explained(line, &mut partly).await,
            Err(error) => refuse(&error),
        },
    }
}

/// Runs a line that holds flags which only the server knows.
async fn run_explained(line: &[OsString], partly: &mut Partly) -> u8 {
    match flags::explain(line, partly).await {
        Ok(Explained::Options(options)) => run(*options).await,
        Ok(Explained::Help(answer)) => report(&partly.options, &Ok(*answer)).await,
        Ok(Explained::Wrong(error)) => refuse(&error),
        Err(failure) => report(&partly.options, &Err(failure)).await,
    }
}

async fn run(mut options: Options) -> u8 {
    if let Verb::Completion(completion) = &options.verb {
        return completion.print();
    }
    let ready = options.find_servers().and_then(|()| options.open_record());
    match ready {
        Ok(()) => told_of_records(&options, run_checked(&options).await),
        Err(failure) => report(&options, &Err(failure)).await,
    }
}

/// Says which calls are missing in a recording, which is then no success.
fn told_of_records(options: &Options, exit: u8) -> u8 {
    let complaints = options.recorder.as_ref().map(Recorder::take_complaints).unwrap_or_default();
    complaints.iter().for_each(|line| output::note(Some(&format!("plug: {}", one_line(line)))));
    if exit == exit::OK && !complaints.is_empty() { exit::LOCAL } else { exit }
}

async fn run_checked(options: &Options) -> u8 {
    match Task::of(options) {
        Ok(Some(task)) => many::run(options, &task).await,
        Ok(None) => run_verb(options).await,
        Err(failure) => report(options, &Err(failure)).await,
    }
}

async fn run_verb(options: &Options) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(source) => return output::complain(&Failure::io("cannot listen for signals", source)),
    };
    let result = answer(options, &mut signals).await;
    // A reader of stdout that has stopped reading must not keep the program from ending.
    tokio::select! {
        exit = report(options, &result) => exit,
        signal = signals.next() => exit::of_signal(signal),
    }
}

/// Runs the verb, and leaves no call running when that fails or is interrupted.
async fn answer(options: &Options, signals: &mut Signals) -> Result<Answer, Failure> {
    options.check()?;
    let mut session = tokio::select! {
        session = Session::connect(options, options.server()?) => session?,
        signal = signals.next() => return Err(Failure::Signal(signal)),
    };
    let result = tokio::select! {
        result = session.run(&options.verb) => result,
        signal = signals.next() => Err(Failure::Signal(signal)),
    };
    let leftovers = session.leftovers();
    session.close().await;
    if result.is_err() {
        let lines = if options.verb.tells_events() { leftovers.events() } else { leftovers.lines() };
        lines.iter().for_each(|line| output::note(Some(line)));
    }
    result
}

async fn report(options: &Options, result: &Result<Answer, Failure>) -> u8 {
    let exit = match result {
        Ok(Answer { failure: Some(failure), .. }) => exit::of_failure(failure),
        Ok(answer) => answer.exit,
        Err(failure) => exit::of_failure(failure),
    };
    let printed = match result {
        // Its lines are out, and they are the answer.
        Ok(Answer { is_printed: true, .. }) => Ok(()),
        _ if options.json => Output::stdout().print(&Envelope::of(result).line()).await,
        Ok(answer) => Output::stdout().print(answer.text.as_bytes()).await,
        Err(_) => Ok(()),
    };
    if let Err(failure) = printed {
        output::complain(&failure);
        return if exit == exit::OK { exit::LOCAL } else { exit };
    }
    if let Ok(answer) = result {
        output::note(answer.note.as_deref());
    }
    match result {
        Err(failure) if options.verb.tells_events() => output::complain_to_programs(failure),
        Ok(Answer { failure: Some(failure), .. }) | Err(failure) if !options.json => drop(output::complain(failure)),
        _ => {}
    }
    exit
}
