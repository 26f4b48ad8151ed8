//! The table that a bench prints: what was measured, what it came to, and what was promised.

use std::fmt;

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    part: &'static str,
    what: String,
    measured: String,
    promise: String,
    kept: Option<bool>,
}

impl Table {
    /// A figure that nothing was promised for.
    pub(crate) fn note(&mut self, part: &'static str, what: impl Into<String>, measured: impl Into<String>) {
        let (what, measured) = (what.into(), measured.into());
        self.rows.push(Row { part, what, measured, promise: String::new(), kept: None });
    }

    /// A figure that may be `most` and no more.
    pub(crate) fn promise(&mut self, part: &'static str, what: &str, measured: f64, most: f64, unit: &str) {
        self.rows.push(Row {
            part,
            what: what.to_owned(),
            measured: format!("{measured:.1} {unit}"),
            promise: format!("<= {most} {unit}"),
            kept: Some(measured <= most),
        });
    }

    /// A figure that may be `least` and no less.
    pub(crate) fn promise_least(&mut self, part: &'static str, what: &str, measured: f64, least: f64, unit: &str) {
        self.rows.push(Row {
            part,
            what: what.to_owned(),
            measured: format!("{measured:.1} {unit}"),
            promise: format!(">= {least} {unit}"),
            kept: Some(measured >= least),
        });
    }

    pub(crate) fn has_missed(&self) -> bool {
        self.rows.iter().any(|row| row.kept == Some(false))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&Row) -> &str, head: &str| {
            self.rows.iter().map(|row| of(row).chars().count()).chain([head.len()]).max().unwrap_or(0)
        };
        let part = width(|row| row.part, "part");
        let what = width(|row| &row.what, "what");
        let measured = width(|row| &row.measured, "measured");
        let promise = width(|row| &row.promise, "promise");
        writeln!(f, "{:part$}  {:what$}  {:>measured$}  {:promise$}", "part", "what", "measured", "promise")?;
        for row in &self.rows {
            let kept = match row.kept {
                None => "",
                Some(true) => "  kept",
                Some(false) => "  MISSED",
            };
            let line = format!(
                "{:part$}  {:what$}  {:>measured$}  {:promise$}{kept}",
                row.part, row.what, row.measured, row.promise
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
