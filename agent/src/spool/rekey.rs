//! Frames as keyframes: a delta that is sent out of its place must stand alone.
//!
//! The last reading is kept, so that resending a backlog in order decodes each frame once.

use dunlin_shared::codec::{decode_delta, decode_key, encode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId};
use dunlin_shared::range::SeqRange;
use dunlin_shared::sample::Reading;

use super::ring::Group;

#[derive(Debug, Default)]
pub(super) struct Rekeyed {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    id: FrameId,
    group: SeqRange,
    reading: Reading,
}

impl Rekeyed {
    /// A reading of a node with thousands of series is worth keeping only for the frames behind it.
    pub(super) fn forget_unless(&mut self, is_held: impl FnOnce(Epoch, SeqRange) -> bool) {
        self.last.take_if(|last| !is_held(last.id.epoch, last.group));
    }

    /// `None` when the chain of `id` is broken in `group`, or does not decode.
    pub(super) fn keyframe(&mut self, group: &Group, id: FrameId) -> Option<Frame> {
        let index = group.index_of(id)?;
        if !matches!(group.slots()[index].kind, BodyKind::Delta { .. }) {
            return group.frame(id);
        }
        let reading = self.reading(group, id)?;
        let body = encode_key(&reading);
        self.last = Some(Last { id, group: group.range(), reading });
        Some(Frame { id, kind: BodyKind::Key, body })
    }

    fn reading(&mut self, group: &Group, id: FrameId) -> Option<Reading> {
        let mut chain = Vec::new();
        let mut next = id;
        let mut reading = loop {
            if let Some(last) = self.last.take_if(|last| last.id == next) {
                break last.reading;
            }
            let index = group.index_of(next)?;
            match group.slots()[index].kind {
                BodyKind::Key => break decode_key(group.body(index)).ok()?,
                BodyKind::Delta { back } => next = next.back(back)?,
                BodyKind::Inventory => return None,
            }
            chain.push(index);
        };
        for &index in chain.iter().rev() {
            reading = decode_delta(&reading, group.body(index)).ok()?;
        }
        Some(reading)
    }
}
