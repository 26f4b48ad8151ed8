//! One table `[[rule]]` as it is written, key by key, and what becomes of it once all of them are right.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::clear::{When, when};
use super::file::{Item, Reader};
use super::key::{self, KEYS};
use super::pattern::Pattern;
use super::scope::{about, kind_of};
use super::template::{self, Allowed};
use super::text::Written;
use super::{Place, Rule, Scope, Severity, ShownAs, Template};
use crate::config::{nearest, quote};

/// What a person gave; each with its place.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    at: usize,
    /// What is given, right or wrong.
    keys: Vec<&'a str>,
    name: Option<Written<'a>>,
    is_enabled: Option<bool>,
    when: Option<Written<'a>>,
    clear: Option<Written<'a>>,
    for_ms: u64,
    keep_firing_ms: u64,
    severity: Severity,
    labels: BTreeMap<Box<str>, Pattern>,
    /// Where they are given.
    labels_at: Option<usize>,
    subjects: Vec<(Pattern, usize)>,
    summary: Option<Written<'a>>,
    summary_zh: Option<Written<'a>>,
    runbook: Option<Box<str>>,
    /// Whether every key could be read, as far as it goes by itself.
    is_whole: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn read(reader: &mut Reader<'_>, at: usize, table: &'a DeTable<'_>) -> Self {
        let before = reader.faults.len();
        let keys = table.keys().map(|key| key.get_ref().as_ref()).collect();
        let mut draft = Self { at, keys, ..Self::default() };
        for (key, value) in table.iter() {
            if reader.is_flooded() {
                break;
            }
            draft.take(reader, key.span().start, key.get_ref(), value);
        }
        draft.is_whole = reader.faults.len() == before;
        draft
    }

    fn take(&mut self, reader: &mut Reader<'_>, at: usize, key: &str, value: &'a Spanned<DeValue<'_>>) {
        match key {
            "name" => self.name = key::name(reader, value),
            "enabled" => match value.get_ref() {
                DeValue::Boolean(is_enabled) => self.is_enabled = Some(*is_enabled),
                other => reader.wrong(value.span().start, key, other, "true or false"),
            },
            "when" => self.when = reader.text(key, value),
            "clear" => self.clear = reader.text(key, value),
            "for" => self.for_ms = reader.duration(key, value).unwrap_or_default(),
            "keep_firing_for" => self.keep_firing_ms = reader.duration(key, value).unwrap_or_default(),
            "severity" => self.severity = key::severity(reader, value).unwrap_or_default(),
            "where" => {
                self.labels_at = Some(at);
                self.labels = key::labels(reader, value);
            }
            "subject" => self.subjects = key::subjects(reader, value),
            "service_type" => reader.fault(at, "service_type: no services are registered with this version"),
            "summary" => self.summary = reader.text(key, value),
            "summary_zh" => self.summary_zh = reader.text(key, value),
            "runbook" => self.runbook = key::runbook(reader, value),
            _ => {
                let keys = KEYS.iter().map(|(key, _)| (*key).to_owned());
                let hint = nearest(key, keys).map_or_else(String::new, |near| near.hint("", ""));
                reader.fault(at, format!("unknown key {}; {hint}", quote(key)));
            }
        }
    }

    pub(super) fn finish(self, reader: &mut Reader<'_>) -> Option<Item> {
        let before = reader.faults.len();
        let at = self.name.map_or(self.at, |name| name.start());
        let (line, column) = reader.lines.place(at);
        let place = Place { file: reader.file.into(), line };
        if let (Some(name), Some(false), 2, true) = (self.name, self.is_enabled, self.keys.len(), self.is_whole) {
            reader.name_once(name)?;
            return Some(Item::Off { name: name.text.into(), place, column });
        }
        let name = self.name;
        if let Some(name) = name {
            // Said, and then the rest is looked at.
            let _is_first = reader.name_once(name);
        } else if !self.has("name") {
            reader.missing(self.at, "the rule has no name", "name");
        }
        let subjects: Vec<Pattern> = self.subjects.iter().map(|(pattern, _)| pattern.clone()).collect();
        let when = self.condition(reader);
        let scope = when.as_ref().map(|when| when.scope(&subjects));
        let clear = match (&when, self.clear) {
            (Some(when), Some(clear)) => when
                .clear(clear.text, &subjects)
                .map_err(|faults| reader.take("clear", clear, faults))
                .ok()
                .map(|(test, terms)| (Some(test), terms)),
            (when, _) => when.as_ref().map(|when| (None, when.terms.clone())),
        };
        if let Some(scope) = scope {
            self.fit_scope(reader, scope);
        }
        let allowed =
            Allowed { scope, has_value: when.as_ref().is_none_or(|when| when.shown().is_some()), labels: &self.labels };
        let summary = self.template(reader, "summary", self.summary, allowed);
        let summary_zh = self.template(reader, "summary_zh", self.summary_zh, allowed);
        if !self.has("summary") {
            reader.missing(at, "the rule has no summary", "summary");
        }
        if !self.is_whole || reader.faults.len() > before {
            return None;
        }
        let (when, (clear, terms)) = (when?, clear?);
        let rule = Rule {
            name: name?.text.into(),
            is_enabled: self.is_enabled.unwrap_or(true),
            scope: scope?,
            terms,
            shown_as: when.shown().unwrap_or(ShownAs::Number),
            when: when.test,
            clear,
            for_ms: self.for_ms,
            keep_firing_ms: self.keep_firing_ms,
            severity: self.severity,
            labels: self.labels,
            subjects,
            summary: summary?,
            summary_zh,
            runbook: self.runbook,
            when_text: self.when?.text.trim().into(),
            clear_text: self.clear.map(|clear| clear.text.trim().into()),
            place,
        };
        Some(Item::Rule { rule: Box::new(rule), column })
    }

    fn has(&self, key: &str) -> bool {
        self.keys.contains(&key)
    }

    fn condition(&self, reader: &mut Reader<'_>) -> Option<When<'a>> {
        let Some(written) = self.when else {
            if !self.has("when") {
                reader.missing(self.name.map_or(self.at, |name| name.start()), "the rule has no when", "when");
            }
            return None;
        };
        when(written.text).map_err(|faults| reader.take("when", written, faults)).ok()
    }

    fn template(
        &self,
        reader: &mut Reader<'_>,
        key: &str,
        written: Option<Written<'a>>,
        allowed: Allowed<'_>,
    ) -> Option<Template> {
        let written = written?;
        template::parse(written.text, allowed).map_err(|fault| reader.take(key, written, vec![fault])).ok()
    }

    /// What chooses nodes and subjects fits what the condition is about.
    fn fit_scope(&self, reader: &mut Reader<'_>, scope: Scope) {
        let is_of_node = !matches!(scope, Scope::Fleet | Scope::Collector);
        if let (Some(at), false) = (self.labels_at, is_of_node) {
            let about = about(scope);
            reader.fault(at, format!("where: it chooses nodes, and the rule is about {about}; leave it out"));
        }
        for (pattern, at) in &self.subjects {
            let kind = kind_of(pattern.as_str());
            if scope != Scope::Any && kind != Some(scope) {
                let message = match scope {
                    Scope::Fleet | Scope::Collector => "leave it out".to_owned(),
                    Scope::Node => "write host, or leave it out".to_owned(),
                    Scope::Port => "write it like \"port:tcp:*\"".to_owned(),
                    Scope::Kind(kind) => format!("write it like {}", quote(kind.example())),
                    Scope::Any => String::new(),
                };
                let (pattern, about) = (quote(pattern.as_str()), about(scope));
                reader.fault(*at, format!("subject: {pattern} is none of when, which is about {about}; {message}"));
            }
        }
    }
}
