//! The command line of `plug bench`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::cli::arguments;
use crate::cli::failure::Failure;

/// The longest payload, in bytes: requests lie ready in memory.
const SIZE_MAX: u64 = 64 << 20;

/// The most connections: more than a machine has ports for one address.
const CONNECTIONS_MAX: i64 = 1_000_000;

/// The most requests in flight on a connection: their times are held in memory.
const PIPELINE_MAX: i64 = 65_536;

/// The most threads: more than one is for servers with many processors.
const THREADS_MAX: i64 = 256;

pub(crate) const AFTER_HELP: &str = "\
Examples:
  plug bench echo -c 50 -p 16 --stream         # messages in one open call for each connection
  plug bench upper -c 50 -p 16                 # whole calls on kept connections
  plug bench echo -c 16 --fresh -n 10000       # connect, call, close
  plug bench echo -c 10000 --idle -d 60s       # connections that only wait, each asked before and after
  plug bench echo -c 8 --rate 5000             # latency at a rate, waiting in line included
  plug bench files.stat path=a.txt --size 0 --json

Latency is from when a request was begun, or with --rate from when it was due, to when its answer
was whole; waiting for room to write it counts. Of the requests that were begun when the time is
over, those that were written at least in part are waited for, and the others dropped.

An answer may keep a connection waiting for 10s, and may take 5min if it comes bit by bit; with
--timeout it may take that long, whatever comes.

Every answer is compared. The exit code is that of what went wrong most, 0 when nothing did.";

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// PLUGIN.OPERATION, or PLUGIN when it has just one operation
    pub(crate) command: String,
    /// Arguments: KEY=TEXT, or KEY:=JSON for numbers, lists and the like
    #[arg(value_name = "KEY=TEXT|KEY:=JSON")]
    pub(crate) words: Vec<String>,
    /// Arguments as one JSON object
    #[arg(long, value_name = "JSON")]
    pub(crate) args: Option<String>,
    /// Connections at once
    #[arg(short, long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub(crate) connections: u32,
    /// Requests in flight on each connection
    #[arg(short, long, value_name = "COUNT", default_value_t = 1, conflicts_with_all = ["fresh", "idle"],
          value_parser = clap::value_parser!(u32).range(1..=PIPELINE_MAX))]
    pub(crate) pipeline: u32,
    /// How many requests to make, instead of for how long
    #[arg(short = 'n', long = "requests", value_name = "COUNT", conflicts_with_all = ["duration", "idle"],
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) requests: Option<u64>,
    /// For how long to make requests, or to hold idle connections
    #[arg(short, long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// The payload of each request, in bytes; 0 is none
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=SIZE_MAX))]
    pub(crate) size: u64,
    /// Send messages in one open call for each connection, instead of calls
    #[arg(long, conflicts_with_all = ["fresh", "idle"])]
    pub(crate) stream: bool,
    /// Make a connection for each call
    #[arg(long, conflicts_with = "idle")]
    pub(crate) fresh: bool,
    /// Hold connections, and make a call on each before and after
    #[arg(long, conflicts_with = "rate")]
    pub(crate) idle: bool,
    /// Requests per second, over all connections; as many as the server answers when absent
    #[arg(long, value_name = "PER-SECOND", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    /// What an answer must be
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Expect::First)]
    pub(crate) expect: Expect,
    /// Threads that make the load
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=THREADS_MAX))]
    pub(crate) threads: u32,
}

/// What an answer must be, on the main channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Expect {
    /// What a first call, before the others, was answered
    First,
    /// What was sent
    Same,
    /// Anything, as long as the call ends well
    Any,
}

impl Bench {
    pub(crate) fn arguments(&self) -> Result<Map<String, Value>, Failure> {
        arguments::merge(self.args.as_deref(), &Map::new(), &self.words).map_err(Failure::Usage)
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(1) || duration > plugd_core::wire::DEADLINE_MAX {
        return Err("out of range; allowed: 1ms to 30days".to_owned());
    }
    Ok(duration)
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("allowed: a number from 0.001 to 1000000000".to_owned()),
    }
}
