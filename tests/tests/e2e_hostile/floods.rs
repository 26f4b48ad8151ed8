//! Peers that send too much: messages, frames, streams, handshakes, and bytes that mean nothing.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::limits::{HANDSHAKES_BEFORE_RETRY, PIECE_BYTES_MAX};
use dunlin_shared::wire::{AgentControl, COLLECTOR_NAME, CloseCode, Item, Lane, Piece};
use dunlin_tests::deadline::until;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::node_ids;
use dunlin_tests::proxy::{Proxy, Way};
use dunlin_tests::random::Random;
use dunlin_tests::site::{Agent, QUIC_PORT};
use dunlin_tests::weather::Weather;

use crate::peer::{LIMIT, Peer, Scene, address, code_of, frame};

/// Far above the burst and the rate that a connection has.
const FLOOD: u64 = 3_000;
const GARBAGE_DATAGRAMS: usize = 5_000;
/// Twice what may be under way without a proof of address.
const HALF_OPEN: usize = 2 * HANDSHAKES_BEFORE_RETRY;
/// A handshake under way is given up after 5 s.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);

/// The bytes of the item with this number.
type Make = fn(u64) -> Vec<u8>;

#[test]
fn floods_of_messages_frames_bytes_and_streams_are_cut_off() {
    let namespace = Namespace::new("floods").expect("a namespace");
    let scene = Scene::new(&namespace);
    // One that flooded is kept out for a while, so each flood has a node of its own.
    let mut nodes = node_ids(176, 0).into_iter().skip(170);
    let mut next = || {
        let node = nodes.next().expect("there are enough");
        (node, scene.authority.node(node).expect("a certificate").identity())
    };
    let one_by_one: &[(&str, Make)] = &[
        ("frames", |seq| frame(5, seq)),
        ("the same frame", |_| frame(5, 0)),
        ("large frames", |seq| {
            let body = vec![0xee; PIECE_BYTES_MAX];
            Item::Inventory(Piece { epoch: Epoch(5), seq: Seq(1_000_000 + seq), index: 0, count: 1, body: &body })
                .encode()
        }),
    ];
    let mut expected = 0;
    let mut check = |name: &str, code: Option<CloseCode>| {
        expected += 1;
        assert_eq!(code, Some(CloseCode::Flooding), "{name}");
        until("the count", LIMIT, || (scene.closed(CloseCode::Flooding) == expected).then_some(())).expect(name);
    };
    for (name, make) in one_by_one {
        let (node, identity) = next();
        let code = scene.runtime.block_on(async {
            let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
            peer.greet(node).await;
            let mut stream = peer.stream(&[Lane::Live as u8]).await.expect("a stream is allowed");
            for seq in 0..FLOOD {
                if stream.write_all(&make(seq)).await.is_err() {
                    break;
                }
            }
            peer.closed().await
        });
        check(name, code);
    }
    let (node, identity) = next();
    let code = scene.runtime.block_on(async {
        let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
        peer.greet(node).await;
        peer.say(&AgentControl::Heartbeat.encode().repeat(usize::try_from(FLOOD).expect("small"))).await;
        peer.closed().await
    });
    check("heartbeats", code);
    let (node, identity) = next();
    let code = scene.runtime.block_on(async {
        let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
        peer.greet(node).await;
        churn(&peer).await;
        peer.closed().await
    });
    check("streams that come and go", code);
    let again = scene.runtime.block_on(async {
        match scene.connect(Some(&identity)).await {
            Ok(peer) => peer.closed().await,
            Err(error) => code_of(&error),
        }
    });
    check("one that comes back at once", again);
    scene.end();
}

async fn churn(peer: &Peer) {
    for _ in 0..FLOOD {
        let Ok(mut stream) = peer.connection.open_uni().await else { return };
        // A stream that was reset before it was accepted is gone for the collector; one that ends is not.
        if stream.finish().is_err() {
            return;
        }
    }
}

#[test]
fn half_open_handshakes_keep_no_honest_agent_out() {
    let namespace = Namespace::new("half-open").expect("a namespace");
    let scene = Scene::new(&namespace);
    let node = node_ids(181, 0)[180];
    let identity = scene.authority.node(node).expect("a certificate").identity();
    // What the collector answers never arrives, as if the addresses were forged.
    let listener = scene.namespace.enter(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime")
    });
    let inside = listener.expect("the namespace is there");
    let start = Proxy::start((Ipv4Addr::LOCALHOST, 0).into(), address(), 1);
    let proxy = inside.block_on(inside.spawn(start)).expect("no panic").expect("a proxy");
    proxy.set_weather(Way::Down, Weather { loss: 1.0, ..Weather::default() });

    let config = scene.client_config(Some(&identity));
    let attempts = scene.runtime.block_on(async {
        let mut attempts = Vec::new();
        for _ in 0..HALF_OPEN {
            let endpoint = scene.endpoint();
            let attempt = endpoint.connect_with(config.clone(), proxy.address(), COLLECTOR_NAME);
            attempts.push((attempt.expect("a valid configuration"), endpoint));
        }
        attempts
    });
    let retried = || (scene.rise("dunlin_handshakes_retried_total", &[]) > 0).then_some(());
    until("a Retry", HANDSHAKE_LIMIT, retried).expect("above the threshold an address must be proven");
    let began = Instant::now();
    let newcomer = Agent::start(scene.namespace, &scene.authority, &format!("127.0.0.1:{QUIC_PORT}"));
    let mut newcomer = newcomer.expect("an agent starts");
    newcomer.wait_log("streaming to the collector", LIMIT).expect("it is let in beside them");
    eprintln!("a newcomer was let in after {:?}", began.elapsed());
    assert!(!newcomer.log_text().contains("not connected"), "{}", newcomer.log_text());
    let given_up = || {
        let failed = scene.rise("dunlin_handshakes_failed_total", &[]);
        (failed >= HANDSHAKES_BEFORE_RETRY as u64).then_some(())
    };
    until("the end of the half-open handshakes", HANDSHAKE_LIMIT, given_up).expect("each is given up and counted");
    drop(attempts);
    drop(newcomer);
    scene.end();
}

#[test]
fn garbage_datagrams_have_no_effect() {
    let namespace = Namespace::new("garbage").expect("a namespace");
    let scene = Scene::new(&namespace);
    let mut random = Random::new(11);
    let socket = scene.namespace.enter(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    let socket = socket.expect("the namespace is there").expect("a port is free");
    for number in 0..GARBAGE_DATAGRAMS {
        let len = 1 + usize::try_from(random.below(1_400)).expect("small");
        let mut datagram: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| random.next_u64().to_le_bytes()).collect();
        datagram.truncate(len);
        // Every other looks like the first packet of a connection of QUIC version 1.
        if number % 2 == 0 && len > 6 {
            datagram[0] = 0xc0 | (datagram[0] & 0x0f);
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
            datagram[5] = 8;
        }
        socket.send_to(&datagram, address()).expect("loopback takes it");
    }
    let committed = dunlin_tests::site::committed(&scene.collector.scrape().expect("it answers"));
    scene.collector.wait_committed(committed + 5, LIMIT).expect("honest frames are committed beside it");
    assert_eq!(scene.rise("dunlin_connections_accepted_total", &[]), 0);
    scene.end();
}
