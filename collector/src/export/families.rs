//! An export as families: metric after metric, of each node after node, and each series from its beginning to its end.
//!
//! A series has to stand together, so a metric of a node is read over the whole time before the next one: of as many
//! subjects at once as can be held, and where one alone is too much, it is written while it is read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use dunlin_shared::metric::{Kind, by_name};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use super::read::{Pieces, Series, Value, latest, names_of_cells};
use super::{Asked, CHUNK_BYTES, Node, openmetrics};
use crate::block::Measure;
use crate::rollup::Cell;
use crate::store::Level;
use crate::window::{ReadError, Window};

/// Points of series that are held until they can be written one after the other, 56 bytes each.
const HELD_MAX: usize = 100_000;

/// What of a cell is a family of its own, and its name.
type Statistic = (&'static str, fn(&Cell) -> f64);

const STATISTICS: [Statistic; 5] = [
    ("_min", |cell| cell.min),
    ("_max", |cell| cell.max),
    ("_mean", |cell| cell.mean),
    ("_last", |cell| cell.last),
    ("_count", |cell| cell.count as f64),
];
/// Samples have one family.
const SAMPLE: [Statistic; 1] = [("", |cell| cell.last)];

#[derive(Debug)]
pub(super) struct Families {
    /// Nodes whose metrics are not known yet, from this one on.
    unknown: usize,
    /// What is still to come: names, each with the nodes that have it.
    names: BTreeMap<String, Vec<usize>>,
    under_way: Option<Family>,
    held: VecDeque<Written>,
    end: Option<&'static [u8]>,
}

#[derive(Debug)]
struct Family {
    name: String,
    nodes: Vec<usize>,
    statistics: &'static [Statistic],
    /// Which statistic, of which of the nodes.
    at: (usize, usize),
    /// How its samples are written, once there was one: its full name and its kind.
    told: Option<(String, Kind)>,
    /// Subjects of the node at hand that wait, in groups that can be held.
    groups: Option<VecDeque<Vec<Subject>>>,
    group: Option<Group>,
}

/// Subjects that are read at once.
#[derive(Debug)]
struct Group {
    subjects: Vec<Subject>,
    pieces: Pieces,
    read: BTreeMap<Subject, Vec<(WallMs, Value)>>,
}

/// Text to come: heads of families, and points behind the beginning of their lines.
#[derive(Debug)]
enum Written {
    Head(Vec<u8>),
    Points { series: String, statistic: Statistic, points: Vec<(WallMs, Value)>, from: usize },
}

impl Families {
    pub(super) fn new(asked: &Asked) -> Self {
        let mut names = BTreeMap::new();
        let mut unknown = 0;
        if asked.level != Level::Full {
            names_of_cells(asked).into_iter().for_each(|name| {
                names.insert(name, (0..asked.nodes.len()).collect());
            });
            unknown = asked.nodes.len();
        }
        Self { unknown, names, under_way: None, held: VecDeque::new(), end: Some(openmetrics::END) }
    }

    pub(super) fn read(&mut self, window: &Window, asked: &Asked) -> Result<bool, ReadError> {
        if let Some(node) = asked.nodes.get(self.unknown) {
            self.learn(window, asked, node)?;
            self.unknown += 1;
            return Ok(true);
        }
        if self.under_way.is_none() {
            let Some((name, nodes)) = self.names.pop_first() else {
                self.held.extend(self.end.take().map(|end| Written::Head(end.to_vec())));
                return Ok(!self.held.is_empty());
            };
            let statistics: &[Statistic] = if asked.level == Level::Full { &SAMPLE } else { &STATISTICS };
            self.under_way =
                Some(Family { name, nodes, statistics, at: (0, 0), told: None, groups: None, group: None });
        }
        if let Some(family) = &mut self.under_way
            && !family.read(window, asked, &mut self.held)?
        {
            self.under_way = None;
        }
        Ok(true)
    }

    /// Which metrics a node has samples of.
    fn learn(&mut self, window: &Window, asked: &Asked, node: &Node) -> Result<(), ReadError> {
        let found = Mutex::new(BTreeSet::new());
        let note = |subject: &Subject, measure: &Measure| {
            let about = measure.about().filter(|about| asked.wants_subject(subject) && asked.wants_metric(about.name));
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(about) = about.filter(|about| !found.contains(about.name)) {
                found.insert(about.name.to_owned());
            }
        };
        Pieces::of(asked).learn_samples(window, node, &note)?;
        for name in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            self.names.entry(name).or_default().push(self.unknown);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        while out.len() < CHUNK_BYTES
            && let Some(first) = self.held.front_mut()
        {
            if first.write(out) {
                self.held.pop_front();
            }
        }
    }
}

impl Family {
    /// One piece further. Whether there is more of it.
    fn read(&mut self, window: &Window, asked: &Asked, held: &mut VecDeque<Written>) -> Result<bool, ReadError> {
        let (statistic, place) = self.at;
        let Some(&suffix) = self.statistics.get(statistic) else { return Ok(false) };
        let Some(node) = self.nodes.get(place).map(|&at| &asked.nodes[at]) else {
            (self.at, self.told) = ((statistic + 1, 0), None);
            return Ok(true);
        };
        if self.groups.is_none() {
            self.groups = Some(self.grouped(window, asked, node)?);
            return Ok(true);
        }
        if self.group.is_none() {
            let Some(subjects) = self.groups.as_mut().and_then(VecDeque::pop_front) else {
                (self.at, self.groups) = ((statistic, place + 1), None);
                return Ok(true);
            };
            self.group = Some(Group { subjects, pieces: Pieces::of(asked).long(), read: BTreeMap::new() });
        }
        let Some(mut group) = self.group.take() else { return Ok(true) };
        let wanted = |subject: &Subject, measure: &Measure| {
            group.subjects.contains(subject) && measure.about().is_some_and(|about| about.name == self.name)
        };
        let found = group.pieces.read(window, asked, node, (std::slice::from_ref(&self.name), &wanted))?;
        let is_behind = found.is_none();
        for series in found.into_iter().flatten() {
            self.tell(&series, suffix.0, held);
            group.read.entry(series.subject).or_default().extend(series.points);
        }
        if is_behind || group.subjects.len() == 1 {
            self.hold(node, std::mem::take(&mut group.read), suffix, held);
        }
        if !is_behind {
            self.group = Some(group);
        }
        Ok(true)
    }

    /// The node's subjects, so many at a time as can be held.
    fn grouped(&self, window: &Window, asked: &Asked, node: &Node) -> Result<VecDeque<Vec<Subject>>, ReadError> {
        let found = Mutex::new(BTreeSet::new());
        let note = |subject: &Subject| {
            if asked.wants_subject(subject) {
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.clone());
            }
        };
        let of_name = |subject: &Subject, measure: &Measure| {
            if measure.about().is_some_and(|about| about.name == self.name) {
                note(subject);
            }
        };
        let pieces = Pieces::of(asked);
        let points = if asked.level == Level::Full {
            pieces.learn_samples(window, node, &of_name)?
        } else {
            pieces.learn_cells(window, (asked, node), &self.name, &note)?
        };
        let subjects: Vec<Subject> = found.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect();
        let at_once = (HELD_MAX / points.max(1)).max(1);
        Ok(subjects.chunks(at_once).map(<[Subject]>::to_vec).collect())
    }

    /// Puts the head of the family before its first sample.
    fn tell(&mut self, series: &Series, suffix: &str, held: &mut VecDeque<Written>) {
        let Some(about) = series.measure.about().filter(|_| self.told.is_none()) else { return };
        let is_sample = suffix.is_empty();
        let kind = if is_sample && !series.is_rate { about.kind } else { Kind::Gauge };
        let rate = if is_sample && series.is_rate { openmetrics::RATE } else { suffix };
        let name = format!("{}{rate}", self.name);
        let mut head = Vec::new();
        let help = by_name(&self.name).map_or("", |metric| metric.help);
        let what = match (is_sample, series.is_rate) {
            (false, _) => openmetrics::ROLL_UP_HELP,
            (true, true) => openmetrics::RATE_HELP,
            (true, false) => "",
        };
        openmetrics::put_head(&mut head, &name, kind, about.unit, &format!("{what}{help}"));
        held.push_back(Written::Head(head));
        self.told = Some((name, kind));
    }

    fn hold(
        &self,
        node: &Node,
        read: BTreeMap<Subject, Vec<(WallMs, Value)>>,
        statistic: Statistic,
        held: &mut VecDeque<Written>,
    ) {
        let Some((name, kind)) = &self.told else { return };
        for (subject, mut points) in read {
            // Where a node declared one name in two ways, they are one series.
            points.sort_by_key(|(at, _)| *at);
            let points = latest(points);
            let series = openmetrics::series(name, *kind, &node.id.to_string(), &node.name, &subject.to_string());
            held.push_back(Written::Points { series, statistic, points, from: 0 });
        }
    }
}

impl Written {
    /// Whether all of it is written.
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Head(head) => {
                out.append(head);
                true
            }
            Self::Points { series, statistic, points, from } => {
                while let Some((at, value)) = points.get(*from).filter(|_| out.len() < CHUNK_BYTES) {
                    let value = match value {
                        Value::Sample(value) => *value,
                        Value::Cell(cell) => statistic.1(cell),
                    };
                    openmetrics::put_sample(out, series, *at, value);
                    *from += 1;
                }
                *from == points.len()
            }
        }
    }
}
