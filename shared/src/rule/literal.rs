//! Numbers as they are written: `90%`, `1GiB`, `10MB/s`, `5m`. A unit stands at its number, so that `5m` is never a metric.

use super::measure::{Measure, Powers};
use crate::config::{nearest, quote};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Literal {
    pub(super) number: f64,
    pub(super) measure: Measure,
}

pub(super) const BYTE_UNITS: &[(&str, f64)] = &[
    ("B", 1.0),
    ("KB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1_024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

pub(super) const TIME_UNITS: &[(&str, f64)] =
    &[("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0), ("w", 604_800.0)];

/// The number that a text begins with, and how many bytes it takes.
pub(super) fn read(text: &str) -> Result<(Literal, usize), String> {
    let digits_len = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (digits, rest) = text.split_at(digits_len);
    let is_plain = digits.starts_with(|digit: char| digit.is_ascii_digit()) && !digits.ends_with('.');
    let number = digits.parse::<f64>().ok().filter(|_| is_plain);
    let Some(number) = number else {
        return Err(format!("{} is no number; write it like 12 or 0.5", quote(digits)));
    };
    if !number.is_finite() {
        return Err(format!("{} is too large for a number", quote(digits)));
    }
    let unit_len = match rest.strip_prefix('%') {
        Some(_) => 1,
        None => rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(rest.len()),
    };
    let (unit, rest) = rest.split_at(unit_len);
    let (factor, measure) = unit_of(unit)?;
    let is_rate = rest.strip_prefix("/s").is_some_and(|rest| !rest.starts_with(is_of_name));
    let mut literal = Literal { number: number * factor, measure };
    if !literal.number.is_finite() {
        return Err(format!("{} is too large for a number", quote(digits)));
    }
    if !is_rate {
        return Ok((literal, digits_len + unit_len));
    }
    literal.measure = match measure {
        Measure::Bare => Measure::Of(Powers::A_SECOND),
        Measure::Of(Powers::BYTES) => Measure::Of(Powers::BYTES_A_SECOND),
        _ => return Err(format!("{digits}{unit}/s: only sizes and plain numbers stand before /s, like 10MB/s")),
    };
    Ok((literal, digits_len + unit_len + 2))
}

/// Whether it is a unit, which stands at a number and nowhere else.
pub(super) fn is_unit(name: &str) -> bool {
    !name.is_empty() && unit_of(name).is_ok()
}

fn unit_of(unit: &str) -> Result<(f64, Measure), String> {
    let find = |units: &[(&str, f64)]| units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match unit {
        "" => return Ok((1.0, Measure::Bare)),
        "%" => return Ok((0.01, Measure::Percent)),
        _ => {}
    }
    if let Some(factor) = find(BYTE_UNITS) {
        return Ok((factor, Measure::Of(Powers::BYTES)));
    }
    if let Some(factor) = find(TIME_UNITS) {
        return Ok((factor, Measure::Of(Powers::SECONDS)));
    }
    let units = BYTE_UNITS.iter().chain(TIME_UNITS).map(|(name, _)| (*name).to_owned());
    let hint = nearest(unit, units).map_or_else(String::new, |near| near.hint("", ""));
    Err(format!("unknown unit {}; {hint}", quote(unit)))
}

const fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}
