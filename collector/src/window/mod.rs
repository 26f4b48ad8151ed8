//! The window: what the collector keeps of the fleet's time series beyond the journal, and how it is read.
//!
//! One thread, the keeper, owns every sealed file: it seals closed journals, merges what it sealed, and drops what has
//! no room. Whoever reads lists the directory and opens files to read, and never waits for it.

mod intake;
mod keeper;
mod many;
mod merge;
mod past;
mod read;
pub mod retain;
mod seal;
mod sheets;
#[cfg(test)]
mod tests;
mod unread;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

pub use self::intake::Intake;
pub use self::keeper::Keeper;
pub use self::many::OpenWindow;
pub use self::merge::told_apart;
pub use self::past::{PastAsked, RolledUp};
pub use self::read::{Asked, Cells, Depth, FleetAsked, ReadError, Rolled, Window, reaches, refuse_newer, verify};
pub use self::seal::Apart;
use self::unread::Unread;
use crate::store::StoreError;

/// What the keeper is told from outside: that it is to end, and which files readers met damage in.
#[derive(Debug, Default)]
pub struct Word {
    halt: AtomicBool,
    suspects: Mutex<BTreeSet<PathBuf>>,
}

/// Files that wait to be looked at; whoever meets more damage tells it again.
const SUSPECTS_MAX: usize = 64;

impl Word {
    pub fn halt(&self) {
        self.halt.store(true, Relaxed);
    }

    pub(crate) fn suspect(&self, file: &Path) {
        let mut suspects = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
        if suspects.len() < SUSPECTS_MAX {
            suspects.insert(file.to_path_buf());
        }
    }

    fn suspects(&self) -> BTreeSet<PathBuf> {
        std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What the keeper does at the moment: the damage that it met, by file, and whether it is to stop.
#[derive(Debug, Default)]
pub(crate) struct Errand {
    met: BTreeMap<PathBuf, String>,
    word: Arc<Word>,
    unread: Unread,
    /// After so many looks whether it is to stop, it is.
    #[cfg(test)]
    ends_after: std::cell::Cell<Option<u32>>,
}

impl Errand {
    pub(crate) fn note(&mut self, file: &Path, what: &str) {
        self.met.entry(file.to_path_buf()).or_insert_with(|| what.to_owned());
    }

    /// What of a file is damaged is noted and passed over. What may be an error of the moment ends what is under way, to be
    /// done again; only where it does not end is it passed over as well.
    pub(crate) fn pass_over(&mut self, file: &Path, error: StoreError) -> Result<(), StoreError> {
        match error {
            StoreError::Damaged { what, .. } => self.note(file, &what),
            StoreError::Unavailable { .. } if self.unread.is_given_up(file) => {
                let cause = error.source().map(ToString::to_string).unwrap_or_default();
                self.note(file, &format!("it cannot be read for minutes: {cause}"));
            }
            error => return Err(error),
        }
        Ok(())
    }

    fn is_halted(&self) -> bool {
        #[cfg(test)]
        if let Some(left) = self.ends_after.get() {
            self.ends_after.set(Some(left.saturating_sub(1)));
            return left == 0;
        }
        self.word.halt.load(Relaxed)
    }
}
