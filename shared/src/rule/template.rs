//! The text of an alert: what stands between braces is a field, and is filled in when the rule fires.
//!
//! A field that would not be known then is refused when the rule is loaded.

use std::collections::BTreeMap;
use std::fmt;

use super::error::Fault;
use super::pattern::Pattern;
use super::shown::{self, ShownAs, UNKNOWN};
use super::{Field, Part, Scope, Severity, Template};
use crate::config::{nearest, quote};
use crate::limits::RULE_SUMMARY_BYTES_MAX;

/// What a template is filled with.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    pub node: &'a str,
    /// As it is written, `fs:/var`.
    pub subject: &'a str,
    pub rule: &'a str,
    pub severity: Severity,
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub shown_as: &'a ShownAs,
    pub for_ms: u64,
    pub label: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// What a rule's templates may name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed<'a> {
    /// `None` where the condition is wrong: then nobody knows what it is about.
    pub(super) scope: Option<Scope>,
    pub(super) has_value: bool,
    pub(super) labels: &'a BTreeMap<Box<str>, Pattern>,
}

const NAMES: [&str; 8] = ["node", "subject", "name", "rule", "severity", "value", "threshold", "for"];

pub(super) fn parse(text: &str, allowed: Allowed<'_>) -> Result<Template, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::new(0, "it is empty; say what is wrong, like \"{node} uses {value} of its memory\""));
    }
    if text.len() > RULE_SUMMARY_BYTES_MAX {
        let message = format!("{} bytes are too many; the limit is {RULE_SUMMARY_BYTES_MAX}", text.len());
        return Err(Fault::new(0, message));
    }
    if let Some(at) = text.find(char::is_control) {
        return Err(Fault::new(at, "it holds a control character, such as a line break; write one line"));
    }
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find(['{', '}']) {
        plain.push_str(&text[at..at + found]);
        at += found;
        let rest = &text[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            plain.push_str(&rest[..1]);
            at += 2;
            continue;
        }
        let Some(end) = rest.strip_prefix('{').and_then(|inside| inside.find(['{', '}'])) else {
            let message = if rest.starts_with('{') {
                "the field that opens here has no } behind it; for a brace itself write {{"
            } else {
                "nothing opens before this }; for a brace itself write }}"
            };
            return Err(Fault::new(at, message));
        };
        let name = &rest[1..=end];
        if rest[end + 1..].starts_with('{') {
            return Err(Fault::new(at, "the field that opens here has no } behind it; for a brace itself write {{"));
        }
        let field = field(name, allowed).map_err(|message| Fault::new(at, message))?;
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain).into()));
        }
        parts.push(Part::Field(field));
        at += end + 2;
    }
    plain.push_str(&text[at..]);
    if !plain.is_empty() {
        parts.push(Part::Text(plain.into()));
    }
    Ok(Template { parts })
}

fn field(name: &str, allowed: Allowed<'_>) -> Result<Field, String> {
    if let Some(key) = name.strip_prefix("label.") {
        return label(key, allowed.labels);
    }
    let field = match name {
        "node" => Field::Node,
        "subject" => Field::Subject,
        "name" => Field::Name,
        "rule" => Field::Rule,
        "severity" => Field::Severity,
        "value" => Field::Value,
        "threshold" => Field::Threshold,
        "for" => Field::For,
        _ => {
            let label = [String::from("label.KEY")];
            let names = NAMES.iter().map(|name| (*name).to_owned()).chain(label);
            let hint = nearest(name, names).map_or_else(String::new, |near| near.hint("{", "}"));
            return Err(format!("unknown field {}; {hint}", quote(name)));
        }
    };
    match (&field, allowed.scope) {
        (Field::Node | Field::Subject | Field::Name, Some(scope @ (Scope::Fleet | Scope::Collector))) => {
            let about = super::scope::about(scope);
            Err(format!("the rule is about {about}, so {{{name}}} is not known; leave it out"))
        }
        (Field::Name, Some(Scope::Node)) => Err("a node's subject has no name of its own; write {node}".to_owned()),
        (Field::Value | Field::Threshold, _) if !allowed.has_value => {
            Err(format!("when begins with absent, which has no {{{name}}}; leave it out"))
        }
        _ => Ok(field),
    }
}

fn label(key: &str, labels: &BTreeMap<Box<str>, Pattern>) -> Result<Field, String> {
    if labels.contains_key(key) {
        return Ok(Field::Label(key.into()));
    }
    let hint = match nearest(key, labels.keys().map(ToString::to_string)) {
        Some(near) => near.hint("{label.", "}"),
        None => format!("write where = {{ {} = \"*\" }} beside it", if key.is_empty() { "role" } else { key }),
    };
    Err(format!("the label {} is known of a node only where the rule asks for it in where; {hint}", quote(key)))
}

impl Template {
    #[must_use]
    pub fn render(&self, fields: &Fields<'_>) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Field(field) => text.push_str(&fields.write(field)),
            }
        }
        text
    }
}

/// As a person wrote it.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(plain) => f.write_str(&plain.replace('{', "{{").replace('}', "}}")),
            Part::Field(Field::Node) => f.write_str("{node}"),
            Part::Field(Field::Subject) => f.write_str("{subject}"),
            Part::Field(Field::Name) => f.write_str("{name}"),
            Part::Field(Field::Rule) => f.write_str("{rule}"),
            Part::Field(Field::Severity) => f.write_str("{severity}"),
            Part::Field(Field::Value) => f.write_str("{value}"),
            Part::Field(Field::Threshold) => f.write_str("{threshold}"),
            Part::Field(Field::For) => f.write_str("{for}"),
            Part::Field(Field::Label(key)) => write!(f, "{{label.{key}}}"),
        })
    }
}

impl Fields<'_> {
    fn write(&self, field: &Field) -> String {
        let number = |value: Option<f64>| value.map_or_else(|| UNKNOWN.to_owned(), |value| self.shown_as.write(value));
        match field {
            Field::Node => self.node.to_owned(),
            Field::Subject => self.subject.to_owned(),
            Field::Name => self.subject.split_once(':').map_or(self.subject, |(_, name)| name).to_owned(),
            Field::Rule => self.rule.to_owned(),
            Field::Severity => self.severity.as_str().to_owned(),
            Field::Value => number(self.value),
            Field::Threshold => number(self.threshold),
            #[expect(clippy::cast_precision_loss, reason = "a week in milliseconds is exact")]
            Field::For => shown::seconds(self.for_ms as f64 / 1_000.0),
            Field::Label(key) => (self.label)(key).unwrap_or(UNKNOWN).to_owned(),
        }
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields")
            .field("node", &self.node)
            .field("subject", &self.subject)
            .field("rule", &self.rule)
            .finish_non_exhaustive()
    }
}
