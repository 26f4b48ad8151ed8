//! A set of sequence numbers as sorted ranges: what is spooled, sent, held or acknowledged.
//!
//! Ranges never touch or overlap. A healthy node has one range, so the common path is one compare.

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, FrameId, Seq};
use crate::wire::FrameRange;

/// Both ends included; `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SeqRange {
    pub first: Seq,
    pub last: Seq,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeqSet {
    ranges: Vec<SeqRange>,
}

/// The same over all epochs of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameSet {
    epochs: Vec<(Epoch, SeqSet)>,
}

impl SeqRange {
    #[must_use]
    pub const fn one(seq: Seq) -> Self {
        Self { first: seq, last: seq }
    }

    /// `None` when the ends are the wrong way round, as a peer may send them.
    #[must_use]
    pub fn checked(first: Seq, last: Seq) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// How many numbers it has.
    #[must_use]
    pub const fn count(&self) -> u64 {
        (self.last.0 - self.first.0).saturating_add(1)
    }
}

impl SeqSet {
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    #[must_use]
    pub fn ranges(&self) -> &[SeqRange] {
        &self.ranges
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many numbers are in it.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ranges.iter().map(SeqRange::count).fold(0, u64::saturating_add)
    }

    #[must_use]
    pub fn first(&self) -> Option<Seq> {
        self.ranges.first().map(|range| range.first)
    }

    #[must_use]
    pub fn last(&self) -> Option<Seq> {
        self.ranges.last().map(|range| range.last)
    }

    #[must_use]
    pub fn contains(&self, seq: Seq) -> bool {
        let after = self.ranges.partition_point(|range| range.first <= seq);
        after > 0 && seq <= self.ranges[after - 1].last
    }

    /// Whether `seq` was new.
    pub fn insert(&mut self, seq: Seq) -> bool {
        if self.contains(seq) {
            return false;
        }
        self.insert_range(SeqRange::one(seq));
        true
    }

    pub fn insert_range(&mut self, range: SeqRange) {
        debug_assert!(range.first <= range.last, "a range has its ends in order");
        let from = self.ranges.partition_point(|r| r.last.0.saturating_add(1) < range.first.0);
        let to = self.ranges.partition_point(|r| r.first.0 <= range.last.0.saturating_add(1));
        let mut merged = range;
        if from < to {
            merged.first = merged.first.min(self.ranges[from].first);
            merged.last = merged.last.max(self.ranges[to - 1].last);
        }
        self.ranges.splice(from..to, [merged]);
    }

    pub fn remove(&mut self, seq: Seq) {
        self.remove_range(SeqRange::one(seq));
    }

    pub fn remove_range(&mut self, range: SeqRange) {
        let from = self.ranges.partition_point(|r| r.last < range.first);
        let to = self.ranges.partition_point(|r| r.first <= range.last);
        if from >= to {
            return;
        }
        let head = self.ranges[from];
        let tail = self.ranges[to - 1];
        let before = (head.first < range.first).then(|| SeqRange { first: head.first, last: Seq(range.first.0 - 1) });
        let after = (tail.last > range.last).then(|| SeqRange { first: Seq(range.last.0 + 1), last: tail.last });
        self.ranges.splice(from..to, before.into_iter().chain(after));
    }

    pub fn remove_all(&mut self, other: &Self) {
        for &range in &other.ranges {
            self.remove_range(range);
        }
    }

    /// The lowest number that is here and not in `other`.
    #[must_use]
    pub fn first_not_in(&self, other: &Self) -> Option<Seq> {
        for range in &self.ranges {
            let mut seq = range.first;
            while seq <= range.last {
                let after = other.ranges.partition_point(|r| r.first <= seq);
                match after.checked_sub(1).map(|i| other.ranges[i]) {
                    Some(cover) if seq <= cover.last => {
                        if cover.last.0 == u64::MAX {
                            return None;
                        }
                        seq = cover.last.next();
                    }
                    _ => return Some(seq),
                }
            }
        }
        None
    }

    /// Takes up to `most` of the lowest ranges out.
    pub fn take_lowest(&mut self, most: usize) -> Vec<SeqRange> {
        self.ranges.drain(..self.ranges.len().min(most)).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = Seq> + '_ {
        self.ranges.iter().flat_map(|range| (range.first.0..=range.last.0).map(Seq))
    }
}

impl FrameSet {
    #[must_use]
    pub const fn new() -> Self {
        Self { epochs: Vec::new() }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.epochs.is_empty()
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.epochs.iter().map(|(_, set)| set.count()).fold(0, u64::saturating_add)
    }

    /// Ascending by epoch; none of them empty.
    pub fn epochs(&self) -> impl Iterator<Item = (Epoch, &SeqSet)> {
        self.epochs.iter().map(|(epoch, set)| (*epoch, set))
    }

    #[must_use]
    pub fn epoch(&self, epoch: Epoch) -> Option<&SeqSet> {
        self.epochs.binary_search_by_key(&epoch, |(known, _)| *known).ok().map(|at| &self.epochs[at].1)
    }

    #[must_use]
    pub fn contains(&self, id: FrameId) -> bool {
        self.epoch(id.epoch).is_some_and(|set| set.contains(id.seq))
    }

    pub fn insert(&mut self, id: FrameId) {
        self.insert_range(FrameRange { epoch: id.epoch, range: SeqRange::one(id.seq) });
    }

    pub fn insert_range(&mut self, added: FrameRange) {
        match self.epochs.binary_search_by_key(&added.epoch, |(known, _)| *known) {
            Ok(at) => self.epochs[at].1.insert_range(added.range),
            Err(at) => self.epochs.insert(at, (added.epoch, SeqSet { ranges: vec![added.range] })),
        }
    }

    pub fn remove_range(&mut self, removed: FrameRange) {
        if let Ok(at) = self.epochs.binary_search_by_key(&removed.epoch, |(known, _)| *known) {
            self.epochs[at].1.remove_range(removed.range);
            if self.epochs[at].1.is_empty() {
                self.epochs.remove(at);
            }
        }
    }

    /// The oldest frame that is here and not in `other`.
    #[must_use]
    pub fn first_not_in(&self, other: &Self) -> Option<FrameId> {
        self.epochs.iter().find_map(|(epoch, set)| {
            let seq = match other.epoch(*epoch) {
                Some(others) => set.first_not_in(others)?,
                None => set.first()?,
            };
            Some(FrameId { epoch: *epoch, seq })
        })
    }

    /// Takes up to `most` of the oldest ranges out.
    pub fn take_lowest(&mut self, most: usize) -> Vec<FrameRange> {
        let mut taken = Vec::new();
        while let Some((epoch, set)) = self.epochs.first_mut().filter(|_| taken.len() < most) {
            let epoch = *epoch;
            taken.extend(set.take_lowest(most - taken.len()).into_iter().map(|range| FrameRange { epoch, range }));
            if set.is_empty() {
                self.epochs.remove(0);
            }
        }
        taken
    }

    pub fn clear(&mut self) {
        self.epochs.clear();
    }
}

impl FromIterator<SeqRange> for SeqSet {
    fn from_iter<I: IntoIterator<Item = SeqRange>>(ranges: I) -> Self {
        let mut set = Self::new();
        for range in ranges {
            set.insert_range(range);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_number_line_hold() {
        let mut set = SeqSet::new();
        set.insert_range(SeqRange { first: Seq(0), last: Seq(u64::MAX) });
        assert!(set.contains(Seq(u64::MAX)));
        set.remove(Seq(0));
        set.remove(Seq(u64::MAX));
        assert_eq!(set.ranges(), [SeqRange { first: Seq(1), last: Seq(u64::MAX - 1) }]);
    }

    #[test]
    fn frames_of_older_epochs_come_first_and_empty_epochs_leave() {
        let mut set = FrameSet::new();
        for (epoch, seq) in [(2, 0), (1, 8), (1, 9), (1, 4)] {
            set.insert(FrameId::new(epoch, seq));
        }
        let mut sent = FrameSet::new();
        sent.insert(FrameId::new(1, 4));
        assert_eq!(set.first_not_in(&sent), Some(FrameId::new(1, 8)));
        let taken = set.take_lowest(2);
        assert_eq!(taken.iter().map(|taken| taken.range.count()).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((set.count(), set.epochs().count()), (1, 1));
        set.remove_range(FrameRange { epoch: Epoch(2), range: SeqRange::one(Seq(0)) });
        assert!(set.is_empty());
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_plain_set(ops in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..8), 0..60),
                                       other in prop::collection::btree_set(0u64..60, 0..40)) {
            let mut set = SeqSet::new();
            let mut plain = BTreeSet::new();
            for (insert, first, more) in ops {
                let range = SeqRange { first: Seq(first), last: Seq(first + more) };
                if insert {
                    set.insert_range(range);
                    plain.extend(first..=first + more);
                } else {
                    set.remove_range(range);
                    plain.retain(|seq| !(first..=first + more).contains(seq));
                }
                prop_assert!(set.ranges().windows(2).all(|pair| pair[0].last.0 + 1 < pair[1].first.0));
            }
            prop_assert_eq!(set.iter().map(|seq| seq.0).collect::<BTreeSet<_>>(), plain.clone());
            prop_assert_eq!(set.count(), plain.len() as u64);
            let mut others = SeqSet::new();
            for &seq in &other {
                others.insert(Seq(seq));
            }
            prop_assert_eq!(set.first_not_in(&others).map(|seq| seq.0), plain.difference(&other).next().copied());
            for seq in 0..70 {
                prop_assert_eq!(set.contains(Seq(seq)), plain.contains(&seq));
            }
        }
    }
}
