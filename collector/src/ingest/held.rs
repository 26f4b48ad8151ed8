//! What is held of one node: for each epoch the numbers that are stored or said to be lost.
//!
//! An epoch is forgotten only when it is an old one and the agent itself says that it holds nothing
//! more of it; from then on all of it counts as held. So no epoch is stored twice, and none is
//! given up. The newest frame is known by its content as well: a machine that was set back sends another.

use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::limits::{EPOCHS_MAX, HELD_RANGES_MAX};
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_shared::wire::{Held, Hello, Spooled};

use super::Refusal;
use super::fingerprint::Fingerprint;
use crate::record::EarlierRun;

/// Ranges of a node over all its epochs. An agent that sends its backlog in order makes two an
/// epoch at most; with `EPOCHS_MAX` epochs that is 128.
pub const RANGES_MAX: usize = 256;

/// Epochs, the one under way included, that are kept though the agent does not list them: a gap in
/// one of them may still be told. An agent that starts anew eight times while it has such a gap to
/// tell must list its epoch.
const EPOCHS_KEPT: u32 = 8;

/// A sorted set of ranges. One range is what a healthy node has, and it costs nothing on the heap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Ranges {
    #[default]
    None,
    One(SeqRange),
    Many(Box<SeqSet>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EpochHeld {
    pub(super) epoch: Epoch,
    pub(super) ranges: Ranges,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeHeld {
    pub(super) id: NodeId,
    /// The highest epoch that a Hello announced.
    pub(super) newest: Option<Epoch>,
    /// Epochs below it that are not in `epochs` are closed: all of them counts as held.
    pub(super) below: Epoch,
    /// Ascending.
    pub(super) epochs: Vec<EpochHeld>,
    pub(super) mark: Mark,
    /// The newest frame when this session began, asked for once more: what is newer may arrive before it.
    pub(super) awaited: Option<Box<Mark>>,
}

/// The newest frame that was ever stored, and what was in it: nothing when that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) epoch: Epoch,
    pub(super) print: Option<Fingerprint>,
    pub(super) seq: Seq,
}

enum Place {
    Open(usize),
    /// Not known yet: it would stand there.
    New(usize),
    Closed,
}

impl Ranges {
    pub(super) fn as_slice(&self) -> &[SeqRange] {
        match self {
            Self::None => &[],
            Self::One(range) => std::slice::from_ref(range),
            Self::Many(set) => set.ranges(),
        }
    }

    pub(super) fn from_set(set: SeqSet) -> Self {
        match set.ranges() {
            [] => Self::None,
            &[one] => Self::One(one),
            _ => Self::Many(Box::new(set)),
        }
    }

    pub(super) fn to_set(&self) -> SeqSet {
        self.as_slice().iter().copied().collect()
    }

    fn contains(&self, seq: Seq) -> bool {
        match self {
            Self::None => false,
            Self::One(range) => (range.first..=range.last).contains(&seq),
            Self::Many(set) => set.contains(seq),
        }
    }

    /// Whether `range` lies apart from all others, so that to add it takes a range more.
    fn is_apart(&self, range: SeqRange) -> bool {
        let ranges = self.as_slice();
        let at = ranges.partition_point(|r| r.last.0.saturating_add(1) < range.first.0);
        ranges.get(at).is_none_or(|r| r.first.0 > range.last.0.saturating_add(1))
    }

    fn insert(&mut self, range: SeqRange) {
        if let Self::One(one) = self
            && range.first.0 <= one.last.0.saturating_add(1)
            && one.first.0 <= range.last.0.saturating_add(1)
        {
            *one = SeqRange { first: one.first.min(range.first), last: one.last.max(range.last) };
        } else {
            self.change(|set| set.insert_range(range));
        }
    }

    fn remove(&mut self, range: SeqRange) {
        self.change(|set| set.remove_range(range));
    }

    fn change(&mut self, change: impl FnOnce(&mut SeqSet)) {
        if let Self::Many(set) = self {
            change(set);
            if set.ranges().len() < 2 {
                *self = Self::from_set(std::mem::take(set));
            }
        } else {
            let mut set = self.to_set();
            change(&mut set);
            *self = Self::from_set(set);
        }
    }
}

impl Mark {
    pub(super) const NONE: Self = Self { epoch: Epoch(0), print: None, seq: Seq(0) };

    const fn id(&self) -> FrameId {
        FrameId { epoch: self.epoch, seq: self.seq }
    }
}

impl NodeHeld {
    pub(super) const fn new(id: NodeId) -> Self {
        Self { id, newest: None, below: Epoch(0), epochs: Vec::new(), mark: Mark::NONE, awaited: None }
    }

    /// A session begins: what the agent no longer holds is closed, what it still holds is opened.
    /// Gives what is left of the run before, when this is a new one; what `holes` tells of it counts as there.
    pub(super) fn hello(&mut self, hello: &Hello, tells_holes: bool) -> Result<Option<EarlierRun>, Refusal> {
        if hello.node != self.id {
            return Err(Refusal::WrongNode { node: self.id, said: hello.node });
        }
        if let Some(newest) = self.newest.filter(|&newest| hello.epoch < newest) {
            return Err(Refusal::EpochBack { epoch: hello.epoch, newest });
        }
        // An agent counts on from what it sent; a machine that was set back counts it again.
        let newest_seq = match self.place(hello.epoch) {
            Place::Open(at) => self.epochs[at].ranges.as_slice().last().map(|range| range.last),
            Place::New(_) | Place::Closed => None,
        };
        if newest_seq.is_some_and(|newest| hello.next_seq <= newest) {
            return Err(Refusal::Rewound { id: FrameId { epoch: hello.epoch, seq: hello.next_seq } });
        }
        let earlier = self.newest.filter(|&newest| newest < hello.epoch);
        let before = earlier.map(|epoch| self.left_of(epoch, hello, tells_holes));
        let is_listed = |epoch| hello.spooled.binary_search_by_key(&epoch, |spooled| spooled.epoch).is_ok();
        let kept = Epoch(hello.epoch.0.saturating_sub(EPOCHS_KEPT - 1));
        for spooled in hello.spooled.iter().filter(|spooled| spooled.epoch < kept) {
            if let Place::New(at) = self.place(spooled.epoch) {
                self.open(at, spooled.epoch);
            }
        }
        self.epochs.retain(|held| held.epoch >= kept || is_listed(held.epoch));
        self.epochs.shrink_to_fit();
        self.below = self.below.max(kept);
        self.newest = Some(hello.epoch);
        let comes_again = |spooled: &Spooled| {
            self.asks_again(spooled.epoch) && (spooled.range.first..=spooled.range.last).contains(&self.mark.seq)
        };
        self.awaited = hello.spooled.iter().any(comes_again).then(|| Box::new(self.mark));
        Ok(before)
    }

    /// What an agent has had acknowledged and is not here, of the epochs that it counts or still has frames of. To be
    /// asked behind `hello`, when something may be lost here. What lies between the ends of what an agent lists is not
    /// known yet: it may still come, and else a later Hello no longer has it between them.
    pub(super) fn holes(&self, hello: &Hello) -> Vec<(Epoch, SeqRange)> {
        let listed = hello.spooled.iter().map(|spooled| (spooled.epoch, spooled.range.first));
        let is_listed = hello.spooled.iter().any(|spooled| spooled.epoch == hello.epoch);
        // A list that is full may lack it.
        let own = Some((hello.epoch, hello.next_seq)).filter(|_| !is_listed && hello.spooled.len() < EPOCHS_MAX);
        let mut holes = Vec::new();
        for (epoch, end) in listed.chain(own) {
            let Some(last) = end.0.checked_sub(1) else { continue };
            let mut set = SeqSet::from_iter([SeqRange { first: Seq(0), last: Seq(last) }]);
            match self.place(epoch) {
                Place::Closed => continue,
                Place::New(_) => {}
                Place::Open(at) => set.remove_all(&self.epochs[at].ranges.to_set()),
            }
            holes.extend(set.ranges().iter().map(|range| (epoch, *range)));
        }
        holes
    }

    /// Whether the frame was new. The newest one may not come again with another content.
    pub(super) fn insert(&mut self, id: FrameId, print: Fingerprint) -> Result<bool, Refusal> {
        self.announced(id.epoch)?;
        let range = SeqRange::one(id.seq);
        match self.place(id.epoch) {
            Place::Closed => return Ok(false),
            Place::Open(at) if self.epochs[at].ranges.contains(id.seq) => {
                let awaited = self.awaited.take_if(|mark| mark.id() == id);
                let differs = |mark: &Mark| mark.id() == id && mark.print.is_some_and(|known| known != print);
                let is_other = differs(&self.mark) || awaited.is_some_and(|mark| differs(&mark));
                return if is_other { Err(Refusal::Rewound { id }) } else { Ok(false) };
            }
            Place::Open(at) => {
                self.has_room(self.epochs[at].ranges.is_apart(range))?;
                self.epochs[at].ranges.insert(range);
            }
            Place::New(at) => {
                self.has_room(true)?;
                self.open(at, id.epoch).insert(range);
            }
        }
        self.note(id, Some(print));
        Ok(true)
    }

    /// A frame that is stored, and its content where that is known.
    pub(super) fn note(&mut self, id: FrameId, print: Option<Fingerprint>) {
        if id >= self.mark.id() {
            self.mark = Mark { epoch: id.epoch, print, seq: id.seq };
        }
    }

    /// The parts of the range that were missing; all of it is held from now on.
    pub(super) fn insert_gap(&mut self, epoch: Epoch, range: SeqRange) -> Result<Vec<SeqRange>, Refusal> {
        self.announced(epoch)?;
        let at = match self.place(epoch) {
            Place::Closed => return Ok(Vec::new()),
            Place::Open(at) => at,
            Place::New(at) => {
                self.has_room(true)?;
                self.open(at, epoch);
                at
            }
        };
        self.has_room(self.epochs[at].ranges.is_apart(range))?;
        let mut missing = SeqSet::from_iter([range]);
        missing.remove_all(&self.epochs[at].ranges.to_set());
        self.epochs[at].ranges.insert(range);
        Ok(missing.ranges().to_vec())
    }

    /// What our own journal says is stored. It knows of no limit: it was kept within them.
    pub(super) fn observe(&mut self, epoch: Epoch, range: SeqRange) {
        match self.place(epoch) {
            Place::Closed => {}
            Place::Open(at) => self.epochs[at].ranges.insert(range),
            Place::New(at) => self.open(at, epoch).insert(range),
        }
    }

    pub(super) fn remove(&mut self, epoch: Epoch, range: SeqRange) {
        if self.mark.epoch == epoch && (range.first..=range.last).contains(&self.mark.seq) {
            self.mark.print = None;
        }
        if let Place::Open(at) = self.place(epoch) {
            self.epochs[at].ranges.remove(range);
        }
    }

    /// What is held of `asked`, less what `unsure` names: the lowest ranges when there are many. The newest frame
    /// of the run under way is left out, so that it comes once more and can be compared.
    pub(super) fn answer(&self, asked: &Spooled, unsure: impl Iterator<Item = SeqRange>) -> Held {
        let ranges = match self.place(asked.epoch) {
            Place::New(_) => Vec::new(),
            Place::Closed => vec![asked.range],
            Place::Open(at) => {
                let mut set = self.epochs[at].ranges.to_set();
                unsure.for_each(|range| set.remove_range(range));
                if self.asks_again(asked.epoch) {
                    set.remove_range(SeqRange::one(self.mark.seq));
                }
                let clipped = set.ranges().iter().filter_map(|range| {
                    SeqRange::checked(range.first.max(asked.range.first), range.last.min(asked.range.last))
                });
                clipped.take(HELD_RANGES_MAX).collect()
            }
        };
        Held { epoch: asked.epoch, ranges }
    }

    /// Whether the newest frame is of that run, and its content known.
    fn asks_again(&self, epoch: Epoch) -> bool {
        self.mark.print.is_some() && self.mark.epoch == epoch && self.newest == Some(epoch)
    }

    fn place(&self, epoch: Epoch) -> Place {
        match self.epochs.binary_search_by_key(&epoch, |held| held.epoch) {
            Ok(at) => Place::Open(at),
            Err(_) if epoch < self.below => Place::Closed,
            Err(at) => Place::New(at),
        }
    }

    /// Room for one: few agents ever have two epochs under way.
    fn open(&mut self, at: usize, epoch: Epoch) -> &mut Ranges {
        self.epochs.reserve_exact(1);
        self.epochs.insert(at, EpochHeld { epoch, ranges: Ranges::None });
        &mut self.epochs[at].ranges
    }

    /// Only a Hello opens epochs, and it lists few: what frames name cannot make the table grow.
    fn announced(&self, epoch: Epoch) -> Result<(), Refusal> {
        match self.newest {
            Some(newest) if epoch <= newest => Ok(()),
            _ => Err(Refusal::EpochUnannounced { epoch }),
        }
    }

    fn has_room(&self, adds_one: bool) -> Result<(), Refusal> {
        let count = || self.epochs.iter().map(|held| held.ranges.as_slice().len()).sum::<usize>();
        if adds_one && count() >= RANGES_MAX { Err(Refusal::Scattered { max: RANGES_MAX }) } else { Ok(()) }
    }

    fn left_of(&self, epoch: Epoch, hello: &Hello, tells_holes: bool) -> EarlierRun {
        let mut set = match self.place(epoch) {
            Place::Open(at) => self.epochs[at].ranges.to_set(),
            Place::New(_) | Place::Closed => SeqSet::new(),
        };
        if let Ok(at) = hello.spooled.binary_search_by_key(&epoch, |spooled| spooled.epoch) {
            let SeqRange { first, last } = hello.spooled[at].range;
            set.insert_range(SeqRange { first: if tells_holes { Seq(0) } else { first }, last });
        }
        let ended = hello.ended.iter().find(|goodbye| goodbye.epoch == epoch).map(|goodbye| goodbye.next_seq);
        EarlierRun { epoch, last: set.last(), count: set.count(), ended }
    }
}
