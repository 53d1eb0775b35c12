//! A command that the operator has named.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use plugd_core::is_legal_name;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Checks, ParameterSettings, ShellSettings};
use crate::operations;
use crate::settings::ParameterKind;
use crate::template::{Part, Template};

/// A table of `commands`: what is run, and what callers may say to it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandSettings {
    /// The program and its arguments. `{NAME}` stands for the parameter of that name: a whole argument, or a part of one.
    pub argv: Vec<String>,
    /// One line for people.
    #[serde(default)]
    pub summary: String,
    /// What callers may say, by name.
    #[serde(default)]
    pub parameters: BTreeMap<String, ParameterSettings>,
    /// How long it may run; as the plugin's commands unless set.
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<plugd_core::schema::TimeSpan>")]
    pub time_max: Option<Duration>,
    /// How much processor time it may use; as the plugin's commands unless set.
    #[serde(default, with = "humantime_serde")]
    #[schemars(with = "Option<plugd_core::schema::TimeSpan>")]
    pub cpu_max: Option<Duration>,
    /// How much it may print; as the plugin's commands unless set.
    #[serde(default)]
    #[schemars(with = "Option<plugd_core::schema::ByteSize>")]
    pub output_max: Option<ByteSize>,
    /// How often it may run at once, within what the plugin allows.
    #[serde(default)]
    pub commands_max: Option<u32>,
    /// The directory that it starts in, relative to the plugin's `cwd`.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Whether callers may ask for a terminal; as the plugin's commands unless set.
    #[serde(default)]
    pub pty: Option<bool>,
    /// Whether it is given the caller's input; without it its standard input is empty.
    #[serde(default = "yes")]
    pub stdin: bool,
    /// Whether it changes nothing, so that it may be served beyond loopback as it is.
    #[serde(default)]
    pub read_only: bool,
    /// The encoding of what it prints; as the plugin's commands unless set.
    #[serde(default)]
    pub encoding: Option<String>,
}

fn yes() -> bool {
    true
}

impl CommandSettings {
    /// Whether callers may ask for a terminal.
    pub(crate) fn allows_pty(&self, plugin: &ShellSettings) -> bool {
        self.pty.unwrap_or(plugin.pty)
    }

    pub(super) fn check(&self, name: &str, plugin: &ShellSettings, checks: &mut Checks) {
        let at = |key: &'static str| ["commands", name, key];
        let template = Template::parse(&self.argv);
        self.check_program(&template, name, checks);
        self.check_placeholders(&template, name, checks);
        for (parameter, settings) in &self.parameters {
            if !is_legal_name(parameter) || operations::RESERVED_ARGUMENTS.contains(&parameter.as_str()) {
                let reserved = operations::RESERVED_ARGUMENTS.join(", ");
                let message =
                    format!("{parameter:?} cannot name a parameter; allowed: [a-z][a-z0-9_-]*, but not {reserved}");
                checks.refuse(&["commands", name, "parameters", parameter], message);
            } else if !template.names().any(|used| used == parameter) {
                let message = format!("unused; write {{{parameter}}} in argv");
                checks.refuse(&["commands", name, "parameters", parameter], message);
            }
            settings.check(&["commands", name, "parameters", parameter], checks);
        }
        let day = Duration::from_secs(86_400);
        checks.time(&at("time_max"), self.time_max, Duration::from_millis(1)..=365 * day);
        checks.time(&at("cpu_max"), self.cpu_max, Duration::from_millis(1)..=365 * day);
        checks.size(&at("output_max"), self.output_max, 0..=1 << 60);
        checks.within(&at("commands_max"), self.commands_max, 1..=plugin.commands_max);
        checks.encoding(&at("encoding"), self.encoding.as_deref());
    }

    fn check_program(&self, template: &Template, name: &str, checks: &mut Checks) {
        let path = ["commands", name, "argv"];
        if self.argv.first().is_none_or(String::is_empty) {
            checks.refuse(&path, "no program; allowed: a program and its arguments, such as [\"uptime\", \"-p\"]");
        } else if template.arguments()[0].iter().any(|part| matches!(part, Part::Value(_))) {
            checks.refuse(&["commands", name, "argv", "0"], "the program may not come from the caller");
        }
        for (index, argument) in self.argv.iter().enumerate().filter(|(_, argument)| argument.contains('\0')) {
            let message = format!("{argument:?} holds a NUL character");
            checks.refuse(&["commands", name, "argv", &index.to_string()], message);
        }
    }

    fn check_placeholders(&self, template: &Template, name: &str, checks: &mut Checks) {
        for (index, argument) in template.arguments().iter().enumerate() {
            for part in argument {
                let Part::Value(value) = part else { continue };
                let message = match self.parameters.get(value) {
                    None => {
                        let known: Vec<&str> = self.parameters.keys().map(String::as_str).collect();
                        let hint = plugd_core::did_you_mean(value, known.iter().copied());
                        let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
                        format!("no parameter {value:?}{hint}; declared: {known}")
                    }
                    Some(found) if found.kind == ParameterKind::Flag && argument.len() > 1 => {
                        format!("the flag {value:?} stands for a whole argument and not for a part of one")
                    }
                    Some(_) => continue,
                };
                checks.refuse(&["commands", name, "argv", &index.to_string()], message);
            }
        }
    }
}
