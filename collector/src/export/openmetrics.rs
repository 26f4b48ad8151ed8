//! How samples are written as OpenMetrics 1.0 text. Pure.
//!
//! Families may not be interleaved, nor may the series of one, and a series goes forward in time: whoever writes keeps
//! that order. Only the last line says that a text is whole.

use std::io::Write as _;

use dunlin_shared::metric::{Kind, Unit};
use dunlin_shared::time::WallMs;

/// The last line.
pub const END: &[u8] = b"# EOF\n";
/// Behind the name of a counter's samples.
pub const TOTAL: &str = "_total";
/// What the help of a family begins with that holds roll-ups, or rates: no samples.
pub const ROLL_UP_HELP: &str = "Roll-up: ";
pub const RATE_HELP: &str = "Rate of a second: ";
/// Behind the name of a counter that is told as what it grew by in a second.
pub const RATE: &str = "_rate";

/// The head of a family: its type, its unit where the name ends by it, and what it is.
pub fn put_head(out: &mut Vec<u8>, name: &str, kind: Kind, unit: Unit, help: &str) {
    // A `Vec` takes whatever is written.
    writeln!(out, "# TYPE {name} {}", kind.as_str()).ok();
    let unit = unit.as_str();
    if name.strip_suffix(unit).is_some_and(|stem| stem.ends_with('_')) {
        writeln!(out, "# UNIT {name} {unit}").ok();
    }
    if !help.is_empty() {
        writeln!(out, "# HELP {name} {}", escaped(help)).ok();
    }
}

/// What the lines of one series have in common, up to the space before the value.
#[must_use]
pub fn series(name: &str, kind: Kind, node: &str, host: &str, subject: &str) -> String {
    let total = if kind == Kind::Counter { TOTAL } else { "" };
    let (host, subject) = (escaped(host), escaped(subject));
    format!("{name}{total}{{node=\"{node}\",name=\"{host}\",subject=\"{subject}\"}}")
}

pub fn put_sample(out: &mut Vec<u8>, series: &str, at: WallMs, value: f64) {
    let (seconds, ms) = (at.0.div_euclid(1_000), at.0.rem_euclid(1_000));
    writeln!(out, "{series} {value} {seconds}.{ms:03}").ok();
}

fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => plain.push_str("\\\\"),
            '"' => plain.push_str("\\\""),
            '\n' => plain.push_str("\\n"),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_says_its_unit_where_its_name_does() {
        let head = |name: &str, kind, unit| {
            let mut out = Vec::new();
            put_head(&mut out, name, kind, unit, "");
            String::from_utf8(out).expect("text")
        };
        assert_eq!(
            head("host_cpu_idle_seconds", Kind::Counter, Unit::Seconds),
            "# TYPE host_cpu_idle_seconds counter\n# UNIT host_cpu_idle_seconds seconds\n"
        );
        assert_eq!(head("host_load1", Kind::Gauge, Unit::Count), "# TYPE host_load1 gauge\n");
        assert_eq!(head("x_megabytes", Kind::Gauge, Unit::Bytes), "# TYPE x_megabytes gauge\n");
    }

    #[test]
    fn a_sample_has_its_labels_escaped_and_its_time_in_seconds() {
        let series = series("x_a", Kind::Counter, "id", "a\"b\\c", "fs:/x\ny");
        assert_eq!(series, "x_a_total{node=\"id\",name=\"a\\\"b\\\\c\",subject=\"fs:/x\\ny\"}");
        let mut out = Vec::new();
        put_sample(&mut out, "x", WallMs(1_795_255_200_007), 1.5);
        assert_eq!(out, b"x 1.5 1795255200.007\n");
    }
}
