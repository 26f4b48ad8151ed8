//! The collector's files: the log of what was received, and `control.db` with what follows from it.
//!
//! Only this module names SQLite. It is synchronous, reads no clock and logs nothing: times come in
//! as arguments, and what happened goes back to the caller. Nothing counts as stored before a commit
//! has returned, and no decision depends on a transaction across two files.

mod check;
mod connect;
mod control;
mod error;
mod journal;
mod lock;
mod log;
mod migrate;
mod quarantine;
mod reader;
mod revoked;
mod row;
mod sum;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod wal;

pub use check::{Checked, check};
pub use control::{
    Control, ControlBatch, ControlOpened, ControlReader, EventRow, GapRow, LogRow, NewEvent, NewLogEntry, NodeRow,
    NodeUpdate, Ordered, StockRow, StockUpdate,
};
pub use error::StoreError;
pub use lock::StateLock;
pub use log::{Dropped, Log, Opened};
pub use reader::{Reader, Scan};
pub use revoked::{Revoked, RevokedFound};
