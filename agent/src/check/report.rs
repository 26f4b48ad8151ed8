//! What a check found, and how it is told: lines for people, one object for programs.
//!
//! Text of others was cleaned where it was read; whatever is left of what moves a cursor goes here. Lines that are to be
//! copied are never broken; what explains them is, at the width of a terminal.

use std::fmt::{self, Write as _};

use crate::json::{list, quoted};
use crate::sight::State;
use crate::sight::mend::{Mend, RESTART, Way};

/// Of the smallest terminal that is still in use.
const WIDTH: usize = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    Warning,
    Critical,
}

/// What was found, in the order in which it was looked at.
#[derive(Debug, Default)]
pub struct Report {
    findings: Vec<Finding>,
}

#[derive(Debug)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) what: String,
    pub(super) text: String,
    /// Of a source.
    pub(super) state: Option<State>,
    pub(super) mend: Option<Mend>,
}

impl Verdict {
    /// The exit code of a Nagios check.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

impl Report {
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }

    pub(super) fn add(&mut self, verdict: Verdict, what: impl Into<String>, text: impl Into<String>) {
        self.push(Finding { verdict, what: what.into(), text: text.into(), state: None, mend: None });
    }

    pub(super) fn push(&mut self, mut finding: Finding) {
        finding.text.retain(|c| !c.is_control());
        self.findings.push(finding);
    }

    /// One object on one line.
    #[must_use]
    pub fn json(&self) -> String {
        let verdict = self.verdict();
        let mut text = format!(
            "{{\"verdict\":{},\"exit_code\":{},\"summary\":{},\"findings\":[",
            quoted(verdict.word()),
            verdict.exit_code(),
            quoted(&self.summary()),
        );
        list(&mut text, self.findings.iter().map(Finding::json));
        text.push_str("]}\n");
        text
    }

    fn summary(&self) -> String {
        let verdict = self.verdict();
        let worst: Vec<_> = self.findings.iter().filter(|finding| finding.verdict == verdict).collect();
        let partial = self.findings.iter().filter(|finding| finding.is_partial()).count();
        match (verdict, worst.as_slice(), partial) {
            (Verdict::Ok, _, 0) => String::from("everything that was looked at is well"),
            (Verdict::Ok, ..) => format!("nothing is wrong; what could be seen besides is marked with -: {partial}"),
            (_, [], _) => String::new(),
            (_, [first], _) => format!("{}: {}", first.what, first.text),
            (_, [first, rest @ ..], _) => format!("{}: {}; and {} more", first.what, first.text, rest.len()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.verdict().word(), self.summary())?;
        let mut has_lines = false;
        for finding in &self.findings {
            let mark = match finding.verdict {
                Verdict::Ok if finding.is_partial() => "-",
                Verdict::Ok => " ",
                Verdict::Warning => "!",
                Verdict::Critical => "X",
            };
            writeln!(f, "{mark} {}: {}", finding.what, finding.text)?;
            let Some(mend) = &finding.mend else { continue };
            f.write_str(&wrapped("      without it: ", 8, mend.missing))?;
            for way in &mend.ways {
                write_way(f, way)?;
                has_lines |= !way.lines.is_empty();
            }
        }
        if has_lines {
            writeln!(f, "After such a change: {RESTART}")?;
        }
        Ok(())
    }
}

impl Finding {
    fn is_partial(&self) -> bool {
        self.verdict == Verdict::Ok && matches!(self.state, Some(State::Partly | State::Refused))
    }

    fn json(&self) -> String {
        let Self { verdict, what, text, state, mend } = self;
        let mut json = format!(
            "{{\"verdict\":{},\"what\":{},\"text\":{},\"state\":{},\"missing\":{},\"mend\":[",
            quoted(verdict.word()),
            quoted(what),
            quoted(text),
            state.map_or_else(|| String::from("null"), |state| quoted(state.as_str())),
            mend.as_ref().map_or_else(|| String::from("null"), |mend| quoted(mend.missing)),
        );
        let way = |way: &Way| {
            let mut lines = String::new();
            list(&mut lines, way.lines.iter().map(|line| quoted(line)));
            format!("{{\"to\":{},\"lines\":[{lines}],\"opens\":{}}}", quoted(&way.to), quoted(&way.opens))
        };
        list(&mut json, mend.iter().flat_map(|mend| &mend.ways).map(way));
        json.push_str("]}");
        json
    }
}

fn write_way(f: &mut fmt::Formatter<'_>, way: &Way) -> fmt::Result {
    f.write_str(&wrapped("      to mend it: ", 8, &way.to))?;
    for line in &way.lines {
        writeln!(f, "          {line}")?;
    }
    if way.opens.is_empty() { Ok(()) } else { f.write_str(&wrapped("        which opens: ", 10, &way.opens)) }
}

/// Words behind a first one, in lines that a terminal holds.
fn wrapped(first: &str, indent: usize, text: &str) -> String {
    let (mut all, mut width) = (first.to_owned(), first.chars().count());
    let mut is_first = true;
    for word in text.split(' ') {
        let long = word.chars().count();
        if !is_first && width + 1 + long > WIDTH {
            // Writing to a string cannot fail.
            write!(all, "\n{:indent$}", "").ok();
            width = indent;
        } else if !is_first {
            all.push(' ');
            width += 1;
        }
        is_first = false;
        all.push_str(word);
        width += long;
    }
    all.push('\n');
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: &[(Verdict, &str)]) -> Report {
        let mut report = Report::default();
        findings.iter().for_each(|(verdict, what)| report.add(*verdict, *what, "text"));
        report
    }

    #[test]
    fn the_worst_finding_decides_and_stands_in_the_first_line() {
        for (findings, code, first) in [
            (&[(Verdict::Ok, "cpu")][..], 0, "OK: everything"),
            (&[(Verdict::Ok, "cpu"), (Verdict::Warning, "disks")], 1, "WARNING: disks: text"),
            (
                &[(Verdict::Warning, "a"), (Verdict::Critical, "b"), (Verdict::Critical, "c")],
                2,
                "CRITICAL: b: text; and 1 more",
            ),
        ] {
            let report = report(findings);
            assert_eq!(report.verdict().exit_code(), code);
            let text = report.to_string();
            assert!(text.starts_with(first), "{text}");
            assert_eq!(text.lines().count(), findings.len() + 1);
        }
    }

    fn shut() -> Report {
        let way = Way {
            to: "a file with a rather long name, which is explained in a sentence that does not fit one line".into(),
            lines: vec!["[Service]".into(), format!("Line={}", "x".repeat(90))],
            opens: "everything".into(),
        };
        let mut report = Report::default();
        report.push(Finding {
            verdict: Verdict::Ok,
            what: "engine".into(),
            text: "no permission\u{1b}[2J".into(),
            state: Some(State::Refused),
            mend: Some(Mend { missing: "names \"and\" more", ways: vec![way] }),
        });
        report
    }

    #[test]
    fn lines_to_copy_stay_whole_and_the_rest_fits_a_terminal() {
        let text = shut().to_string();
        assert!(text.starts_with("OK: nothing is wrong") && text.contains("\n- engine: no permission[2J\n"), "{text}");
        assert!(text.contains(&format!("\n          Line={}\n", "x".repeat(90))), "{text}");
        assert!(text.ends_with("systemctl restart dunlin-agent\n"), "{text}");
        assert!(
            text.lines().filter(|line| !line.contains("Line=")).all(|line| line.chars().count() <= WIDTH),
            "{text}"
        );
    }

    #[test]
    fn programs_get_the_same_as_people() {
        let json = shut().json();
        let value: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        let finding = &value["findings"][0];
        assert_eq!((value["verdict"].as_str(), value["exit_code"].as_u64()), (Some("OK"), Some(0)));
        assert_eq!(
            (finding["state"].as_str(), finding["missing"].as_str()),
            (Some("refused"), Some("names \"and\" more"))
        );
        assert_eq!(finding["mend"][0]["lines"][0].as_str(), Some("[Service]"));
    }
}
