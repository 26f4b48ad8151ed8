//! The data streams of one connection: bytes in, whole frames out.
//!
//! It keeps at most one unfinished message and one unfinished frame for each stream, gives their memory back when they are
//! whole, and knows since when they are not.

use dunlin_shared::frame::Frame;
use dunlin_shared::limits::UNI_STREAMS_MAX;
use dunlin_shared::time::MonoMs;
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
    /// Since when something is begun and not whole.
    since: Option<MonoMs>,
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
        let (deframer, assembler) = (Deframer::default(), Assembler::default());
        let lane_in = LaneIn { stream, lane: None, deframer, assembler, since: None };
        *free.ok_or(CloseCode::Internal)? = Some(lane_in);
        Ok(())
    }

    /// The open streams by their index.
    pub(super) fn streams(&self) -> [Option<StreamId>; UNI_STREAMS_MAX as usize] {
        self.streams.each_ref().map(|lane| lane.as_ref().map(|lane| lane.stream))
    }

    /// Takes a stream's next bytes, and says how many of them are messages.
    pub(super) fn push(&mut self, now: MonoMs, at: usize, mut bytes: &[u8]) -> Result<usize, Broken> {
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
            lane_in.since.get_or_insert(now);
        }
        Ok(bytes.len())
    }

    /// The next message of any stream.
    pub(super) fn next(&mut self, now: MonoMs) -> Result<Option<Found>, WireError> {
        for lane_in in self.streams.iter_mut().flatten() {
            let Some(lane) = lane_in.lane else { continue };
            let Some(body) = lane_in.deframer.next_message()? else {
                if lane_in.held_bytes() == 0 {
                    lane_in.since = None;
                }
                continue;
            };
            let frame = Item::decode(body).and_then(|item| lane_in.assembler.push(&item))?;
            if frame.is_some() {
                lane_in.since = Some(now);
            }
            return Ok(Some(frame.map_or(Found::Piece, |frame| Found::Frame(lane, frame))));
        }
        Ok(None)
    }

    /// Since when the oldest of what is not whole is so.
    pub(super) fn unfinished_since(&self) -> Option<MonoMs> {
        self.streams.iter().flatten().filter_map(|lane_in| lane_in.since).min()
    }

    /// Bytes of what is not whole.
    pub(super) fn held_bytes(&self) -> usize {
        self.streams.iter().flatten().map(LaneIn::held_bytes).sum()
    }

    /// The stream is over; the lane that it was, if it came so far.
    pub(super) fn end(&mut self, at: usize) -> Option<Lane> {
        self.streams[at].take()?.lane
    }
}

impl LaneIn {
    fn held_bytes(&self) -> usize {
        self.deframer.held_bytes() + self.assembler.held_bytes()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_shared::frame::BodyKind;
    use dunlin_shared::id::{Epoch, FrameId, Seq};
    use dunlin_shared::wire::items;
    use quinn_proto::{Dir, Side};

    use super::*;

    const NOW: MonoMs = MonoMs(0);

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
            lanes.push(NOW, 0, chunk).expect("they are whole");
            while let Some(next) = lanes.next(NOW).expect("they are whole") {
                found.push(next);
            }
        }
        assert!(matches!(&found[..], [Found::Piece, Found::Frame(Lane::Backlog, whole)] if *whole == frame));
        assert_eq!((lanes.held_bytes(), lanes.unfinished_since()), (0, None));
        assert_eq!(lanes.end(0), Some(Lane::Backlog));
    }

    #[test]
    fn what_is_begun_is_known_to_be_until_it_is_whole() {
        let body = |n: u64| Frame { id: FrameId::new(1, n), kind: BodyKind::Key, body: vec![9; 70_000] };
        let bytes = items(&body(0)).expect("it fits");
        let mut lanes = Lanes::default();
        lanes.open(stream(0)).expect("there is room");
        assert_eq!(lanes.unfinished_since(), None, "nothing came yet");
        lanes.push(MonoMs(5), 0, &[&[Lane::Live as u8][..], &bytes[..69_000]].concat()).expect("they are whole");
        assert!(matches!(lanes.next(MonoMs(5)), Ok(Some(Found::Piece))));
        assert!(matches!(lanes.next(MonoMs(6)), Ok(None)));
        lanes.push(MonoMs(60), 0, &bytes[69_000..69_001]).expect("they are whole");
        assert!(matches!(lanes.next(MonoMs(60)), Ok(None)));
        assert_eq!(lanes.unfinished_since(), Some(MonoMs(5)), "a byte now and then does not make it younger");
        assert!((68_000..69_002).contains(&lanes.held_bytes()), "{}", lanes.held_bytes());
        let rest = [&bytes[69_001..], &items(&body(1)).expect("it fits")[..9]].concat();
        lanes.push(MonoMs(70), 0, &rest).expect("they are whole");
        assert!(matches!(lanes.next(MonoMs(70)), Ok(Some(Found::Frame(..)))));
        assert!(matches!(lanes.next(MonoMs(70)), Ok(None)));
        assert_eq!((lanes.unfinished_since(), lanes.held_bytes()), (Some(MonoMs(70)), 9), "the next one is begun");
    }

    #[test]
    fn two_streams_of_one_lane_are_refused_until_the_first_has_ended() {
        let mut lanes = Lanes::default();
        for index in 0..3 {
            lanes.open(stream(index)).expect("there is room");
        }
        assert!(!lanes.has_room());
        assert!(lanes.push(NOW, 0, &[Lane::Live as u8]).is_ok());
        assert!(matches!(lanes.push(NOW, 1, &[Lane::Live as u8]), Err(Broken::Twice)));
        lanes.end(0);
        assert!(lanes.push(NOW, 1, &[Lane::Live as u8]).is_ok());
    }
}
