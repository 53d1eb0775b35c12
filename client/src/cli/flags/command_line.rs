//! The command line of `plug call` with the flags of one operation.

use std::collections::HashSet;
use std::ffi::OsString;

use clap::builder::{PossibleValuesParser, TypedValueParser, ValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory};
use serde_json::{Map, Value};

use super::argument::Argument;
use super::kind::Kind;
use crate::cli::failure::Failure;
use crate::cli::options::{Options, Verb};

/// The command line of plug, whose `call` knows these arguments.
pub(crate) fn command(arguments: &[Argument]) -> Command {
    let flags: Vec<Arg> = arguments.iter().flat_map(flags).collect();
    Options::command().mut_subcommand("call", |call| call.args(flags))
}

/// The flags of `plug call` that have a meaning whatever is called.
pub(crate) fn own_flags() -> HashSet<String> {
    let mut command = Options::command();
    command.build();
    let call = command.find_subcommand("call").expect("a verb of plug");
    let longs = call.get_arguments().flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default());
    longs.map(str::to_owned).collect()
}

fn flags(argument: &Argument) -> Vec<Arg> {
    let Some(flag) = &argument.flag else { return Vec::new() };
    let mut yes = Arg::new(argument.id()).long(flag.clone()).help(argument.description.clone());
    let name = argument.name();
    if name != *flag {
        yes = yes.alias(name);
    }
    if argument.kind == Kind::Boolean {
        let no = argument.no_flag.clone().map(|no| {
            let help = format!("The opposite of --{flag}");
            let no = Arg::new(argument.no_id()).long(no).help(help).action(ArgAction::SetTrue);
            no.conflicts_with(argument.id())
        });
        return [Some(yes.action(ArgAction::SetTrue)), no].into_iter().flatten().collect();
    }
    let yes = yes.value_name(argument.kind.placeholder()).value_parser(parser(&argument.kind));
    let yes = match &argument.kind {
        kind if kind.is_repeated() => yes.action(ArgAction::Append),
        _ => yes.action(ArgAction::Set),
    };
    vec![yes.allow_negative_numbers(is_number(&argument.kind))]
}

fn is_number(kind: &Kind) -> bool {
    match kind {
        Kind::Integer(_) | Kind::Number(_) => true,
        Kind::List(element) => is_number(element),
        _ => false,
    }
}

fn parser(kind: &Kind) -> ValueParser {
    match kind {
        Kind::Choice(texts) => PossibleValuesParser::new(texts.clone()).map(Value::String).into(),
        Kind::List(element) => parser(element),
        kind => {
            let kind = kind.clone();
            ValueParser::new(move |text: &str| kind.parse(text))
        }
    }
}

/// Reads the command line with the flags of these arguments.
///
/// # Errors
///
/// What clap has to say of it, or a value that comes twice.
pub(crate) fn read(line: &[OsString], arguments: &[Argument]) -> Result<Result<Options, Failure>, clap::Error> {
    let matches = command(arguments).try_get_matches_from(line)?;
    let mut options = Options::of_matches(&matches)?;
    let values = matches.subcommand_matches("call").map(|call| values(call, arguments));
    if let (Verb::Call(call), Some(values)) = (&mut options.verb, values) {
        match values {
            Ok(values) => call.flags = values,
            Err(text) => return Ok(Err(Failure::Usage(text))),
        }
    }
    Ok(Ok(options))
}

/// What the flags make of the arguments, as one object.
fn values(matches: &ArgMatches, arguments: &[Argument]) -> Result<Map<String, Value>, String> {
    let mut values = Map::new();
    for argument in arguments.iter().filter(|argument| argument.flag.is_some()) {
        if let Some(value) = value(matches, argument)? {
            put(&mut values, &argument.path, value).map_err(|()| twice(&argument.name()))?;
        }
    }
    Ok(values)
}

fn value(matches: &ArgMatches, argument: &Argument) -> Result<Option<Value>, String> {
    if argument.kind == Kind::Boolean {
        let is_no = argument.no_flag.is_some() && matches.get_flag(&argument.no_id());
        return Ok(match (matches.get_flag(&argument.id()), is_no) {
            (true, _) => Some(true.into()),
            (false, true) => Some(false.into()),
            (false, false) => None,
        });
    }
    let mut given = matches.get_many::<Value>(&argument.id()).into_iter().flatten().cloned().peekable();
    if given.peek().is_none() {
        return Ok(None);
    }
    match argument.kind {
        Kind::List(_) => Ok(Some(given.collect())),
        Kind::Map(_) => {
            let mut entries = Map::new();
            for (name, value) in given.filter_map(object).flatten() {
                if entries.insert(name.clone(), value).is_some() {
                    return Err(twice(&format!("{}.{name}", argument.name())));
                }
            }
            Ok(Some(entries.into()))
        }
        _ => Ok(given.next()),
    }
}

fn object(value: Value) -> Option<Map<String, Value>> {
    if let Value::Object(object) = value { Some(object) } else { None }
}

fn twice(name: &str) -> String {
    format!("argument \"{name}\" given twice")
}

/// Puts a value below `path`, beside what is there already.
fn put(values: &mut Map<String, Value>, path: &[String], value: Value) -> Result<(), ()> {
    match path {
        [] => Ok(()),
        [name] if values.contains_key(name) => Err(()),
        [name] => {
            values.insert(name.clone(), value);
            Ok(())
        }
        [name, below @ ..] => match values.entry(name.clone()).or_insert_with(|| Map::new().into()) {
            Value::Object(members) => put(members, below, value),
            _ => Err(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::cli::flags::argument::arguments;

    fn described() -> Vec<Argument> {
        let schema = json!({"properties": {
            "argv": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "string"},
            "depth": {"type": "integer", "minimum": -1, "maximum": 10},
            "env": {"type": "object", "additionalProperties": {"type": "string"}},
            "if_match": {"type": "string"},
            "pty": {"type": "object", "properties": {"rows": {"type": "integer"}, "term": {"type": "string"}}},
            "recursive": {"type": "boolean"},
            "sort": {"enum": ["name", "size"]},
        }});
        arguments(&schema, &own_flags())
    }

    fn given(words: &[&str]) -> Result<Value, String> {
        let line: Vec<OsString> = ["plug", "call", "x.y"].iter().chain(words).map(OsString::from).collect();
        let options = match read(&line, &described()) {
            Ok(Ok(options)) => options,
            Ok(Err(failure)) => return Err(failure.line().unwrap_or_default()),
            Err(error) => return Err(error.to_string()),
        };
        let Verb::Call(call) = &options.verb else { panic!("a call was asked for") };
        crate::cli::call::arguments(call).map(Value::Object).map_err(|failure| failure.line().unwrap_or_default())
    }

    #[test]
    fn the_command_line_is_consistent() {
        command(&described()).debug_assert();
    }

    #[rstest]
    #[case(&["--depth", "-1"], json!({"depth": -1}))]
    #[case(&["--recursive"], json!({"recursive": true}))]
    #[case(&["--no-recursive"], json!({"recursive": false}))]
    #[case(&["--argv", "ls", "--argv=-l"], json!({"argv": ["ls", "-l"]}))]
    #[case(&["--env", "A=1", "--env", r#"{"B": "2"}"#], json!({"env": {"A": "1", "B": "2"}}))]
    #[case(&["--pty.rows", "24", "--pty.term", "vt100"], json!({"pty": {"rows": 24, "term": "vt100"}}))]
    #[case(&["--pty", r#"{"term": "x"}"#, "--pty.rows", "24"], json!({"pty": {"rows": 24, "term": "x"}}))]
    #[case(&["--if-match", "a"], json!({"if_match": "a"}))]
    #[case(&["--if_match", "a"], json!({"if_match": "a"}))]
    #[case(&["--depth", "3", "sort=size", "data=x", "--data", "payload"], json!({"depth": 3, "sort": "size", "data": "x"}))]
    #[case(&["--depth", "3", "--", "sort=size"], json!({"depth": 3, "sort": "size"}))]
    #[case(&["--args", r#"{"sort": "size"}"#, "--depth", "3", "--timeout", "1s"], json!({"depth": 3, "sort": "size"}))]
    fn flags_become_arguments(#[case] words: &[&str], #[case] arguments: Value) {
        assert_eq!(given(words), Ok(arguments));
    }

    #[rstest]
    #[case(&["--dept", "3"], "tip: a similar argument exists: '--depth'")]
    #[case(&["--depth", "ten"], "invalid value 'ten' for '--depth <INTEGER>': allowed: integer, -1 to 10")]
    #[case(&["--sort", "siez"], "tip: a similar value exists: 'size'")]
    #[case(&["--recursive", "--no-recursive"], "cannot be used with")]
    #[case(&["--depth", "3", "--depth", "4"], "cannot be used multiple times")]
    #[case(&["--depth", "3", "depth:=4"], "argument \"depth\" given twice")]
    #[case(&["--env", "A=1", "--env", "A=2"], "argument \"env.A\" given twice")]
    #[case(&["--pty", r#"{"rows": 1}"#, "--pty.rows", "2"], "argument \"pty.rows\" given twice")]
    #[case(&["--depth"], "a value is required for '--depth <INTEGER>'")]
    fn what_cannot_work_is_told(#[case] words: &[&str], #[case] part: &str) {
        let error = given(words).expect_err("a mistake");
        assert!(error.contains(part), "{error}");
    }
}
