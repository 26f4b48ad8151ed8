//! Peers that take their time: a Hello that never comes or never ends, streams without an end, ears shut.

use std::time::{Duration, Instant};

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::limits::{PIECE_BYTES_MAX, PIECES_MAX, UNI_STREAMS_MAX};
use dunlin_shared::wire::{CloseCode, Item, Lane, Piece};
use dunlin_tests::deadline::until;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::node_ids;
use quinn::{TransportConfig, VarInt};

use crate::peer::{LIMIT, Scene, hello};

/// A Hello is due after 5 s; as long again for a busy machine.
const TOO_SLOW: Duration = Duration::from_secs(10);
/// Nodes that each hold as much as they can.
const HOARDERS: usize = 6;
/// A byte so often makes a Hello of half a minute.
const BYTE_EVERY: Duration = Duration::from_millis(250);

#[test]
fn peer_without_a_whole_hello_is_closed_after_five_seconds() {
    let namespace = Namespace::new("slow").expect("a namespace");
    let scene = Scene::new(&namespace);
    let node = node_ids(131, 0)[130];
    let identity = scene.authority.node(node).expect("a certificate").identity();
    let bytes = hello(node).encode();
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    scene.runtime.block_on(async {
        let began = Instant::now();
        // A control stream that is opened without a byte on it does not exist for the collector.
        let mute = async {
            let peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
            peer.closed().await
        };
        let halting = async {
            let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
            peer.say(half).await;
            peer.closed().await
        };
        let dripping = async {
            let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
            for byte in half.iter().chain(rest) {
                if peer.connection.close_reason().is_some() {
                    break;
                }
                peer.say(&[*byte]).await;
                tokio::time::sleep(BYTE_EVERY).await;
            }
            peer.closed().await
        };
        let codes = tokio::join!(mute, halting, dripping);
        assert_eq!(codes, (Some(CloseCode::TooSlow), Some(CloseCode::TooSlow), Some(CloseCode::TooSlow)));
        assert!(began.elapsed() < TOO_SLOW, "{:?}", began.elapsed());
    });
    until("the count", LIMIT, || (scene.closed(CloseCode::TooSlow) == 3).then_some(())).expect("each is counted");
    scene.end();
}

#[test]
fn hello_that_comes_byte_by_byte_in_time_is_welcomed() {
    let namespace = Namespace::new("bytes").expect("a namespace");
    let scene = Scene::new(&namespace);
    let node = node_ids(141, 0)[140];
    let identity = scene.authority.node(node).expect("a certificate").identity();
    scene.runtime.block_on(async {
        let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
        for byte in hello(node).encode() {
            peer.say(&[byte]).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let answer = tokio::time::timeout(LIMIT, peer.answers.read_chunk(1, true)).await;
        assert!(answer.expect("an answer comes").expect("the stream is open").is_some());
    });
    scene.end();
}

#[test]
fn streams_that_never_end_hold_no_more_than_their_limits() {
    let namespace = Namespace::new("hoard").expect("a namespace");
    let scene = Scene::new(&namespace);
    let nodes = node_ids(150 + HOARDERS, 0).split_off(150);
    let body = vec![0x55; PIECE_BYTES_MAX];
    // One piece less than the frame has, on each lane; then half a message.
    let unfinished = |lane: Lane| {
        let count = PIECES_MAX;
        let piece = |index| Item::Inventory(Piece { epoch: Epoch(5), seq: Seq(1), index, count, body: &body }).encode();
        let mut bytes = vec![lane as u8];
        (0..count - 1).for_each(|index| bytes.extend(piece(index)));
        let last = piece(count - 1);
        bytes.extend(&last[..last.len() - 1]);
        bytes
    };
    let peers = scene.runtime.block_on(async {
        let mut peers = Vec::new();
        for node in nodes {
            let identity = scene.authority.node(node).expect("a certificate").identity();
            let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
            peer.greet(node).await;
            let mut open = Vec::new();
            for lane in [Lane::Live, Lane::Backlog] {
                open.extend(peer.stream(&unfinished(lane)).await);
            }
            // A third stream without a kind yet; a fourth is not allowed.
            open.extend(peer.stream(&[]).await);
            assert_eq!(u32::try_from(open.len()), Ok(UNI_STREAMS_MAX));
            let fourth = tokio::time::timeout(Duration::from_millis(500), peer.connection.open_uni()).await;
            assert!(fourth.is_err(), "a fourth stream was granted");
            peers.push((peer, open));
        }
        peers
    });
    let committed = dunlin_tests::site::committed(&scene.collector.scrape().expect("it answers"));
    scene.collector.wait_committed(committed + 3, LIMIT).expect("honest frames are committed beside it");
    for (peer, _) in &peers {
        assert!(peer.connection.close_reason().is_none(), "it kept to its limits");
    }
    drop(peers);
    scene.end();
}

#[test]
fn peer_that_never_reads_is_closed_as_too_slow() {
    let namespace = Namespace::new("deaf").expect("a namespace");
    let scene = Scene::new(&namespace);
    let node = node_ids(161, 0)[160];
    let identity = scene.authority.node(node).expect("a certificate").identity();
    scene.runtime.block_on(async {
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(0));
        let mut peer = scene.connect_with(Some(&identity), transport).await.expect("the certificate is good");
        peer.say(&hello(node).encode()).await;
        assert_eq!(peer.closed().await, Some(CloseCode::TooSlow));
    });
    until("the count", LIMIT, || (scene.closed(CloseCode::TooSlow) == 1).then_some(())).expect("it is counted");
    scene.end();
}
