//! What a handler crate says of itself: its name, its operations, its settings, and how an instance is built.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::call::without_position;
use crate::schema::unknown_keys;
use crate::{Handler, Status};

/// How an operation moves data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streaming {
    /// Takes little or nothing and answers once.
    Unary,
    /// Takes a stream and answers once.
    Client,
    /// Takes little or nothing and answers with a stream.
    Server,
    /// Takes a stream and answers with one.
    Both,
}

impl Streaming {
    /// The name in descriptions.
    pub fn name(self) -> &'static str {
        match self {
            Streaming::Unary => "unary",
            Streaming::Client => "client",
            Streaming::Server => "server",
            Streaming::Both => "both",
        }
    }
}

/// The arguments of an operation that takes none.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArguments {}

/// One thing that a handler offers.
#[derive(Debug, Clone)]
pub struct Operation {
    name: &'static str,
    summary: &'static str,
    streaming: Streaming,
    effects: bool,
    channels: Vec<(u8, &'static str)>,
    args: Schema,
}

impl Operation {
    /// A unary operation without arguments and effects; `name` is a [legal name](crate::is_legal_name).
    pub fn new(name: &'static str, summary: &'static str) -> Operation {
        let args = schema_of::<NoArguments>();
        Operation { name, summary, streaming: Streaming::Unary, effects: false, channels: Vec::new(), args }
    }

    /// Says how the operation moves data.
    #[must_use]
    pub fn streams(mut self, streaming: Streaming) -> Operation {
        self.streaming = streaming;
        self
    }

    /// Says that the operation changes or runs something, so that it is not served beyond loopback unguarded.
    #[must_use]
    pub fn has_effects(mut self) -> Operation {
        self.effects = true;
        self
    }

    /// Names a side channel, 1 to 255, in either direction.
    #[must_use]
    pub fn channel(mut self, number: u8, name: &'static str) -> Operation {
        self.channels.push((number, name));
        self
    }

    /// Says which arguments the operation takes; the handler reads the same type with [`Call::args`](crate::Call::args).
    #[must_use]
    pub fn args<A: JsonSchema + DeserializeOwned>(mut self) -> Operation {
        self.args = schema_of::<A>();
        self
    }

    /// The name within the handler.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// One line for people.
    pub fn summary(&self) -> &'static str {
        self.summary
    }

    /// Whether the operation changes or runs something.
    pub fn effects(&self) -> bool {
        self.effects
    }

    /// Refuses arguments that the operation does not know. Their values are checked by the handler that reads them.
    ///
    /// # Errors
    ///
    /// `invalid_argument` with reason `unknown-argument`, which names every one of them and the nearest known name.
    pub fn check_args(&self, args: &str) -> Result<(), Status> {
        let value: Value = serde_json::from_str(args)
            .map_err(|error| Status::invalid_argument("bad-arguments", without_position(&error)))?;
        let unknown = unknown_keys(self.args.as_value(), &value);
        if unknown.is_empty() {
            return Ok(());
        }
        let texts: Vec<String> =
            unknown.iter().map(|key| format!("unknown argument \"{}\"{}", key.path.join("."), key.remedy())).collect();
        Err(Status::invalid_argument("unknown-argument", texts.join("; ")))
    }

    fn describe(&self) -> Value {
        let channels: Vec<Value> =
            self.channels.iter().map(|(number, name)| json!({ "number": number, "name": name })).collect();
        json!({
            "name": self.name,
            "summary": self.summary,
            "streaming": self.streaming,
            "effects": self.effects,
            "channels": channels,
            "args": self.args,
        })
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", if .path.is_empty() { String::new() } else { format!("{}: ", .path.join(".")) })]
pub struct SettingError {
    /// Where it stands within the plugin's settings: keys, and indices of arrays in decimal. Empty means all of them.
    pub path: Vec<String>,
    /// What was found and what is allowed.
    pub message: String,
}

impl SettingError {
    /// Complains about the setting at `key`, with dots between the levels.
    pub fn new(key: &str, message: impl Into<String>) -> SettingError {
        let path = key.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        SettingError { path, message: message.into() }
    }
}

/// Why an instance could not be built although its settings are good, such as a directory that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StartError {
    /// Says what was tried.
    pub fn new(message: impl Into<String>) -> StartError {
        StartError { message: message.into(), source: None }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StartError {
        self.source = Some(source.into());
        self
    }
}

/// Where an instance is built.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Context {
    /// The directory that relative paths in settings start from: the configuration file's own.
    pub base_dir: PathBuf,
}

impl Context {
    /// A context whose relative paths start from `base_dir`.
    pub fn new(base_dir: impl Into<PathBuf>) -> Context {
        Context { base_dir: base_dir.into() }
    }
}

/// The settings of a handler: plain data that knows how to check itself and what to become.
pub trait Settings: DeserializeOwned + JsonSchema + Send + 'static {
    /// What the settings build.
    type Handler: Handler;

    /// Checks what types cannot say. It has no effects: it also runs for disabled plugins and for `plugd check`.
    ///
    /// # Errors
    ///
    /// Every setting that cannot be.
    fn check(&self) -> Result<(), Vec<SettingError>> {
        Ok(())
    }

    /// Builds an instance, once the whole configuration has been accepted.
    ///
    /// # Errors
    ///
    /// What keeps the instance from working; the server then does not start.
    fn build(self, context: &Context) -> Result<Self::Handler, StartError>;
}

type Prepared = Box<dyn FnOnce(&Context) -> Result<Arc<dyn Handler>, StartError> + Send>;

/// Settings that were checked, ready to become an instance.
pub struct Blueprint(Prepared);

impl Blueprint {
    /// Builds the instance; see [`Settings::build`].
    ///
    /// # Errors
    ///
    /// As [`Settings::build`].
    pub fn build(self, context: &Context) -> Result<Arc<dyn Handler>, StartError> {
        (self.0)(context)
    }
}

impl std::fmt::Debug for Blueprint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Blueprint")
    }
}

type Prepare = Box<dyn Fn(Value) -> Result<Blueprint, Vec<SettingError>> + Send + Sync>;

/// What a handler crate says of itself.
pub struct Descriptor {
    name: &'static str,
    summary: &'static str,
    operations: Vec<Operation>,
    settings: Schema,
    prepare: Option<Prepare>,
    package: &'static str,
    version: &'static str,
}

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Descriptor").field("name", &self.name).field("package", &self.package).finish_non_exhaustive()
    }
}

impl Descriptor {
    /// Describes the handler `name`, which is a [legal name](crate::is_legal_name).
    pub fn new(name: &'static str, summary: &'static str) -> Descriptor {
        Descriptor {
            name,
            summary,
            operations: Vec::new(),
            settings: schema_of::<NoArguments>(),
            prepare: None,
            package: "",
            version: "",
        }
    }

    /// Adds an operation. The only operation of a handler can be called by the plugin's name alone.
    #[must_use]
    pub fn operation(mut self, operation: Operation) -> Descriptor {
        self.operations.push(operation);
        self
    }

    /// Says that the handler has no settings, and how to make an instance.
    #[must_use]
    pub fn handler<H: Handler>(mut self, make: fn() -> H) -> Descriptor {
        let schema = self.settings.clone();
        self.prepare = Some(Box::new(move |settings| {
            refuse_unknown(&schema, &settings)?;
            Ok(Blueprint(Box::new(move |_| Ok(Arc::new(make())))))
        }));
        self
    }

    /// Says which settings the handler has; they build its instances.
    #[must_use]
    pub fn settings<S: Settings>(mut self) -> Descriptor {
        self.settings = schema_of::<S>();
        let schema = self.settings.clone();
        self.prepare = Some(Box::new(move |settings| prepare::<S>(&schema, settings)));
        self
    }

    pub(crate) fn registered_by(self, package: &'static str, version: &'static str) -> Descriptor {
        Descriptor { package, version, ..self }
    }

    /// The handler's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// One line for people.
    pub fn summary(&self) -> &'static str {
        self.summary
    }

    /// The package that registered the handler.
    pub fn package(&self) -> &'static str {
        self.package
    }

    /// The version of that package.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// Everything that the handler offers, in the order in which it was described.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Whether an instance can be made at all.
    pub(crate) fn is_complete(&self) -> bool {
        self.prepare.is_some() && !self.operations.is_empty()
    }

    /// Checks the settings of a plugin, without any effect.
    ///
    /// # Errors
    ///
    /// Every unknown key, the first value of a wrong type, and everything that [`Settings::check`] finds.
    pub fn prepare(&self, settings: Value) -> Result<Blueprint, Vec<SettingError>> {
        match &self.prepare {
            Some(prepare) => prepare(settings),
            None => Err(vec![SettingError::new("", "the handler does not say how it is built")]),
        }
    }

    /// The description for people and programs, as one JSON object; settings and arguments are JSON Schemas.
    pub fn describe(&self) -> Value {
        let operations: Vec<Value> = self.operations.iter().map(Operation::describe).collect();
        json!({
            "handler": self.name,
            "summary": self.summary,
            "package": self.package,
            "version": self.version,
            "operations": operations,
            "settings": self.settings,
        })
    }
}

fn prepare<S: Settings>(schema: &Schema, settings: Value) -> Result<Blueprint, Vec<SettingError>> {
    let unknown = refuse_unknown(schema, &settings).err().unwrap_or_default();
    // Settings that say `deny_unknown_fields` stop at the first unknown key, which has just been reported better.
    let settings: S = match serde_path_to_error::deserialize(settings) {
        Ok(settings) => settings,
        Err(_) if !unknown.is_empty() => return Err(unknown),
        Err(error) => {
            let path = error.path().iter().map(ToString::to_string).filter(|part| part != "?").collect();
            return Err(vec![SettingError { path, message: without_position(&error.into_inner()) }]);
        }
    };
    let mut errors = unknown;
    errors.extend(settings.check().err().unwrap_or_default());
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Blueprint(Box::new(move |context| Ok(Arc::new(settings.build(context)?)))))
}

fn refuse_unknown(schema: &Schema, settings: &Value) -> Result<(), Vec<SettingError>> {
    let unknown = unknown_keys(schema.as_value(), settings);
    if unknown.is_empty() {
        return Ok(());
    }
    let error = |key: crate::UnknownKey| SettingError {
        message: format!("unknown setting \"{}\"{}", key.key(), key.remedy()),
        path: key.path,
    };
    Err(unknown.into_iter().map(error).collect())
}

fn schema_of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}
