//! Runs a task on each server, so many at once, and says how it went.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::Write;
use std::pin::pin;

use futures_util::{StreamExt, stream};

use super::exec::conversation::converse;
use super::exec::ending::{Codes, Ending, is_job};
use super::exec::show::{Form, Show, Streams};
use super::exec::{Command, Given, Task};
use super::exit;
use super::failure::Failure;
use super::options::Options;
use super::output;
use super::server::Server;
use super::session::Session;
use super::signals::Signals;
use super::terminal::RawMode;
use super::text::one_line;
use crate::{Data, PORT_DEFAULT, Reply, ServerAddress};

/// Runs the task to its end on every server, and returns the greatest of the exit codes.
pub(crate) async fn run(options: &Options, task: &Task<'_>) -> u8 {
    let begun = Signals::listen().map_err(|error| Failure::io("cannot listen for signals", error));
    match begun.and_then(|signals| Ok((signals, Run::new(options, task)?))) {
        Ok((signals, run)) => run.to_the_end(signals).await,
        Err(failure) => output::complain(&failure),
    }
}

struct Run<'o> {
    options: &'o Options,
    task: &'o Task<'o>,
    streams: Streams,
    report: Option<RefCell<File>>,
    /// The signal after which no other server is asked.
    stopped: Cell<Option<u8>>,
}

/// How it went on one server.
struct Verdict {
    exit: u8,
    line: String,
}

impl<'o> Run<'o> {
    fn new(options: &'o Options, task: &'o Task<'o>) -> Result<Run<'o>, Failure> {
        let create = |path: &std::path::Path| {
            let name = one_line(&path.to_string_lossy());
            File::create(path).map_err(|error| Failure::io(format!("cannot write {name}"), error))
        };
        let report = task.report.map(create).transpose()?.map(RefCell::new);
        Ok(Run { options, task, streams: Streams::open(), report, stopped: Cell::new(None) })
    }

    async fn to_the_end(&self, mut signals: Signals) -> u8 {
        let servers = stream::iter(&self.options.reached).map(|server| self.on(server));
        let mut servers = pin!(servers.buffer_unordered(self.task.parallel));
        let mut results = Vec::with_capacity(self.options.reached.len());
        loop {
            tokio::select! {
                result = servers.next() => match result {
                    Some(result) => results.push(result),
                    None => break,
                },
                // Those that run hear it themselves.
                signal = signals.next() => self.stopped.set(Some(signal)),
            }
        }
        if self.is_several() {
            output::note(Some(&summary(&results)));
        }
        results.iter().map(|result| result.exit).max().unwrap_or(exit::OK)
    }

    fn is_several(&self) -> bool {
        self.options.reached.len() > 1
    }

    async fn on(&self, server: &Server) -> Verdict {
        let name = server.label.clone().unwrap_or_else(|| short(server.address()));
        let mut show = Show::new(&self.streams, self.task.form, self.task.asked, name.clone(), self.is_several());
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                let exit = output::complain(&Failure::io("cannot listen for signals", error));
                return Verdict { exit, line: format!("{name}: local") };
            }
        };
        let result = self.attempt(server, &mut show, &mut signals).await;
        let ending = Ending::of(self.task.codes, &result);
        let mut exit = ending.exit;
        // A reader of stdout that has stopped reading must not keep the program from ending.
        if !matches!(result, Err(Failure::Signal(_) | Failure::StdoutClosed)) {
            let shown = tokio::select! {
                shown = show.end(&ending, &result) => shown,
                signal = signals.next() => Err(Failure::Signal(signal)),
            };
            if let Err(failure) = shown {
                let code = output::complain(&failure);
                exit = if exit == exit::OK { code } else { exit };
            }
        }
        self.report(server.address(), &ending);
        let line = line(&ending, &result);
        if !self.is_several() {
            self.say(&ending, &result, line.as_deref());
        }
        Verdict { exit, line: format!("{name}: {}", line.as_deref().unwrap_or(ending.word)) }
    }

    async fn attempt(&self, server: &Server, show: &mut Show<'_>, signals: &mut Signals) -> Result<Reply, Failure> {
        if let Some(signal) = self.stopped.get() {
            return Err(Failure::Signal(signal));
        }
        let mut session = tokio::select! {
            session = Session::connect(self.options, server) => session?,
            signal = signals.next() => return Err(Failure::Signal(signal)),
        };
        let result = session.limit().keep(self.call(&mut session, show, signals)).await;
        session.close().await;
        result
    }

    async fn call(
        &self,
        session: &mut Session<'_>,
        show: &mut Show<'_>,
        signals: &mut Signals,
    ) -> Result<Reply, Failure> {
        let command = match self.task.command {
            Command::Named(command) => command.to_owned(),
            Command::Operation(operation) => tokio::select! {
                command = session.command(operation) => command?,
                signal = signals.next() => return Err(Failure::Signal(signal)),
            },
        };
        let input = self.task.given.open().await?;
        let raw = (self.task.given == Given::Keys).then(RawMode::enter).transpose()?;
        let mut call = session.open(&command, self.task.args.clone()).await?;
        let reply = converse(&mut call, input, show, signals).await;
        drop(raw);
        let reply = reply?;
        let is_told = reply.trailer.as_ref().is_some_and(|trailer| trailer.contains_key("exit"))
            || (self.task.is_detached && is_job(&reply));
        if self.task.codes == Codes::Exec && reply.status.is_ok() && !is_told {
            return Err(Failure::protocol(format!("{command} ended without an exit code")));
        }
        if self.task.is_detached && matches!(self.task.form, Form::Plain | Form::Lines | Form::Grouped) {
            show.data(Data::main(job(&reply)?)).await?;
        }
        Ok(reply)
    }

    /// Adds a line to the report; one that cannot be written is complained of.
    fn report(&self, server: &ServerAddress, ending: &Ending) {
        let Some(report) = &self.report else { return };
        let mut object = ending.object.clone();
        object.insert("server".to_owned(), server.to_string().into());
        let line = serde_json::Value::Object(object).to_string() + "\n";
        if let Err(error) = report.borrow_mut().write_all(line.as_bytes()) {
            output::complain(&Failure::io("cannot write the report", error));
        }
    }

    /// Says on stderr what people should know of the only server's answer.
    fn say(&self, ending: &Ending, result: &Result<Reply, Failure>, line: Option<&str>) {
        if self.task.form == Form::Collected {
            return;
        }
        if let Ok(reply) = result {
            dropped(reply).iter().for_each(|line| output::note(Some(line)));
            if self.task.is_detached {
                output::note(Some(
                    "plug: it runs until it ends, or the server does; see plug logs -f, attach and kill",
                ));
            }
        }
        if let Some(line) = line.filter(|_| !ending.is_own) {
            output::note(Some(&format!("plug: {line}")));
        }
    }
}

/// What happened, in words for people.
fn line(ending: &Ending, result: &Result<Reply, Failure>) -> Option<String> {
    match result {
        Ok(reply) if ending.is_own && !reply.status.is_ok() => Some(one_line(reply.status.message())),
        Ok(_) if ending.is_own => Some(ending.word.to_owned()),
        Ok(reply) => Some(one_line(&reply.status.to_string())),
        Err(failure) => failure.line(),
    }
}

fn job(reply: &Reply) -> Result<String, Failure> {
    let job = reply.head.as_ref().and_then(|head| head.get("job")).and_then(serde_json::Value::as_str);
    let job = job.ok_or_else(|| Failure::protocol("exec told no job"))?;
    Ok(format!("{}\n", one_line(job)))
}

/// Says which variables of the environment the server did not take.
fn dropped(reply: &Reply) -> Option<String> {
    let names = reply.trailer.as_ref()?.get("dropped_env")?.as_array()?;
    let names: Vec<String> = names.iter().filter_map(|name| Some(one_line(name.as_str()?))).collect();
    (!names.is_empty()).then(|| format!("plug: variables that the server does not allow: {}", names.join(", ")))
}

fn summary(results: &[Verdict]) -> String {
    let ok = results.iter().filter(|result| result.exit == exit::OK).count();
    let mut text = format!("plug: {} servers, {ok} ok, {} failed", results.len(), results.len() - ok);
    for result in results.iter().filter(|result| result.exit != exit::OK) {
        text += &format!("\nplug: {}", result.line);
    }
    text
}

/// The name that stands before a server's lines.
fn short(server: &ServerAddress) -> String {
    match server {
        ServerAddress::Tcp { host, port } if *port == PORT_DEFAULT => host.clone(),
        server => server.to_string().trim_start_matches("tcp://").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_goes_by_its_short_name() {
        for (address, name) in [("a", "a"), ("a:7584", "a"), ("tcp://a:1", "a:1"), ("unix:/x", "unix:/x")] {
            assert_eq!(short(&address.parse().expect("an address")), name);
        }
    }

    #[test]
    fn a_summary_names_what_failed() {
        let result = |exit, line: &str| Verdict { exit, line: line.to_owned() };
        let text = summary(&[result(0, "a: exited"), result(3, "b: cannot connect to tcp://b:7584")]);
        assert_eq!(text, "plug: 2 servers, 1 ok, 1 failed\nplug: b: cannot connect to tcp://b:7584");
    }
}
