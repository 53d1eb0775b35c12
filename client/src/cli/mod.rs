//! The program `plug`, as a library so that other packages can build it too.
//!
//! Each verb has a module that makes its calls and returns an `Answer` or a `Failure`; only this module prints those and
//! chooses the exit code. Verbs that run commands are `Task`s, which `many` runs on each server and whose output is shown as
//! it comes.

mod answer;
mod arguments;
mod bench;
mod call;
mod describe;
mod directory;
mod envelope;
mod exec;
mod exit;
mod failure;
mod files;
mod jobs;
mod list;
mod many;
mod options;
mod output;
mod ping;
mod session;
mod signals;
mod stream;
mod terminal;
mod text;

use std::process::ExitCode;

use clap::error::ErrorKind;

use answer::Answer;
use envelope::Envelope;
use exec::Task;
use failure::Failure;
use options::Options;
use output::Output;
use session::Session;
use signals::Signals;

/// Runs the program `plug` on the arguments of this process.
pub fn main() -> ExitCode {
    let options = match Options::read(std::env::args_os()) {
        Ok(options) => options,
        Err(error) => return ExitCode::from(refuse(&error)),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return ExitCode::from(output::complain(&Failure::io("cannot start", source))),
    };
    let exit = runtime.block_on(run(&options));
    // A thread may be blocked in reading a terminal; the program ends without it.
    runtime.shutdown_background();
    ExitCode::from(exit)
}

/// Prints what clap says, which may be help; the envelope was asked for where `--json` stands among the arguments.
fn refuse(error: &clap::Error) -> u8 {
    let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked_for && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let failure = Failure::Usage(line.to_owned());
        return output::print_blocking(&Envelope::of_failure(&failure).line(), exit::USAGE);
    }
    match error.print() {
        Ok(()) if asked_for => exit::OK,
        Ok(()) => exit::USAGE,
        Err(_) => exit::LOCAL,
    }
}

async fn run(options: &Options) -> u8 {
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
        session = Session::connect(options, &options.server) => session?,
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
