//! Makes arguments up from a JSON Schema: what it allows, and what it just does not.

use serde_json::{Map, Number, Value, json};

/// How deep arrays and objects are made up.
const DEPTH_MAX: usize = 4;

/// Texts that handlers like to trip over. None of them is the name of a program or leads out of a directory that exists.
const TEXTS: [&str; 12] =
    ["", "a", "-", "--help-not", "..", "/", "a/b", "\0", "\n\u{1b}[0m", "é\u{202e}x", "%s{0}$(x)`y`", "no such thing"];

/// A source of choices that is the same in every run.
#[derive(Debug)]
pub(super) struct Choices(u64);

impl Choices {
    pub(super) fn new(seed: u64) -> Choices {
        Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        // xorshift64: enough to reach every branch.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end.max(1)
    }

    fn one_of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }
}

/// A value that fits the schema as far as its types go, its numbers and lengths on both sides of their bounds.
pub(super) fn value(schema: &Value, choices: &mut Choices, depth: usize) -> Value {
    for word in ["anyOf", "oneOf"] {
        if let Some(Value::Array(alternatives)) = schema.get(word)
            && !alternatives.is_empty()
        {
            return value(choices.one_of(alternatives), choices, depth);
        }
    }
    if let Some(Value::Array(allowed)) = schema.get("enum") {
        return choices.one_of(allowed).clone();
    }
    if let Some(only) = schema.get("const") {
        return only.clone();
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) if !kinds.is_empty() => choices.one_of(kinds).as_str(),
        Some(Value::String(kind)) => Some(kind.as_str()),
        _ => None,
    };
    match kind {
        Some("object") => object(schema, choices, depth),
        Some("array") => array(schema, choices, depth),
        Some("integer") => number(schema, choices, true),
        Some("number") => number(schema, choices, false),
        Some("boolean") => Value::Bool(choices.below(2) == 0),
        Some("string") => text(schema, choices),
        Some(_) => Value::Null,
        None => {
            choices.one_of(&[json!(null), json!(true), json!(-1), json!(1.5), json!("a"), json!([]), json!({})]).clone()
        }
    }
}

fn object(schema: &Value, choices: &mut Choices, depth: usize) -> Value {
    let mut members = Map::new();
    if depth >= DEPTH_MAX {
        return Value::Object(members);
    }
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(Value::Object(properties)) = schema.get("properties") {
        for (name, schema) in properties {
            if required.contains(&name.as_str()) || choices.below(2) == 0 {
                members.insert(name.clone(), value(schema, choices, depth + 1));
            }
        }
    }
    if let Some(schema @ Value::Object(_)) = schema.get("additionalProperties") {
        for _ in 0..choices.below(3) {
            members.insert((*choices.one_of(&TEXTS)).to_owned(), value(schema, choices, depth + 1));
        }
    }
    Value::Object(members)
}

fn array(schema: &Value, choices: &mut Choices, depth: usize) -> Value {
    let len = if depth >= DEPTH_MAX { 0 } else { choices.below(4) };
    let anything = Value::Bool(true);
    let items = schema.get("items").unwrap_or(&anything);
    Value::Array((0..len).map(|_| value(items, choices, depth + 1)).collect())
}

fn number(schema: &Value, choices: &mut Choices, is_integer: bool) -> Value {
    let bound = |word: &str| schema.get(word).and_then(Value::as_i64);
    let mut numbers: Vec<i64> = vec![0, 1, -1, 1 << 31, i64::MAX, i64::MIN];
    for bound in [bound("minimum"), bound("maximum")].into_iter().flatten() {
        numbers.extend([bound.saturating_sub(1), bound, bound.saturating_add(1)]);
    }
    let number = *choices.one_of(&numbers);
    match is_integer {
        true => number.into(),
        false => Number::from_f64(number as f64 / 3.0).map_or(Value::Null, Value::Number),
    }
}

fn text(schema: &Value, choices: &mut Choices) -> Value {
    let len_max = schema.get("maxLength").and_then(Value::as_u64).unwrap_or(300).min(5000) as usize;
    match choices.below(4) {
        0 => "x".repeat(len_max).into(),
        1 => "x".repeat(len_max + 1).into(),
        _ => (*choices.one_of(&TEXTS)).into(),
    }
}
