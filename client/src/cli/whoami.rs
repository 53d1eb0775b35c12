//! `plug whoami`: who this caller is to the server.

use serde_json::{Map, Value};

use super::answer::Answer;
use super::failure::Failure;
use super::session::Session;
use super::text::{columns, one_line};

pub(crate) async fn run(session: &mut Session<'_>) -> Result<Answer, Failure> {
    let reply = session.call("plugd.whoami", Map::new()).await?;
    let Some(caller) = reply.trailer.clone() else {
        return Err(Failure::protocol("answer of plugd.whoami has no trailer"));
    };
    let text = text(&caller);
    Ok(Answer::of_json(reply, Value::Object(caller), text))
}

/// What is known of the caller, a line each.
fn text(caller: &Map<String, Value>) -> String {
    let rows: Vec<[String; 2]> =
        caller.iter().filter_map(|(key, value)| Some([one_line(key), shown(value)?])).collect();
    columns(&rows, [false; 2])
}

/// A fact in words; `None` where there is none.
fn shown(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Array(values) if values.is_empty() => return None,
        Value::Array(values) => values.iter().filter_map(shown).collect::<Vec<_>>().join(", "),
        value => value.to_string(),
    };
    Some(one_line(&text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_has_no_line() {
        let caller = json!({"peer": "127.0.0.1:5", "uid": null, "certificate_names": ["a", "b\n"], "token": "ci"});
        let caller = caller.as_object().expect("an object");
        assert_eq!(text(caller), "certificate_names  a, b\\n\npeer               127.0.0.1:5\ntoken              ci\n");
        assert_eq!(text(json!({"certificate_names": []}).as_object().expect("an object")), "");
    }
}
