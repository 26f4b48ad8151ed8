//! Frames that are gone, and that no collector has acknowledged as gone yet.
//!
//! A number is in one gap at most. Gaps of one reason that touch are one; there are never more than
//! `GAPS_MAX`, whatever happens.
//!
//! ```text
//! file = "DNLGAP" version:u8=1 "\n" gap* crc:u32      crc: CRC-32 of all that is before it
//! gap  = epoch:u32 reason:u32 (0 overflow, 1 damaged) first:u64 last:u64 from:i64 to:i64    40 bytes
//! ```

use std::collections::BTreeMap;

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::limits::EPOCHS_MAX;
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::{Gap, GapReason};

use super::segment::crc32;

/// Two for each epoch that the spool may hold. Each is a message of about 30 bytes after a Hello.
pub(super) const GAPS_MAX: usize = 2 * EPOCHS_MAX;
/// Larger than any file of gaps that is written here.
pub(super) const FILE_BYTES_MAX: u64 = 16 * 1024;

const FILE_HEAD: [u8; 8] = *b"DNLGAP\x01\n";
const GAP_BYTES: usize = 40;

/// In ascending order, without overlap.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    list: Vec<Gap>,
}

/// What it cost to keep their number within its bound.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Frames that were still held between two gaps, and are now within one.
    pub(super) frames: u64,
    /// Gaps that could be merged with none, and are forgotten.
    pub(super) forgotten: usize,
}

impl Gaps {
    pub(super) fn list(&self) -> &[Gap] {
        &self.list
    }

    /// Adds what of `gap` is in none yet.
    pub(super) fn add(&mut self, gap: Gap) {
        let mut fresh = SeqSet::new();
        fresh.insert_range(gap.range);
        for known in self.list.iter().filter(|known| known.epoch == gap.epoch) {
            fresh.remove_range(known.range);
        }
        for &range in fresh.ranges() {
            self.insert(Gap { range, ..gap });
        }
    }

    /// Whether anything changed. What remains of a gap keeps its times: they still enclose it.
    pub(super) fn acknowledge(&mut self, epoch: Epoch, range: SeqRange) -> bool {
        let hit = |gap: &Gap| gap.epoch == epoch && gap.range.first <= range.last && range.first <= gap.range.last;
        if !self.list.iter().any(hit) {
            return false;
        }
        let left = self.list.iter().flat_map(|gap| {
            let mut left = SeqSet::new();
            left.insert_range(gap.range);
            if gap.epoch == epoch {
                left.remove_range(range);
            }
            left.ranges().iter().map(|&range| Gap { range, ..*gap }).collect::<Vec<_>>()
        });
        self.list = left.collect();
        true
    }

    /// Brings their number down to `GAPS_MAX`: the two with the fewest held frames between them
    /// become one, and those frames are given up.
    pub(super) fn bound(&mut self, held: &mut BTreeMap<Epoch, SeqSet>) -> Merged {
        let mut merged = Merged::default();
        while self.list.len() > GAPS_MAX {
            let cost = |pair: &[Gap]| {
                let between = SeqRange { first: pair[0].range.last, last: pair[1].range.first };
                let held = held.get(&pair[0].epoch).map_or(0, |set| count(set, between));
                (pair[0].epoch == pair[1].epoch).then_some(held)
            };
            let pairs = self.list.windows(2).enumerate();
            let Some((frames, at)) = pairs.filter_map(|(at, pair)| Some((cost(pair)?, at))).min() else {
                self.list.remove(0);
                merged.forgotten += 1;
                continue;
            };
            let second = self.list.remove(at + 1);
            let first = &mut self.list[at];
            first.range.last = second.range.last;
            first.from = first.from.min(second.from);
            first.to = first.to.max(second.to);
            if let Some(set) = held.get_mut(&first.epoch) {
                set.remove_range(first.range);
            }
            merged.frames += frames;
        }
        held.retain(|_, set| !set.is_empty());
        merged
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FILE_HEAD.len() + self.list.len() * GAP_BYTES + 4);
        out.extend(FILE_HEAD);
        for gap in &self.list {
            out.extend(gap.epoch.0.to_le_bytes());
            out.extend(u32::from(gap.reason == GapReason::Damaged).to_le_bytes());
            out.extend(gap.range.first.0.to_le_bytes());
            out.extend(gap.range.last.0.to_le_bytes());
            out.extend(gap.from.0.to_le_bytes());
            out.extend(gap.to.0.to_le_bytes());
        }
        out.extend(crc32(&[&out]).to_le_bytes());
        out
    }

    /// `None` when the file is damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let records = body.strip_prefix(&FILE_HEAD)?;
        if crc32(&[body]) != u32::from_le_bytes(*crc) || records.len() % GAP_BYTES != 0 {
            return None;
        }
        let mut gaps = Self::default();
        for record in records.chunks_exact(GAP_BYTES) {
            let wide = |at: usize| record[at..].first_chunk().map_or(0, |raw| u64::from_le_bytes(*raw));
            let reason = match wide(0) >> 32 {
                0 => GapReason::Overflow,
                1 => GapReason::Damaged,
                _ => return None,
            };
            gaps.add(Gap {
                epoch: Epoch((wide(0) & 0xffff_ffff) as u32),
                range: SeqRange::checked(Seq(wide(8)), Seq(wide(16)))?,
                from: WallMs(wide(24).cast_signed()),
                to: WallMs(wide(32).cast_signed()),
                reason,
            });
        }
        Some(gaps)
    }

    fn insert(&mut self, mut gap: Gap) {
        let mut at = self.list.partition_point(|known| (known.epoch, known.range.first) < (gap.epoch, gap.range.first));
        if let Some(next) = self.list.get(at).filter(|next| touch(&gap, next)) {
            gap = join(&gap, next);
            self.list.remove(at);
        }
        if let Some(before) = at.checked_sub(1).filter(|&before| touch(&self.list[before], &gap)) {
            gap = join(&self.list[before], &gap);
            self.list.remove(before);
            at = before;
        }
        self.list.insert(at, gap);
    }
}

/// The parts of `set` within `range`.
pub(super) fn within(set: &SeqSet, range: SeqRange) -> impl Iterator<Item = SeqRange> {
    let from = set.ranges().partition_point(|part| part.last < range.first);
    let parts = set.ranges()[from..].iter().take_while(move |part| part.first <= range.last);
    parts.map(move |part| SeqRange { first: part.first.max(range.first), last: part.last.min(range.last) })
}

fn count(set: &SeqSet, range: SeqRange) -> u64 {
    within(set, range).map(|part| part.count()).fold(0, u64::saturating_add)
}

fn touch(a: &Gap, b: &Gap) -> bool {
    a.epoch == b.epoch && a.reason == b.reason && a.range.last.next() >= b.range.first
}

fn join(a: &Gap, b: &Gap) -> Gap {
    let range = SeqRange { first: a.range.first, last: b.range.last };
    Gap { range, from: a.from.min(b.from), to: a.to.max(b.to), ..*a }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gap(epoch: u32, first: u64, last: u64, reason: GapReason) -> Gap {
        let range = SeqRange { first: Seq(first), last: Seq(last) };
        let wall = |seq: u64| WallMs(1_000 * seq.cast_signed());
        Gap { epoch: Epoch(epoch), range, from: wall(first), to: wall(last), reason }
    }

    #[test]
    fn gaps_that_touch_are_one_and_no_number_is_in_two() {
        let mut gaps = Gaps::default();
        for (first, last) in [(10, 19), (0, 4), (5, 9), (15, 30)] {
            gaps.add(gap(1, first, last, GapReason::Overflow));
        }
        gaps.add(gap(1, 25, 40, GapReason::Damaged));
        gaps.add(gap(2, 0, 0, GapReason::Overflow));
        let ranges: Vec<_> = gaps.list().iter().map(|gap| (gap.range.first.0, gap.range.last.0, gap.to.0)).collect();
        assert_eq!(ranges, [(0, 30, 30_000), (31, 40, 40_000), (0, 0, 0)]);
    }

    #[test]
    fn too_many_gaps_become_fewer_where_that_costs_the_fewest_frames() {
        let mut gaps = Gaps::default();
        let mut held = BTreeMap::from([(Epoch(1), SeqSet::new()), (Epoch(2), SeqSet::new())]);
        for n in 0..=GAPS_MAX as u64 {
            gaps.add(gap(1, n * 10, n * 10 + 2, GapReason::Damaged));
            if n != 7 {
                held.entry(Epoch(1)).or_default().insert(Seq(n * 10 + 5));
            }
        }
        let all = held[&Epoch(1)].count();
        assert_eq!(gaps.bound(&mut held), Merged::default(), "nothing was held behind the eighth");
        assert_eq!((gaps.list().len(), gaps.list()[7].range), (GAPS_MAX, gap(1, 70, 82, GapReason::Damaged).range));
        gaps.add(gap(2, 4, 4, GapReason::Damaged));
        assert_eq!(gaps.bound(&mut held), Merged { frames: 1, forgotten: 0 });
        assert_eq!((gaps.list().len(), held[&Epoch(1)].count(), held.len()), (GAPS_MAX, all - 1, 1));
    }

    #[test]
    fn gaps_of_too_many_epochs_are_forgotten_from_the_oldest_and_counted() {
        let mut gaps = Gaps::default();
        for (epoch, _) in (0..).zip(0..GAPS_MAX + 3) {
            gaps.add(gap(epoch, 0, 0, GapReason::Overflow));
        }
        assert_eq!(gaps.bound(&mut BTreeMap::new()), Merged { frames: 0, forgotten: 3 });
        assert_eq!(gaps.list()[0].epoch, Epoch(3));
    }

    proptest! {
        #[test]
        fn gaps_survive_their_file_and_damage_is_noticed(
            parts in prop::collection::vec((0u32..3, 0u64..90, 0u64..9, any::<bool>()), 0..30), at: prop::sample::Index, bit in 0u8..8,
        ) {
            let mut gaps = Gaps::default();
            for (epoch, first, more, damaged) in parts {
                gaps.add(gap(epoch, first, first + more, if damaged { GapReason::Damaged } else { GapReason::Overflow }));
            }
            let mut bytes = gaps.encode();
            let decoded = Gaps::decode(&bytes);
            prop_assert_eq!(decoded.as_ref().map(Gaps::list), Some(gaps.list()));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(Gaps::decode(&bytes).is_none());
            prop_assert!(Gaps::decode(&bytes[..at]).is_none());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, ends: (u64, u64, u32)) {
            prop_assert!(Gaps::decode(&bytes).is_none());
            let mut crafted = FILE_HEAD.to_vec();
            crafted.extend(ends.2.to_le_bytes());
            crafted.extend([0; 4]);
            crafted.extend([ends.0.to_le_bytes(), ends.1.to_le_bytes(), [0xff; 8], [7; 8]].concat());
            crafted.extend(crc32(&[&crafted]).to_le_bytes());
            prop_assert_eq!(Gaps::decode(&crafted).is_some(), ends.0 <= ends.1);
        }
    }
}
