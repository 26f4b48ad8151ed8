//! What a rule waits for and what ends it: `when` and `clear` read the same subject, and never hold at once.

use super::check::{Checker, Comparison, First};
use super::condition::{Operator, Test, Value};
use super::error::Fault;
use super::measure::Measure;
use super::parse::{parse, parse_half};
use super::pattern::Pattern;
use super::scope::{Claims, about};
use super::{Scope, ShownAs, Term};
use crate::config::quote;

/// A condition that is right in itself.
#[derive(Debug)]
pub(super) struct When<'a> {
    text: &'a str,
    pub(super) test: Test,
    pub(super) terms: Vec<Term>,
    claims: Claims,
    first: Option<First>,
}

pub(super) fn when(text: &str) -> Result<When<'_>, Vec<Fault>> {
    let node = parse(text).map_err(|fault| vec![fault])?;
    let mut checker = Checker::new(text, Vec::new());
    let test = checker.test(&node);
    let mut claims = Claims::default();
    checker.claim(&mut claims);
    match test {
        Some(test) if checker.faults.is_empty() => {
            let Checker { terms, first, .. } = checker;
            Ok(When { text, test, terms, claims, first })
        }
        _ => Err(checker.faults),
    }
}

impl When<'_> {
    pub(super) fn scope(&self, subjects: &[Pattern]) -> Scope {
        self.claims.scope(subjects)
    }

    /// `None` where it begins with what has no value.
    pub(super) fn shown(&self) -> Option<ShownAs> {
        self.first.as_ref().and_then(First::shown)
    }

    /// What ends it, and everything that both read. Either a whole condition, or an operator and a number.
    pub(super) fn clear(&self, text: &str, subjects: &[Pattern]) -> Result<(Test, Vec<Term>), Vec<Fault>> {
        let half = parse_half(text).map_err(|fault| vec![fault])?;
        let at = text.len() - text.trim_start().len();
        let mut checker = Checker::new(text, self.terms.clone());
        let test = match &half {
            Some((operator, node)) => {
                let only = self.only().ok_or_else(|| {
                    let message = "when is more than one comparison; write a whole condition, like host_load1 < 4";
                    vec![Fault::new(at, message)]
                })?;
                half_test(&mut checker, only, *operator, node)
            }
            None => {
                let node = parse(text).map_err(|fault| vec![fault])?;
                let test = checker.test(&node);
                let mut claims = self.claims.clone();
                checker.claim(&mut claims);
                let (scope, wanted) = (claims.scope(subjects), self.scope(subjects));
                if checker.faults.is_empty() && scope != wanted {
                    let message = format!("when is about {} and clear about {}", about(wanted), about(scope));
                    checker.fault(checker.first_use(), format!("{message}; both are about the same"));
                }
                test
            }
        };
        let Some(test) = test.filter(|_| checker.faults.is_empty()) else { return Err(checker.faults) };
        if let Some(message) = self.contradiction(&test) {
            return Err(vec![Fault::new(at, message)]);
        }
        Ok((test, checker.terms))
    }

    /// The comparison, if it is nothing else.
    fn only(&self) -> Option<&Comparison> {
        match (&self.test, &self.first) {
            (Test::Compare { .. }, Some(First::Compared(comparison))) => Some(comparison),
            _ => None,
        }
    }

    fn contradiction(&self, clear: &Test) -> Option<String> {
        if *clear == self.test {
            return Some("it is what when says; say what ends the alert".to_owned());
        }
        let only = self.only()?;
        let Test::Compare { left, operator, right } = clear else { return None };
        let (limit, number) = match (only.right.side.constant, right) {
            (Some(limit), Value::Number(number)) => (limit, *number),
            // Whatever it is, it is the same on both sides.
            _ if *right == only.right.value => (0.0, 0.0),
            _ => return None,
        };
        let both = Both { first: (only.operator, limit), second: (*operator, number) };
        if *left != only.left.value || !both.may_hold() {
            return None;
        }
        let written = only.right.span.of(self.text);
        let (operator, end) = (only.operator.as_str(), only.operator.opposite());
        // A word is one of several, so that another one may follow.
        let beyond = match (end, only.left.side.measure) {
            (_, Measure::Words(_)) | (Operator::Equal | Operator::NotEqual, _) => "",
            (Operator::Less | Operator::LessOrEqual, _) => " or less",
            _ => " or more",
        };
        Some(format!(
            "it may hold while when does, which says {operator} {written}; write {}{beyond}",
            quote(&format!("{} {written}", end.as_str()))
        ))
    }
}

fn half_test(
    checker: &mut Checker<'_>,
    only: &Comparison,
    operator: Operator,
    node: &super::parse::Node<'_>,
) -> Option<Test> {
    let right = match only.left.side.measure {
        Measure::Words(known) => {
            if !matches!(operator, Operator::Equal | Operator::NotEqual) {
                let message = format!("{} is one of its words; write == or !=", known.as_str());
                return checker.refuse(0, message);
            }
            checker.word(known, node)?
        }
        _ => checker.value(node)?,
    };
    if right.side.constant.is_none() {
        return checker.refuse(right.span.start, "behind the operator stands a number, or write a whole condition");
    }
    checker.compare(Comparison { left: only.left.clone(), operator, right })
}

/// Two comparisons of one thing, each with a number.
struct Both {
    first: (Operator, f64),
    second: (Operator, f64),
}

impl Both {
    /// Looked at in each of the numbers, between them and beyond: they part what there is into parts that judge alike.
    fn may_hold(&self) -> bool {
        let (first, second) = (self.first.1, self.second.1);
        let (least, most) = (first.min(second), first.max(second));
        let room = 1.0 + least.abs().max(most.abs());
        let places = [least - room, least, least / 2.0 + most / 2.0, most, most + room];
        places.into_iter().any(|place| self.first.0.compares(place, first) && self.second.0.compares(place, second))
    }
}
