//! Finds the keys in a JSON value that its schema does not know.

use serde_json::Value;

use crate::did_you_mean;

/// A key that stands in a value but not in its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// Where it stands, from the value's root: keys, and indices of arrays in decimal.
    pub path: Vec<String>,
    /// What may stand there instead, sorted.
    pub allowed: Vec<String>,
}

impl UnknownKey {
    /// The key itself.
    pub fn key(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// What to do about it, as the end of a message: the nearest key, and every allowed one.
    pub fn remedy(&self) -> String {
        let hint = did_you_mean(self.key(), self.allowed.iter().map(String::as_str));
        match self.allowed.as_slice() {
            [] => format!("{hint}; nothing is allowed here"),
            allowed => format!("{hint}; allowed: {}", allowed.join(", ")),
        }
    }
}

/// Lists every key of `value`, at any depth, that `schema` does not name.
///
/// An object whose schema declares no properties, or allows additional ones, accepts any key. The schema holds its
/// parts inline; a `$ref` is taken to allow everything.
pub fn unknown_keys(schema: &Value, value: &Value) -> Vec<UnknownKey> {
    let mut found = Vec::new();
    collect(schema, value, &mut Vec::new(), &mut found);
    found
}

/// Lists the paths at which `schema` asks for an object and `value` has something else.
pub(crate) fn misplaced_values(schema: &Value, value: &Value) -> Vec<Vec<String>> {
    let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
    let Value::Object(members) = value else {
        return if is_object { vec![Vec::new()] } else { Vec::new() };
    };
    let mut found = Vec::new();
    for (key, member) in members {
        if let Some(Member::Known(schema)) = member_schema(schema, key) {
            let below = misplaced_values(schema, member);
            found.extend(below.into_iter().map(|path| [vec![key.clone()], path].concat()));
        }
    }
    found
}

fn collect(schema: &Value, value: &Value, path: &mut Vec<String>, found: &mut Vec<UnknownKey>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                path.push(key.clone());
                match member_schema(schema, key) {
                    Some(Member::Known(schema)) => collect(schema, member, path, found),
                    Some(Member::Anything) => {}
                    None => found.push(UnknownKey { path: path.clone(), allowed: property_names(schema) }),
                }
                path.pop();
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                collect(schema, item, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

enum Member<'a> {
    Known(&'a Value),
    Anything,
}

fn member_schema<'a>(schema: &'a Value, key: &str) -> Option<Member<'a>> {
    if let Some(known) = schema.get("properties").and_then(|properties| properties.get(key)) {
        return Some(Member::Known(known));
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(false)) => None,
        Some(Value::Object(_)) => schema.get("additionalProperties").map(Member::Known),
        Some(_) => Some(Member::Anything),
        // Without the word JSON Schema allows any key. A struct of ours means what it names and no more, whereas
        // alternatives (`anyOf`, `$ref`) are left to serde, which knows which of them was chosen.
        None if schema.get("type").and_then(Value::as_str) == Some("object") => None,
        None => Some(Member::Anything),
    }
}

fn property_names(schema: &Value) -> Vec<String> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut names: Vec<String> = properties.into_iter().flat_map(|properties| properties.keys().cloned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "root": { "type": "string" },
                "limits": { "type": "object", "properties": { "rate": { "type": "string" } } },
                "any": { "type": "object", "additionalProperties": { "type": "string" } },
                "list": { "type": "array", "items": { "type": "object", "properties": { "name": {} } } }
            }
        })
    }

    #[test]
    fn every_unknown_key_is_found_at_every_depth() {
        let value =
            json!({ "rot": 1, "limits": { "rat": 2 }, "any": { "x": "y" }, "list": [{ "name": 1 }, { "nam": 2 }] });
        let paths: Vec<String> = unknown_keys(&schema(), &value).iter().map(|key| key.path.join(".")).collect();
        assert_eq!(paths, ["limits.rat", "list.1.nam", "rot"]);
    }

    #[test]
    fn the_remedy_names_the_nearest_key_and_all_of_them() {
        let found = unknown_keys(&schema(), &json!({ "rot": 1 }));
        assert_eq!(found[0].remedy(), "; did you mean \"root\"?; allowed: any, limits, list, root");
    }

    #[test]
    fn a_schema_without_properties_allows_nothing() {
        let found = unknown_keys(&json!({ "type": "object" }), &json!({ "x": 1 }));
        assert_eq!(found[0].remedy(), "; nothing is allowed here");
    }
}
