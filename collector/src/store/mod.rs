//! The collector's files: the log of what was received, and `control.db` with what follows from it.
//!
//! Only this module names SQLite. It is synchronous, reads no clock and logs nothing: times come in
//! as arguments, and what happened goes back to the caller. Nothing counts as stored before a commit
//! has returned, and no decision depends on a transaction across two files.

mod check;
mod closed;
mod connect;
mod control;
mod copy;
mod error;
mod files;
mod journal;
mod lock;
mod log;
mod migrate;
mod owner;
mod quarantine;
mod reader;
mod revoked;
mod row;
mod sealed;
mod sum;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod wal;

pub use check::{Checked, check};
pub use closed::{JournalSource, Patience};
pub use control::{
    AlertRow, AlertUpdate, Control, ControlBatch, ControlOpened, ControlReader, EventRow, GapRow, KeptAlert, LogRow,
    NewEvent, NewLogEntry, NewNode, NodeRow, NodeUpdate, Ordered, Said, StockRow, StockUpdate,
};
pub use copy::{COPY_DIR, Copied, copy_bytes, copy_state, growth_bytes, is_copied, is_window_file};
pub use error::StoreError;
pub use files::{ClosedJournal, Files, OpenJournal};
pub use lock::StateLock;
pub use log::{Dropped, Log, Opened};
pub use owner::give_to_owner_of;
pub use quarantine::{keep_aside, keep_no_more, set_aside};
pub use reader::{Frames, Reader, Scan};
pub use revoked::{Revoked, RevokedFound};
pub use sealed::{Block, Blocks, Builder, Level, Sealed, SealedName, Sheet, Sheets, Span, discard};

use std::path::Path;

/// Takes a sealed file away, with what SQLite may have left beside it.
pub fn remove_sealed(name: &SealedName) -> Result<(), StoreError> {
    sealed::remove(name.path())
}

/// The bytes of a file; 0 when it is gone.
#[must_use]
pub fn bytes_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |data| data.len())
}

/// What ordinary users can still write where a directory lies.
pub fn free_bytes(dir: &Path) -> Result<u64, StoreError> {
    let disk = rustix::fs::statvfs(dir).map_err(|error| StoreError::io(dir, error.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
