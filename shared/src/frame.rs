//! A frame as it is spooled, sent and journalled: its id, and its body in encoded form.
//!
//! The content of (node, epoch, seq) never changes, though its encoding may: a delta that is sent
//! out of its place is encoded anew as a keyframe under the same id.

use crate::id::{Epoch, FrameId, Seq};

/// How a frame's body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// Stands alone.
    Key,
    /// Builds on the reading of the frame `back` numbers before it in the same epoch.
    Delta { back: u16 },
    /// What stands on the node; no values.
    Inventory,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub id: FrameId,
    pub kind: BodyKind,
    pub body: Vec<u8>,
}

impl Frame {
    /// The frame that a delta builds on.
    #[must_use]
    pub fn base(&self) -> Option<FrameId> {
        match self.kind {
            BodyKind::Delta { back } => self.id.back(back),
            BodyKind::Key | BodyKind::Inventory => None,
        }
    }
}

impl FrameId {
    #[must_use]
    pub const fn new(epoch: u32, seq: u64) -> Self {
        Self { epoch: Epoch(epoch), seq: Seq(seq) }
    }

    /// `None` when that would be before the epoch's first frame, or the frame itself.
    #[must_use]
    pub fn back(self, back: u16) -> Option<Self> {
        let seq = self.seq.0.checked_sub(u64::from(back))?;
        (back > 0).then_some(Self { epoch: self.epoch, seq: Seq(seq) })
    }
}
