//! Shows that the proxy passes, loses, doubles, reorders and rebinds real datagrams on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use dunlin_tests::proxy::{Proxy, ProxyError, Way};
use dunlin_tests::weather::{Counts, Weather};
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Line {
    agent: UdpSocket,
    collector: UdpSocket,
    proxy: Proxy,
}

async fn line(seed: u64) -> Line {
    let agent = UdpSocket::bind(ANY_PORT).await.expect("loopback has a free port");
    let collector = UdpSocket::bind(ANY_PORT).await.expect("loopback has a free port");
    let target = collector.local_addr().expect("it is bound");
    let proxy = Proxy::start(ANY_PORT, target, seed).await.expect("loopback has a free port");
    agent.connect(proxy.address()).await.expect("loopback is reachable");
    Line { agent, collector, proxy }
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let got = timeout(LIMIT, socket.recv_from(&mut buffer)).await.expect("a datagram comes within the limit");
    let (len, from) = got.expect("loopback works");
    (buffer[..len].to_vec(), from)
}

impl Line {
    /// Sends numbered datagrams in steps, so that no queue overflows, and returns what arrives, in order.
    async fn pass(&self, count: u64) -> Vec<u64> {
        let mut arrived = Vec::new();
        for number in 0..count {
            self.agent.send(&number.to_le_bytes()).await.expect("loopback works");
            // Each is accounted for before the next goes out.
            loop {
                let counts = self.proxy.counts(Way::Up);
                if counts.offered == number + 1 && counts.delivered == arrived.len() as u64 {
                    break;
                }
                if counts.delivered > arrived.len() as u64 {
                    let (bytes, _) = receive(&self.collector).await;
                    arrived.push(u64::from_le_bytes(bytes.try_into().expect("eight bytes were sent")));
                } else {
                    tokio::task::yield_now().await;
                }
            }
        }
        arrived
    }
}

#[tokio::test]
async fn fair_weather_passes_both_ways_and_counts() {
    let Line { agent, collector, proxy } = line(1).await;
    agent.send(b"up").await.expect("loopback works");
    let (bytes, from) = receive(&collector).await;
    assert_eq!(bytes, b"up");
    collector.send_to(b"down", from).await.expect("loopback works");
    assert_eq!(receive(&agent).await, (b"down".to_vec(), proxy.address()));
    let one = Counts { offered: 1, delivered: 1, ..Counts::default() };
    // The count comes after the datagram.
    while proxy.counts(Way::Down) != one {
        tokio::task::yield_now().await;
    }
    assert_eq!(proxy.counts(Way::Up), one);
}

#[tokio::test]
async fn clients_are_told_apart() {
    let Line { agent, collector, proxy } = line(1).await;
    let other = UdpSocket::bind(ANY_PORT).await.expect("loopback has a free port");
    other.connect(proxy.address()).await.expect("loopback is reachable");
    agent.send(b"agent").await.expect("loopback works");
    let (_, agent_seen) = receive(&collector).await;
    other.send(b"other").await.expect("loopback works");
    let (_, other_seen) = receive(&collector).await;
    assert_ne!(agent_seen, other_seen);
    collector.send_to(b"for other", other_seen).await.expect("loopback works");
    collector.send_to(b"for agent", agent_seen).await.expect("loopback works");
    assert_eq!(receive(&agent).await.0, b"for agent");
    assert_eq!(receive(&other).await.0, b"for other");
}

#[tokio::test]
async fn same_seed_loses_and_doubles_the_same_datagrams() {
    let weather = Weather { loss: 0.2, duplication: 0.2, ..Weather::default() };
    let mut arrivals = Vec::new();
    for seed in [5, 5, 6] {
        let line = line(seed).await;
        line.proxy.set_weather(Way::Up, weather);
        arrivals.push(line.pass(500).await);
        let counts = line.proxy.counts(Way::Up);
        assert!(counts.lost > 50 && counts.duplicated > 50, "{counts:?}");
    }
    assert_eq!(arrivals[0], arrivals[1]);
    assert_ne!(arrivals[0], arrivals[2]);
}

#[tokio::test]
async fn reordering_swaps_neighbours() {
    let Line { agent, collector, proxy } = line(3).await;
    proxy.set_weather_all(Weather { reordering: 1.0, ..Weather::default() });
    for number in 0..20 {
        agent.send(&[number]).await.expect("loopback works");
    }
    let mut arrived = Vec::new();
    for _ in 0..20 {
        arrived.push(receive(&collector).await.0[0]);
    }
    // Each waits 50 ms for the next. Should the machine pause so long between two, that pair stays in order.
    assert!(arrived.chunks(2).any(|pair| pair[0] == pair[1] + 1), "{arrived:?}");
    arrived.sort_unstable();
    assert_eq!(arrived, (0..20).collect::<Vec<_>>());
    agent.send(b"alone").await.expect("loopback works");
    assert_eq!(receive(&collector).await.0, b"alone");
}

#[tokio::test]
async fn total_loss_cuts_one_way_only() {
    let Line { agent, collector, proxy } = line(4).await;
    agent.send(b"hello").await.expect("loopback works");
    let (_, from) = receive(&collector).await;
    proxy.set_weather(Way::Up, Weather { loss: 1.0, ..Weather::default() });
    agent.send(b"lost").await.expect("loopback works");
    collector.send_to(b"down", from).await.expect("loopback works");
    assert_eq!(receive(&agent).await.0, b"down");
    while proxy.counts(Way::Up).lost < 1 {
        tokio::task::yield_now().await;
    }
    proxy.set_weather_all(Weather::default());
    agent.send(b"heard").await.expect("loopback works");
    assert_eq!(receive(&collector).await.0, b"heard");
}

#[tokio::test]
async fn rebind_changes_the_port_that_the_collector_sees() {
    let Line { agent, collector, proxy } = line(5).await;
    agent.send(b"one").await.expect("loopback works");
    let (_, before) = receive(&collector).await;
    proxy.rebind();
    agent.send(b"two").await.expect("loopback works");
    let (bytes, after) = receive(&collector).await;
    assert_eq!(bytes, b"two");
    assert_ne!(before, after);
    collector.send_to(b"lost", before).await.expect("loopback works");
    collector.send_to(b"heard", after).await.expect("loopback works");
    assert_eq!(receive(&agent).await.0, b"heard");
}

#[tokio::test]
async fn foreign_addresses_are_refused() {
    let foreign = SocketAddr::from(([192, 0, 2, 1], 9737));
    for (listen, target) in [(ANY_PORT, foreign), (foreign, ANY_PORT)] {
        let refused = Proxy::start(listen, target, 0).await;
        assert!(matches!(refused, Err(ProxyError::Foreign(address)) if address == foreign));
    }
}
