//! Cells on their way to files: collected by measure, and written in sheets of a bounded size.

use std::collections::HashMap;

use dunlin_shared::metric::{Kind, MetricId, OpenMetric, Step, Unit};
use dunlin_shared::time::WallMs;
use serde::{Deserialize, Serialize};

use crate::block::Measure;
use crate::record::Pos;
use crate::rollup::{Row, Scale, encode};
use crate::store::{Builder, Level, SealedName, Sheet, StoreError};

/// Cells of a sheet. So much is decoded to read one row of it, and held of each file of a merge.
pub(super) const SHEET_CELLS_MAX: usize = 4_096;
/// The first number of what no catalogue has.
const OWN_FIRST: u32 = 1 << 15;

/// Rows by what they measure, in the order of nodes.
#[derive(Debug, Default)]
pub(super) struct Columns(HashMap<Measure, Vec<Row>>);

/// Writes the sheets of one file.
#[derive(Debug)]
pub(super) struct SheetWriter {
    builder: Builder,
    slot_ms: i64,
    /// Numbers of what the file declares itself.
    own: HashMap<OpenMetric, u32>,
    parts: HashMap<u32, u32>,
}

/// How a file declares a measure that no catalogue has.
#[derive(Serialize, Deserialize)]
struct Declared {
    name: String,
    unit: Unit,
    kind: Kind,
    step: Step,
}

impl Columns {
    pub(super) fn into_iter(self) -> impl Iterator<Item = (Measure, Vec<Row>)> {
        self.0.into_iter()
    }

    pub(super) fn add(&mut self, measure: Measure, row: Row) {
        self.0.entry(measure).or_default().push(row);
    }
}

impl SheetWriter {
    pub(super) fn new(builder: Builder, level: Level) -> Self {
        let slot_ms = level.slot_ms().unwrap_or(1);
        Self { builder, slot_ms, own: HashMap::new(), parts: HashMap::new() }
    }

    /// Rows of nodes that are all behind those that were put before.
    pub(super) fn put(&mut self, columns: Columns) -> Result<(), StoreError> {
        let mut columns: Vec<_> = columns.0.into_iter().collect();
        columns.sort_unstable_by(|(a, _), (b, _)| order(a).cmp(&order(b)));
        for (measure, mut rows) in columns {
            rows.sort_unstable_by(|a, b| (a.node, &a.subject).cmp(&(b.node, &b.subject)));
            self.put_rows(&measure, &rows)?;
        }
        Ok(())
    }

    /// Rows of one measure, in the order of nodes and subjects.
    pub(super) fn put_rows(&mut self, measure: &Measure, mut rows: &[Row]) -> Result<(), StoreError> {
        let Some(about) = measure.about() else { return Ok(()) };
        let scale = Scale::of(&about);
        while !rows.is_empty() {
            let mut cells = 0;
            let fits = |row: &&Row| {
                cells += row.cells.len();
                cells <= SHEET_CELLS_MAX
            };
            let len = rows.iter().take_while(fits).count().max(1);
            let (sheet, rest) = rows.split_at(len);
            rows = rest;
            self.put_sheet(measure, sheet, scale)?;
        }
        Ok(())
    }

    /// All of it is written, but for its name.
    pub(super) fn into_builder(self) -> Builder {
        self.builder
    }

    pub(super) fn publish(self, first: Pos, last: Pos, now: WallMs) -> Result<SealedName, StoreError> {
        self.builder.publish(first, last, now)
    }

    fn put_sheet(&mut self, measure: &Measure, rows: &[Row], scale: Scale) -> Result<(), StoreError> {
        let ([first, ..], [.., last]) = (rows, rows) else { return Ok(()) };
        let slots = || rows.iter().flat_map(|row| row.cells.iter().map(|(slot, _)| *slot));
        let (Some(begins), Some(ends)) = (slots().min(), slots().max()) else { return Ok(()) };
        let number = self.number(measure)?;
        let part = self.parts.entry(number).or_insert(0);
        let sheet = Sheet {
            measure: number,
            part: *part,
            first: first.node,
            last: last.node,
            begins: WallMs(begins.saturating_mul(self.slot_ms)),
            ends: WallMs(ends.saturating_add(1).saturating_mul(self.slot_ms)),
            body: encode(rows, scale),
        };
        *part += 1;
        self.builder.put_sheet(&sheet)
    }

    fn number(&mut self, measure: &Measure) -> Result<u32, StoreError> {
        let own = match measure {
            Measure::Catalogued(id) => return Ok(u32::from(id.0)),
            Measure::Open(own) => own,
        };
        if let Some(number) = self.own.get(own) {
            return Ok(*number);
        }
        let number = OWN_FIRST.saturating_add(u32::try_from(self.own.len()).unwrap_or(u32::MAX));
        let declared = Declared { name: own.name().to_owned(), unit: own.unit, kind: own.kind, step: own.step };
        let what = postcard::to_stdvec(&declared).unwrap_or_default();
        self.builder.declare(number, &what)?;
        self.own.insert(own.clone(), number);
        Ok(number)
    }
}

/// What a number of a file measures, by what the file declares.
pub(super) fn measure_of(number: u32, declared: &[(u32, Vec<u8>)]) -> Option<Measure> {
    if number < OWN_FIRST {
        return Some(Measure::Catalogued(MetricId(u16::try_from(number).ok()?)));
    }
    let at = declared.binary_search_by_key(&number, |(known, _)| *known).ok()?;
    let what = &declared[at].1;
    let (Declared { name, unit, kind, step }, []) = postcard::take_from_bytes(what).ok()? else { return None };
    OpenMetric::new(&name, unit, kind, step).ok().map(Measure::Open)
}

/// The catalogue's first, then by name.
pub(super) fn order(measure: &Measure) -> (u16, &str) {
    match measure {
        Measure::Catalogued(id) => (id.0, ""),
        Measure::Open(own) => (u16::MAX, own.name()),
    }
}
