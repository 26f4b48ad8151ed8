//! Who says to be another node: with a good certificate of its own, with another key under the right name, or with
//! frames that were sent before. Each is closed with a code, counted and noted, and the node goes on unharmed.

use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId, NodeId, Seq};
use dunlin_shared::wire::{self, AgentControl, CloseCode, CollectorControl, Hello, Lane};
use dunlin_tests::deadline::until;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Identity, node_ids};
use dunlin_tests::scrape::Scrape;

use crate::peer::{LIMIT, Peer, Scene, code_of, hello, plain_hello};

/// Claims in a row: an agent that lies does not stop at one.
const CLAIMS: u64 = 25;

#[test]
fn a_node_that_says_to_be_another_one_is_closed_noted_and_heard_of_nowhere() {
    let namespace = Namespace::new("impostor").expect("a namespace");
    let scene = Scene::new(&namespace);
    let (claimed, liar) = (scene.honest_node(), node_ids(131, 0)[130]);
    let identity = scene.authority.node(liar).expect("a certificate").identity();
    // In a later epoch, from another machine, and as the one that it is: none of it makes it the other node.
    let claims = [
        hello(claimed),
        with(claimed, |hello| hello.epoch = Epoch(900)),
        with(claimed, |hello| hello.boot_id = [9; 16]),
    ];
    scene.runtime.block_on(async {
        for claim in claims.iter().cycle().take(usize::try_from(CLAIMS).expect("it is small")) {
            let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
            peer.say(&claim.encode()).await;
            let _frames = peer.stream(&[vec![Lane::Live as u8], frame(900, 0, b"forged")].concat()).await;
            assert_eq!(peer.closed().await, Some(CloseCode::WrongNode));
        }
    });
    let counted = || (scene.closed(CloseCode::WrongNode) == CLAIMS).then_some(());
    until("the count", LIMIT, counted).expect("each is counted");
    let said = scene.collector.log_text();
    let noted = said.lines().find(|line| line.contains("reason=\"wrong_node\""));
    assert!(noted.is_some_and(|line| line.contains(&liar.to_string())), "the log names who it was: {said}");
    let window = scene.collector.window().expect("it is readable");
    assert!(window.of(liar).is_err(), "it never said who it is");
    let history = window.of(claimed).expect("the honest one");
    assert_eq!(history.hellos.len(), 1, "nobody spoke in its name");
    assert!(history.frames.iter().all(|frame| frame.epoch != Epoch(900)));
    scene.end();
}

#[test]
fn a_certificate_in_the_name_of_a_node_with_another_key_is_worth_nothing() {
    let namespace = Namespace::new("other-key").expect("a namespace");
    let scene = Scene::new(&namespace);
    let claimed = scene.honest_node();
    let other_key = scene.authority.client(&format!("dunlin:node:{claimed}")).expect("a certificate");
    scene.runtime.block_on(async {
        for _ in 0..CLAIMS {
            // It is closed at once, so that it may come to no stream at all.
            let code = match scene.connect(Some(&other_key)).await {
                Ok(mut peer) => {
                    peer.say(&with(claimed, |hello| hello.epoch = Epoch(900)).encode()).await;
                    peer.closed().await
                }
                Err(ended) => code_of(&ended),
            };
            assert_eq!(code, Some(CloseCode::NotEnrolled), "the key is pinned to the node");
        }
    });
    let counted = || (scene.closed(CloseCode::NotEnrolled) == CLAIMS).then_some(());
    until("the count", LIMIT, counted).expect("each is counted");
    let window = scene.collector.window().expect("it is readable");
    assert_eq!(window.of(claimed).expect("the honest one").hellos.len(), 1, "nobody spoke in its name");
    scene.end();
}

#[test]
fn a_number_that_was_used_for_another_content_is_refused_and_the_first_content_stays() {
    let namespace = Namespace::new("rewound").expect("a namespace");
    let scene = Scene::new(&namespace);
    let node = node_ids(132, 0)[131];
    let identity = scene.authority.node(node).expect("a certificate").identity();
    scene.runtime.block_on(async {
        let mut peer = welcome(&scene, &identity, node).await;
        let _frames = peer.stream(&[vec![Lane::Backlog as u8], frame(5, 7, b"first")].concat()).await;
        acknowledged(&mut peer).await;
        // The same once more is what a lost acknowledgement leads to, and is confirmed again.
        let mut peer = again(&scene, &identity, node, peer).await;
        let _frames = peer.stream(&[vec![Lane::Backlog as u8], frame(5, 7, b"first")].concat()).await;
        acknowledged(&mut peer).await;
        let peer = again(&scene, &identity, node, peer).await;
        let _frames = peer.stream(&[vec![Lane::Backlog as u8], frame(5, 7, b"other")].concat()).await;
        assert_eq!(peer.closed().await, Some(CloseCode::Rewound));
        // Who counts anew below what it sent is told so at once.
        let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
        peer.say(&with(node, |hello| hello.next_seq = Seq(3)).encode()).await;
        assert_eq!(peer.closed().await, Some(CloseCode::Rewound));
        let mut peer = scene.connect(Some(&identity)).await.expect("the certificate is good");
        peer.say(&with(node, |hello| hello.epoch = Epoch(4)).encode()).await;
        assert_eq!(peer.closed().await, Some(CloseCode::Rewound));
    });
    let counted = || (scene.closed(CloseCode::Rewound) == 3).then_some(());
    until("the count", LIMIT, counted).expect("each is counted");
    let history = scene.collector.window().expect("it is readable").of(node).cloned().expect("it was welcome");
    let frames: Vec<_> = history.frames.iter().map(|frame| (frame.epoch, frame.seq)).collect();
    assert_eq!(frames, [(Epoch(5), Seq(7))], "one content for one number");
    scene.end();
}

async fn welcome(scene: &Scene<'_>, identity: &Identity, node: NodeId) -> Peer {
    let mut peer = scene.connect(Some(identity)).await.expect("the certificate is good");
    peer.say(&hello(node).encode()).await;
    assert!(matches!(peer.next().await, CollectorControl::Welcome(_)));
    peer
}

/// Another connection of the same run; the one before has ended for both sides.
async fn again(scene: &Scene<'_>, identity: &Identity, node: NodeId, before: Peer) -> Peer {
    before.connection.close(0u32.into(), b"");
    let alone = |scrape: &Scrape| (scrape.value("dunlin_connections", &[])? == 1.0).then_some(());
    scene.collector.wait("the honest agent alone", LIMIT, alone).expect("the end is heard of");
    welcome(scene, identity, node).await
}

async fn acknowledged(peer: &mut Peer) {
    loop {
        match peer.next().await {
            CollectorControl::Ack(_) => return,
            // An inventory that says nothing is asked for again; whether that comes first is a race of two threads.
            CollectorControl::AskInventory => {}
            other => panic!("it is stored, and not answered with {other:?}"),
        }
    }
}

fn with(node: NodeId, change: impl Fn(&mut Hello)) -> AgentControl {
    let mut changed = plain_hello(node);
    change(&mut changed);
    AgentControl::Hello(changed)
}

/// An inventory frame of a kind that is yet to come, which is kept as it is.
fn frame(epoch: u32, seq: u64, body: &[u8]) -> Vec<u8> {
    let body = [&[0xff], body].concat();
    wire::items(&Frame { id: FrameId::new(epoch, seq), kind: BodyKind::Inventory, body }).expect("it is small")
}
