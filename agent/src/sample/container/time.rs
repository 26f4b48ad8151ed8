//! Times as engines write them: RFC 3339 with any fraction and offset. Pure.

use dunlin_shared::time::WallMs;

/// The moment that `text` names; none for the year 1, which is how an engine writes "never".
pub fn moment(text: &str) -> Option<WallMs> {
    let (date, rest) = text.split_once(['T', 't', ' '])?;
    let (year, month, day) = three(date, '-')?;
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let (hour, minute, second) = three(whole, ':')?;
    let fits = year > 1
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    if !fits {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset_s(zone)?;
    Some(WallMs(seconds * 1_000 + milliseconds(fraction)?))
}

fn three(text: &str, between: char) -> Option<(i64, i64, i64)> {
    let mut parts = text.split(between).map(|part| (part.len() <= 4).then(|| number(part)).flatten());
    let found = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(found)
}

/// Digits alone: `parse` would take a sign.
fn number(text: &str) -> Option<i64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| text.parse().ok()).flatten()
}

fn milliseconds(fraction: &str) -> Option<i64> {
    if fraction.is_empty() {
        return Some(0);
    }
    let kept = fraction.get(..fraction.len().min(3))?;
    let scale = [1, 100, 10, 1][kept.len()];
    Some(number(kept)? * scale)
}

fn offset_s(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return (zone.len() == 1).then_some(0),
    };
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    Some(sign * (number(hours)?.min(24) * 3_600 + number(minutes)?.min(59) * 60))
}

/// Days since 1970 by the proleptic Gregorian calendar: years are counted from March on, so that the leap day is last.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_are_read_with_fraction_and_offset() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-21T18:06:04.085927295Z", 1_795_284_364_085),
            ("2026-11-21T20:06:04.5+02:00", 1_795_284_364_500),
            ("2026-11-21T12:36:04-05:30", 1_795_284_364_000),
            ("2000-02-29T23:59:59.9Z", 951_868_799_900),
            ("1969-12-31T23:59:59Z", -1_000),
        ] {
            assert_eq!(moment(text), Some(WallMs(ms)), "{text}");
        }
    }

    #[test]
    fn never_and_what_is_no_time_are_none() {
        for text in ["0001-01-01T00:00:00Z", "", "2026-13-01T00:00:00Z", "2026-01-01", "2026-01-01T00:00Z", "x"] {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            moment(&text);
        }

        #[test]
        fn what_looks_like_a_time_is_read_or_refused(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{5,12}[Z+-]([0-9:]{0,5})") {
            moment(&text);
        }
    }
}
