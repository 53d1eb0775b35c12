//! What a caller may say to a named command, one parameter at a time.

use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use regex::Regex;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Checks;

/// How long a text may be unless the operator says otherwise, in bytes.
const LENGTH_MAX_DEFAULT: u32 = 4096;

/// The longest text that an operator may allow, in bytes: a single argument may have 128 KiB on Linux (execve(2)).
const LENGTH_MAX: u32 = 128 * 1024 - 1;

/// What stands for a secret where others see it.
const SECRET: &str = "***";

/// What a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParameterKind {
    /// A text, with `pattern` and `length_max`.
    String,
    /// A whole number from `min` to `max`.
    Integer,
    /// One of `values`.
    Choice,
    /// Yes or no; yes puts `argument` into the place.
    Flag,
    /// A file or directory below the directory `below`.
    Path,
}

/// A table of `parameters`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParameterSettings {
    /// What it takes: string, integer, choice, flag or path.
    #[serde(rename = "type")]
    pub kind: ParameterKind,
    /// One line for people.
    #[serde(default)]
    pub summary: String,
    /// What stands there when a caller says nothing; without it the caller must.
    #[serde(default)]
    pub default: Option<Value>,
    /// string: a regular expression for the whole text.
    #[serde(default)]
    pub pattern: Option<String>,
    /// string: how long the text may be, in bytes; 4096 unless set.
    #[serde(default)]
    pub length_max: Option<u32>,
    /// string: whether the text may begin with `-` where it could be taken for an option.
    #[serde(default)]
    pub allow_dash: Option<bool>,
    /// string: whether neither the audit, nor the list of jobs, nor a message may repeat it.
    #[serde(default)]
    pub secret: Option<bool>,
    /// integer: the least; 0 unless set.
    #[serde(default)]
    pub min: Option<i64>,
    /// integer: the most.
    #[serde(default)]
    pub max: Option<i64>,
    /// choice: what is allowed.
    #[serde(default)]
    pub values: Option<Vec<String>>,
    /// flag: what yes puts into the place.
    #[serde(default)]
    pub argument: Option<String>,
    /// path: the directory, relative to the plugin's `cwd`; the `cwd` itself unless set.
    #[serde(default)]
    pub below: Option<PathBuf>,
    /// path: whether it has to be there already.
    #[serde(default)]
    pub must_exist: Option<bool>,
}

/// What a value puts into its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rendered {
    Text {
        text: String,
        may_be_option: bool,
        is_secret: bool,
    },
    /// The whole argument is left out.
    LeftOut,
}

impl Rendered {
    fn own(text: impl Into<String>) -> Rendered {
        Rendered::Text { text: text.into(), may_be_option: true, is_secret: false }
    }

    /// What others than the command are shown in its place.
    pub(crate) fn shown(&self) -> Rendered {
        match self {
            Rendered::Text { is_secret: true, .. } => Rendered::own(SECRET),
            other => other.clone(),
        }
    }
}

/// What a parameter takes, with its bounds.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Text { pattern: Option<Regex>, length_max: u32, allow_dash: bool, is_secret: bool },
    Integer(RangeInclusive<i64>),
    Choice(Vec<String>),
    Flag(String),
    Path { below: PathBuf, must_exist: bool },
}

/// A parameter that was checked.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    pub(crate) kind: Kind,
    pub(crate) default: Option<Value>,
}

impl ParameterSettings {
    /// Reads what the parameter takes; what is wrong with it goes to `refuse` with its key.
    fn read(&self, mut refuse: impl FnMut(&str, String)) -> Option<Kind> {
        self.refuse_strangers(&mut refuse);
        match self.kind {
            ParameterKind::String => {
                let pattern = self.pattern.as_deref().map(|pattern| Regex::new(&format!(r"\A(?:{pattern})\z")));
                let pattern = pattern.transpose().map_err(|error| refuse("pattern", bad_pattern(&error))).ok()?;
                let length_max = self.length_max.unwrap_or(LENGTH_MAX_DEFAULT);
                if !(1..=LENGTH_MAX).contains(&length_max) {
                    refuse("length_max", format!("{length_max} is out of range; allowed: 1 to {LENGTH_MAX}"));
                }
                let is_secret = self.secret.unwrap_or(false);
                if is_secret && self.default.is_some() {
                    refuse("default", "a secret has none: everybody could read it".to_owned());
                }
                Some(Kind::Text { pattern, length_max, allow_dash: self.allow_dash.unwrap_or(false), is_secret })
            }
            ParameterKind::Integer => {
                let (min, max) = (self.min.unwrap_or(0), self.max.unwrap_or(i64::MAX));
                if min > max {
                    refuse("max", format!("{max} is below the least, {min}"));
                }
                Some(Kind::Integer(min..=max))
            }
            ParameterKind::Choice => {
                let values = self.values.clone().unwrap_or_default();
                if values.is_empty() || values.iter().any(|value| value.contains('\0')) {
                    refuse("values", "nothing to choose from; allowed: one or more texts".to_owned());
                }
                Some(Kind::Choice(values))
            }
            ParameterKind::Flag => {
                let argument = self.argument.clone().unwrap_or_default();
                if argument.is_empty() || argument.contains('\0') {
                    refuse("argument", "no argument to add; allowed: a text such as \"--verbose\"".to_owned());
                }
                Some(Kind::Flag(argument))
            }
            ParameterKind::Path => Some(Kind::Path {
                below: self.below.clone().unwrap_or_default(),
                must_exist: self.must_exist.unwrap_or(false),
            }),
        }
    }

    /// A key of another kind would have no meaning.
    fn refuse_strangers(&self, refuse: &mut impl FnMut(&str, String)) {
        use ParameterKind::{Choice, Flag, Integer, Path, String};
        for (key, is_set, owner) in [
            ("pattern", self.pattern.is_some(), String),
            ("length_max", self.length_max.is_some(), String),
            ("allow_dash", self.allow_dash.is_some(), String),
            ("secret", self.secret.is_some(), String),
            ("min", self.min.is_some(), Integer),
            ("max", self.max.is_some(), Integer),
            ("values", self.values.is_some(), Choice),
            ("argument", self.argument.is_some(), Flag),
            ("below", self.below.is_some(), Path),
            ("must_exist", self.must_exist.is_some(), Path),
        ] {
            if is_set && owner != self.kind {
                let (owner, kind) = (format!("{owner:?}").to_lowercase(), format!("{:?}", self.kind).to_lowercase());
                refuse(key, format!("a parameter of type {kind} has none; it belongs to {owner}"));
            }
        }
    }

    pub(super) fn check(&self, path: &[&str], checks: &mut Checks) {
        let kind = self.read(|key, message| checks.refuse(&[path, &[key]].concat(), message));
        if let (Some(kind), Some(default)) = (kind, &self.default)
            && let Err(found) = kind.read_value(default)
        {
            checks.refuse(&[path, &["default"]].concat(), found);
        }
    }

    /// The parameter, with directories below `cwd`. The settings were checked.
    pub(crate) fn build(&self, cwd: &Path) -> Option<Parameter> {
        let kind = match self.read(|_, _| {})? {
            Kind::Path { below, must_exist } => Kind::Path { below: cwd.join(below), must_exist },
            kind => kind,
        };
        Some(Parameter { kind, default: self.default.clone() })
    }

    /// Whether a caller must say it.
    pub(crate) fn is_required(&self) -> bool {
        self.default.is_none() && self.kind != ParameterKind::Flag
    }

    /// The JSON Schema of the values.
    pub(crate) fn schema(&self) -> Value {
        let mut schema = Map::new();
        let mut put = |key: &str, value: Option<Value>| value.map(|value| schema.insert(key.to_owned(), value));
        match self.kind {
            ParameterKind::String => {
                put("type", Some(json!("string")));
                put("pattern", self.pattern.as_ref().map(|pattern| json!(format!("^(?:{pattern})$"))));
                put("maxLength", Some(json!(self.length_max.unwrap_or(LENGTH_MAX_DEFAULT))));
                put("writeOnly", self.secret.filter(|is_secret| *is_secret).map(Value::from));
            }
            ParameterKind::Integer => {
                put("type", Some(json!("integer")));
                put("minimum", Some(json!(self.min.unwrap_or(0))));
                put("maximum", self.max.map(Value::from));
            }
            ParameterKind::Choice => drop(put("enum", Some(json!(self.values)))),
            ParameterKind::Flag => drop(put("type", Some(json!("boolean")))),
            ParameterKind::Path => drop(put("type", Some(json!("string")))),
        }
        put("default", self.default.clone());
        put("description", Some(json!(self.describe())));
        Value::Object(schema)
    }

    /// What it is for, and what the words of the schema do not say of its bounds.
    fn describe(&self) -> String {
        let bounds = match self.read(|_, _| {}) {
            Some(kind @ (Kind::Text { .. } | Kind::Path { .. })) => kind.allowed(),
            _ => String::new(),
        };
        let parts = [self.summary.as_str(), &bounds];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

fn bad_pattern(error: &regex::Error) -> String {
    let text = error.to_string();
    // The last line says what is wrong; the others draw the pattern.
    format!("no regular expression: {}", text.lines().last().unwrap_or_default())
}

impl Parameter {
    /// Turns what a caller said into what stands in the place.
    ///
    /// # Errors
    ///
    /// What was found and what is allowed.
    pub(crate) fn render(&self, said: Option<&Value>) -> Result<Rendered, String> {
        let is_flag = matches!(self.kind, Kind::Flag(_));
        match said.filter(|said| !said.is_null()).or(self.default.as_ref()) {
            Some(value) => {
                let rendered = self.kind.read_value(value)?;
                match (&self.kind, rendered) {
                    (Kind::Path { below, must_exist }, Rendered::Text { text, .. }) => {
                        resolve(below, &text, *must_exist).map(Rendered::own)
                    }
                    (_, rendered) => Ok(rendered),
                }
            }
            None if is_flag => Ok(Rendered::LeftOut),
            None => Err(format!("missing; allowed: {}", self.kind.allowed())),
        }
    }
}

impl Kind {
    /// Reads a value without looking at any file.
    fn read_value(&self, value: &Value) -> Result<Rendered, String> {
        let refused = || Err(format!("{value}; allowed: {}", self.allowed()));
        match self {
            Kind::Text { pattern, length_max, allow_dash, is_secret } => match value {
                Value::String(text)
                    if text.len() <= *length_max as usize
                        && !text.contains('\0')
                        && pattern.as_ref().is_none_or(|pattern| pattern.is_match(text)) =>
                {
                    Ok(Rendered::Text { text: text.clone(), may_be_option: *allow_dash, is_secret: *is_secret })
                }
                // A long text would drown what is wrong with it, and a secret is told to nobody.
                Value::String(text) if *is_secret || text.len() > *length_max as usize => {
                    Err(format!("a text of {} bytes; allowed: {}", text.len(), self.allowed()))
                }
                _ if *is_secret => Err(format!("no text; allowed: {}", self.allowed())),
                _ => refused(),
            },
            Kind::Integer(range) => {
                // What a command line says is a text before it is a number.
                let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
                match number.filter(|number| range.contains(number)) {
                    Some(number) => Ok(Rendered::own(number.to_string())),
                    None => refused(),
                }
            }
            Kind::Choice(values) => match value.as_str().filter(|text| values.iter().any(|value| value == text)) {
                Some(text) => Ok(Rendered::own(text)),
                None => refused(),
            },
            Kind::Flag(argument) => match value {
                Value::Bool(true) => Ok(Rendered::own(argument)),
                Value::Bool(false) => Ok(Rendered::LeftOut),
                Value::String(text) if text == "true" => Ok(Rendered::own(argument)),
                Value::String(text) if text == "false" => Ok(Rendered::LeftOut),
                _ => refused(),
            },
            Kind::Path { .. } => match value.as_str().filter(|text| is_plain_path(text)) {
                Some(text) => Ok(Rendered::own(text)),
                None => refused(),
            },
        }
    }

    /// What is allowed, as the end of a message.
    fn allowed(&self) -> String {
        match self {
            Kind::Text { pattern: None, length_max, .. } => format!("a text of at most {length_max} bytes"),
            Kind::Text { pattern: Some(pattern), length_max, .. } => {
                let pattern = pattern.as_str();
                let pattern = pattern.strip_prefix(r"\A(?:").and_then(|text| text.strip_suffix(r")\z"));
                format!("a text of at most {length_max} bytes like {}", pattern.unwrap_or_default())
            }
            Kind::Integer(range) if *range.end() == i64::MAX => format!("{} or more", range.start()),
            Kind::Integer(range) => format!("{} to {}", range.start(), range.end()),
            Kind::Choice(values) => values.join(", "),
            Kind::Flag(_) => "true, false".to_owned(),
            Kind::Path { must_exist: true, .. } => "a path that exists, without .. and not absolute".to_owned(),
            Kind::Path { .. } => "a path without .. and not absolute".to_owned(),
        }
    }
}

fn is_plain_path(text: &str) -> bool {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    !text.is_empty() && text.len() < 4096 && !text.contains('\0') && Path::new(text).components().all(is_plain)
}

/// The path below a directory, unless a symbolic link leads it out. Who may change that directory can change it again
/// before the command looks.
fn resolve(below: &Path, text: &str, must_exist: bool) -> Result<String, String> {
    let refused = |why: &str| format!("{text:?} {why}");
    let dir = openat2(
        rustix::fs::CWD,
        below,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::empty(),
    )
    .map_err(|_| refused("cannot be: its directory is missing on the server"))?;
    match open_beneath(&dir, Path::new(text)) {
        Ok(_) => {}
        Err(Errno::NOENT) if !must_exist => {
            let parent = Path::new(text).parent().filter(|parent| !parent.as_os_str().is_empty());
            if let Some(parent) = parent {
                open_beneath(&dir, parent).map_err(|_| refused("has no directory to be in"))?;
            }
        }
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(refused("does not exist")),
        Err(Errno::XDEV | Errno::LOOP) => return Err(refused("leads out of its directory")),
        Err(_) => return Err(refused("cannot be reached")),
    }
    let path = below.join(text);
    path.into_os_string().into_string().map_err(|_| refused("stands below a directory whose name is no text"))
}

fn open_beneath(dir: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    openat2(dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
}
