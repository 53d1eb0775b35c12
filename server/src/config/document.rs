//! A TOML text as plain data that remembers where each key stands.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use plugd_core::SettingError;
use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::ConfigError;

/// A parsed text.
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    root: Map<String, Value>,
    /// Where each key stands, and each item of an array, as byte offsets.
    places: BTreeMap<Vec<String>, Range<usize>>,
}

impl<'a> Document<'a> {
    /// Reads `text`, and reports every place where it is no TOML.
    pub(super) fn parse(file: &'a Path, text: &'a str) -> Result<Document<'a>, Vec<ConfigError>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut document = Document { file, text, root: Map::new(), places: BTreeMap::new() };
        if !errors.is_empty() {
            let error =
                |error: &toml::de::Error| document.at_offset(error.span().map(|span| span.start), error.message());
            return Err(errors.iter().map(error).collect());
        }
        document.root = document.read_table(table.get_ref(), &mut Vec::new());
        Ok(document)
    }

    /// The value at a key of the top level.
    pub(super) fn section(&self, key: &str) -> Option<&Value> {
        self.root.get(key)
    }

    /// The keys of the top level.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.root.keys().map(String::as_str)
    }

    /// An error at the key that `path` leads to, or as close to it as the text goes.
    pub(super) fn error(&self, path: &[&str], message: impl Into<String>) -> ConfigError {
        let mut path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        while !self.places.contains_key(&path) && path.pop().is_some() {}
        self.at_offset(self.places.get(&path).map(|place| place.start), message)
    }

    /// The errors of a section, whose own paths start at `section`.
    pub(super) fn setting_errors(&self, section: &[&str], errors: Vec<SettingError>) -> Vec<ConfigError> {
        let error = |error: SettingError| {
            let path: Vec<&str> = section.iter().copied().chain(error.path.iter().map(String::as_str)).collect();
            self.error(&path, format!("{}: {}", path.join("."), error.message))
        };
        errors.into_iter().map(error).collect()
    }

    fn at_offset(&self, offset: Option<usize>, message: impl Into<String>) -> ConfigError {
        let position = offset.map(|offset| position(self.text.as_bytes(), offset));
        ConfigError { file: self.file.to_owned(), position, message: message.into() }
    }

    fn read_table(&mut self, table: &DeTable<'_>, path: &mut Vec<String>) -> Map<String, Value> {
        let mut members = Map::new();
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            self.places.insert(path.clone(), key.span());
            let value = self.read_value(value, path);
            members.insert(key.get_ref().to_string(), value);
            path.pop();
        }
        members
    }

    fn read_array(&mut self, array: &DeArray<'_>, path: &mut Vec<String>) -> Vec<Value> {
        let mut items = Vec::new();
        for (index, item) in array.iter().enumerate() {
            path.push(index.to_string());
            self.places.insert(path.clone(), item.span());
            items.push(self.read_value(item, path));
            path.pop();
        }
        items
    }

    fn read_value(&mut self, value: &Spanned<DeValue<'_>>, path: &mut Vec<String>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Integer(integer) => {
                let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
                number
                    .and_then(Number::from_i128)
                    .map_or_else(|| Value::String(integer.as_str().to_owned()), Value::Number)
            }
            // Infinity and NaN have no number in the data model of settings; as text they are refused where they stand.
            DeValue::Float(float) => {
                let number = float.as_str().parse().ok().and_then(Number::from_f64);
                number.map_or_else(|| Value::String(float.as_str().to_owned()), Value::Number)
            }
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(datetime) => Value::String(datetime.to_string()),
            DeValue::Array(array) => Value::Array(self.read_array(array, path)),
            DeValue::Table(table) => Value::Object(self.read_table(table, path)),
        }
    }
}

/// The line and the column of a byte offset, both from 1, the column in characters.
pub(super) fn position(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}
