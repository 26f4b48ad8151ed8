//! One table `[[rule]]` as it is written, key by key, and what becomes of it once all of them are right.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::clear::{When, when};
use super::file::{Item, Reader};
use super::pattern::Pattern;
use super::scope::{about, kind_of};
use super::template::{self, Allowed};
use super::text::Written;
use super::{Place, Rule, Scope, Severity, ShownAs, Template};
use crate::config::{a_type, insert_label, nearest, parse_duration_ms, quote};
use crate::limits::{
    RULE_FOR_MS_MAX, RULE_NAME_BYTES_MAX, RULE_RUNBOOK_BYTES_MAX, RULE_SUBJECTS_MAX, SUBJECT_NAME_BYTES_MAX,
};
use crate::sample::SubjectKind;

/// Every key of a rule, with how it is written.
pub(super) const KEYS: [(&str, &str); 13] = [
    ("name", "name = \"memory-high\""),
    ("enabled", "enabled = true"),
    ("when", "when = 'host_memory_used_ratio > 90%'"),
    ("for", "for = \"5m\""),
    ("clear", "clear = '< 85%'"),
    ("keep_firing_for", "keep_firing_for = \"2m\""),
    ("severity", "severity = \"critical\""),
    ("where", "where = { role = \"db\" }"),
    ("subject", "subject = \"fs:/var*\""),
    ("service_type", "service_type = \"ai\""),
    ("summary", "summary = \"{node} uses {value} of its memory\""),
    ("summary_zh", "summary_zh = \"{node} 的内存已用 {value}\""),
    ("runbook", "runbook = \"https://wiki.example.net/memory\""),
];

/// What a person gave; each with its place.
#[derive(Debug, Default)]
pub(super) struct Draft<'a> {
    at: usize,
    keys: usize,
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
        let mut draft = Self { at, keys: table.len(), ..Self::default() };
        for (key, value) in table.iter() {
            draft.take(reader, key.span().start, key.get_ref(), value);
        }
        draft.is_whole = reader.faults.len() == before;
        draft
    }

    fn take(&mut self, reader: &mut Reader<'_>, at: usize, key: &str, value: &'a Spanned<DeValue<'_>>) {
        match key {
            "name" => self.name = name(reader, value),
            "enabled" => match value.get_ref() {
                DeValue::Boolean(is_enabled) => self.is_enabled = Some(*is_enabled),
                other => reader.wrong(value.span().start, key, other, "true or false"),
            },
            "when" => self.when = reader.text(key, value),
            "clear" => self.clear = reader.text(key, value),
            "for" => self.for_ms = reader.duration(key, value).unwrap_or_default(),
            "keep_firing_for" => self.keep_firing_ms = reader.duration(key, value).unwrap_or_default(),
            "severity" => self.severity = severity(reader, value).unwrap_or_default(),
            "where" => {
                self.labels_at = Some(at);
                self.labels = labels(reader, value);
            }
            "subject" => self.subjects = subjects(reader, value),
            "service_type" => reader.fault(at, "service_type: no services are registered with this version"),
            "summary" => self.summary = reader.text(key, value),
            "summary_zh" => self.summary_zh = reader.text(key, value),
            "runbook" => self.runbook = runbook(reader, value),
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
        if let (Some(name), Some(false), 2, true) = (self.name, self.is_enabled, self.keys, self.is_whole) {
            reader.name_once(name)?;
            return Some(Item::Off { name: name.text.into(), place, column });
        }
        let name = self.name;
        if let Some(name) = name {
            // Said, and then the rest is looked at.
            let _is_first = reader.name_once(name);
        } else if self.is_whole {
            reader.missing(self.at, "a rule has no name", "name");
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
        if self.summary.is_none() && self.is_whole {
            reader.missing(at, "the rule has no summary", "summary");
        }
        if !self.is_whole || reader.faults.len() > before {
            return None;
        }
        let (when, (clear, terms)) = (when?, clear?);
        Some(Item::Rule(Box::new(Rule {
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
        })))
    }

    fn condition(&self, reader: &mut Reader<'_>) -> Option<When<'a>> {
        let Some(written) = self.when else {
            if self.is_whole {
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

impl Reader<'_> {
    /// `None`, and a fault, for a name that another rule of the file has.
    fn name_once(&mut self, name: Written<'_>) -> Option<()> {
        let (line, _) = self.lines.place(name.start());
        if let Some(first) = self.names.get(name.text) {
            let message = format!("two rules are named {}; the other is at {}:{first}", name.text, self.file);
            self.fault(name.start(), message);
            return None;
        }
        self.names.insert(name.text.to_owned(), line);
        Some(())
    }

    fn take(&mut self, key: &str, written: Written<'_>, faults: Vec<super::error::Fault>) {
        for fault in faults {
            self.fault(written.offset(self.text, fault.at), format!("{key}: {}", fault.message));
        }
    }

    fn missing(&mut self, at: usize, what: &str, key: &str) {
        let example = example(key);
        self.fault(at, format!("{what}; write {example}"));
    }

    fn wrong(&mut self, at: usize, key: &str, given: &DeValue<'_>, wanted: &str) {
        let (given, example) = (a_type(given), example(key));
        self.fault(at, format!("{key}: {given} is given; it must be {wanted}, like {example}"));
    }

    pub(super) fn text<'a>(&mut self, key: &str, value: &'a Spanned<DeValue<'_>>) -> Option<Written<'a>> {
        match value.get_ref() {
            DeValue::String(text) => Some(Written::new(value.span(), text)),
            other => {
                self.wrong(value.span().start, key, other, "text in quotes");
                None
            }
        }
    }

    fn duration(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<u64> {
        const WEEK_MS: u64 = 7 * 24 * 3_600 * 1_000;
        let written = self.text(key, value)?;
        let weeks = || written.text.strip_suffix('w')?.parse::<u64>().ok()?.checked_mul(WEEK_MS);
        let ms = if written.text == "0" { Some(0) } else { parse_duration_ms(written.text).or_else(weeks) };
        match ms {
            Some(ms) if ms <= RULE_FOR_MS_MAX => return Some(ms),
            Some(_) => {
                self.fault(written.start(), format!("{key}: {} is too long; it is at most 7d", quote(written.text)))
            }
            None => {
                let message = format!(
                    "{key}: {} is no time; write it like \"5m\", with ms, s, m, h, d or w",
                    quote(written.text)
                );
                self.fault(written.start(), message);
            }
        }
        None
    }
}

fn example(key: &str) -> &'static str {
    KEYS.iter().find(|(known, _)| *known == key).map_or("", |(_, example)| example)
}

fn name<'a>(reader: &mut Reader<'_>, value: &'a Spanned<DeValue<'_>>) -> Option<Written<'a>> {
    let written = reader.text("name", value)?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let text = written.text;
    let is_name = text.len() <= RULE_NAME_BYTES_MAX
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || byte == b'-');
    if !is_name {
        let message = format!(
            "name: {} is no name of a rule; it begins with a-z or 0-9, goes on with those and -, and has at most \
             {RULE_NAME_BYTES_MAX} of them",
            quote(text)
        );
        reader.fault(written.start(), message);
        return None;
    }
    Some(written)
}

fn severity(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Severity> {
    let written = reader.text("severity", value)?;
    let severity = Severity::parse(written.text);
    if severity.is_none() {
        let words = Severity::ALL.map(|severity| severity.as_str().to_owned());
        let hint = nearest(written.text, words.into_iter()).map_or_else(String::new, |near| near.hint("", ""));
        let message = format!("severity: {} is none of info, warning and critical; {hint}", quote(written.text));
        reader.fault(written.start(), message);
    }
    severity
}

fn labels(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> BTreeMap<Box<str>, Pattern> {
    let mut labels = BTreeMap::new();
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong(value.span().start, "where", value.get_ref(), "a table of labels");
        return labels;
    };
    let mut seen = BTreeMap::new();
    for (key, value) in table.iter() {
        let (at, key) = (key.span().start, key.get_ref().as_ref());
        let DeValue::String(text) = value.get_ref() else {
            let given = a_type(value.get_ref());
            reader.fault(
                at,
                format!("where: the label {} is {given}; it must be text in quotes, like \"db\"", quote(key)),
            );
            continue;
        };
        if let Err(message) = insert_label(&mut seen, key, text) {
            reader.fault(at, format!("where: {message}"));
        } else if let Some(strange) = text.chars().find(|letter| "()[]+?|^$\\".contains(*letter)) {
            let message =
                format!("where: {strange:?} is of a regular expression, and patterns know only *, like \"web-*\"");
            reader.fault(value.span().start, message);
        } else {
            labels.insert(key.into(), Pattern::new(text));
        }
    }
    labels
}

fn subjects(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Vec<(Pattern, usize)> {
    let items: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
        DeValue::Array(items) => items.iter().collect(),
        _ => vec![value],
    };
    if items.is_empty() || items.len() > RULE_SUBJECTS_MAX {
        let message = format!("subject: a list has 1 to {RULE_SUBJECTS_MAX} items, like [\"fs:/var*\", \"fs:/srv\"]");
        reader.fault(value.span().start, message);
        return Vec::new();
    }
    let mut subjects = Vec::new();
    for item in items {
        let Some(written) = reader.text("subject", item) else { continue };
        match subject(written.text) {
            Ok(pattern) => subjects.push((pattern, written.start())),
            Err(message) => reader.fault(written.start(), format!("subject: {message}")),
        }
    }
    subjects
}

fn subject(text: &str) -> Result<Pattern, String> {
    // A kind stands in front of the name, and the network of a port behind that.
    const LEN_MAX: usize = 2 * SUBJECT_NAME_BYTES_MAX;
    if text.len() > LEN_MAX || text.contains(char::is_control) {
        return Err(format!("{} is no subject, which is one line of at most {LEN_MAX} bytes", quote(text)));
    }
    if kind_of(text).is_none() {
        let kind = text.split_once(':').map_or(text, |(kind, _)| kind);
        let known = SubjectKind::ALL.into_iter().find(|known| known.as_str() == kind);
        let hint = match known {
            Some(known) if known.is_single() => format!("{kind} has no name behind it"),
            Some(_) => format!("write {kind}:* for all of them"),
            None if kind == "port" => "write port:* for all of them".to_owned(),
            None => {
                let kinds = SubjectKind::ALL.into_iter().map(|kind| kind.as_str().to_owned());
                let kinds = kinds.chain([String::from("port")]);
                nearest(kind, kinds).map_or_else(String::new, |near| near.hint("", ""))
            }
        };
        return Err(format!("{} is no subject, which begins with its kind, like \"fs:/var*\"; {hint}", quote(text)));
    }
    let is_regular = text.contains(['^', '$', '|']) || text.contains(".*") || text.contains(".+");
    if is_regular {
        return Err(format!("{} is a regular expression, and patterns know only *, like \"fs:/var*\"", quote(text)));
    }
    Ok(Pattern::new(text))
}

fn runbook(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Box<str>> {
    let written = reader.text("runbook", value)?;
    let text = written.text;
    let is_web = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_plain = !text.contains(|letter: char| letter.is_whitespace() || letter.is_control());
    if text.len() > RULE_RUNBOOK_BYTES_MAX || !is_plain || is_web.is_none_or(str::is_empty) {
        let message = format!(
            "runbook: {} is no address of a page; it begins with https:// or http:// and has at most \
             {RULE_RUNBOOK_BYTES_MAX} bytes",
            quote(text)
        );
        reader.fault(written.start(), message);
        return None;
    }
    Some(text.into())
}
