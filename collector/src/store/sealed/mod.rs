//! Sealed files: what the journal held, in its lasting form. Immutable once they have their names.
//!
//! ```text
//! meta     one row: format, level, slot, positions, the earliest time, when it was made
//! block    level full: id = node << 16 | part; a node's stretch, encoded; `apart` tells frames without readings
//! sheet    levels mid and long: id = measure << 32 | part; cells of one measure of some nodes, encoded
//! measure  what a number from 32,768 on among the sheets measures
//! ```
//!
//! SQLite does not notice a flipped bit inside a value: every row has a sum over what it holds. Pages are small, since
//! the last page of each row is half empty.

mod build;
mod name;
mod read;
#[cfg(test)]
mod tests;

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;

pub(in crate::store) use self::build::remove;
pub use self::build::{Builder, discard};
pub use self::name::{Level, SealedName, Span};
pub use self::read::{Blocks, Sealed, Sheets};
use super::sum::Sum;
use crate::record::NodeKey;

pub(super) const FORMAT: i64 = 1;
/// "DLNW".
pub(super) const APPLICATION_ID: i64 = 0x444c_4e57;
/// A row of 20 kB wastes half a page: 2 in 100 with pages of 1 KiB, 10 in 100 with SQLite's 4 KiB.
const PAGE_BYTES: u32 = 1_024;

const SCHEMA: &str = "
    CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, level TEXT NOT NULL,
        slot INTEGER NOT NULL, first_pos INTEGER NOT NULL, last_pos INTEGER NOT NULL, begins_s INTEGER NOT NULL,
        made_at INTEGER NOT NULL) STRICT;
    CREATE TABLE block (id INTEGER PRIMARY KEY, node_id BLOB NOT NULL, begins INTEGER NOT NULL, ends INTEGER NOT NULL,
        rows INTEGER NOT NULL, apart BLOB, body BLOB NOT NULL, sum INTEGER NOT NULL) STRICT;
    CREATE TABLE sheet (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,
        begins INTEGER NOT NULL, ends INTEGER NOT NULL, body BLOB NOT NULL, sum INTEGER NOT NULL) STRICT;
    CREATE TABLE measure (id INTEGER PRIMARY KEY, what BLOB NOT NULL) STRICT;";

const META: &str = "INSERT INTO meta (one, format, level, slot, first_pos, last_pos, begins_s, made_at)
    VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// A part of a node's stretch in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub node: NodeKey,
    /// Counts up where one row does not hold all.
    pub part: u16,
    pub node_id: NodeId,
    /// The times of its first and last row.
    pub begins: WallMs,
    pub ends: WallMs,
    pub rows: u32,
    /// Frames of the same time that hold no reading, and gaps.
    pub apart: Option<Vec<u8>>,
    pub body: Vec<u8>,
}

/// Cells of one measure of the nodes from `first` to `last`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// A number of the catalogue, or one that the file declares.
    pub measure: u32,
    pub part: u32,
    pub first: NodeKey,
    pub last: NodeKey,
    /// When its first slot begins and its last one ends.
    pub begins: WallMs,
    pub ends: WallMs,
    pub body: Vec<u8>,
}

impl Block {
    fn sum(&self) -> i32 {
        let mut sum = Sum::new();
        sum.add(self.node_id.bytes());
        let numbers = [block_id(self.node, self.part), self.begins.0, self.ends.0, i64::from(self.rows)];
        numbers.into_iter().for_each(|number| sum.add_number(number));
        sum.add_number(self.apart.as_ref().map_or(-1, |apart| i64::try_from(apart.len()).unwrap_or(i64::MAX)));
        sum.add(self.apart.as_deref().unwrap_or_default());
        sum.add(&self.body);
        sum.value()
    }
}

impl Sheet {
    fn sum(&self) -> i32 {
        let mut sum = Sum::new();
        let (first, last) = (i64::from(self.first.0), i64::from(self.last.0));
        let numbers = [sheet_id(self.measure, self.part), first, last, self.begins.0, self.ends.0];
        numbers.into_iter().for_each(|number| sum.add_number(number));
        sum.add(&self.body);
        sum.value()
    }
}

const fn block_id(node: NodeKey, part: u16) -> i64 {
    ((node.0 as i64) << 16) | part as i64
}

const fn sheet_id(measure: u32, part: u32) -> i64 {
    ((measure as i64) << 32) | part as i64
}
