//! Who is let in: a certificate of our authority that names one node and is not out of date.

use dunlin_shared::wire::CloseCode;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, Identity, node_ids};

use crate::peer::{LIMIT, Peer, Scene, code_of, hello};

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
        let refused = scene.runtime.block_on(refused_at_handshake(&scene, identity.as_ref()));
        assert!(refused, "{name}: it should end in the handshake, without a code of ours");
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
            match scene.connect(Some(&identity)).await {
                Ok(mut peer) => {
                    peer.say(&hello(node).encode()).await;
                    peer.closed().await
                }
                // The close may be faster than the first stream.
                Err(error) => code_of(&error),
            }
        });
        assert_eq!(code, Some(CloseCode::WrongNode), "{name}");
        let counted = || (scene.closed(CloseCode::WrongNode) == before + 1).then_some(());
        dunlin_tests::deadline::until("the count", LIMIT, counted).expect(name);
    }
    scene.end();
}

#[test]
fn second_connection_of_a_node_takes_over_from_the_first() {
    let namespace = Namespace::new("superseded").expect("a namespace");
    let scene = Scene::new(&namespace);
    let node = node_ids(121, 0)[120];
    let identity = scene.authority.node(node).expect("a certificate").identity();
    scene.runtime.block_on(async {
        let mut first = greeted(&scene, &identity, node).await;
        for _ in 0..20 {
            let second = greeted(&scene, &identity, node).await;
            assert_eq!(first.closed().await, Some(CloseCode::Superseded));
            first = second;
        }
        assert!(first.connection.close_reason().is_none(), "the newest stays");
    });
    let counted = || (scene.closed(CloseCode::Superseded) == 20).then_some(());
    dunlin_tests::deadline::until("the count", LIMIT, counted).expect("each is counted");
    scene.end();
}

async fn greeted(scene: &Scene<'_>, identity: &Identity, node: dunlin_shared::id::NodeId) -> Peer {
    let mut peer = scene.connect(Some(identity)).await.expect("the certificate is good");
    peer.greet(node).await;
    peer
}

/// TLS 1.3 lets a client believe that it is connected before its certificate is judged.
async fn refused_at_handshake(scene: &Scene<'_>, identity: Option<&Identity>) -> bool {
    let error = match scene.connect(identity).await {
        Err(error) => error,
        Ok(peer) => tokio::time::timeout(LIMIT, peer.connection.closed()).await.expect("it is closed"),
    };
    matches!(error, quinn::ConnectionError::ConnectionClosed(_))
}
