//! Names that a condition reads: of the catalogue, of the open name space, and of what the collector knows.
//!
//! What is none of them is refused with what comes nearest, or with what was meant by it.

use super::measure::{Measure, Powers};
use super::parse::NO_NOT;
use super::{Known, Over, Source, Term, function};
use crate::config::{nearest, quote};
use crate::metric::{self, CATALOGUE, Kind, OpenMetric, Step, Unit};

#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) source: Source,
    /// `None` of the open name space.
    pub(super) kind: Option<Kind>,
    unit: Option<Unit>,
    pub(super) measure: Measure,
}

impl Named {
    pub(super) fn known(known: Known) -> Self {
        let measure = if known.words().is_empty() { Measure::of_unit(known.unit()) } else { Measure::Words(known) };
        Self { source: Source::Known(known), kind: Some(known.kind()), unit: Some(known.unit()), measure }
    }

    pub(super) fn term(&self, over: Option<Over>) -> Term {
        Term { source: self.source.clone(), kind: self.kind.unwrap_or(Kind::Gauge), unit: self.unit, over }
    }
}

/// What the collector knows by this name.
pub(super) fn words_of(name: &str) -> Option<Known> {
    Known::parse(name)
}

pub(super) fn resolve(name: &str) -> Result<Named, String> {
    if let Some(found) = metric::by_name(name) {
        let measure = match name {
            // The catalogue has no unit for a rate; this one is none of a counter.
            "net_speed_bytes" => Measure::Of(Powers::BYTES_A_SECOND),
            _ => Measure::of_unit(found.unit),
        };
        let source = Source::Catalogued(found.id);
        return Ok(Named { source, kind: Some(found.kind), unit: Some(found.unit), measure });
    }
    if let Some(known) = Known::parse(name) {
        return Ok(Named::known(known));
    }
    if name.starts_with("x_") {
        let open = OpenMetric::new(name, Unit::Count, Kind::Gauge, Step::Each(1)).map_err(|error| error.to_string())?;
        let source = Source::Open(open.name().into());
        return Ok(Named { source, kind: None, unit: None, measure: Measure::Open });
    }
    Err(unknown(name))
}

fn unknown(name: &str) -> String {
    if name == "not" {
        return NO_NOT.to_owned();
    }
    if let Some(usage) = function::usage(name) {
        return format!("{name} is a function; write {usage}");
    }
    if matches!(name.to_ascii_lowercase().as_str(), "nan" | "inf" | "infinity") {
        return format!("{} is no number that anything is compared with; write one, like 90%", quote(name));
    }
    if let Some(known) = Known::ALL.into_iter().find(|known| known.words().contains(&name)) {
        let metric = known.as_str();
        return format!("{name} is a word of {metric} and stands beside it alone, like {metric} == {name}");
    }
    let names = CATALOGUE.iter().map(|metric| metric.name).chain(Known::ALL.map(Known::as_str));
    let hint = nearest(name, names.map(str::to_owned)).map_or_else(String::new, |near| near.hint("", ""));
    format!("unknown metric {}; {hint}", quote(name))
}
