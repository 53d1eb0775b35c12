//! What the safe defaults forbid, and the names by which an operator accepts it all the same.

use plugd_core::{Operation, SettingError, did_you_mean};

use super::section::PluginSection;
use super::{ConfigError, PluginConfig, Reader, ServerSettings};
use crate::address::ListenAddress;

/// A risk that an operator may accept, in the list `insecure` of the section that it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Risk {
    /// Everybody may call what runs programs, or from beyond this machine what changes things.
    NoAccessRule,
    /// What changes or runs things is served as root beyond this machine.
    Root,
    /// Tokens are accepted where others may read them on their way.
    CleartextTokens,
}

impl Risk {
    /// Those of `[server]`.
    pub(super) const OF_SERVER: [Risk; 2] = [Risk::CleartextTokens, Risk::Root];

    /// Those of `[plugins.NAME]`.
    pub(super) const OF_PLUGIN: [Risk; 1] = [Risk::NoAccessRule];

    /// The name in a configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Risk::NoAccessRule => "no-access-rule",
            Risk::Root => "root",
            Risk::CleartextTokens => "cleartext-tokens",
        }
    }

    /// Reads a list `insecure`; what is wrong comes with its path within the section.
    pub(super) fn read(names: &[String], allowed: &[Risk]) -> (Vec<Risk>, Vec<SettingError>) {
        let mut risks = Vec::new();
        let mut errors = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match allowed.iter().find(|risk| risk.name() == name) {
                Some(risk) => risks.push(*risk),
                None => {
                    let known: Vec<&str> = allowed.iter().map(|risk| risk.name()).collect();
                    let hint = did_you_mean(name, known.iter().copied());
                    let message = format!("unknown risk {name:?}{hint}; allowed: {}", known.join(", "));
                    errors.push(SettingError::new(&format!("insecure.{index}"), message));
                }
            }
        }
        (risks, errors)
    }
}

/// Something that the safe defaults forbid.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The plugin; `None` when it is about the server.
    pub(crate) plugin: Option<String>,
    pub(crate) risk: Risk,
    /// What is so, without what to do about it.
    pub(crate) problem: String,
    /// Whether the operator accepts the risk; else the server does not start.
    pub(crate) accepted: bool,
    /// The same with its place and its remedies.
    pub(crate) error: ConfigError,
}

impl Reader<'_> {
    /// Tokens over plain TCP are refused beyond loopback, unless the operator accepts that others read them on their way.
    pub(super) fn judge_tokens(&mut self, server: Option<&ServerSettings>) {
        let Some(server) = server.filter(|server| server.accepted.contains(&Risk::CleartextTokens)) else { return };
        let is_plain = |address: &&ListenAddress| matches!(address, ListenAddress::Tcp { .. }) && !address.is_local();
        let Some(address) = server.listen.iter().find(is_plain) else { return };
        if self.token_names().is_empty() {
            return;
        }
        let problem = format!("tokens are accepted in clear text at {address}");
        let error = self.document.error(&["server", "insecure"], problem.clone());
        self.findings.push(Finding { plugin: None, risk: Risk::CleartextTokens, problem, accepted: true, error });
    }

    /// What runs programs is for those who are named, wherever they are; what changes things stays on this machine without
    /// names.
    pub(super) fn judge_plugin(
        &mut self,
        name: &str,
        operations: &[Operation],
        section: &PluginSection,
        accepted: &[Risk],
        server: Option<&ServerSettings>,
    ) {
        if !section.enabled || section.access.is_some() {
            return;
        }
        let listen = server.map(|server| server.listen.as_slice()).unwrap_or_default();
        let Some(problem) = open_to_everybody(operations, listen) else { return };
        let problem = format!("plugins.{name} {problem}");
        let or_stay = if operations.iter().any(Operation::runs) { "" } else { "listen on loopback, " };
        let message = format!(
            "{problem}; say who may call it, such as `access = {{ allow = [\"uid:1000\", \"net:127.0.0.0/8\"] }}`, \
             {or_stay}disable it, or accept that with `insecure = [\"{}\"]`",
            Risk::NoAccessRule.name()
        );
        self.findings.push(Finding {
            plugin: Some(name.to_owned()),
            risk: Risk::NoAccessRule,
            problem,
            accepted: accepted.contains(&Risk::NoAccessRule),
            error: self.document.error(&["plugins", name], message),
        });
    }

    /// Root does what it is asked from beyond this machine only when the operator says so: a mistake in a rule or in a
    /// handler then is one of the whole machine.
    pub(super) fn judge_root(&mut self, server: Option<&ServerSettings>, plugins: &[PluginConfig]) {
        let Some(server) = server.filter(|server| stays_root(server)) else { return };
        let Some(problem) = done_by_root(plugins, &server.listen) else { return };
        let message = format!(
            "{problem}; name who to become with `user` in [server], listen on loopback, or accept that with `insecure = \
             [\"{}\"]` there",
            Risk::Root.name()
        );
        self.findings.push(Finding {
            plugin: None,
            risk: Risk::Root,
            problem,
            accepted: server.accepted.contains(&Risk::Root),
            error: self.document.error(&["server", "listen"], message),
        });
    }
}

/// Whether the server would serve as root: it is, and is not told to become somebody else.
pub(crate) fn stays_root(server: &ServerSettings) -> bool {
    nix::unistd::geteuid().is_root() && server.account.as_ref().is_none_or(|account| account.stays_root())
}

/// What is wrong with serving `operations` at `listen` without a rule, without what to do about it.
fn open_to_everybody(operations: &[Operation], listen: &[ListenAddress]) -> Option<String> {
    let beyond = listen.iter().find(|address| !address.is_local());
    match beyond {
        Some(address) if operations.iter().any(Operation::effects) => {
            Some(format!("changes or runs things for everybody who reaches {address}"))
        }
        _ if operations.iter().any(Operation::runs) => {
            Some("runs programs for everybody who reaches the server".to_owned())
        }
        _ => None,
    }
}

/// What is wrong with serving `plugins` at `listen` as root.
fn done_by_root(plugins: &[PluginConfig], listen: &[ListenAddress]) -> Option<String> {
    let address = listen.iter().find(|address| !address.is_local())?;
    let acts = |plugin: &&PluginConfig| plugin.enabled && plugin.operations().iter().any(Operation::effects);
    let names: Vec<&str> = plugins.iter().filter(acts).map(|plugin| plugin.name.as_str()).collect();
    let problem = || format!("as root, {} would change or run things for callers at {address}", names.join(", "));
    (!names.is_empty()).then(problem)
}

/// Why a server that runs with the settings `server` may not serve `plugins`, whatever those were checked against.
pub(crate) fn exposed(plugins: &[PluginConfig], server: &ServerSettings) -> Option<String> {
    let unguarded = |plugin: &&PluginConfig| {
        plugin.enabled && plugin.access.is_none() && !plugin.accepted.contains(&Risk::NoAccessRule)
    };
    let open = |plugin: &PluginConfig| {
        let problem = open_to_everybody(plugin.operations(), &server.listen)?;
        Some(format!("plugins.{} {problem}", plugin.name))
    };
    let by_root = || {
        let matters = nix::unistd::geteuid().is_root() && !server.accepted.contains(&Risk::Root);
        matters.then(|| done_by_root(plugins, &server.listen)).flatten()
    };
    plugins.iter().filter(unguarded).find_map(open).or_else(by_root)
}
