//! What is said on a connection, byte by byte.
//!
//! ```text
//! message        = length:varint body          length <= MESSAGE_BYTES_MAX, checked before anything is kept
//! control stream = message*                    AgentControl one way, CollectorControl the other
//! data stream    = kind:u8 message*            kind 1 is live, 2 is backlog; each message is an Item
//! ```
//!
//! Bodies are postcard. An enum grows at its end only, and a struct that has shipped is never
//! edited: what must change becomes a new variant. A body must be used up to its last byte.

mod assemble;
pub mod join;
#[cfg(test)]
mod tests;

pub use assemble::{Assembler, Deframer, items};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{Epoch, FrameId, NodeId, Seq};
use crate::limits::{
    ACK_RANGES_MAX, CERTIFICATE_BYTES_MAX, EPOCHS_MAX, HELD_RANGES_MAX, HOST_NAME_BYTES_MAX, MESSAGE_BYTES_MAX,
    PIECES_MAX, VERSION_BYTES_MAX,
};
use crate::range::SeqRange;
use crate::time::{MonoMs, WallMs};
use crate::varint;

/// The protocol on a connection; its number rises when neighbours can no longer talk.
pub const ALPN: &[u8] = b"dunlin/1";
/// Enrolment: a connection without a client certificate, with one question and one answer.
pub const ALPN_JOIN: &[u8] = b"dunlin-join/1";
/// The name in every collector's certificate, whatever its address.
pub const COLLECTOR_NAME: &str = "collector.dunlin";
/// A node's certificate names it by this and its id, as a URI.
pub const NODE_URI_PREFIX: &str = "dunlin:node:";

/// Messages that both ends know. Hello says which versions the agent speaks, Welcome which is used.
pub const WIRE_VERSION_MIN: u16 = 1;
pub const WIRE_VERSION_MAX: u16 = 1;

/// What an agent says on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentControl {
    Hello(Hello),
    /// Nothing else was sent for a while.
    Heartbeat,
    Gap(Gap),
    /// The agent stops on purpose; nothing follows but what was announced.
    Goodbye(Goodbye),
    /// The answer to a challenge.
    Present {
        nonce: u64,
    },
}

/// What a collector says on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CollectorControl {
    Welcome(Welcome),
    /// These are on disk: forget them.
    Ack(Vec<FrameRange>),
    /// These arrived and could not be stored: keep them, and send them again later.
    Nack(Nack),
    Config(Config),
    /// The collector goes away; what arrived until now is acknowledged first.
    Drain {
        reconnect_after_ms: u32,
    },
    /// The goodbye is on disk.
    Farewell,
    /// Somebody else says that it is this node: answer at once, if you are still there.
    Challenge {
        nonce: u64,
    },
    /// A new certificate for the key of this session, then what leads from it to an authority.
    Certificate {
        chain: Vec<Vec<u8>>,
    },
    /// An authority to believe from now on, signed by one that is believed already.
    Authority {
        der: Vec<u8>,
    },
    /// What is known of this node's inventory is not all of it: tell it whole.
    AskInventory,
}

/// One frame, or a piece of one, on a data stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item<'a> {
    Key(#[serde(borrow)] Piece<'a>),
    Delta(#[serde(borrow)] Delta<'a>),
    Inventory(#[serde(borrow)] Piece<'a>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece<'a> {
    pub epoch: Epoch,
    pub seq: Seq,
    /// From 0; pieces follow each other without another item between them.
    pub index: u16,
    pub count: u16,
    pub body: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta<'a> {
    pub epoch: Epoch,
    pub seq: Seq,
    /// The frame it builds on has the number `seq - back`.
    pub back: u16,
    pub body: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub wire_min: u16,
    pub wire_max: u16,
    pub node: NodeId,
    pub name: String,
    pub agent_version: String,
    pub boot_id: [u8; 16],
    /// The epoch of this run, and the number that its next frame will have.
    pub epoch: Epoch,
    pub next_seq: Seq,
    pub interval_ms: u32,
    pub mono: MonoMs,
    pub wall: WallMs,
    /// Every epoch of which the spool still holds frames, in ascending order.
    pub spooled: Vec<Spooled>,
    /// Earlier runs that ended in order, and whose goodbye no collector has confirmed.
    pub ended: Vec<Goodbye>,
}

/// The lowest and highest number that the spool holds of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    pub epoch: Epoch,
    pub range: SeqRange,
}

/// Frames that were dropped before they could be delivered. Acknowledged like the frames themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub epoch: Epoch,
    pub range: SeqRange,
    /// When the first and the last of them were taken, by the agent's clock.
    pub from: WallMs,
    pub to: WallMs,
    pub reason: GapReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GapReason {
    /// The spool was full; the oldest went.
    Overflow,
    /// The spool's file was damaged there.
    Damaged,
    /// The collector lost what it had acknowledged. No agent says so: it stands in the collector's own log.
    Restored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    pub epoch: Epoch,
    /// The epoch ends before this number.
    pub next_seq: Seq,
    pub reason: StopReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    Stopped,
    Restarting,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub wire: u16,
    pub collector_version: String,
    /// What the collector holds of each epoch that Hello listed.
    pub held: Vec<Held>,
    /// Wait so long before the first frame.
    pub start_after_ms: u32,
    pub config: Config,
    /// The collector's clock when it read the Hello.
    pub wall: WallMs,
    /// The authority that follows, signed by today's; empty when there is none.
    pub next_authority: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub epoch: Epoch,
    pub ranges: Vec<SeqRange>,
}

/// The parameters that a collector may set, within the bounds of the agent's own configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// 0 leaves the agent's own.
    pub interval_ms: u32,
    /// The least time between two backlog frames.
    pub backlog_gap_ms: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRange {
    pub epoch: Epoch,
    pub range: SeqRange,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    pub ranges: Vec<FrameRange>,
    pub retry_after_ms: u32,
}

/// Which of the two data streams; its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Lane {
    Live = 1,
    Backlog = 2,
}

/// Why a connection was closed: the code on the wire, and what a person reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum CloseCode {
    Done = 0,
    Malformed = 1,
    TooLarge = 2,
    Version = 3,
    WrongNode = 4,
    Superseded = 5,
    Flooding = 6,
    TooSlow = 7,
    Draining = 8,
    Overloaded = 9,
    Internal = 10,
    Unexpected = 11,
    /// The certificate is ours, and its node or its key is unknown.
    NotEnrolled = 12,
    Revoked = 13,
    /// A person must approve the node first.
    NotApproved = 14,
    /// Another machine is this node already.
    Quarantined = 15,
    /// What the agent sends was sent before with another content: its machine was set back.
    Rewound = 16,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    #[error("a message of {bytes} bytes, {MESSAGE_BYTES_MAX} are allowed")]
    TooLarge { bytes: u64 },
    #[error("{0} cannot be decoded")]
    Malformed(&'static str),
    #[error("{what}: {count}, {max} are allowed")]
    TooMany { what: &'static str, count: usize, max: usize },
    #[error("piece {index} of {count} of frame {id} is out of its place")]
    Piece { id: FrameId, index: u16, count: u16 },
    #[error("a data stream begins with the byte {0}, which is none of ours")]
    Lane(u8),
}

impl WireError {
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::TooLarge { .. } | Self::TooMany { .. } => CloseCode::TooLarge,
            Self::Malformed(_) | Self::Piece { .. } | Self::Lane(_) => CloseCode::Malformed,
        }
    }
}

impl Lane {
    pub const fn from_raw(raw: u8) -> Result<Self, WireError> {
        match raw {
            1 => Ok(Self::Live),
            2 => Ok(Self::Backlog),
            _ => Err(WireError::Lane(raw)),
        }
    }
}

impl CloseCode {
    pub const ALL: [Self; 17] = [
        Self::Done,
        Self::Malformed,
        Self::TooLarge,
        Self::Version,
        Self::WrongNode,
        Self::Superseded,
        Self::Flooding,
        Self::TooSlow,
        Self::Draining,
        Self::Overloaded,
        Self::Internal,
        Self::Unexpected,
        Self::NotEnrolled,
        Self::Revoked,
        Self::NotApproved,
        Self::Quarantined,
        Self::Rewound,
    ];

    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        usize::try_from(raw).ok().and_then(|raw| Self::ALL.get(raw)).copied()
    }

    /// In `/metrics` and in a log line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Version => "version",
            Self::WrongNode => "wrong_node",
            Self::Superseded => "superseded",
            Self::Flooding => "flooding",
            Self::TooSlow => "too_slow",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal",
            Self::Unexpected => "unexpected",
            Self::NotEnrolled => "not_enrolled",
            Self::Revoked => "revoked",
            Self::NotApproved => "not_approved",
            Self::Quarantined => "quarantined",
            Self::Rewound => "rewound",
        }
    }
}

impl AgentControl {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(self)
    }

    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let message: Self = exact(body, "an agent's control message")?;
        match &message {
            Self::Hello(hello) => hello.check()?,
            Self::Gap(gap) => ordered(&gap.range)?,
            Self::Heartbeat | Self::Goodbye(_) | Self::Present { .. } => {}
        }
        Ok(message)
    }
}

impl CollectorControl {
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        framed(self)
    }

    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let message: Self = exact(body, "a collector's control message")?;
        match &message {
            Self::Welcome(welcome) => welcome.check()?,
            Self::Ack(ranges) | Self::Nack(Nack { ranges, .. }) => {
                few("ranges", ranges.len(), ACK_RANGES_MAX)?;
                ranges.iter().try_for_each(|acked| ordered(&acked.range))?;
            }
            Self::Certificate { chain } => join::check_chain(chain)?,
            Self::Authority { der } => few("bytes of a certificate", der.len(), CERTIFICATE_BYTES_MAX)?,
            Self::Config(_) | Self::Drain { .. } | Self::Farewell | Self::Challenge { .. } | Self::AskInventory => {}
        }
        Ok(message)
    }
}

impl<'a> Item<'a> {
    pub fn encode(&self) -> Vec<u8> {
        framed(self)
    }

    pub fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let item = exact(body, "a frame")?;
        if let Self::Key(piece) | Self::Inventory(piece) = &item {
            if piece.count > PIECES_MAX {
                return Err(WireError::TooMany { what: "pieces", count: piece.count.into(), max: PIECES_MAX.into() });
            }
            if piece.index >= piece.count {
                return Err(WireError::Piece { id: item.id(), index: piece.index, count: piece.count });
            }
        }
        Ok(item)
    }

    #[must_use]
    pub const fn id(&self) -> FrameId {
        match self {
            Self::Key(piece) | Self::Inventory(piece) => FrameId { epoch: piece.epoch, seq: piece.seq },
            Self::Delta(delta) => FrameId { epoch: delta.epoch, seq: delta.seq },
        }
    }
}

impl Hello {
    fn check(&self) -> Result<(), WireError> {
        few("bytes of a name", self.name.len(), HOST_NAME_BYTES_MAX)?;
        few("bytes of a version", self.agent_version.len(), VERSION_BYTES_MAX)?;
        few("epochs", self.spooled.len(), EPOCHS_MAX)?;
        few("goodbyes", self.ended.len(), EPOCHS_MAX)?;
        if !self.spooled.is_sorted_by(|a, b| a.epoch < b.epoch) {
            return Err(WireError::Malformed("the list of epochs"));
        }
        self.spooled.iter().try_for_each(|spooled| ordered(&spooled.range))
    }
}

impl Welcome {
    fn check(&self) -> Result<(), WireError> {
        few("bytes of a version", self.collector_version.len(), VERSION_BYTES_MAX)?;
        few("epochs", self.held.len(), EPOCHS_MAX)?;
        few("bytes of a certificate", self.next_authority.len(), CERTIFICATE_BYTES_MAX)?;
        for held in &self.held {
            few("ranges", held.ranges.len(), HELD_RANGES_MAX)?;
            held.ranges.iter().try_for_each(ordered)?;
        }
        Ok(())
    }
}

fn framed<T: Serialize>(message: &T) -> Vec<u8> {
    let body = postcard::to_stdvec(message).expect("plain data serialises into a growing buffer");
    let mut out = Vec::with_capacity(body.len() + 3);
    varint::put(&mut out, body.len() as u64);
    out.extend_from_slice(&body);
    out
}

fn exact<'a, T: Deserialize<'a>>(body: &'a [u8], what: &'static str) -> Result<T, WireError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(WireError::Malformed(what)),
    }
}

fn few(what: &'static str, count: usize, max: usize) -> Result<(), WireError> {
    if count <= max { Ok(()) } else { Err(WireError::TooMany { what, count, max }) }
}

fn ordered(range: &SeqRange) -> Result<(), WireError> {
    if range.first <= range.last { Ok(()) } else { Err(WireError::Malformed("a range")) }
}
