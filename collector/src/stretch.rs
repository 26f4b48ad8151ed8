//! Frames of one node in one file of the journal, as a stretch: columns of values, and a time for each row.
//!
//! Pure. It is decided here, once, when a row was measured by our clock; a sealed stretch keeps that. Whoever reads the
//! journal before it is sealed decides the same from the same records, so sealing changes no answer.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use dunlin_shared::codec::{decode_delta, decode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId};
use dunlin_shared::metric::MetricId;
use dunlin_shared::sample::{ABSENT, Layout, Reading, Series, Subject};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::Lane;
use thiserror::Error;

use crate::block::{COLUMNS_MAX, Column, Measure, Row, Stretch};
use crate::record::{Event, Record};

/// How far a frame may have been in the spool for its own clock to be believed.
const SPOOLED_MS_MAX: i64 = 31 * 86_400_000;

/// Where the monotonic clocks of a node's runs stood against ours: what one stretch tells the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clocks(Vec<(Epoch, i64)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("more than {0} values")]
pub struct TooMany(pub usize);

/// What is taken of the frames.
#[derive(Clone, Copy)]
pub struct Taken<'a> {
    pub wanted: &'a (dyn Fn(&Subject, &Measure) -> bool + Sync),
    /// The agent's wall clock less ours: for frames of a run of which no live frame is known.
    pub skew_ms: i64,
    /// Values that may be held.
    pub values_max: usize,
}

/// When and how a frame came, beside what it says itself.
struct Arrived {
    row: Row,
    wall: WallMs,
    at: WallMs,
    lane: Lane,
}

#[derive(Default)]
struct Decoder {
    live: Option<(FrameId, Reading)>,
    backlog: Option<(FrameId, Reading)>,
}

/// Where the columns of the layout at hand go.
struct Places {
    layout: Arc<Layout>,
    /// From the layout's column to ours.
    taken: Vec<(usize, usize)>,
}

#[derive(Default)]
struct Table {
    rows: Vec<Arrived>,
    columns: Vec<Column>,
    known: HashMap<(Subject, Measure), usize>,
}

impl fmt::Debug for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken").field("values_max", &self.values_max).finish_non_exhaustive()
    }
}

impl Clocks {
    /// As they stood at the end of a stretch.
    #[must_use]
    pub fn after(stretch: &Stretch) -> Self {
        let mut clocks = Self::default();
        for row in &stretch.rows {
            clocks.set(row.epoch, row.time.0.saturating_sub(milliseconds(row)));
        }
        clocks
    }

    fn of(&self, epoch: Epoch) -> Option<i64> {
        self.0.iter().find(|(known, _)| *known == epoch).map(|(_, distance)| *distance)
    }

    fn set(&mut self, epoch: Epoch, distance: i64) {
        match self.0.iter_mut().find(|(known, _)| *known == epoch) {
            Some(known) => known.1 = distance,
            None => self.0.push((epoch, distance)),
        }
    }
}

/// The stretch of a node's frames, which come in the order of the log and from the beginning of a file on. What cannot
/// be decoded is left out. Rows are in the order of their times.
pub fn of<'r>(
    records: impl IntoIterator<Item = &'r Record>,
    taken: Taken<'_>,
    before: &Clocks,
) -> Result<Stretch, TooMany> {
    let (mut decoder, mut table) = (Decoder::default(), Table::default());
    let mut places: Option<Places> = None;
    for record in records {
        let Event::Frame { lane, frame, .. } = &record.event else { continue };
        let Some(reading) = decoder.decode(*lane, frame) else { continue };
        if !places.as_ref().is_some_and(|places| Arc::ptr_eq(&places.layout, &reading.layout)) {
            places = Some(table.place(&reading.layout, taken.wanted));
        }
        let here = places.as_ref().map_or(&[][..], |places| &places.taken);
        table.add(reading, here);
        // Columns are as long as there are rows, whatever is in them.
        if (table.rows.len() + 1).saturating_mul(table.columns.len()) > taken.values_max {
            return Err(TooMany(taken.values_max));
        }
        let FrameId { epoch, seq } = frame.id;
        let row = Row { time: record.at, epoch, seq, mono: reading.mono };
        table.rows.push(Arrived { row, wall: reading.wall, at: record.at, lane: *lane });
    }
    Ok(table.stretch(before, taken.skew_ms))
}

/// What a series of a layout measures; `None` for a catalogue number that this version does not know.
fn measure(layout: &Layout, series: &Series) -> Option<Measure> {
    match series.metric.open_index() {
        Some(index) => layout.open.get(index).cloned().map(Measure::Open),
        None => Some(Measure::Catalogued(MetricId(series.metric.raw()))),
    }
}

fn milliseconds(row: &Row) -> i64 {
    i64::try_from(row.mono.0).unwrap_or(i64::MAX)
}

impl Decoder {
    /// `None` for an inventory, and for a delta whose base is not among the records.
    fn decode(&mut self, lane: Lane, frame: &Frame) -> Option<&Reading> {
        let last = match lane {
            Lane::Live => &mut self.live,
            Lane::Backlog => &mut self.backlog,
        };
        let reading = match frame.kind {
            BodyKind::Inventory => return None,
            BodyKind::Key => decode_key(&frame.body).ok()?,
            BodyKind::Delta { .. } => {
                let (_, base) = last.as_ref().filter(|(id, _)| Some(*id) == frame.base())?;
                decode_delta(base, &frame.body).ok()?
            }
        };
        Some(&last.insert((frame.id, reading)).1)
    }
}

impl Table {
    fn place(&mut self, layout: &Arc<Layout>, wanted: &dyn Fn(&Subject, &Measure) -> bool) -> Places {
        let mut taken = Vec::new();
        for (from, series) in layout.series.iter().enumerate() {
            let Some(subject) = layout.subjects.get(usize::from(series.subject)) else { continue };
            let Some(measure) = measure(layout, series).filter(|measure| wanted(subject, measure)) else { continue };
            let key = (subject.clone(), measure);
            let to = *self.known.entry(key).or_insert_with_key(|(subject, measure)| {
                let (subject, measure) = (subject.clone(), measure.clone());
                self.columns.push(Column { subject, measure, values: Vec::new() });
                self.columns.len() - 1
            });
            taken.push((from, to));
        }
        Places { layout: Arc::clone(layout), taken }
    }

    fn add(&mut self, reading: &Reading, taken: &[(usize, usize)]) {
        let row = self.rows.len();
        for &(from, to) in taken {
            let Some(&steps) = reading.values.get(from).filter(|steps| **steps != ABSENT) else { continue };
            let values = &mut self.columns[to].values;
            // What stands twice in a layout counts once.
            if values.len() <= row {
                values.resize(row, ABSENT);
                values.push(steps);
            }
        }
    }

    fn stretch(self, before: &Clocks, skew_ms: i64) -> Stretch {
        let clocks = clocks(&self.rows, before);
        let timed = |arrived: &Arrived| Row { time: time(arrived, &clocks, skew_ms), ..arrived.row };
        Stretch { rows: self.rows.iter().map(timed).collect(), columns: self.columns }.sorted()
    }
}

/// A live frame is here at once: the one that took the least time gives the distance between the agent's monotonic
/// clock and ours. A run of which only a backlog came keeps what the stretch before says of it.
fn clocks(rows: &[Arrived], before: &Clocks) -> Clocks {
    let mut here = Clocks::default();
    for arrived in rows.iter().filter(|arrived| arrived.lane == Lane::Live) {
        let distance = arrived.at.0.saturating_sub(milliseconds(&arrived.row));
        let least = here.of(arrived.row.epoch).map_or(distance, |known| known.min(distance));
        here.set(arrived.row.epoch, least);
    }
    for &(epoch, distance) in &before.0 {
        if here.of(epoch).is_none() {
            here.set(epoch, distance);
        }
    }
    here
}

/// When a row was measured. Where nothing is known of the run's monotonic clock, the agent's wall clock counts; and
/// what cannot be, such as the future, was measured when it came.
fn time(arrived: &Arrived, clocks: &Clocks, skew_ms: i64) -> WallMs {
    let said = match clocks.of(arrived.row.epoch) {
        Some(distance) => WallMs(milliseconds(&arrived.row).saturating_add(distance)),
        None => arrived.wall.plus(skew_ms.saturating_neg()),
    };
    let ago_ms = arrived.at.since(said);
    if (0..=SPOOLED_MS_MAX).contains(&ago_ms) { said } else { arrived.at }
}

impl Stretch {
    /// The times of its first and its last row.
    #[must_use]
    pub fn span(&self) -> Option<(WallMs, WallMs)> {
        Some((self.rows.first()?.time, self.rows.last()?.time))
    }

    /// Its last rows.
    #[must_use]
    pub fn tail(&self, rows: usize) -> Self {
        self.slice(self.rows.len().saturating_sub(rows), self.rows.len())
    }

    /// As many stretches as it takes for each to have so many rows at most; without the columns that are empty there.
    #[must_use]
    pub fn parts(&self, rows_max: usize) -> Vec<Self> {
        let rows_max = rows_max.max(1);
        (0..self.rows.len()).step_by(rows_max).map(|from| self.slice(from, from + rows_max)).collect()
    }

    /// Stretches of one node as one, in the order of times; as several, where one would have more values than that.
    #[must_use]
    pub fn join(stretches: Vec<Self>, values_max: usize) -> Vec<Self> {
        let mut joined: Vec<Self> = Vec::new();
        let mut group: Vec<Self> = Vec::new();
        let (mut rows, mut columns) = (0, 0);
        for stretch in stretches {
            (rows, columns) = (rows + stretch.rows.len(), columns + stretch.columns.len());
            if !group.is_empty() && (rows.saturating_mul(columns) > values_max || columns > COLUMNS_MAX) {
                joined.push(Self::join_all(std::mem::take(&mut group)));
                (rows, columns) = (stretch.rows.len(), stretch.columns.len());
            }
            group.push(stretch);
        }
        joined.push(Self::join_all(group));
        joined
    }

    fn join_all(stretches: Vec<Self>) -> Self {
        let mut joined = Self::default();
        let mut known: HashMap<(Subject, Measure), usize> = HashMap::new();
        for stretch in stretches {
            let (before, len) = (joined.rows.len(), stretch.rows.len());
            joined.rows.extend(stretch.rows);
            for Column { subject, measure, mut values } in stretch.columns {
                let at = known.get(&(subject.clone(), measure.clone())).copied().unwrap_or_else(|| {
                    known.insert((subject.clone(), measure.clone()), joined.columns.len());
                    joined.columns.push(Column { subject, measure, values: Vec::new() });
                    joined.columns.len() - 1
                });
                let column = &mut joined.columns[at].values;
                column.resize(before, ABSENT);
                values.resize(len, ABSENT);
                column.append(&mut values);
            }
        }
        joined.sorted()
    }

    fn slice(&self, from: usize, to: usize) -> Self {
        let to = to.min(self.rows.len());
        let column = |column: &Column| {
            let values = column.values.get(from..to)?.to_vec();
            let is_empty = values.iter().all(|value| *value == ABSENT);
            (!is_empty).then(|| Column { subject: column.subject.clone(), measure: column.measure.clone(), values })
        };
        Self { rows: self.rows[from..to].to_vec(), columns: self.columns.iter().filter_map(column).collect() }
    }

    fn sorted(mut self) -> Self {
        let order = |row: &Row| (row.time, row.epoch, row.seq);
        let len = self.rows.len();
        self.columns.iter_mut().for_each(|column| column.values.resize(len, ABSENT));
        if self.rows.is_sorted_by_key(order) {
            return self;
        }
        let mut places: Vec<usize> = (0..len).collect();
        places.sort_by_key(|&place| order(&self.rows[place]));
        for column in &mut self.columns {
            column.values = places.iter().map(|&place| column.values[place]).collect();
        }
        self.rows.sort_by_key(order);
        self
    }
}
