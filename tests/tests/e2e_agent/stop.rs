//! An agent that is asked to stop says goodbye, and keeps what it could not deliver.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::Authority;
use dunlin_tests::site::{Agent, Collector};

use crate::{LIMIT, loopback};

/// It waits at most 2 s for its last acknowledgement, and half a second to be heard. The rest is for a busy machine: whoever
/// waits for anything else waits for the 30 s of silence after which a connection is gone.
const STOP_WITHIN: Duration = Duration::from_secs(12);

#[test]
fn stopped_agent_says_goodbye_and_its_node_is_stopped_not_down() {
    let namespace = Namespace::new("stop").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&namespace, &authority).expect("a collector");
    let mut agent = Agent::start(&namespace, &authority, &loopback()).expect("an agent");
    collector.wait_committed(4, LIMIT).expect("frames arrive");
    let asked = Instant::now();
    let status = agent.terminate(LIMIT).expect("it stops");
    let took = asked.elapsed();
    eprintln!("stopped after {took:?}");
    assert!(status.success() && took < STOP_WITHIN, "{status} after {took:?}: {}", agent.log_text());
    assert!(!agent.log_text().contains("has not confirmed"), "all was acknowledged: {}", agent.log_text());
    collector.wait_nodes("stopped", 1.0, LIMIT).expect("the goodbye is believed");
    let window = collector.window().expect("the window is readable");
    let history = window.of(agent.node).expect("the node is known");
    history.check().expect("nothing is missing");
    assert_eq!(history.goodbyes, 1);

    agent.restart().expect("it starts again");
    collector.wait_nodes("up", 1.0, LIMIT).expect("it is back");
}

#[test]
fn agent_without_a_collector_stops_as_fast_and_delivers_after_its_next_start() {
    let namespace = Namespace::new("park").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let mut collector = Collector::start(&namespace, &authority).expect("a collector");
    let mut agent = Agent::start(&namespace, &authority, &loopback()).expect("an agent");
    collector.wait_committed(4, LIMIT).expect("frames arrive");
    let window = collector.window().expect("the window is readable");
    let taken = window.of(agent.node).expect("the node is known").frames.len();
    collector.kill9().expect("it can be killed");
    // By then it took frames that nobody confirmed.
    agent.wait_log("not connected: no answer", LIMIT).expect("it notices");
    let asked = Instant::now();
    let status = agent.terminate(LIMIT).expect("it stops");
    let took = asked.elapsed();
    eprintln!("stopped after {took:?}");
    assert!(status.success() && took < STOP_WITHIN, "{status} after {took:?}: {}", agent.log_text());

    collector.restart().expect("it starts again");
    agent.restart().expect("it starts again");
    collector.wait_committed(4, LIMIT).expect("frames arrive");
    let left = collector.wait_window("both runs without holes", LIMIT, |window| {
        let history = window.of(agent.node).ok()?;
        let epochs: BTreeSet<_> = history.frames.iter().map(|frame| frame.epoch).collect();
        let first = history.frames.iter().filter(|frame| Some(&frame.epoch) == epochs.first()).count();
        (epochs.len() == 2 && history.check().is_ok()).then_some(first)
    });
    let left = left.expect("what the first run could not deliver is there");
    assert!(left >= taken, "{left} frames of the first run, {taken} were committed before");
    assert!(agent.log_text().contains("kept what the collector has not confirmed"), "{}", agent.log_text());
    let said = collector.log_text();
    assert!(!said.contains("lost for good"), "a stop in order is no crash: {said}");
}
