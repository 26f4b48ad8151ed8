//! A value as a person reads it: `93.1 %`, `1.2 GiB`, `12.3 MB/s`, `5 m 20 s`, `down`.

use super::Known;

/// In which unit the sides of a rule's first comparison are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ShownAs {
    #[default]
    Number,
    Ratio,
    Bytes,
    BytesASecond,
    Seconds,
    /// So many in a second.
    ASecond,
    Celsius,
    Hertz,
    /// The word that stands at that place in its list.
    Words(Known),
    /// A number with this behind it.
    Plain(Box<str>),
}

const BINARY: &[(&str, f64)] =
    &[("TiB", 1_099_511_627_776.0), ("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1_024.0)];
const DECIMAL: &[(&str, f64)] = &[("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)];
const TIMES: &[(&str, f64)] = &[("d", 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0)];

/// What is not known is said so.
pub(super) const UNKNOWN: &str = "unknown";

impl ShownAs {
    #[must_use]
    pub fn write(&self, value: f64) -> String {
        if !value.is_finite() {
            return UNKNOWN.to_owned();
        }
        match self {
            Self::Number => number(value),
            Self::Ratio => format!("{} %", decimals(value * 100.0, 1)),
            Self::Bytes => scaled(value, BINARY, "B"),
            Self::BytesASecond => format!("{}B/s", metric(value).replace('k', "K")),
            Self::Seconds => seconds(value),
            Self::ASecond => format!("{}/s", number(value)),
            Self::Celsius => format!("{} \u{b0}C", decimals(value, 1)),
            Self::Hertz => format!("{}Hz", metric(value)),
            Self::Words(known) => word(*known, value),
            Self::Plain(unit) => format!("{} {unit}", number(value)),
        }
    }
}

fn word(known: Known, value: f64) -> String {
    let words = known.words().iter().enumerate();
    #[expect(clippy::cast_precision_loss, reason = "a list of words is short")]
    let found = words.into_iter().find(|(place, _)| *place as f64 == value);
    found.map_or_else(|| number(value), |(_, word)| (*word).to_owned())
}

/// Three digits that count, and all of those before the point.
fn number(value: f64) -> String {
    let magnitude = value.abs();
    let places = match magnitude {
        _ if magnitude >= 100.0 => 0,
        _ if magnitude >= 10.0 => 1,
        _ if magnitude >= 1.0 => 2,
        _ if magnitude >= 0.1 => 3,
        _ if magnitude >= 0.01 => 4,
        _ => 6,
    };
    // A whole number is never rounded, and neither is a half below a thousand.
    let places = if (100.0..1_000.0).contains(&magnitude) { 1 } else { places };
    decimals(value, places)
}

fn decimals(value: f64, places: usize) -> String {
    // Beyond it no digit is certain, and a line has an end.
    if value.abs() >= 1e15 {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    // What rounds to nothing has no sign.
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn scaled(value: f64, units: &[(&str, f64)], least: &str) -> String {
    // What would be written as 1024 of a unit is one of the next.
    let unit = units.iter().find(|(_, factor)| value.abs() >= factor * 0.999_95);
    match unit {
        Some((unit, factor)) => format!("{} {unit}", decimals(value / factor, 1)),
        None => format!("{} {least}", decimals(value, 0)),
    }
}

/// With its prefix, to stand before a unit: `12.3 M`.
fn metric(value: f64) -> String {
    match DECIMAL.iter().find(|(_, factor)| value.abs() >= factor * 0.999_95) {
        Some((prefix, factor)) => format!("{} {prefix}", decimals(value / factor, 1)),
        None => format!("{} ", decimals(value, 1)),
    }
}

/// The two largest units that it has.
pub(super) fn seconds(value: f64) -> String {
    let magnitude = value.abs();
    let sign = if value < 0.0 { "-" } else { "" };
    if magnitude > 0.0 && magnitude < 0.999_5 {
        let ms = decimals(magnitude * 1_000.0, if magnitude < 0.01 { 2 } else { 0 });
        return if ms == "0" { "0 s".to_owned() } else { format!("{sign}{ms} ms") };
    }
    if magnitude < 59.95 {
        return format!("{sign}{} s", decimals(magnitude, 1));
    }
    if magnitude >= 1e15 {
        return format!("{sign}{} s", decimals(magnitude, 0));
    }
    let mut rest = magnitude.round();
    let mut parts = Vec::new();
    for (unit, factor) in TIMES {
        let whole = (rest / factor).floor();
        if whole > 0.0 {
            parts.push(format!("{whole} {unit}"));
            rest -= whole * factor;
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    format!("{sign}{}", parts.join(" "))
}
