//! OpenMetrics text as an export writes it: families of gauges and counters, each sample with its labels and its time.

use std::path::Path;

use dunlin_shared::metric::Kind;
use dunlin_shared::time::WallMs;

use super::error::ImportError;
use super::gather::Gather;
use super::judge::{Sample, Told};
use super::lines::{Lines, short};
use super::sorter::Sorter;
use crate::export::openmetrics::{RATE_HELP, ROLL_UP_HELP, TOTAL};

/// The family at hand.
#[derive(Debug, Default)]
struct Family {
    name: String,
    /// `None` for `unknown`: what the catalogue says counts.
    kind: Option<Kind>,
    unit: Option<String>,
}

/// The parts of a line with a sample.
#[derive(Debug, Default)]
struct Parts {
    name: String,
    node: String,
    host: String,
    subject: String,
    value: f64,
    at: WallMs,
}

pub(super) fn read(lines: &mut Lines, gather: &mut Gather, scratch: &Path) -> Result<(), ImportError> {
    let mut sorter = Sorter::new(scratch);
    let mut family = Family::default();
    let mut before: Option<Sample> = None;
    let mut is_whole = false;
    while lines.advance()? {
        let line = lines.text()?;
        if is_whole {
            return Err(lines.wrong("nothing may stand behind # EOF"));
        }
        if line == "# EOF" {
            is_whole = true;
            continue;
        }
        if let Some(about) = line.strip_prefix("# ") {
            family.told(about).map_err(|what| lines.wrong(what))?;
            continue;
        }
        let judged = Parts::parse(line).and_then(|parts| gather.judge.sample(&family.sample(&parts)?));
        let sample = judged.map_err(|what| lines.wrong(what))?;
        if let Some(last) = before.filter(|last| (last.node, last.series) == (sample.node, sample.series))
            && last.at >= sample.at
        {
            let what = if last.at == sample.at { "is the same as" } else { "is before" };
            return Err(lines.wrong(format!("the time {what} that of the line before; a series goes forward in time")));
        }
        before = Some(sample);
        sorter.push(sample)?;
    }
    if !is_whole {
        return Err(lines.wrong("the file does not end with # EOF: it is not whole"));
    }
    for sample in sorter.sorted()? {
        gather.add(sample?, None).map_err(|fault| fault.at(lines))?;
    }
    Ok(())
}

impl Family {
    /// From a line that begins with `#`.
    fn told(&mut self, about: &str) -> Result<(), String> {
        let mut words = about.splitn(3, ' ');
        let (what, name, rest) = (words.next(), words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if what != Some("TYPE") && name != self.name {
            return Err(format!("a family begins with # TYPE, and {:?} has none", short(name)));
        }
        match what {
            Some("TYPE") => {
                let kind = match rest {
                    "gauge" => Some(Kind::Gauge),
                    "counter" => Some(Kind::Counter),
                    "unknown" => None,
                    _ => return Err(format!("the type is {:?}; it has to be gauge, counter or unknown", short(rest))),
                };
                *self = Self { name: name.to_owned(), kind, unit: None };
            }
            Some("UNIT") => self.unit = Some(rest.to_owned()),
            Some("HELP") if rest.starts_with(ROLL_UP_HELP) => {
                return Err(String::from(
                    "the file holds roll-ups, of which no samples can be made; export with --resolution full",
                ));
            }
            Some("HELP") if rest.starts_with(RATE_HELP) => {
                return Err(String::from(
                    "the file holds rates, of which no counters can be made; export with --counter value",
                ));
            }
            Some("HELP") => {}
            _ => return Err(String::from("the line is neither # TYPE, # UNIT, # HELP nor # EOF")),
        }
        Ok(())
    }

    fn sample<'a>(&'a self, parts: &'a Parts) -> Result<Told<'a>, String> {
        let name = parts.name.as_str();
        let metric = match self.kind {
            Some(Kind::Counter) => name.strip_suffix(TOTAL).filter(|stem| *stem == self.name),
            _ => Some(name).filter(|name| *name == self.name),
        };
        let Some(metric) = metric else {
            let total = if self.kind == Some(Kind::Counter) { TOTAL } else { "" };
            let (name, family) = (short(name), &self.name);
            return Err(format!("the sample is named {name:?}; in this family it has to be {family}{total}"));
        };
        Ok(Told {
            node: &parts.node,
            name: &parts.host,
            subject: &parts.subject,
            metric,
            unit: self.unit.as_deref(),
            kind: self.kind,
            at: parts.at,
            value: parts.value,
        })
    }
}

impl Parts {
    fn parse(line: &str) -> Result<Self, String> {
        let (name, rest) =
            line.split_once('{').ok_or("the sample has no labels; it needs node or name, and subject")?;
        let mut parts = Self { name: name.to_owned(), ..Self::default() };
        let mut rest = parts.labels(rest)?;
        rest = rest.strip_prefix(' ').ok_or("behind the labels stands a space and the value")?;
        let (value, at) = rest.split_once(' ').ok_or("the sample has no time; each needs its own")?;
        let number = |text: &str, what: &str| {
            let wrong = || format!("the {what} is {:?}; it has to be a number", short(text));
            text.parse::<f64>().map_err(|_| wrong())
        };
        parts.value = number(value, "value")?;
        let seconds = number(at, "time")?;
        if !seconds.is_finite() {
            return Err(format!("the time is {:?}; it has to be seconds since 1970", short(at)));
        }
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and such a time is refused")]
        let ms = (seconds * 1_000.0).round() as i64;
        parts.at = WallMs(ms);
        Ok(parts)
    }

    /// What stands behind them.
    fn labels<'a>(&mut self, mut rest: &'a str) -> Result<&'a str, String> {
        loop {
            let (label, behind) = rest.split_once("=\"").ok_or("a label has to be NAME=\"VALUE\"")?;
            let (value, behind) = quoted(behind)?;
            match label {
                "node" => self.node = value,
                "name" => self.host = value,
                "subject" => self.subject = value,
                other => {
                    let other = short(other);
                    return Err(format!(
                        "nothing is known here of a label {other:?}; there are node, name and subject"
                    ));
                }
            }
            match behind.strip_prefix(',') {
                Some(more) => rest = more,
                None => return Ok(behind.strip_prefix('}').ok_or("behind a label stands a comma or a brace")?),
            }
        }
    }
}

/// What stands up to the quote, and what stands behind it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('"' | '\\'))) => value.push(c),
                _ => return Err(String::from("behind a backslash stands n, a quote or a backslash")),
            },
            c => value.push(c),
        }
    }
    Err(String::from("a label's value has no end"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::export::openmetrics::{put_sample, series};

    proptest! {
        #[test]
        fn whatever_is_written_is_read(host: String, subject: String, at in 0i64..4_102_444_800_000, value: f64) {
            prop_assume!(value.is_finite());
            let mut line = Vec::new();
            put_sample(&mut line, &series("x_a", Kind::Counter, "id", &host, &subject), WallMs(at), value);
            let line = String::from_utf8(line).expect("text");
            let parts = Parts::parse(line.trim_end_matches('\n')).expect("it was written");
            prop_assert_eq!((parts.name.as_str(), parts.node.as_str()), ("x_a_total", "id"));
            prop_assert_eq!((parts.host, parts.subject), (host, subject));
            prop_assert_eq!((parts.at, parts.value), (WallMs(at), value));
        }

        #[test]
        fn no_line_makes_it_panic(line: String) {
            drop(Parts::parse(&line));
            drop(Parts::parse(&format!("x{{node=\"{line}")));
            drop(Family::default().told(&line));
        }
    }
}
