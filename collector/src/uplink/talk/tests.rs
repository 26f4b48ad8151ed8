//! A session against a writer, a gate and a registry that the test plays: what it says, holds back and lets in.

use std::time::Duration;

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::time::WallMs;
use dunlin_shared::wire::{CollectorControl, Goodbye, StopReason, WIRE_VERSION_MAX, WIRE_VERSION_MIN};
use tokio::sync::mpsc;

use super::*;
use crate::orders::Asked;
use crate::pipeline::Input;
use crate::registry::{Admission, What};
use crate::uplink::scene::{Scene, certificate};

fn node() -> NodeId {
    NodeId::from_bytes([7; 16])
}

fn hello() -> Vec<u8> {
    hello_of([1; 16], 1)
}

fn hello_of(boot_id: [u8; 16], epoch: u32) -> Vec<u8> {
    let hello = Hello {
        node: node(),
        wire_min: WIRE_VERSION_MIN,
        wire_max: WIRE_VERSION_MAX,
        name: String::from("host"),
        agent_version: String::from("0"),
        boot_id,
        epoch: Epoch(epoch),
        next_seq: Seq(0),
        interval_ms: 1_000,
        mono: MonoMs(0),
        wall: WallMs(0),
        spooled: Vec::new(),
        ended: Vec::new(),
    };
    AgentControl::Hello(hello).encode()
}

fn approved(writer: mpsc::Sender<Arrival>) -> Scene {
    let scene = Scene::new(writer);
    scene.admit(node(), Admission::Approved, &[]);
    scene
}

fn talk(place: usize, shared: &mut Shared) -> Talk {
    Talk::new(Place(place), &certificate(node()), shared.clock.mono(), shared)
}

/// Everything that it says.
fn said(talk: &mut Talk) -> Vec<CollectorControl> {
    let mut said = Vec::new();
    while let Some(message) = talk.say() {
        let mut deframer = Deframer::default();
        deframer.push(&message);
        let body = deframer.next_message().expect("it is short enough").expect("it is whole");
        said.push(CollectorControl::decode(body).expect("it is ours"));
    }
    said
}

/// Steps until it comes to something else than progress.
fn settle(talk: &mut Talk, shared: &mut Shared) -> Step {
    loop {
        match talk.step(shared).expect("the peer did nothing wrong") {
            Step::Done => {}
            step => return step,
        }
    }
}

#[test]
fn a_talk_waits_for_the_answer_and_for_room_and_loses_nothing() {
    let (writer, mut queue) = mpsc::channel(1);
    let mut scene = approved(writer);
    let shared = &mut scene.shared;
    let mut talk = talk(0, shared);
    talk.hear_control(MonoMs(0), &hello());
    talk.hear_control(MonoMs(0), &AgentControl::Heartbeat.encode());
    talk.hear_control(MonoMs(0), &AgentControl::Heartbeat.encode());
    assert_eq!(settle(&mut talk, shared), Step::Awaits);
    let Some(Arrival::Hello(greeting)) = queue.blocking_recv() else { panic!("a Hello comes first") };
    assert!(talk.say().is_none(), "it says nothing before the writer answered");
    greeting.mailbox.resumed(Vec::new());
    talk.read_letters(shared).expect("it may stay");
    assert_eq!(settle(&mut talk, shared), Step::Stuck);
    assert!(talk.say().is_some(), "the welcome");
    assert!(matches!(queue.blocking_recv(), Some(Arrival::Heartbeat { .. })));
    assert_eq!(settle(&mut talk, shared), Step::Hungry);
    assert!(matches!(queue.blocking_recv(), Some(Arrival::Heartbeat { .. })));
    assert!(matches!(talk.leave(shared), Some(Arrival::Ended { .. })));
}

#[test]
fn whoever_waits_first_is_not_overtaken() {
    let (writer, _queue) = mpsc::channel(9);
    let mut scene = approved(writer);
    let shared = &mut scene.shared;
    shared.crowded = true;
    let mut talk = talk(0, shared);
    talk.hear_control(MonoMs(0), &hello());
    assert_eq!(settle(&mut talk, shared), Step::Stuck);
    assert!(matches!(talk.take_held(), Some(Arrival::Hello(_))));
    assert_eq!(settle(&mut talk, shared), Step::Awaits);
}

#[test]
fn a_drain_is_told_after_the_welcome_and_waits_for_the_goodbye() {
    let (writer, _queue) = mpsc::channel(9);
    let mut scene = approved(writer);
    let shared = &mut scene.shared;
    let mut talk = talk(0, shared);
    talk.hear_control(MonoMs(0), &hello());
    let goodbye = Goodbye { epoch: Epoch(1), next_seq: Seq(0), reason: StopReason::Stopped };
    talk.hear_control(MonoMs(0), &AgentControl::Goodbye(goodbye).encode());
    assert_eq!(settle(&mut talk, shared), Step::Awaits);
    talk.drain(shared);
    assert!(!talk.is_drained(), "its Hello is not answered yet");
    let mailbox = Arc::clone(talk.mailbox.as_ref().expect("it said Hello"));
    mailbox.resumed(Vec::new());
    talk.read_letters(shared).expect("it may stay");
    assert_eq!(settle(&mut talk, shared), Step::Hungry);
    talk.drain(shared);
    assert!(!talk.is_drained(), "its goodbye is not on disk yet");
    mailbox.goodbye_committed();
    talk.read_letters(shared).expect("it may stay");
    assert!(talk.is_drained());
}

#[test]
fn an_inventory_is_asked_for_once_it_is_welcome_and_of_nobody_else() {
    let (writer, _queue) = mpsc::channel(9);
    let mut scene = approved(writer);
    let shared = &mut scene.shared;
    let mut talk = talk(0, shared);
    talk.hear_control(MonoMs(0), &hello());
    assert_eq!(settle(&mut talk, shared), Step::Awaits);
    for _ in 0..3 {
        shared.gate.ask_inventory(node());
    }
    shared.gate.ask_inventory(NodeId::from_bytes([8; 16]));
    shared.ask_inventories();
    talk.read_letters(shared).expect("it may stay");
    talk.keep_up(shared);
    assert_eq!(said(&mut talk), []);
    talk.mailbox.as_ref().expect("it said Hello").resumed(Vec::new());
    talk.read_letters(shared).expect("it may stay");
    talk.keep_up(shared);
    let asked = |said: &[CollectorControl]| said.iter().filter(|one| **one == CollectorControl::AskInventory).count();
    let heard = said(&mut talk);
    assert!(matches!(heard[..], [CollectorControl::Welcome(_), ..]) && asked(&heard) == 1, "{heard:?}");
    talk.keep_up(shared);
    assert_eq!(asked(&said(&mut talk)), 0);
}

/// Says Hello, and is welcome.
fn welcome(place: usize, boot_id: [u8; 16], scene: &mut Scene, queue: &mut mpsc::Receiver<Arrival>) -> Talk {
    let mut talk = talk(place, &mut scene.shared);
    talk.hear_control(MonoMs(0), &hello_of(boot_id, 1));
    assert_eq!(settle(&mut talk, &mut scene.shared), Step::Awaits);
    let Ok(Arrival::Hello(greeting)) = queue.try_recv() else { panic!("the writer hears of it") };
    greeting.mailbox.resumed(Vec::new());
    talk.read_letters(&scene.shared).expect("it may stay");
    talk.keep_up(&mut scene.shared);
    assert!(matches!(said(&mut talk)[..], [CollectorControl::Welcome(_), ..]));
    talk
}

fn refused(scene: &mut Scene) -> CloseCode {
    let mut talk = talk(0, &mut scene.shared);
    talk.hear_control(MonoMs(0), &hello());
    loop {
        match talk.step(&mut scene.shared) {
            Ok(Step::Done) => {}
            Err(End::Close(code)) => return code,
            other => panic!("it is not let in, and not {other:?}"),
        }
    }
}

#[tokio::test]
async fn whoever_the_gate_does_not_know_or_want_hears_why() {
    let (writer, mut queue) = mpsc::channel(9);
    let mut scene = Scene::new(writer);
    assert_eq!(refused(&mut scene), CloseCode::NotEnrolled);
    let Some(Input::Order(order)) = scene.orders.recv().await else { panic!("the registry hears of a stranger") };
    assert!(matches!(order.asked, Asked::Registry(What::Stranger { node: stranger, .. }, _) if stranger == node()));
    for (admission, quarantined, code) in [
        (Admission::Revoked, &[][..], CloseCode::Revoked),
        (Admission::Pending, &[], CloseCode::NotApproved),
        (Admission::Approved, &[[1; 16]], CloseCode::Quarantined),
    ] {
        scene.admit(node(), admission, quarantined);
        assert_eq!(refused(&mut scene), code);
    }
    assert!(queue.try_recv().is_err(), "nothing of them comes to the log");
}

#[tokio::test]
async fn another_machine_is_kept_out_once_the_live_one_has_answered() {
    let (writer, mut queue) = mpsc::channel(9);
    let mut scene = approved(writer);
    let mut live = welcome(0, [1; 16], &mut scene, &mut queue);
    let mut newcomer = talk(1, &mut scene.shared);
    newcomer.hear_control(MonoMs(0), &hello_of([2; 16], 9));
    newcomer.hear_control(MonoMs(0), &AgentControl::Heartbeat.encode());
    assert_eq!(settle(&mut newcomer, &mut scene.shared), Step::Awaits);
    assert!(queue.try_recv().is_err(), "nothing of it is admitted before it is decided");
    assert!(newcomer.deadline(&scene.shared).is_some());

    live.read_letters(&scene.shared).expect("it may stay");
    live.keep_up(&mut scene.shared);
    let [CollectorControl::Challenge { nonce }] = said(&mut live)[..] else { panic!("it is challenged") };
    live.hear_control(MonoMs(0), &AgentControl::Present { nonce }.encode());
    settle(&mut live, &mut scene.shared);
    assert_eq!(newcomer.read_letters(&scene.shared), Err(End::Close(CloseCode::Quarantined)));
    let Some(Input::Order(order)) = scene.orders.recv().await else { panic!("the registry hears of it") };
    assert!(matches!(order.asked, Asked::Registry(What::Quarantine { boot_id: [2, ..], .. }, _)));
    newcomer.leave(&mut scene.shared);
    assert_eq!(live.read_letters(&scene.shared), Ok(()), "the live one stays");
}

#[test]
fn whoever_waits_goes_on_when_the_live_session_ends() {
    let (writer, mut queue) = mpsc::channel(9);
    let mut scene = approved(writer);
    let live = welcome(0, [1; 16], &mut scene, &mut queue);
    let mut newcomer = talk(1, &mut scene.shared);
    newcomer.hear_control(MonoMs(0), &hello_of([2; 16], 9));
    assert_eq!(settle(&mut newcomer, &mut scene.shared), Step::Awaits);
    assert!(matches!(live.leave(&mut scene.shared), Some(Arrival::Ended { .. })));
    newcomer.read_letters(&scene.shared).expect("it may stay");
    settle(&mut newcomer, &mut scene.shared);
    assert!(matches!(queue.try_recv(), Ok(Arrival::Hello(_))));
}

#[test]
fn the_clock_of_whoever_waited_is_not_behind_by_that() {
    const WAITS_MS: u64 = 200;
    let (writer, mut queue) = mpsc::channel(9);
    let mut scene = approved(writer);
    let live = welcome(0, [1; 16], &mut scene, &mut queue);
    let mut newcomer = talk(1, &mut scene.shared);
    newcomer.hear_control(MonoMs(0), &hello_of([1; 16], 1));
    assert_eq!(settle(&mut newcomer, &mut scene.shared), Step::Awaits);
    let said = scene.shared.clock.wall();
    let until = scene.shared.clock.mono().plus(WAITS_MS);
    while scene.shared.clock.mono() < until {
        std::hint::spin_loop();
    }
    live.leave(&mut scene.shared);
    newcomer.read_letters(&scene.shared).expect("it may stay");
    settle(&mut newcomer, &mut scene.shared);
    let Ok(Arrival::Hello(greeting)) = queue.try_recv() else { panic!("it goes on") };
    // The Hello says 1970, so that its clock is behind by all that ours reads.
    let behind_ms = greeting.at.since(greeting.hello.wall);
    assert!(behind_ms < said.plus(WAITS_MS.cast_signed()).0, "{behind_ms} ms, not {}", said.0);
}

#[test]
fn an_agent_hears_once_that_its_backlog_waits_and_once_that_there_is_time_again() {
    let (writer, mut queue) = mpsc::channel(9);
    let mut scene = approved(writer);
    let mut live = welcome(0, [1; 16], &mut scene, &mut queue);
    drop(said(&mut live));
    let mut now = scene.shared.clock.now();
    let mut pass = |scene: &mut Scene, seconds: u32, rests: bool| {
        for _ in 0..seconds {
            now += Duration::from_secs(1);
            scene.shared.strain.rest(if rests { Duration::from_secs(1) } else { Duration::ZERO });
            scene.shared.strain.look(now);
        }
    };
    for (seconds, rests, told_ms) in [(4, false, None), (1, false, Some(600_000)), (14, true, None), (1, true, Some(0))]
    {
        pass(&mut scene, seconds, rests);
        for told_ms in [told_ms, None] {
            live.keep_up(&mut scene.shared);
            let config = |backlog_gap_ms| CollectorControl::Config(Config { interval_ms: 0, backlog_gap_ms });
            assert_eq!(said(&mut live), told_ms.map(config).into_iter().collect::<Vec<_>>(), "{seconds} s, {rests}");
        }
    }
}

#[test]
fn a_node_that_is_revoked_is_sent_away_at_once() {
    let (writer, mut queue) = mpsc::channel(9);
    let mut scene = approved(writer);
    let mut live = welcome(3, [1; 16], &mut scene, &mut queue);
    drop(scene.shared.bell.take());
    scene.gate.evict(node(), CloseCode::Revoked);
    scene.shared.evict();
    assert_eq!(scene.shared.bell.take(), [Place(3)]);
    assert_eq!(live.read_letters(&scene.shared), Err(End::Close(CloseCode::Revoked)));
}

#[test]
fn a_turn_of_the_authority_reaches_live_sessions_and_renews_their_certificates() {
    let (writer, mut queue) = mpsc::channel(9);
    let mut scene = approved(writer);
    let authority = Arc::clone(&scene.authority);
    let mut first = talk(0, &mut scene.shared);
    first.hear_control(MonoMs(0), &hello());
    settle(&mut first, &mut scene.shared);
    let Ok(Arrival::Hello(greeting)) = queue.try_recv() else { panic!("the writer hears of it") };
    authority.prepare_next(WallMs(1_790_000_000_000)).expect("nothing is prepared yet");
    greeting.mailbox.resumed(Vec::new());
    first.read_letters(&scene.shared).expect("it may stay");
    first.keep_up(&mut scene.shared);
    let said_first = said(&mut first);
    let [CollectorControl::Welcome(welcome), CollectorControl::Certificate { .. }] = &said_first[..] else {
        panic!("a welcome with the next authority, and a certificate by today's: {said_first:?}");
    };
    assert_eq!(Some(&welcome.next_authority), authority.next_authority().as_ref());
    first.keep_up(&mut scene.shared);
    assert_eq!(said(&mut first), [], "once is enough");

    authority.activate_next(WallMs(1_790_000_000_000)).expect("it is prepared");
    scene.shared.begin_turn();
    first.keep_up(&mut scene.shared);
    let said_then = said(&mut first);
    let [CollectorControl::Authority { .. }, CollectorControl::Certificate { chain }] = &said_then[..] else {
        panic!("the authority that signs now, and a certificate by it: {said_then:?}");
    };
    assert_eq!(chain.len(), 2, "with what leads to the authority before");
}
