//! Bytes of a stream to messages, and items to whole frames.
//!
//! A `Deframer` keeps at most one message that is not whole yet, an `Assembler` at most one frame;
//! both refuse what would exceed its limit before they keep any of it.

use super::{Delta, Item, Piece, WireError};
use crate::frame::{BodyKind, Frame};
use crate::id::FrameId;
use crate::limits::{MESSAGE_BYTES_MAX, PIECE_BYTES_MAX, PIECES_MAX};
use crate::varint::{self, VarintError};

/// Cuts a stream's bytes into messages.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    taken: usize,
}

/// Puts the pieces of a frame together.
#[derive(Debug, Default)]
pub struct Assembler {
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    id: FrameId,
    kind: BodyKind,
    next: u16,
    count: u16,
    body: Vec<u8>,
}

impl Deframer {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message's body.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, WireError> {
        let mut rest = &self.buffer[self.taken..];
        let before = rest.len();
        let len = match varint::take(&mut rest) {
            Ok(len) => len,
            Err(VarintError::Truncated) => {
                self.shrink();
                return Ok(None);
            }
            Err(VarintError::Overlong) => return Err(WireError::Malformed("a message's length")),
        };
        let Some(len) = usize::try_from(len).ok().filter(|&len| len <= MESSAGE_BYTES_MAX) else {
            return Err(WireError::TooLarge { bytes: len });
        };
        let start = self.taken + before - rest.len();
        if rest.len() < len {
            return Ok(None);
        }
        self.taken = start + len;
        Ok(Some(&self.buffer[start..start + len]))
    }

    /// Bytes of a message that is not whole yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.buffer.len() - self.taken
    }

    /// Ten thousand connections at rest should not each keep a buffer.
    fn shrink(&mut self) {
        if self.taken == self.buffer.len() {
            self.buffer = Vec::new();
            self.taken = 0;
        }
    }
}

impl Assembler {
    /// Bytes of a frame that is not whole yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.body.len())
    }

    /// The frame that `item` completes, if it does.
    pub fn push(&mut self, item: &Item<'_>) -> Result<Option<Frame>, WireError> {
        let id = item.id();
        let (piece, kind) = match item {
            Item::Delta(delta) => {
                if let Some(partial) = self.partial.take() {
                    return Err(WireError::Piece { id: partial.id, index: partial.next, count: partial.count });
                }
                let kind = BodyKind::Delta { back: delta.back };
                return Ok(Some(Frame { id, kind, body: delta.body.to_vec() }));
            }
            Item::Key(piece) => (piece, BodyKind::Key),
            Item::Inventory(piece) => (piece, BodyKind::Inventory),
        };
        let mut partial = match self.partial.take() {
            None if piece.index == 0 => Partial { id, kind, next: 0, count: piece.count, body: Vec::new() },
            Some(partial)
                if (partial.id, partial.kind, partial.next, partial.count) == (id, kind, piece.index, piece.count) =>
            {
                partial
            }
            _ => {
                return Err(WireError::Piece { id, index: piece.index, count: piece.count });
            }
        };
        // No more than it holds: what is left unfinished is counted by its length.
        partial.body.reserve_exact(piece.body.len());
        partial.body.extend_from_slice(piece.body);
        partial.next += 1;
        if partial.next < partial.count {
            self.partial = Some(partial);
            return Ok(None);
        }
        Ok(Some(Frame { id, kind, body: partial.body }))
    }
}

/// A frame as encoded items, ready for a data stream. `None` when its body exceeds what pieces can hold.
#[must_use]
pub fn items(frame: &Frame) -> Option<Vec<u8>> {
    let FrameId { epoch, seq } = frame.id;
    if let BodyKind::Delta { back } = frame.kind {
        let fits = frame.body.len() <= PIECE_BYTES_MAX;
        return fits.then(|| Item::Delta(Delta { epoch, seq, back, body: &frame.body }).encode());
    }
    let count =
        u16::try_from(frame.body.len().div_ceil(PIECE_BYTES_MAX).max(1)).ok().filter(|&count| count <= PIECES_MAX)?;
    let mut out = Vec::with_capacity(frame.body.len() + 16 * usize::from(count));
    for index in 0..count {
        let start = usize::from(index) * PIECE_BYTES_MAX;
        let end = frame.body.len().min(start + PIECE_BYTES_MAX);
        let piece = Piece { epoch, seq, index, count, body: &frame.body[start..end] };
        let item = if frame.kind == BodyKind::Key { Item::Key(piece) } else { Item::Inventory(piece) };
        out.extend(item.encode());
    }
    Some(out)
}
