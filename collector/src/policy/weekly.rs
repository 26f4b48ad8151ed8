//! Windows that come again every week, by the clock on the wall of some place. Pure: the zones of the world are within
//! the program, so that two collectors agree on them whatever their hosts have installed.
//!
//! A window begins at the first moment at which that clock shows its day and time or anything later, and lasts as long
//! as it says. So one that falls into the hour that is left out in spring begins when that hour is over, and one in the
//! hour that comes twice in autumn begins once, with the first.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use dunlin_shared::config::parse_duration_ms;
use dunlin_shared::time::WallMs;
use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};

/// Whoever needs more than two a day makes another silence.
pub const WINDOWS_MAX: usize = 16;
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// A window that lasts longer never ends.
const DURATION_MS_MAX: i64 = 7 * DAY_MS;
/// How far a look ahead reaches: a week, a day that a zone left out, and one for the rest.
const AHEAD_MS: i64 = 9 * DAY_MS;

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weekly {
    zone: Zone,
    windows: Vec<Window>,
}

/// A time zone by its name, such as `Europe/Berlin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    name: Box<str>,
    rules: TimeZone,
}

/// `sat,sun 02:00 4h`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub days: Days,
    /// Minutes after midnight, as the clock shows them.
    pub start_min: u16,
    pub duration_ms: i64,
}

/// Some of the days of a week, at least one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Days(u8);

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

impl Weekly {
    /// What is wrong is said in words.
    pub fn new(zone: Zone, windows: Vec<Window>) -> Result<Self, String> {
        if windows.is_empty() || windows.len() > WINDOWS_MAX {
            return Err(format!("{} weekly windows; there are 1 to {WINDOWS_MAX}", windows.len()));
        }
        Ok(Self { zone, windows })
    }

    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone.name
    }

    #[must_use]
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Whether it is within a window, and a moment until which that stays so. It may well stay so after it.
    #[must_use]
    pub fn at(&self, now: WallMs) -> (bool, WallMs) {
        let ahead = now.plus(AHEAD_MS);
        let mut spans: Vec<_> = self.windows.iter().flat_map(|window| window.spans(&self.zone, now, ahead)).collect();
        spans.sort_unstable();
        let mut until = None;
        for (begin, end) in spans {
            match until {
                None if begin > now => return (false, begin),
                None => until = Some(end),
                // One that follows without a pause, or before the other is over.
                Some(so_far) if begin <= so_far => until = Some(so_far.max(end)),
                Some(_) => break,
            }
        }
        until.map_or((false, ahead), |until| (true, until.min(ahead)))
    }
}

impl Window {
    pub fn new(days: Days, start: &str, duration: &str) -> Result<Self, String> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let two = |digits: &str| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
            let (hours, minutes) = (Some(hours).filter(|h| two(h))?, Some(minutes).filter(|m| two(m))?);
            let (hours, minutes) = (hours.parse::<u16>().ok()?, minutes.parse::<u16>().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        let start_min = minutes(start)
            .ok_or_else(|| format!("a window starts at {:?}; write a time of day such as \"02:30\"", short(start)))?;
        let whole = |ms: &i64| (MINUTE_MS..=DURATION_MS_MAX).contains(ms) && ms % MINUTE_MS == 0;
        let duration_ms = parse_duration_ms(duration).and_then(|ms| i64::try_from(ms).ok()).filter(whole);
        let duration_ms = duration_ms.ok_or_else(|| {
            format!("a window lasts {:?}; write 1m to 7d in whole minutes, such as \"4h\"", short(duration))
        })?;
        Ok(Self { days, start_min, duration_ms })
    }

    /// Such as `02:30`.
    #[must_use]
    pub fn start(&self) -> String {
        format!("{:02}:{:02}", self.start_min / 60, self.start_min % 60)
    }

    /// Such as `4h`.
    #[must_use]
    pub fn duration(&self) -> String {
        let minutes = self.duration_ms / MINUTE_MS;
        if minutes % 60 == 0 { format!("{}h", minutes / 60) } else { format!("{minutes}m") }
    }

    /// From when to when it is open, of all that are not over at `from` and begin before `to`.
    fn spans(&self, zone: &Zone, from: WallMs, to: WallMs) -> impl Iterator<Item = (WallMs, WallMs)> {
        // A day more on either side: what a zone leaves out moves a beginning by no more than that.
        let first = zone.date(from.plus(-self.duration_ms - DAY_MS));
        let last = zone.date(to.plus(DAY_MS));
        let dates =
            first.zip(last).into_iter().flat_map(|(first, last)| first.series(1.day()).take_while(move |d| *d <= last));
        let begins =
            dates.filter(|date| self.days.has(date.weekday())).filter_map(|date| zone.begin(date, self.start_min));
        begins.map(|begin| (begin, begin.plus(self.duration_ms))).filter(move |(begin, end)| *end > from && *begin < to)
    }
}

impl Zone {
    fn date(&self, at: WallMs) -> Option<Date> {
        Some(self.rules.to_datetime(Timestamp::from_millisecond(at.0).ok()?).date())
    }

    /// The first moment at which the clock shows that day and time, or later.
    fn begin(&self, date: Date, start_min: u16) -> Option<WallMs> {
        let (hour, minute) = (i8::try_from(start_min / 60).ok()?, i8::try_from(start_min % 60).ok()?);
        let shown: DateTime = date.at(hour, minute, 0, 0);
        let at = match self.rules.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } | AmbiguousOffset::Fold { before: offset, .. } => {
                offset.to_timestamp(shown).ok()?
            }
            AmbiguousOffset::Gap { before, .. } => {
                // By the clock as it went before, it is that time no earlier than the clock is moved.
                let late = before.to_timestamp(shown).ok()?.checked_add(1.second()).ok()?;
                self.rules.preceding(late).next()?.timestamp()
            }
        };
        Some(WallMs(at.as_millisecond()))
    }
}

impl Days {
    /// By the short English names.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut days = 0;
        for name in names {
            let place = DAYS.iter().position(|(known, _)| *known == name);
            let wrong = || format!("{:?} is no day; days are mon, tue, wed, thu, fri, sat and sun", short(name));
            days |= 1 << place.ok_or_else(wrong)?;
        }
        if days == 0 {
            return Err(String::from(
                "a window has no days; name at least one of mon, tue, wed, thu, fri, sat and sun",
            ));
        }
        Ok(Self(days))
    }

    pub fn names(self) -> impl Iterator<Item = &'static str> {
        DAYS.iter().enumerate().filter(move |(place, _)| self.0 & (1 << place) != 0).map(|(_, (name, _))| *name)
    }

    fn has(self, day: Weekday) -> bool {
        self.0 & (1 << day.to_monday_zero_offset()) != 0
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ZONES.get(text).ok();
        let named = found.as_ref().and_then(|rules| Some((rules, rules.iana_name()?)));
        let wrong = || {
            let text = short(text);
            format!("{text:?} is no time zone; write a name of the IANA database such as \"Europe/Berlin\", or \"UTC\"")
        };
        let (rules, name) = named.ok_or_else(wrong)?;
        Ok(Self { name: name.into(), rules: rules.clone() })
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            [days, start, duration] => Self::new(Days::new(days.split(','))?, start, duration),
            _ => Err(format!("{:?} is no window; write DAYS START DURATION such as \"sat,sun 02:00 4h\"", short(text))),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<_> = self.days.names().collect();
        write!(f, "{} {} {}", days.join(","), self.start(), self.duration())
    }
}

/// `Europe/Berlin; sat,sun 02:00 4h; mon 03:00 30m`
impl fmt::Display for Weekly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.zone.name)?;
        self.windows.iter().try_for_each(|window| write!(f, "; {window}"))
    }
}

impl FromStr for Weekly {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (zone, windows) = text.split_once(';').unwrap_or((text, ""));
        let windows = windows.split(';').filter(|window| !window.trim().is_empty());
        Self::new(zone.trim().parse()?, windows.map(str::parse).collect::<Result<_, _>>()?)
    }
}

impl fmt::Debug for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// What is shown back of what somebody wrote.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use jiff::civil;
    use proptest::prelude::*;

    use super::*;

    const ZONES_HERE: [&str; 4] = ["Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe"];

    fn ms(text: &str) -> WallMs {
        WallMs(text.parse::<Timestamp>().expect("a time").as_millisecond())
    }

    /// The definition, minute by minute: what the clock shows, and for how much longer which window is open.
    fn naive(weekly: &Weekly, from: WallMs, minutes: usize) -> Vec<bool> {
        const LEAD: usize = 9 * 24 * 60;
        let shown: Vec<DateTime> = (0..LEAD + minutes)
            .map(|minute| from.plus((i64::try_from(minute).expect("few") - 9 * 1_440) * MINUTE_MS))
            .map(|at| weekly.zone.rules.to_datetime(Timestamp::from_millisecond(at.0).expect("within the calendar")))
            .collect();
        let mut is_open = vec![false; shown.len()];
        let mut dates: Vec<Date> = shown.iter().map(|shown| shown.date()).collect();
        dates.dedup();
        dates.sort_unstable();
        dates.dedup();
        for window in &weekly.windows {
            let [hour, minute] =
                [window.start_min / 60, window.start_min % 60].map(|part| i8::try_from(part).expect("a time of day"));
            let start = civil::time(hour, minute, 0, 0);
            for date in dates.iter().filter(|date| window.days.has(date.weekday())) {
                let wanted = date.to_datetime(start);
                // Shown in the very first minute, it may have begun before.
                let Some(first) = shown.iter().position(|shown| *shown >= wanted).filter(|first| *first > 0) else {
                    continue;
                };
                let length = usize::try_from(window.duration_ms / MINUTE_MS).expect("positive");
                let end = (first + length).min(is_open.len());
                is_open[first..end].fill(true);
            }
        }
        is_open.split_off(LEAD)
    }

    /// A window on any of some days.
    fn window() -> impl Strategy<Value = Window> {
        let minutes = prop_oneof![1i64..180, 1i64..10_080, Just(1_440i64), Just(10_080i64)];
        let start = prop_oneof![0u16..240, 0u16..1_440];
        (1u8..128, start, minutes).prop_map(|(days, start_min, minutes)| Window {
            days: Days(days),
            start_min,
            duration_ms: minutes * MINUTE_MS,
        })
    }

    fn weekly() -> impl Strategy<Value = Weekly> {
        (0usize..4, prop::collection::vec(window(), 1..4))
            .prop_map(|(zone, windows)| Weekly::new(ZONES_HERE[zone].parse().expect("a zone"), windows).expect("few"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        /// Around each change of the clocks of every zone, for a week: as the definition says, minute by minute; and
        /// nothing changes before the moment that was named.
        #[test]
        fn windows_are_open_as_the_clock_on_the_wall_says(weekly in weekly(), year in 2024i16..2029, change in 0usize..4) {
            const MINUTES: usize = 3 * 1_440;
            // Of all four zones: the northern ones in spring and autumn, the southern one the other way round.
            let (month, day) = [(3, 8), (3, 28), (10, 3), (10, 25)][change];
            let from = WallMs(civil::date(year, month, day).at(0, 0, 0, 0).to_zoned(TimeZone::UTC).expect("a time").timestamp().as_millisecond());
            let expected = naive(&weekly, from, MINUTES);
            let mut named = (expected[0], from);
            for (minute, expected) in expected.into_iter().enumerate() {
                let now = from.plus(i64::try_from(minute).expect("few") * MINUTE_MS);
                if now >= named.1 {
                    let (is_open, until) = weekly.at(now);
                    prop_assert!(until > now, "{} at {}", weekly, now.0);
                    prop_assert!(minute == 0 || is_open != named.0, "{weekly}: nothing changes at {}", now.0);
                    named = (is_open, until);
                }
                prop_assert_eq!(named.0, expected, "{} at {}", weekly, now.0);
            }
        }

        #[test]
        fn what_is_written_is_read_again(weekly in weekly()) {
            prop_assert_eq!(weekly.to_string().parse::<Weekly>(), Ok(weekly));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            if let Ok(weekly) = text.parse::<Weekly>() {
                prop_assert_eq!(weekly.to_string().parse::<Weekly>(), Ok(weekly));
            }
        }
    }

    #[test]
    fn what_the_clocks_leave_out_begins_when_they_were_moved_and_what_comes_twice_begins_once() {
        let berlin: Weekly = "Europe/Berlin; sun 02:30 1h".parse().expect("good");
        // 02:00 became 03:00 at 01:00 UTC.
        assert_eq!(berlin.at(ms("2026-03-29T00:59:59Z")), (false, ms("2026-03-29T01:00:00Z")));
        assert_eq!(berlin.at(ms("2026-03-29T01:00:00Z")), (true, ms("2026-03-29T02:00:00Z")));
        // 02:30 is at 00:30 UTC, and again at 01:30.
        assert_eq!(berlin.at(ms("2026-10-25T00:30:00Z")), (true, ms("2026-10-25T01:30:00Z")));
        assert_eq!(berlin.at(ms("2026-10-25T01:30:00Z")), (false, ms("2026-11-01T01:30:00Z")));
        // Half an hour is moved, at 02:00 to 02:30, which is 15:30 UTC of the day before.
        let howe: Weekly = "Australia/Lord_Howe; sun 02:10 20m".parse().expect("good");
        assert_eq!(howe.at(ms("2026-10-03T15:30:00Z")), (true, ms("2026-10-03T15:50:00Z")));
        // The last Friday of 2011 was none in Samoa.
        let apia: Weekly = "Pacific/Apia; fri 12:00 1h".parse().expect("good");
        assert_eq!(apia.at(ms("2011-12-30T09:59:59Z")), (false, ms("2011-12-30T10:00:00Z")));
        assert_eq!(apia.at(ms("2011-12-30T10:00:00Z")), (true, ms("2011-12-30T11:00:00Z")));
    }

    #[test]
    fn one_that_follows_another_without_a_pause_is_one() {
        let weekend: Weekly = "UTC; sat 00:00 24h; sun 00:00 24h; sun 23:00 2h".parse().expect("good");
        assert_eq!(weekend.at(ms("2026-11-28T00:00:00Z")), (true, ms("2026-11-30T01:00:00Z")));
        let always: Weekly = "UTC; mon,tue,wed,thu,fri,sat,sun 00:00 24h".parse().expect("good");
        assert!(
            always.at(ms("2026-11-28T00:00:00Z")).0
                && always.at(ms("2026-11-28T00:00:00Z")).1 > ms("2026-12-05T00:00:00Z")
        );
    }

    #[test]
    fn what_is_no_window_is_refused_with_what_would_be_right() {
        for (text, says) in [
            ("Europe/Berlin", "0 weekly windows"),
            ("Mars/Olympus; sat 02:00 4h", "IANA"),
            ("; sat 02:00 4h", "IANA"),
            ("UTC; sat 2:00 4h", "02:30"),
            ("UTC; sat 24:00 4h", "02:30"),
            ("UTC; sat +1:00 4h", "02:30"),
            ("UTC; sat 02:00 0m", "whole minutes"),
            ("UTC; sat 02:00 90s", "whole minutes"),
            ("UTC; sat 02:00 8d", "whole minutes"),
            ("UTC; saturday 02:00 4h", "is no day"),
            ("UTC; , 02:00 4h", "is no day"),
            ("UTC; sat 02:00", "DAYS START DURATION"),
        ] {
            let refused = text.parse::<Weekly>().expect_err(text);
            assert!(refused.contains(says), "{text}: {refused}");
        }
        let many = format!("UTC{}", "; sat 02:00 4h".repeat(WINDOWS_MAX + 1));
        assert!(many.parse::<Weekly>().is_err_and(|refused| refused.contains("1 to 16")));
        assert_eq!(
            "europe/berlin; sat 02:00 240m".parse::<Weekly>().map(|weekly| weekly.to_string()),
            Ok("Europe/Berlin; sat 02:00 4h".into())
        );
    }

    #[test]
    fn a_clock_that_is_wrong_by_millennia_opens_nothing_and_does_not_panic() {
        let weekly: Weekly = "Europe/Berlin; sat 02:00 4h".parse().expect("good");
        for now in [i64::MIN, i64::MAX, -377_705_116_800_000, 253_402_300_799_999] {
            assert!(!weekly.at(WallMs(now)).0, "{now}");
        }
    }
}
