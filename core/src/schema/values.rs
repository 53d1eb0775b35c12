//! Finds the values that a schema does not allow: of another type, out of range, too short or too long, none of the
//! choices, or missing.

use serde_json::{Number, Value};

use super::units::words_of_format;
use crate::did_you_mean;

/// The most wrong values that are looked for: nobody reads more, and a header can hold thousands.
const FOUND_MAX: usize = 50;

/// The longest text of a found value that a message repeats, in characters.
const SHOWN_MAX: usize = 40;

/// A value that stands where its schema allows others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongValue {
    /// Where it stands, from the root: keys, and indices of arrays in decimal.
    pub(crate) path: Vec<String>,
    /// What was found and what is allowed.
    pub(crate) message: String,
    /// Whether nothing stands there at all.
    pub(crate) is_missing: bool,
}

/// Lists the values, at any depth, that `schema` does not allow, at most [`FOUND_MAX`].
///
/// It refuses nothing that a reader may take, but for a list in place of an object, which serde would read by position. A
/// `null` in place of what need not be there is left alone, and so is whatever has a `$ref`, and a text that says a number or
/// a boolean, as every argument of a command line is a text at first. Unknown keys are not its business.
pub(crate) fn wrong_values(schema: &Value, value: &Value) -> Vec<WrongValue> {
    let mut found = Vec::new();
    check(schema, value, &mut Vec::new(), &mut found);
    found.truncate(FOUND_MAX);
    found
}

fn check(schema: &Value, value: &Value, path: &mut Vec<String>, found: &mut Vec<WrongValue>) {
    if found.len() >= FOUND_MAX {
        return;
    }
    let alternatives = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array());
    match alternatives {
        Some(alternatives) => check_alternatives(schema, alternatives, value, path, found),
        None if !is_allowed(schema, value) => found.push(wrong(schema, value, path)),
        None => check_parts(schema, value, path, found),
    }
}

/// One alternative has to hold. With one that could hold, its own complaints say more than a list of all.
fn check_alternatives(
    schema: &Value,
    alternatives: &[Value],
    value: &Value,
    path: &mut Vec<String>,
    found: &mut Vec<WrongValue>,
) {
    let mut complaints = alternatives.iter().map(|alternative| {
        let mut found = Vec::new();
        check(alternative, value, path, &mut found);
        (alternative, found)
    });
    let mut of_its_type = None;
    loop {
        match complaints.next() {
            Some((_, complaints)) if complaints.is_empty() => return,
            Some((alternative, complaints)) if has_type(alternative, value) && of_its_type.is_none() => {
                of_its_type = Some(complaints);
            }
            Some(_) => {}
            None => break,
        }
    }
    drop(complaints);
    // A list of choices is one answer, not one after the other.
    match of_its_type.filter(|_| choices(schema).is_none()) {
        Some(complaints) => found.extend(complaints),
        None => found.push(wrong(schema, value, path)),
    }
}

fn check_parts(schema: &Value, value: &Value, path: &mut Vec<String>, found: &mut Vec<WrongValue>) {
    match value {
        Value::Object(members) => {
            for name in required(schema).filter(|name| !members.contains_key(*name)) {
                let path = path.iter().cloned().chain([name.to_owned()]).collect();
                let allowed = schema["properties"].get(name).map_or("a value".to_owned(), allowed_values);
                found.push(WrongValue { path, message: format!("missing; allowed: {allowed}"), is_missing: true });
            }
            for (name, member) in members {
                let known = schema.get("properties").and_then(|properties| properties.get(name));
                let Some(below) = known.or(schema.get("additionalProperties")) else { continue };
                if member.is_null() && !required(schema).any(|required| required == name) {
                    continue;
                }
                path.push(name.clone());
                check(below, member, path, found);
                path.pop();
            }
        }
        Value::Array(items) => {
            let Some(below) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                check(below, item, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Whether a value is allowed but for its parts.
fn is_allowed(schema: &Value, value: &Value) -> bool {
    has_type(schema, value) && is_chosen(schema, value) && is_within(schema, value)
}

fn has_type(schema: &Value, value: &Value) -> bool {
    match schema.get("type") {
        Some(Value::String(name)) => is_of_type(value, name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(|name| is_of_type(value, name)),
        _ => true,
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean() || matches!(value.as_str(), Some("true" | "false")),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => number_of(value).is_some(),
        "integer" => {
            let is_whole = |number: Number| number.as_f64().is_some_and(|number| number.fract() == 0.0);
            number_of(value).is_some_and(|number| number.is_i64() || number.is_u64() || is_whole(number))
        }
        // A type of a later JSON Schema.
        _ => true,
    }
}

/// A number, also one that a text says.
fn number_of(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => Some(number.clone()),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn is_chosen(schema: &Value, value: &Value) -> bool {
    let is_listed = schema.get("enum").and_then(Value::as_array).is_none_or(|choices| choices.contains(value));
    is_listed && schema.get("const").is_none_or(|only| only == value)
}

fn is_within(schema: &Value, value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let bound = |key: &str| schema.get(key).and_then(Value::as_number);
            bound("minimum").is_none_or(|least| !is_less(number, least))
                && bound("maximum").is_none_or(|most| !is_less(most, number))
                && bound("exclusiveMinimum").is_none_or(|least| is_less(least, number))
                && bound("exclusiveMaximum").is_none_or(|most| is_less(number, most))
        }
        // JSON Schema counts characters, not bytes.
        Value::String(text) => has_length(schema, "minLength", "maxLength", || text.chars().count()),
        Value::Array(items) => has_length(schema, "minItems", "maxItems", || items.len()),
        Value::Object(members) => has_length(schema, "minProperties", "maxProperties", || members.len()),
        _ => true,
    }
}

fn has_length(schema: &Value, least: &str, most: &str, len: impl Fn() -> usize) -> bool {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    bound(least).is_none_or(|least| len() as u64 >= least) && bound(most).is_none_or(|most| len() as u64 <= most)
}

/// Compares as integers where both are some, since a float would round them.
fn is_less(a: &Number, b: &Number) -> bool {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a < b,
        _ => a.as_f64() < b.as_f64(),
    }
}

fn wrong(schema: &Value, value: &Value, path: &[String]) -> WrongValue {
    let choices = choices(schema).unwrap_or_default();
    let hint = match value.as_str() {
        Some(text) => did_you_mean(text, choices.iter().filter_map(Value::as_str)),
        None => String::new(),
    };
    WrongValue {
        is_missing: false,
        path: path.to_owned(),
        message: format!("{}{hint}; allowed: {}", shown(schema, value), allowed_values(schema)),
    }
}

/// The value as the message repeats it: not when it is long, has parts, or is secret.
fn shown(schema: &Value, value: &Value) -> String {
    let is_secret = ["writeOnly", "x-secret"].iter().any(|key| schema.get(*key) == Some(&Value::Bool(true)));
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::String(text) if is_secret => format!("a text of {} characters", text.chars().count()),
        _ if is_secret => "another value".to_owned(),
        Value::String(text) if text.chars().count() > SHOWN_MAX => {
            format!("{:?}... of {} characters", text.chars().take(SHOWN_MAX).collect::<String>(), text.chars().count())
        }
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

/// The values of a schema that has no others.
fn choices(schema: &Value) -> Option<Vec<Value>> {
    if let Some(only) = schema.get("const") {
        return Some(vec![only.clone()]);
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        return Some(choices.clone());
    }
    let alternatives = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array())?;
    let alternatives = alternatives.iter().filter(|alternative| !is_null(alternative));
    alternatives.map(choices).collect::<Option<Vec<_>>>().map(|found| found.concat())
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

/// What a JSON Schema allows, in words for people, such as `an integer, 1 to 100`.
pub fn allowed_values(schema: &Value) -> String {
    if let Some(choices) = choices(schema).filter(|choices| !choices.is_empty()) {
        let texts = choices.iter().filter(|choice| !choice.is_null()).map(Value::to_string);
        return texts.collect::<Vec<_>>().join(", ");
    }
    if let Some(alternatives) = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array()) {
        let texts = alternatives.iter().filter(|alternative| !is_null(alternative)).map(allowed_values);
        return texts.collect::<Vec<_>>().join(", or ");
    }
    if let Some(words) = schema.get("format").and_then(Value::as_str).and_then(words_of_format) {
        return words.to_owned();
    }
    let names = match schema.get("type") {
        Some(Value::String(name)) => vec![name.as_str()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => return "any value".to_owned(),
    };
    let texts = names.iter().map(|name| match *name {
        "integer" | "number" => format!("{}{}", article(name), range(schema)),
        "string" => format!("a string{}", length(schema, "minLength", "maxLength", "characters")),
        "array" => format!("a list{}", length(schema, "minItems", "maxItems", "elements")),
        "boolean" => "true, false".to_owned(),
        name => article(name),
    });
    texts.collect::<Vec<_>>().join(", or ")
}

fn article(name: &str) -> String {
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {name}")
}

fn range(schema: &Value) -> String {
    if let (Some(least), Some(most)) = (schema.get("minimum"), schema.get("maximum")) {
        return format!(", {least} to {most}");
    }
    let words = [
        ("minimum", "at least"),
        ("exclusiveMinimum", "more than"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "less than"),
    ];
    words.iter().filter_map(|(key, words)| Some(format!(", {words} {}", schema.get(*key)?))).collect()
}

fn length(schema: &Value, least: &str, most: &str, of: &str) -> String {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    let of = if bound(most).or(bound(least)) == Some(1) { of.strip_suffix('s').unwrap_or(of) } else { of };
    match (bound(least), bound(most)) {
        (Some(least), Some(most)) => format!(" of {least} to {most} {of}"),
        (Some(least), None) => format!(" of at least {least} {of}"),
        (None, Some(most)) => format!(" of at most {most} {of}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn complaints(schema: &Value, value: &Value) -> Vec<String> {
        wrong_values(schema, value)
            .into_iter()
            .map(|wrong| format!("{}: {}", wrong.path.join("."), wrong.message))
            .collect()
    }

    #[rstest]
    #[case::type_of_value(json!({"type": "integer"}), json!("x"), "\"x\"; allowed: an integer")]
    #[case::fraction(json!({"type": "integer"}), json!(1.5), "1.5; allowed: an integer")]
    #[case::below(json!({"type": "integer", "minimum": 1, "maximum": 9}), json!(0), "0; allowed: an integer, 1 to 9")]
    #[case::above(json!({"type": "number", "maximum": 0.5}), json!(0.75), "0.75; allowed: a number, at most 0.5")]
    #[case::exclusive(json!({"type": "number", "exclusiveMinimum": 0}), json!(0), "0; allowed: a number, more than 0")]
    #[case::beyond_floats(json!({"maximum": u64::MAX - 1}), json!(u64::MAX), "18446744073709551615; allowed: any value")]
    #[case::short(json!({"type": "string", "minLength": 1}), json!(""), "\"\"; allowed: a string of at least 1 character")]
    #[case::long(json!({"type": "string", "maxLength": 3}), json!("Grüße"), "\"Grüße\"; allowed: a string of at most 3 characters")]
    #[case::few(json!({"type": ["array", "null"], "minItems": 1}), json!([]), "a list of 0; allowed: a list of at least 1 element")]
    #[case::choice(json!({"enum": ["asc", "desc"]}), json!("descc"), "\"descc\"; did you mean \"desc\"?; allowed: \"asc\", \"desc\"")]
    #[case::described_choice(
        json!({"oneOf": [{"type": "string", "const": "a"}, {"type": "string", "const": "b"}]}), json!("weather"), "\"weather\"; allowed: \"a\", \"b\""
    )]
    #[case::alternatives(json!({"anyOf": [{"type": "string"}, {"type": "boolean"}]}), json!(1), "1; allowed: a string, or true, false")]
    #[case::optional(json!({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}), json!(0), "0; allowed: an integer, at least 1")]
    #[case::secret(json!({"type": "string", "writeOnly": true, "minLength": 9}), json!("s3cret"), "a text of 6 characters; allowed: a string of at least 9 characters")]
    #[case::marked_secret(json!({"type": "integer", "x-secret": true}), json!("s3cret"), "a text of 6 characters; allowed: an integer")]
    fn what_is_wrong_is_found_and_what_is_allowed_said(
        #[case] schema: Value,
        #[case] value: Value,
        #[case] message: &str,
    ) {
        assert_eq!(complaints(&schema, &value), [format!(": {message}")]);
    }

    #[test]
    fn every_wrong_value_is_found_at_every_depth() {
        let schema = json!({
            "type": "object",
            "properties": {
                "to": { "type": "string" },
                "list": { "type": "array", "items": { "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] } },
                "map": { "type": "object", "additionalProperties": { "type": "boolean" } }
            },
            "required": ["to"]
        });
        let value = json!({ "list": [{ "n": 1 }, { "n": "two" }, {}], "map": { "a": true, "b": 1 } });
        let expected = [
            "to: missing; allowed: a string",
            "list.1.n: \"two\"; allowed: an integer",
            "list.2.n: missing; allowed: an integer",
            "map.b: 1; allowed: true, false",
        ];
        assert_eq!(complaints(&schema, &value), expected);
        assert_eq!(complaints(&schema, &json!([])), [": a list of 0; allowed: an object"]);
    }

    #[rstest]
    #[case::null_for_what_need_not_be_there(json!({"properties": {"a": {"type": "string"}}}), json!({"a": null}))]
    #[case::text_of_a_number(json!({"type": "integer"}), json!("2"))]
    #[case::text_of_a_boolean(json!({"type": "boolean"}), json!("true"))]
    #[case::whole_float(json!({"type": "integer"}), json!(2.0))]
    #[case::reference(json!({"$ref": "#/$defs/x"}), json!([1]))]
    #[case::anything(json!(true), json!([1]))]
    #[case::one_alternative(json!({"anyOf": [{"type": "string"}, {"type": "object"}]}), json!({}))]
    #[case::unknown_key(json!({"type": "object", "properties": {}}), json!({"x": 1}))]
    fn what_may_be_right_is_left_alone(#[case] schema: Value, #[case] value: Value) {
        assert_eq!(complaints(&schema, &value), Vec::<String>::new());
    }

    #[test]
    fn no_more_is_found_than_anybody_reads() {
        let schema = json!({"type": "array", "items": {"type": "integer"}});
        assert_eq!(wrong_values(&schema, &json!(vec!["x"; 10_000])).len(), FOUND_MAX);
    }

    /// Arguments of every kind that handlers have.
    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    #[serde(default)]
    #[derive(Default)]
    #[allow(dead_code, reason = "only whether they are read is looked at")]
    struct Args {
        text: String,
        count: u8,
        ratio: f32,
        flag: Option<bool>,
        mode: Mode,
        list: Vec<Option<i16>>,
        map: std::collections::BTreeMap<String, u32>,
        nested: Option<Nested>,
        either: Either,
        #[schemars(with = "crate::schema::ByteSize")]
        size: bytesize::ByteSize,
    }

    #[derive(Debug, Default, serde::Deserialize, schemars::JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[schemars(inline)]
    enum Mode {
        #[default]
        Fast,
        Careful,
    }

    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    #[schemars(inline)]
    #[allow(dead_code, reason = "only whether they are read is looked at")]
    struct Nested {
        needed: i64,
    }

    #[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
    #[serde(untagged)]
    #[schemars(inline)]
    #[allow(dead_code, reason = "only whether they are read is looked at")]
    enum Either {
        Number(u16),
        Texts(Vec<String>),
    }

    impl Default for Either {
        fn default() -> Either {
            Either::Number(0)
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-300i64..300).prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            proptest::sample::select(vec!["fast", "careful", "true", "7", "1KiB", ""]).prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 12, 4, |inner| {
            let name = proptest::sample::select(vec!["needed", "a", "b"]).prop_map(str::to_owned);
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(name, inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_is_refused_that_serde_reads(
            name in proptest::sample::select(
                vec!["text", "count", "ratio", "flag", "mode", "list", "map", "nested", "either", "size"]
            ),
            value in any_value(),
        ) {
            prop_assume!(!(name == "nested" && value.is_array()));
            let args = json!({ name: value });
            let schema = schemars::generate::SchemaSettings::default()
                .with(|settings| settings.inline_subschemas = true)
                .into_generator()
                .into_root_schema_for::<Args>();
            if serde_json::from_value::<Args>(args.clone()).is_ok() {
                prop_assert_eq!(complaints(schema.as_value(), &args), Vec::<String>::new());
            }
        }
    }
}
