//! The arguments of one operation, each with its flag, as the server describes them.

use std::collections::HashSet;

use serde_json::Value;

use super::kind::{Kind, without_null};
use crate::cli::text::one_line;

/// The most flags that an operation may have; a description comes from outside.
const FLAGS_MAX: usize = 256;

/// How deep members of objects have flags of their own; what is deeper is given as JSON.
const DEPTH_MAX: usize = 4;

/// An argument, or a member of one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Argument {
    /// The argument's name, and those of the members on the way.
    pub(crate) path: Vec<String>,
    /// The flag without its dashes; `None` where the name is one of plug's own, or no flag at all.
    pub(crate) flag: Option<String>,
    /// The flag that says no, of a boolean.
    pub(crate) no_flag: Option<String>,
    pub(crate) kind: Kind,
    /// What the value is for, in one line.
    pub(crate) description: String,
    pub(crate) default: Option<Value>,
    pub(crate) is_required: bool,
}

impl Argument {
    /// The name with dots, as it is written before `=`.
    pub(crate) fn name(&self) -> String {
        self.path.join(".")
    }

    /// What tells the flag's values from those of others.
    pub(crate) fn id(&self) -> String {
        format!("argument:{}", self.name())
    }

    /// The same for the flag that says no.
    pub(crate) fn no_id(&self) -> String {
        format!("no-argument:{}", self.name())
    }
}

/// Reads the arguments that a JSON Schema describes, in its order, the members of an object behind the object.
///
/// `taken` holds the flags that mean something else already.
pub(crate) fn arguments(schema: &Value, taken: &HashSet<String>) -> Vec<Argument> {
    let mut found = Vec::new();
    collect(schema, &[], true, &mut found);
    name_flags(&mut found, taken);
    found
}

fn collect(schema: &Value, above: &[String], is_surely: bool, found: &mut Vec<Argument>) {
    let Some(members) = schema["properties"].as_object() else { return };
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
    for (name, member) in members {
        if found.len() == FLAGS_MAX {
            return;
        }
        let path = [above, std::slice::from_ref(name)].concat();
        let kind = Kind::of(member);
        let is_required = is_surely && required(name);
        let below = (kind == Kind::Object && path.len() < DEPTH_MAX).then(|| without_null(member));
        let text = |schema: &Value| schema["description"].as_str().map(|text| one_line(&text.replace('\n', " ")));
        found.push(Argument {
            flag: None,
            no_flag: None,
            kind,
            description: text(member).or_else(|| text(without_null(member))).unwrap_or_default(),
            default: member.get("default").filter(|default| !default.is_null()).cloned(),
            is_required,
            path: path.clone(),
        });
        if let Some(below) = below {
            collect(below, &path, is_required, found);
        }
    }
}

/// An argument's own name goes before the `no-` of another one.
fn name_flags(arguments: &mut [Argument], taken: &HashSet<String>) {
    let mut taken = taken.clone();
    for argument in arguments.iter_mut() {
        let flag = flag_of(&argument.path);
        argument.flag = Some(flag).filter(|flag| is_flag(flag) && taken.insert(flag.clone()));
    }
    for argument in arguments.iter_mut().filter(|argument| argument.kind == Kind::Boolean) {
        let no = argument.flag.as_ref().map(|flag| no_flag_of(flag));
        argument.no_flag = no.filter(|flag| taken.insert(flag.clone()));
    }
}

/// Words are joined by `-` in flags, and members by dots.
fn flag_of(path: &[String]) -> String {
    path.join(".").replace('_', "-")
}

/// The `no-` stands before the member that it is about.
fn no_flag_of(flag: &str) -> String {
    match flag.rsplit_once('.') {
        Some((above, name)) => format!("{above}.no-{name}"),
        None => format!("no-{flag}"),
    }
}

fn is_flag(name: &str) -> bool {
    let is_fit = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    name.starts_with(|letter: char| letter.is_ascii_alphanumeric()) && name.chars().all(is_fit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flags(schema: Value, taken: &[&str]) -> Vec<(String, Option<String>, Option<String>)> {
        let taken = taken.iter().map(|name| (*name).to_owned()).collect();
        let facts = |argument: Argument| (argument.name(), argument.flag, argument.no_flag);
        arguments(&schema, &taken).into_iter().map(facts).collect()
    }

    fn row(name: &str, flag: Option<&str>, no_flag: Option<&str>) -> (String, Option<String>, Option<String>) {
        (name.to_owned(), flag.map(str::to_owned), no_flag.map(str::to_owned))
    }

    #[test]
    fn members_have_dotted_flags_and_booleans_two() {
        let schema = json!({"properties": {
            "if_match": {"type": "string"},
            "pty": {"anyOf": [{"type": "object", "properties": {"rows": {"type": "integer"}, "echo": {"type": "boolean"}}},
                              {"type": "null"}]},
            "deep": {"type": "boolean"},
        }});
        assert_eq!(
            flags(schema, &[]),
            [
                row("deep", Some("deep"), Some("no-deep")),
                row("if_match", Some("if-match"), None),
                row("pty", Some("pty"), None),
                row("pty.echo", Some("pty.echo"), Some("pty.no-echo")),
                row("pty.rows", Some("pty.rows"), None),
            ]
        );
    }

    #[test]
    fn names_that_mean_something_else_have_no_flag() {
        let schema = json!({"properties": {
            "data": {"type": "string"}, "a b": {"type": "string"}, "-x": {}, "on": {"type": "boolean"}, "no-on": {}
        }});
        assert_eq!(
            flags(schema, &["data"]),
            [
                row("-x", None, None),
                row("a b", None, None),
                row("data", None, None),
                row("no-on", Some("no-on"), None),
                row("on", Some("on"), None),
            ]
        );
    }

    #[test]
    fn a_description_without_end_has_an_end() {
        let members: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("m{n}"), json!({}))).collect();
        assert_eq!(arguments(&json!({"properties": members}), &HashSet::new()).len(), FLAGS_MAX);
        let mut schema = json!({"type": "string"});
        for _ in 0..50 {
            schema = json!({"type": "object", "properties": {"a": schema}});
        }
        assert_eq!(arguments(&schema, &HashSet::new()).len(), DEPTH_MAX);
    }

    #[test]
    fn a_member_is_required_only_where_its_object_is() {
        let inner = json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]});
        let schema = json!({"properties": {"x": inner, "y": inner}, "required": ["x"]});
        let required: Vec<String> =
            arguments(&schema, &HashSet::new()).iter().filter(|a| a.is_required).map(Argument::name).collect();
        assert_eq!(required, ["x", "x.a"]);
    }
}
