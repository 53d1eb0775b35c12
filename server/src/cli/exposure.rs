//! `plugd check --exposure`: which commands are open to whom, at which address.

use plugd_core::{Operation, Registry};
use serde_json::{Value, json};

use super::{Failure, print};
use crate::access::{Entry, Rule, Way};
use crate::address::ListenAddress;
use crate::config::{Config, Origin, PluginConfig, Risk, ServerSettings};

/// Who may call what nobody may.
const NOBODY: &str = "nobody";

/// Shows the matrix, and fails when something in it is forbidden.
pub(super) fn show(origin: &Origin, registry: &Registry, listen: &[ListenAddress], json: bool) -> Result<(), Failure> {
    let config = Config::inspect(origin, registry, listen)?;
    let rows = rows(&config);
    print(&if json { format!("{:#}\n", as_json(&config, &rows)) } else { as_text(&config, &rows) })?;
    let forbidden = config.findings.iter().filter(|finding| !finding.accepted).count();
    match forbidden {
        0 => Ok(()),
        _ => Err(Failure::Refused(format!(
            "{}: {forbidden} forbidden; the server would not start",
            origin.path().display()
        ))),
    }
}

/// One command at one address.
struct Row<'c> {
    listener: String,
    command: String,
    effect: &'static str,
    /// Whether nobody gets in there without a client certificate.
    needs_certificate: bool,
    /// `None` when there is no rule.
    who: Option<Who<'c>>,
}

/// Those of a rule who can come in by a listener at all.
struct Who<'c> {
    allow: Vec<&'c Entry>,
    deny: Vec<&'c Entry>,
}

fn rows(config: &Config) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for listener in &config.server.listen {
        let way = way(listener, &config.server);
        for plugin in config.plugins.iter().filter(|plugin| plugin.enabled) {
            rows.extend(plugin.operations().iter().map(|operation| row(listener, way, plugin, operation)));
        }
    }
    rows
}

fn row<'c>(listener: &ListenAddress, way: Way, plugin: &'c PluginConfig, operation: &Operation) -> Row<'c> {
    let effect = match (operation.runs(), operation.effects()) {
        (true, _) => "runs",
        (false, true) => "changes",
        (false, false) => "-",
    };
    let rule = plugin.access.as_ref().and_then(|access| access.rule(operation.name()));
    Row {
        listener: listener.to_string(),
        command: format!("{}.{}", plugin.name, operation.name()),
        effect,
        needs_certificate: matches!(way, Way::Tls { requires: true, .. }),
        who: rule.map(|rule| who(rule, way)),
    }
}

fn way(listener: &ListenAddress, server: &ServerSettings) -> Way {
    match listener {
        ListenAddress::Tcp { .. } => Way::Tcp,
        ListenAddress::Tls { .. } => {
            let (asks, requires) = server.tls.clients_at(listener);
            Way::Tls { asks, requires }
        }
        ListenAddress::Unix(_) => Way::Unix,
    }
}

fn who(rule: &Rule, way: Way) -> Who<'_> {
    let deny: Vec<&Entry> = rule.denied().iter().filter(|entry| entry.can_come_by(way)).collect();
    if deny.iter().any(|entry| entry.is_any()) {
        return Who { allow: Vec::new(), deny };
    }
    Who { allow: rule.allowed().iter().filter(|entry| entry.can_come_by(way)).collect(), deny }
}

impl Who<'_> {
    fn text(&self) -> String {
        let texts = |entries: &[&Entry]| entries.iter().map(|entry| entry.text()).collect::<Vec<_>>().join(", ");
        match (self.allow.as_slice(), self.deny.as_slice()) {
            ([], _) => NOBODY.to_owned(),
            (allow, []) => texts(allow),
            (allow, deny) => format!("{} except {}", texts(allow), texts(deny)),
        }
    }
}

/// The risks that are accepted and are none.
fn unused(config: &Config) -> Vec<(Option<&str>, Risk)> {
    let of_server = config.server.accepted.iter().map(|risk| (None, *risk));
    let of_plugins =
        config.plugins.iter().flat_map(|plugin| plugin.accepted.iter().map(|risk| (Some(plugin.name.as_str()), *risk)));
    let is_used = |plugin: Option<&str>, risk: Risk| {
        config.findings.iter().any(|finding| finding.plugin.as_deref() == plugin && finding.risk == risk)
    };
    of_server.chain(of_plugins).filter(|(plugin, risk)| !is_used(*plugin, *risk)).collect()
}

fn as_text(config: &Config, rows: &[Row<'_>]) -> String {
    let header = ["LISTENER", "COMMAND", "EFFECT", "WHO"].map(str::to_owned);
    let cells = rows.iter().map(|row| {
        let mut who = row.who.as_ref().map_or_else(|| "any (no rule)".to_owned(), Who::text);
        if row.needs_certificate && who != NOBODY {
            who += ", with a client certificate";
        }
        [row.listener.clone(), row.command.clone(), row.effect.to_owned(), who]
    });
    let table: Vec<[String; 4]> = [header].into_iter().chain(cells).collect();
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let [listener, command, effect] = [width(0), width(1), width(2)];
    let mut text = String::new();
    for [a, b, c, d] in &table {
        text += &format!("{a:<listener$}  {b:<command$}  {c:<effect$}  {d}\n");
    }
    for finding in &config.findings {
        text += &match finding.accepted {
            true => format!("insecure: {} ({})\n", finding.problem, finding.risk.name()),
            false => format!("forbidden: {}\n", finding.error),
        };
    }
    for (plugin, risk) in unused(config) {
        let section = plugin.map_or_else(|| "server".to_owned(), |plugin| format!("plugins.{plugin}"));
        text += &format!("unused: {section}.insecure \"{}\" changes nothing\n", risk.name());
    }
    text
}

fn as_json(config: &Config, rows: &[Row<'_>]) -> Value {
    let texts = |entries: &[&Entry]| entries.iter().map(|entry| entry.text().to_owned()).collect::<Vec<_>>();
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let (allow, deny) = match &row.who {
                Some(who) => (texts(&who.allow), texts(&who.deny)),
                None => (vec!["any".to_owned()], Vec::new()),
            };
            let has_rule = row.who.is_some();
            json!({
                "listener": row.listener,
                "command": row.command,
                "needs_certificate": row.needs_certificate,
                "effect": if row.effect == "-" { Value::Null } else { row.effect.into() },
                "rule": has_rule,
                "allow": allow,
                "deny": deny,
            })
        })
        .collect();
    let findings: Vec<Value> = config
        .findings
        .iter()
        .map(|finding| {
            json!({
                "plugin": finding.plugin,
                "risk": finding.risk.name(),
                "accepted": finding.accepted,
                "problem": finding.problem,
            })
        })
        .collect();
    let unused: Vec<Value> =
        unused(config).into_iter().map(|(plugin, risk)| json!({ "plugin": plugin, "risk": risk.name() })).collect();
    json!({ "rows": rows, "findings": findings, "unused": unused })
}
