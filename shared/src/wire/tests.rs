//! Frozen bytes, round trips, and damaged input.

use proptest::prelude::*;

use super::*;
use crate::frame::{BodyKind, Frame};
use crate::limits::PIECE_BYTES_MAX;

fn hello() -> Hello {
    Hello {
        wire_min: 1,
        wire_max: 1,
        node: NodeId::from_bytes([7; 16]),
        name: "web-1".to_owned(),
        agent_version: "0.1.0".to_owned(),
        boot_id: [9; 16],
        epoch: Epoch(3),
        next_seq: Seq(300),
        interval_ms: 10_000,
        mono: MonoMs(5_000),
        wall: WallMs(1_700_000_000_000),
        spooled: vec![Spooled { epoch: Epoch(3), range: SeqRange { first: Seq(290), last: Seq(299) } }],
        ended: vec![Goodbye { epoch: Epoch(2), next_seq: Seq(40), reason: StopReason::Stopped }],
    }
}

fn ack() -> CollectorControl {
    CollectorControl::Ack(vec![FrameRange { epoch: Epoch(3), range: SeqRange { first: Seq(297), last: Seq(299) } }])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// An agent of this version is in the field: these bytes must be read for ever.
#[test]
fn messages_of_version_1_are_frozen() {
    let gap = Gap {
        epoch: Epoch(3),
        range: SeqRange { first: Seq(10), last: Seq(39) },
        from: WallMs(1_000),
        to: WallMs(2_000),
        reason: GapReason::Overflow,
    };
    let goodbye = Goodbye { epoch: Epoch(3), next_seq: Seq(300), reason: StopReason::Stopped };
    let welcome = Welcome {
        wire: 1,
        collector_version: "0.1.0".to_owned(),
        held: vec![Held { epoch: Epoch(3), ranges: vec![SeqRange { first: Seq(0), last: Seq(296) }] }],
        start_after_ms: 250,
        config: Config { interval_ms: 0, backlog_gap_ms: 500 },
        wall: WallMs(1_700_000_000_100),
        next_authority: Vec::new(),
    };
    let piece = Piece { epoch: Epoch(3), seq: Seq(300), index: 0, count: 1, body: &[1, 2, 3] };
    let delta = Delta { epoch: Epoch(3), seq: Seq(301), back: 1, body: &[4, 5] };
    let nack =
        Nack { ranges: vec![FrameRange { epoch: Epoch(3), range: SeqRange::one(Seq(5)) }], retry_after_ms: 5_000 };
    let messages = [
        ("hello", AgentControl::Hello(hello()).encode()),
        ("heartbeat", AgentControl::Heartbeat.encode()),
        ("gap", AgentControl::Gap(gap).encode()),
        ("gap-restored", AgentControl::Gap(Gap { reason: GapReason::Restored, ..gap }).encode()),
        ("goodbye", AgentControl::Goodbye(goodbye).encode()),
        ("welcome", CollectorControl::Welcome(welcome).encode()),
        ("ack", ack().encode()),
        ("nack", CollectorControl::Nack(nack).encode()),
        ("config", CollectorControl::Config(Config { interval_ms: 5_000, backlog_gap_ms: 500 }).encode()),
        ("drain", CollectorControl::Drain { reconnect_after_ms: 1_000 }.encode()),
        ("farewell", CollectorControl::Farewell.encode()),
        ("present", AgentControl::Present { nonce: 300 }.encode()),
        ("challenge", CollectorControl::Challenge { nonce: 300 }.encode()),
        ("certificate", CollectorControl::Certificate { chain: vec![vec![1, 2], vec![3]] }.encode()),
        ("authority", CollectorControl::Authority { der: vec![4, 5] }.encode()),
        ("ask-inventory", CollectorControl::AskInventory.encode()),
        ("key", Item::Key(piece.clone()).encode()),
        ("delta", Item::Delta(delta).encode()),
        ("inventory", Item::Inventory(piece).encode()),
    ];
    let lines: String = messages.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    assert_eq!(lines, include_str!("frozen-v1.txt"));
}

#[test]
fn an_idle_tick_carries_few_bytes_beside_its_body() {
    let delta = Item::Delta(Delta { epoch: Epoch(40), seq: Seq(8_000), back: 1, body: &[0; 100] });
    assert!(delta.encode().len() <= 107);
    assert!(ack().encode().len() <= 9);
}

#[test]
fn a_message_above_the_limit_is_refused_at_its_length() {
    let mut deframer = Deframer::default();
    deframer.push(&[0x81, 0x80, 0x04]);
    assert_eq!(deframer.next_message(), Err(WireError::TooLarge { bytes: 65_537 }));
}

#[test]
fn lists_above_their_limits_are_refused() {
    let range = FrameRange { epoch: Epoch(0), range: SeqRange::one(Seq(0)) };
    let body = postcard::to_stdvec(&CollectorControl::Ack(vec![range; 9])).expect("it serialises");
    assert!(matches!(CollectorControl::decode(&body), Err(WireError::TooMany { .. })));
    let spooled = (0..65).map(|n| Spooled { epoch: Epoch(n), range: SeqRange::one(Seq(0)) }).collect();
    let body = postcard::to_stdvec(&AgentControl::Hello(Hello { spooled, ..hello() })).expect("it serialises");
    assert!(matches!(AgentControl::decode(&body), Err(WireError::TooMany { what: "epochs", .. })));
}

#[test]
fn ranges_with_their_ends_reversed_are_refused() {
    let range = FrameRange { epoch: Epoch(0), range: SeqRange { first: Seq(2), last: Seq(1) } };
    let body = postcard::to_stdvec(&CollectorControl::Ack(vec![range])).expect("it serialises");
    assert_eq!(CollectorControl::decode(&body), Err(WireError::Malformed("a range")));
}

#[test]
fn pieces_out_of_their_place_are_refused() {
    let piece = |seq, index, count| Item::Key(Piece { epoch: Epoch(0), seq: Seq(seq), index, count, body: &[1] });
    for wrong in [vec![piece(0, 1, 2)], vec![piece(0, 0, 2), piece(1, 1, 2)], vec![piece(0, 0, 3), piece(0, 2, 3)]] {
        let mut assembler = Assembler::default();
        let outcome: Result<Vec<_>, _> = wrong.iter().map(|item| assembler.push(item)).collect();
        assert!(matches!(outcome, Err(WireError::Piece { .. })));
    }
    let whole = postcard::to_stdvec(&piece(0, 2, 2)).expect("it serialises");
    assert!(Item::decode(&whole).is_err());
}

#[test]
fn a_body_larger_than_all_pieces_is_not_sent() {
    let body = vec![0; PIECE_BYTES_MAX * usize::from(PIECES_MAX) + 1];
    assert_eq!(items(&Frame { id: FrameId::new(0, 0), kind: BodyKind::Key, body }), None);
}

proptest! {
    #[test]
    fn frames_of_any_size_arrive_whole_however_the_stream_is_cut(size in 0usize..200_000, chunk in 1usize..70_000, inventory: bool) {
        let kind = if inventory { BodyKind::Inventory } else { BodyKind::Key };
        let frame = Frame { id: FrameId::new(5, 77), kind, body: (0..size).map(|n| u8::try_from(n % 251).expect("below 251")).collect() };
        let bytes = items(&frame).expect("it fits");
        let (mut deframer, mut assembler, mut arrived) = (Deframer::default(), Assembler::default(), None);
        for chunk in bytes.chunks(chunk) {
            deframer.push(chunk);
            while let Some(body) = deframer.next_message().expect("a good stream") {
                arrived = assembler.push(&Item::decode(body).expect("a good item")).expect("in place");
            }
        }
        prop_assert_eq!(arrived, Some(frame));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let mut deframer = Deframer::default();
        deframer.push(&bytes);
        let mut assembler = Assembler::default();
        while let Ok(Some(body)) = deframer.next_message() {
            if let Ok(item) = Item::decode(body) {
                prop_assert!(assembler.push(&item).is_ok() || item.encode().len() > 3);
            }
        }
        if let Ok(message) = AgentControl::decode(&bytes) {
            prop_assert!(message.encode().len() > 1);
        }
        if let Ok(message) = CollectorControl::decode(&bytes) {
            prop_assert!(message.encode().len() > 1);
        }
    }

    #[test]
    fn damaged_hellos_never_panic(at: prop::sample::Index, bit in 0u8..8) {
        let mut body = postcard::to_stdvec(&AgentControl::Hello(hello())).expect("it serialises");
        let place = at.index(body.len());
        body[place] ^= 1 << bit;
        prop_assert!(AgentControl::decode(&body).is_ok_and(|m| m != AgentControl::Hello(hello())) || AgentControl::decode(&body).is_err());
    }
}
