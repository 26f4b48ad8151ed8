//! How long an agent waits: for a collector that sends it away, for one that is being stopped, and for its own end.

use super::*;
use crate::limits::{ASKED_MS_MAX, LAST_FRAMES_MAX, LISTEN_MS};

/// One that has said Hello and heard this welcome, with two frames to send.
fn welcomed(welcome: CollectorControl) -> AgentSession {
    let mut agent = AgentSession::new(profile(), Epoch(1), FrameSet::new());
    agent.handle(MonoMs(0), agent::Event::Sampled(FrameId::new(1, 0)));
    agent.handle(MonoMs(0), agent::Event::Sampled(FrameId::new(1, 1)));
    agent.handle(MonoMs(0), agent::Event::Connected { wall: WallMs(0), gaps: Vec::new() });
    assert!(matches!(agent.poll_transmit(MonoMs(0), ROOM), Some(Transmit::Control(AgentControl::Hello(_)))));
    agent.handle(MonoMs(0), agent::Event::Control(welcome));
    while agent.poll_notice().is_some() {}
    agent
}

#[test]
fn no_collector_has_an_agent_wait_longer_than_the_limit() {
    let limit = MonoMs(u64::from(ASKED_MS_MAX));
    let mut agent = welcomed(welcome_after(u32::MAX, u32::MAX));
    assert_eq!(agent.poll_transmit(MonoMs(limit.0 - 1), ROOM), None);
    let sent = |lane, seq| Some(Transmit::Frame { lane, id: FrameId::new(1, seq) });
    assert_eq!(agent.poll_transmit(limit, ROOM), sent(Lane::Live, 1));
    assert_eq!(agent.poll_transmit(limit, ROOM), sent(Lane::Backlog, 0));
    agent.handle(limit, agent::Event::Sampled(FrameId::new(1, 2)));
    agent.handle(limit, agent::Event::Sampled(FrameId::new(1, 3)));
    assert_eq!(agent.poll_transmit(limit, ROOM), sent(Lane::Live, 3));
    let twice = MonoMs(2 * limit.0);
    assert_eq!(agent.poll_transmit(twice, ROOM), sent(Lane::Backlog, 2), "the gap between two is bounded too");

    let ranges = vec![FrameRange { epoch: Epoch(1), range: SeqRange::one(Seq(0)) }];
    let nack = crate::wire::Nack { ranges, retry_after_ms: u32::MAX };
    agent.handle(twice, agent::Event::Control(CollectorControl::Nack(nack)));
    assert_eq!(agent.poll_notice(), Some(agent::Notice::NotStored { retry_after_ms: ASKED_MS_MAX }));
    assert_eq!(agent.poll_transmit(MonoMs(3 * limit.0), ROOM), sent(Lane::Backlog, 0));
    agent.handle(twice, agent::Event::Control(CollectorControl::Drain { reconnect_after_ms: u32::MAX }));
    assert_eq!(agent.poll_notice(), Some(agent::Notice::ReconnectAfter { ms: ASKED_MS_MAX }));
}

#[test]
fn an_agent_keeps_its_backlog_while_the_collector_asks_for_that_and_sends_what_is_new() {
    let paced =
        |backlog_gap_ms| agent::Event::Control(CollectorControl::Config(Config { interval_ms: 0, backlog_gap_ms }));
    let sent = |lane, seq| Some(Transmit::Frame { lane, id: FrameId::new(1, seq) });
    let mut agent = welcomed(welcome_of_nothing());
    (2..6).for_each(|seq| agent.handle(MonoMs(0), agent::Event::Sampled(FrameId::new(1, seq))));
    agent.handle(MonoMs(0), paced(600_000));
    assert_eq!(agent.poll_transmit(MonoMs(0), ROOM), sent(Lane::Live, 5));
    assert_eq!(agent.poll_transmit(MonoMs(0), ROOM), sent(Lane::Backlog, 0), "it had its turn before");
    agent.handle(MonoMs(300_000), agent::Event::Sampled(FrameId::new(1, 6)));
    assert_eq!(agent.poll_transmit(MonoMs(300_000), ROOM), sent(Lane::Live, 6));
    assert_eq!(agent.poll_transmit(MonoMs(300_000), ROOM), None);
    agent.handle(MonoMs(300_000), paced(20_000));
    assert_eq!(agent.poll_transmit(MonoMs(319_999), ROOM), None);
    assert_eq!(agent.poll_transmit(MonoMs(320_000), ROOM), sent(Lane::Backlog, 1), "not after ten minutes");
}

#[test]
fn a_collector_that_says_it_stops_and_stays_is_left() {
    let mut agent = welcomed(welcome_of_nothing());
    agent.handle(MonoMs(7), agent::Event::Control(CollectorControl::Drain { reconnect_after_ms: 1 }));
    assert_eq!(agent.poll_notice(), Some(agent::Notice::ReconnectAfter { ms: 1 }));
    let mut now = MonoMs(7);
    while now < MonoMs(7 + LISTEN_MS) {
        // It is told again and again, and goes on answering.
        agent.handle(now, agent::Event::Control(CollectorControl::Ack(Vec::new())));
        assert_eq!(agent.poll_notice(), None, "at {now:?}");
        while agent.poll_transmit(now, ROOM).is_some() {}
        let at = agent.poll_timeout(ROOM).expect("it does not listen for ever");
        assert!(at > now, "it is woken for something");
        now = at;
        agent.handle(now, agent::Event::Timeout);
    }
    assert_eq!((now, agent.poll_notice()), (MonoMs(7 + LISTEN_MS), Some(agent::Notice::Close(CloseCode::TooSlow))));
}

fn ack(first: u64, last: u64) -> agent::Event {
    let range = SeqRange { first: Seq(first), last: Seq(last) };
    agent::Event::Control(CollectorControl::Ack(vec![FrameRange { epoch: Epoch(1), range }]))
}

/// Stops an agent of which so many frames wait for their turn, with frames 0 and 1 under way.
fn stopped_with_waiting(count: u64) -> (AgentSession, Vec<FrameId>) {
    let mut agent = welcomed(welcome_of_nothing());
    while agent.poll_transmit(MonoMs(0), ROOM).is_some() {}
    // The first of them has its turn in half an interval, the last one found no room on its lane.
    (2..2 + count).for_each(|seq| agent.handle(MonoMs(1), agent::Event::Sampled(FrameId::new(1, seq))));
    assert_eq!(agent.poll_transmit(MonoMs(1), Room { live: false, backlog: true }), None);
    agent.handle(MonoMs(2), agent::Event::Stop(StopReason::Stopped));
    let goodbye = agent.poll_transmit(MonoMs(2), ROOM);
    assert!(matches!(goodbye, Some(Transmit::Control(AgentControl::Goodbye(_)))), "{goodbye:?}");
    let sent = std::iter::from_fn(|| match agent.poll_transmit(MonoMs(2), ROOM)? {
        Transmit::Frame { id, .. } => Some(id),
        other @ Transmit::Control(_) => panic!("{other:?}"),
    });
    let mut sent: Vec<FrameId> = sent.collect();
    sent.sort();
    (agent, sent)
}

#[test]
fn an_agent_that_stops_sends_the_few_frames_that_waited_for_their_turn() {
    let (mut agent, sent) = stopped_with_waiting(LAST_FRAMES_MAX);
    assert_eq!(sent, (2..18).map(|seq| FrameId::new(1, seq)).collect::<Vec<_>>());
    for event in [ack(0, 1), agent::Event::Control(CollectorControl::Farewell), ack(2, 16)] {
        agent.handle(MonoMs(3), event);
        let closed = std::iter::from_fn(|| agent.poll_notice()).any(|notice| matches!(notice, agent::Notice::Close(_)));
        assert!(!closed, "it waits for them all");
    }
    agent.handle(MonoMs(3), ack(17, 17));
    assert_eq!(std::iter::from_fn(|| agent.poll_notice()).last(), Some(agent::Notice::Close(CloseCode::Done)));
    assert!(agent.unacknowledged().is_empty());
}

#[test]
fn an_agent_that_stops_keeps_what_is_too_much_or_cannot_be_stored_for_its_next_run() {
    let (mut agent, sent) = stopped_with_waiting(LAST_FRAMES_MAX + 1);
    assert_eq!(sent, [FrameId::new(1, 18)], "the newest alone");
    agent.handle(MonoMs(3), ack(18, 18));
    agent.handle(MonoMs(3), agent::Event::Control(CollectorControl::Farewell));
    agent.handle(MonoMs(3), ack(0, 1));
    assert_eq!(std::iter::from_fn(|| agent.poll_notice()).last(), Some(agent::Notice::Close(CloseCode::Done)));
    assert_eq!(agent.unacknowledged().count(), 16);

    let (mut agent, sent) = stopped_with_waiting(2);
    assert_eq!(sent.len(), 2);
    let ranges = vec![FrameRange { epoch: Epoch(1), range: SeqRange { first: Seq(0), last: Seq(3) } }];
    let nack = crate::wire::Nack { ranges, retry_after_ms: 1_000 };
    agent.handle(MonoMs(3), agent::Event::Control(CollectorControl::Nack(nack)));
    assert_eq!(agent.poll_transmit(MonoMs(3), ROOM), None, "not at once again");
    agent.handle(MonoMs(3), agent::Event::Control(CollectorControl::Farewell));
    assert_eq!(std::iter::from_fn(|| agent.poll_notice()).last(), Some(agent::Notice::Close(CloseCode::Done)));
}
