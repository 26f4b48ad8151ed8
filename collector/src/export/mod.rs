//! Samples and roll-ups as text for other programs: CSV and OpenMetrics, of any length in little memory.
//!
//! Pure but for what it is given to read from. An export is read piece by piece, each a short turn, and what was read is
//! written chunk by chunk; between two of them it is a value that waits. `csv` and `openmetrics` know how things are
//! written, `rows` and `families` in which order.

pub mod csv;
mod families;
pub mod openmetrics;
mod read;
mod rows;

use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::sample::Subject;
use dunlin_shared::time::WallMs;

use self::families::Families;
use self::rows::Rows;
use crate::record::NodeKey;
use crate::store::Level;
use crate::window::{ReadError, Window};

/// One chunk of text: a few TCP segments, and little enough to be made between two others' turns.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// How long a sample of a journal is on its way at most, unless it was spooled.
const EARLIER_MS: i64 = 10 * 60_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Csv,
    OpenMetrics,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub format: Format,
    pub level: Level,
    /// Counters as what they grew by in a second; of roll-ups always so.
    pub rates: bool,
    /// By name; empty for all.
    pub metrics: Vec<String>,
    /// Names outside of the catalogue that nodes are known to have: roll-ups are read by name.
    pub own: Vec<String>,
    /// Empty for all.
    pub subjects: Vec<Subject>,
    /// `None` for all that there is.
    pub from: Option<WallMs>,
    pub to: WallMs,
    pub nodes: Vec<Node>,
}

/// A node whose series are wanted.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: NodeId,
    pub key: NodeKey,
    pub name: Arc<str>,
    pub interval_ms: u32,
    pub skew_ms: i64,
}

/// An export under way.
#[derive(Debug, Default)]
pub struct Export {
    asked: Asked,
    way: Way,
}

#[derive(Debug, Default)]
enum Way {
    #[default]
    Begins,
    Rows(Rows),
    Families(Families),
}

impl Export {
    #[must_use]
    pub const fn new(asked: Asked) -> Self {
        Self { asked, way: Way::Begins }
    }

    /// Reads the next piece, when what was read before is written. Whether there may be more: it may read nothing, and
    /// there is more all the same.
    pub fn read(&mut self, window: &Window) -> Result<bool, ReadError> {
        match &mut self.way {
            Way::Begins => self.begin(window).map(|()| true),
            Way::Rows(rows) => rows.read(window, &self.asked),
            Way::Families(families) => families.read(window, &self.asked),
        }
    }

    /// Writes some of what was read; empty when all of it is written.
    pub fn chunk(&mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CHUNK_BYTES + 4_096);
        match &mut self.way {
            Way::Begins => {}
            Way::Rows(rows) => rows.write(&mut out),
            Way::Families(families) => families.write(&mut out),
        }
        out
    }

    fn begin(&mut self, window: &Window) -> Result<(), ReadError> {
        let asked = &mut self.asked;
        if asked.from.is_none() {
            let begins = window.begins(asked.level)?;
            // A journal's first samples were taken a little before it began.
            asked.from = Some(begins.map_or(asked.to, |begins| begins.plus(-EARLIER_MS)));
        }
        if asked.level != Level::Full && asked.metrics.is_empty() {
            asked.own.extend(window.own_names(asked.level)?);
            asked.own.sort_unstable();
            asked.own.dedup();
        }
        self.way = match asked.format {
            Format::Csv => Way::Rows(Rows::new(asked)),
            Format::OpenMetrics => Way::Families(Families::new(asked)),
        };
        Ok(())
    }
}

impl Asked {
    /// Where it begins, which is known once it has begun.
    fn since(&self) -> WallMs {
        self.from.unwrap_or(self.to)
    }

    fn wants_subject(&self, subject: &Subject) -> bool {
        self.subjects.is_empty() || self.subjects.contains(subject)
    }

    fn wants_metric(&self, name: &str) -> bool {
        self.metrics.is_empty() || self.metrics.iter().any(|wanted| wanted == name)
    }
}
