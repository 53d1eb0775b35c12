//! Turns a call into what is to be run, or into the reason why it is not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plugd_core::{Call, Status};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use crate::args::{ExecArgs, PtyArgs};
use crate::settings::{CommandSettings, Parameter, ShellSettings};
use crate::template::Template;

/// The variable that tells a command what terminal it has.
const TERM: &str = "TERM";

/// What one command may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) time_max: Duration,
    pub(crate) cpu_max: Option<Duration>,
    pub(crate) output_max: u64,
    pub(crate) drain_time: Duration,
    pub(crate) grace: Duration,
}

/// Where and in what surroundings commands run.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) cwd: PathBuf,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) pty: bool,
    pub(crate) stdin: bool,
    pub(crate) encoding: Option<String>,
    pub(crate) bounds: Bounds,
    /// How many more may run at once.
    pub(crate) permits: Option<Arc<Semaphore>>,
}

/// A command that the operator has named, checked and ready.
#[derive(Debug)]
pub(crate) struct Named {
    template: Template,
    parameters: BTreeMap<String, Parameter>,
    place: Place,
}

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The program and its arguments; never empty.
    pub(crate) argv: Vec<String>,
    /// The same as others are shown it, without its secrets.
    pub(crate) shown: Vec<String>,
    pub(crate) place: Place,
    pub(crate) pty: Option<PtyArgs>,
    pub(crate) detach: bool,
    /// The names that the caller set in vain.
    pub(crate) dropped_env: Vec<String>,
}

impl Place {
    /// The place of commands that `settings` say nothing special of.
    pub(crate) fn new(settings: &ShellSettings, cwd: PathBuf, env: Vec<(OsString, OsString)>) -> Place {
        let bounds = Bounds {
            time_max: settings.time_max,
            cpu_max: settings.cpu_max,
            output_max: settings.output_max.as_u64(),
            drain_time: settings.drain_time,
            grace: settings.grace,
        };
        let encoding = settings.encoding.clone();
        Place { cwd, env, pty: settings.pty, stdin: true, encoding, bounds, permits: None }
    }

    /// The place of a named command.
    fn of(&self, command: &CommandSettings) -> Place {
        let bounds = Bounds {
            time_max: command.time_max.unwrap_or(self.bounds.time_max),
            cpu_max: command.cpu_max.or(self.bounds.cpu_max),
            output_max: command.output_max.map_or(self.bounds.output_max, |size| size.as_u64()),
            ..self.bounds
        };
        Place {
            cwd: command.cwd.as_ref().map_or_else(|| self.cwd.clone(), |cwd| self.cwd.join(cwd)),
            env: self.env.clone(),
            pty: command.pty.unwrap_or(self.pty),
            stdin: command.stdin,
            encoding: command.encoding.clone().or_else(|| self.encoding.clone()),
            bounds,
            permits: command.commands_max.map(|most| Arc::new(Semaphore::new(most as usize))),
        }
    }
}

impl Named {
    /// The command of checked settings.
    pub(crate) fn new(command: &CommandSettings, place: &Place) -> Named {
        let parameters = command.parameters.iter();
        Named {
            template: Template::parse(&command.argv),
            parameters: parameters
                .filter_map(|(name, parameter)| Some((name.clone(), parameter.build(&place.cwd)?)))
                .collect(),
            place: place.of(command),
        }
    }

    /// Puts what the caller said into the places of the template.
    ///
    /// # Errors
    ///
    /// `invalid_argument`, which names every argument that is not allowed.
    pub(crate) fn plan(&self, call: &Call) -> Result<Plan, Status> {
        let mut said: Map<String, Value> = call.args()?;
        let detach = bool_of(said.remove("detach"))?;
        let pty = said.remove("pty").filter(|pty| !pty.is_null()).map(serde_json::from_value::<PtyArgs>);
        let pty = pty.transpose().map_err(|error| bad_argument(&[format!("argument \"pty\": {error}")]))?;
        let (mut values, mut errors) = (BTreeMap::new(), Vec::new());
        for (name, parameter) in &self.parameters {
            match parameter.render(said.remove(name).as_ref()) {
                Ok(rendered) => drop(values.insert(name.clone(), rendered)),
                Err(error) => errors.push(format!("argument \"{name}\": {error}")),
            }
        }
        // The server refuses them already, as far as it knows what is described.
        errors.extend(said.keys().map(|name| format!("argument \"{name}\": unknown")));
        if !errors.is_empty() {
            return Err(bad_argument(&errors));
        }
        let argv = self.template.render(&values).map_err(|name| {
            bad_argument(&[format!(
                "argument \"{name}\": begins with \"-\" and would become an option; allowed: no dash"
            )])
        })?;
        let shown: BTreeMap<_, _> = values.iter().map(|(name, value)| (name.clone(), value.shown())).collect();
        let shown = self.template.render(&shown).unwrap_or_default();
        let plan = Plan { argv, shown, place: self.place.clone(), pty: None, detach, dropped_env: Vec::new() };
        plan.with_pty(pty)
    }
}

/// What callers of `exec` may decide.
#[derive(Debug)]
pub(crate) struct Anything {
    pub(crate) shell: Vec<String>,
    pub(crate) env_allow: Vec<String>,
    pub(crate) place: Place,
}

impl Anything {
    /// Reads the arguments of `exec`.
    ///
    /// # Errors
    ///
    /// `invalid_argument` for an argv or a directory that cannot be.
    pub(crate) fn plan(&self, call: &Call) -> Result<Plan, Status> {
        let ExecArgs { argv, shell, cwd, env, pty, detach } = call.args()?;
        let argv = match (argv, shell) {
            (Some(argv), None) => argv,
            (None, Some(text)) => [self.shell.clone(), vec![text]].concat(),
            (argv, _) => {
                let found = if argv.is_some() { "both argv and shell" } else { "neither argv nor shell" };
                return Err(bad_argv(found));
            }
        };
        let mut place = self.place.clone();
        if let Some(cwd) = cwd {
            place.cwd = below(&place.cwd, &cwd)?;
        }
        let (allowed, dropped): (Vec<_>, Vec<_>) =
            env.into_iter().partition(|(name, _)| self.env_allow.iter().any(|allowed| allowed == name));
        if let Some((name, _)) = allowed.iter().find(|(_, value)| value.contains('\0')) {
            return Err(bad_argument(&[format!("argument \"env.{name}\": holds a NUL character")]));
        }
        for (name, value) in allowed {
            set(&mut place.env, &name, value.into());
        }
        let dropped_env = dropped.into_iter().map(|(name, _)| name).collect();
        let plan = Plan { shown: argv.clone(), argv, place, pty: None, detach, dropped_env };
        plan.with_pty(pty)
    }
}

impl Plan {
    fn with_pty(mut self, pty: Option<PtyArgs>) -> Result<Plan, Status> {
        let is_empty = self.argv.first().is_none_or(String::is_empty);
        if is_empty || self.argv.iter().any(|argument| argument.contains('\0')) {
            return Err(bad_argv(if is_empty { "no program" } else { "a NUL character" }));
        }
        if let Some(pty) = &pty {
            if !self.place.pty {
                let message = "no terminal for this command; allowed: calls without pty";
                return Err(Status::permission_denied("pty-not-allowed", message));
            }
            if pty.term.contains('\0') {
                return Err(bad_argument(&["argument \"pty.term\": holds a NUL character".to_owned()]));
            }
            set(&mut self.place.env, TERM, pty.term.clone().into());
        }
        self.pty = pty;
        Ok(self)
    }
}

fn bool_of(value: Option<Value>) -> Result<bool, Status> {
    match value {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(value),
        Some(value) => Err(bad_argument(&[format!("argument \"detach\": {value}; allowed: true, false")])),
    }
}

fn set(env: &mut Vec<(OsString, OsString)>, name: &str, value: OsString) {
    env.retain(|(known, _)| known != name);
    env.push((name.into(), value));
}

fn bad_argument(errors: &[String]) -> Status {
    Status::invalid_argument("bad-arguments", errors.join("; "))
}

fn bad_argv(found: &str) -> Status {
    Status::invalid_argument("bad-argv", format!("{found} in argv; allowed: a program, arguments"))
}

/// The directory that a caller names, which no `..` and no symbolic link may lead out of `dir`.
fn below(dir: &Path, text: &str) -> Result<PathBuf, Status> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat2(rustix::fs::CWD, dir, flags, Mode::empty(), ResolveFlags::empty())
        .and_then(|dir| openat2(dir, text, flags, Mode::empty(), beneath));
    match opened {
        Ok(_) => Ok(dir.join(text)),
        Err(rustix::io::Errno::XDEV | rustix::io::Errno::LOOP) => {
            let message = format!("{text:?} leads out of the directory for commands; allowed: a path below it");
            Err(Status::permission_denied("bad-cwd", message))
        }
        Err(error) => {
            let message = format!("no directory {text:?} to run the command in");
            Err(Status::failed_precondition("bad-cwd", message).with_detail(error))
        }
    }
}
