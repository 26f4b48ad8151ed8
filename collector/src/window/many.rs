//! The window for whoever reads many nodes one after the other: its files are opened once.
//!
//! A file that a merge or retention takes meanwhile is read to the end all the same. A journal that goes is sealed by
//! then: all of it is listed anew, and what was read of other nodes stays right.

use dunlin_shared::time::WallMs;

use super::read::{Asked, Found, Gone, LISTED_MAX, ReadError, Window, may_hold};
use crate::block::{self, Stretch};
use crate::store::{Files, Level, OpenJournal, Sealed, SealedName};

/// What holds samples of a time, open.
#[derive(Debug)]
pub struct OpenWindow<'w> {
    window: &'w Window,
    range: (WallMs, WallMs),
    sealed: Vec<(SealedName, Sealed)>,
    journals: Vec<OpenJournal>,
}

impl Window {
    /// Opens every file that may hold samples of the time.
    pub fn open_range(&self, from: WallMs, to: WallMs) -> Result<OpenWindow<'_>, ReadError> {
        let mut opened = OpenWindow { window: self, range: (from, to), sealed: Vec::new(), journals: Vec::new() };
        opened.list()?;
        Ok(opened)
    }
}

impl OpenWindow<'_> {
    /// A node's stretches that hold rows of the range, in the order in which they came. What is asked for lies within the
    /// time for which this was opened.
    pub fn stretches(&mut self, asked: &Asked<'_>) -> Result<Vec<Stretch>, ReadError> {
        for _ in 0..LISTED_MAX {
            let mut found = Found::new(asked);
            self.sealed_of(asked, &mut found)?;
            if self.window.journals(&self.journals, &mut found)?.is_ok() {
                return Ok(found.stretches);
            }
            self.list()?;
        }
        Err(self.window.restless())
    }

    fn list(&mut self) -> Result<(), ReadError> {
        let (from, to) = self.range;
        (self.sealed, self.journals) = self.window.listed(|files: &Files| {
            let mut sealed = Vec::new();
            for name in files.of(Level::Full).filter(|name| may_hold(name, from, to)) {
                match self.window.open(name)? {
                    None => {}
                    Some(Ok(file)) => sealed.push((name.clone(), file)),
                    Some(Err(Gone)) => return Ok(Err(Gone)),
                }
            }
            Ok(Ok((sealed, files.unsealed_from(from))))
        })?;
        Ok(())
    }

    fn sealed_of(&self, asked: &Asked<'_>, found: &mut Found<'_>) -> Result<(), ReadError> {
        for (name, file) in &self.sealed {
            for block in self.window.sound(name.path(), file.blocks_of(asked.node)) {
                if block.ends < asked.from || block.begins > asked.to {
                    continue;
                }
                match block::decode_some(&block.body, asked.taken.wanted) {
                    Ok(stretch) => found.take(stretch)?,
                    Err(_) => self.window.suspect(name.path()),
                }
            }
        }
        Ok(())
    }
}
