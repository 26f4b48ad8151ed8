//! Tables for people: aligned columns of text, nothing that a terminal could take for a command.

use std::io::{self, Write};

/// What stands in one cell may come from an agent: control characters do not get to a terminal.
#[must_use]
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[derive(Debug)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Columns that end at the same place, for numbers.
    right: Vec<usize>,
}

impl Table {
    #[must_use]
    pub fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new(), right: Vec::new() }
    }

    #[must_use]
    pub fn right(mut self, columns: &[usize]) -> Self {
        self.right = columns.to_vec();
        self
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Lines without their ends, the head first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let head: Vec<String> = self.head.iter().map(|&word| word.to_owned()).collect();
        let all = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| all().map(|row| row.get(column).map_or(0, |cell| columns(cell))).max();
        let widths: Vec<usize> = (0..head.len()).map(|column| width(column).unwrap_or(0)).collect();
        all().map(|row| self.line(row, &widths)).collect()
    }

    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        self.lines().iter().try_for_each(|line| writeln!(out, "{line}"))
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let cell = |(column, (cell, &width)): (usize, (&String, &usize))| {
            let blanks = " ".repeat(width.saturating_sub(columns(cell)));
            if self.right.contains(&column) { format!("{blanks}{cell}") } else { format!("{cell}{blanks}") }
        };
        let cells: Vec<String> = row.iter().zip(widths).enumerate().map(cell).collect();
        cells.join("  ").trim_end().to_owned()
    }
}

/// How wide a text is on a terminal: letters of Chinese, Japanese and Korean take two places.
fn columns(text: &str) -> usize {
    let is_wide = |letter: char| {
        matches!(letter, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{303e}' | '\u{3041}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
            | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}' | '\u{ffe0}'..='\u{ffe6}'
            | '\u{20000}'..='\u{3fffd}')
    };
    text.chars().map(|letter| if is_wide(letter) { 2 } else { 1 }).sum()
}

/// A number as short as it can be read: four digits that count.
#[must_use]
pub fn number(value: f64) -> String {
    if value == value.trunc() && value.abs() < 1e15 {
        return format!("{value:.0}");
    }
    let digits = match value.abs() {
        size if size >= 1_000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        size if size >= 0.01 => 3,
        _ => 6,
    };
    format!("{value:.digits$}")
}

/// In the unit of a metric.
#[must_use]
pub fn quantity(value: f64, unit: &str, per_second: bool) -> String {
    let text = match unit {
        "bytes" => bytes(value),
        "ratio" => format!("{:.1} %", value * 100.0),
        "seconds" => format!("{} s", number(value)),
        "celsius" => format!("{} °C", number(value)),
        "hertz" => format!("{} Hz", number(value)),
        _ => number(value),
    };
    if per_second { format!("{text}/s") } else { text }
}

#[must_use]
pub fn bytes(value: f64) -> String {
    for (unit, size) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let size = f64::from(size).exp2();
        if value.abs() >= size {
            return format!("{:.1} {unit}", value / size);
        }
    }
    format!("{} B", number(value))
}

/// Labels in one cell.
#[must_use]
pub fn labels(labels: &std::collections::BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_end_of_blanks() {
        let mut table = Table::new(&["NAME", "COUNT", "LABELS"]).right(&[1]);
        table.row(["é".into(), "7".into(), String::new()]);
        table.row(["longer".into(), "1234567".into(), "a=b\u{1b}[2J".into()]);
        assert_eq!(table.lines(), ["NAME      COUNT  LABELS", "é             7", "longer  1234567  a=b?[2J"]);
    }

    #[test]
    fn columns_are_aligned_behind_wide_letters_as_well() {
        let mut table = Table::new(&["A", "B"]);
        table.row(["内存,93 %".into(), "x".into()]);
        table.row(["0123456789".into(), "y".into()]);
        assert_eq!(table.lines(), ["A           B", "内存,93 %   x", "0123456789  y"]);
    }

    #[test]
    fn quantities_are_read_at_a_glance() {
        assert_eq!(quantity(1536.0, "bytes", true), "1.5 KiB/s");
        assert_eq!(quantity(0.256, "ratio", false), "25.6 %");
        assert_eq!([number(0.0), number(1234.5), number(12.345), number(0.00001)], ["0", "1234", "12.35", "0.000010"]);
    }
}
