//! What a silence is about: each matcher has to fit, and what an alert does not have fits none.
//!
//! Labels are those that an agent cannot choose. At least one matcher is there: nobody silences everything by leaving
//! something out.

use std::collections::BTreeMap;
use std::fmt;

use dunlin_shared::id::NodeId;
use dunlin_shared::limits::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, RULE_NAME_BYTES_MAX, SUBJECT_NAME_BYTES_MAX};
use dunlin_shared::rule::{Pattern, Severity};

use crate::registry::{Labels, Refused};

/// More than anybody reads. Labels count one by one.
pub const MATCHERS_MAX: usize = 16;
/// A subject as it is written: its kind, a colon and its name.
const SUBJECT_BYTES_MAX: usize = SUBJECT_NAME_BYTES_MAX + 16;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matchers {
    /// By key; all of them must be borne.
    pub labels: BTreeMap<Box<str>, Pattern>,
    pub rule: Option<Pattern>,
    pub node: Option<NodeId>,
    pub subject: Option<Pattern>,
    pub severity: Option<Severity>,
}

/// What there is to know of an alert.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub rule: &'a str,
    /// `None` when it is about the fleet or the collector.
    pub node: Option<NodeId>,
    /// Of the node: operator's over token's.
    pub labels: &'a Labels,
    pub subject: &'a str,
    pub severity: Severity,
}

impl Matchers {
    #[must_use]
    pub fn fit(&self, alert: &Facts<'_>) -> bool {
        self.node.is_none_or(|node| alert.node == Some(node))
            && self.severity.is_none_or(|severity| alert.severity == severity)
            && self.rule.as_ref().is_none_or(|rule| rule.fits(alert.rule))
            && self.labels.iter().all(|(key, value)| alert.labels.get(&**key).is_some_and(|borne| value.fits(borne)))
            && self.subject.as_ref().is_none_or(|subject| subject.fits(alert.subject))
    }

    /// Whether it is about nothing but what bears these labels.
    #[must_use]
    pub fn is_within(&self, limits: &Labels) -> bool {
        limits.iter().all(|(key, value)| self.labels.get(&**key).and_then(exact) == Some(value))
    }

    pub(super) fn check(&self) -> Result<(), Refused> {
        let others = [self.rule.is_some(), self.node.is_some(), self.subject.is_some(), self.severity.is_some()];
        let count = self.labels.len() + others.into_iter().filter(|is_there| *is_there).count();
        if !(1..=MATCHERS_MAX).contains(&count) {
            return Err(Refused::Invalid(format!(
                "{count} matchers; a silence has 1 to {MATCHERS_MAX} of labels, rule, node, subject and severity"
            )));
        }
        for (key, value) in &self.labels {
            if key.is_empty() || key.len() > LABEL_KEY_BYTES_MAX {
                let rule = format!("a name of 1 to {LABEL_KEY_BYTES_MAX} bytes");
                return Err(Refused::Invalid(format!("a silence is on labels without such a name; each has {rule}")));
            }
            check("a label", value, LABEL_VALUE_BYTES_MAX)?;
        }
        self.rule.iter().try_for_each(|rule| check("rule", rule, RULE_NAME_BYTES_MAX))?;
        self.subject.iter().try_for_each(|subject| check("subject", subject, SUBJECT_BYTES_MAX))
    }
}

/// The only text that fits, when there is only one.
pub(super) fn exact(pattern: &Pattern) -> Option<&str> {
    Some(pattern.as_str()).filter(|text| !text.contains('*'))
}

fn check(of: &str, pattern: &Pattern, most: usize) -> Result<(), Refused> {
    let text = pattern.as_str();
    if text.is_empty() || text.len() > most || text.chars().any(char::is_control) {
        let rule = format!("1 to {most} bytes on one line, with * for anything");
        return Err(Refused::Invalid(format!("the pattern of {of} is not allowed; it has {rule}")));
    }
    Ok(())
}

/// For the log: `env=prod rule:disk-* node:... subject:fs:/var* severity:warning`
impl fmt::Display for Matchers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let named = [
            self.rule.as_ref().map(|rule| format!("rule:{rule}")),
            self.node.map(|node| format!("node:{node}")),
            self.subject.as_ref().map(|subject| format!("subject:{subject}")),
            self.severity.map(|severity| format!("severity:{}", severity.as_str())),
        ];
        let words: Vec<_> = labels.chain(named.into_iter().flatten()).collect();
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_matcher_has_to_fit_and_what_is_not_there_fits_none() {
        let labels = Labels::from([("env".into(), "prod".into())]);
        let node = NodeId::from_bytes([1; 16]);
        let disk = Facts {
            rule: "disk-low",
            node: Some(node),
            labels: &labels,
            subject: "fs:/var",
            severity: Severity::Warning,
        };
        let fleet = Facts {
            rule: "mass-loss",
            node: None,
            labels: &Labels::new(),
            subject: "fleet",
            severity: Severity::Critical,
        };
        let fits = |matchers: &Matchers| (matchers.fit(&disk), matchers.fit(&fleet));
        let rule = |text| Matchers { rule: Some(Pattern::new(text)), ..Matchers::default() };
        assert_eq!((fits(&rule("disk-*")), fits(&rule("*"))), ((true, false), (true, true)));
        let both = Matchers { severity: Some(Severity::Critical), ..rule("disk-*") };
        assert_eq!(fits(&both), (false, false));
        assert_eq!(fits(&Matchers { node: Some(node), ..Matchers::default() }), (true, false));
        let label = |key: &str, value: &str| Matchers {
            labels: [(key.into(), Pattern::new(value))].into(),
            ..Matchers::default()
        };
        assert_eq!((fits(&label("env", "pr*")), fits(&label("zone", "*"))), ((true, false), (false, false)));
        assert_eq!(fits(&Matchers { subject: Some(Pattern::new("fs:*")), ..Matchers::default() }), (true, false));
    }

    #[test]
    fn it_is_within_limits_when_it_names_each_of_them_outright() {
        let limits = Labels::from([("tenant".into(), "a".into())]);
        let label =
            |value: &str| Matchers { labels: [("tenant".into(), Pattern::new(value))].into(), ..Matchers::default() };
        assert!(label("a").is_within(&limits) && label("b").is_within(&Labels::new()));
        for other in [label("a*"), label("*"), label("b"), Matchers::default()] {
            assert!(!other.is_within(&limits), "{other:?}");
        }
        let starred = Labels::from([("tenant".into(), "a*".into())]);
        assert!(!label("a*").is_within(&starred), "it would be about others as well");
    }

    #[test]
    fn what_is_too_much_or_nothing_is_refused_and_the_rest_is_written_in_one_line() {
        assert!(matches!(Matchers::default().check(), Err(Refused::Invalid(why)) if why.contains("1 to 16")));
        let many = (0..17).map(|number| (format!("l{number}").into(), Pattern::new("x"))).collect();
        assert!(Matchers { labels: many, ..Matchers::default() }.check().is_err());
        for bad in ["", "a\nb", &"r".repeat(64)] {
            assert!(Matchers { rule: Some(Pattern::new(bad)), ..Matchers::default() }.check().is_err(), "{bad:?}");
        }
        let all = Matchers {
            labels: [("env".into(), Pattern::new("prod"))].into(),
            rule: Some(Pattern::new("disk-*")),
            node: None,
            subject: Some(Pattern::new("fs:/var*")),
            severity: Some(Severity::Warning),
        };
        assert!(all.check().is_ok());
        assert_eq!(all.to_string(), "env=prod rule:disk-* subject:fs:/var* severity:warning");
    }
}
