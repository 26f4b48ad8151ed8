//! The data streams of one connection: bytes in, whole frames out.
//!
//! It keeps at most one unfinished message and one unfinished frame for each stream, and gives their
//! memory back when they are whole.

use dunlin_shared::frame::Frame;
use dunlin_shared::limits::UNI_STREAMS_MAX;
use dunlin_shared::wire::{Assembler, CloseCode, Deframer, Item, Lane, WireError};
use quinn_proto::StreamId;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    streams: [Option<LaneIn>; UNI_STREAMS_MAX as usize],
}

#[derive(Debug)]
struct LaneIn {
    stream: StreamId,
    lane: Option<Lane>,
    deframer: Deframer,
    assembler: Assembler,
}

/// What the bytes so far hold.
#[derive(Debug)]
pub(super) enum Found {
    /// A part of a frame that is not whole yet.
    Piece,
    Frame(Lane, Frame),
}

/// How a peer broke the rules of streams.
#[derive(Debug)]
pub(super) enum Broken {
    Wire(WireError),
    /// Two streams of one lane.
    Twice,
}

impl Lanes {
    pub(super) fn has_room(&self) -> bool {
        self.streams.iter().any(Option::is_none)
    }

    /// The caller asked for room before.
    pub(super) fn open(&mut self, stream: StreamId) -> Result<(), CloseCode> {
        let free = self.streams.iter_mut().find(|lane| lane.is_none());
        let lane_in = LaneIn { stream, lane: None, deframer: Deframer::default(), assembler: Assembler::default() };
        *free.ok_or(CloseCode::Internal)? = Some(lane_in);
        Ok(())
    }

    /// The open streams by their index.
    pub(super) fn streams(&self) -> [Option<StreamId>; UNI_STREAMS_MAX as usize] {
        self.streams.each_ref().map(|lane| lane.as_ref().map(|lane| lane.stream))
    }

    /// Takes a stream's next bytes, and says how many of them are messages.
    pub(super) fn push(&mut self, at: usize, mut bytes: &[u8]) -> Result<usize, Broken> {
        let Some(lane_in) = &self.streams[at] else { return Ok(0) };
        let mut named = lane_in.lane;
        if named.is_none() {
            let Some((&first, rest)) = bytes.split_first() else { return Ok(0) };
            bytes = rest;
            let lane = Lane::from_raw(first).map_err(Broken::Wire)?;
            if self.streams.iter().flatten().any(|other| other.lane == Some(lane)) {
                return Err(Broken::Twice);
            }
            named = Some(lane);
        }
        if let Some(lane_in) = &mut self.streams[at] {
            lane_in.lane = named;
            lane_in.deframer.push(bytes);
        }
        Ok(bytes.len())
    }

    /// The next message of any stream.
    pub(super) fn next(&mut self) -> Result<Option<Found>, WireError> {
        for lane_in in self.streams.iter_mut().flatten() {
            let Some(lane) = lane_in.lane else { continue };
            let Some(body) = lane_in.deframer.next_message()? else { continue };
            let frame = Item::decode(body).and_then(|item| lane_in.assembler.push(&item))?;
            return Ok(Some(frame.map_or(Found::Piece, |frame| Found::Frame(lane, frame))));
        }
        Ok(None)
    }

    /// The stream is over; the lane that it was, if it came so far.
    pub(super) fn end(&mut self, at: usize) -> Option<Lane> {
        self.streams[at].take()?.lane
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::frame::BodyKind;
    use dunlin_shared::id::{Epoch, FrameId, Seq};
    use dunlin_shared::wire::items;
    use quinn_proto::{Dir, Side};

    use super::*;

    fn stream(index: u64) -> StreamId {
        StreamId::new(Side::Client, Dir::Uni, index)
    }

    #[test]
    fn a_frame_is_found_however_its_bytes_are_cut() {
        let id = FrameId { epoch: Epoch(1), seq: Seq(4) };
        let frame = Frame { id, kind: BodyKind::Key, body: vec![9; 70_000] };
        let mut bytes = vec![Lane::Backlog as u8];
        bytes.extend(items(&frame).expect("it fits"));
        let mut lanes = Lanes::default();
        lanes.open(stream(0)).expect("there is room");
        let mut found = Vec::new();
        for chunk in bytes.chunks(1_111) {
            lanes.push(0, chunk).expect("they are whole");
            while let Some(next) = lanes.next().expect("they are whole") {
                found.push(next);
            }
        }
        assert!(matches!(&found[..], [Found::Piece, Found::Frame(Lane::Backlog, whole)] if *whole == frame));
        assert_eq!(lanes.end(0), Some(Lane::Backlog));
    }

    #[test]
    fn two_streams_of_one_lane_are_refused_until_the_first_has_ended() {
        let mut lanes = Lanes::default();
        for index in 0..3 {
            lanes.open(stream(index)).expect("there is room");
        }
        assert!(!lanes.has_room());
        assert!(lanes.push(0, &[Lane::Live as u8]).is_ok());
        assert!(matches!(lanes.push(1, &[Lane::Live as u8]), Err(Broken::Twice)));
        lanes.end(0);
        assert!(lanes.push(1, &[Lane::Live as u8]).is_ok());
    }
}
