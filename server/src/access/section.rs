//! The table `access` of a plugin as it is written, and what it becomes.

use std::collections::BTreeMap;
use std::sync::Arc;

use plugd_core::{Operation, SettingError, did_you_mean};
use schemars::JsonSchema;
use serde::Deserialize;

use super::entry::Entry;
use super::groups::Groups;
use super::{Access, Rule};

/// Who may call a plugin.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["allow"]))]
pub(crate) struct AccessSection {
    /// Who may call: any, net:ADDRESS[/BITS], uid:NUMBER, user:NAME, token:NAME, cert:NAME, group:NAME.
    allow: Option<Vec<String>>,
    /// Who may not, whatever allows it.
    deny: Vec<String>,
    /// Rules of single operations, by name.
    operations: BTreeMap<String, OperationSection>,
}

/// Who may call one operation.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OperationSection {
    /// Who may call it, in the place of those who may call the plugin.
    allow: Option<Vec<String>>,
    /// Who may not, beside those whom the plugin denies.
    deny: Vec<String>,
}

impl AccessSection {
    /// Resolves every entry, for a plugin that offers `operations`; `None` means that nobody can say what it offers.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, with its path within the table.
    pub(crate) fn resolve(
        &self,
        operations: Option<&[Operation]>,
        groups: &Groups,
    ) -> Result<Access, Vec<SettingError>> {
        let mut reading = Reading { groups, errors: Vec::new() };
        if self.allow.is_none() {
            let message = "it says nothing of who may call; add `allow = [...]`, with \"any\" for everybody";
            reading.errors.push(SettingError::new("", message));
        }
        let allow = reading.list(&["allow"], self.allow.as_deref().unwrap_or_default());
        let deny = reading.list(&["deny"], &self.deny);
        let mut rules = BTreeMap::new();
        for (name, section) in &self.operations {
            let own = section.allow.as_ref().map(|texts| reading.list(&["operations", name, "allow"], texts));
            let denied = reading.list(&["operations", name, "deny"], &section.deny);
            let allow = own.unwrap_or_else(|| allow.clone());
            rules.insert(name.clone(), Arc::new(Rule { allow, deny: [deny.clone(), denied].concat() }));
        }
        reading.refuse_unknown(self.operations.keys(), operations);
        if !reading.errors.is_empty() {
            return Err(reading.errors);
        }
        let shared = Arc::new(Rule { allow, deny });
        for operation in operations.unwrap_or_default() {
            rules.entry(operation.name().to_owned()).or_insert_with(|| shared.clone());
        }
        Ok(Access { rules })
    }
}

/// Collects what is wrong.
struct Reading<'g> {
    groups: &'g Groups,
    errors: Vec<SettingError>,
}

impl Reading<'_> {
    fn list(&mut self, path: &[&str], texts: &[String]) -> Vec<Entry> {
        let at = |(index, message): (usize, String)| SettingError {
            path: path.iter().map(|part| (*part).to_owned()).chain([index.to_string()]).collect(),
            message,
        };
        self.groups.resolve(texts).unwrap_or_else(|found| {
            self.errors.extend(found.into_iter().map(at));
            Vec::new()
        })
    }

    fn refuse_unknown<'n>(&mut self, names: impl Iterator<Item = &'n String>, operations: Option<&[Operation]>) {
        let Some(operations) = operations else { return };
        let known = || operations.iter().map(Operation::name);
        for name in names.filter(|name| known().all(|known| known != name.as_str())) {
            let hint = did_you_mean(name, known());
            let allowed = known().collect::<Vec<_>>().join(", ");
            let message = format!("unknown operation {name:?}{hint}; allowed: {allowed}");
            self.errors.push(SettingError { path: vec!["operations".to_owned(), name.clone()], message });
        }
    }
}
