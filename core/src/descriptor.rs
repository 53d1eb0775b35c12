//! What a handler crate says of itself: its name, its operations, its settings, and how an instance is built.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::call::without_position;
use crate::schema::{unknown_keys, wrong_values};
use crate::settings::{self, Blueprint, SettingError, Settings, Writes};
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

/// Nothing is allowed here.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoArguments {}

/// A side channel of an operation.
#[derive(Debug, Clone, Serialize)]
struct Channel {
    number: u8,
    name: &'static str,
    /// `input` from the caller, `output` to it.
    direction: &'static str,
}

/// One thing that a handler offers.
#[derive(Debug, Clone)]
pub struct Operation {
    name: Cow<'static, str>,
    summary: Cow<'static, str>,
    streaming: Streaming,
    effects: bool,
    runs: bool,
    channels: Vec<Channel>,
    args: Schema,
}

impl Operation {
    /// A unary operation without arguments and effects; `name` is a [legal name](crate::is_legal_name).
    pub fn new(name: impl Into<Cow<'static, str>>, summary: impl Into<Cow<'static, str>>) -> Operation {
        let (name, summary) = (name.into(), summary.into());
        let args = settings::schema_of::<NoArguments>();
        let streaming = Streaming::Unary;
        Operation { name, summary, streaming, effects: false, runs: false, channels: Vec::new(), args }
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

    /// Says that the operation runs programs for its caller, so that it is served nowhere unguarded. It has effects then.
    #[must_use]
    pub fn runs_programs(mut self) -> Operation {
        self.runs = true;
        self.has_effects()
    }

    /// Names a side channel, 1 to 255, on which the handler receives.
    #[must_use]
    pub fn input_channel(mut self, number: u8, name: &'static str) -> Operation {
        self.channels.push(Channel { number, name, direction: "input" });
        self
    }

    /// Names a side channel, 1 to 255, on which the handler sends.
    #[must_use]
    pub fn output_channel(mut self, number: u8, name: &'static str) -> Operation {
        self.channels.push(Channel { number, name, direction: "output" });
        self
    }

    /// Says which arguments the operation takes; the handler reads the same type with [`Call::args`](crate::Call::args).
    #[must_use]
    pub fn args<A: JsonSchema + DeserializeOwned>(mut self) -> Operation {
        self.args = settings::schema_of::<A>();
        self
    }

    /// Says which arguments the operation takes by a JSON Schema that was made at run time, for an operation that comes from
    /// settings. The schema holds its parts inline; see [`unknown_keys`] for what is read of it.
    #[must_use]
    pub fn args_schema(mut self, args: Schema) -> Operation {
        self.args = args;
        self
    }

    /// The name within the handler.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One line for people.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// The JSON Schema of the arguments.
    pub fn args_schema_value(&self) -> &Value {
        self.args.as_value()
    }

    /// How the operation moves data.
    pub fn streaming(&self) -> Streaming {
        self.streaming
    }

    /// Whether the operation changes or runs something.
    pub fn effects(&self) -> bool {
        self.effects
    }

    /// Whether the operation runs programs for its caller.
    pub fn runs(&self) -> bool {
        self.runs
    }

    /// Refuses arguments that the operation does not know, and values that its schema does not allow: of another type, out of
    /// range, too short or long, none of the choices, or missing. What a schema cannot say is checked by the handler that
    /// reads them.
    ///
    /// # Errors
    ///
    /// `invalid_argument` with reason `unknown-argument`, which names every one of them and the nearest known name, or with
    /// reason `bad-arguments`, which says of every value where it stands, what was found and what is allowed.
    pub fn check_args(&self, args: &str) -> Result<(), Status> {
        let value: Value = serde_json::from_str(args)
            .map_err(|error| Status::invalid_argument("bad-arguments", without_position(&error)))?;
        let unknown = unknown_keys(self.args.as_value(), &value);
        // What is missing is most likely there under a name that is not known.
        let mut wrong = wrong_values(self.args.as_value(), &value);
        wrong.retain(|wrong| unknown.is_empty() || !wrong.is_missing);
        let reason = if unknown.is_empty() { "bad-arguments" } else { "unknown-argument" };
        let unknown = unknown.iter().map(|key| format!("unknown argument \"{}\"{}", key.path.join("."), key.remedy()));
        let wrong = wrong.iter().map(|wrong| format!("{}{}", place(&wrong.path), wrong.message));
        let texts: Vec<String> = unknown.chain(wrong).collect();
        if texts.is_empty() { Ok(()) } else { Err(Status::invalid_argument(reason, texts.join("; "))) }
    }

    fn describe(&self) -> Value {
        json!({
            "name": self.name,
            "summary": self.summary,
            "streaming": self.streaming,
            "effects": self.effects,
            "channels": self.channels,
            "args": self.args,
        })
    }
}

/// The beginning of a message about an argument.
fn place(path: &[String]) -> String {
    if path.is_empty() { String::new() } else { format!("argument \"{}\": ", path.join(".")) }
}

type Prepare = Box<dyn Fn(Value, &[Operation]) -> Result<Blueprint, Vec<SettingError>> + Send + Sync>;

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
            settings: settings::schema_of::<NoArguments>(),
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
        self.prepare = Some(Box::new(move |settings, operations| {
            let unknown = settings::unknown_settings(&schema, &settings);
            if !unknown.is_empty() {
                return Err(unknown);
            }
            let writes = Writes::by_effects(operations);
            Ok(Blueprint::new(operations.to_vec(), writes, move |_| Ok(Arc::new(make()))))
        }));
        self
    }

    /// Says which settings the handler has; they build its instances.
    #[must_use]
    pub fn settings<S: Settings>(mut self) -> Descriptor {
        self.settings = settings::schema_of::<S>();
        let schema = self.settings.clone();
        self.prepare =
            Some(Box::new(move |settings, operations| settings::prepare::<S>(&schema, settings, operations)));
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

    /// Everything that the handler may offer, in the order in which it was described. What one plugin offers, its
    /// settings decide: [`Blueprint::operations`].
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
    /// Every unknown key, every value of a wrong type, and everything that [`Settings::check`] finds.
    pub fn prepare(&self, settings: Value) -> Result<Blueprint, Vec<SettingError>> {
        match &self.prepare {
            Some(prepare) => prepare(settings, &self.operations),
            None => Err(vec![SettingError::new("", "the handler does not say how it is built")]),
        }
    }

    /// The description for people and programs, as one JSON object; settings and arguments are JSON Schemas.
    pub fn describe(&self) -> Value {
        self.describe_with(&self.operations)
    }

    /// The description of a plugin of this handler, which offers `operations`: those of its [`Blueprint`].
    pub fn describe_with(&self, operations: &[Operation]) -> Value {
        let operations: Vec<Value> = operations.iter().map(Operation::describe).collect();
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
