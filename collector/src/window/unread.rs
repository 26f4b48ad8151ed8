//! Files that the disk does not give at the moment: an error of the disk may pass, and says nothing of the file.
//!
//! So whatever met one is given up and done again later. A file that cannot be read for ten minutes while others can is
//! taken for damaged where it cannot be read, so that what waits for it goes on. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dunlin_shared::time::MonoMs;

/// Longer than a cable is loose or a volume is away, and two journals: what is sealed by then is not waited for.
const PATIENCE_MS: u64 = 600_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Unread {
    files: BTreeMap<PathBuf, Since>,
    now: MonoMs,
    /// How much was made of other files.
    made: u64,
}

/// When a file could not be read first, and what was made by then.
#[derive(Clone, Copy, Debug)]
struct Since {
    at: MonoMs,
    made: u64,
}

impl Unread {
    /// Files that are gone are nobody's trouble any more.
    pub(super) fn look(&mut self, now: MonoMs) {
        self.now = now;
        self.files.retain(|file, _| file.exists());
    }

    /// Something was made: other files can be read.
    pub(super) const fn made(&mut self) {
        self.made += 1;
    }

    pub(super) fn note(&mut self, file: &Path) {
        let since = Since { at: self.now, made: self.made };
        self.files.entry(file.to_path_buf()).or_insert(since);
    }

    /// Whether it is not waited for any more.
    pub(super) fn is_given_up(&self, file: &Path) -> bool {
        self.is_late(file) && self.files.get(file).is_some_and(|since| self.made > since.made)
    }

    /// Whether what comes behind it goes on without it.
    pub(super) fn is_late(&self, file: &Path) -> bool {
        self.files.get(file).is_some_and(|since| self.now.since(since.at) >= PATIENCE_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_given_up_when_it_cannot_be_read_for_long_and_others_can() {
        let (mut unread, file) = (Unread::default(), Path::new("/"));
        unread.look(MonoMs(1_000));
        assert!(!unread.is_late(file), "nothing is known of it");
        unread.note(file);
        unread.made();
        assert!(!unread.is_late(file) && !unread.is_given_up(file), "it may pass");
        unread.look(MonoMs(1_000 + PATIENCE_MS));
        unread.note(file);
        assert!(unread.is_late(file) && unread.is_given_up(file), "counted from the first time");
    }

    #[test]
    fn while_nothing_can_be_read_nothing_is_given_up() {
        let (mut unread, file) = (Unread::default(), Path::new("/"));
        unread.note(file);
        unread.look(MonoMs(10 * PATIENCE_MS));
        assert!(unread.is_late(file) && !unread.is_given_up(file));
        unread.made();
        assert!(unread.is_given_up(file));
    }

    #[test]
    fn a_file_that_went_is_forgotten() {
        let (mut unread, file) = (Unread::default(), Path::new("/nowhere/at/all"));
        unread.note(file);
        unread.look(MonoMs(PATIENCE_MS));
        assert!(!unread.is_late(file));
    }
}
