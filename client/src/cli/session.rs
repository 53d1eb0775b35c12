//! One connection for one run of the program.

use std::time::Duration;

use plugd_core::Origin;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;
use super::failure::Failure;
use super::files::{self, Leftovers};
use super::options::{Options, Verb};
use super::server::Server;
use super::{bench, call, describe, directory, jobs, list, ping, whoami};
use crate::{Client, ClientError, Exchange, Open, REPLY_LEN_MAX, Reply, Status};

/// How much longer than its deadline a call is waited for: the server's own word on it is worth more than ours.
pub(crate) const DEADLINE_SLACK: Duration = Duration::from_millis(500);

/// How long a call that was given up is waited for.
const ABANDON_PATIENCE: Duration = Duration::from_secs(1);

/// A connected client, and what the command line says about its calls.
#[derive(Debug)]
pub(crate) struct Session<'o> {
    /// Handed over to verbs that make connections of their own.
    client: Option<Client>,
    options: &'o Options,
    server: &'o Server,
    started: Instant,
    leftovers: Leftovers,
}

impl<'o> Session<'o> {
    pub(crate) async fn connect(options: &'o Options, server: &'o Server) -> Result<Session<'o>, Failure> {
        let connector = match options.verb {
            Verb::Files(_) => files::connector(server),
            _ => server.connector.clone(),
        };
        let mut client = connector.wait(server.wait.unwrap_or_default()).connect().await?;
        if let Some(recorder) = &options.recorder {
            client.record(recorder);
        }
        Ok(Session { client: Some(client), options, server, started: Instant::now(), leftovers: Leftovers::default() })
    }

    pub(crate) fn options(&self) -> &'o Options {
        self.options
    }

    pub(crate) fn server(&self) -> &'o Server {
        self.server
    }

    /// The time that a call may take.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.server.timeout
    }

    /// When the time that `--timeout` allows is over.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.server.timeout.map(|timeout| self.started + timeout)
    }

    /// Partial files that the verb has begun and not finished.
    pub(crate) fn leftovers(&self) -> Leftovers {
        self.leftovers.clone()
    }

    /// The connection, for a verb that makes others beside it.
    pub(crate) fn take_client(&mut self) -> Option<Client> {
        self.client.take()
    }

    /// Connects again where the connection is of no more use.
    pub(crate) async fn reconnect_if_closed(&mut self) -> Result<(), Failure> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let connector = files::connector(self.server);
            self.client = Some(files::connect(&connector, self.options.recorder.as_ref()).await?);
        }
        Ok(())
    }

    /// Runs the verb, for no longer than `--timeout` says.
    pub(crate) async fn run(&mut self, verb: &Verb) -> Result<Answer, Failure> {
        // A bench makes many calls, each of which has that time.
        if matches!(verb, Verb::Bench(_)) {
            return self.run_verb(verb).await;
        }
        self.limit().keep(self.run_verb(verb)).await
    }

    /// The time that `--timeout` allows.
    pub(crate) fn limit(&self) -> Limit {
        Limit { started: self.started, timeout: self.server.timeout }
    }

    async fn run_verb(&mut self, verb: &Verb) -> Result<Answer, Failure> {
        match verb {
            Verb::List => list::run(self).await,
            Verb::Describe(options) => describe::run(self, options).await,
            Verb::Ping => ping::run(self).await,
            Verb::Whoami => whoami::run(self).await,
            Verb::Call(options) => call::run(self, options).await,
            Verb::Files(verb) => files::run(self, verb).await,
            Verb::Jobs => jobs::list(self).await,
            Verb::Kill(options) => jobs::kill(self, options).await,
            // They run on each server, see `many`, or on none.
            Verb::Exec(_) | Verb::Sh(_) | Verb::Logs(_) | Verb::Attach(_) | Verb::Completion(_) => {
                Err(ClientError::Closed.into())
            }
            Verb::Bench(options) => bench::run(self, options).await,
        }
    }

    /// Opens a call.
    pub(crate) async fn open(&mut self, command: &str, args: Map<String, Value>) -> Result<Exchange<'_>, Failure> {
        let header = self.header(command, &args);
        let client = self.client.as_mut().ok_or(ClientError::Closed)?;
        Ok(client.open(&header).await?)
    }

    /// The opening header of a call, with the time that is left for it.
    pub(crate) fn header<'c>(&self, command: &'c str, args: &Map<String, Value>) -> Open<'c> {
        let mut open = Open::new(command);
        if !args.is_empty() {
            open.args = Some(serde_json::value::to_raw_value(args).expect("a JSON value always serialises"));
        }
        if let Some(timeout) = self.server.timeout {
            let left = timeout.saturating_sub(self.started.elapsed());
            // Rounded up, so that the server speaks of the time that was asked for.
            open.deadline_ms = Some(left.as_nanos().div_ceil(1_000_000) as u64);
        }
        open
    }

    /// Makes a call without input, and holds its answer.
    pub(crate) async fn call(&mut self, command: &str, args: Map<String, Value>) -> Result<Reply, Failure> {
        let mut exchange = self.open(command, args).await?;
        let (sender, receiver) = exchange.split();
        // When sending fails, receiving tells why.
        let _ = sender.finish().await;
        let reply = receiver.reply(REPLY_LEN_MAX).await?;
        if reply.status.is_ok() { Ok(reply) } else { Err(Failure::Status(Box::new(reply))) }
    }

    /// The command for `operation`: of the plugin that `--plugin` names, or else of the only one that offers it.
    pub(crate) async fn command(&mut self, operation: &str) -> Result<String, Failure> {
        Ok(format!("{}.{operation}", self.plugin_with(operation).await?))
    }

    /// The plugin that `--plugin` names, or else the only one that offers `operation`.
    pub(crate) async fn plugin_with(&mut self, operation: &str) -> Result<String, Failure> {
        match &self.options.plugin {
            Some(plugin) => Ok(plugin.clone()),
            None => directory::fetch(self).await?.1.only_plugin_with(operation),
        }
    }

    /// Drops the connection; a call that still runs is cancelled, or the connection reset.
    pub(crate) async fn close(self) {
        if let Some(client) = self.client {
            client.abandon(ABANDON_PATIENCE).await;
        }
    }
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    started: Instant,
    timeout: Option<Duration>,
}

impl Limit {
    /// Runs `future` for no longer than that.
    pub(crate) async fn keep<T>(self, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let Some(timeout) = self.timeout else {
            return future.await;
        };
        let until = self.started + timeout + DEADLINE_SLACK;
        timeout_at(until, future).await.unwrap_or_else(|_| Err(deadline_exceeded(timeout)))
    }
}

fn deadline_exceeded(timeout: Duration) -> Failure {
    let message = format!("no end within {}", humantime::format_duration(timeout));
    Failure::found(Status::deadline_exceeded("deadline", message).with_origin(Origin::Deadline))
}
