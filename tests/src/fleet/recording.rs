//! What a real host measured, tick by tick, in a text file that is committed; and its replay.
//!
//! ```text
//! # comments
//! dunlin-recording-1 TICKS
//! SUBJECT METRIC STEP VALUE...        a first value, then differences; `xN` repeats, `-` is absent
//! ```
//!
//! Values are in steps of the catalogue's precision, and a file of another precision is refused. Replayed
//! beyond its end, counters go on from where they were and gauges walk back the way they came.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use dunlin_shared::metric::{Kind, Metric, Step, by_name};
use dunlin_shared::sample::{Sample, Subject};
use dunlin_shared::time::{MonoMs, WallMs};
use thiserror::Error;

const FORMAT: &str = "dunlin-recording-1";
/// A day at a tick each 10 s is far less.
const TICKS_MAX: usize = 10_000;
/// How far apart the counters of two hosts are that play one recording, in steps.
const COUNTED_MAX: u64 = 100_000;

#[derive(Debug, Error)]
pub enum RecordingError {
    #[error("{}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {what}", path.display())]
    Line { path: PathBuf, line: usize, what: String },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    ticks: usize,
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    subject: Subject,
    metric: &'static Metric,
    /// One for each tick.
    values: Vec<Option<i64>>,
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        (&self.subject, self.metric.id, &self.values) == (&other.subject, other.metric.id, &other.values)
    }
}

impl Recording {
    /// From samples in the order in which they were taken.
    #[must_use]
    pub fn from_samples(samples: &[Sample]) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        for (tick, sample) in samples.iter().enumerate() {
            for (subject, metric, steps) in sample.rows() {
                let Some(metric) = dunlin_shared::metric::by_id(dunlin_shared::metric::MetricId(metric.raw())) else {
                    continue;
                };
                let known = rows.iter().position(|row| row.subject == *subject && row.metric.id == metric.id);
                let at = known.unwrap_or_else(|| {
                    rows.push(Row { subject: subject.clone(), metric, values: vec![None; samples.len()] });
                    rows.len() - 1
                });
                rows[at].values[tick] = Some(*steps);
            }
        }
        Self { ticks: samples.len(), rows }
    }

    pub fn read(path: &Path) -> Result<Self, RecordingError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| RecordingError::File { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|(line, what)| RecordingError::Line { path: path.to_owned(), line, what })
    }

    pub fn write(&self, path: &Path, note: &str) -> Result<(), RecordingError> {
        let mut text: String = note.lines().map(|line| format!("# {line}\n")).collect();
        text.push_str(&self.render());
        std::fs::write(path, text).map_err(|source| RecordingError::File { path: path.to_owned(), source })
    }

    #[must_use]
    pub const fn series(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub const fn ticks(&self) -> usize {
        self.ticks
    }

    /// What the host measured at a tick; beyond the last one, as if it went on so.
    #[must_use]
    pub fn sample(&self, tick: u64, mono: MonoMs, wall: WallMs) -> Sample {
        let mut sample = Sample::new(mono, wall);
        self.each(tick, 0, |subject, metric, steps| sample.push(subject, metric, metric.step.value(steps)));
        sample
    }

    /// The same of a host like it: the key says at which tick of the recording it begins, and from where it counts. With
    /// the key 0 it is the very host.
    pub(super) fn each(&self, tick: u64, key: u64, mut take: impl FnMut(&Subject, &'static Metric, i64)) {
        let tick = tick + key % self.ticks as u64;
        for (row, number) in self.rows.iter().zip(1..) {
            let counted = if row.metric.kind == Kind::Counter { key.wrapping_mul(number) % COUNTED_MAX } else { 0 };
            if let Some(steps) = row.at(tick) {
                take(&row.subject, row.metric, steps + counted.cast_signed());
            }
        }
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.rows.iter().map(|row| &row.subject)
    }

    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        let wrong = |line: usize, what: &str| (line + 1, what.to_owned());
        let (number, head) = lines.next().ok_or_else(|| wrong(0, "it is empty"))?;
        let ticks = head.strip_prefix(FORMAT).and_then(|rest| rest.trim().parse().ok());
        let ticks = ticks.filter(|ticks| (2..=TICKS_MAX).contains(ticks));
        let ticks = ticks.ok_or_else(|| wrong(number, "it does not begin with the format and a number of ticks"))?;
        let mut rows = Vec::new();
        for (number, line) in lines {
            let row = Row::parse(line, ticks).map_err(|what| wrong(number, &what))?;
            rows.push(row);
        }
        Ok(Self { ticks, rows })
    }

    fn render(&self) -> String {
        let mut text = format!("{FORMAT} {}\n", self.ticks);
        for row in &self.rows {
            row.render(&mut text);
        }
        text
    }
}

impl Row {
    fn at(&self, tick: u64) -> Option<i64> {
        let len = self.values.len() as u64;
        let place = |n: u64| usize::try_from(n).unwrap_or(0);
        let (round, within) = (tick / len, place(tick % len));
        if self.metric.kind == Kind::Gauge {
            let back = round % 2 == 1;
            return self.values[if back { self.values.len() - 1 - within } else { within }];
        }
        let (first, last) =
            (self.values.iter().flatten().next().copied()?, self.values.iter().flatten().last().copied()?);
        // What one tick adds on average is added between the end and the beginning too.
        let growth = (last - first).max(0);
        let growth = growth + growth / len.saturating_sub(1).max(1).cast_signed();
        self.values[within].map(|steps| steps + growth * round.cast_signed())
    }

    fn parse(line: &str, ticks: usize) -> Result<Self, String> {
        let mut words = line.split(' ');
        let mut word = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
        let subject = Subject::parse(word("the subject")?).ok_or("no subject stands at its beginning")?;
        let metric = word("the metric")?;
        let metric = by_name(metric).ok_or_else(|| format!("{metric:?} is not in the catalogue"))?;
        let step = word("the precision")?;
        if step != written(metric.step) {
            return Err(format!("{} has the precision {}, not {step}", metric.name, written(metric.step)));
        }
        let (mut values, mut last) = (Vec::with_capacity(ticks), 0_i64);
        for word in words {
            let (value, times) = word.split_once('x').unwrap_or((word, "1"));
            let times: usize = times.parse().map_err(|_| format!("{word:?} is no value"))?;
            if values.len() + times > ticks {
                return Err(format!("it has more than {ticks} values"));
            }
            let step =
                if value == "-" { None } else { Some(value.parse().map_err(|_| format!("{word:?} is no value"))?) };
            for _ in 0..times {
                values.push(step.map(|step: i64| {
                    last = last.saturating_add(step);
                    last
                }));
            }
        }
        if values.len() != ticks {
            return Err(format!("it has {} values, not {ticks}", values.len()));
        }
        Ok(Self { subject, metric, values })
    }

    fn render(&self, text: &mut String) {
        text.push_str(&format!("{} {} {}", self.subject, self.metric.name, written(self.metric.step)));
        let mut last = 0;
        let words = self.values.iter().map(|value| match value {
            None => "-".to_owned(),
            Some(value) => (*value - std::mem::replace(&mut last, *value)).to_string(),
        });
        let words: Vec<String> = words.collect();
        for run in words.chunk_by(|a, b| a == b) {
            let times = if run.len() > 1 { format!("x{}", run.len()) } else { String::new() };
            // Writing to a string cannot fail.
            write!(text, " {}{times}", run[0]).ok();
        }
        text.push('\n');
    }
}

fn written(step: Step) -> String {
    match step {
        Step::Each(units) => units.to_string(),
        Step::Per(parts) => format!("1/{parts}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a note\ndunlin-recording-1 4\nhost host_load1 1/100 5 1 -2 0\nnet:eth0 net_received_bytes 1 100 10x3\nprocess:a process_count 1 - 2 0 -\n";

    #[test]
    fn a_recording_is_read_as_it_was_written() {
        let recording = Recording::parse(TEXT).expect("it is valid");
        assert_eq!((recording.series(), recording.ticks()), (3, 4));
        assert_eq!(Recording::parse(&recording.render()), Ok(recording.clone()));
        let samples: Vec<_> = (0..4).map(|tick| recording.sample(tick, MonoMs(0), WallMs(0))).collect();
        assert_eq!(Recording::from_samples(&samples), recording);
    }

    #[test]
    fn beyond_the_end_counters_go_on_and_gauges_walk_back() {
        let recording = Recording::parse(TEXT).expect("it is valid");
        let of = |row: usize| (0..9).map(|tick| recording.rows[row].at(tick)).collect::<Vec<_>>();
        let some = |values: [i64; 9]| values.map(Some).to_vec();
        assert_eq!(of(0), some([5, 6, 4, 4, 4, 4, 6, 5, 5]));
        assert_eq!(of(1), some([100, 110, 120, 130, 140, 150, 160, 170, 180]));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("dunlin-recording-1 1\n", 1),
            ("dunlin-recording-1 2\nhost host_load1 1/10 1 1\n", 2),
            ("dunlin-recording-1 2\nhost host_load1 1/100 1\n", 2),
            ("dunlin-recording-1 2\nhost host_load1 1/100 1x99999999999\n", 2),
            ("dunlin-recording-1 2\nhost no_such 1/100 1 1\n", 2),
        ] {
            assert_eq!(Recording::parse(text).expect_err(text).0, line, "{text}");
        }
    }
}
