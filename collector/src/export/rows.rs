//! An export as rows: node after node, and of each node in the order of time.
//!
//! What is held is one piece of time of one node.

use dunlin_shared::metric::Kind;
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use super::read::{Pieces, Series, Value, names_of_cells};
use super::{Asked, CHUNK_BYTES, Node, csv};
use crate::block::Measure;
use crate::store::Level;
use crate::window::{ReadError, Window};

#[derive(Debug)]
pub(super) struct Rows {
    /// Of roll-ups; samples are asked for by node alone.
    names: Vec<String>,
    node: usize,
    pieces: Pieces,
    head: Option<&'static str>,
    held: Held,
}

/// What was read and is not written yet.
#[derive(Debug, Default)]
struct Held {
    /// The middle of each series' lines.
    middles: Vec<String>,
    /// Moment, series and value, in the order in which they are written; from `written` on.
    points: Vec<(WallMs, usize, Value)>,
    written: usize,
}

impl Rows {
    pub(super) fn new(asked: &Asked) -> Self {
        let is_full = asked.level == Level::Full;
        let names = if is_full { Vec::new() } else { names_of_cells(asked) };
        let head = if is_full { csv::SAMPLES } else { csv::CELLS };
        Self { names, node: 0, pieces: Pieces::of(asked), head: Some(head), held: Held::default() }
    }

    pub(super) fn read(&mut self, window: &Window, asked: &Asked) -> Result<bool, ReadError> {
        let Some(node) = asked.nodes.get(self.node) else { return Ok(false) };
        let wanted = |subject: &Subject, measure: &Measure| {
            asked.wants_subject(subject) && measure.about().is_some_and(|about| asked.wants_metric(about.name))
        };
        match self.pieces.read(window, asked, node, (&self.names, &wanted))? {
            Some(found) => self.held = Held::of(node, found),
            None => {
                self.node += 1;
                self.pieces = Pieces::of(asked);
            }
        }
        Ok(true)
    }

    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        if let Some(head) = self.head.take() {
            csv::put_head(out, head);
        }
        self.held.write(out);
    }
}

impl Held {
    fn of(node: &Node, found: Vec<Series>) -> Self {
        let id = node.id.to_string();
        let mut held = Self::default();
        for Series { subject, measure, is_rate, points } in found {
            let Some(about) = measure.about() else { continue };
            let kind = (!is_rate).then_some(about.kind);
            debug_assert!(kind.is_some() || about.kind == Kind::Counter, "only counters have rates");
            let number = held.middles.len();
            held.middles.push(csv::middle(&id, &node.name, &subject.to_string(), about.name, about.unit, kind));
            held.points.extend(points.into_iter().map(|(at, value)| (at, number, value)));
        }
        held.points.sort_by_key(|(at, number, _)| (*at, *number));
        held
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        while let Some((at, number, value)) = self.points.get(self.written).filter(|_| out.len() < CHUNK_BYTES) {
            let middle = &self.middles[*number];
            match value {
                Value::Sample(value) => csv::put_sample(out, *at, middle, *value),
                Value::Cell(cell) => csv::put_cell(out, *at, middle, cell),
            }
            self.written += 1;
        }
        if self.written == self.points.len() {
            *self = Self::default();
        }
    }
}
