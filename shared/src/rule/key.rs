//! The keys of a rule, one by one: each is read, or refused with how it is written.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeValue;

use super::Severity;
use super::error::Fault;
use super::file::Reader;
use super::pattern::Pattern;
use super::scope::kind_of;
use super::text::Written;
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

impl Reader<'_> {
    /// `None`, and a fault, for a name that another rule of the file has.
    pub(super) fn name_once(&mut self, name: Written<'_>) -> Option<()> {
        let (line, _) = self.lines.place(name.start());
        if let Some(first) = self.names.get(name.text) {
            let message = format!("two rules are named {}; the other is at {}:{first}", name.text, self.file);
            self.fault(name.start(), message);
            return None;
        }
        self.names.insert(name.text.to_owned(), line);
        Some(())
    }

    pub(super) fn take(&mut self, key: &str, written: Written<'_>, faults: Vec<Fault>) {
        for fault in faults {
            self.fault(written.offset(self.text, fault.at), format!("{key}: {}", fault.message));
        }
    }

    pub(super) fn missing(&mut self, at: usize, what: &str, key: &str) {
        let example = example(key);
        self.fault(at, format!("{what}; write {example}"));
    }

    pub(super) fn wrong(&mut self, at: usize, key: &str, given: &DeValue<'_>, wanted: &str) {
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

    pub(super) fn duration(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<u64> {
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

pub(super) fn name<'a>(reader: &mut Reader<'_>, value: &'a Spanned<DeValue<'_>>) -> Option<Written<'a>> {
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

pub(super) fn severity(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Severity> {
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

pub(super) fn labels(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> BTreeMap<Box<str>, Pattern> {
    let mut labels = BTreeMap::new();
    let DeValue::Table(table) = value.get_ref() else {
        reader.wrong(value.span().start, "where", value.get_ref(), "a table of labels");
        return labels;
    };
    let mut seen = BTreeMap::new();
    for (key, value) in table.iter() {
        if reader.is_flooded() {
            break;
        }
        let (at, key) = (key.span().start, key.get_ref().as_ref());
        let DeValue::String(text) = value.get_ref() else {
            let given = a_type(value.get_ref());
            reader.fault(
                at,
                format!("where: the label {} is {given}; it must be text in quotes, like \"db\"", quote(key)),
            );
            continue;
        };
        // What names the label below is right in this, whatever is wrong here.
        labels.insert(key.into(), Pattern::new(text));
        if let Err(message) = insert_label(&mut seen, key, text) {
            reader.fault(at, format!("where: {message}"));
        } else if let Some(strange) = text.chars().find(|letter| "()[]+?|^$\\".contains(*letter)) {
            let message =
                format!("where: {strange:?} is of a regular expression, and patterns know only *, like \"web-*\"");
            reader.fault(value.span().start, message);
        }
    }
    labels
}

pub(super) fn subjects(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Vec<(Pattern, usize)> {
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

pub(super) fn runbook(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Box<str>> {
    let written = reader.text("runbook", value)?;
    let text = written.text;
    let page = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_web = page.is_some_and(|page| !page.is_empty());
    let is_plain = !text.contains(|letter: char| letter.is_whitespace() || letter.is_control());
    if text.len() > RULE_RUNBOOK_BYTES_MAX || !is_plain || !(is_web || is_shipped(text)) {
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

/// A page below `docs`, which has no address of its own: `runbooks/disk-low.md`.
fn is_shipped(text: &str) -> bool {
    let page = text.strip_prefix("runbooks/").and_then(|page| page.strip_suffix(".md"));
    let is_name = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
    page.is_some_and(|page| !page.is_empty() && page.bytes().all(is_name))
}
