//! The table that a bench prints: what was measured, what it came to, and what was promised.

use std::fmt;

use serde_json::json;

#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    part: &'static str,
    what: String,
    measured: String,
    promise: String,
    kept: Option<bool>,
    /// However slow the machine is.
    is_certain: bool,
}

impl Table {
    /// A figure that nothing was promised for.
    pub fn note(&mut self, part: &'static str, what: impl Into<String>, measured: impl Into<String>) {
        let (what, measured) = (what.into(), measured.into());
        self.rows.push(Row { part, what, measured, promise: String::new(), kept: None, is_certain: false });
    }

    /// A figure that may be `most` and no more.
    pub fn promise(&mut self, part: &'static str, what: &str, measured: f64, most: f64, unit: &str) {
        self.promise_to(part, what, (measured, most), unit, 1);
    }

    /// The same with so many decimals.
    pub fn promise_to(
        &mut self,
        part: &'static str,
        what: &str,
        (measured, most): (f64, f64),
        unit: &str,
        decimals: usize,
    ) {
        self.rows.push(Row {
            part,
            what: what.to_owned(),
            measured: format!("{measured:.decimals$} {unit}"),
            promise: format!("<= {most} {unit}"),
            kept: Some(measured <= most),
            is_certain: false,
        });
    }

    /// A figure that may be `least` and no less.
    pub fn promise_least(&mut self, part: &'static str, what: &str, measured: f64, least: f64, unit: &str) {
        self.rows.push(Row {
            part,
            what: what.to_owned(),
            measured: format!("{measured:.1} {unit}"),
            promise: format!(">= {least} {unit}"),
            kept: Some(measured >= least),
            is_certain: false,
        });
    }

    /// How often something was so that never may be, on no machine and no build.
    pub fn never(&mut self, part: &'static str, what: &str, times: usize) {
        let (what, measured, promise) = (what.to_owned(), times.to_string(), String::from("0"));
        self.rows.push(Row { part, what, measured, promise, kept: Some(times == 0), is_certain: true });
    }

    /// Whether something was so that never may be.
    #[must_use]
    pub fn has_broken(&self) -> bool {
        self.rows.iter().any(|row| row.is_certain && row.kept == Some(false))
    }

    #[must_use]
    pub fn has_missed(&self) -> bool {
        self.rows.iter().any(|row| row.kept == Some(false))
    }

    /// For programs: the machine, and a row for each figure.
    #[must_use]
    pub fn json(&self, machine: &str) -> String {
        let rows = self.rows.iter().map(|row| {
            json!({ "part": row.part, "what": row.what, "measured": row.measured.trim(), "promise": row.promise.trim(),
                "kept": row.kept })
        });
        format!("{:#}\n", json!({ "machine": machine, "rows": rows.collect::<Vec<_>>() }))
    }

    /// For a page.
    #[must_use]
    pub fn markdown(&self, machine: &str) -> String {
        let mut page = format!("{machine}\n\n| what | measured | promised |\n|---|---|---|\n");
        for row in &self.rows {
            let missed = if row.kept == Some(false) { ", missed" } else { "" };
            page += &format!("| {} | {}{missed} | {} |\n", row.what, row.measured.trim(), row.promise.trim());
        }
        page
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
