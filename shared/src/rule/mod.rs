//! What is wrong with a node, said by a person: rules, as they are checked and before anything is measured.
//!
//! Pure. A rule that got here reads metrics that exist, compares like with like, and names nothing in its summary that is
//! not known when it fires: whatever else may be wrong with a text is found when it is loaded, with its line and column.

mod check;
mod clear;
pub mod condition;
mod draft;
mod error;
pub mod file;
mod function;
mod key;
pub mod known;
mod lex;
mod literal;
mod measure;
mod name;
mod parse;
pub mod pattern;
mod range;
mod reference;
mod scope;
pub mod set;
mod shown;
mod template;
mod text;

use std::collections::BTreeMap;

pub use condition::{Operator, Test, Value, Verdict};
pub use error::RuleError;
pub use known::Known;
pub use pattern::Pattern;
pub use reference::reference;
pub use set::RuleSet;
pub use shown::ShownAs;
pub use template::Fields;

use crate::metric::{Kind, MetricId, Unit};
use crate::sample::SubjectKind;

/// A rule on one kind of subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: Box<str>,
    pub is_enabled: bool,
    pub scope: Scope,
    /// What `when` and `clear` read, each once; they name it by its place.
    pub terms: Vec<Term>,
    pub when: Test,
    /// How `{value}` and `{threshold}` are written.
    pub shown_as: ShownAs,
    /// What ends an alert; without it, that `when` does not hold any more.
    pub clear: Option<Test>,
    /// For how long it holds before it fires.
    pub for_ms: u64,
    /// For how long it goes on firing after the end.
    pub keep_firing_ms: u64,
    pub severity: Severity,
    /// Labels that a node must bear.
    pub labels: BTreeMap<Box<str>, Pattern>,
    /// Written subjects of which one must fit; none means all.
    pub subjects: Vec<Pattern>,
    pub summary: Template,
    pub summary_zh: Option<Template>,
    pub runbook: Option<Box<str>>,
    /// As a person wrote them, for whoever asks.
    pub when_text: Box<str>,
    pub clear_text: Option<Box<str>>,
    pub place: Place,
}

/// Where a rule stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Place {
    pub file: Box<str>,
    pub line: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Info,
    #[default]
    Warning,
    Critical,
}

/// What there is one alert for. What is measured of the node as a whole may be read under any of them but the last two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The node: its host, its agent, and what the collector knows of it.
    Node,
    /// Each subject of the kind, which is none of those that a node has one of.
    Kind(SubjectKind),
    /// Each subject that has the metrics; of the open name space nobody says what they are about.
    Any,
    /// Each listening port.
    Port,
    /// All nodes together.
    Fleet,
    /// The collector itself.
    Collector,
}

/// One value that a rule reads, each time it is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub source: Source,
    /// A gauge where nobody knows: of the open name space a node says what it declares.
    pub kind: Kind,
    pub unit: Option<Unit>,
    /// `None` for the value as it is.
    pub over: Option<Over>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    Catalogued(MetricId),
    /// `x_*`
    Open(Box<str>),
    Known(Known),
}

/// What becomes of the values within a window that ends now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Over {
    pub function: Function,
    pub window_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    Avg,
    Min,
    Max,
    Last,
    /// By how much a counter grew in a second.
    Rate,
    /// By how much a counter grew, or a gauge changed.
    Delta,
    /// How often the value became another.
    Changes,
    /// How many values there were that compare so.
    Count {
        operator: Operator,
        than: f64,
    },
    /// 1 when there was no value, else 0.
    Absent,
}

/// Text with fields, of which each is known whenever the rule fires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(Box<str>),
    Field(Field),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    Node,
    /// As it is written, `fs:/var`.
    Subject,
    /// The same without its kind, `/var`.
    Name,
    Rule,
    Severity,
    /// What the first comparison compares, in its unit.
    Value,
    Threshold,
    For,
    Label(Box<str>),
}

impl Severity {
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == text)
    }
}

impl Source {
    /// Whether there is one of it on a node, whatever the rule is about.
    #[must_use]
    pub fn is_of_node(&self) -> bool {
        match self {
            Self::Catalogued(id) => crate::metric::by_id(*id).is_some_and(|metric| metric.subject.is_single()),
            Self::Open(_) => false,
            Self::Known(known) => known.scope() == Scope::Node,
        }
    }
}

impl Rule {
    /// Whether it reads the subject, by its written form.
    #[must_use]
    pub fn is_about(&self, subject: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|pattern| pattern.fits(subject))
    }

    /// Whether it is about nodes that bear these labels.
    #[must_use]
    pub fn is_on<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.labels.iter().all(|(key, pattern)| label(key).is_some_and(|value| pattern.fits(value)))
    }

    /// Whether it says the same of the same values: an alert of the one is an alert of the other.
    #[must_use]
    pub fn judges_like(&self, other: &Self) -> bool {
        let times = |rule: &Self| (rule.for_ms, rule.keep_firing_ms, rule.is_enabled, rule.scope);
        times(self) == times(other)
            && (&self.terms, &self.when, &self.clear) == (&other.terms, &other.when, &other.clear)
            && (&self.labels, &self.subjects) == (&other.labels, &other.subjects)
    }
}

#[cfg(test)]
mod tests;
