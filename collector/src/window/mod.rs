//! The window: what the collector keeps of the fleet's time series beyond the journal, and how it is read.
//!
//! One thread, the keeper, owns every sealed file: it seals closed journals, merges what it sealed, and drops what has
//! no room. Whoever reads lists the directory and opens files to read, and never waits for it.

mod intake;
mod keeper;
mod merge;
mod read;
pub mod retain;
mod seal;
mod sheets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

pub use self::intake::Intake;
pub use self::keeper::Keeper;
pub use self::merge::told_apart;
pub use self::read::{Asked, Cells, FleetAsked, ReadError, Rolled, Window, reaches, refuse_newer, verify};
pub use self::seal::Apart;

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
}

impl Errand {
    pub(crate) fn note(&mut self, file: &Path, what: &str) {
        self.met.entry(file.to_path_buf()).or_insert_with(|| what.to_owned());
    }

    fn is_halted(&self) -> bool {
        self.word.halt.load(Relaxed)
    }
}
