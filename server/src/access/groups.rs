//! Groups of callers, each defined once.

use std::collections::{BTreeMap, BTreeSet};

use plugd_core::{NAME_LEN_MAX, SettingError, did_you_mean, is_legal_name};

use super::entry::{Entry, Term};

/// The most entries of one list, with everything that its groups hold: each call looks through them.
pub(super) const ENTRIES_MAX: usize = 4096;

/// The groups and the tokens that entries may name.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    members: BTreeMap<String, Vec<Term>>,
    tokens: Vec<String>,
}

impl Groups {
    /// Reads the section `[groups]`, beside the names of the tokens that the configuration knows.
    ///
    /// What is wrong comes with its path within the section. A group with an entry that cannot be resolved lacks that entry,
    /// and the configuration is refused anyway.
    pub(crate) fn read(section: &BTreeMap<String, Vec<String>>, tokens: Vec<String>) -> (Groups, Vec<SettingError>) {
        let mut groups = Groups { members: BTreeMap::new(), tokens };
        let mut errors = Vec::new();
        for (name, texts) in section {
            if !is_legal_name(name) {
                let message = format!("illegal group name; allowed: [a-z][a-z0-9_-]*, at most {NAME_LEN_MAX} bytes");
                errors.push(SettingError { path: vec![name.clone()], message });
            }
            let terms = texts.iter().enumerate().filter_map(|(index, text)| {
                groups.term(text).map_err(|message| errors.push(at(name, index, message))).ok()
            });
            let terms = terms.collect();
            groups.members.insert(name.clone(), terms);
        }
        for (name, texts) in section {
            for (index, text) in texts.iter().enumerate() {
                errors.extend(groups.trouble(name, text).map(|message| at(name, index, message)));
            }
        }
        (groups, errors)
    }

    /// The entries that a list of texts stands for.
    ///
    /// # Errors
    ///
    /// Everything that cannot be resolved, with its index in the list.
    pub(super) fn resolve(&self, texts: &[String]) -> Result<Vec<Entry>, Vec<(usize, String)>> {
        let mut entries = Vec::new();
        let mut errors = Vec::new();
        let mut visited = BTreeSet::new();
        for (index, text) in texts.iter().enumerate() {
            match self.term(text) {
                Ok(Term::Entry(entry)) => entries.push(entry),
                Ok(Term::Group(name)) if self.members.contains_key(&name) => {
                    self.collect(&name, &mut visited, &mut entries);
                }
                Ok(Term::Group(name)) => errors.push((index, self.unknown(&name))),
                Err(message) => errors.push((index, message)),
            }
        }
        if entries.len() > ENTRIES_MAX {
            errors.push((0, format!("{} entries with those of the groups; allowed: {ENTRIES_MAX}", entries.len())));
        }
        if errors.is_empty() { Ok(entries) } else { Err(errors) }
    }

    fn term(&self, text: &str) -> Result<Term, String> {
        Term::parse(text, self.tokens.iter().map(String::as_str))
    }

    /// What is wrong with the group that the entry `text` of the group `name` names, if it names one.
    fn trouble(&self, name: &str, text: &str) -> Option<String> {
        let Ok(Term::Group(inner)) = self.term(text) else { return None };
        if !self.members.contains_key(&inner) {
            return Some(self.unknown(&inner));
        }
        let mut reached = BTreeSet::new();
        self.collect(&inner, &mut reached, &mut Vec::new());
        reached.contains(name).then(|| format!("group \"{name}\" would hold itself through \"{inner}\""))
    }

    /// Adds the entries of a group and of those within it, each group once, however they refer to each other.
    fn collect<'g>(&'g self, name: &str, visited: &mut BTreeSet<&'g str>, entries: &mut Vec<Entry>) {
        let mut waiting: Vec<_> = self.members.get_key_value(name).into_iter().collect();
        while let Some((name, terms)) = waiting.pop() {
            if !visited.insert(name) {
                continue;
            }
            for term in terms {
                match term {
                    Term::Entry(entry) => entries.push(entry.clone()),
                    Term::Group(inner) => waiting.extend(self.members.get_key_value(inner)),
                }
            }
        }
    }

    fn unknown(&self, name: &str) -> String {
        let known = || self.members.keys().map(String::as_str);
        let hint = did_you_mean(name, known());
        let known: Vec<&str> = known().collect();
        let known = if known.is_empty() { "none; add them to [groups]".to_owned() } else { known.join(", ") };
        format!("unknown group {name:?}{hint}; known: {known}")
    }
}

fn at(group: &str, index: usize, message: String) -> SettingError {
    SettingError { path: vec![group.to_owned(), index.to_string()], message }
}
