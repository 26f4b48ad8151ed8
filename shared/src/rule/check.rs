//! A tree of names and numbers as a test of terms: every name is known, and like is compared with like.
//!
//! Whatever is wrong is found, not only the first of it: both sides of every operator are looked at.

use super::condition::{Operator, Test, Value};
use super::error::{Fault, Span};
use super::measure::{self, Measure, Side};
use super::name::{Named, resolve, words_of};
use super::parse::{By, Form, Node};
use super::range;
use super::scope::Claims;
use super::shown::ShownAs;
use super::{Known, Over, Term};
use crate::config::{nearest, quote};
use crate::limits::RULE_TERMS_MAX;

/// A number, and what it measures.
#[derive(Clone, Debug)]
pub(super) struct Quantity {
    pub(super) value: Value,
    pub(super) side: Side,
    pub(super) span: Span,
}

/// Two sides that are measured alike; what is written down stands on the right.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    pub(super) left: Quantity,
    pub(super) operator: Operator,
    pub(super) right: Quantity,
}

/// What comes first in a condition, which is what an alert shows.
#[derive(Clone, Debug)]
pub(super) enum First {
    Compared(Comparison),
    Absent,
}

#[derive(Debug)]
pub(super) struct Checker<'a> {
    pub(super) text: &'a str,
    pub(super) terms: Vec<Term>,
    /// What the text names, in its order: the place of the term, and that in the text.
    uses: Vec<(usize, usize)>,
    pub(super) first: Option<First>,
    pub(super) faults: Vec<Fault>,
}

impl<'a> Checker<'a> {
    /// `terms` are those that the rule reads already.
    pub(super) fn new(text: &'a str, terms: Vec<Term>) -> Self {
        Self { text, terms, uses: Vec::new(), first: None, faults: Vec::new() }
    }

    pub(super) fn fault(&mut self, at: usize, message: impl Into<String>) {
        self.faults.push(Fault::new(at, message));
    }

    pub(super) fn refuse<T>(&mut self, at: usize, message: impl Into<String>) -> Option<T> {
        self.fault(at, message);
        None
    }

    /// Adds what the text names to `claims`; the first that does not go with the others is the mistake.
    pub(super) fn claim(&mut self, claims: &mut Claims) {
        for (place, at) in &self.uses {
            if let Err(fault) = claims.add(&self.terms[*place], *at) {
                self.faults.push(fault);
                return;
            }
        }
    }

    /// Where the first name stands.
    pub(super) fn first_use(&self) -> usize {
        self.uses.first().map_or(0, |(_, at)| *at)
    }

    pub(super) fn test(&mut self, node: &Node<'_>) -> Option<Test> {
        match &node.form {
            Form::Pair { by: By::Compare(operator), left, right, .. } => {
                let comparison = self.sides(*operator, left, right)?;
                self.compare(comparison)
            }
            Form::Pair { by: by @ (By::And | By::Or | By::Unless), left, right, .. } => {
                let (first, second) = (self.test(left), self.test(right));
                let (first, second) = (Box::new(first?), Box::new(second?));
                Some(match by {
                    By::And => Test::And(first, second),
                    By::Or => Test::Or(first, second),
                    _ => Test::Unless(first, second),
                })
            }
            Form::Call { name: "absent", arguments } => {
                let left = self.absent(node.span, arguments)?;
                self.first.get_or_insert(First::Absent);
                Some(Test::Compare { left, operator: Operator::Equal, right: Value::Number(1.0) })
            }
            Form::Name(name) if words_of(name).is_some_and(|known| !known.words().is_empty()) => {
                let word = words_of(name).map_or("", |known| known.words()[1]);
                self.refuse(node.span.start, format!("{name} is one of its words; write {name} == {word}"))
            }
            _ => {
                let value = self.value(node)?;
                self.refuse(value.span.start, "this is a number and no test; compare it, like host_load1 > 4")
            }
        }
    }

    /// Both sides of a comparison; where one of them is a thing of words, the other is such a word.
    pub(super) fn sides(&mut self, operator: Operator, left: &Node<'_>, right: &Node<'_>) -> Option<Comparison> {
        let words = |node: &Node<'_>| match node.form {
            Form::Name(name) => words_of(name).filter(|known| !known.words().is_empty()),
            _ => None,
        };
        let (known, thing, word) = match (words(left), words(right)) {
            (Some(known), _) => (known, left, right),
            (None, Some(known)) => (known, right, left),
            (None, None) => {
                let (left, right) = (self.value(left), self.value(right));
                let (left, right) = (left?, right?);
                // What is measured stands on the left, so that an alert shows it as its value.
                return Some(if left.side.constant.is_some() && right.side.constant.is_none() {
                    Comparison { left: right, operator: operator.mirrored(), right: left }
                } else {
                    Comparison { left, operator, right }
                });
            }
        };
        let name = known.as_str();
        if !matches!(operator, Operator::Equal | Operator::NotEqual) {
            let message = format!("{name} is one of its words, of which none is more than another; write == or !=");
            return self.refuse(thing.span.start, message);
        }
        let right = self.word(known, word)?;
        let side = Side { measure: Measure::Words(known), constant: None };
        let value = Value::Term(self.term(Named::known(known).term(None), thing.span.start)?);
        Some(Comparison { left: Quantity { value, side, span: thing.span }, operator, right })
    }

    pub(super) fn word(&mut self, known: Known, node: &Node<'_>) -> Option<Quantity> {
        let words = known.words();
        let place = match node.form {
            Form::Name(name) => words.iter().position(|word| *word == name),
            _ => None,
        };
        let Some(place) = place else {
            let given = node.span.of(self.text);
            let hint = match node.form {
                Form::Name(name) => nearest(name, words.iter().map(|word| (*word).to_owned()))
                    .map_or_else(String::new, |near| near.hint("", "")),
                _ => format!("it is one of {}", words.join(", ")),
            };
            let message = format!("{} is no word of {}; {hint}", quote(given), known.as_str());
            return self.refuse(node.span.start, message);
        };
        #[expect(clippy::cast_precision_loss, reason = "a list of words is short")]
        let number = place as f64;
        let side = Side { measure: Measure::Words(known), constant: Some(number) };
        Some(Quantity { value: Value::Number(number), side, span: node.span })
    }

    pub(super) fn compare(&mut self, comparison: Comparison) -> Option<Test> {
        let Comparison { left, operator, right } = &comparison;
        if left.side.constant.is_some() {
            return self.refuse(left.span.start, "nothing is measured here; compare a metric with a number");
        }
        if left.value == right.value {
            return self.refuse(right.span.start, "this compares a thing with itself; compare it with another");
        }
        if let Err(message) = measure::fit(left.side, right.side) {
            return self.refuse(right.span.start, message);
        }
        if let (Value::Term(place), Some(number)) = (&left.value, right.side.constant)
            && let Some(message) = range::verdict(&self.terms[*place], *operator, number)
        {
            return self.refuse(right.span.start, message);
        }
        let test = Test::Compare { left: left.value.clone(), operator: *operator, right: right.value.clone() };
        self.first.get_or_insert(First::Compared(comparison));
        Some(test)
    }

    pub(super) fn value(&mut self, node: &Node<'_>) -> Option<Quantity> {
        let (value, measure) = match &node.form {
            Form::Number(literal) => (Value::Number(literal.number), literal.measure),
            Form::Name(name) => {
                let named = self.named(name, node.span.start)?;
                (Value::Term(self.term(named.term(None), node.span.start)?), named.measure)
            }
            Form::Call { name, arguments } => self.call(name, node.span, arguments)?,
            Form::Negated(inner) => {
                let inner = self.value(inner)?;
                (Value::Negated(Box::new(inner.value)), inner.side.measure.difference())
            }
            Form::Pair { by, left, right, .. } => {
                let (left, right) = match by {
                    By::Add | By::Subtract | By::Multiply | By::Divide => (self.value(left), self.value(right)),
                    _ => {
                        let message = "a test stands where a number should; join tests by and, or and unless";
                        return self.refuse(node.span.start, message);
                    }
                };
                self.arithmetic(*by, left?, right?)?
            }
        };
        self.quantity(value, measure, node.span)
    }

    fn arithmetic(&mut self, by: By, left: Quantity, right: Quantity) -> Option<(Value, Measure)> {
        if by == By::Divide && right.side.constant == Some(0.0) {
            return self.refuse(right.span.start, "nothing can be divided by 0");
        }
        let measure = match by {
            By::Multiply => measure::product(left.side.measure, right.side.measure),
            By::Divide => measure::quotient(left.side.measure, right.side.measure),
            _ => match measure::sum(left.side, right.side) {
                Ok(measure) if by == By::Subtract => measure.difference(),
                Ok(measure) => measure,
                Err(message) => return self.refuse(right.span.start, message),
            },
        };
        let (left, right) = (Box::new(left.value), Box::new(right.value));
        let value = match by {
            By::Multiply => Value::Product(left, right),
            By::Divide => Value::Quotient(left, right),
            By::Subtract => Value::Difference(left, right),
            _ => Value::Sum(left, right),
        };
        Some((value, measure))
    }

    /// What is made of numbers alone is one number from here on.
    pub(super) fn quantity(&mut self, value: Value, measure: Measure, span: Span) -> Option<Quantity> {
        if !is_constant(&value) {
            return Some(Quantity { value, side: Side { measure, constant: None }, span });
        }
        match value.of(&[]) {
            Some(number) => {
                let side = Side { measure, constant: Some(number) };
                Some(Quantity { value: Value::Number(number), side, span })
            }
            None => self.refuse(span.start, "this is too large for a number"),
        }
    }

    /// A metric that a number is read of.
    pub(super) fn named(&mut self, name: &str, at: usize) -> Option<Named> {
        match resolve(name) {
            Ok(named) => match named.measure {
                Measure::Words(known) => {
                    let word = known.words()[1];
                    self.refuse(at, format!("{name} is no number but one of its words; write {name} == {word}"))
                }
                _ => Some(named),
            },
            Err(message) => self.refuse(at, message),
        }
    }

    /// The place of a term, each of which is read once.
    pub(super) fn term(&mut self, term: Term, at: usize) -> Option<usize> {
        let place = self.terms.iter().position(|known| *known == term).unwrap_or(self.terms.len());
        if place == self.terms.len() {
            if place >= RULE_TERMS_MAX {
                let message =
                    format!("a rule reads at most {RULE_TERMS_MAX} different values; make several rules of this one");
                return self.refuse(at, message);
            }
            self.terms.push(term);
        }
        self.uses.push((place, at));
        Some(place)
    }

    pub(super) fn over(&mut self, named: &Named, over: Over, at: usize) -> Option<Value> {
        self.term(named.term(Some(over)), at).map(Value::Term)
    }
}

impl First {
    /// `None` where there is no value to show.
    pub(super) fn shown(&self) -> Option<ShownAs> {
        match self {
            Self::Compared(comparison) => Some(comparison.left.side.measure.shown(comparison.right.side.measure)),
            Self::Absent => None,
        }
    }
}

/// Whether nothing is read; parts of what is constant are one number already.
const fn is_constant(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::Term(_) => false,
        Value::Negated(value) | Value::Absolute(value) => matches!(**value, Value::Number(_)),
        Value::Sum(left, right)
        | Value::Difference(left, right)
        | Value::Product(left, right)
        | Value::Quotient(left, right) => matches!((&**left, &**right), (Value::Number(_), Value::Number(_))),
    }
}
