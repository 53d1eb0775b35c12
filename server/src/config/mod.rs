//! From a text to a checked configuration, with every error at once and nothing written on the way.

mod document;
mod error;
mod exposure;
mod schema;
mod section;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use plugd_core::{
    Blueprint, Descriptor, LayerBlueprint, LayerDescriptor, LayerSettings, NAME_LEN_MAX, Operation, Reading, Registry,
    did_you_mean, is_legal_name, read_settings,
};
use serde_json::{Value, json};

use self::document::{Document, position};
use self::section::{PluginSection, ServerSection};
use crate::access::{Access, Groups};
use crate::address::ListenAddress;
use crate::handlers::{CHOSEN, SHIPPED};
use crate::identity::{TokenSection, Tokens};
use crate::layers::LimitsSettings;

pub(crate) use self::schema::schema;

pub use self::error::{ConfigError, ConfigErrors};
pub(crate) use self::exposure::{Finding, Risk, exposed, stays_root};
pub use self::section::{AuditTarget, LogFormat, ServerSettings};

/// The name that no plugin may take: the server itself answers under it.
pub(crate) const RESERVED: &str = "plugd";

/// The longest configuration that is read, in bytes; a larger file is some other file.
const TEXT_LEN_MAX: u64 = 1 << 20;

/// What a server serves when there is no file at all, as far as it is linked: nothing that touches the machine.
const BUILT_IN: [&str; 2] = ["echo", "upper"];

const SECTIONS: [&str; 5] = ["groups", "layers", "plugins", "server", "tokens"];

/// Where a configuration comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    file: PathBuf,
    base_dir: PathBuf,
    text: Vec<u8>,
}

impl Origin {
    /// A configuration in memory; relative paths in it start from the current directory.
    pub fn text(text: impl Into<String>) -> Origin {
        Origin { file: "<text>".into(), base_dir: PathBuf::new(), text: text.into().into_bytes() }
    }

    /// What is served without any file: `echo` and `upper`, those of them that this crate is built with.
    pub fn built_in() -> Origin {
        let linked = BUILT_IN.into_iter().filter(|name| CHOSEN.contains(name));
        let text: String = linked.map(|name| format!("[plugins.{name}]\n")).collect();
        Origin { file: "<built-in>".into(), ..Origin::text(text) }
    }

    /// Whether it says nothing at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Reads a file of at most 1 MiB; relative paths in it start from its own directory.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] that says why the file cannot be read.
    pub fn file(path: &Path) -> Result<Origin, ConfigErrors> {
        let text = read_bounded(path).map_err(|message| {
            ConfigErrors::new(vec![ConfigError { file: path.to_owned(), position: None, message }])
        })?;
        let base_dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Origin { file: path.to_owned(), base_dir, text })
    }

    /// The file, or what stands for it.
    pub fn path(&self) -> &Path {
        &self.file
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;

    let refused = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "no such file; `plugd init` writes a commented one".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(refused)?;
    file.take(TEXT_LEN_MAX + 1).read_to_end(&mut text).map_err(refused)?;
    if text.len() as u64 > TEXT_LEN_MAX {
        return Err(format!("more than {TEXT_LEN_MAX} bytes; this is no configuration"));
    }
    Ok(text)
}

/// A plugin as it is configured, checked and not yet built.
#[derive(Debug)]
#[non_exhaustive]
pub struct PluginConfig {
    /// Its name.
    pub name: String,
    /// The name of its handler, which is linked.
    pub handler: String,
    /// Whether it can be called.
    pub enabled: bool,
    /// What stands around it, the outermost first; its own limits are within.
    pub layers: Vec<String>,
    pub(crate) limits: LimitsSettings,
    /// Who may call it; `None` means everybody.
    pub(crate) access: Option<Access>,
    /// The risks that the operator accepts for it.
    pub(crate) accepted: Vec<Risk>,
    pub(crate) blueprint: Blueprint,
    /// Its section as it was written but for who may call it, and the layers around it: what it is built from.
    pub(crate) source: Value,
}

impl PluginConfig {
    /// What the plugin offers, which its settings may decide.
    pub fn operations(&self) -> &[Operation] {
        self.blueprint.operations()
    }
}

/// A checked configuration.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// The settings of the server itself.
    pub server: ServerSettings,
    /// Every plugin, enabled or not, sorted by name.
    pub plugins: Vec<PluginConfig>,
    /// The layers that stand around some plugin.
    pub(crate) layers: BTreeMap<String, LayerBlueprint>,
    /// The tokens that callers may prove themselves with.
    pub(crate) tokens: Tokens,
    /// What the safe defaults forbid and the operator accepts; after [`Config::inspect`] also what nobody accepted.
    pub(crate) findings: Vec<Finding>,
    /// What is read at the start alone: the section `server`, and `layers`.
    pub(crate) fixed: [Value; 2],
    pub(crate) base_dir: PathBuf,
}

impl Config {
    /// Reads and checks a configuration against the handlers that are linked. `listen`, when it is not empty, takes the
    /// place of the addresses in the file.
    ///
    /// # Errors
    ///
    /// [`ConfigErrors`] with everything that is wrong, in the order of the file.
    pub fn parse(origin: &Origin, registry: &Registry, listen: &[ListenAddress]) -> Result<Config, ConfigErrors> {
        Config::read(origin, registry, listen, false)
    }

    /// As [`Config::parse`], but what the safe defaults forbid is no error, only found.
    pub(crate) fn inspect(
        origin: &Origin,
        registry: &Registry,
        listen: &[ListenAddress],
    ) -> Result<Config, ConfigErrors> {
        Config::read(origin, registry, listen, true)
    }

    fn read(
        origin: &Origin,
        registry: &Registry,
        listen: &[ListenAddress],
        forbidden_is_fine: bool,
    ) -> Result<Config, ConfigErrors> {
        let text = utf8(origin).map_err(|error| ConfigErrors::new(vec![error]))?;
        let document = Document::parse(&origin.file, text).map_err(ConfigErrors::new)?;
        let mut reader = Reader { document, registry, errors: Vec::new(), findings: Vec::new() };
        reader.refuse_unknown_sections();
        let server = reader.server(listen);
        let everywhere = reader.layers_everywhere();
        let tokens = reader.tokens();
        let groups = reader.groups();
        let plugins = reader.plugins(server.as_ref(), &everywhere, &groups);
        let layers = reader.layers(plugins.iter().flat_map(|plugin| &plugin.layers));
        let fixed = ["server", "layers"].map(|key| reader.document.section(key).cloned().unwrap_or_default());
        reader.judge_root(server.as_ref(), &plugins);
        reader.judge_tokens(server.as_ref());
        let Reader { mut errors, findings, .. } = reader;
        if !forbidden_is_fine {
            errors.extend(findings.iter().filter(|finding| !finding.accepted).map(|finding| finding.error.clone()));
        }
        match server {
            Some(server) if errors.is_empty() => {
                Ok(Config { server, plugins, layers, tokens, findings, fixed, base_dir: origin.base_dir.clone() })
            }
            _ => Err(ConfigErrors::new(errors)),
        }
    }
}

fn utf8(origin: &Origin) -> Result<&str, ConfigError> {
    std::str::from_utf8(&origin.text).map_err(|error| ConfigError {
        file: origin.file.clone(),
        position: Some(position(&origin.text, error.valid_up_to())),
        message: format!("byte {:#04x} is not UTF-8", origin.text[error.valid_up_to()]),
    })
}

/// What a plugin is built from. Who may call it changes nothing of it.
fn source(section: &Value, everywhere: &[String]) -> Value {
    let mut section = section.clone();
    if let Value::Object(members) = &mut section {
        members.retain(|key, _| key != "access" && key != "insecure");
    }
    json!([section, everywhere])
}

struct Reader<'a> {
    document: Document<'a>,
    registry: &'a Registry,
    errors: Vec<ConfigError>,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn refuse_unknown_sections(&mut self) {
        for key in self.document.keys().filter(|key| !SECTIONS.contains(key)) {
            let hint = did_you_mean(key, SECTIONS);
            let message = format!("unknown section \"{key}\"{hint}; allowed: {}", SECTIONS.join(", "));
            self.errors.push(self.document.error(&[key], message));
        }
    }

    fn server(&mut self, listen: &[ListenAddress]) -> Option<ServerSettings> {
        let value = self.document.section("server").cloned().unwrap_or_else(|| Value::Object(Default::default()));
        let Reading { settings, mut errors } = read_settings::<ServerSection>(value);
        let checked = settings.unwrap_or_default().check();
        let settings = checked.map_err(|more| errors.extend(more)).ok();
        self.errors.extend(self.document.setting_errors(&["server"], errors));
        let listen = listen.to_vec();
        settings.map(|settings| if listen.is_empty() { settings } else { ServerSettings { listen, ..settings } })
    }

    /// The layers around every plugin. What is wrong with the section itself is told elsewhere.
    fn layers_everywhere(&mut self) -> Vec<String> {
        let value = self.document.section("server").cloned().unwrap_or_else(|| Value::Object(Default::default()));
        let names = read_settings::<ServerSection>(value).settings.unwrap_or_default().layers;
        self.check_layers(&["server"], &names, &[]);
        names
    }

    /// Checks the layers that a section names, beside those that stand around it already.
    fn check_layers(&mut self, section: &[&str], names: &[String], outer: &[String]) {
        for (index, name) in names.iter().enumerate() {
            let is_repeated = names[..index].contains(name) || outer.contains(name);
            let message = match self.registry.layer(name) {
                Some(_) if !is_repeated => continue,
                Some(_) => format!("layer {name:?} stands around it already"),
                None => self.unknown_layer(name),
            };
            let index = index.to_string();
            let path = [section, &["layers", &index]].concat();
            self.errors.push(self.document.error(&path, format!("{}: {message}", path.join("."))));
        }
    }

    fn unknown_layer(&self, name: &str) -> String {
        let linked: Vec<&str> = self.registry.layers().map(LayerDescriptor::name).collect();
        let hint = did_you_mean(name, linked.iter().copied());
        format!("unknown layer {name:?}{hint}; linked: {}", linked.join(", "))
    }

    /// Checks every section `[layers.NAME]`, and prepares the layers that are `used`, with a section or without.
    fn layers<'n>(&mut self, used: impl Iterator<Item = &'n String>) -> BTreeMap<String, LayerBlueprint> {
        let sections = match self.document.section("layers") {
            None => Default::default(),
            Some(Value::Object(sections)) => sections.clone(),
            Some(_) => {
                self.errors.push(self.document.error(&["layers"], "layers is no table; write [layers.NAME]"));
                return BTreeMap::new();
            }
        };
        let used: BTreeSet<&str> = used.map(String::as_str).collect();
        let names: BTreeSet<&str> = sections.keys().map(String::as_str).chain(used.iter().copied()).collect();
        let mut layers = BTreeMap::new();
        for name in names {
            let Some(descriptor) = self.registry.layer(name) else {
                // One that is used has been reported where it is named.
                if sections.contains_key(name) {
                    let message = format!("layers.{name}: {}", self.unknown_layer(name));
                    self.errors.push(self.document.error(&["layers", name], message));
                }
                continue;
            };
            let settings = sections.get(name).cloned().unwrap_or_else(|| Value::Object(Default::default()));
            match descriptor.prepare(settings) {
                Ok(blueprint) if used.contains(name) => drop(layers.insert(name.to_owned(), blueprint)),
                Ok(_) => {}
                Err(errors) => self.errors.extend(self.document.setting_errors(&["layers", name], errors)),
            }
        }
        layers
    }

    fn groups(&mut self) -> Groups {
        let value = self.document.section("groups").cloned().unwrap_or_else(|| Value::Object(Default::default()));
        let Reading { settings, mut errors } = read_settings::<BTreeMap<String, Vec<String>>>(value);
        let (groups, more) = Groups::read(&settings.unwrap_or_default(), self.token_names());
        errors.extend(more);
        self.errors.extend(self.document.setting_errors(&["groups"], errors));
        groups
    }

    fn tokens(&mut self) -> Tokens {
        let value = self.document.section("tokens").cloned().unwrap_or_else(|| Value::Object(Default::default()));
        let Reading { settings, mut errors } = read_settings::<BTreeMap<String, TokenSection>>(value);
        let (tokens, more) = TokenSection::read(&settings.unwrap_or_default());
        errors.extend(more);
        self.errors.extend(self.document.setting_errors(&["tokens"], errors));
        tokens
    }

    /// The names of `[tokens.NAME]`, which rules may name.
    fn token_names(&self) -> Vec<String> {
        match self.document.section("tokens") {
            Some(Value::Object(tokens)) => tokens.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    fn plugins(
        &mut self,
        server: Option<&ServerSettings>,
        everywhere: &[String],
        groups: &Groups,
    ) -> Vec<PluginConfig> {
        let sections = match self.document.section("plugins") {
            Some(Value::Object(sections)) if !sections.is_empty() => sections.clone(),
            Some(Value::Object(_)) | None => {
                let message = "no plugin is configured; add one, such as [plugins.echo], or see `plugd init`";
                self.errors.push(self.document.error(&["plugins"], message));
                return Vec::new();
            }
            Some(_) => {
                self.errors.push(self.document.error(&["plugins"], "plugins is no table; write [plugins.NAME]"));
                return Vec::new();
            }
        };
        sections.into_iter().filter_map(|(name, value)| self.plugin(name, value, server, everywhere, groups)).collect()
    }

    fn plugin(
        &mut self,
        name: String,
        value: Value,
        server: Option<&ServerSettings>,
        everywhere: &[String],
        groups: &Groups,
    ) -> Option<PluginConfig> {
        let path = ["plugins", &name];
        self.check_name(&name);
        let source = source(&value, everywhere);
        let Reading { settings, errors } = read_settings::<PluginSection>(value);
        let is_access_whole = errors.iter().all(|error| error.path.first().is_none_or(|key| key != "access"));
        self.errors.extend(self.document.setting_errors(&path, errors));
        let section = settings?;
        let limits_path = ["plugins", &name, "limits"];
        let limits_errors = section.limits.check().err().unwrap_or_default();
        self.errors.extend(self.document.setting_errors(&limits_path, limits_errors));
        self.check_layers(&path, &section.layers, everywhere);
        let handler = section.handler.clone().unwrap_or_else(|| name.clone());
        let blueprint = self.prepare(&name, &handler, &section);
        // Settings that cannot be say nothing of what the plugin would offer; then the handler's own word counts.
        let described = self.registry.handler(&handler).map(Descriptor::operations);
        let operations = blueprint.as_ref().map(Blueprint::operations).or(described).unwrap_or_default();
        let (accepted, unknown) = Risk::read(&section.insecure, &Risk::OF_PLUGIN);
        self.errors.extend(self.document.setting_errors(&path, unknown));
        self.judge_plugin(&name, operations, &section, &accepted, server);
        let known = blueprint.as_ref().map(Blueprint::operations);
        // Of a rule that lost what has a wrong type, nothing more can be said.
        let access = section.access.as_ref().filter(|_| is_access_whole);
        let access = access.map(|access| access.resolve(known, groups)).transpose();
        let access = access.map_err(|errors| {
            self.errors.extend(self.document.setting_errors(&["plugins", &name, "access"], errors));
        });
        let (blueprint, access) = (blueprint?, access.ok()?);
        let PluginSection { enabled, limits, layers, .. } = section;
        let layers = [everywhere, &layers].concat();
        Some(PluginConfig { name, handler, enabled, layers, limits, access, accepted, blueprint, source })
    }

    fn check_name(&mut self, name: &str) {
        let message = if name == RESERVED {
            format!("the plugin name \"{RESERVED}\" is reserved; the server itself answers under it")
        } else if is_legal_name(name) {
            return;
        } else {
            format!("illegal plugin name {name:?}; allowed: [a-z][a-z0-9_-]*, at most {NAME_LEN_MAX} bytes")
        };
        self.errors.push(self.document.error(&["plugins", name], message));
    }

    fn prepare(&mut self, name: &str, handler: &str, section: &PluginSection) -> Option<Blueprint> {
        let Some(descriptor) = self.registry.handler(handler) else {
            let message = self.unknown_handler(name, handler);
            self.errors.push(self.document.error(&["plugins", name, "handler"], message));
            return None;
        };
        match descriptor.prepare(Value::Object(section.config.clone())) {
            Ok(blueprint) => Some(blueprint),
            Err(errors) => {
                self.errors.extend(self.document.setting_errors(&["plugins", name, "config"], errors));
                None
            }
        }
    }

    fn unknown_handler(&self, name: &str, handler: &str) -> String {
        let linked = self.registry.names().collect::<Vec<_>>().join(", ");
        if SHIPPED.contains(&handler) {
            return format!(
                "plugins.{name}: handler \"{handler}\" is not linked into this program; build one with it, or remove \
                 the plugin; linked: {linked}"
            );
        }
        let hint = match self.registry.nearest(handler) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => "say which one with `handler = \"NAME\"`".to_owned(),
        };
        format!("plugins.{name}: unknown handler {handler:?}; {hint}; linked: {linked}")
    }
}
