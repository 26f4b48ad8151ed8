//! What a number measures: which ones may be added and compared, and what comes of it when two are multiplied.
//!
//! What a person must not compare by mistake is told apart, no more: a count of cores goes with a load, bytes go with
//! bytes alone. Of the open name space nobody knows the units before a node declares them, so it goes with anything.

use super::Known;
use super::shown::ShownAs;
use crate::metric::Unit;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// What a node declares for itself.
    Open,
    /// A number that a person wrote, without a unit.
    Bare,
    /// A number that a person wrote as a percentage.
    Percent,
    Count,
    /// From 0 to 1.
    Ratio,
    Cores,
    /// One thing in proportion to another of its kind: a number or a percentage, and not bounded.
    Part,
    Of(Powers),
    Words(Known),
}

/// How often each unit is multiplied with the others. A text is far too short for the powers to overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Powers {
    pub(super) bytes: i16,
    pub(super) seconds: i16,
    pub(super) celsius: i16,
    pub(super) hertz: i16,
}

/// One side of an operator, as far as its measure goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) measure: Measure,
    /// What it is, where nothing is measured.
    pub(super) constant: Option<f64>,
}

impl Powers {
    const NONE: Self = Self { bytes: 0, seconds: 0, celsius: 0, hertz: 0 };
    pub(super) const BYTES: Self = Self { bytes: 1, ..Self::NONE };
    pub(super) const SECONDS: Self = Self { seconds: 1, ..Self::NONE };
    pub(super) const CELSIUS: Self = Self { celsius: 1, ..Self::NONE };
    pub(super) const HERTZ: Self = Self { hertz: 1, ..Self::NONE };
    pub(super) const A_SECOND: Self = Self { seconds: -1, ..Self::NONE };
    pub(super) const BYTES_A_SECOND: Self = Self { bytes: 1, ..Self::A_SECOND };

    const fn times(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            seconds: self.seconds.saturating_add(other.seconds),
            celsius: self.celsius.saturating_add(other.celsius),
            hertz: self.hertz.saturating_add(other.hertz),
        }
    }

    const fn inverse(self) -> Self {
        Self {
            bytes: self.bytes.saturating_neg(),
            seconds: self.seconds.saturating_neg(),
            celsius: self.celsius.saturating_neg(),
            hertz: self.hertz.saturating_neg(),
        }
    }

    /// How a number of it is written, where it needs a unit.
    const fn spelling(self) -> Option<&'static str> {
        match self {
            Self::BYTES => Some("1GiB"),
            Self::SECONDS => Some("5m"),
            Self::BYTES_A_SECOND => Some("10MB/s"),
            _ => None,
        }
    }

    fn describe(self) -> String {
        match self {
            Self::BYTES => "bytes".to_owned(),
            Self::SECONDS => "seconds".to_owned(),
            Self::BYTES_A_SECOND => "bytes a second".to_owned(),
            Self::A_SECOND => "a number a second".to_owned(),
            Self::CELSIUS => "degrees Celsius".to_owned(),
            Self::HERTZ => "hertz".to_owned(),
            _ => self.product(),
        }
    }

    /// `bytes*seconds^-2`
    fn product(self) -> String {
        let parts =
            [("bytes", self.bytes), ("seconds", self.seconds), ("celsius", self.celsius), ("hertz", self.hertz)];
        let written = parts.iter().filter(|(_, power)| *power != 0).map(|(name, power)| match power {
            1 => (*name).to_owned(),
            _ => format!("{name}^{power}"),
        });
        written.collect::<Vec<_>>().join("*")
    }
}

impl Measure {
    pub(super) const fn of_unit(unit: Unit) -> Self {
        match unit {
            Unit::Count => Self::Count,
            Unit::Ratio => Self::Ratio,
            Unit::Cores => Self::Cores,
            Unit::Bytes => Self::Of(Powers::BYTES),
            Unit::Seconds => Self::Of(Powers::SECONDS),
            Unit::Celsius => Self::Of(Powers::CELSIUS),
            Unit::Hertz => Self::Of(Powers::HERTZ),
        }
    }

    /// What a counter of it grows by in a second. Seconds a second are how busy something is: a part.
    pub(super) fn a_second(self) -> Self {
        match self {
            Self::Open => Self::Open,
            Self::Of(Powers::SECONDS) => Self::Part,
            Self::Of(powers) => Self::Of(powers.times(Powers::A_SECOND)),
            _ => Self::Of(Powers::A_SECOND),
        }
    }

    /// What a difference of two of them is: of ratios it may be below 0.
    pub(super) const fn difference(self) -> Self {
        match self {
            Self::Ratio => Self::Part,
            other => other,
        }
    }

    const fn powers(self) -> Powers {
        match self {
            Self::Of(powers) => powers,
            _ => Powers::NONE,
        }
    }

    fn describe(self) -> String {
        match self {
            Self::Open => "a metric of the node's own".to_owned(),
            Self::Bare => "a plain number".to_owned(),
            Self::Percent => "a percentage".to_owned(),
            Self::Count => "a count".to_owned(),
            Self::Ratio => "a ratio".to_owned(),
            Self::Cores => "cores".to_owned(),
            Self::Part => "a proportion".to_owned(),
            Self::Of(powers) => powers.describe(),
            Self::Words(known) => format!("the words of {}", known.as_str()),
        }
    }

    pub(super) fn is_seconds(self) -> bool {
        self == Self::Of(Powers::SECONDS)
    }

    /// How the left side of a comparison with the right one is shown.
    pub(super) fn shown(self, other: Self) -> ShownAs {
        match (self, other) {
            (Self::Words(known), _) => ShownAs::Words(known),
            (Self::Ratio | Self::Percent, _) | (Self::Part | Self::Open | Self::Bare, Self::Percent | Self::Ratio) => {
                ShownAs::Ratio
            }
            (Self::Of(powers), _) | (Self::Open, Self::Of(powers)) => match powers {
                Powers::BYTES => ShownAs::Bytes,
                Powers::BYTES_A_SECOND => ShownAs::BytesASecond,
                Powers::SECONDS => ShownAs::Seconds,
                Powers::A_SECOND => ShownAs::ASecond,
                Powers::CELSIUS => ShownAs::Celsius,
                Powers::HERTZ => ShownAs::Hertz,
                _ => ShownAs::Plain(powers.product().into()),
            },
            _ => ShownAs::Number,
        }
    }
}

/// Whether both may be added and compared; a refusal says what would be right.
pub(super) fn fit(left: Side, right: Side) -> Result<(), String> {
    use Measure::{Bare, Cores, Count, Of, Open, Percent, Ratio};
    match (left.measure, right.measure) {
        (Open, _) | (_, Open) => Ok(()),
        (Of(powers), Of(others)) if powers == others => Ok(()),
        (Of(powers), Of(others)) => Err(apart(powers, others)),
        (Of(powers), other) => fit_number(powers, other, right.constant),
        (other, Of(powers)) => fit_number(powers, other, left.constant),
        (Percent, Count | Cores) | (Count | Cores, Percent) => {
            let thing = if left.measure == Percent { right.measure } else { left.measure };
            Err(format!("{} is no part of anything; write a plain number, like 4, or divide first", thing.describe()))
        }
        (Ratio, Count | Cores) | (Count | Cores, Ratio) => Err(format!(
            "{} and {} do not go together; divide first",
            left.measure.describe(),
            right.measure.describe()
        )),
        (Ratio, Bare) => fit_ratio(right.constant),
        (Bare, Ratio) => fit_ratio(left.constant),
        _ => Ok(()),
    }
}

pub(super) fn sum(left: Side, right: Side) -> Result<Measure, String> {
    fit(left, right)?;
    Ok(match (left.measure, right.measure) {
        (Measure::Open, other) | (other, Measure::Open) if other.powers() == Powers::NONE => Measure::Open,
        (Measure::Of(powers), _) | (_, Measure::Of(powers)) => Measure::Of(powers),
        (Measure::Ratio, Measure::Ratio) => Measure::Part,
        (Measure::Bare, other) | (other, Measure::Bare) => other.difference(),
        (first, second) if first == second => first,
        _ => Measure::Part,
    })
}

pub(super) fn product(left: Measure, right: Measure) -> Measure {
    match (left, right) {
        (Measure::Open, _) | (_, Measure::Open) => Measure::Open,
        (Measure::Of(_), _) | (_, Measure::Of(_)) => of_powers(left.powers().times(right.powers())),
        (Measure::Bare, other) | (other, Measure::Bare) => other.difference(),
        (Measure::Count, Measure::Count | Measure::Ratio | Measure::Percent | Measure::Part)
        | (Measure::Ratio | Measure::Percent | Measure::Part, Measure::Count) => Measure::Count,
        (Measure::Cores, Measure::Ratio | Measure::Percent | Measure::Part)
        | (Measure::Ratio | Measure::Percent | Measure::Part, Measure::Cores) => Measure::Cores,
        _ => Measure::Part,
    }
}

pub(super) fn quotient(left: Measure, right: Measure) -> Measure {
    match (left, right) {
        (Measure::Open, _) | (_, Measure::Open) => Measure::Open,
        (Measure::Of(_), _) | (_, Measure::Of(_)) => of_powers(left.powers().times(right.powers().inverse())),
        (other, Measure::Bare | Measure::Percent) => other.difference(),
        _ => Measure::Part,
    }
}

fn of_powers(powers: Powers) -> Measure {
    if powers == Powers::NONE { Measure::Part } else { Measure::Of(powers) }
}

/// A thing with a unit, and a number without one.
fn fit_number(powers: Powers, other: Measure, constant: Option<f64>) -> Result<(), String> {
    match (powers.spelling(), constant) {
        _ if other != Measure::Bare || constant.is_none() => {
            Err(format!("{} and {} do not go together", powers.describe(), other.describe()))
        }
        // Nothing is nothing, in any unit.
        (None, _) | (_, Some(0.0)) => Ok(()),
        (Some(spelling), _) => Err(format!("a number of {} has its unit; write it like {spelling}", powers.describe())),
    }
}

fn fit_ratio(constant: Option<f64>) -> Result<(), String> {
    match constant {
        Some(number) if number.abs() > 1.0 => {
            let percent = if number <= 100.0 { number } else { 90.0 };
            Err(format!("a ratio is at most 1; write {percent}%"))
        }
        _ => Ok(()),
    }
}

fn apart(powers: Powers, others: Powers) -> String {
    let shown = format!("{} and {} do not go together", powers.describe(), others.describe());
    let is_rate = |one, other| one == Powers::BYTES && other == Powers::BYTES_A_SECOND;
    if is_rate(others, powers) || is_rate(powers, others) {
        return format!("{shown}; a rate is written like 10MB/s, and made of a counter by rate(net_sent_bytes, 5m)");
    }
    shown
}
