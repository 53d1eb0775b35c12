//! Who may call what: lists of callers, compared with what a connection has proven.
//!
//! A rule is read and resolved with the configuration; what cannot be resolved is an error there, so that no rule is ever
//! in force with a hole in it. The router asks [`Access`] before it looks at anything else of a call.

mod entry;
mod groups;
mod network;
mod section;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use plugd_core::{Caller, Rights};

pub(crate) use self::entry::{Entry, Way, certificate_name};
pub(crate) use self::groups::Groups;
pub(crate) use self::section::AccessSection;

/// Who may call one operation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rule {
    allow: Vec<Entry>,
    deny: Vec<Entry>,
}

impl Rule {
    /// Whether `caller` may call: some entry allows it, and none denies it.
    pub(crate) fn admits(&self, caller: &Caller) -> bool {
        let means = |entries: &[Entry]| entries.iter().any(|entry| entry.matches(caller));
        means(&self.allow) && !means(&self.deny)
    }

    /// Whom it allows.
    pub(crate) fn allowed(&self) -> &[Entry] {
        &self.allow
    }

    /// Whom it denies all the same.
    pub(crate) fn denied(&self) -> &[Entry] {
        &self.deny
    }
}

/// Who may call the operations of one plugin. It names each of them; what it does not name, nobody may call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Access {
    rules: BTreeMap<String, Arc<Rule>>,
}

impl Access {
    /// Whether there is an operation that `caller` may call.
    pub(crate) fn admits_any(&self, caller: &Caller) -> bool {
        self.rules.values().any(|rule| rule.admits(caller))
    }

    /// The rule of an operation.
    pub(crate) fn rule(&self, operation: &str) -> Option<&Rule> {
        self.rules.get(operation).map(|rule| &**rule)
    }
}

impl Rights for Access {
    fn admits(&self, operation: &str, caller: &Caller) -> bool {
        self.rule(operation).is_some_and(|rule| rule.admits(caller))
    }
}
