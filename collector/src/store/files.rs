//! Which files of a window count: journals that are not sealed yet, and sealed files that no other supersedes.
//!
//! A file gets its name when it is whole, and what it supersedes goes after that, so a directory read at any moment
//! holds everything, some of it twice; here it is told once.

use std::cmp::Reverse;
use std::path::Path;

use dunlin_shared::time::WallMs;

use super::connect;
use super::error::StoreError;
use super::journal::{Name, SLOT_S};
use super::reader::journals;
use super::sealed::{Level, SealedName};
use crate::record::Pos;

const BEFORE_FILES: usize = 2;

/// The files of a window, as they count.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// By level, and within a level by position.
    pub sealed: Vec<SealedName>,
    /// Left over by a merge that did not come to its end.
    pub superseded: Vec<SealedName>,
    /// Not sealed, by position; the last one is being written.
    pub(super) journals: Vec<Name>,
}

/// A journal that is not sealed.
#[derive(Clone, Debug)]
pub struct OpenJournal {
    pub(super) name: Name,
    /// It may have a writer.
    pub(super) is_newest: bool,
}

/// A journal that nobody writes any more, and the position at which the next one begins.
#[derive(Clone, Debug)]
pub struct ClosedJournal {
    pub(super) name: Name,
    pub(super) next: Pos,
    pub(super) closed_s: i64,
}

impl Files {
    pub fn list(dir: &Path) -> Result<Self, StoreError> {
        // Journals first: what is sealed meanwhile is then seen twice at worst, and never not at all.
        let journals = journals(dir)?;
        let at = |error| StoreError::io(dir, error);
        let mut all = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(at)? {
            let file_name = entry.map_err(at)?.file_name();
            all.extend(file_name.to_str().and_then(|text| SealedName::parse(dir, text)));
        }
        let (sealed, superseded) = sorted(all);
        Ok(Self { sealed, superseded, journals })
    }

    pub fn of(&self, level: Level) -> impl DoubleEndedIterator<Item = &SealedName> + Clone {
        self.sealed.iter().filter(move |name| name.level == level)
    }

    /// Whether a level holds what stands at this position.
    #[must_use]
    pub fn holds(&self, level: Level, pos: Pos) -> bool {
        self.of(level).any(|name| name.first <= pos && pos <= name.last)
    }

    /// The last files of every sample before a position, the newest first: one that ticks each five minutes may have left
    /// out the very last.
    #[must_use]
    pub fn before(&self, pos: Pos) -> Vec<SealedName> {
        self.of(Level::Full).rev().filter(|name| name.last < pos).take(BEFORE_FILES).cloned().collect()
    }

    /// All but the last one, oldest first. A journal ends where the next one begins, or what was imported behind it.
    #[must_use]
    pub fn closed(&self) -> Vec<ClosedJournal> {
        let closed = |pair: &[Name]| {
            let (name, next) = (&pair[0], pair[1].first);
            let between = self.sealed.iter().map(|sealed| sealed.first).filter(|first| *first > name.first);
            let next = between.min().map_or(next, |first| first.min(next));
            ClosedJournal { name: name.clone(), next, closed_s: pair[1].slot_s }
        };
        self.journals.windows(2).map(closed).collect()
    }

    /// Journals that may hold samples from a time on: what was spooled came late, so none is too new. What is sealed is not
    /// among them.
    #[must_use]
    pub fn unsealed_from(&self, from: WallMs) -> Vec<OpenJournal> {
        let is_wanted = |(at, name): &(usize, &Name)| {
            // A file ends where the next begins, which is somewhere within that one's slot: of one that was rotated early it
            // is the same. Its own slot is no sure beginning: clocks go back.
            let ends = self.journals.get(at + 1).map(|next| (next.slot_s + SLOT_S).saturating_mul(1_000));
            ends.is_none_or(|ends| ends >= from.0) && !self.holds(Level::Full, name.first)
        };
        self.journals.iter().enumerate().filter(is_wanted).map(|(at, name)| self.open(at, name)).collect()
    }

    /// Journals of which there are no roll-ups, oldest first.
    #[must_use]
    pub fn not_rolled_up(&self) -> Vec<OpenJournal> {
        let is_rolled_up = |name: &Name| [Level::Mid, Level::Long].iter().any(|level| self.holds(*level, name.first));
        let journals = self.journals.iter().enumerate().filter(|(_, name)| !is_rolled_up(name));
        journals.map(|(at, name)| self.open(at, name)).collect()
    }

    fn open(&self, at: usize, name: &Name) -> OpenJournal {
        OpenJournal { name: name.clone(), is_newest: at + 1 == self.journals.len() }
    }

    /// Journals that are not sealed, oldest first.
    pub(super) fn unsealed(&self) -> Vec<Name> {
        self.journals.iter().filter(|name| !self.holds(Level::Full, name.first)).cloned().collect()
    }

    /// When the first journal that is not sealed began.
    #[must_use]
    pub fn unsealed_since(&self) -> Option<WallMs> {
        let mut unsealed = self.journals.iter().filter(|name| !self.holds(Level::Full, name.first));
        unsealed.next().map(|name| WallMs(name.slot_s.saturating_mul(1_000)))
    }

    /// Whether it is a journal, sealed or not.
    #[must_use]
    pub fn is_journal(&self, path: &Path) -> bool {
        self.journals.iter().any(|name| name.path == path)
    }

    /// What journals take of the disk: those that are not sealed, and those that are and go soon.
    #[must_use]
    pub fn journal_bytes(&self, sealed: Pos) -> (u64, u64) {
        let bytes = |is_sealed: bool| {
            let theirs = self.journals.iter().filter(|name| (name.first <= sealed) == is_sealed);
            theirs.map(|name| connect::bytes_with_wal(&name.path)).sum()
        };
        (bytes(false), bytes(true))
    }
}

/// Those that count, and those that lie within another. Of the files that begin before one, the one that reaches
/// furthest is enough to know.
fn sorted(mut all: Vec<SealedName>) -> (Vec<SealedName>, Vec<SealedName>) {
    all.sort_by(|a, b| {
        let order = |name: &SealedName| (name.level, name.first, Reverse((name.last, name.span)));
        order(a).cmp(&order(b)).then_with(|| b.path.cmp(&a.path))
    });
    let (mut sealed, mut superseded): (Vec<SealedName>, Vec<SealedName>) = (Vec::new(), Vec::new());
    let mut furthest: Option<usize> = None;
    for name in all {
        let holder = furthest.map(|at| &sealed[at]).filter(|holder| holder.level == name.level);
        if holder.is_some_and(|holder| holder.supersedes(&name)) {
            superseded.push(name);
            continue;
        }
        if holder.is_none_or(|holder| holder.last < name.last) {
            furthest = Some(sealed.len());
        }
        sealed.push(name);
    }
    (sealed, superseded)
}

impl OpenJournal {
    #[must_use]
    pub const fn first(&self) -> Pos {
        self.name.first
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.name.path
    }
}

impl ClosedJournal {
    #[must_use]
    pub const fn first(&self) -> Pos {
        self.name.first
    }

    /// The last position that it can hold.
    #[must_use]
    pub const fn last(&self) -> Pos {
        Pos(self.next.0.saturating_sub(1))
    }

    #[must_use]
    pub const fn slot_s(&self) -> i64 {
        self.name.slot_s
    }

    /// When the next one was begun.
    #[must_use]
    pub const fn closed_s(&self) -> i64 {
        self.closed_s
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.name.path
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::sealed::Span;
    use super::*;

    fn name(level: Level, span: Span, first: u64, last: u64) -> SealedName {
        let text = format!(
            "{}-{}-0-{first}-{last}-0.db",
            level.as_str(),
            match span {
                Span::FiveMinutes => "5m",
                Span::Hour => "1h",
                Span::Day => "1d",
            }
        );
        SealedName::parse(&PathBuf::from("/w"), &text).expect("a good name")
    }

    proptest! {
        #[test]
        fn every_file_counts_but_those_that_lie_within_another(
            files in prop::collection::vec((0usize..3, 0usize..3, 1u64..30, 0u64..30), 0..20),
        ) {
            let mut all: Vec<SealedName> = Vec::new();
            for (level, span, first, len) in files {
                let name = name(Level::ALL[level], Span::ALL[span], first, first + len);
                if !all.contains(&name) {
                    all.push(name);
                }
            }
            let (sealed, superseded) = sorted(all.clone());
            for name in &all {
                let is_within = all.iter().any(|other| other.supersedes(name));
                prop_assert_eq!(superseded.contains(name), is_within);
                prop_assert_eq!(sealed.contains(name), !is_within);
            }
        }
    }
}
