//! Reads as much of a command line as can be read before anybody knows the flags of the command that it calls.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::cli::options::{Options, Verb};

/// A call whose command line holds words that only the server can explain.
#[derive(Debug)]
pub(crate) struct Partly {
    /// What could be read without them.
    pub(crate) options: Options,
    /// Whether help is asked for.
    pub(crate) is_help: bool,
}

/// Reads the line without the flags that are no option of ours.
///
/// # Errors
///
/// What to say when the server would not know better: another verb, no command, an option of ours that is wrong.
pub(crate) fn read(line: &[OsString], error: clap::Error) -> Result<Partly, clap::Error> {
    let mut words = line.to_vec();
    let mut is_help = false;
    let mut first = usize::MAX;
    let mut found = strange(&error).and_then(|strange| position(&words, &strange));
    while let Some(at) = found {
        is_help |= is_help_flag(&words[at]);
        // Positions shift by what was taken out before, which is never less than what stands in front.
        first = first.min(at);
        words.remove(at);
        found = match Options::read(&words) {
            Ok(options) => return finish(Partly { options, is_help }, &words, first, error),
            Err(next) => match strange(&next) {
                Some(strange) => position(&words, &strange),
                None if is_ours(&next) => return Err(next),
                None => None,
            },
        };
    }
    Err(error)
}

/// A flag before the command is none of the command's.
fn finish(partly: Partly, words: &[OsString], first: usize, error: clap::Error) -> Result<Partly, clap::Error> {
    let Verb::Call(call) = &partly.options.verb else { return Err(error) };
    let command = OsStr::new(&call.command);
    // The verb stands in front of the command, which may have its name.
    let verb = words.iter().position(|word| word == "call").unwrap_or_default();
    let at = words.iter().skip(verb + 1).position(|word| word == command);
    let is_behind = at.is_some_and(|at| verb + 1 + at < first);
    if is_behind || partly.is_help { Ok(partly) } else { Err(error) }
}

/// The word that clap does not know, or that asks for help.
fn strange(error: &clap::Error) -> Option<Strange> {
    match error.kind() {
        ErrorKind::DisplayHelp => Some(Strange::Help),
        ErrorKind::UnknownArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(flag)) if flag.starts_with('-') => Some(Strange::Flag(flag.clone())),
            _ => None,
        },
        _ => None,
    }
}

enum Strange {
    Help,
    Flag(String),
}

fn position(words: &[OsString], strange: &Strange) -> Option<usize> {
    let is_it = |word: &OsString| match strange {
        Strange::Help => is_help_flag(word),
        Strange::Flag(flag) => word.to_str().is_some_and(|word| {
            let rest = word.strip_prefix(flag.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('=') || !flag.starts_with("--"))
        }),
    };
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    words[..end].iter().position(is_it)
}

fn is_help_flag(word: &OsString) -> bool {
    word == "--help" || word == "-h"
}

/// Whether the words that were left are wrong by themselves.
fn is_ours(error: &clap::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::ArgumentConflict | ErrorKind::TooManyValues
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn partly(words: &[&str]) -> Result<Partly, clap::Error> {
        let line: Vec<OsString> = ["plug"].iter().chain(words).map(OsString::from).collect();
        let error = Options::read(&line).expect_err("a flag that nobody here knows");
        read(&line, error)
    }

    #[rstest]
    #[case(&["call", "files.ls", "--deep", "--depth", "3", "-s", "b"], false)]
    #[case(&["-s", "b", "call", "files.ls", "--depth=3"], false)]
    #[case(&["call", "-s", "b", "files.ls", "--depth", "-3"], false)]
    #[case(&["call", "files.ls", "--help", "-s", "b"], true)]
    #[case(&["-s", "b", "call", "files.ls", "--deep", "-h"], true)]
    #[case(&["-s", "b", "call", "--help", "files.ls"], true)]
    fn our_own_options_are_read_all_the_same(#[case] words: &[&str], #[case] is_help: bool) {
        let partly = partly(words).expect("a call");
        assert_eq!((partly.options.servers[0].to_string(), partly.is_help), ("tcp://b:7584".to_owned(), is_help));
        let Verb::Call(call) = &partly.options.verb else { panic!("a call was asked for") };
        assert_eq!(call.command, "files.ls");
    }

    #[rstest]
    #[case(&["list", "--deep"], "--deep")]
    #[case(&["call", "--deep"], "--deep")]
    #[case(&["call", "--deep", "3", "files.ls"], "--deep")]
    #[case(&["call", "--help"], "Call any command")]
    #[case(&["call", "files.ls", "--deep", "--parallel", "x"], "--parallel")]
    fn what_no_server_could_explain_is_refused_at_once(#[case] words: &[&str], #[case] part: &str) {
        let error = partly(words).expect_err("a mistake").to_string();
        assert!(error.contains(part), "{error}");
    }
}
