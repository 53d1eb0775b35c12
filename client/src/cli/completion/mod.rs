//! `plug completion`: what a shell offers behind `plug`, down to the flags of a live server's commands.
//!
//! The script that the verb prints asks this program, with `PLUG_COMPLETE` in its environment, at each press of the key;
//! `answer` is what it is told: a candidate a line. `clap_complete` finds the candidates, in a command line that was
//! given the commands and flags of the server. Nothing is said on stderr, and a server that does not answer costs half a second.
//!
//! ```text
//! bash   -- LINE WORD       the line up to the cursor; the part of its last word that bash replaces
//! zsh    -- WORD...         the words up to the cursor, the last of which is typed; answers are VALUE:HELP
//! fish   -- WORD...         as zsh; answers are VALUE, a tab and HELP
//! ```

mod cache;
mod knowledge;
mod line;

use std::ffi::OsString;

use clap::{Args, CommandFactory, ValueEnum, ValueHint};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate, complete};

use super::flags::argument::{Argument, arguments};
use super::flags::kind::Kind;
use super::flags::{self, command_line, lenient};
use super::options::{Options, Verb};
use super::profiles::Profiles;
use super::{directory, exit, list, output};
use knowledge::Knowledge;

/// The variable that asks for candidates, and names the shell.
const VARIABLE: &str = "PLUG_COMPLETE";

/// What stands for the word that is typed, while the others are read.
const TYPED: &str = "plug-completes-this";

#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    /// Prints the script for the shell.
    pub(crate) fn print(&self) -> u8 {
        let script = match self.shell {
            Shell::Bash => include_str!("bash.sh"),
            Shell::Zsh => include_str!("zsh.zsh"),
            Shell::Fish => include_str!("fish.fish"),
        };
        output::print_blocking(script.as_bytes(), exit::OK)
    }
}

/// The shell that asks for candidates, if one does.
pub(crate) fn asking_shell() -> Option<Shell> {
    let name = std::env::var(VARIABLE).ok()?;
    Shell::from_str(&name, false).ok()
}

/// Prints the candidates for the command line in `arguments`, those of this process.
pub(crate) async fn answer(shell: Shell, arguments: Vec<OsString>) -> u8 {
    let given: Vec<OsString> = arguments.into_iter().skip_while(|argument| argument != "--").skip(1).collect();
    let (words, kept) = typed(shell, given);
    let candidates = candidates(shell, words).await;
    let lines: String = candidates.iter().filter_map(|candidate| line(shell, candidate, &kept)).collect();
    output::print_blocking(lines.as_bytes(), exit::OK)
}

/// The words up to the typed one, and what of that the shell does not replace.
fn typed(shell: Shell, given: Vec<OsString>) -> (Vec<OsString>, String) {
    if shell != Shell::Bash {
        return (given, String::new());
    }
    let text = |at: usize| given.get(at).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    let words = line::words(&text(0));
    let last = words.last().map_or("", String::as_str);
    let replaced = line::words(&text(1)).pop().unwrap_or_default();
    let kept = last.strip_suffix(&replaced).unwrap_or_default().to_owned();
    (words.into_iter().map(OsString::from).collect(), kept)
}

/// One candidate as the shell reads it; one that its words could not hold is left out.
fn line(shell: Shell, candidate: &CompletionCandidate, kept: &str) -> Option<String> {
    let value = candidate.get_value().to_str()?;
    if !value.chars().all(is_plain) {
        return None;
    }
    let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
    let help = super::text::one_line(help.lines().next().unwrap_or_default());
    Some(match shell {
        Shell::Bash => format!("{}\n", value.strip_prefix(kept)?),
        Shell::Zsh => format!("{}:{}\n", value.replace(':', "\\:"), help.replace('\\', "\\\\")),
        Shell::Fish => format!("{value}\t{help}\n"),
    })
}

/// Whether a letter means itself in every shell, wherever in a word it stands.
fn is_plain(letter: char) -> bool {
    letter.is_alphanumeric() || "-_.,:=/@%+".contains(letter)
}

async fn candidates(shell: Shell, words: Vec<OsString>) -> Vec<CompletionCandidate> {
    let Some(index) = words.len().checked_sub(1) else { return Vec::new() };
    let is_empty = words[index].is_empty();
    let mut command = with_profiles(command(&words[..index]).await);
    if shell == Shell::Bash {
        // Bash quotes names of files better than we could.
        command = without_hints(command);
    }
    let mut candidates = complete(&mut command, words, index, None).unwrap_or_default();
    let is_option = |candidate: &CompletionCandidate| candidate.get_value().to_string_lossy().starts_with('-');
    if is_empty && !candidates.iter().all(is_option) {
        candidates.retain(|candidate| !is_option(candidate));
    }
    candidates.retain(|candidate| candidate.get_value() != "-" && candidate.get_value() != "--");
    candidates
}

fn without_hints(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let plain = |argument: clap::Arg| argument.value_hint(ValueHint::Unknown);
    let command = command.mut_args(plain);
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, |verb| verb.mut_args(plain)))
}

/// The command line of plug, with what the server offers where the words before the typed one lead there.
async fn command(before: &[OsString]) -> clap::Command {
    let Some(mut options) = read(before) else { return Options::command() };
    // Without a token that can be read, the verb itself would fail and say why.
    let Some(server) = options.find_servers().ok().and_then(|()| options.server().cloned().ok()) else {
        return Options::command();
    };
    match &options.verb {
        Verb::Call(call) if call.command != TYPED => {
            let (plugin, operation) = flags::split(&call.command);
            let knowledge = Knowledge::of(&server, Some(plugin)).await;
            let found = knowledge.plugin.and_then(|plugin| flags::find(plugin, operation).ok());
            let arguments = found.map(|(_, operation)| arguments(&operation.args, &command_line::own_flags()));
            with_arguments(&arguments.unwrap_or_default())
        }
        Verb::Call(_) => with_commands("call", "command", &Knowledge::of(&server, None).await),
        Verb::Bench(_) => with_commands("bench", "command", &Knowledge::of(&server, None).await),
        Verb::Describe(_) => with_plugins(&Knowledge::of(&server, None).await),
        _ => Options::command(),
    }
}

/// What the words say that come before the typed one.
fn read(before: &[OsString]) -> Option<Options> {
    let mut line = before.to_vec();
    line.push(TYPED.into());
    match Options::read(&line) {
        Ok(options) => Some(options),
        Err(error) => lenient::read(&line, error).ok().map(|partly| partly.options),
    }
}

fn with_arguments(arguments: &[Argument]) -> clap::Command {
    let without_flags = arguments.iter().filter(|argument| argument.flag.is_none()).map(|argument| {
        let sign = if matches!(argument.kind, Kind::Text | Kind::Choice(_)) { "=" } else { ":=" };
        (argument.name() + sign, argument.description.clone())
    });
    offer(command_line::command(arguments), "call", "arguments", without_flags.collect())
}

/// The names of profiles, where a server is named. A file that is wrong offers none.
fn with_profiles(command: clap::Command) -> clap::Command {
    let Ok(profiles) = Profiles::of_user() else { return command };
    let names: Vec<String> = profiles.names().map(|name| format!("@{name}")).collect();
    let candidates = ArgValueCandidates::new(move || names.iter().map(CompletionCandidate::new).collect());
    command.mut_args(|given| if given.get_id() == "servers" { given.add(candidates.clone()) } else { given })
}

fn with_commands(verb: &'static str, argument: &'static str, knowledge: &Knowledge) -> clap::Command {
    let plugins = knowledge.directory.iter().flat_map(|directory| &directory.plugins);
    let commands = plugins.flat_map(list::commands).map(|[command, summary]| (command, summary));
    offer(Options::command(), verb, argument, commands.collect())
}

fn with_plugins(knowledge: &Knowledge) -> clap::Command {
    let plugins = knowledge.directory.iter().flat_map(|directory| &directory.plugins);
    let name = |plugin: &directory::Plugin| (plugin.name.clone(), plugin.summary.clone());
    offer(Options::command(), "describe", "name", plugins.map(name).collect())
}

fn offer(
    command: clap::Command,
    verb: &'static str,
    argument: &'static str,
    offered: Vec<(String, String)>,
) -> clap::Command {
    let candidates = move || {
        let candidate =
            |(value, help): &(String, String)| CompletionCandidate::new(value).help(Some(help.clone().into()));
        offered.iter().map(candidate).collect()
    };
    let candidates = ArgValueCandidates::new(candidates);
    // `mut_arg` would put it behind the others, which changes the order of what has no flag.
    let offering = move |given: clap::Arg| match given.get_id() == argument {
        true => given.add(candidates.clone()),
        false => given,
    };
    command.mut_subcommand(verb, |verb| verb.mut_args(offering))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn offered(words: &[&str], command: clap::Command) -> Vec<String> {
        let mut command = command;
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let index = words.len() - 1;
        let found = complete(&mut command, words, index, None).expect("candidates");
        found
            .iter()
            .filter_map(|candidate| line(Shell::Bash, candidate, ""))
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    #[test]
    fn flags_and_their_values_are_offered() {
        let schema = serde_json::json!({"properties": {
            "deep": {"type": "boolean"}, "depth": {"type": "integer"}, "sort": {"enum": ["name", "size", "$(id)"]},
            "data": {"type": "string"}
        }});
        let command = with_arguments(&arguments(&schema, &command_line::own_flags()));
        let offered = |words: &[&str]| offered(words, command.clone());
        assert_eq!(offered(&["plug", "call", "x.y", "--dee"]), ["--deep"]);
        assert_eq!(offered(&["plug", "call", "x.y", "--no-d"]), ["--no-deep"]);
        assert_eq!(offered(&["plug", "call", "x.y", "--sort", ""]), ["name", "size"]);
        assert_eq!(offered(&["plug", "call", "x.y", "--depth", "3", "da"]), ["data="]);
    }

    #[rstest]
    #[case(&["plug", "-s", "b", "call"])]
    #[case(&["plug", "call", "-s", "b", "files.ls", "--depth"])]
    #[case(&["plug", "-s", "b", "call", "files.ls", "--deep", "--sort"])]
    #[case(&["plug", "describe", "--server=b"])]
    fn the_server_is_found_in_what_is_there_already(#[case] before: &[&str]) {
        let before: Vec<OsString> = before.iter().map(OsString::from).collect();
        assert_eq!(read(&before).expect("enough to go by").servers[0].to_string(), "tcp://b:7584");
    }

    #[test]
    fn bash_replaces_only_what_is_behind_a_colon_or_an_equals_sign() {
        let typed = |line: &str, word: &str| typed(Shell::Bash, vec![line.into(), word.into()]);
        assert_eq!(typed("plug call --sort=na", "na").1, "--sort=");
        assert_eq!(typed("plug call fi", "fi").1, "");
        assert_eq!(typed("plug -s tcp://a:75", "75").1, "tcp://a:");
    }

    #[test]
    fn help_is_given_in_the_words_of_each_shell() {
        let candidate = CompletionCandidate::new("a:b").help(Some("what\nmore".into()));
        assert_eq!(line(Shell::Zsh, &candidate, "").as_deref(), Some("a\\:b:what\n"));
        assert_eq!(line(Shell::Fish, &candidate, "").as_deref(), Some("a:b\twhat\n"));
        assert_eq!(line(Shell::Bash, &candidate, "a:").as_deref(), Some("b\n"));
        assert_eq!(line(Shell::Fish, &CompletionCandidate::new("$(id)"), ""), None);
    }
}
