//! CSV as an export writes it (RFC 4180), record by record.

use dunlin_shared::metric::Kind;
use dunlin_shared::time::WallMs;

use super::error::ImportError;
use super::gather::Gather;
use super::judge::Told;
use super::lines::{Lines, short};
use crate::export::csv;
use crate::shape::Moment;

/// Lines of one record: names hold line ends where somebody gave them such.
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// Whether a record goes on behind the line.
#[derive(Debug, PartialEq, Eq)]
enum Quote {
    Open,
    Closed,
}

pub(super) fn read(lines: &mut Lines, gather: &mut Gather) -> Result<(), ImportError> {
    lines.advance()?;
    match lines.text()? {
        csv::SAMPLES => {}
        csv::CELLS => {
            return Err(
                lines.wrong("the file holds roll-ups, of which no samples can be made; export with --resolution full")
            );
        }
        other => {
            let other = short(other);
            return Err(lines.wrong(format!("the columns are {other:?}; they have to be {}", csv::SAMPLES)));
        }
    }
    let columns = csv::SAMPLES.split(',').count();
    let mut fields: Vec<String> = Vec::new();
    while lines.advance()? {
        let line = lines.number();
        record(lines, &mut fields)?;
        if fields.len() != columns {
            return Err(lines.wrong(format!("the line has {} fields; it has to have {columns}", fields.len())));
        }
        let told = told(&fields).map_err(|what| lines.wrong(what))?;
        let sample = gather.judge.sample(&told).map_err(|what| lines.wrong(what))?;
        gather.add(sample, Some(line)).map_err(|fault| fault.at(lines))?;
    }
    Ok(())
}

fn told(fields: &[String]) -> Result<Told<'_>, String> {
    let [time, node, name, subject, metric, unit, kind, value] = fields else { return Err(String::from("no line")) };
    let at: Moment = time.parse()?;
    let kind = match kind.as_str() {
        csv::RATE => {
            return Err(String::from(
                "the line holds a rate, of which no counter can be made; export with --counter value",
            ));
        }
        "gauge" => Kind::Gauge,
        "counter" => Kind::Counter,
        other => return Err(format!("the kind is {:?}; it is gauge or counter", short(other))),
    };
    let value = value.parse().map_err(|_| format!("the value is {:?}; it has to be a number", short(value)))?;
    let (unit, kind) = (Some(unit.as_str()), Some(kind));
    Ok(Told { node, name, subject, metric, unit, kind, at: WallMs(at.0.0), value })
}

/// The fields of a record, which may go on over several lines.
fn record(lines: &mut Lines, fields: &mut Vec<String>) -> Result<(), ImportError> {
    let mut text = lines.text()?.to_owned();
    while split(&text, fields).map_err(|what| lines.wrong(what))? == Quote::Open {
        if text.len() > RECORD_BYTES_MAX || !lines.advance()? {
            return Err(lines.wrong("a field in quotes has no end"));
        }
        text.push('\n');
        text.push_str(lines.text()?);
    }
    Ok(())
}

fn split(text: &str, fields: &mut Vec<String>) -> Result<Quote, String> {
    fields.clear();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let Some((part, behind)) = quoted.split_once('"') else { return Ok(Quote::Open) };
                field.push_str(part);
                let Some(again) = behind.strip_prefix('"') else {
                    rest = behind;
                    break;
                };
                field.push('"');
                quoted = again;
            }
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err(String::from("a field goes on behind its quotes"));
            }
        } else {
            let (part, _) = rest.split_once(',').unwrap_or((rest, ""));
            if part.contains('"') {
                return Err(String::from("a field with a quote in it has to be in quotes as a whole"));
            }
            field.push_str(part);
            rest = &rest[part.len()..];
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(Quote::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_split_as_they_were_quoted() {
        let mut fields = Vec::new();
        assert!(split("a,\"b,\"\"c\"\"\nd\",,e", &mut fields) == Ok(Quote::Closed));
        assert_eq!(fields, ["a", "b,\"c\"\nd", "", "e"]);
        assert!(split("a,\"b", &mut fields) == Ok(Quote::Open));
        assert!(split("a,b\"c", &mut fields).is_err() && split("\"a\"b,c", &mut fields).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read(node: String, name: String, subject: String) {
            use dunlin_shared::metric::Unit;
            let text = csv::middle(&node, &name, &subject, "x_a", Unit::Bytes, Some(Kind::Gauge));
            // A line end within a field is read as one, of whichever kind.
            prop_assume!(!text.contains('\r'));
            let mut fields = Vec::new();
            prop_assert!(split(&text, &mut fields) == Ok(Quote::Closed));
            prop_assert_eq!(&fields[1..4], &[node, name, subject]);
        }
    }
}
