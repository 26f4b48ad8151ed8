//! A time of day as the API writes it: RFC 3339, UTC, milliseconds.

use std::fmt;
use std::str::FromStr;

use dunlin_shared::time::WallMs;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub WallMs);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What lies outside of the calendar comes from a clock that is wrong by millennia.
        let at = Timestamp::from_millisecond(self.0.0).unwrap_or(Timestamp::UNIX_EPOCH);
        write!(f, "{at:.3}")
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |_| {
            let text: String = text.chars().take(64).collect();
            format!("{text:?} is no RFC 3339 time; write for example \"2026-11-21T14:03:11.000Z\"")
        };
        text.parse::<Timestamp>().map(|at| Self(WallMs(at.as_millisecond()))).map_err(wrong)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).into()
    }
}

impl ToSchema for Moment {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_three_decimals_and_is_utc() {
        assert_eq!(Moment(WallMs(1_795_000_000_000)).to_string(), "2026-11-18T11:06:40.000Z");
        assert_eq!(Moment(WallMs(-1)).to_string(), "1969-12-31T23:59:59.999Z");
        assert_eq!("2026-11-18T12:06:40.5+01:00".parse(), Ok(Moment(WallMs(1_795_000_000_500))));
    }

    #[test]
    fn what_is_no_time_is_refused_and_what_no_calendar_holds_does_not_panic() {
        for text in ["", "now", "2026-13-01T00:00:00Z", "2026-11-18", "'; DROP TABLE event; --"] {
            assert!(text.parse::<Moment>().is_err(), "{text:?}");
        }
        assert_eq!(Moment(WallMs(i64::MAX)).to_string(), "1970-01-01T00:00:00.000Z");
    }
}
