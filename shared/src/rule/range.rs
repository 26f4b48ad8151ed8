//! Between what a value lies, whatever is measured: a comparison that can never fail, or never hold, is a mistake.

use super::condition::Operator;
use super::{Function, Source, Term};
use crate::metric::{Kind, Unit};

/// Why the comparison says nothing; `None` where it may go either way.
pub(super) fn verdict(term: &Term, operator: Operator, number: f64) -> Option<String> {
    let (least, most) = range(term);
    let (never, always) = match operator {
        Operator::Greater => (number >= most, number < least),
        Operator::GreaterOrEqual => (number > most, number <= least),
        Operator::Less => (number <= least, number > most),
        Operator::LessOrEqual => (number < least, number >= most),
        Operator::Equal => (number < least || number > most, false),
        Operator::NotEqual => (false, number < least || number > most),
    };
    let said = match (never, always) {
        (true, _) => "never",
        (_, true) => "always",
        _ => return None,
    };
    let range = if most.is_finite() { "it is from 0% to 100%" } else { "it is never below 0" };
    Some(format!("this {said} holds; {range}"))
}

fn range(term: &Term) -> (f64, f64) {
    const FREE: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);
    const POSITIVE: (f64, f64) = (0.0, f64::INFINITY);
    let is_counter = term.kind == Kind::Counter && !matches!(term.source, Source::Open(_));
    match term.over.map(|over| over.function) {
        Some(Function::Changes | Function::Count { .. } | Function::Absent | Function::Rate) => POSITIVE,
        Some(Function::Delta) => {
            if is_counter {
                POSITIVE
            } else {
                FREE
            }
        }
        _ => match term.unit {
            Some(Unit::Ratio) => (0.0, 1.0),
            Some(Unit::Bytes | Unit::Cores) => POSITIVE,
            _ if is_counter => POSITIVE,
            _ => FREE,
        },
    }
}
