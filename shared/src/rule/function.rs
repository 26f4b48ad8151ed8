//! The functions of a condition: what each takes, and what it gives.
//!
//! A function over time reads one metric and nothing else: what it looks back at is kept for each metric of its own.

use super::check::{Checker, Quantity};
use super::condition::Value;
use super::error::Span;
use super::measure::{self, Measure};
use super::name::{Named, resolve};
use super::parse::{By, Form, Node};
use super::{Function, Over, range, scope};
use crate::config::{nearest, quote};
use crate::limits::{RULE_WINDOW_MS_MAX, RULE_WINDOW_MS_MIN};
use crate::metric::Kind;

/// Every function, as it is written, and what it gives.
pub(super) const USAGES: [(&str, &str, &str); 10] = [
    ("avg", "avg(metric, 5m)", "The mean of the values of a gauge."),
    ("min", "min(metric, 5m)", "The least of them."),
    ("max", "max(metric, 5m)", "The greatest of them."),
    ("last", "last(metric, 5m)", "The newest value, as long as it is not older than the window."),
    ("rate", "rate(metric, 5m)", "By how much a counter grew in a second."),
    ("delta", "delta(metric, 5m)", "By how much a counter grew, or a gauge changed."),
    ("changes", "changes(metric, 1h)", "How often the value became another."),
    ("count_over", "count_over(metric > 5, 1h)", "How many values there were that compare so."),
    ("absent", "absent(metric, 5m)", "A test by itself: that there was no value."),
    ("abs", "abs(metric)", "A number without its sign; it takes any number, and no window."),
];

pub(super) fn usage(name: &str) -> Option<&'static str> {
    USAGES.iter().find(|(known, ..)| *known == name).map(|(_, usage, _)| *usage)
}

impl Checker<'_> {
    pub(super) fn call(&mut self, name: &str, span: Span, arguments: &[Node<'_>]) -> Option<(Value, Measure)> {
        match name {
            "abs" => self.absolute(span, arguments),
            "count_over" => self.count_over(span, arguments),
            "absent" => {
                let message = "absent is a test by itself; compare it with nothing, and join it by and, or and unless";
                self.refuse(span.start, message)
            }
            "not" => self.refuse(span.start, super::parse::NO_NOT),
            _ => match function(name) {
                Some(function) => self.windowed(function, name, span, arguments),
                None => {
                    let names = USAGES.iter().map(|(known, ..)| (*known).to_owned());
                    let hint = nearest(name, names).map_or_else(String::new, |near| near.hint("", ""));
                    self.refuse(span.start, format!("unknown function {}; {hint}", quote(name)))
                }
            },
        }
    }

    fn absolute(&mut self, span: Span, arguments: &[Node<'_>]) -> Option<(Value, Measure)> {
        let [argument] = arguments else {
            return self.refuse(span.start, "abs takes one number, like abs(node_skew_seconds)");
        };
        let Quantity { value, side, .. } = self.value(argument)?;
        Some((Value::Absolute(Box::new(value)), side.measure))
    }

    fn windowed(
        &mut self,
        function: Function,
        name: &str,
        span: Span,
        arguments: &[Node<'_>],
    ) -> Option<(Value, Measure)> {
        let [metric, window] = self.pair(name, span, arguments)?;
        let named = self.metric(name, metric);
        let window = self.window(window);
        let (named, window_ms) = (named?, window?);
        let at = metric.span.start;
        let metric = scope::name(&named.source);
        if let (Measure::Words(_), false) = (named.measure, function == Function::Changes) {
            let message =
                format!("{metric} is one of its words, of which {name} makes nothing; changes and count_over do");
            return self.refuse(at, message);
        }
        let refused = match (function, named.kind) {
            (Function::Rate, Some(Kind::Gauge)) => {
                Some(format!("{metric} is a gauge, and rate is of a counter; write delta({metric}, 5m)"))
            }
            (Function::Avg | Function::Min | Function::Max, Some(Kind::Counter)) => {
                Some(format!("{metric} is a counter, which only grows; write rate({metric}, 5m)"))
            }
            _ => None,
        };
        if let Some(message) = refused {
            return self.refuse(at, message);
        }
        let measure = match function {
            Function::Rate => named.measure.a_second(),
            Function::Delta => named.measure.difference(),
            Function::Changes => Measure::Count,
            _ => named.measure,
        };
        Some((self.over(&named, Over { function, window_ms }, at)?, measure))
    }

    pub(super) fn absent(&mut self, span: Span, arguments: &[Node<'_>]) -> Option<Value> {
        let (value, _) = self.windowed(Function::Absent, "absent", span, arguments)?;
        Some(value)
    }

    fn count_over(&mut self, span: Span, arguments: &[Node<'_>]) -> Option<(Value, Measure)> {
        let [compared, window] = self.pair("count_over", span, arguments)?;
        let window_ms = self.window(window)?;
        let Form::Pair { by: By::Compare(operator), left, right, .. } = &compared.form else {
            let message = "count_over counts values that compare so; write count_over(metric > 5, 1h)";
            return self.refuse(compared.span.start, message);
        };
        // What is compared here is no term: only its count is.
        let mut inner = Checker::new(self.text, Vec::new());
        let comparison = inner.sides(*operator, left, right);
        self.faults.append(&mut inner.faults);
        let comparison = comparison?;
        let (Value::Term(place), Some(than)) = (&comparison.left.value, comparison.right.side.constant) else {
            let message = "count_over compares one metric with a number; write count_over(metric > 5, 1h)";
            return self.refuse(compared.span.start, message);
        };
        let term = inner.terms.get(*place).filter(|term| term.over.is_none());
        let Some(term) = term else {
            let message = "count_over reads a metric as it is, and no function of it; write count_over(metric > 5, 1h)";
            return self.refuse(comparison.left.span.start, message);
        };
        let fits = measure::fit(comparison.left.side, comparison.right.side);
        let message = fits.err().or_else(|| range::verdict(term, comparison.operator, than));
        if let Some(message) = message {
            return self.refuse(comparison.right.span.start, message);
        }
        let function = Function::Count { operator: comparison.operator, than };
        let term = super::Term { over: Some(Over { function, window_ms }), ..term.clone() };
        let place = self.term(term, comparison.left.span.start)?;
        Some((Value::Term(place), Measure::Count))
    }

    fn pair<'n, 't>(&mut self, name: &str, span: Span, arguments: &'n [Node<'t>]) -> Option<[&'n Node<'t>; 2]> {
        match arguments {
            [first, second] => Some([first, second]),
            _ => {
                let usage = usage(name).unwrap_or_default();
                self.refuse(span.start, format!("{name} takes a metric and a window; write {usage}"))
            }
        }
    }

    fn metric(&mut self, function: &str, node: &Node<'_>) -> Option<Named> {
        match &node.form {
            Form::Name(name) => match resolve(name) {
                Ok(named) => Some(named),
                Err(message) => self.refuse(node.span.start, message),
            },
            _ => {
                let usage = usage(function).unwrap_or_default();
                let message = format!("{function} reads one metric, and nothing made of it; write {usage}");
                self.refuse(node.span.start, message)
            }
        }
    }

    fn window(&mut self, node: &Node<'_>) -> Option<u64> {
        let at = node.span.start;
        let Form::Number(literal) = node.form else {
            return self.refuse(at, "a window is a time, like 5m");
        };
        if !literal.measure.is_seconds() {
            return self.refuse(at, "a window is a time with its unit, like 5m");
        }
        let ms = literal.number * 1_000.0;
        #[expect(clippy::cast_precision_loss, reason = "a day in milliseconds is exact")]
        let (least, most) = (RULE_WINDOW_MS_MIN as f64, RULE_WINDOW_MS_MAX as f64);
        if !(least..=most).contains(&ms) {
            return self.refuse(at, "a window is from 10s to 24h");
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range was looked at")]
        let window_ms = ms.round() as u64;
        Some(window_ms)
    }
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "avg" => Function::Avg,
        "min" => Function::Min,
        "max" => Function::Max,
        "last" => Function::Last,
        "rate" => Function::Rate,
        "delta" => Function::Delta,
        "changes" => Function::Changes,
        _ => return None,
    })
}
