//! Both ends of a session under any order of messages, frames, answers and time.
//! No panic, no flood of notices or messages, nothing acknowledged that was not committed, and silence after the end.
#![no_main]

use dunlin_fuzz::Input;
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::limits::{ACK_RANGES_MAX, EPOCHS_MAX, HELD_RANGES_MAX, LAST_FRAMES_MAX};
use dunlin_shared::range::{FrameSet, SeqRange};
use dunlin_shared::session::agent::{self, AgentSession, Profile, Room, Transmit};
use dunlin_shared::session::collector::{self, CollectorSession, Resumption};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{
    AgentControl, CollectorControl, Config, FrameRange, Gap, GapReason, Goodbye, Held, Hello, Lane, Nack, Spooled,
    StopReason, Welcome,
};
use libfuzzer_sys::fuzz_target;

const NODE: NodeId = NodeId::from_bytes([7; 16]);
const EPOCH: Epoch = Epoch(5);
const STEPS_MAX: usize = 400;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    if input.bool() { collector_end(&mut input) } else { agent_end(&mut input) }
});

fn collector_end(input: &mut Input<'_>) {
    let mut now = MonoMs(0);
    let mut session = CollectorSession::new(now, NODE);
    let mut committed = FrameSet::new();
    let mut closed = false;
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        // Years apart, but never at the end of time, where no pause passes.
        now = now.plus(input.number() & 0xffff_ffff);
        let event = collector_event(input, &mut committed);
        session.handle(now, event);
        let mut notices = 0;
        while let Some(notice) = session.poll_notice() {
            assert!(!closed, "{notice:?} after the end");
            notices += 1;
            closed |= matches!(notice, collector::Notice::Close(_));
        }
        assert!(notices <= 1, "one event leads to one thing to do");
        while let Some(message) = session.poll_transmit() {
            assert!(!closed, "{message:?} after the end");
            judge_collector(&message, &mut committed);
        }
        if closed {
            assert_eq!(session.poll_timeout(), None);
        }
    }
}

fn judge_collector(message: &CollectorControl, committed: &mut FrameSet) {
    match message {
        CollectorControl::Ack(ranges) => {
            assert!((1..=ACK_RANGES_MAX).contains(&ranges.len()));
            for &acked in ranges {
                let known = committed.epoch(acked.epoch).expect("an epoch of which something is committed");
                let around = known.ranges().iter().any(|r| r.first <= acked.range.first && acked.range.last <= r.last);
                assert!(around, "{acked:?} is acknowledged and not committed");
            }
        }
        CollectorControl::Nack(nack) => assert!((1..=ACK_RANGES_MAX).contains(&nack.ranges.len())),
        _ => {}
    }
}

fn collector_event(input: &mut Input<'_>, committed: &mut FrameSet) -> collector::Event {
    use collector::Event;
    match input.below(12) {
        0 => Event::Control(AgentControl::Hello(hello(input))),
        1 => match AgentControl::decode(input.chunk()) {
            Ok(message) => Event::Control(message),
            Err(_) => Event::Timeout,
        },
        2 => Event::Control(AgentControl::Gap(gap(input))),
        3 => Event::Control(AgentControl::Heartbeat),
        4 => Event::Control(AgentControl::Goodbye(Goodbye {
            epoch: epoch(input),
            next_seq: Seq(input.number()),
            reason: StopReason::Stopped,
        })),
        5 | 6 => Event::Frame { lane: lane(input), id: FrameId { epoch: epoch(input), seq: Seq(input.number()) } },
        7 => Event::Resumed(Resumption {
            collector_version: String::new(),
            held: held(input),
            start_after_ms: 0,
            config: config(input),
            wall: WallMs(0),
            next_authority: Vec::new(),
        }),
        8 | 9 => {
            let range = frame_range(input);
            committed.insert_range(range);
            Event::Committed { range, urgent: input.bool() }
        }
        10 => Event::NotStored { range: frame_range(input), retry_after_ms: u32::from(input.byte()) },
        _ => match input.below(9) {
            0 => Event::Piece,
            3 => Event::Challenge { nonce: input.number() },
            4 => Event::Certificate { chain: vec![vec![input.byte()]] },
            5 => Event::Authority { der: vec![input.byte()] },
            7 => Event::AskInventory,
            6 => Event::Control(AgentControl::Present { nonce: input.number() }),
            1 => Event::GoodbyeCommitted,
            2 => Event::Drain { reconnect_after_ms: 1 },
            _ => Event::Timeout,
        },
    }
}

fn agent_end(input: &mut Input<'_>) {
    let mut now = MonoMs(0);
    let interval_ms = 1_000 + u32::from(input.byte()) * 100;
    let (name, agent_version) = (String::new(), String::new());
    let mut session = AgentSession::new(
        Profile { node: NODE, name, agent_version, boot_id: [0; 16], interval_ms, ended: Vec::new() },
        EPOCH,
        FrameSet::new(),
    );
    let (mut next, mut gaps, mut closed) = (Seq(0), 0, false);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        // Years apart, but never at the end of time, where no pause passes.
        now = now.plus(input.number() & 0xffff_ffff);
        let event = agent_event(input, &mut next, &mut gaps);
        closed &= !matches!(event, agent::Event::Connected { .. } | agent::Event::Disconnected);
        session.handle(now, event);
        let notices = std::iter::from_fn(|| session.poll_notice()).collect::<Vec<_>>();
        // A Welcome may confirm so many ranges; everything else leads to a few notices.
        assert!(notices.len() <= EPOCHS_MAX * HELD_RANGES_MAX + 8, "{} notices", notices.len());
        let closes = notices.iter().filter(|notice| matches!(notice, agent::Notice::Close(_))).count();
        assert!(closes <= usize::from(!closed), "one end");
        closed |= closes > 0;
        let room = Room { live: input.bool(), backlog: input.bool() };
        let mut said = 0;
        while let Some(transmit) = session.poll_transmit(now, room) {
            assert!(!closed, "{transmit:?} after the end");
            said += 1;
            // An agent that stops sends what is left at once, when that is little.
            let most = gaps + 8 + usize::try_from(LAST_FRAMES_MAX).unwrap_or(usize::MAX);
            assert!(said <= most, "no end of messages at one moment");
            match transmit {
                Transmit::Frame { lane, .. } => assert!(if lane == Lane::Live { room.live } else { room.backlog }),
                Transmit::Control(AgentControl::Hello(hello)) => {
                    assert!(AgentControl::decode(body(&AgentControl::Hello(hello).encode())).is_ok());
                }
                Transmit::Control(_) => {}
            }
        }
        if let Some(at) = session.poll_timeout(room).filter(|&at| at <= now) {
            // A timer that is due leads to something, or the owner would turn without end.
            session.handle(at.max(now), agent::Event::Timeout);
            while session.poll_notice().is_some_and(|notice| !matches!(notice, agent::Notice::Close(_))) {}
        }
    }
}

fn agent_event(input: &mut Input<'_>, next: &mut Seq, gaps: &mut usize) -> agent::Event {
    use agent::Event;
    match input.below(14) {
        0 => {
            let gaps_said: Vec<_> = (0..input.below(4)).map(|_| gap(input)).collect();
            *gaps += gaps_said.len();
            Event::Connected { wall: WallMs(0), gaps: gaps_said }
        }
        1 => match CollectorControl::decode(input.chunk()) {
            Ok(message) => Event::Control(message),
            Err(_) => Event::Timeout,
        },
        2 | 3 => Event::Control(CollectorControl::Welcome(Welcome {
            wire: 1,
            collector_version: String::new(),
            held: held(input),
            start_after_ms: u32::from(input.byte()),
            config: config(input),
            wall: WallMs(0),
            next_authority: Vec::new(),
        })),
        4 => Event::Control(CollectorControl::Ack((0..input.below(4)).map(|_| frame_range(input)).collect())),
        5 => {
            let ranges = (0..input.below(4)).map(|_| frame_range(input)).collect();
            Event::Control(CollectorControl::Nack(Nack { ranges, retry_after_ms: u32::from(input.byte()) }))
        }
        6 => match input.below(7) {
            0 => Event::Control(CollectorControl::Drain { reconnect_after_ms: 0 }),
            1 => Event::Control(CollectorControl::Farewell),
            2 => Event::Control(CollectorControl::Challenge { nonce: input.number() }),
            3 => Event::Control(CollectorControl::Certificate { chain: vec![vec![input.byte()]] }),
            4 => Event::Control(CollectorControl::Authority { der: vec![input.byte()] }),
            5 => Event::Control(CollectorControl::AskInventory),
            _ => Event::Control(CollectorControl::Config(config(input))),
        },
        7..=9 => {
            let id = FrameId { epoch: EPOCH, seq: *next };
            *next = next.next();
            Event::Sampled(id)
        }
        10 => {
            *gaps += 1;
            Event::Dropped(gap(input))
        }
        11 => Event::Missing(FrameId { epoch: EPOCH, seq: Seq(input.number()) }),
        12 => Event::Timeout,
        _ if input.bool() => Event::Stop(StopReason::Stopped),
        _ => Event::Disconnected,
    }
}

fn hello(input: &mut Input<'_>) -> Hello {
    let mut spooled: Vec<Spooled> = Vec::new();
    for _ in 0..input.below(4) {
        let FrameRange { epoch, range } = frame_range(input);
        if spooled.last().is_none_or(|last| last.epoch < epoch) {
            spooled.push(Spooled { epoch, range });
        }
    }
    Hello {
        wire_min: 1,
        wire_max: 1,
        node: NODE,
        name: String::new(),
        agent_version: String::new(),
        boot_id: [0; 16],
        epoch: epoch(input),
        next_seq: Seq(0),
        interval_ms: 10_000,
        mono: MonoMs(0),
        wall: WallMs(0),
        spooled,
        ended: Vec::new(),
    }
}

fn held(input: &mut Input<'_>) -> Vec<Held> {
    let one = |input: &mut Input<'_>| {
        let FrameRange { epoch, range } = frame_range(input);
        Held { epoch, ranges: vec![range] }
    };
    (0..input.below(4)).map(|_| one(input)).collect()
}

fn config(input: &mut Input<'_>) -> Config {
    let interval_ms = (input.number() & 0xffff_ffff) as u32;
    Config { interval_ms, backlog_gap_ms: (input.number() & 0xffff_ffff) as u32 }
}

fn gap(input: &mut Input<'_>) -> Gap {
    let FrameRange { epoch, range } = frame_range(input);
    Gap { epoch, range, from: WallMs(0), to: WallMs(0), reason: GapReason::Overflow }
}

fn frame_range(input: &mut Input<'_>) -> FrameRange {
    let (epoch, first, more) = (epoch(input), input.number(), input.number());
    FrameRange { epoch, range: SeqRange { first: Seq(first), last: Seq(first.saturating_add(more)) } }
}

fn epoch(input: &mut Input<'_>) -> Epoch {
    Epoch(u32::from(input.byte() % 8))
}

fn lane(input: &mut Input<'_>) -> Lane {
    if input.bool() { Lane::Live } else { Lane::Backlog }
}

/// An encoded message without its length.
fn body(bytes: &[u8]) -> &[u8] {
    let at = bytes.iter().position(|byte| byte & 0x80 == 0).map_or(0, |last| last + 1);
    &bytes[at..]
}
