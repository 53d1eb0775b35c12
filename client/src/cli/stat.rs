//! `plug stat`: what is known about a file.

use serde_json::{Map, Value, json};

use super::answer::Answer;
use super::directory;
use super::failure::Failure;
use super::ls;
use super::options::Stat;
use super::session::Session;
use super::text::{columns, one_line};

pub(crate) async fn run(session: &mut Session<'_>, options: &Stat) -> Result<Answer, Failure> {
    let command = session.command("stat").await?;
    let reply = session.call(&command, Map::from_iter([("path".to_owned(), json!(options.path))])).await?;
    let data = directory::json(&reply, "stat")?;
    let text = text(&data);
    Ok(Answer::of_json(reply, data, text))
}

fn text(data: &Value) -> String {
    let Some(members) = data.as_object() else {
        return format!("{}\n", one_line(&data.to_string()));
    };
    let row = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        ("mtime_ms", time) => ["modified".to_owned(), ls::time(time)],
        (name, Value::String(text)) => [one_line(name), one_line(text)],
        (name, value) => [one_line(name), one_line(&value.to_string())],
    };
    columns(&members.iter().map(row).collect::<Vec<_>>(), [false, false])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_has_its_line() {
        let data = json!({"kind": "file", "mtime_ms": 0, "name": "a\nb", "size": 3});
        assert_eq!(text(&data), "kind      file\nmodified  1970-01-01T00:00:00Z\nname      a\\nb\nsize      3\n");
    }
}
