//! A path that changes or is bad, while the connection stays.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dunlin_tests::pki::Authority;
use dunlin_tests::proxy::{Proxy, Way};
use dunlin_tests::scrape::Scrape;
use dunlin_tests::site::{Agent, Collector, QUIC_PORT, committed, counter};
use dunlin_tests::topology::{COLLECTOR, Direct, FAR_COLLECTOR, Natted};
use dunlin_tests::weather::Weather;

use crate::LIMIT;

const STORM: Weather = Weather {
    loss: 0.1,
    duplication: 0.02,
    reordering: 0.1,
    delay_min: Duration::from_millis(5),
    delay_max: Duration::from_millis(60),
};
/// A minute of frames at a 1 s tick, and as long again for a busy machine.
const STORM_FRAMES: u64 = 60;
const STORM_LIMIT: Duration = Duration::from_secs(150);
const PROXY_PORT: u16 = 9740;

#[test]
fn connection_survives_that_a_nat_forgets_it() {
    let net = Natted::new().expect("the rig makes a network");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&net.collector, &authority).expect("a collector");
    let agent = Agent::start(&net.agent, &authority, &format!("{FAR_COLLECTOR}:{QUIC_PORT}")).expect("an agent");
    collector.wait_committed(4, LIMIT).expect("frames arrive");
    for _ in 0..2 {
        let before = committed(&collector.scrape().expect("it answers"));
        net.rebind().expect("the router rebinds");
        // Past the next acknowledgement, which the collector must have sent to the new port.
        collector.wait_committed(before + 8, LIMIT).expect("frames arrive from the new port");
    }
    let scrape = collector.scrape().expect("it answers");
    assert_eq!(counter(&scrape, "dunlin_connections_accepted_total", &[]), 1, "{}", agent.log_text());
    assert_eq!(counter(&scrape, "dunlin_frames_duplicate_total", &[]), 0);
    let window = collector.window().expect("the window is readable");
    window.of(agent.node).expect("the node is known").check().expect("nothing is lost");
    assert!(!agent.log_text().contains("not connected"), "{}", agent.log_text());
}

#[test]
fn a_tenth_of_the_packets_lost_downs_no_node_and_loses_no_frame() {
    let net = Direct::new().expect("the rig makes a network");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&net.collector, &authority).expect("a collector");
    let runtime = net
        .collector
        .enter(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build())
        .expect("the namespace is there")
        .expect("a runtime");
    let listen = SocketAddr::from((COLLECTOR, PROXY_PORT));
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, QUIC_PORT));
    let proxy = runtime.block_on(runtime.spawn(Proxy::start(listen, target, 7)));
    let proxy = proxy.expect("the proxy's start does not panic").expect("a proxy");
    proxy.set_weather_all(STORM);
    let agent = Agent::start(&net.agent, &authority, &format!("{COLLECTOR}:{PROXY_PORT}")).expect("an agent");
    collector.wait_nodes("up", 1.0, LIMIT).expect("the node is up in spite of it");

    let silent = |scrape: &Scrape| {
        let nodes = |state| scrape.value("dunlin_nodes", &[("state", state)]).unwrap_or(0.0);
        nodes("suspect") + nodes("down")
    };
    collector
        .wait("a minute of frames", STORM_LIMIT, |scrape| {
            assert!(silent(scrape) < 1.0, "a false alarm; the agent said:\n{}", agent.log_text());
            (committed(scrape) >= STORM_FRAMES).then_some(())
        })
        .expect("frames arrive in spite of it");
    let (up, down) = (proxy.counts(Way::Up), proxy.counts(Way::Down));
    assert!(up.lost > 3 && down.lost > 3, "the weather was bad: {up:?}, {down:?}");
    assert!(up.reordered + down.reordered > 3, "and packets came out of their order: {up:?}, {down:?}");

    // Once the sky is clear, what was being sent again arrives.
    proxy.set_weather_all(Weather::default());
    let history = collector
        .wait_window("a window without holes", LIMIT, |window| {
            let history = window.of(agent.node).ok()?;
            history.check().ok().map(|()| history.clone())
        })
        .expect("nothing is missing at last");
    assert!(history.gaps.is_empty());
    let scrape = collector.scrape().expect("it answers");
    assert_eq!(counter(&scrape, "dunlin_connections_accepted_total", &[]), 1, "{}", agent.log_text());
}
