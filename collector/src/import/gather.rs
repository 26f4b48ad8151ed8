//! Samples in the order of their nodes and times, to the stretches of each node.
//!
//! Held is what one node has within an hour. A time that a node has samples of already is refused, so an import that is
//! repeated by mistake doubles nothing.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::sample::ABSENT;
use dunlin_shared::time::{MonoMs, WallMs};

use super::Imported;
use super::error::ImportError;
use super::judge::{Judge, Sample, Target};
use super::lines::Lines;
use crate::block::{COLUMNS_MAX, Column, Measure, Row, Stretch};
use crate::client::table::plain;
use crate::points::interval_ms;
use crate::record::Pos;
use crate::registry::Member;
use crate::shape::Moment;
use crate::store::NewNode;
use crate::stretch::Taken;
use crate::window::{Asked, Intake, Window};

/// Stretches end where hours do.
const HOUR_MS: i64 = 3_600_000;
/// Values of a stretch, 8 bytes each: a common node has a hundred thousand in an hour.
const VALUES_MAX: usize = 1_000_000;
/// No agent's run has this number: they count from 1 on.
const EPOCH: Epoch = Epoch(0);

#[derive(Debug)]
pub(super) struct Gather {
    pub(super) judge: Judge,
    window: Window,
    intake: Intake,
    now: WallMs,
    held: Held,
    /// Nodes of the file at hand that are done.
    done: HashSet<u32>,
    /// Of each node, the last time and how many rows, in all files.
    last: HashMap<u32, (WallMs, u64)>,
    samples: u64,
    span: Option<(WallMs, WallMs)>,
}

/// What is held of one node.
#[derive(Debug, Default)]
struct Held {
    node: Option<u32>,
    rows: Vec<Row>,
    columns: Vec<(u32, Vec<i64>)>,
    places: HashMap<u32, usize>,
    /// Of the last row.
    line: Option<u64>,
}

/// What is wrong, and in which line where one can be told.
#[derive(Debug)]
pub(super) enum Fault {
    Told(Option<u64>, String),
    Failed(ImportError),
}

impl Fault {
    pub(super) fn at(self, lines: &Lines) -> ImportError {
        let file = || lines.file().to_path_buf();
        match self {
            Self::Told(Some(line), what) => ImportError::At { file: file(), line, what: plain(&what) },
            Self::Told(None, what) => ImportError::In { file: file(), what: plain(&what) },
            Self::Failed(error) => error,
        }
    }
}

impl<E: Into<ImportError>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Gather {
    /// Files are made in `staging`, from position `first` on.
    pub(super) fn new(judge: Judge, (window, staging): (&Path, &Path), (first, now): (Pos, WallMs)) -> Self {
        Self {
            judge,
            window: Window::new(PathBuf::from(window), Arc::default()),
            intake: Intake::new(staging, first, now),
            now,
            held: Held::default(),
            done: HashSet::new(),
            last: HashMap::new(),
            samples: 0,
            span: None,
        }
    }

    pub(super) fn add(&mut self, sample: Sample, line: Option<u64>) -> Result<(), Fault> {
        if self.held.node != Some(sample.node) {
            self.begin_node(sample, line)?;
        }
        let last = self.held.rows.last().map(|row| row.time).or(self.last.get(&sample.node).map(|(at, _)| *at));
        match last {
            Some(last) if sample.at < last => {
                let (at, last) = (Moment(sample.at), Moment(last));
                let what = format!("{at} is before {last}, which came before it; of each node times have to ascend");
                return Err(Fault::Told(line, what));
            }
            Some(last) if sample.at == last && !self.held.rows.is_empty() => {}
            _ => self.begin_row(sample.at)?,
        }
        self.held.line = line;
        let is_new = self.held.put(sample.series, sample.steps);
        if !is_new {
            let (subject, measure) = &self.judge.series[sample.series as usize];
            let name = measure.about().map_or("", |about| about.name);
            let what = format!("{name} of {subject} has two values at {}; one is allowed", Moment(sample.at));
            return Err(Fault::Told(line, what));
        }
        self.samples += 1;
        let (from, to) = self.span.unwrap_or((sample.at, sample.at));
        self.span = Some((from.min(sample.at), to.max(sample.at)));
        Ok(())
    }

    pub(super) fn end_file(&mut self, lines: &Lines) -> Result<(), ImportError> {
        self.flush().map_err(|fault| fault.at(lines))?;
        self.held.node = None;
        self.done.clear();
        Ok(())
    }

    /// What was imported, and the nodes that have to be added for it.
    pub(super) fn finish(self, first: Pos) -> Result<(Imported, Vec<NewNode>), ImportError> {
        self.intake.finish(first)?;
        let (from, to) = self.span.unwrap_or_default();
        let new: Vec<NewNode> =
            self.judge.targets.iter().filter(|target| target.is_new).map(|one| added(one, self.now)).collect();
        let nodes = self.judge.targets.len();
        Ok((Imported { samples: self.samples, nodes, new_nodes: new.len(), from, to }, new))
    }

    fn begin_node(&mut self, sample: Sample, line: Option<u64>) -> Result<(), Fault> {
        self.flush()?;
        if let Some(node) = self.held.node {
            self.done.insert(node);
        }
        self.held.node = Some(sample.node);
        let name = &self.judge.targets[sample.node as usize].name;
        if self.done.contains(&sample.node) {
            let what = format!("{name} comes again behind another node; the lines of a node have to stand together");
            return Err(Fault::Told(line, what));
        }
        if let Some((last, _)) = self.last.get(&sample.node).filter(|(last, _)| *last >= sample.at) {
            let what = format!(
                "{name} has samples up to {} in a file before this one; files have to follow each other in time",
                Moment(*last)
            );
            return Err(Fault::Told(line, what));
        }
        Ok(())
    }

    fn begin_row(&mut self, at: WallMs) -> Result<(), Fault> {
        let first = self.held.rows.first().map(|row| row.time.0.div_euclid(HOUR_MS));
        let values = (self.held.rows.len() + 1).saturating_mul(self.held.columns.len());
        if first.is_some_and(|hour| hour != at.0.div_euclid(HOUR_MS)) || values > VALUES_MAX {
            self.flush()?;
        }
        let node = self.held.node.unwrap_or_default();
        let (last, count) = self.last.entry(node).or_insert((at, 0));
        *last = at;
        *count += 1;
        // The agent's own clock is not told: times between samples are those of ours.
        let mono = MonoMs(at.0.unsigned_abs());
        self.held.rows.push(Row { time: at, epoch: EPOCH, seq: Seq(*count), mono });
        Ok(())
    }

    /// What is held becomes a stretch.
    fn flush(&mut self) -> Result<(), Fault> {
        let Some(node) = self.held.node.filter(|_| !self.held.rows.is_empty()) else { return Ok(()) };
        let line = self.held.line;
        let stretch = self.held.stretch(&self.judge);
        if stretch.columns.len() > COLUMNS_MAX {
            let what = format!("a node has more than {COLUMNS_MAX} series within an hour; no agent has");
            return Err(Fault::Told(line, what));
        }
        self.refuse_known(node, &stretch, line)?;
        let target = &mut self.judge.targets[node as usize];
        target.interval_ms = target.interval_ms.or_else(|| interval_ms(&stretch.rows));
        self.intake.put((target.key, target.id), stretch)?;
        Ok(())
    }

    fn refuse_known(&self, node: u32, stretch: &Stretch, line: Option<u64>) -> Result<(), Fault> {
        let target = &self.judge.targets[node as usize];
        let Some((from, to)) = stretch.span().filter(|_| !target.is_new) else { return Ok(()) };
        let nothing = |_: &_, _: &Measure| false;
        let taken = Taken { wanted: &nothing, skew_ms: 0, values_max: VALUES_MAX };
        let known = self.window.stretches(&Asked { node: target.key, from, to, taken, frames_max: usize::MAX })?;
        let rows = known.iter().flat_map(|stretch| &stretch.rows);
        let Some(first) = rows.map(|row| row.time).filter(|at| (from..=to).contains(at)).min() else { return Ok(()) };
        let what = format!(
            "{} ({}) has samples of this time already, at {} for example; was it imported before? Nothing was imported now",
            target.name,
            target.id,
            Moment(first)
        );
        Err(Fault::Told(line, what))
    }
}

impl Held {
    /// Whether there was no value yet.
    fn put(&mut self, series: u32, steps: i64) -> bool {
        let row = self.rows.len() - 1;
        let at = *self.places.entry(series).or_insert_with(|| {
            self.columns.push((series, Vec::new()));
            self.columns.len() - 1
        });
        let values = &mut self.columns[at].1;
        let is_new = values.len() <= row;
        values.resize(row, ABSENT);
        values.push(steps);
        is_new
    }

    fn stretch(&mut self, judge: &Judge) -> Stretch {
        let (rows, len) = (std::mem::take(&mut self.rows), self.places.len());
        let mut columns: Vec<Column> = Vec::with_capacity(len);
        self.places.clear();
        for (series, mut values) in self.columns.drain(..) {
            values.resize(rows.len(), ABSENT);
            let (subject, measure) = judge.series[series as usize].clone();
            columns.push(Column { subject, measure, values });
        }
        // As agents lay them out: by subject.
        columns.sort_by(|a, b| (&a.subject, name(&a.measure)).cmp(&(&b.subject, name(&b.measure))));
        Stretch { rows, columns }
    }
}

fn name(measure: &Measure) -> (u16, &str) {
    match measure {
        Measure::Catalogued(id) => (id.0, ""),
        Measure::Open(own) => (u16::MAX, own.name()),
    }
}

fn added(target: &Target, now: WallMs) -> NewNode {
    let Target { id, key, name, interval_ms, .. } = target.clone();
    let member = Member::without_agent(name.clone(), now);
    NewNode { key, id, name, interval_ms, member }
}
