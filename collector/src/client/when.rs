//! Times for people: in their own time zone, which is named, and as how long ago.

use dunlin_shared::time::WallMs;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::Clock;
use crate::shape::Moment;

/// The time at which a command runs, and the zone of whoever runs it.
#[derive(Clone, Debug)]
pub struct When {
    pub now: WallMs,
    zone: TimeZone,
}

impl When {
    /// Reads the clock, `TZ` and `/etc/localtime`.
    #[must_use]
    pub fn here() -> Self {
        Self { now: Clock::start().wall(), zone: TimeZone::system() }
    }

    #[must_use]
    pub const fn utc(now: WallMs) -> Self {
        Self { now, zone: TimeZone::UTC }
    }

    /// Such as `2026-11-21 15:04:05`.
    #[must_use]
    pub fn local(&self, at: Moment) -> String {
        self.zoned(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// Such as `15:04:05`.
    #[must_use]
    pub fn clock(&self, at: Moment) -> String {
        self.zoned(at).strftime("%H:%M:%S").to_string()
    }

    /// Such as `Europe/Berlin`, or how far it is from UTC when nobody named it.
    #[must_use]
    pub fn zone(&self) -> String {
        if self.zone == TimeZone::UTC {
            return String::from("UTC");
        }
        let named = self.zone.iana_name().map(str::to_owned);
        named.unwrap_or_else(|| self.zoned(Moment(self.now)).strftime("UTC%:z").to_string())
    }

    /// Such as `3m`; from now on as `in 3m`.
    #[must_use]
    pub fn ago(&self, at: Moment) -> String {
        let ms = self.now.since(at.0);
        if ms < 0 { format!("in {}", span(ms.saturating_neg())) } else { span(ms) }
    }

    fn zoned(&self, at: Moment) -> jiff::Zoned {
        Timestamp::from_millisecond(at.0.0).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(self.zone.clone())
    }
}

/// In the largest unit of which there are two, or else the next.
fn span(ms: i64) -> String {
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)] {
        if ms >= 2 * unit_ms {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{}s", ms / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_ago_has_one_unit_that_says_enough() {
        let when = When::utc(WallMs(1_000_000_000));
        let ago = |ms: i64| when.ago(Moment(when.now.plus(-ms)));
        assert_eq!([ago(0), ago(119_999), ago(120_000), ago(7_199_999)], ["0s", "119s", "2m", "119m"]);
        assert_eq!([ago(7_200_000), ago(2 * 86_400_000), ago(-5_000)], ["2h", "2d", "in 5s"]);
        assert_eq!(when.zone(), "UTC");
        assert_eq!(when.local(Moment(WallMs(0))), "1970-01-01 00:00:00");
    }
}
