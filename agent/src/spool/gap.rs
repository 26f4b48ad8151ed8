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
