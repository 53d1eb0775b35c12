//! `plug stat` and `plug digest`: what is known about a file.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::digest::Algorithm;
use super::facts::Facts;
use super::name::Name;
use super::options::{Digest, ProgressMode, Stat};
use super::progress::Progress;
use super::remote::{Remote, parse};
use super::show;
use crate::cli::answer::Answer;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::text::{columns, one_line};

#[derive(Debug, Serialize)]
struct StatArgs<'a> {
    path: &'a Name,
    follow: bool,
}

#[derive(Debug, Serialize)]
struct DigestArgs<'a> {
    path: &'a Name,
    algorithm: Algorithm,
}

/// The answer of `digest`.
#[derive(Debug, Deserialize)]
struct Digested {
    digest: String,
}

pub(crate) async fn run(session: &mut Session<'_>, options: &Stat) -> Result<Answer, Failure> {
    let remote = Remote::of(session, "stat", 0, &Progress::new(ProgressMode::None, false)).await?;
    let path = Name::from(options.path.as_os_str());
    let reply = remote.call("stat", &StatArgs { path: &path, follow: !options.no_follow }).await?;
    let facts: Facts = parse(&reply.bytes(), "stat")?;
    let data: Value = parse(&reply.bytes(), "stat")?;
    let text = text(&path, &facts, &data);
    Ok(Answer::of_json(reply, data, text))
}

fn text(path: &Name, facts: &Facts, data: &Value) -> String {
    let mut rows = vec![
        ["name".to_owned(), path.to_string()],
        ["kind".to_owned(), one_line(data["kind"].as_str().unwrap_or("?"))],
        ["size".to_owned(), facts.size.to_string()],
        ["modified".to_owned(), modified(facts)],
        ["mode".to_owned(), format!("{:04o}  {}", facts.mode, show::mode(facts))],
    ];
    if let Some(etag) = &facts.etag {
        rows.push(["etag".to_owned(), one_line(etag)]);
    }
    if let Some(target) = &facts.target {
        rows.push(["target".to_owned(), target.to_string()]);
    }
    columns(&rows, [false, false])
}

/// With its nanoseconds, where there are any.
fn modified(facts: &Facts) -> String {
    let seconds = show::time(facts);
    match (facts.mtime_ns, seconds.strip_suffix('Z')) {
        (0, _) | (_, None) => seconds,
        (nanoseconds, Some(seconds)) => format!("{seconds}.{nanoseconds:09}Z"),
    }
}

/// Prints a line for each file, as md5sum does.
pub(crate) async fn digest(session: &mut Session<'_>, options: &Digest) -> Result<Answer, Failure> {
    let remote = Remote::of(session, "digest", 0, &Progress::new(ProgressMode::None, false)).await?;
    let (mut text, mut list, mut last) = (String::new(), Vec::new(), None);
    for path in &options.paths {
        let path = Name::from(path.as_os_str());
        let reply = remote.call("digest", &DigestArgs { path: &path, algorithm: options.digest }).await?;
        let Digested { digest } = parse(&reply.bytes(), "digest")?;
        let hex = digest.split_once(':').map_or(&*digest, |(_, hex)| hex);
        text.push_str(&format!("{}  {path}\n", one_line(hex)));
        list.push(parse::<Value>(&reply.bytes(), "digest")?);
        last = Some(reply);
    }
    let data = if list.len() == 1 { list.remove(0) } else { json!(list) };
    Ok(Answer::of_json(last.unwrap_or_default(), data, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_has_its_line() {
        let data = json!({"kind": "file", "mtime_s": 0, "mtime_ns": 5, "size": 3, "mode": 0o640, "etag": "e"});
        let facts = serde_json::from_value(data.clone()).expect("facts");
        let expected = "name      a\\nb\nkind      file\nsize      3\nmodified  1970-01-01T00:00:00.000000005Z\n\
                        mode      0640  -rw-r-----\netag      e\n";
        assert_eq!(text(&"a\nb".into(), &facts, &data), expected);
    }
}
