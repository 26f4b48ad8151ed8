//! Who is let in: a certificate of our authority that names one node and is not out of date.

use dunlin_shared::id::{Epoch, NodeId};
use dunlin_shared::wire::{AgentControl, CloseCode, CollectorControl, Hello};
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, Identity, node_ids};
use quinn::ConnectionError;

use crate::peer::{LIMIT, Peer, Scene, code_of, hello, plain_hello};

#[test]
fn certificate_that_does_not_name_one_node_of_ours_opens_nothing() {
    let namespace = Namespace::new("certificates").expect("a namespace");
    let scene = Scene::new(&namespace);
    let node = node_ids(111, 0)[110];
    let (uri, second) = (format!("dunlin:node:{node}"), format!("dunlin:node:{}", node_ids(112, 0)[111]));
    let foreign = Authority::new().expect("an authority").node(node).expect("a certificate").identity();
    let expired = scene.authority.expired_client(&uri).expect("a certificate");
    for (name, identity) in [("none", None), ("of another authority", Some(foreign)), ("expired", Some(expired))] {
        let before = scene.rise("dunlin_handshakes_failed_total", &[]);
        let ended = scene.runtime.block_on(end_of_handshake(&scene, identity.as_ref()));
        // TLS lets those without one in, because they may enrol; here they are closed before they say anything.
        let refused = match identity {
            None => code_of(&ended) == Some(CloseCode::NotEnrolled),
            Some(_) => matches!(ended, ConnectionError::ConnectionClosed(_)),
        };
        assert!(refused, "{name}: {ended}");
        let failed = || (scene.rise("dunlin_handshakes_failed_total", &[]) == before + 1).then_some(());
        dunlin_tests::deadline::until("the count", LIMIT, failed).expect(name);
    }
    for (name, uris) in [
        ("no URI", vec![]),
        ("a URI of another kind", vec![String::from("dunlin:user:root")]),
        ("a node that is no id", vec![String::from("dunlin:node:me")]),
        ("two nodes", vec![uri.clone(), second]),
    ] {
        let identity = scene.authority.client_of(&uris).expect("a certificate");
        let before = scene.closed(CloseCode::WrongNode);
        let code = scene.runtime.block_on(async {
            // The authority is ours, so the handshake holds; the code may come before the first stream is open.
            match scene.connect(Some(&identity)).await {
                Ok(mut peer) => {
                    peer.say(&hello(node).encode()).await;
                    peer.closed().await
                }
                Err(ConnectionError::ApplicationClosed(close)) => CloseCode::from_raw(close.error_code.into_inner()),
                Err(error) => panic!("{name}: {error}"),
            }
        });
        assert_eq!(code, Some(CloseCode::WrongNode), "{name}");
        let counted = || (scene.closed(CloseCode::WrongNode) == before + 1).then_some(());
        dunlin_tests::deadline::until("the count", LIMIT, counted).expect(name);
    }
    scene.end();
}

#[test]
fn agent_that_starts_anew_on_its_machine_takes_over_from_its_last_run() {
    let namespace = Namespace::new("superseded").expect("a namespace");
    let scene = Scene::new(&namespace);
    let node = node_ids(121, 0)[120];
    let identity = scene.authority.node(node).expect("a certificate").identity();
    scene.runtime.block_on(async {
        let mut first = greeted(&scene, &identity, node, [1; 16], 5).await;
        for epoch in 6..26 {
            let second = greeted(&scene, &identity, node, [1; 16], epoch).await;
            assert_eq!(first.closed().await, Some(CloseCode::Superseded));
            first = second;
        }
        assert!(first.connection.close_reason().is_none(), "the newest stays");
    });
    let counted = || (scene.closed(CloseCode::Superseded) == 20).then_some(());
    dunlin_tests::deadline::until("the count", LIMIT, counted).expect("each is counted");
    scene.end();
}

#[test]
fn another_machine_is_kept_out_while_the_first_answers_and_let_in_when_it_does_not() {
    let namespace = Namespace::new("cloned").expect("a namespace");
    let scene = Scene::new(&namespace);
    let node = node_ids(122, 0)[121];
    let identity = scene.authority.node(node).expect("a certificate").identity();
    scene.runtime.block_on(async {
        let mut first = greeted(&scene, &identity, node, [1; 16], 5).await;
        let mut clone = scene.connect(Some(&identity)).await.expect("the certificate is good");
        clone.say(&hello_of(node, [2; 16], 6)).await;
        let CollectorControl::Challenge { nonce } = first.next().await else {
            panic!("it is asked whether it is there")
        };
        first.say(&AgentControl::Present { nonce }.encode()).await;
        assert_eq!(clone.closed().await, Some(CloseCode::Quarantined));
        // It is closed first and written down then: what knows of it later is the registry.
        scene.collector.wait_nodes("quarantined", 1.0, LIMIT).expect("the registry hears of it");
        let again = scene.connect(Some(&identity)).await.expect("the certificate is good");
        assert_eq!(closed_on_hello(again, node, [2; 16], 6).await, Some(CloseCode::Quarantined), "it is known by now");

        let third = greeted(&scene, &identity, node, [3; 16], 7).await;
        assert_eq!(first.closed().await, Some(CloseCode::Superseded), "it did not answer");
        assert!(third.connection.close_reason().is_none());
    });
    scene.end();
}

async fn closed_on_hello(mut peer: Peer, node: NodeId, boot_id: [u8; 16], epoch: u32) -> Option<CloseCode> {
    peer.say(&hello_of(node, boot_id, epoch)).await;
    peer.closed().await
}

fn hello_of(node: NodeId, boot_id: [u8; 16], epoch: u32) -> Vec<u8> {
    AgentControl::Hello(Hello { boot_id, epoch: Epoch(epoch), ..plain_hello(node) }).encode()
}

async fn greeted(scene: &Scene<'_>, identity: &Identity, node: NodeId, boot_id: [u8; 16], epoch: u32) -> Peer {
    let mut peer = scene.connect(Some(identity)).await.expect("the certificate is good");
    peer.say(&hello_of(node, boot_id, epoch)).await;
    assert!(matches!(peer.next().await, CollectorControl::Welcome(_)));
    peer
}

/// TLS 1.3 lets a client believe that it is connected before its certificate is judged.
async fn end_of_handshake(scene: &Scene<'_>, identity: Option<&Identity>) -> ConnectionError {
    match scene.connect(identity).await {
        Err(error) => error,
        Ok(peer) => tokio::time::timeout(LIMIT, peer.connection.closed()).await.expect("it is closed"),
    }
}
