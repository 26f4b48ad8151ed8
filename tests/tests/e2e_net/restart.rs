//! A collector that is killed, or asked to stop, and comes back.

use std::time::{Duration, Instant};

use dunlin_tests::pki::Authority;
use dunlin_tests::site::{Agent, Collector, QUIC_PORT, counter};
use dunlin_tests::topology::{COLLECTOR, Direct};

use crate::LIMIT;

/// A tick of 1 s, a back-off of half a second, and the collector's spreading over 2 s; the idle timeout of 30 s,
/// by which an agent would notice without a reset, is far beyond.
const BACK_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn killed_collector_is_noticed_at_once_and_has_lost_nothing() {
    let net = Direct::new().expect("the rig makes a network");
    let authority = Authority::new().expect("an authority");
    let mut collector = Collector::start(&net.collector, &authority).expect("a collector");
    let mut agent = Agent::start(&net.agent, &authority, &format!("{COLLECTOR}:{QUIC_PORT}")).expect("an agent");
    for round in 1..=3 {
        collector.wait_committed(4, LIMIT).expect("frames arrive");
        collector.kill9().expect("it can be killed");
        collector.restart().expect("it starts again");
        let ready = Instant::now();
        collector.wait_committed(1, LIMIT).expect("the agent is back");
        let took = ready.elapsed();
        eprintln!("kill -9, round {round}: first frame committed {took:?} after the collector was ready");
        assert!(took < BACK_WITHIN, "round {round}: {took:?}\n{}", agent.log_text());
        agent.wait_log("the collector was restarted", LIMIT).expect("a reset told it");
    }
    let history = collector
        .wait_window("a window without holes", LIMIT, |window| {
            let history = window.of(agent.node).ok()?;
            (history.check().is_ok() && history.frames.len() > 14).then(|| history.clone())
        })
        .expect("nothing is missing at last");
    assert!(history.gaps.is_empty());
}

#[test]
fn stopped_collector_says_so_and_acknowledges_all_that_it_received() {
    let net = Direct::new().expect("the rig makes a network");
    let authority = Authority::new().expect("an authority");
    let mut collector = Collector::start(&net.collector, &authority).expect("a collector");
    let mut agent = Agent::start(&net.agent, &authority, &format!("{COLLECTOR}:{QUIC_PORT}")).expect("an agent");
    for round in 1..=3 {
        collector.wait_committed(4 + round, LIMIT).expect("frames arrive");
        let asked = Instant::now();
        let status = collector.terminate().expect("it stops");
        assert!(status.success(), "{status}: {}", collector.running().log_text());
        eprintln!("SIGTERM, round {round}: stopped after {:?}", asked.elapsed());
        agent.wait_log("the collector is being stopped", LIMIT).expect("the agent was told");
        collector.restart().expect("it starts again");
        let ready = Instant::now();
        collector.wait_committed(2, LIMIT).expect("the agent is back");
        let took = ready.elapsed();
        eprintln!("SIGTERM, round {round}: two frames committed {took:?} after the collector was ready");
        assert!(took < BACK_WITHIN, "round {round}: {took:?}\n{}", agent.log_text());
        let scrape = collector.scrape().expect("it answers");
        let twice = counter(&scrape, "dunlin_frames_duplicate_total", &[]);
        assert_eq!(twice, 0, "what had been received was acknowledged, so nothing is sent again");
    }
    collector
        .wait_window("a window without holes", LIMIT, |window| window.of(agent.node).ok()?.check().ok())
        .expect("nothing is missing at last");
}
