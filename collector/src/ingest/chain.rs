//! For each node and lane the last frame decoded: what the next delta builds on.
//!
//! A chain knows whether its frame is stored in the current file. It is the only frame on which a
//! delta may be stored as it came; any other delta is encoded anew as a keyframe. A duplicate is
//! decoded, but never counts as stored: what was stored under its number may be something else.

use std::collections::HashMap;
use std::sync::Arc;

use dunlin_shared::codec::{decode_delta, decode_key, encode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::FrameId;
use dunlin_shared::sample::Reading;
use dunlin_shared::wire::Lane;

use super::Refusal;
use super::layouts::Layouts;
use crate::record::{Event, NodeKey, Record};

#[derive(Debug)]
pub(super) struct Chains {
    nodes: HashMap<NodeKey, NodeChains>,
    layouts: Layouts,
    /// The current file's number; 0 is none.
    file: u32,
    /// Chains whose frame is in the transaction under way.
    pending: Vec<(NodeKey, Lane)>,
}

/// Few nodes have a backlog at a time.
#[derive(Debug, Default)]
struct NodeChains {
    live: Option<Chain>,
    backlog: Option<Box<Chain>>,
}

#[derive(Debug)]
struct Chain {
    id: FrameId,
    reading: Arc<Reading>,
    /// The number of the file that the frame was stored in, 0 when in none.
    file: u32,
}

/// Gives the readings of stored records back, file by file in the order of the log.
#[derive(Debug, Default)]
pub struct Replay {
    chains: Chains,
}

impl Default for Chains {
    fn default() -> Self {
        Self { nodes: HashMap::new(), layouts: Layouts::default(), file: 1, pending: Vec::new() }
    }
}

impl Chains {
    /// The reading of a frame that has one.
    pub(super) fn decode(&mut self, node: NodeKey, lane: Lane, frame: &Frame) -> Result<Arc<Reading>, Refusal> {
        let last = self.chain(node, lane);
        let base = match frame.base() {
            None => None,
            Some(base) => {
                let known = last.filter(|chain| chain.id == base);
                Some(known.ok_or(Refusal::BaseUnknown { id: frame.id, base })?)
            }
        };
        let decoded = match (frame.kind, base) {
            (BodyKind::Key, _) => decode_key(&frame.body),
            (BodyKind::Delta { .. }, Some(base)) => decode_delta(&base.reading, &frame.body),
            (BodyKind::Delta { .. } | BodyKind::Inventory, _) => return Err(Refusal::NoReading { id: frame.id }),
        };
        let mut reading = decoded.map_err(|source| Refusal::Body { id: frame.id, source })?;
        match last {
            Some(last) if Arc::ptr_eq(&last.reading.layout, &reading.layout) => {}
            Some(last) if last.reading.layout == reading.layout => reading.layout = Arc::clone(&last.reading.layout),
            _ => reading.layout = self.layouts.intern(reading.layout),
        }
        Ok(Arc::new(reading))
    }

    /// The frame as it can stand in the current file. Before `advance`.
    pub(super) fn standing(&self, node: NodeKey, lane: Lane, frame: Frame, reading: &Reading) -> Frame {
        let stands = match frame.base() {
            None => true,
            Some(base) => self.chain(node, lane).is_some_and(|chain| chain.id == base && chain.file == self.file),
        };
        if stands { frame } else { Frame { id: frame.id, kind: BodyKind::Key, body: encode_key(reading) } }
    }

    /// The lane's last frame is now this one.
    pub(super) fn advance(&mut self, node: NodeKey, lane: Lane, id: FrameId, reading: &Arc<Reading>, stored: bool) {
        let file = if stored { self.file } else { 0 };
        let chain = Chain { id, reading: Arc::clone(reading), file };
        let chains = self.nodes.entry(node).or_default();
        match lane {
            Lane::Live => chains.live = Some(chain),
            Lane::Backlog => chains.backlog = Some(Box::new(chain)),
        }
        if stored {
            self.pending.push((node, lane));
        }
    }

    pub(super) fn lane_closed(&mut self, node: NodeKey, lane: Lane) {
        if let Some(chains) = self.nodes.get_mut(&node) {
            match lane {
                Lane::Live => chains.live = None,
                Lane::Backlog => chains.backlog = None,
            }
            if chains.live.is_none() && chains.backlog.is_none() {
                self.nodes.remove(&node);
            }
        }
    }

    pub(super) fn disconnected(&mut self, node: NodeKey) {
        self.nodes.remove(&node);
    }

    /// A file's number is never given again, so that what older files hold is never taken for it.
    pub(super) fn rotated(&mut self) {
        self.file = self.file.checked_add(1).unwrap_or_else(|| {
            self.nodes.clear();
            1
        });
    }

    pub(super) fn committed(&mut self) {
        self.pending.clear();
    }

    pub(super) fn rolled_back(&mut self) {
        for (node, lane) in std::mem::take(&mut self.pending) {
            if let Some(chains) = self.nodes.get_mut(&node) {
                let chain = match lane {
                    Lane::Live => chains.live.as_mut(),
                    Lane::Backlog => chains.backlog.as_deref_mut(),
                };
                if let Some(chain) = chain {
                    chain.file = 0;
                }
            }
        }
    }

    fn chain(&self, node: NodeKey, lane: Lane) -> Option<&Chain> {
        let chains = self.nodes.get(&node)?;
        match lane {
            Lane::Live => chains.live.as_ref(),
            Lane::Backlog => chains.backlog.as_deref(),
        }
    }

    /// Bytes apart from the readings: the table, with the hash table's spare room.
    #[cfg(test)]
    pub(super) fn table_bytes(&self) -> usize {
        self.nodes.capacity() * 8 / 7 * (size_of::<(NodeKey, NodeChains)>() + 1)
    }

    #[cfg(test)]
    pub(super) fn layouts(&self) -> usize {
        self.layouts.len()
    }
}

impl Replay {
    /// The record's reading, when it has one. Records must come from the beginning of a file: in
    /// its file a delta stands behind the frame that it builds on, in the same lane.
    pub fn reading(&mut self, record: &Record) -> Result<Option<Arc<Reading>>, Refusal> {
        match &record.event {
            Event::Frame { node, lane, frame } if frame.kind != BodyKind::Inventory => {
                let reading = self.chains.decode(*node, *lane, frame)?;
                self.chains.advance(*node, *lane, frame.id, &reading, false);
                Ok(Some(reading))
            }
            Event::Started => {
                self.chains.nodes.clear();
                Ok(None)
            }
            Event::Frame { .. }
            | Event::Tick { .. }
            | Event::Load(_)
            | Event::Busy { .. }
            | Event::Hello { .. }
            | Event::Heartbeat { .. }
            | Event::Gap { .. }
            | Event::Goodbye { .. }
            | Event::Lost { .. }
            | Event::Rewound { .. } => Ok(None),
        }
    }
}
