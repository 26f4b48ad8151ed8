//! The checked result: every key of the schema with its value and where the value came from.
//! Reading a path that the schema has not, or as another kind, is an error of the program and panics; which values a
//! person gave can never make it panic.

use std::collections::BTreeMap;

use super::schema::{Key, Kind};
use super::value::{self, Value};

/// Which layer a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { line: usize },
    Env,
    Flag,
}

/// One key with its value; none where neither a layer nor the schema has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub key: &'static Key,
    pub value: Option<Value>,
    pub origin: Origin,
}

/// All settings of a program, in the order of its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    settings: Vec<Setting>,
}

impl Settings {
    /// The defaults.
    pub(super) fn new(schema: &'static [Key]) -> Self {
        let setting = |key: &'static Key| {
            // A default that does not parse was refused with the schema.
            let value = key.default.and_then(|default| value::parse(key, default).ok());
            Setting { key, value, origin: Origin::Default }
        };
        Self { settings: schema.iter().map(setting).collect() }
    }

    pub(super) fn set(&mut self, key: &Key, value: Value, origin: Origin) {
        if let Some(setting) = self.settings.iter_mut().find(|setting| setting.key.path == key.path) {
            setting.value = Some(value);
            setting.origin = origin;
        }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Setting> {
        self.settings.iter()
    }

    pub fn origin(&self, path: &str) -> Origin {
        self.setting(path).origin
    }

    /// None where nothing is set, and where the text is empty: that is how a person takes a default away.
    pub fn text(&self, path: &str) -> Option<&str> {
        let setting = self.setting(path);
        match (setting.key.kind, &setting.value) {
            (Kind::Text, Some(Value::Text(text))) => Some(text.as_str()).filter(|text| !text.is_empty()),
            (Kind::Text, _) => None,
            _ => wrong_kind(setting.key, "a text"),
        }
    }

    pub fn boolean(&self, path: &str) -> bool {
        let setting = self.setting(path);
        match setting.value {
            Some(Value::Bool(on)) => on,
            _ => wrong_kind(setting.key, "a boolean"),
        }
    }

    pub fn integer(&self, path: &str) -> i64 {
        let setting = self.setting(path);
        match setting.value {
            Some(Value::Integer(number)) => number,
            _ => wrong_kind(setting.key, "an integer"),
        }
    }

    pub fn duration_ms(&self, path: &str) -> u64 {
        let setting = self.setting(path);
        match setting.value {
            Some(Value::DurationMs(duration_ms)) => duration_ms,
            _ => wrong_kind(setting.key, "a duration"),
        }
    }

    /// Of a key without a default.
    pub fn size_bytes_if_given(&self, path: &str) -> Option<u64> {
        let setting = self.setting(path);
        match setting.value {
            Some(Value::SizeBytes(size_bytes)) => Some(size_bytes),
            None => None,
            _ => wrong_kind(setting.key, "a size"),
        }
    }

    pub fn size_bytes(&self, path: &str) -> u64 {
        let setting = self.setting(path);
        match setting.value {
            Some(Value::SizeBytes(size_bytes)) => size_bytes,
            _ => wrong_kind(setting.key, "a size"),
        }
    }

    /// Empty where nothing is set.
    pub fn list(&self, path: &str) -> &[String] {
        let setting = self.setting(path);
        match (setting.key.kind, &setting.value) {
            (Kind::List, Some(Value::List(items))) => items,
            (Kind::List, _) => &[],
            _ => wrong_kind(setting.key, "a list"),
        }
    }

    /// Empty where nothing is set.
    pub fn labels(&self, path: &str) -> &BTreeMap<String, String> {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        let setting = self.setting(path);
        match (setting.key.kind, &setting.value) {
            (Kind::Labels, Some(Value::Labels(labels))) => labels,
            (Kind::Labels, _) => &NO_LABELS,
            _ => wrong_kind(setting.key, "labels"),
        }
    }

    fn setting(&self, path: &str) -> &Setting {
        let found = self.settings.iter().find(|setting| setting.key.path == path);
        found.unwrap_or_else(|| panic!("the schema has no key {path}"))
    }
}

impl<'a> IntoIterator for &'a Settings {
    type Item = &'a Setting;
    type IntoIter = std::slice::Iter<'a, Setting>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn wrong_kind(key: &Key, wanted: &str) -> ! {
    panic!("{} is {}, and is read as {wanted}", key.path, value::describe(key.kind))
}
