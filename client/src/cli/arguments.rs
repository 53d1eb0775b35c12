//! The arguments of `plug call`: words of the command line that become one JSON object.

use serde_json::{Map, Value};

/// Reads `key=text` and `key:=json` words, and adds them and what flags gave to the object that `--args` gave.
///
/// A dot in a key is an ordinary character. A key that comes twice is refused, wherever it comes from.
pub(crate) fn merge(
    object: Option<&str>,
    flags: &Map<String, Value>,
    words: &[String],
) -> Result<Map<String, Value>, String> {
    let mut arguments = object.map(parse_object).transpose()?.unwrap_or_default();
    let flags = flags.iter().map(|(key, value)| Ok((key.as_str(), value.clone())));
    for argument in flags.chain(words.iter().map(|word| parse_word(word))) {
        let (key, value) = argument?;
        if arguments.contains_key(key) {
            return Err(format!("argument \"{key}\" given twice"));
        }
        arguments.insert(key.to_owned(), value);
    }
    Ok(arguments)
}

fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(format!("--args takes a JSON object, found {text}")),
        Err(error) => Err(format!("--args takes a JSON object: {error}")),
    }
}

/// The first `=` ends the key, so that text after it may hold `:=`.
fn parse_word(word: &str) -> Result<(&str, Value), String> {
    let allowed = "allowed: KEY=TEXT, KEY:=JSON";
    let (key, text) = word.split_once('=').ok_or_else(|| format!("no key in argument \"{word}\"; {allowed}"))?;
    let (key, value) = match key.strip_suffix(':') {
        None => (key, Value::String(text.to_owned())),
        Some(key) => {
            let value = serde_json::from_str(text);
            (key, value.map_err(|error| format!("argument \"{key}\" is no JSON: {error}"))?)
        }
    };
    if key.is_empty() {
        return Err(format!("empty key in argument \"{word}\"; {allowed}"));
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn merged(object: Option<&str>, words: &[&str]) -> Result<Value, String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        merge(object, &Map::new(), &words).map(Value::Object)
    }

    #[rstest]
    #[case(&["a=1"], json!({"a": "1"}))]
    #[case(&["a:=1", "b:=[true]"], json!({"a": 1, "b": [true]}))]
    #[case(&["a="], json!({"a": ""}))]
    #[case(&["a=b=c", "d=e:=f"], json!({"a": "b=c", "d": "e:=f"}))]
    #[case(&["a.b=c"], json!({"a.b": "c"}))]
    fn words_become_members(#[case] words: &[&str], #[case] object: Value) {
        assert_eq!(merged(None, words), Ok(object));
    }

    #[test]
    fn words_join_the_object() {
        assert_eq!(merged(Some(r#"{"a": 1}"#), &["b=2"]), Ok(json!({"a": 1, "b": "2"})));
    }

    #[rstest]
    #[case(None, &["a=1", "a=2"], "argument \"a\" given twice")]
    #[case(Some(r#"{"a": 1}"#), &["a:=2"], "argument \"a\" given twice")]
    #[case(None, &["a"], "no key in argument \"a\"; allowed: KEY=TEXT, KEY:=JSON")]
    #[case(None, &["=a"], "empty key in argument \"=a\"; allowed: KEY=TEXT, KEY:=JSON")]
    #[case(None, &["a:=b"], "argument \"a\" is no JSON: expected value at line 1 column 1")]
    #[case(Some("[1]"), &[], "--args takes a JSON object, found [1]")]
    fn what_is_no_argument_is_refused(#[case] object: Option<&str>, #[case] words: &[&str], #[case] error: &str) {
        assert_eq!(merged(object, words), Err(error.to_owned()));
    }
}
