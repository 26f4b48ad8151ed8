//! Corners of an agent's line that chance seldom meets: a delta too large for one message, and a file that rots.
//! In both the line must end with nothing that it owes.

use std::fs;

use dunlin_agent::line::{Line, Outgoing};
use dunlin_agent::spool::Spool;
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, NodeId};
use dunlin_shared::metric::{Kind, OpenMetric, Step, Unit};
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::session::agent::{Profile, Room};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{AgentControl, Assembler, CollectorControl, Config, Deframer, GapReason, Item, Welcome};
use dunlin_tests::scratch::Scratch;

const ROOM: Room = Room { live: true, backlog: true };
const INTERVAL_MS: u32 = 10_000;

fn line(epoch: u32, spool: Spool) -> Line {
    let (name, agent_version) = (String::new(), String::new());
    let node = NodeId::from_bytes([1; 16]);
    Line::new(
        Profile { node, name, agent_version, boot_id: [0; 16], interval_ms: INTERVAL_MS, ended: Vec::new() },
        Epoch(epoch),
        spool,
    )
}

fn connect(line: &mut Line, now: MonoMs) {
    line.connected(now, WallMs(0));
    while line.poll_outgoing(now, ROOM).is_some() {}
    line.hear(
        now,
        CollectorControl::Welcome(Welcome {
            wire: 1,
            collector_version: String::new(),
            held: Vec::new(),
            start_after_ms: 0,
            config: Config { interval_ms: 0, backlog_gap_ms: 0 },
            wall: WallMs(0),
            next_authority: Vec::new(),
        }),
    );
}

/// Some 16,000 series that all change by more than seven bytes hold.
fn large(tick: u64) -> Sample {
    let mut sample = Sample::new(MonoMs(10_000 * tick), WallMs(0));
    let metrics: Vec<_> = (0..250)
        .map(|n| OpenMetric::new(&format!("x_{n}"), Unit::Count, Kind::Gauge, Step::Each(1)).expect("a good name"))
        .collect();
    for unit in 0..60 {
        let subject = Subject::new(SubjectKind::Unit, &format!("{unit}.service")).expect("a unit's name");
        for metric in &metrics {
            let value = if tick.is_multiple_of(2) { 1e18 } else { -1e18 };
            assert!(sample.push_open(&subject, metric, value), "there is room");
        }
    }
    sample
}

fn frame_of(bytes: &[u8]) -> Frame {
    let (mut deframer, mut assembler) = (Deframer::default(), Assembler::default());
    deframer.push(bytes);
    loop {
        let body = deframer.next_message().expect("our own bytes").expect("a whole frame");
        if let Some(frame) = assembler.push(&Item::decode(body).expect("our own item")).expect("in order") {
            return frame;
        }
    }
}

#[test]
fn a_delta_too_large_for_one_message_goes_as_a_keyframe() {
    let mut line = line(1, Spool::new(8 << 20));
    connect(&mut line, MonoMs(0));
    for tick in 0..3 {
        let now = MonoMs(10_000 * tick);
        line.take_sample(now, &large(tick));
        let frames: Vec<_> = std::iter::from_fn(|| line.poll_outgoing(now, ROOM))
            .filter_map(|outgoing| match outgoing {
                Outgoing::Frame(_, bytes) => Some(frame_of(&bytes)),
                Outgoing::Control(_) => None,
            })
            .collect();
        assert_eq!(frames.iter().map(|frame| frame.id.seq.0).collect::<Vec<_>>(), [tick], "it goes out at once");
        assert_eq!(frames[0].kind, BodyKind::Key);
    }
}

#[test]
fn frames_whose_file_rots_are_said_to_be_lost_on_the_connection_that_stands() {
    let scratch = Scratch::new("rot").expect("the temporary directory is writable");
    let (spool, _) = Spool::open(scratch.path(), 1_000, Some(1 << 20));
    let mut line = line(1, spool);
    for tick in 0..70 {
        let mut sample = Sample::new(MonoMs(10_000 * tick), WallMs(0));
        let own = OpenMetric::new("x_a", Unit::Count, Kind::Gauge, Step::Each(1)).expect("a good name");
        assert!(sample.push_open(&Subject::HOST(), &own, 1.0), "there is room");
        line.take_sample(MonoMs(10_000 * tick), &sample);
    }
    for entry in fs::read_dir(scratch.path()).expect("it is there").flatten() {
        let length = entry.metadata().expect("a file").len();
        fs::write(entry.path(), vec![0; usize::try_from(length).expect("small")]).expect("a file of ours");
    }
    let mut now = MonoMs(700_000);
    connect(&mut line, now);
    let mut lost = 0;
    for _ in 0..40 {
        while let Some(outgoing) = line.poll_outgoing(now, ROOM) {
            let Outgoing::Control(bytes) = outgoing else { continue };
            let mut deframer = Deframer::default();
            deframer.push(&bytes);
            let body = deframer.next_message().expect("our own bytes").expect("a whole message");
            if let AgentControl::Gap(gap) = AgentControl::decode(body).expect("our own message") {
                assert_eq!(gap.reason, GapReason::Damaged);
                lost = lost.max(gap.range.count());
            }
        }
        now = now.plus(u64::from(INTERVAL_MS));
    }
    assert!(lost >= 30, "a group's worth of frames is gone, and {lost} are said to be");
}
