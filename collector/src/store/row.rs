//! A record as the columns of its row, and back. The numbers of `kind` and `lane` are on disk: they
//! never change and are never used again for another meaning.
//!
//! ```text
//! kind           lane  epoch  seq              back  body
//! 0 tick                      paused_ms
//! 1 started
//! 2 key frame    1, 2  epoch  seq                    as encoded
//! 3 delta        1, 2  epoch  seq              back  as encoded
//! 4 inventory    1, 2  epoch  seq                    as encoded
//! 5 hello                                            SessionStart in postcard
//! 6 heartbeat
//! 7 gap                epoch  first of range         Gap in postcard
//! 8 goodbye            epoch  next_seq               Goodbye in postcard
//! 9 lost
//! 10 rewound           epoch  seq
//! 11 load                                            Load in postcard
//! 12 busy                                            thousandths in postcard
//! ```
//!
//! Unsigned 64-bit numbers are stored as the signed ones of the same bits.

use std::borrow::Cow;

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, Seq};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::Lane;
use rusqlite::types::ValueRef;

use super::sum::Sum;
use crate::record::{Event, NodeKey, Pos, Record};

pub(super) const SCHEMA: &str = "CREATE TABLE record (
    pos INTEGER PRIMARY KEY, at INTEGER NOT NULL, node INTEGER, prev INTEGER, kind INTEGER NOT NULL,
    lane INTEGER, epoch INTEGER, seq INTEGER, back INTEGER, body BLOB, sum INTEGER NOT NULL) STRICT;";

pub(super) const INSERT: &str = "INSERT INTO record (pos, at, node, prev, kind, lane, epoch, seq, back, body, sum)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

/// What `SELECT` has to name, in the order that `read` expects.
pub(super) const COLUMNS: &str = "pos, at, node, prev, kind, lane, epoch, seq, back, body, sum";

/// Frames, to which the back-links lead.
pub(super) const IS_FRAME: &str = "kind BETWEEN 2 AND 4";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub(super) pos: Pos,
    pub(super) at: WallMs,
    pub(super) node: Option<NodeKey>,
    pub(super) prev: Option<Pos>,
    pub(super) kind: u8,
    pub(super) lane: Option<u8>,
    pub(super) epoch: Option<Epoch>,
    pub(super) seq: Option<Seq>,
    pub(super) back: Option<u16>,
    pub(super) body: Option<Cow<'a, [u8]>>,
}

/// Why a row is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadRow(pub(super) &'static str);

impl<'a> Row<'a> {
    pub(super) fn of(pos: Pos, record: &'a Record, prev: Option<Pos>) -> Self {
        let mut row = Self {
            pos,
            at: record.at,
            node: record.event.node(),
            prev,
            kind: 0,
            lane: None,
            epoch: None,
            seq: None,
            back: None,
            body: None,
        };
        match &record.event {
            Event::Tick { elapsed_ms, paused_ms } => row.body = Some(encoded(&(*elapsed_ms, *paused_ms))),
            Event::Started => row.kind = 1,
            Event::Frame { lane, frame, .. } => {
                (row.kind, row.back) = match frame.kind {
                    BodyKind::Key => (2, None),
                    BodyKind::Delta { back } => (3, Some(back)),
                    BodyKind::Inventory => (4, None),
                };
                row.lane = Some(*lane as u8);
                row.epoch = Some(frame.id.epoch);
                row.seq = Some(frame.id.seq);
                row.body = Some(Cow::Borrowed(&frame.body));
            }
            Event::Hello { session, .. } => {
                row.kind = 5;
                row.body = Some(encoded(session));
            }
            Event::Heartbeat { .. } => row.kind = 6,
            Event::Gap { gap, .. } => {
                row.kind = 7;
                row.epoch = Some(gap.epoch);
                row.seq = Some(gap.range.first);
                row.body = Some(encoded(gap));
            }
            Event::Goodbye { goodbye, .. } => {
                row.kind = 8;
                row.epoch = Some(goodbye.epoch);
                row.seq = Some(goodbye.next_seq);
                row.body = Some(encoded(goodbye));
            }
            Event::Lost { .. } => row.kind = 9,
            Event::Rewound { epoch, seq, .. } => {
                row.kind = 10;
                row.epoch = Some(*epoch);
                row.seq = Some(*seq);
            }
            Event::Load(load) => {
                row.kind = 11;
                row.body = Some(encoded(load));
            }
            Event::Busy { permille } => {
                row.kind = 12;
                row.body = Some(encoded(permille));
            }
        }
        row
    }

    /// The record, if every part that its kind needs is there.
    pub(super) fn record(self) -> Result<Record, BadRow> {
        let at = self.at;
        let node = self.node.ok_or(BadRow("it names no node"));
        let event = match self.kind {
            0 => {
                let (elapsed_ms, paused_ms) = self.decoded()?;
                Event::Tick { elapsed_ms, paused_ms }
            }
            1 => Event::Started,
            2 => self.frame(BodyKind::Key)?,
            3 => {
                let back = self.back.ok_or(BadRow("a delta without its base"))?;
                self.frame(BodyKind::Delta { back })?
            }
            4 => self.frame(BodyKind::Inventory)?,
            5 => Event::Hello { node: node?, session: self.decoded()? },
            6 => Event::Heartbeat { node: node? },
            7 => Event::Gap { node: node?, gap: self.decoded()? },
            8 => Event::Goodbye { node: node?, goodbye: self.decoded()? },
            9 => Event::Lost { node: node? },
            10 => {
                let missing = BadRow("a rewind without its place");
                Event::Rewound { node: node?, epoch: self.epoch.ok_or(missing)?, seq: self.seq.ok_or(missing)? }
            }
            11 => Event::Load(self.decoded()?),
            12 => Event::Busy { permille: self.decoded()? },
            _ => return Err(BadRow("its kind is unknown")),
        };
        Ok(Record { at, event })
    }

    pub(super) const fn is_frame(&self) -> bool {
        matches!(self.kind, 2..=4)
    }

    pub(super) fn sum(&self) -> i32 {
        let mut sum = Sum::new();
        sum.add_number(number(self.pos.0));
        sum.add_number(self.at.0);
        // What is absent is told from every value that a column can have by the mask in front.
        let parts = [
            self.node.map(|node| i64::from(node.0)),
            self.prev.map(|prev| number(prev.0)),
            Some(i64::from(self.kind)),
            self.lane.map(i64::from),
            self.epoch.map(|epoch| i64::from(epoch.0)),
            self.seq.map(|seq| number(seq.0)),
            self.back.map(i64::from),
            self.body.as_ref().map(|body| i64::try_from(body.len()).unwrap_or(i64::MAX)),
        ];
        let mask = parts.iter().enumerate().fold(0, |mask, (i, part)| mask | (i64::from(part.is_some()) << i));
        sum.add_number(mask);
        for part in parts.into_iter().flatten() {
            sum.add_number(part);
        }
        sum.add(self.body.as_deref().unwrap_or_default());
        sum.value()
    }

    fn frame(self, kind: BodyKind) -> Result<Event, BadRow> {
        let missing = BadRow("a frame without one of its parts");
        let lane = match self.lane {
            Some(1) => Lane::Live,
            Some(2) => Lane::Backlog,
            _ => return Err(BadRow("its lane is unknown")),
        };
        let id = FrameId { epoch: self.epoch.ok_or(missing)?, seq: self.seq.ok_or(missing)? };
        let body = self.body.ok_or(missing)?.into_owned();
        Ok(Event::Frame { node: self.node.ok_or(missing)?, lane, frame: Frame { id, kind, body } })
    }

    fn decoded<T: serde::de::DeserializeOwned>(&self) -> Result<T, BadRow> {
        let body = self.body.as_deref().ok_or(BadRow("its body is missing"))?;
        match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            _ => Err(BadRow("its body cannot be decoded")),
        }
    }
}

/// Reads the columns named by `COLUMNS` and checks their sum; nothing is kept of a row that fails.
pub(super) fn read<'a>(columns: &'a rusqlite::Row<'_>) -> rusqlite::Result<Result<Row<'a>, BadRow>> {
    let body = match columns.get_ref(9)? {
        ValueRef::Null => None,
        ValueRef::Blob(bytes) => Some(Cow::Borrowed(bytes)),
        _ => return Ok(Err(BadRow("its body is no blob"))),
    };
    let row = Row {
        pos: Pos(unsigned(columns.get(0)?)),
        at: WallMs(columns.get(1)?),
        node: columns.get::<_, Option<u32>>(2)?.map(NodeKey),
        prev: columns.get::<_, Option<i64>>(3)?.map(|prev| Pos(unsigned(prev))),
        kind: columns.get(4)?,
        lane: columns.get(5)?,
        epoch: columns.get::<_, Option<u32>>(6)?.map(Epoch),
        seq: columns.get::<_, Option<i64>>(7)?.map(|seq| Seq(unsigned(seq))),
        back: columns.get(8)?,
        body,
    };
    let sum: i32 = columns.get(10)?;
    Ok(if sum == row.sum() { Ok(row) } else { Err(BadRow("its checksum is wrong")) })
}

pub(super) const fn number(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) const fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}

fn encoded<T: serde::Serialize>(value: &T) -> Cow<'static, [u8]> {
    Cow::Owned(postcard::to_stdvec(value).expect("plain structs of numbers, strings and enums always encode"))
}
