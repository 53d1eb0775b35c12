//! The sections of a configuration as they are written, and the checks that types cannot make.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use plugd_core::SettingError;
use plugd_core::wire::{
    DATA_LEN_MAX, DATA_LEN_MAX_DEFAULT, DATA_LEN_MAX_LEAST, FrameLimits, HEADER_LEN_MAX, HEADER_LEN_MAX_LEAST,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Risk;
use crate::access::AccessSection;
use crate::address::{DEFAULT_PORT, ListenAddress};
use crate::layers::LimitsSettings;
use crate::limits::ConnectionLimits;
use crate::process::Account;
use crate::tls::{TlsSection, TlsTable};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object on each line.
    Json,
}

/// Where the lines of the audit go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AuditTarget {
    /// Where the log goes, and filtered as it is.
    #[default]
    Log,
    /// To the service manager's journal.
    Journald,
    /// To the end of this file, a JSON object a line; relative to the configuration file.
    File(PathBuf),
}

/// The section `[server]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ServerSection {
    /// Where to listen.
    listen: Vec<String>,
    /// What `tls://` addresses show and take.
    tls: TlsSection,
    /// What stands around every plugin, the outermost first.
    pub(super) layers: Vec<String>,
    /// How many connections may be open at once.
    #[schemars(range(min = 1, max = 100_000))]
    connections_max: u32,
    /// How many connections may be open at once from one address, or of one user over unix sockets.
    #[schemars(range(min = 1, max = 100_000))]
    connections_per_address_max: u32,
    /// How many connections may be open at once whose first opening header is not whole yet.
    #[schemars(range(min = 1, max = 100_000))]
    connections_unidentified_max: u32,
    /// How many calls a connection takes, one after the other, before it is closed.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    calls_per_connection_max: u32,
    /// How many frames without payload a call may have.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    empty_frames_max: u32,
    /// How much of a data frame that has begun must arrive in a second.
    #[schemars(with = "plugd_core::schema::ByteSize")]
    body_rate_min: ByteSize,
    /// How long a data frame may take beyond what that rate gives it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    body_rate_grace: Duration,
    /// How many wrong tokens from one address, or of one user over unix sockets, are answered.
    #[schemars(range(min = 1, max = 1_000))]
    token_failures_max: u32,
    /// How long no token is taken from there after the last of them.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    token_penalty: Duration,
    /// How long a caller may read nothing of what waits for it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    write_timeout: Duration,
    /// The longest data frame that is accepted.
    #[schemars(with = "plugd_core::schema::ByteSize")]
    frame_max: ByteSize,
    /// The longest opening header that is accepted.
    #[schemars(with = "plugd_core::schema::ByteSize")]
    header_max: ByteSize,
    /// How long a new connection, or a header that has begun to arrive, may take until the header is whole.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    header_timeout: Duration,
    /// How long a connection may wait between two calls.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    idle_timeout: Duration,
    /// How long running calls may take to finish when the server is told to stop.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    drain_timeout: Duration,
    /// How long a handler may take to clean up after its call was cancelled.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "plugd_core::schema::TimeSpan")]
    grace: Duration,
    /// The congestion control of TCP connections, such as cubic; the system's own unless told otherwise. Linux only.
    congestion: Option<String>,
    /// How many threads serve connections; half of the processors unless told otherwise.
    #[schemars(range(min = 1, max = 1024))]
    workers: u32,
    /// The user, by name or number, that the server becomes when it has bound its addresses; then it is started as root.
    user: Option<String>,
    /// The group that it becomes then; the user's own unless told otherwise.
    group: Option<String>,
    /// Whether the kernel holds the process to the files that its plugins write. Linux only.
    landlock: bool,
    /// What is logged: a level, or a filter such as `info,plugd::call=debug`.
    log: String,
    /// How log lines look: text or json.
    log_format: LogFormat,
    /// Where a line goes for each call, and for each command that somebody asked for: log, journald, or file:PATH.
    audit: String,
    /// Who may connect to unix sockets, as permissions in octal: 0600 the server's user, 0660 its group too, 0666 everybody.
    #[schemars(extend("enum" = ["0600", "0660", "0666"]))]
    unix_mode: String,
    /// The risks that are accepted, by name.
    #[schemars(extend("items" = json!({ "enum": Risk::OF_SERVER.map(Risk::name) })))]
    insecure: Vec<String>,
}

impl Default for ServerSection {
    fn default() -> ServerSection {
        ServerSection {
            listen: vec![format!("tcp://127.0.0.1:{DEFAULT_PORT}")],
            tls: TlsSection::default(),
            layers: Vec::new(),
            connections_max: 1024,
            connections_per_address_max: 128,
            connections_unidentified_max: 256,
            calls_per_connection_max: 100_000_000,
            empty_frames_max: 10_000,
            body_rate_min: ByteSize::kib(1),
            body_rate_grace: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            token_failures_max: 10,
            token_penalty: Duration::from_secs(60),
            frame_max: ByteSize(DATA_LEN_MAX_DEFAULT.into()),
            header_max: ByteSize(HEADER_LEN_MAX.into()),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(2),
            congestion: None,
            workers: workers_default(),
            user: None,
            group: None,
            landlock: true,
            log: "info".to_owned(),
            log_format: LogFormat::Text,
            audit: "log".to_owned(),
            unix_mode: "0600".to_owned(),
            insecure: Vec::new(),
        }
    }
}

/// Half of the processors: the kernel's share of network work is as large as ours, and callers may be on the same machine.
fn workers_default() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    (processors / 2).clamp(1, 1024)
}

/// The checked settings of the server itself.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServerSettings {
    /// Where to listen; at least one address.
    pub listen: Vec<ListenAddress>,
    /// How many connections may be open at once, 1 to 100,000.
    pub connections_max: u32,
    /// The longest frames that are accepted.
    pub frame_limits: FrameLimits,
    /// How long a new connection, or a header that has begun to arrive, may take until the header is whole.
    pub header_timeout: Duration,
    /// How long a connection may wait between two calls.
    pub idle_timeout: Duration,
    /// How long running calls may take to finish when the server is told to stop.
    pub drain_timeout: Duration,
    /// How long a handler may take to clean up after its call was cancelled.
    pub grace: Duration,
    /// The congestion control of TCP connections; `None` means the system's own.
    pub congestion: Option<String>,
    /// How many threads serve connections, 1 to 1,024. The program reads it; a library's caller brings its own runtime.
    pub workers: u32,
    /// Who the server becomes when it has bound its addresses; `None` means that it stays who it is.
    pub(crate) account: Option<Account>,
    /// Whether the program confines itself to the files that its plugins write.
    pub(crate) landlock: bool,
    /// What is logged, as a filter of `tracing-subscriber`.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where the lines of the audit go. The program reads it, as it does `log`.
    pub audit: AuditTarget,
    /// What `tls://` addresses show and take.
    pub(crate) tls: TlsTable,
    /// How many wrong tokens from one peer are answered.
    pub(crate) token_failures_max: u32,
    /// How long no token is taken from that peer then.
    pub(crate) token_penalty: Duration,
    /// What a connection may use.
    pub(crate) limits: ConnectionLimits,
    /// The permissions of unix sockets.
    pub(crate) unix_mode: u32,
    /// The risks that the operator accepts.
    pub(crate) accepted: Vec<Risk>,
}

impl ServerSection {
    /// Checks every bound. No time and no size is ever without a limit.
    pub(super) fn check(self) -> Result<ServerSettings, Vec<SettingError>> {
        let second = Duration::from_secs(1);
        let mut checks = Checks::default();
        let listen = checks.listen(&self.listen);
        let settings = ServerSettings {
            tls: checks.tls(self.tls.clone(), &listen),
            listen,
            connections_max: checks.within("connections_max", self.connections_max, 1..=100_000),
            frame_limits: FrameLimits {
                data_len_max: checks.size("frame_max", self.frame_max, DATA_LEN_MAX_LEAST..=DATA_LEN_MAX),
                header_len_max: checks.size("header_max", self.header_max, HEADER_LEN_MAX_LEAST..=HEADER_LEN_MAX),
            },
            header_timeout: checks.time("header_timeout", self.header_timeout, second / 10..=600 * second),
            idle_timeout: checks.time("idle_timeout", self.idle_timeout, second / 10..=86_400 * second),
            drain_timeout: checks.time("drain_timeout", self.drain_timeout, Duration::ZERO..=3_600 * second),
            grace: checks.time("grace", self.grace, Duration::ZERO..=60 * second),
            congestion: self.congestion.clone(),
            workers: checks.within("workers", self.workers, 1..=1024),
            account: checks.account(self.user.as_deref(), self.group.as_deref()),
            landlock: self.landlock,
            log: self.log.clone(),
            log_format: self.log_format,
            audit: checks.audit(&self.audit),
            limits: checks.limits(&self),
            token_failures_max: checks.within("token_failures_max", self.token_failures_max, 1..=1_000),
            token_penalty: checks.time("token_penalty", self.token_penalty, second..=86_400 * second),
            unix_mode: checks.unix_mode(&self.unix_mode),
            accepted: checks.accepted(&self.insecure, &Risk::OF_SERVER),
        };
        checks.log(&settings.log);
        if checks.0.is_empty() { Ok(settings) } else { Err(checks.0) }
    }
}

/// Collects what is out of bounds.
#[derive(Default)]
struct Checks(Vec<SettingError>);

impl Checks {
    fn within<T: PartialOrd + Display>(&mut self, key: &str, found: T, allowed: RangeInclusive<T>) -> T {
        if !allowed.contains(&found) {
            let message = format!("{found} is out of range; allowed: {} to {}", allowed.start(), allowed.end());
            self.0.push(SettingError::new(key, message));
        }
        found
    }

    fn size(&mut self, key: &str, found: ByteSize, allowed: RangeInclusive<u32>) -> u32 {
        let sizes = ByteSize((*allowed.start()).into())..=ByteSize((*allowed.end()).into());
        let size = self.within(key, found, sizes);
        u32::try_from(size.as_u64()).unwrap_or(*allowed.end())
    }

    fn time(&mut self, key: &str, found: Duration, allowed: RangeInclusive<Duration>) -> Duration {
        if !allowed.contains(&found) {
            let [found, least, most] = [found, *allowed.start(), *allowed.end()].map(humantime::format_duration);
            self.0.push(SettingError::new(key, format!("{found} is out of range; allowed: {least} to {most}")));
        }
        found
    }

    fn limits(&mut self, section: &ServerSection) -> ConnectionLimits {
        let ServerSection { connections_per_address_max, connections_unidentified_max, .. } = *section;
        let second = Duration::from_secs(1);
        ConnectionLimits {
            per_address_max: self.within("connections_per_address_max", connections_per_address_max, 1..=100_000),
            unidentified_max: self.within("connections_unidentified_max", connections_unidentified_max, 1..=100_000),
            calls_max: self.within("calls_per_connection_max", section.calls_per_connection_max, 1..=1_000_000_000),
            empty_frames_max: self.within("empty_frames_max", section.empty_frames_max, 1..=1_000_000_000),
            body_rate_min: self.size("body_rate_min", section.body_rate_min, 1..=1 << 20),
            body_rate_grace: self.time("body_rate_grace", section.body_rate_grace, second / 10..=600 * second),
            write_timeout: self.time("write_timeout", section.write_timeout, second / 10..=3_600 * second),
        }
    }

    fn listen(&mut self, texts: &[String]) -> Vec<ListenAddress> {
        if texts.is_empty() {
            self.0.push(SettingError::new("listen", "no address to listen on"));
        }
        let mut addresses = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse() {
                Ok(address) => addresses.push(address),
                Err(error) => self.0.push(SettingError::new(&format!("listen.{index}"), format!("{error}"))),
            }
        }
        addresses
    }

    fn tls(&mut self, section: TlsSection, listen: &[ListenAddress]) -> TlsTable {
        let (table, errors) = section.check(listen);
        self.0.extend(errors);
        table
    }

    fn audit(&mut self, text: &str) -> AuditTarget {
        match (text, text.strip_prefix("file:")) {
            ("log", _) => AuditTarget::Log,
            ("journald", _) => AuditTarget::Journald,
            (_, Some(path)) if !path.is_empty() && !path.contains('\0') => AuditTarget::File(path.into()),
            _ => {
                let message = format!("unknown target {text:?}; allowed: log, journald, file:PATH");
                self.0.push(SettingError::new("audit", message));
                AuditTarget::Log
            }
        }
    }

    fn account(&mut self, user: Option<&str>, group: Option<&str>) -> Option<Account> {
        Account::find(user, group).unwrap_or_else(|(setting, message)| {
            self.0.push(SettingError::new(setting, message));
            None
        })
    }

    fn unix_mode(&mut self, text: &str) -> u32 {
        match text {
            "0600" => 0o600,
            "0660" => 0o660,
            "0666" => 0o666,
            _ => {
                let message = format!("unknown mode {text:?}; allowed: 0600, 0660, 0666");
                self.0.push(SettingError::new("unix_mode", message));
                0o600
            }
        }
    }

    fn accepted(&mut self, names: &[String], allowed: &[Risk]) -> Vec<Risk> {
        let (accepted, errors) = Risk::read(names, allowed);
        self.0.extend(errors);
        accepted
    }

    fn log(&mut self, filter: &str) {
        if let Err(error) = crate::logging::parse_filter(filter) {
            self.0.push(SettingError::new("log", error));
        }
    }
}

/// A section `[plugins.NAME]`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PluginSection {
    /// The handler that serves the plugin; the plugin's own name unless told otherwise.
    pub(super) handler: Option<String>,
    /// Whether the plugin can be called.
    pub(super) enabled: bool,
    /// The handler's own settings.
    pub(super) config: Map<String, Value>,
    /// What stands around the plugin, within what stands around every plugin; the outermost first.
    pub(super) layers: Vec<String>,
    /// What calls may use.
    pub(super) limits: LimitsSettings,
    /// Who may call it.
    #[schemars(with = "AccessSection")]
    pub(super) access: Option<AccessSection>,
    /// The risks that are accepted, by name.
    #[schemars(extend("items" = json!({ "enum": Risk::OF_PLUGIN.map(Risk::name) })))]
    pub(super) insecure: Vec<String>,
}

impl Default for PluginSection {
    fn default() -> PluginSection {
        PluginSection {
            handler: None,
            enabled: true,
            config: Map::new(),
            layers: Vec::new(),
            limits: LimitsSettings::default(),
            access: None,
            insecure: Vec::new(),
        }
    }
}
