//! Each rule by itself; `sim` beside it puts them together against a plain model.

use dunlin_shared::codec::{Grouper, decode_key, encode_delta, encode_key};
use dunlin_shared::id::Seq;
use dunlin_shared::inventory::Facts;
use dunlin_shared::metric::by_name;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::{GapReason, Spooled};
use proptest::prelude::*;

use super::*;
use crate::record::{EarlierRun, NODES_MAX};

const NOW: WallMs = WallMs(1_700_000_000_000);

fn node_id(n: u8) -> NodeId {
    NodeId::v7(7, [n; 10])
}

fn reading(grouper: &mut Grouper, tick: u64, series: usize) -> Reading {
    let metric = by_name("fs_used_bytes").expect("a catalogue metric");
    let mut sample = Sample::new(MonoMs(tick * 10_000), NOW.plus((tick * 10_000).cast_signed()));
    for n in 0..series {
        let subject = Subject::new(SubjectKind::Fs, &format!("/{n}")).expect("a mount point");
        sample.push(&subject, metric, f64::from(u32::try_from(tick * 7 + n as u64).expect("small")) * 4096.0);
    }
    grouper.lay_out(&sample).0
}

fn readings<const N: usize>() -> [Reading; N] {
    let mut grouper = Grouper::default();
    std::array::from_fn(|tick| reading(&mut grouper, tick as u64, 5))
}

fn key(epoch: u32, seq: u64, reading: &Reading) -> Frame {
    Frame { id: FrameId::new(epoch, seq), kind: BodyKind::Key, body: encode_key(reading) }
}

fn delta(epoch: u32, seq: u64, base: &Reading, next: &Reading) -> Frame {
    let body = encode_delta(base, next).expect("it builds on the base");
    Frame { id: FrameId::new(epoch, seq), kind: BodyKind::Delta { back: 1 }, body }
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange { first: Seq(first), last: Seq(last) }
}

fn hello(id: NodeId, epoch: u32, spooled: &[(u32, SeqRange)]) -> Hello {
    Hello {
        wire_min: 1,
        wire_max: 1,
        node: id,
        name: "host".into(),
        agent_version: "0.1.0".into(),
        boot_id: [1; 16],
        epoch: Epoch(epoch),
        next_seq: Seq(1_000_000),
        interval_ms: 10_000,
        mono: MonoMs(0),
        wall: NOW.plus(250),
        spooled: spooled.iter().map(|&(epoch, range)| Spooled { epoch: Epoch(epoch), range }).collect(),
        ended: Vec::new(),
    }
}

fn gap(epoch: u32, range: SeqRange) -> Gap {
    Gap { epoch: Epoch(epoch), range, from: NOW, to: NOW, reason: GapReason::Overflow }
}

/// An ingest with one node whose session in epoch 1 has begun.
fn begun() -> (Ingest, NodeKey) {
    let mut ingest = Ingest::default();
    let node = ingest.enlist(node_id(1)).expect("there is room");
    let (record, _) = ingest.hello(NOW, node, &hello(node_id(1), 1, &[])).expect("a first session");
    let Event::Hello { session, .. } = record.event else { panic!("a Hello is recorded as one") };
    assert_eq!((session.skew_ms, session.before), (250, None));
    ingest.committed();
    (ingest, node)
}

fn stored(admitted: Result<Admitted, Refusal>) -> Frame {
    match admitted {
        Ok(Admitted::Store { record: Record { event: Event::Frame { frame, .. }, .. }, .. }) => frame,
        other => panic!("it is stored, not {other:?}"),
    }
}

#[test]
fn delta_is_kept_as_it_came_only_beside_its_base() {
    let (mut ingest, node) = begun();
    let r = readings::<5>();
    let admit = |ingest: &mut Ingest, frame: Frame| stored(ingest.admit(NOW, node, Lane::Live, frame));
    admit(&mut ingest, key(1, 0, &r[0]));
    assert_eq!(admit(&mut ingest, delta(1, 1, &r[0], &r[1])), delta(1, 1, &r[0], &r[1]));
    ingest.committed();
    ingest.rotated();
    assert_eq!(admit(&mut ingest, delta(1, 2, &r[1], &r[2])), key(1, 2, &r[2]), "the first in a file");
    assert_eq!(admit(&mut ingest, delta(1, 3, &r[2], &r[3])).base(), Some(FrameId::new(1, 2)));
    ingest.rolled_back();
    assert_eq!(admit(&mut ingest, delta(1, 4, &r[3], &r[4])), key(1, 4, &r[4]), "its base was rolled back");
    assert_eq!(stored(ingest.admit(NOW, node, Lane::Backlog, key(1, 3, &r[3]))), key(1, 3, &r[3]), "sent again");
}

#[test]
fn delta_on_a_duplicate_is_encoded_anew() {
    let (mut ingest, node) = begun();
    let r = readings::<2>();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])));
    let again = ingest.admit(NOW, node, Lane::Backlog, key(1, 0, &r[0]));
    assert_eq!(again, Ok(Admitted::Duplicate(FrameId::new(1, 0))));
    let next = ingest.admit(NOW, node, Lane::Backlog, delta(1, 1, &r[0], &r[1]));
    assert_eq!(stored(next), key(1, 1, &r[1]));
}

#[test]
fn a_chain_ends_with_its_stream() {
    let r = readings::<2>();
    let ends: [fn(&mut Ingest, NodeKey); 3] = [
        |ingest, node| ingest.lane_closed(node, Lane::Live),
        |ingest, node| ingest.disconnected(node),
        |ingest, node| drop(ingest.hello(NOW, node, &hello(node_id(1), 1, &[])).expect("the same run")),
    ];
    for end in ends {
        let (mut ingest, node) = begun();
        stored(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])));
        end(&mut ingest, node);
        let refusal = ingest.admit(NOW, node, Lane::Live, delta(1, 1, &r[0], &r[1])).expect_err("nothing to build on");
        assert_eq!(refusal, Refusal::BaseUnknown { id: FrameId::new(1, 1), base: FrameId::new(1, 0) });
        assert_eq!(refusal.close_code(), CloseCode::Unexpected);
    }
}

#[test]
fn welcome_promises_nothing_that_is_not_committed() {
    let (mut ingest, node) = begun();
    let r = readings::<3>();
    let asked = [Spooled { epoch: Epoch(1), range: range(0, 1) }];
    let held = |ingest: &Ingest| ingest.ledger().held(node, &asked)[0].ranges.clone();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])));
    assert_eq!(held(&ingest), []);
    ingest.committed();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 1, &r[1])));
    assert_eq!(held(&ingest), [range(0, 0)]);
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 2, &r[2])));
    ingest.committed();
    assert_eq!(held(&ingest), [range(0, 1)], "clipped to what was asked");
}

#[test]
fn gap_is_recorded_where_nothing_is_held() {
    let (mut ingest, node) = begun();
    let r = readings::<1>();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 5, &r[0])));
    let pieces = ingest.gap(NOW, node, &gap(1, range(2, 8))).expect("announced");
    let ranges: Vec<_> = pieces
        .iter()
        .map(|record| match &record.event {
            Event::Gap { gap, .. } => gap.range,
            other => panic!("{other:?} is no gap"),
        })
        .collect();
    assert_eq!(ranges, [range(2, 4), range(6, 8)]);
    assert_eq!(ingest.gap(NOW, node, &gap(1, range(3, 7))), Ok(vec![]), "acknowledged again, not recorded again");
    let late = ingest.admit(NOW, node, Lane::Live, key(1, 7, &r[0]));
    assert_eq!(late, Ok(Admitted::Duplicate(FrameId::new(1, 7))));
    ingest.rolled_back();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 7, &r[0])));
}

#[test]
fn an_epoch_that_the_agent_no_longer_lists_is_never_stored_again() {
    let (mut ingest, node) = begun();
    let r = readings::<1>();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])));
    ingest.committed();
    let (record, _) =
        ingest.hello(NOW, node, &hello(node_id(1), 40, &[(2, range(0, 9)), (40, range(0, 0))])).expect("a new run");
    let Event::Hello { session, .. } = record.event else { panic!("a Hello is recorded as one") };
    assert_eq!(session.before, Some(EarlierRun { epoch: Epoch(1), last: Some(Seq(0)), count: 1, ended: None }));
    ingest.committed();
    for epoch in [1, 3, 32] {
        let late = ingest.admit(NOW, node, Lane::Backlog, key(epoch, 77, &r[0]));
        assert_eq!(late, Ok(Admitted::Duplicate(FrameId::new(epoch, 77))), "epoch {epoch} is closed");
    }
    stored(ingest.admit(NOW, node, Lane::Backlog, key(2, 3, &r[0])));
    ingest.committed();
    let ingest = Ingest::recover(&ingest.snapshot()).expect("our own snapshot");
    let asked = [1, 2, 40].map(|epoch| Spooled { epoch: Epoch(epoch), range: range(0, 9) });
    let held: Vec<_> = ingest.ledger().held(node, &asked).into_iter().map(|held| held.ranges).collect();
    assert_eq!(held, [vec![range(0, 9)], vec![range(3, 3)], vec![]]);
}

#[test]
fn a_gap_in_a_recent_epoch_that_is_not_listed_is_recorded_once() {
    let (mut ingest, node) = begun();
    ingest.hello(NOW, node, &hello(node_id(1), 7, &[])).expect("a new run");
    for epoch in [1, 6] {
        assert_eq!(ingest.gap(NOW, node, &gap(epoch, range(0, 4))).map(|records| records.len()), Ok(1));
        assert_eq!(ingest.gap(NOW, node, &gap(epoch, range(0, 4))).map(|records| records.len()), Ok(0));
    }
}

#[test]
fn an_epoch_that_goes_back_or_was_not_announced_is_refused() {
    let (mut ingest, node) = begun();
    let r = readings::<1>();
    let early = ingest.admit(NOW, node, Lane::Live, key(2, 0, &r[0]));
    assert_eq!(early, Err(Refusal::EpochUnannounced { epoch: Epoch(2) }));
    assert_eq!(ingest.gap(NOW, node, &gap(9, range(0, 1))).map_err(|r| r.close_code()), Err(CloseCode::Unexpected));
    ingest.hello(NOW, node, &hello(node_id(1), 5, &[])).expect("a new run");
    let back = ingest.hello(NOW, node, &hello(node_id(1), 4, &[])).expect_err("restored from a copy");
    assert_eq!(back, Refusal::EpochBack { epoch: Epoch(4), newest: Epoch(5) });
    assert_eq!((back.close_code(), back.rewound()), (CloseCode::Rewound, Some(FrameId::new(4, 0))));
    let liar = ingest.hello(NOW, node, &hello(node_id(2), 6, &[])).expect_err("another's name");
    assert_eq!(liar.close_code(), CloseCode::WrongNode);
}

#[test]
fn an_agent_that_counts_again_what_it_counted_before_is_refused() {
    let (mut ingest, node) = begun();
    let r = readings::<1>();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 7, &r[0])));
    let mut come = |next_seq| ingest.hello(NOW, node, &Hello { next_seq: Seq(next_seq), ..hello(node_id(1), 1, &[]) });
    let refusal = come(7).expect_err("it was set back");
    assert_eq!((refusal.close_code(), refusal.rewound()), (CloseCode::Rewound, Some(FrameId::new(1, 7))));
    assert!(come(8).is_ok(), "whoever merely lost its connection counts on");
    let raised = Hello { next_seq: Seq(0), ..hello(node_id(1), 2, &[]) };
    assert!(ingest.hello(NOW, node, &raised).is_ok(), "and whoever was set back may raise its epoch");
}

#[test]
fn the_newest_frame_comes_once_more_and_may_not_have_changed() {
    let (mut ingest, node) = begun();
    let r = readings::<4>();
    for seq in 0..3 {
        stored(ingest.admit(NOW, node, Lane::Live, key(1, seq, &r[usize::try_from(seq).expect("small")])));
    }
    ingest.committed();
    let asked = hello(node_id(1), 1, &[(1, range(0, 5))]);
    let (_, held) = ingest.hello(NOW, node, &asked).expect("the same run");
    assert_eq!(held[0].ranges, [range(0, 1)]);
    let again = |ingest: &mut Ingest, frame| ingest.admit(NOW, node, Lane::Backlog, frame);
    assert_eq!(again(&mut ingest, key(1, 1, &r[1])), Ok(Admitted::Duplicate(FrameId::new(1, 1))));
    let coded_otherwise = delta(1, 2, &r[1], &r[2]);
    assert_eq!(again(&mut ingest, coded_otherwise), Ok(Admitted::Duplicate(FrameId::new(1, 2))));
    let other = Err(Refusal::Rewound { id: FrameId::new(1, 2) });
    assert_eq!(again(&mut ingest, key(1, 2, &r[3])), other);
    let mut restarted = Ingest::recover(&ingest.snapshot()).expect("our own");
    assert_eq!(again(&mut restarted, key(1, 2, &r[3])), other, "the snapshot knows it");
    let (_, held) = ingest.hello(NOW, node, &hello(node_id(1), 2, &[(1, range(0, 5))])).expect("a new run");
    assert_eq!(held[0].ranges, [range(0, 2)], "an earlier run is over: nothing of it comes again");
}

/// A machine that was set back, and that counted beyond what is held before it was heard of: its live frame is new.
#[test]
fn the_newest_frame_is_compared_though_a_newer_one_arrives_before_it() {
    let r = readings::<4>();
    let id = FrameId::new(1, 2);
    for (again, answer) in [(&r[3], Err(Refusal::Rewound { id })), (&r[2], Ok(Admitted::Duplicate(id)))] {
        let (mut ingest, node) = begun();
        for (seq, reading) in (0..3).zip(&r) {
            stored(ingest.admit(NOW, node, Lane::Live, key(1, seq, reading)));
        }
        ingest.committed();
        let asked = Hello { next_seq: Seq(6), ..hello(node_id(1), 1, &[(1, range(0, 5))]) };
        ingest.hello(NOW, node, &asked).expect("it counts on");
        stored(ingest.admit(NOW, node, Lane::Live, key(1, 5, &r[3])));
        assert_eq!(ingest.admit(NOW, node, Lane::Backlog, key(1, 2, again)), answer);
    }
}

#[test]
fn what_the_newest_frame_held_is_known_again_from_the_journal() {
    let (mut ingest, node) = begun();
    let r = readings::<3>();
    let snapshot = ingest.snapshot();
    let mut journal = Vec::new();
    for frame in [key(1, 0, &r[0]), delta(1, 1, &r[0], &r[1])] {
        let Ok(Admitted::Store { record, .. }) = ingest.admit(NOW, node, Lane::Live, frame) else {
            panic!("it is new")
        };
        journal.push(record);
    }
    let mut restarted = Ingest::recover(&snapshot).expect("our own");
    journal.iter().for_each(|record| restarted.observe(record));
    assert_eq!(restarted.admit(NOW, node, Lane::Live, key(1, 1, &r[1])), Ok(Admitted::Duplicate(FrameId::new(1, 1))));
    assert!(restarted.admit(NOW, node, Lane::Live, key(1, 1, &r[2])).is_err());
}

#[test]
fn a_frame_that_was_rolled_back_may_come_as_it_likes() {
    let (mut ingest, node) = begun();
    let r = readings::<2>();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])));
    ingest.rolled_back();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[1])));
    assert!(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])).is_err());
}

#[test]
fn a_snapshot_without_fingerprints_is_read() {
    let mut first = vec![1, 1, 0];
    first.extend(node_id(1).bytes());
    first.extend([1, 1, 0, 1, 1, 1, 0, 4]);
    let ledger = Ledger::decode(&first).expect("as version 1 wrote it");
    let asked = [Spooled { epoch: Epoch(1), range: range(0, 9) }];
    assert_eq!(ledger.held(NodeKey(0), &asked)[0].ranges, [range(0, 4)]);
    assert_eq!(Ledger::decode(&[9]).err(), Some(SnapshotError::Version(9)));
}

#[test]
fn a_hello_that_was_rolled_back_is_told_by_the_next() {
    let (mut ingest, node) = begun();
    let before = |ingest: &mut Ingest| match ingest.hello(NOW, node, &hello(node_id(1), 2, &[])) {
        Ok((Record { event: Event::Hello { session, .. }, .. }, _)) => session.before.map(|run| run.epoch),
        other => panic!("{other:?} is no Hello"),
    };
    assert_eq!(before(&mut ingest), Some(Epoch(1)));
    ingest.rolled_back();
    assert_eq!(before(&mut ingest), Some(Epoch(1)));
    ingest.committed();
    assert_eq!(before(&mut ingest), None);
}

#[test]
fn a_session_whose_hello_was_rolled_back_is_introduced_before_its_next_frame() {
    let (mut ingest, r) = (Ingest::default(), readings::<1>());
    let snapshot = ingest.snapshot();
    let node = ingest.enlist(node_id(1)).expect("there is room");
    ingest.hello(NOW, node, &hello(node_id(1), 1, &[])).expect("the first");
    ingest.rolled_back();
    let mut journal = Vec::from_iter(ingest.retell(NOW, node));
    assert_eq!(ingest.retell(NOW, node), None, "once");
    match ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])) {
        Ok(Admitted::Store { record, .. }) => journal.push(record),
        other => panic!("{other:?} is not stored"),
    }
    ingest.committed();
    let mut restarted = Ingest::recover(&snapshot).expect("our own");
    journal.iter().for_each(|record| restarted.observe(record));
    assert_eq!(restarted.ledger().key_of(node_id(1)), Some(node), "the journal says whose key it is");
    let again = restarted.admit(NOW, node, Lane::Live, key(1, 0, &r[0]));
    assert_eq!(again, Ok(Admitted::Duplicate(FrameId::new(1, 0))));
}

#[test]
fn scattered_numbers_are_refused_beyond_the_limit() {
    let (mut ingest, node) = begun();
    let r = readings::<1>();
    let mut send = |seq| ingest.admit(NOW, node, Lane::Live, key(1, seq, &r[0]));
    for n in 0..RANGES_MAX as u64 {
        stored(send(n * 2));
    }
    let refusal = send(100_000).expect_err("one range too many");
    assert_eq!((refusal.clone(), refusal.close_code()), (Refusal::Scattered { max: RANGES_MAX }, CloseCode::Flooding));
    stored(send(1));
    stored(send(100_000));
    assert!(ingest.gap(NOW, node, &gap(1, range(0, u64::MAX))).expect("it merges all").len() <= RANGES_MAX);
}

#[test]
fn malformed_bodies_are_refused_by_their_kind() {
    let (mut ingest, node) = begun();
    let frame = |kind, body: &[u8]| Frame { id: FrameId::new(1, 3), kind, body: body.to_vec() };
    let mut code = |frame| ingest.admit(NOW, node, Lane::Live, frame).map_err(|refusal| refusal.close_code());
    assert_eq!(code(frame(BodyKind::Key, &[])), Err(CloseCode::Malformed));
    assert_eq!(code(frame(BodyKind::Key, &[9])), Err(CloseCode::Version));
    assert_eq!(code(frame(BodyKind::Key, &[1, 1, 0, 0, 0, 0xff, 0xff, 0x7f])), Err(CloseCode::TooLarge));
    assert_eq!(code(frame(BodyKind::Delta { back: 0 }, &[1, 0, 0, 0])), Err(CloseCode::Malformed));
    assert_eq!(code(frame(BodyKind::Delta { back: 9 }, &[1, 0, 0, 0])), Err(CloseCode::Malformed));
    let long = Inventory::Facts(Facts { os: "o".repeat(300), ..Facts::default() });
    assert_eq!(code(frame(BodyKind::Inventory, &long.encode())), Err(CloseCode::TooLarge));
    let unreadable = ingest.admit(NOW, node, Lane::Live, frame(BodyKind::Inventory, &[200, 1]));
    assert_eq!(stored(unreadable).body, [200, 1], "a later version may read it");
}

#[test]
fn a_time_far_in_the_future_is_replaced_by_the_receive_time() {
    let at = |ahead_ms| taken_at(&Reading { wall: NOW.plus(ahead_ms), ..Reading::default() }, NOW);
    assert_eq!(at(FUTURE_MS_MAX), NOW.plus(FUTURE_MS_MAX));
    assert_eq!(at(FUTURE_MS_MAX + 1), NOW);
    assert_eq!(at(-3_600_000), NOW.plus(-3_600_000));
}

#[test]
fn keys_and_ids_stay_paired() {
    let mut ingest = Ingest::default();
    assert_eq!(ingest.enlist(node_id(1)), Some(NodeKey(0)));
    assert!(ingest.learn(NodeKey(4), node_id(2)) && ingest.learn(NodeKey(4), node_id(2)));
    assert!(!ingest.learn(NodeKey(4), node_id(3)) && !ingest.learn(NodeKey(5), node_id(1)));
    assert!(!ingest.learn(NodeKey(NODES_MAX), node_id(9)));
    assert_eq!(ingest.enlist(node_id(3)), Some(NodeKey(5)));
    let again = Ingest::recover(&ingest.snapshot()).expect("our own snapshot");
    let pairs = [(NodeKey(0), node_id(1)), (NodeKey(4), node_id(2)), (NodeKey(5), node_id(3))];
    assert_eq!(again.ledger().nodes().collect::<Vec<_>>(), pairs);
}

#[test]
fn a_healthy_node_costs_170_bytes_in_the_ledger() {
    let mut ledger = Ledger::default();
    for n in 0..10_000u64 {
        let id = NodeId::v7(n, [0; 10]);
        let node = ledger.enlist(id).expect("there is room");
        ledger.hello(node, &hello(id, 3, &[]), false).expect("a first session");
        for seq in 0..20 {
            let print = fingerprint::of_reading(&Reading::default());
            assert_eq!(ledger.insert(node, FrameId::new(3, seq), print), Ok(true));
        }
        ledger.committed();
    }
    let grown = ledger.bytes() / 10_000;
    let read = Ledger::decode(&ledger.encode()).expect("our own snapshot").bytes() / 10_000;
    assert!(grown <= 170 && read <= 170, "{grown} bytes a node, {read} after a restart");
    assert!(ledger.encode().len() <= 10_000 * 56, "{} bytes of snapshot", ledger.encode().len());
}

#[test]
fn a_node_of_150_series_costs_1400_bytes_in_the_chains() {
    const NODES: u32 = 2_000;
    let mut chains = Chains::default();
    let mut readings = 0;
    for node in 0..NODES {
        let mut grouper = Grouper::default();
        let (first, second) = (reading(&mut grouper, 0, 150), reading(&mut grouper, 1, 150));
        for frame in [key(1, 0, &first), delta(1, 1, &first, &second)] {
            let decoded = chains.decode(NodeKey(node), Lane::Live, &frame).expect("well formed");
            chains.advance(NodeKey(node), Lane::Live, frame.id, &decoded, true);
            readings += usize::from(frame.base().is_some())
                * (size_of::<Reading>() + 2 * size_of::<usize>() + 16 + decoded.values.capacity() * 8 + 16);
        }
    }
    assert_eq!(chains.layouts(), 1, "hosts with the same series share their layout");
    let bytes = (chains.table_bytes() + readings) / NODES as usize;
    assert!(bytes <= 1_400, "{bytes} bytes a node, 1,200 of them values");
}

#[test]
fn layouts_that_nobody_uses_are_swept() {
    let mut chains = Chains::default();
    for n in 0..1_000 {
        let mut grouper = Grouper::default();
        let frame = key(1, n, &reading(&mut grouper, 0, usize::try_from(n).expect("small") + 1));
        let decoded = chains.decode(NodeKey(0), Lane::Live, &frame).expect("well formed");
        chains.advance(NodeKey(0), Lane::Live, frame.id, &decoded, true);
    }
    assert!(chains.layouts() <= 65, "{} layouts of one node", chains.layouts());
}

proptest! {
    #[test]
    fn damaged_snapshots_never_panic(bytes: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
        let (mut ingest, node) = begun();
        stored(ingest.admit(NOW, node, Lane::Live, key(1, 300, &readings::<1>()[0])));
        ingest.committed();
        let mut damaged = ingest.snapshot();
        let place = at.index(damaged.len());
        damaged[place] ^= 1 << bit;
        for bytes in [&bytes, &damaged] {
            if let Ok(ledger) = Ledger::decode(bytes) {
                prop_assert_eq!(Ledger::decode(&ledger.encode()).map(|again| again.encode()), Ok(ledger.encode()));
            }
        }
    }

    #[test]
    fn arbitrary_bodies_never_panic(body: Vec<u8>, back in 0u16..3) {
        let (mut ingest, node) = begun();
        let r = readings::<1>();
        stored(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])));
        for kind in [BodyKind::Key, BodyKind::Delta { back }, BodyKind::Inventory] {
            let frame = Frame { id: FrameId::new(1, 1), kind, body: body.clone() };
            if let Ok(Admitted::Store { record: Record { event: Event::Frame { frame, .. }, .. }, reading: Some(reading) }) =
                ingest.admit(NOW, node, Lane::Live, frame) && frame.kind == BodyKind::Key
            {
                prop_assert_eq!(decode_key(&frame.body), Ok(Reading::clone(&reading)));
            }
        }
    }
}

#[test]
fn what_a_gap_grew_by_is_told_with_its_own_share_of_the_time() {
    let (mut ingest, node) = begun();
    let gap = |first, last| Gap {
        epoch: Epoch(1),
        range: range(first, last),
        from: WallMs(10_000 * i64::try_from(first).expect("small")),
        to: WallMs(10_000 * i64::try_from(last).expect("small")),
        reason: GapReason::Overflow,
    };
    let told = |ingest: &mut Ingest, gap| match ingest.gap(NOW, node, &gap).expect("a good gap")[..] {
        [Record { event: Event::Gap { gap, .. }, .. }] => gap,
        ref other => panic!("{other:?} is not one piece"),
    };
    assert_eq!(told(&mut ingest, gap(3, 30)), gap(3, 30));
    assert_eq!(told(&mut ingest, gap(3, 33)), gap(31, 33));
    assert_eq!(told(&mut ingest, gap(0, 33)), gap(0, 2));
    assert_eq!(ingest.gap(NOW, node, &gap(0, 33)), Ok(Vec::new()));
}

/// Of each record a gap.
fn gaps(records: Vec<Record>) -> Vec<(u32, SeqRange, GapReason)> {
    let gap = |record: Record| match record.event {
        Event::Gap { gap, .. } => (gap.epoch.0, gap.range, gap.reason),
        other => panic!("a gap, not {other:?}"),
    };
    records.into_iter().map(gap).collect()
}

#[test]
fn after_a_restore_a_hello_tells_what_was_acknowledged_and_is_lost_and_tells_it_once() {
    let (mut ingest, node) = begun();
    let r = readings::<1>();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])));
    ingest.committed();
    let said = Hello { next_seq: Seq(60), ..hello(node_id(1), 1, &[(1, range(50, 59))]) };
    let greet = |ingest: &mut Ingest, said: &Hello| {
        ingest.hello(NOW, node, said).expect("it is let in");
        gaps(ingest.holes(NOW, node, said).expect("there is room"))
    };
    assert_eq!(greet(&mut ingest, &said), [], "nothing is lost");
    ingest.expect_holes();
    let hole = (1, range(1, 49), GapReason::Restored);
    assert_eq!(greet(&mut ingest, &said), [hole]);
    ingest.rolled_back();
    assert_eq!(greet(&mut ingest, &said), [hole], "what was not stored is told again");
    ingest.committed();
    assert_eq!(greet(&mut ingest, &said), []);
    stored(ingest.admit(NOW, node, Lane::Backlog, key(1, 50, &r[0])));
    ingest.committed();
    // Another start meets the gap in the log.
    let mut ingest = Ingest::recover(&ingest.snapshot()).expect("our own snapshot");
    ingest.expect_holes();
    assert_eq!(greet(&mut ingest, &said), []);
}

#[test]
fn of_a_run_that_began_after_the_backup_all_that_is_spooled_no_more_is_lost() {
    let (mut ingest, node) = begun();
    ingest.expect_holes();
    let other = ingest.enlist(node_id(2)).expect("there is room");
    for (node, id) in [(node, node_id(1)), (other, node_id(2))] {
        let said = Hello { next_seq: Seq(9), ..hello(id, 3, &[(2, range(4, 6))]) };
        ingest.hello(NOW, node, &said).expect("it is let in");
        let found = ingest.holes(NOW, node, &said).expect("there is room");
        let lost = GapReason::Restored;
        assert_eq!(gaps(found), [(2, range(0, 3), lost), (3, range(0, 8), lost)]);
    }
    let again = Hello { next_seq: Seq(9), ..hello(node_id(1), 3, &[]) };
    ingest.hello(NOW, node, &again).expect("it is let in");
    assert_eq!(gaps(ingest.holes(NOW, node, &again).expect("there is room")), [], "it was told");
}

#[test]
fn a_hole_between_the_ends_of_what_an_agent_lists_is_told_once_it_lists_no_more_around_it() {
    let (mut ingest, node) = begun();
    let r = readings::<1>();
    ingest.expect_holes();
    let greet = |ingest: &mut Ingest, next: u64, listed: &[(u32, SeqRange)]| {
        let said = Hello { next_seq: Seq(next), ..hello(node_id(1), 1, listed) };
        ingest.hello(NOW, node, &said).expect("it is let in");
        let found = gaps(ingest.holes(NOW, node, &said).expect("there is room"));
        ingest.committed();
        found
    };
    // It still has 0 to 2 and 9; 3 to 8 went live, were acknowledged, and are not in the backup.
    assert_eq!(greet(&mut ingest, 10, &[(1, range(0, 9))]), [], "all of it may still come");
    for seq in [9, 0, 1] {
        stored(ingest.admit(NOW, node, Lane::Backlog, key(1, seq, &r[0])));
    }
    ingest.committed();
    assert_eq!(greet(&mut ingest, 11, &[(1, range(2, 10))]), [], "a connection that broke tells nothing new");
    for seq in [2, 10] {
        stored(ingest.admit(NOW, node, Lane::Backlog, key(1, seq, &r[0])));
    }
    ingest.committed();
    // Another start in between knows no less.
    let mut ingest = Ingest::recover(&ingest.snapshot()).expect("our own snapshot");
    ingest.expect_holes();
    assert_eq!(greet(&mut ingest, 12, &[(1, range(11, 11))]), [(1, range(3, 8), GapReason::Restored)]);
    assert_eq!(greet(&mut ingest, 12, &[(1, range(11, 11))]), [], "and once");
    // Of a list that is full nobody can say what it lacks: the run under way is not taken for lost.
    let full: Vec<_> = (0..64).map(|epoch| (epoch + 2, range(0, 0))).collect();
    let said = Hello { next_seq: Seq(5), ..hello(node_id(1), 90, &full) };
    ingest.hello(NOW, node, &said).expect("it is let in");
    assert_eq!(gaps(ingest.holes(NOW, node, &said).expect("there is room")), []);
}

#[test]
fn a_hole_in_the_run_before_is_told_as_lost_here_and_not_as_lost_with_the_agent_too() {
    let (mut ingest, node) = begun();
    let r = readings::<1>();
    stored(ingest.admit(NOW, node, Lane::Live, key(1, 0, &r[0])));
    ingest.committed();
    ingest.expect_holes();
    // The agent had 1 to 9 acknowledged, parked 10 to 19, and ended in order at 20.
    let said = Hello { next_seq: Seq(1), ..hello(node_id(1), 2, &[(1, range(10, 19)), (2, range(0, 0))]) };
    let (record, _) = ingest.hello(NOW, node, &said).expect("a new run");
    let Event::Hello { session, .. } = record.event else { panic!("a Hello is recorded as one") };
    let whole = EarlierRun { epoch: Epoch(1), last: Some(Seq(19)), count: 20, ended: None };
    assert_eq!(session.before, Some(whole), "nothing of it is left to be told");
    let lost = (1, range(1, 9), GapReason::Restored);
    assert_eq!(gaps(ingest.holes(NOW, node, &said).expect("there is room")), [lost]);
}

#[test]
fn a_frame_with_too_many_new_names_is_kept_without_them_and_what_follows_builds_on_what_was_sent() {
    let (mut ingest, node) = begun();
    let named = |turn: u32, wall: i64| {
        let mut sample = Sample::new(MonoMs(u64::from(turn)), WallMs(wall));
        sample.push(&Subject::HOST(), by_name("host_load1").expect("it is there"), 1.5);
        for n in 0..1_900 {
            let subject = Subject::new(SubjectKind::Process, &format!("{turn}-{n}")).expect("a name");
            sample.push(&subject, by_name("process_count").expect("it is there"), 1.0);
        }
        Grouper::default().lay_out(&sample).0
    };
    let mut admit = |frame: Frame| {
        let admitted = ingest.admit(NOW, node, Lane::Live, frame).expect("it is good");
        let left_out = ingest.take_left_out();
        ingest.committed();
        (admitted, left_out)
    };
    for turn in 0..2 {
        let (admitted, left_out) = admit(key(1, u64::from(turn), &named(turn, 0)));
        assert!(matches!(admitted, Admitted::Store { .. }) && left_out.is_none(), "{turn}");
    }
    let whole = named(2, 0);
    let (admitted, left_out) = admit(key(1, 2, &whole));
    let left_out = left_out.expect("more than a node may bring");
    assert_eq!((left_out.values, left_out.example.starts_with("process:2-")), (1_900 * 3 + 1 - 5_000, true));
    let Admitted::Store { record, reading: Some(kept) } = admitted else { panic!("it is stored") };
    assert_eq!(kept.value(&Subject::HOST(), "host_load1"), Some(1.5));
    let next = Reading { mono: MonoMs(3), ..whole.clone() };
    let (admitted, left_out) = admit(delta(1, 3, &whole, &next));
    assert!(left_out.is_some(), "they are still new");
    assert_eq!(stored(Ok(admitted)).kind, BodyKind::Key, "it stands alone");
    assert_eq!(admit(key(1, 2, &whole)), (Admitted::Duplicate(FrameId::new(1, 2)), None));
    // Who reads the log finds a frame like any other, and does not take the agent for one that was set back.
    let mut after = Ingest::default();
    let (mut other, _) = begun();
    let (greeted, _) = other.hello(NOW, node, &hello(node_id(1), 1, &[])).expect("it comes again");
    after.observe(&greeted);
    after.observe(&record);
    let admitted = after.admit(NOW, node, Lane::Live, key(1, 2, &whole)).expect("it is the same frame");
    assert_eq!(admitted, Admitted::Duplicate(FrameId::new(1, 2)));
}
