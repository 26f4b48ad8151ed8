//! A network that is gone for longer than the idle timeout.

use std::time::Duration;

use dunlin_shared::wire::Lane;
use dunlin_tests::netns::NetnsError;
use dunlin_tests::pki::Authority;
use dunlin_tests::site::{Agent, Collector, QUIC_PORT, counter};
use dunlin_tests::topology::{COLLECTOR, Direct};

use crate::LIMIT;

/// The idle timeout is 30 s, and the last attempt before it may take a while to give up.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// The agent's longest back-off is 30 s, and an attempt takes at most 5 s.
const BACK_LIMIT: Duration = Duration::from_secs(60);
/// An outage of 30 s at a 1 s tick, less what is under way at its ends.
const OUTAGE_FRAMES: usize = 25;

#[test]
fn frames_of_an_outage_arrive_afterwards_live_first_and_once() {
    std::thread::scope(|scope| {
        scope.spawn(|| outage(Direct::cut));
        scope.spawn(|| outage(Direct::unplug));
    });
}

fn outage(disrupt: fn(&Direct) -> Result<(), NetnsError>) {
    let net = Direct::new().expect("the rig makes a network");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&net.collector, &authority).expect("a collector");
    let mut agent = Agent::start(&net.agent, &authority, &format!("{COLLECTOR}:{QUIC_PORT}")).expect("an agent starts");
    collector.wait_committed(5, LIMIT).expect("frames arrive");
    collector.wait_nodes("up", 1.0, LIMIT).expect("the node is up");

    disrupt(&net).expect("the network can be disrupted");
    collector.wait_nodes("suspect", 1.0, IDLE_LIMIT).expect("silence is suspected");
    collector.wait_nodes("down", 1.0, IDLE_LIMIT).expect("silence for longer is down");
    agent.wait_log("not connected: no answer", IDLE_LIMIT).expect("the agent notices as well");
    let before = collector.window().expect("the window is readable");
    let before = before.of(agent.node).expect("the node is known").clone();
    assert_eq!(before.hellos.len(), 1, "the connection was not made anew before the outage");

    net.heal().expect("the network can be healed");
    collector.wait_nodes("up", 1.0, BACK_LIMIT).expect("the node is up again");
    let history = collector
        .wait_window("the frames of the outage", BACK_LIMIT, |window| {
            let history = window.of(agent.node).ok()?;
            let backlog = history.frames.iter().filter(|frame| frame.lane == Lane::Backlog).count();
            (backlog >= OUTAGE_FRAMES && history.check().is_ok()).then(|| history.clone())
        })
        .expect("nothing is missing at last");

    let after = history.since(history.hellos[1]);
    let first_live = after.iter().position(|frame| frame.lane == Lane::Live).expect("live frames flow");
    // Both streams begin in one packet, and the collector reads whichever comes first to its hand.
    assert!(first_live <= 1, "{first_live} frames of the backlog were taken before the newest");
    let newest = after[first_live].seq;
    let outage: Vec<_> = after.iter().filter(|frame| frame.lane == Lane::Backlog && frame.seq < newest).collect();
    assert!(outage.len() >= OUTAGE_FRAMES, "{} frames of the outage", outage.len());
    assert!(outage.is_sorted_by(|a, b| a.seq < b.seq), "the backlog comes oldest first");
    let scrape = collector.scrape().expect("it answers");
    assert_eq!(counter(&scrape, "dunlin_connections_accepted_total", &[]), 2);
    assert!(history.gaps.is_empty(), "nothing was given up: {:?}", history.gaps);
}
