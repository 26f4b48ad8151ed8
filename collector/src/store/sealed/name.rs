//! What a sealed file's name says: `LEVEL-SPAN-SLOT-FIRST-LAST-BEGINS.db`.
//!
//! FIRST to LAST are the positions of the log that it holds. Of two files of a level whose positions lie within each
//! other's, the smaller is left over from a merge: readers pass it over, and its owner removes it.

use std::path::{Path, PathBuf};

use crate::record::Pos;

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Every sample, by node.
    #[default]
    Full,
    /// Roll-ups of five minutes, by metric.
    Mid,
    /// Roll-ups of an hour, by metric.
    Long,
}

/// How much receive time a file is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Span {
    FiveMinutes,
    Hour,
    Day,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedName {
    pub(in crate::store) path: PathBuf,
    pub level: Level,
    pub span: Span,
    /// Receive time at which its slot begins.
    pub slot_s: i64,
    pub first: Pos,
    pub last: Pos,
    /// The earliest time of what it holds, which may be long before it came.
    pub begins_s: i64,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::Full, Self::Mid, Self::Long];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Mid => "mid",
            Self::Long => "long",
        }
    }

    /// Of one of its cells; none for samples.
    #[must_use]
    pub const fn slot_ms(self) -> Option<i64> {
        match self {
            Self::Full => None,
            Self::Mid => Some(300_000),
            Self::Long => Some(3_600_000),
        }
    }
}

impl Span {
    pub const ALL: [Self; 3] = [Self::FiveMinutes, Self::Hour, Self::Day];

    #[must_use]
    pub const fn seconds(self) -> i64 {
        match self {
            Self::FiveMinutes => 300,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5m",
            Self::Hour => "1h",
            Self::Day => "1d",
        }
    }

    /// The beginning of the slot that holds a moment.
    #[must_use]
    pub const fn slot_of(self, at_s: i64) -> i64 {
        at_s - at_s.rem_euclid(self.seconds())
    }
}

impl SealedName {
    /// With the path below `dir`.
    pub(super) fn placed(mut self, dir: &Path) -> Self {
        let (level, span) = (self.level.as_str(), self.span.as_str());
        let (slot, first, last, begins) = (self.slot_s, self.first.0, self.last.0, self.begins_s);
        self.path = dir.join(format!("{level}-{span}-{slot}-{first}-{last}-{begins}.db"));
        self
    }

    /// `None` for what is written in any other way.
    pub(in crate::store) fn parse(dir: &Path, file_name: &str) -> Option<Self> {
        let mut words = file_name.strip_suffix(".db")?.split('-');
        let mut word = || words.next();
        let level = word()?;
        let level = Level::ALL.into_iter().find(|known| known.as_str() == level)?;
        let span = word()?;
        let span = Span::ALL.into_iter().find(|known| known.as_str() == span)?;
        let slot_s = word()?.parse().ok()?;
        let (first, last) = (Pos(word()?.parse().ok()?), Pos(word()?.parse().ok()?));
        let begins_s = word()?.parse().ok()?;
        let name = Self { path: PathBuf::new(), level, span, slot_s, first, last, begins_s }.placed(dir);
        (name.path == dir.join(file_name) && first.0 > 0 && first <= last).then_some(name)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When what it holds had come at the latest.
    #[must_use]
    pub const fn ends_s(&self) -> i64 {
        self.slot_s.saturating_add(self.span.seconds())
    }

    /// Whether no longer one is made of it.
    #[must_use]
    pub fn is_longest(&self) -> bool {
        let longest = if self.level == Level::Full { Span::Hour } else { Span::Day };
        self.span >= longest
    }

    /// Whether this one holds all of `other`.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        self.level == other.level && self.first <= other.first && other.last <= self.last && {
            let (own, its) = (self.last.0 - self.first.0, other.last.0 - other.first.0);
            own > its || (own == its && (self.span, &self.path) > (other.span, &other.path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(level: Level, span: Span, first: u64, last: u64) -> SealedName {
        let (first, last) = (Pos(first), Pos(last));
        SealedName { path: PathBuf::new(), level, span, slot_s: 600, first, last, begins_s: 540 }
            .placed(Path::new("/w"))
    }

    #[test]
    fn a_name_is_read_as_it_was_written_and_in_no_other_way() {
        for level in Level::ALL {
            for span in Span::ALL {
                let name = name(level, span, 7, 900);
                let text = name.path.file_name().and_then(|text| text.to_str()).expect("a name").to_owned();
                assert_eq!(SealedName::parse(Path::new("/w"), &text), Some(name), "{text}");
            }
        }
        for text in [
            "full-5m-600-7-900-540",
            "full-5m-600-07-900-540.db",
            "full-5m-600-900-7-540.db",
            "full-2m-600-7-900-540.db",
            "half-5m-600-7-900-540.db",
            "full-5m-600-0-900-540.db",
            "journal-600-7.db",
        ] {
            assert_eq!(SealedName::parse(Path::new("/w"), text), None, "{text}");
        }
    }

    #[test]
    fn of_two_files_that_hold_the_same_one_counts() {
        let (hour, part) = (name(Level::Full, Span::Hour, 1, 900), name(Level::Full, Span::FiveMinutes, 7, 60));
        assert!(hour.supersedes(&part) && !part.supersedes(&hour) && !hour.supersedes(&hour.clone()));
        let again = name(Level::Full, Span::FiveMinutes, 1, 900);
        assert!(hour.supersedes(&again) && !again.supersedes(&hour));
        assert!(!name(Level::Mid, Span::Hour, 1, 900).supersedes(&part), "levels hold different things");
        assert!(!part.supersedes(&name(Level::Full, Span::FiveMinutes, 50, 70)), "they overlap, and both count");
    }
}
