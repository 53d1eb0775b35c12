//! `plug jobs` and `plug kill`: commands that outlive the calls that started them.

use std::time::{Duration, UNIX_EPOCH};

use bytesize::ByteSize;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::exec::options::Kill;
use super::failure::Failure;
use super::session::Session;
use super::text::{columns, one_line};

/// What a server tells of a job. Keys that this program does not know are ignored.
#[derive(Debug, Deserialize)]
struct Job {
    id: String,
    #[serde(default)]
    argv: Vec<String>,
    #[serde(default)]
    started_s: u64,
    #[serde(default)]
    state: String,
    #[serde(default)]
    exit: Value,
    status_reason: Option<String>,
    /// How many bytes were printed, on both streams.
    output_end: Option<u64>,
}

pub(crate) async fn list(session: &mut Session<'_>) -> Result<Answer, Failure> {
    let command = session.command("jobs").await?;
    let reply = session.call(&command, Map::new()).await?;
    let malformed = |error| Failure::protocol(format!("answer of {command} is malformed: {error}"));
    let bytes = reply.bytes();
    let lines = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
    let values = lines.collect::<Result<Vec<Value>, _>>().map_err(malformed)?;
    let jobs = serde_json::from_value::<Vec<Job>>(json!(values)).map_err(malformed)?;
    Ok(Answer::of_json(reply, json!(values), table(&jobs)))
}

pub(crate) async fn kill(session: &mut Session<'_>, options: &Kill) -> Result<Answer, Failure> {
    let command = session.command("kill").await?;
    let mut args = Map::from_iter([("id".to_owned(), json!(options.id))]);
    if let Some(signal) = &options.signal {
        args.insert("signal".to_owned(), json!(signal));
    }
    Ok(Answer::of(session.call(&command, args).await?))
}

fn table(jobs: &[Job]) -> String {
    let mut rows = vec![["ID", "STATE", "STARTED", "OUTPUT", "COMMAND"].map(str::to_owned)];
    rows.extend(jobs.iter().map(|job| {
        [
            one_line(&job.id),
            one_line(&state(job)),
            started(job.started_s),
            job.output_end.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string()),
            one_line(&job.argv.join(" ")),
        ]
    }));
    columns(&rows, [false, false, false, true, false])
}

/// How a job is, or how it ended.
fn state(job: &Job) -> String {
    let reason = job.status_reason.as_deref().unwrap_or_default();
    match (job.exit["code"].as_u64(), job.exit["name"].as_str()) {
        _ if job.state == "running" => job.state.clone(),
        _ if !matches!(reason, "" | "command-failed" | "command-killed") => reason.to_owned(),
        (Some(code), _) => format!("exited {code}"),
        (None, Some(name)) => format!("killed {name}"),
        _ => job.state.clone(),
    }
}

fn started(seconds: u64) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) {
        // The year 9999 is the last that can be written so.
        Some(time) if seconds < 253_402_300_800 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_stand_in_columns() {
        let job = |value| serde_json::from_value::<Job>(value).expect("a job");
        let jobs = [
            job(json!({"id": "a1", "argv": ["make", "all"], "started_s": 0, "state": "running", "output_end": 12})),
            job(json!({"id": "b2", "argv": ["x\n"], "state": "ended", "exit": {"code": 3},
                       "status_reason": "command-failed"})),
            job(json!({"id": "c3", "state": "ended", "exit": {"signal": 9, "name": "SIGKILL"},
                       "status_reason": "output-max"})),
        ];
        let text = table(&jobs);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["a1", "running", "1970-01-01T00:00:00Z", "12", "B", "make", "all"]);
        assert_eq!(lines[2][..3], ["b2", "exited", "3"]);
        assert_eq!((lines[2].last(), lines[3][1]), (Some(&"x\\n"), "output-max"));
    }

    #[test]
    fn a_time_out_of_range_is_no_panic() {
        assert_eq!(started(u64::MAX), "-");
    }
}
