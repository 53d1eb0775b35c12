//! What a flag takes: read from a part of a JSON Schema, and from the words that people give.

use serde_json::{Map, Number, Value};

use crate::cli::text::one_line;

/// What a flag takes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Text,
    Integer(Range),
    Number(Range),
    /// Two flags, one for each value.
    Boolean,
    /// One of these texts.
    Choice(Vec<String>),
    /// Given once for each element.
    List(Box<Kind>),
    /// Given once for each entry, as `NAME=VALUE`, or as a JSON object.
    Map(Box<Kind>),
    /// A JSON object; its members have flags of their own.
    Object,
    /// Anything: what is JSON is taken as that where these types allow it, the rest is text where that is allowed.
    Json(Types),
}

/// From where to where a number may go, both ends included.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Range {
    least: Option<Number>,
    most: Option<Number>,
}

/// The types of JSON values; empty means all.
pub(crate) type Types = Vec<String>;

impl Kind {
    /// Reads the part of a schema that describes one value; the null that stands for absence is left out.
    pub(crate) fn of(schema: &Value) -> Kind {
        let schema = without_null(schema);
        if let Some(texts) = choices(schema) {
            return Kind::Choice(texts);
        }
        match types(schema).as_slice() {
            [] => Kind::Json(Vec::new()),
            [one] => Kind::of_type(one, schema),
            several => Kind::Json(several.to_vec()),
        }
    }

    fn of_type(name: &str, schema: &Value) -> Kind {
        let range = || {
            let bound = |key: &str| schema[key].as_number().cloned();
            Range { least: bound("minimum"), most: bound("maximum") }
        };
        match name {
            "string" => Kind::Text,
            "integer" => Kind::Integer(range()),
            "number" => Kind::Number(range()),
            "boolean" => Kind::Boolean,
            "array" => Kind::List(Box::new(Kind::of(&schema["items"]))),
            "object" if schema["properties"].as_object().is_some_and(|members| !members.is_empty()) => Kind::Object,
            "object" => Kind::Map(Box::new(Kind::of(&schema["additionalProperties"]))),
            name => Kind::Json(vec![name.to_owned()]),
        }
    }

    /// What stands for the value in help and in errors.
    pub(crate) fn placeholder(&self) -> &'static str {
        match self {
            Kind::Text => "TEXT",
            Kind::Integer(_) => "INTEGER",
            Kind::Number(_) => "NUMBER",
            Kind::Boolean => "BOOLEAN",
            Kind::Choice(_) => "CHOICE",
            Kind::List(element) => element.placeholder(),
            Kind::Map(_) => "NAME=VALUE",
            Kind::Json(types) if takes_text(types) => "TEXT|JSON",
            Kind::Object | Kind::Json(_) => "JSON",
        }
    }

    /// The type in words, with what is allowed.
    pub(crate) fn words(&self) -> String {
        match self {
            Kind::Text => "text".to_owned(),
            Kind::Integer(range) => format!("integer{}", range.words()),
            Kind::Number(range) => format!("number{}", range.words()),
            Kind::Boolean => "boolean".to_owned(),
            Kind::Choice(texts) => one_line(&texts.join(" | ")),
            Kind::List(element) => format!("list of {}", element.words()),
            Kind::Map(value) => format!("map to {}", value.words()),
            Kind::Object => "object".to_owned(),
            Kind::Json(types) if types.is_empty() => "anything".to_owned(),
            Kind::Json(types) => {
                let words = |name: &String| if name == "string" { "text".to_owned() } else { name.clone() };
                one_line(&types.iter().map(words).collect::<Vec<_>>().join(" or "))
            }
        }
    }

    /// Whether the flag is given once for each element or entry.
    pub(crate) fn is_repeated(&self) -> bool {
        matches!(self, Kind::List(_) | Kind::Map(_))
    }

    /// What is allowed of one word: for a list an element of it, for a map an entry.
    pub(crate) fn parse(&self, text: &str) -> Result<Value, String> {
        let wrong = || Err(format!("allowed: {}", self.allowed()));
        match self {
            Kind::Text => Ok(text.into()),
            Kind::Boolean => match text {
                "true" => Ok(true.into()),
                "false" => Ok(false.into()),
                _ => wrong(),
            },
            Kind::Integer(range) => match text.parse::<Number>() {
                Ok(number) if (number.is_i64() || number.is_u64()) && range.holds(&number) => Ok(number.into()),
                _ => wrong(),
            },
            Kind::Number(range) => match text.parse::<Number>() {
                Ok(number) if range.holds(&number) => Ok(number.into()),
                _ => wrong(),
            },
            Kind::Choice(texts) if texts.iter().any(|allowed| allowed == text) => Ok(text.into()),
            Kind::Choice(_) => wrong(),
            Kind::List(element) => element.parse(text),
            Kind::Map(value) => match text.split_once('=') {
                _ if text.starts_with('{') => object(text).map(Value::Object),
                Some((name, text)) if !name.is_empty() => {
                    Ok(Value::Object(Map::from_iter([(name.to_owned(), value.parse(text)?)])))
                }
                _ => wrong(),
            },
            Kind::Object => object(text).map(Value::Object),
            Kind::Json(types) => match serde_json::from_str::<Value>(text) {
                Ok(value) if types.is_empty() || types.iter().any(|name| is_of(&value, name)) => Ok(value),
                _ if takes_text(types) => Ok(text.into()),
                _ => wrong(),
            },
        }
    }

    fn allowed(&self) -> String {
        match self {
            Kind::Boolean => "true, false".to_owned(),
            Kind::Choice(texts) => one_line(&texts.join(", ")),
            Kind::Map(_) => "NAME=VALUE, or a JSON object".to_owned(),
            kind => kind.words(),
        }
    }
}

impl Range {
    fn holds(&self, number: &Number) -> bool {
        let is_below = |bound: &Number| less(number, bound);
        let is_above = |bound: &Number| less(bound, number);
        !self.least.as_ref().is_some_and(is_below) && !self.most.as_ref().is_some_and(is_above)
    }

    fn words(&self) -> String {
        // Bounds that only name the width of a machine's number say nothing to people.
        let most = self.most.as_ref().filter(|most| most.as_u64().is_none_or(|most| most < 1 << 32));
        match (&self.least, most) {
            (Some(least), Some(most)) => format!(", {least} to {most}"),
            (Some(least), None) => format!(", at least {least}"),
            (None, Some(most)) => format!(", at most {most}"),
            (None, None) => String::new(),
        }
    }
}

/// Compares as integers where both are some, since a float would round them.
fn less(a: &Number, b: &Number) -> bool {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a < b,
        _ => a.as_f64() < b.as_f64(),
    }
}

fn takes_text(types: &Types) -> bool {
    types.is_empty() || types.iter().any(|name| name == "string")
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("allowed: a JSON object".to_owned()),
        Err(error) => Err(format!("no JSON object: {error}")),
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// The schema of what is there, where the whole one also allows null.
pub(crate) fn without_null(schema: &Value) -> &Value {
    let alternatives = ["anyOf", "oneOf"].iter().find_map(|key| schema[*key].as_array());
    let Some(alternatives) = alternatives else { return schema };
    let mut others = alternatives.iter().filter(|schema| schema["type"] != "null");
    match (others.next(), others.next()) {
        (Some(only), None) => only,
        _ => schema,
    }
}

/// The texts that are allowed, where nothing else is.
fn choices(schema: &Value) -> Option<Vec<String>> {
    let texts = texts(schema)?;
    // They are shown on terminals.
    let is_plain = |text: &String| !text.is_empty() && !text.chars().any(char::is_control);
    (!texts.is_empty() && texts.iter().all(is_plain)).then_some(texts)
}

fn texts(schema: &Value) -> Option<Vec<String>> {
    if let Some(text) = schema["const"].as_str() {
        return Some(vec![text.to_owned()]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().filter(|value| !value.is_null()).map(|value| Some(value.as_str()?.to_owned())).collect();
    }
    let alternatives = ["oneOf", "anyOf"].iter().find_map(|key| schema[*key].as_array())?;
    let alternatives = alternatives.iter().filter(|schema| schema["type"] != "null");
    let found: Option<Vec<Vec<String>>> = alternatives.map(texts).collect();
    found.map(|found| found.concat())
}

/// The types that are allowed but for null; empty when anything is, or nobody can tell.
fn types(schema: &Value) -> Types {
    let mut names: Types = match &schema["type"] {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => {
            let alternatives = ["anyOf", "oneOf"].iter().find_map(|key| schema[*key].as_array());
            let alternatives = alternatives.into_iter().flatten().filter(|schema| schema["type"] != "null");
            let alternatives: Vec<Types> = alternatives.map(types).collect();
            if alternatives.iter().any(Vec::is_empty) { Vec::new() } else { alternatives.concat() }
        }
    };
    names.retain(|name| name != "null");
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"type": "string"}), "text")]
    #[case(json!({"type": ["string", "null"]}), "text")]
    #[case(json!({"anyOf": [{"type": "string"}, {"type": "null"}]}), "text")]
    #[case(json!({"type": "integer", "minimum": 1, "maximum": 10}), "integer, 1 to 10")]
    #[case(json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}), "integer, at least 0")]
    #[case(json!({"type": "number", "maximum": 0.5}), "number, at most 0.5")]
    #[case(json!({"type": "string", "enum": ["a", "b", null]}), "a | b")]
    #[case(json!({"oneOf": [{"const": "a"}, {"enum": ["b"]}, {"type": "null"}]}), "a | b")]
    #[case(json!({"type": "array", "items": {"type": "boolean"}}), "list of boolean")]
    #[case(json!({"type": "object", "additionalProperties": {"type": "string"}}), "map to text")]
    #[case(json!({"type": "object", "properties": {"a": {}}}), "object")]
    #[case(json!({"anyOf": [{"type": "string"}, {"type": "integer"}]}), "text or integer")]
    #[case(json!(true), "anything")]
    #[case(json!({"$ref": "#"}), "anything")]
    fn a_kind_is_told_in_words(#[case] schema: Value, #[case] words: &str) {
        assert_eq!(Kind::of(&schema).words(), words);
    }

    #[rstest]
    #[case(json!({"type": "string"}), "5", json!("5"))]
    #[case(json!({"type": "integer"}), "-5", json!(-5))]
    #[case(json!({"type": "integer", "maximum": u64::MAX}), "18446744073709551615", json!(u64::MAX))]
    #[case(json!({"type": "number"}), "1.5", json!(1.5))]
    #[case(json!({"enum": ["a", "b"]}), "b", json!("b"))]
    #[case(json!({"type": "array", "items": {"type": "integer"}}), "3", json!(3))]
    #[case(json!({"type": "object", "additionalProperties": {"type": "integer"}}), "a=3", json!({"a": 3}))]
    #[case(json!({"type": "object", "additionalProperties": {"type": "integer"}}), r#"{"a": 3}"#, json!({"a": 3}))]
    #[case(json!({"type": "object"}), "a=b=c", json!({"a": "b=c"}))]
    #[case(json!({"type": "object", "properties": {"a": {}}}), r#"{"a": 3}"#, json!({"a": 3}))]
    #[case(json!({"type": ["string", "integer"]}), "3", json!(3))]
    #[case(json!({"type": ["string", "integer"]}), "[3]", json!("[3]"))]
    #[case(json!({}), "[3]", json!([3]))]
    #[case(json!({}), "text", json!("text"))]
    fn words_become_values(#[case] schema: Value, #[case] text: &str, #[case] value: Value) {
        assert_eq!(Kind::of(&schema).parse(text), Ok(value));
    }

    #[rstest]
    #[case(json!({"type": "integer"}), "ten", "allowed: integer")]
    #[case(json!({"type": "integer"}), "1.5", "allowed: integer")]
    #[case(json!({"type": "integer", "minimum": 1, "maximum": 10}), "11", "allowed: integer, 1 to 10")]
    #[case(json!({"type": "integer", "minimum": 1, "maximum": 10}), "0", "allowed: integer, 1 to 10")]
    #[case(json!({"enum": ["a", "b"]}), "c", "allowed: a, b")]
    #[case(json!({"type": "array", "items": {"type": "boolean"}}), "yes", "allowed: true, false")]
    #[case(json!({"type": "object"}), "a", "allowed: NAME=VALUE, or a JSON object")]
    #[case(json!({"type": "object", "properties": {"a": {}}}), "[]", "allowed: a JSON object")]
    #[case(json!({"type": ["array", "integer"]}), "x", "allowed: array or integer")]
    fn what_is_not_allowed_is_told(#[case] schema: Value, #[case] text: &str, #[case] error: &str) {
        assert_eq!(Kind::of(&schema).parse(text), Err(error.to_owned()));
    }
}
