//! Frames in RAM: a ring of groups, the newest of which may still be under way.
//!
//! Pure bookkeeping. Groups leave whole; a group's bytes are counted as the allocator sees them, so
//! that a ring of 512 KiB takes about 512 KiB of the process.

use std::collections::VecDeque;

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::range::SeqRange;
use dunlin_shared::time::WallMs;

/// A group's place in the queue, twice because a queue grows by doubling, and the allocator's heads
/// and rounding of its two buffers.
const GROUP_OVERHEAD_BYTES: usize = 2 * size_of::<Group>() + 2 * 16;
/// Bodies grow in such steps: doubling would waste half of a large group.
const GROWTH_BYTES: usize = 512;

/// The allocator leaves holes between groups of different sizes: 6 to 18 % were measured over 600 to
/// 2,000 groups with bodies of 64, 89 and 176 bytes.
const FRAGMENTED_PART: usize = 8;

/// A keyframe and what builds on it; inventory may sit between.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) epoch: Epoch,
    /// How many of its frames the disk has.
    pub(super) written: usize,
    slots: Vec<Slot>,
    bodies: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) seq: Seq,
    pub(super) wall: WallMs,
    pub(super) kind: BodyKind,
    /// Where its body ends; it starts where the one before ends.
    end: u32,
}

#[derive(Debug, Default)]
pub(super) struct Ring {
    groups: VecDeque<Group>,
    /// Whether the newest group is under way.
    open: bool,
    bytes: usize,
}

impl Group {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self { epoch, written: 0, slots: Vec::new(), bodies: Vec::new() }
    }

    pub(super) fn push(&mut self, seq: Seq, kind: BodyKind, wall: WallMs, body: &[u8]) {
        if self.bodies.capacity() - self.bodies.len() < body.len() {
            self.bodies.reserve_exact(body.len().max(GROWTH_BYTES));
        }
        self.bodies.extend_from_slice(body);
        let end = u32::try_from(self.bodies.len()).expect("a group is closed long before it has 4 GiB");
        self.slots.push(Slot { seq, wall, kind, end });
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn body(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.slots[before].end as usize);
        &self.bodies[start..self.slots[index].end as usize]
    }

    /// From its first to its last frame. A group in a ring is never empty.
    pub(super) fn range(&self) -> SeqRange {
        let first = self.slots.first().map_or(Seq(0), |slot| slot.seq);
        SeqRange { first, last: self.slots.last().map_or(first, |slot| slot.seq) }
    }

    pub(super) fn index_of(&self, id: FrameId) -> Option<usize> {
        let here = self.epoch == id.epoch;
        here.then(|| self.slots.binary_search_by_key(&id.seq, |slot| slot.seq).ok()).flatten()
    }

    pub(super) fn frame(&self, id: FrameId) -> Option<Frame> {
        let index = self.index_of(id)?;
        Some(Frame { id, kind: self.slots[index].kind, body: self.body(index).to_vec() })
    }

    /// When the first and the last frame of `range` were taken.
    pub(super) fn times(&self, range: SeqRange) -> Option<(WallMs, WallMs)> {
        let mut inside = self.slots.iter().filter(|slot| range.first <= slot.seq && slot.seq <= range.last);
        let first = inside.next()?;
        Some((first.wall, inside.next_back().unwrap_or(first).wall))
    }

    pub(super) fn is_written(&self) -> bool {
        self.written == self.slots.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let exact = self.bodies.capacity() + self.slots.capacity() * size_of::<Slot>() + GROUP_OVERHEAD_BYTES;
        exact + exact / FRAGMENTED_PART
    }

    pub(super) fn shrink(&mut self) {
        self.slots.shrink_to_fit();
        self.bodies.shrink_to_fit();
    }
}

impl Ring {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter()
    }

    /// For what is written meanwhile; the frames stay as they are.
    pub(super) fn groups_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.groups.iter_mut()
    }

    pub(super) fn open_group(&self) -> Option<&Group> {
        self.groups.back().filter(|_| self.open)
    }

    pub(super) fn group_of(&self, id: FrameId) -> Option<&Group> {
        let after = self.groups.partition_point(|group| (group.epoch, group.range().first) <= (id.epoch, id.seq));
        self.groups.get(after.checked_sub(1)?).filter(|group| group.index_of(id).is_some())
    }

    /// Begins a group when none is under way.
    pub(super) fn push(&mut self, id: FrameId, kind: BodyKind, wall: WallMs, body: &[u8]) {
        if !self.open {
            self.groups.push_back(Group::new(id.epoch));
            self.open = true;
            self.bytes += self.groups.back().map_or(0, Group::bytes);
        }
        if let Some(group) = self.groups.back_mut() {
            let before = group.bytes();
            group.push(id.seq, kind, wall, body);
            self.bytes = self.bytes - before + group.bytes();
        }
    }

    pub(super) fn close(&mut self) {
        if let Some(group) = self.groups.back_mut().filter(|_| self.open) {
            let before = group.bytes();
            group.shrink();
            self.bytes = self.bytes - before + group.bytes();
        }
        self.open = false;
    }

    pub(super) fn pop_oldest(&mut self) -> Option<Group> {
        let group = self.groups.pop_front()?;
        self.bytes -= group.bytes();
        self.open &= !self.groups.is_empty();
        Some(group)
    }

    pub(super) fn oldest(&self) -> Option<&Group> {
        self.groups.front()
    }

    /// Frees what overlaps `range`, the group under way as well.
    pub(super) fn remove_within(&mut self, epoch: Epoch, range: SeqRange) {
        let outside = |group: &Group| {
            group.epoch != epoch || group.range().last < range.first || range.last < group.range().first
        };
        self.open &= self.groups.back().is_some_and(outside);
        self.retain_closed(outside);
    }

    /// Frees the groups for which `keep` is false. The one under way stays: deltas to come build on it.
    pub(super) fn retain_closed(&mut self, mut keep: impl FnMut(&Group) -> bool) {
        let last = self.groups.len().checked_sub(1).filter(|_| self.open);
        let mut index = 0;
        self.groups.retain(|group| {
            let stays = Some(index) == last || keep(group);
            index += 1;
            if !stays {
                self.bytes -= group.bytes();
            }
            stays
        });
    }
}
