//! Settings: plain data that is checked as a whole before anything is built from it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::call::without_position;
use crate::name::illegal_or_repeated;
use crate::schema::{UnknownKey, misplaced_values, unknown_keys};
use crate::{Context, Handler, Operation};

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

/// What a plugin writes on its own machine; the program `plugd` lets the whole process write nothing else, where the
/// kernel can hold it to that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writes {
    /// No file at all.
    Nothing,
    /// What is in these directories, relative to [`Context::base_dir`]. They are made before the plugin is built.
    Below(Vec<PathBuf>),
    /// Nobody can tell: it starts programs, or has not said.
    Anything,
}

impl Writes {
    /// Nothing, when none of `operations` changes or runs anything, and else anything.
    pub(crate) fn by_effects(operations: &[Operation]) -> Writes {
        if operations.iter().any(Operation::effects) { Writes::Anything } else { Writes::Nothing }
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

    /// What a plugin with these settings offers; `described` is what its handler described, and the default. It runs after
    /// [`Settings::check`] found nothing, and like it has no effects.
    ///
    /// Every operation needs a [legal name](crate::is_legal_name) of its own, and there must be one at the least.
    fn operations(&self, described: Vec<Operation>) -> Vec<Operation> {
        described
    }

    /// What a plugin with these settings and `operations` writes on this machine. By default nothing, when none of the
    /// operations changes or runs anything, and else anything.
    fn writes(&self, operations: &[Operation]) -> Writes {
        Writes::by_effects(operations)
    }

    /// Builds an instance, once the whole configuration has been accepted and every address is bound.
    ///
    /// Work that goes on beside calls belongs into [`Context::spawn`]: it begins when every plugin was built, and stops
    /// with the instance. When settings change while the server runs, the new instance is built while the old one still
    /// serves, so that what both need can only be had by both or be taken later.
    ///
    /// # Errors
    ///
    /// What keeps the instance from working; the server then does not start, or stays as it was.
    fn build(self, context: &Context) -> Result<Self::Handler, StartError>;
}

type Build = Box<dyn FnOnce(&Context) -> Result<Arc<dyn Handler>, StartError> + Send>;

/// Settings that were checked, ready to become an instance.
pub struct Blueprint {
    operations: Vec<Operation>,
    writes: Writes,
    build: Build,
}

impl Blueprint {
    pub(crate) fn new(
        operations: Vec<Operation>,
        writes: Writes,
        build: impl FnOnce(&Context) -> Result<Arc<dyn Handler>, StartError> + Send + 'static,
    ) -> Blueprint {
        Blueprint { operations, writes, build: Box::new(build) }
    }

    /// What the instance will offer; see [`Settings::operations`].
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// What the instance will write on this machine; see [`Settings::writes`].
    pub fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Builds the instance; see [`Settings::build`].
    ///
    /// # Errors
    ///
    /// As [`Settings::build`].
    pub fn build(self, context: &Context) -> Result<Arc<dyn Handler>, StartError> {
        (self.build)(context)
    }
}

impl std::fmt::Debug for Blueprint {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Blueprint").field("operations", &self.operations).finish_non_exhaustive()
    }
}

/// What could be read of settings, and everything that is wrong with them.
#[derive(Debug)]
pub struct Reading<S> {
    /// The settings without the keys that are wrong; `None` when what is left is not enough.
    pub settings: Option<S>,
    /// Unknown keys first, sorted by path; then the values of a wrong type and the keys that are missing.
    pub errors: Vec<SettingError>,
}

/// Reads `value` as `S` and reports everything that is wrong with it, not just what serde meets first.
///
/// What is right can be read even so, and be checked further: an operator should see all errors at once.
pub fn read_settings<S: DeserializeOwned + JsonSchema>(value: Value) -> Reading<S> {
    read(&schema_of::<S>(), value)
}

fn read<S: DeserializeOwned>(schema: &Schema, mut value: Value) -> Reading<S> {
    let mut errors = unknown_settings(schema, &value);
    errors.extend(
        misplaced_values(schema.as_value(), &value)
            .into_iter()
            .map(|path| SettingError { message: "expected a table".to_owned(), path }),
    );
    let mut bad: BTreeSet<Vec<String>> = errors.iter().map(|error| error.path.clone()).collect();
    if bad.contains(&Vec::new()) {
        return Reading { settings: None, errors };
    }
    for path in &bad {
        remove(&mut value, path);
    }
    // A type error ends serde's reading. With the culprit taken out, the next reading finds the next one; each removes
    // a key, so this ends. What is missing because it was taken out has been reported already.
    loop {
        let error = match serde_path_to_error::deserialize::<_, S>(value.clone()) {
            Ok(settings) => return Reading { settings: Some(settings), errors },
            Err(error) => setting_error(&error),
        };
        let removed = remove(&mut value, &error.path);
        if removed {
            bad.insert(error.path.clone());
        }
        if removed || !bad.iter().any(|path| is_missing(&error, path)) {
            errors.push(error);
        }
        if !removed {
            return Reading { settings: None, errors };
        }
    }
}

fn setting_error(error: &serde_path_to_error::Error<serde_json::Error>) -> SettingError {
    let path = error.path().iter().filter_map(|segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    SettingError { path: path.collect(), message: without_position(error.inner()) }
}

fn is_missing(error: &SettingError, path: &[String]) -> bool {
    path.last().is_some_and(|key| error.message == format!("missing field `{key}`"))
}

/// Takes the value at `path` out, with the whole array when it stands in one; reports whether there was one.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((key, rest)) = path.split_first() else { return false };
    let Value::Object(members) = value else { return false };
    match members.get_mut(key) {
        Some(member) if member.is_object() && !rest.is_empty() => remove(member, rest),
        Some(_) => members.remove(key).is_some(),
        None => false,
    }
}

pub(crate) fn prepare<S: Settings>(
    schema: &Schema,
    settings: Value,
    described: &[Operation],
) -> Result<Blueprint, Vec<SettingError>> {
    let settings = read_checked(schema, settings, S::check)?;
    let operations = settings.operations(described.to_vec());
    check_operations(&operations)?;
    let writes = settings.writes(&operations);
    Ok(Blueprint::new(operations, writes, move |context| Ok(Arc::new(settings.build(context)?))))
}

/// Reads settings and checks what types cannot say, and reports everything that is wrong with either.
pub(crate) fn read_checked<S: DeserializeOwned>(
    schema: &Schema,
    settings: Value,
    check: impl FnOnce(&S) -> Result<(), Vec<SettingError>>,
) -> Result<S, Vec<SettingError>> {
    let Reading { settings, mut errors } = read::<S>(schema, settings);
    let Some(settings) = settings else { return Err(errors) };
    // Where a value was taken out for its type, what stands there instead is not the operator's.
    let more = check(&settings).err().unwrap_or_default();
    let more: Vec<_> = more.into_iter().filter(|error| errors.iter().all(|known| known.path != error.path)).collect();
    errors.extend(more);
    if errors.is_empty() { Ok(settings) } else { Err(errors) }
}

/// What the registry checks of a handler, for the operations of one plugin.
fn check_operations(operations: &[Operation]) -> Result<(), Vec<SettingError>> {
    let message = match illegal_or_repeated(operations.iter().map(Operation::name)) {
        Some(name) => format!("the operation {name:?} has no legal name or is there twice"),
        None if operations.is_empty() => "these settings leave nothing to call".to_owned(),
        None => return Ok(()),
    };
    Err(vec![SettingError::new("", message)])
}

pub(crate) fn unknown_settings(schema: &Schema, settings: &Value) -> Vec<SettingError> {
    let error = |key: UnknownKey| SettingError {
        message: format!("unknown key \"{}\"{}", key.key(), key.remedy()),
        path: key.path,
    };
    unknown_keys(schema.as_value(), settings).into_iter().map(error).collect()
}

pub(crate) fn schema_of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the reading is tested")]
    struct Sample {
        root: String,
        #[serde(default)]
        writable: bool,
        #[serde(default)]
        sizes: Vec<u8>,
    }

    fn complaints(value: Value) -> Vec<String> {
        read_settings::<Sample>(value).errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_bad_setting_is_reported_at_once() {
        let found = complaints(json!({ "rot": 1, "root": 5, "writable": "yes", "sizes": [1, 999] }));
        assert_eq!(
            found,
            [
                "rot: unknown key \"rot\"; did you mean \"root\"?; allowed: root, sizes, writable",
                "root: invalid type: integer `5`, expected a string",
                "sizes.1: invalid value: integer `999`, expected u8",
                "writable: invalid type: string \"yes\", expected a boolean",
            ]
        );
    }

    #[test]
    fn a_table_is_not_read_from_an_array() {
        assert_eq!(complaints(json!(["x", true, []])), ["expected a table"]);
    }

    /// Offers an operation for each name.
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Names {
        names: Vec<String>,
    }

    #[derive(Debug)]
    struct Nothing;

    #[async_trait::async_trait]
    impl Handler for Nothing {
        async fn handle(&self, _call: &mut crate::Call) -> Result<(), crate::Status> {
            Ok(())
        }
    }

    impl Settings for Names {
        type Handler = Nothing;

        fn operations(&self, described: Vec<Operation>) -> Vec<Operation> {
            let named = self.names.iter().map(|name| Operation::new(name.clone(), "comes from settings"));
            described.into_iter().chain(named).collect()
        }

        fn build(self, _context: &Context) -> Result<Nothing, StartError> {
            Ok(Nothing)
        }
    }

    #[test]
    fn settings_decide_what_a_plugin_offers() {
        let names = |names: &[&str], described: &[Operation]| {
            prepare::<Names>(&schema_of::<Names>(), json!({ "names": names }), described)
                .map(|blueprint| blueprint.operations().iter().map(|op| op.name().to_owned()).collect::<Vec<_>>())
                .map_err(|errors| errors[0].to_string())
        };
        let described = [Operation::new("run", "")];
        assert_eq!(
            names(&["tail", "head"], &described),
            Ok(vec!["run".to_owned(), "tail".to_owned(), "head".to_owned()])
        );
        assert_eq!(
            names(&["run"], &described),
            Err("the operation \"run\" has no legal name or is there twice".to_owned())
        );
        assert_eq!(names(&["A"], &[]), Err("the operation \"A\" has no legal name or is there twice".to_owned()));
        assert_eq!(names(&[], &[]), Err("these settings leave nothing to call".to_owned()));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(complaints(json!({})), ["missing field `root`"]);
    }
}
