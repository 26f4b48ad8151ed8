//! Reads sealed files. What is returned was written: a row whose sum is wrong is an error of its own, and those
//! behind it can still be read.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{APPLICATION_ID, Block, FORMAT, SealedName, Sheet, block_id, sheet_id};
use crate::record::NodeKey;
use crate::store::connect;
use crate::store::error::{At, StoreError};

const BLOCK: &str = "id, node_id, begins, ends, rows, apart, body, sum";
const SHEET: &str = "id, first, last, begins, ends, body, sum";
/// No file of ours has so many: ids have 31 bits for it.
const MEASURE_MAX: u32 = (1 << 31) - 1;
/// Rows of a batch: a reader that goes through a whole file holds so many at most.
const BATCH_ROWS: u32 = 64;

/// An open file.
#[derive(Debug)]
pub struct Sealed {
    connection: Connection,
    path: PathBuf,
}

/// All blocks of a file, in the order of nodes.
#[derive(Debug)]
pub struct Blocks<'a>(Walk<'a, Block>);

/// All sheets of a file, in the order of measures and nodes.
#[derive(Debug)]
pub struct Sheets<'a>(Walk<'a, Sheet>);

#[derive(Debug)]
struct Walk<'a, T> {
    file: &'a Sealed,
    sql: String,
    read: fn(&Row<'_>, &Path) -> Read<T>,
    /// Ids below it were read.
    from: i64,
    batch: VecDeque<(i64, Result<T, StoreError>)>,
    ended: bool,
}

/// What a row came to, and its id.
type Read<T> = rusqlite::Result<(i64, Result<T, StoreError>)>;

impl Sealed {
    /// `None` when it is not there any more: a merge or retention took it.
    pub fn open(name: &SealedName) -> Result<Option<Self>, StoreError> {
        let path = name.path.clone();
        let opened = connect::closed_reader(&path).and_then(|connection| {
            check_head(&connection, &path)?;
            Ok(Self { connection, path: path.clone() })
        });
        match opened {
            Err(_) if !path.exists() => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The parts of a node's stretch. Those that are damaged are errors among them.
    pub fn blocks_of(&self, node: NodeKey) -> Result<Vec<Result<Block, StoreError>>, StoreError> {
        let sql = format!("SELECT {BLOCK} FROM block WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
        let mut query = self.connection.prepare_cached(&sql).at(&self.path)?;
        let rows = query.query_map([block_id(node, 0), block_id(node, u16::MAX)], |row| block(row, &self.path));
        rows.at(&self.path)?.map(|row| row.map(|(_, block)| block).at(&self.path)).collect()
    }

    /// Sheets of one measure that hold cells of those nodes.
    pub fn sheets_of(
        &self,
        measure: u32,
        nodes: (NodeKey, NodeKey),
    ) -> Result<Vec<Result<Sheet, StoreError>>, StoreError> {
        let sql =
            format!("SELECT {SHEET} FROM sheet WHERE id BETWEEN ?1 AND ?2 AND first <= ?4 AND last >= ?3 ORDER BY id");
        let mut query = self.connection.prepare_cached(&sql).at(&self.path)?;
        let bounds = (sheet_id(measure, 0), sheet_id(measure, u32::MAX), nodes.0.0, nodes.1.0);
        let rows = query.query_map(bounds, |row| sheet(row, &self.path));
        rows.at(&self.path)?.map(|row| row.map(|(_, sheet)| sheet).at(&self.path)).collect()
    }

    /// The measures that the file declares by itself, by number.
    pub fn declared(&self) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
        let mut query = self.connection.prepare_cached("SELECT id, what FROM measure ORDER BY id").at(&self.path)?;
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.at(&self.path)?.collect::<rusqlite::Result<_>>().at(&self.path)
    }

    #[must_use]
    pub fn blocks(&self) -> Blocks<'_> {
        let sql = format!("SELECT {BLOCK} FROM block WHERE id >= ?1 ORDER BY id LIMIT {BATCH_ROWS}");
        Blocks(self.walk(sql, block, 0))
    }

    /// The numbers of what it has cells of.
    pub fn measures(&self) -> Result<Vec<u32>, StoreError> {
        // Each time the first id behind those of the last number: a walk over all rows would read all of them.
        let sql = "SELECT id >> 32 FROM sheet WHERE id >= (?1 << 32) ORDER BY id LIMIT 1";
        let mut query = self.connection.prepare_cached(sql).at(&self.path)?;
        let (mut measures, mut from) = (Vec::new(), 0);
        while let Some(number) = query.query_row([from], |row| row.get::<_, u32>(0)).optional().at(&self.path)? {
            measures.push(number);
            // Behind the last that there can be a search would begin anew.
            if number >= MEASURE_MAX {
                break;
            }
            from = number.saturating_add(1);
        }
        Ok(measures)
    }

    /// Of one measure.
    #[must_use]
    pub fn sheets_of_measure(&self, measure: u32) -> Sheets<'_> {
        let end = sheet_id(measure.saturating_add(1), 0);
        let sql = format!("SELECT {SHEET} FROM sheet WHERE id >= ?1 AND id < {end} ORDER BY id LIMIT 1");
        Sheets(self.walk(sql, sheet, sheet_id(measure, 0)))
    }

    #[must_use]
    pub fn sheets(&self) -> Sheets<'_> {
        let sql = format!("SELECT {SHEET} FROM sheet WHERE id >= ?1 ORDER BY id LIMIT {BATCH_ROWS}");
        Sheets(self.walk(sql, sheet, 0))
    }

    fn walk<T>(&self, sql: String, read: fn(&Row<'_>, &Path) -> Read<T>, from: i64) -> Walk<'_, T> {
        Walk { file: self, sql, read, from, batch: VecDeque::new(), ended: false }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Iterator for Blocks<'_> {
    type Item = Result<Block, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl Iterator for Sheets<'_> {
    type Item = Result<Sheet, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl<T> Walk<'_, T> {
    fn next(&mut self) -> Option<Result<T, StoreError>> {
        if self.batch.is_empty() && !self.ended {
            if let Err(error) = self.fill() {
                // A page of the table itself is damaged: what stands behind it cannot be found.
                self.ended = true;
                return Some(Err(error));
            }
            self.ended = self.batch.is_empty();
        }
        let (id, found) = self.batch.pop_front()?;
        self.from = id.saturating_add(1);
        Some(found)
    }

    fn fill(&mut self) -> Result<(), StoreError> {
        let path = &self.file.path;
        let mut query = self.file.connection.prepare_cached(&self.sql).at(path)?;
        let rows = query.query_map([self.from], |row| (self.read)(row, path)).at(path)?;
        for row in rows {
            self.batch.push_back(row.at(path)?);
        }
        Ok(())
    }
}

fn check_head(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).at(path)?;
    if application != APPLICATION_ID {
        return Err(StoreError::damaged(path, "it is not a sealed file of this program"));
    }
    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).at(path)?;
    if found == FORMAT {
        return Ok(());
    }
    let written: i64 = connection.query_row("SELECT format FROM meta", [], |row| row.get(0)).at(path)?;
    if found > FORMAT && written == found {
        return Err(StoreError::Newer { path: path.to_path_buf(), found, known: FORMAT });
    }
    Err(StoreError::damaged(path, format!("its format is {found} in the head and {written} in meta")))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the halves of an id that was put together"
)]
fn block(row: &Row<'_>, path: &Path) -> Read<Block> {
    let id: i64 = row.get(0)?;
    let node_id: Vec<u8> = row.get(1)?;
    let block = Block {
        node: NodeKey((id >> 16) as u32),
        part: (id & 0xffff) as u16,
        node_id: NodeId::from_bytes(node_id.try_into().unwrap_or_default()),
        begins: WallMs(row.get(2)?),
        ends: WallMs(row.get(3)?),
        rows: row.get(4)?,
        apart: row.get(5)?,
        body: row.get(6)?,
    };
    let sum: i32 = row.get(7)?;
    Ok((id, if block.sum() == sum { Ok(block) } else { Err(wrong(path, "block", id)) }))
}

#[expect(clippy::cast_sign_loss, reason = "the halves of an id that was put together")]
fn sheet(row: &Row<'_>, path: &Path) -> Read<Sheet> {
    let id: i64 = row.get(0)?;
    let sheet = Sheet {
        measure: (id >> 32) as u32,
        part: (id & 0xffff_ffff) as u32,
        first: NodeKey(row.get(1)?),
        last: NodeKey(row.get(2)?),
        begins: WallMs(row.get(3)?),
        ends: WallMs(row.get(4)?),
        body: row.get(5)?,
    };
    let sum: i32 = row.get(6)?;
    Ok((id, if sheet.sum() == sum { Ok(sheet) } else { Err(wrong(path, "sheet", id)) }))
}

fn wrong(path: &Path, table: &str, id: i64) -> StoreError {
    StoreError::damaged(path, format!("row {id} of {table}: its checksum is wrong"))
}
