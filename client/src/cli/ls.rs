//! `plug ls`: what is in a directory.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Deserializer, Map, Value, json};

use super::answer::Answer;
use super::failure::Failure;
use super::options::Ls;
use super::session::Session;
use super::text::{columns, one_line};

/// The end of the year 9999, in milliseconds since 1970; later times have no RFC 3339 form.
const TIME_MAX_MS: u64 = 253_402_300_799_999;

pub(crate) async fn run(session: &mut Session<'_>, options: &Ls) -> Result<Answer, Failure> {
    let command = session.command("ls").await?;
    let arguments = options.path.iter().map(|path| ("path".to_owned(), json!(path))).collect::<Map<_, _>>();
    let reply = session.call(&command, arguments).await?;
    let entries = parse(&reply.bytes())?;
    let text = table(&entries);
    Ok(Answer::of_json(reply, Value::Array(entries), text))
}

fn parse(bytes: &[u8]) -> Result<Vec<Value>, Failure> {
    let entries: Result<Vec<Value>, _> = Deserializer::from_slice(bytes).into_iter().collect();
    entries.map_err(|error| Failure::protocol(format!("answer of ls is malformed: {error}")))
}

fn table(entries: &[Value]) -> String {
    let rows: Vec<[String; 3]> = entries.iter().map(row).collect();
    columns(&rows, [true, false, false])
}

fn row(entry: &Value) -> [String; 3] {
    let name = one_line(entry["name"].as_str().unwrap_or("?"));
    let is_directory = entry["kind"].as_str().is_some_and(|kind| kind.starts_with("dir"));
    let size = entry["size"].as_u64().filter(|_| !is_directory).map_or("-".to_owned(), |size| size.to_string());
    let slash = if is_directory { "/" } else { "" };
    [size, time(&entry["mtime_ms"]), format!("{name}{slash}")]
}

/// A time in UTC, to the second.
pub(crate) fn time(mtime_ms: &Value) -> String {
    match mtime_ms.as_u64().filter(|ms| *ms <= TIME_MAX_MS) {
        Some(ms) => humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string(),
        None => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_in_columns_and_names_cannot_steer_the_terminal() {
        let lines = "{\"name\":\"a\\u001b\",\"kind\":\"file\",\"size\":12,\"mtime_ms\":0}\n\
                     {\"name\":\"d\",\"kind\":\"dir\",\"size\":4096,\"mtime_ms\":1700000000123}\n";
        let entries = parse(lines.as_bytes()).expect("two entries");
        assert_eq!(table(&entries), "12  1970-01-01T00:00:00Z  a\\u{1b}\n -  2023-11-14T22:13:20Z  d/\n");
    }

    #[test]
    fn times_without_a_form_are_left_out() {
        assert_eq!(time(&json!(u64::MAX)), "-");
        assert_eq!(time(&json!(TIME_MAX_MS)), "9999-12-31T23:59:59Z");
        assert_eq!(time(&json!(-1)), "-");
    }
}
