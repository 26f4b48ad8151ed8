//! How samples and cells are written as CSV (RFC 4180), and the words that its columns use. Pure.

use std::io::Write as _;

use dunlin_shared::metric::{Kind, Unit};
use dunlin_shared::time::WallMs;

use crate::rollup::Cell;
use crate::shape::Moment;

/// Of samples. A reader may rely on the names, and so does the importer.
pub const SAMPLES: &str = "time,node,name,subject,metric,unit,kind,value";
/// Of roll-ups.
pub const CELLS: &str = "time,node,name,subject,metric,unit,kind,min,max,mean,last,count";
/// In the column `kind`, where a counter is told as what it grew by in a second of its unit.
pub const RATE: &str = "rate";

/// What the lines of one series have in common, from the comma behind the time to the one before the values.
#[must_use]
pub fn middle(node: &str, name: &str, subject: &str, metric: &str, unit: Unit, kind: Option<Kind>) -> String {
    let mut text = String::from(",");
    for word in [node, name, subject, metric, unit.as_str(), kind.map_or(RATE, Kind::as_str)] {
        quoted(&mut text, word);
        text.push(',');
    }
    text
}

pub fn put_head(out: &mut Vec<u8>, columns: &str) {
    out.extend_from_slice(columns.as_bytes());
    out.extend_from_slice(b"\r\n");
}

pub fn put_sample(out: &mut Vec<u8>, at: WallMs, middle: &str, value: f64) {
    // A `Vec` takes whatever is written.
    write!(out, "{}{middle}{value}\r\n", Moment(at)).ok();
}

pub fn put_cell(out: &mut Vec<u8>, at: WallMs, middle: &str, cell: &Cell) {
    let Cell { min, max, mean, last, count } = cell;
    write!(out, "{}{middle}{min},{max},{mean},{last},{count}\r\n", Moment(at)).ok();
}

/// A field, in quotes where it needs them.
fn quoted(text: &mut String, field: &str) {
    if !field.contains([',', '"', '\r', '\n']) {
        text.push_str(field);
        return;
    }
    text.push('"');
    text.push_str(&field.replace('"', "\"\""));
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_need_it_and_nowhere_else() {
        let middle = middle("id", "a,\"b\"", "fs:/x\ny", "x_a", Unit::Bytes, Some(Kind::Counter));
        assert_eq!(middle, ",id,\"a,\"\"b\"\"\",\"fs:/x\ny\",x_a,bytes,counter,");
        let mut out = Vec::new();
        put_sample(&mut out, WallMs(1_795_255_200_123), ",id,n,host,host_load1,count,gauge,", 0.25);
        assert_eq!(out, b"2026-11-21T10:00:00.123Z,id,n,host,host_load1,count,gauge,0.25\r\n");
        let mut out = Vec::new();
        put_cell(&mut out, WallMs(0), ",,", &Cell { min: -1.0, max: 2e9, mean: 0.5, last: 1.0, count: 3 });
        assert_eq!(out, b"1970-01-01T00:00:00.000Z,,-1,2000000000,0.5,1,3\r\n");
    }
}
