//! Joining a real collector over real QUIC, as a client that may say what no agent would.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dunlin_shared::id::NodeId;
use dunlin_shared::token::JoinToken;
use dunlin_shared::wire::join::{Join, JoinAnswer, JoinReason, JoinRefusal, JoinRequest, Joined};
use dunlin_shared::wire::{COLLECTOR_NAME, CloseCode};
use dunlin_tests::deadline::until;
use dunlin_tests::fleet::enrol::{EnrolPlan, enrol};
use dunlin_tests::join::{JoinError, Joiner, ask, client_config};
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::join_token;
use dunlin_tests::site::{Collector, QUIC_PORT, counter};
use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig, TokioRuntime};
use tokio::runtime::Runtime;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

struct Scene<'n> {
    namespace: &'n Namespace,
    collector: Collector<'n>,
    token: JoinToken,
    runtime: Runtime,
}

impl<'n> Scene<'n> {
    fn new(namespace: &'n Namespace, uses: u32) -> Self {
        let (collector, token) = Collector::start_enrolling(namespace, join_token(uses)).expect("a collector");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { namespace, collector, token, runtime: runtime.expect("a runtime") }
    }

    fn endpoint(&self) -> Endpoint {
        let socket = self.namespace.enter(|| std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let socket = socket.expect("the namespace is there").expect("a port is free");
        let _runtime = self.runtime.enter();
        Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime)).expect("an endpoint")
    }

    async fn connect(&self, endpoint: &Endpoint) -> Connection {
        let connecting = endpoint.connect_with(client_config(self.token.pin), address(), COLLECTOR_NAME);
        connecting.expect("a valid configuration").await.expect("anybody may ask to join")
    }

    fn join(&self, joiner: &Joiner, token: Option<&JoinToken>) -> JoinAnswer {
        let endpoint = self.endpoint();
        let joined = joiner.join(&endpoint, client_config(self.token.pin), address(), token, "web-1");
        self.runtime.block_on(async { tokio::time::timeout(LIMIT, joined).await }).expect("in time").expect("an answer")
    }

    /// Asks what `change` makes of an honest question.
    fn ask(&self, joiner: &Joiner, change: impl FnOnce(Join) -> Join) -> JoinAnswer {
        let endpoint = self.endpoint();
        self.runtime.block_on(async {
            let connection = self.connect(&endpoint).await;
            let question = joiner.question(&connection, Some(&self.token), "web-1").expect("a key signs");
            let bytes = JoinRequest::Join(change(question)).encode();
            tokio::time::timeout(LIMIT, ask(&connection, &bytes)).await.expect("in time").expect("an answer")
        })
    }

    fn refusals(&self, reason: JoinReason) -> u64 {
        let scrape = self.collector.scrape().expect("it answers");
        counter(&scrape, "dunlin_joins_refused_total", &[("reason", reason.as_str())])
    }
}

fn address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, QUIC_PORT).into()
}

fn joined(answer: JoinAnswer) -> Joined {
    match answer {
        JoinAnswer::Joined(joined) => joined,
        JoinAnswer::Refused(refusal) => panic!("it is refused: {refusal:?}"),
    }
}

fn reason(answer: &JoinAnswer) -> JoinReason {
    match answer {
        JoinAnswer::Refused(JoinRefusal { reason, .. }) => *reason,
        JoinAnswer::Joined(joined) => panic!("it is let in as {}", joined.node),
    }
}

#[test]
fn key_that_joins_by_a_token_is_a_node_and_stays_that_node_without_one() {
    let namespace = Namespace::new("join").expect("a namespace");
    let mut scene = Scene::new(&namespace, 2);
    let first = Joiner::new().expect("a key");
    let node = joined(scene.join(&first, Some(&scene.token)));
    assert!(node.is_approved && node.authorities.len() == 1 && node.chain.len() == 1);
    let again = joined(scene.join(&first, None));
    assert_eq!(again.node, node.node, "a key that is known needs no token");
    assert_eq!(joined(scene.join(&first, Some(&scene.token))).node, node.node, "and spends no use of one");
    let second = joined(scene.join(&Joiner::new().expect("a key"), Some(&scene.token)));
    assert_ne!(second.node, node.node);
    let third = scene.join(&Joiner::new().expect("a key"), Some(&scene.token));
    assert_eq!(reason(&third), JoinReason::UsedUpToken);
    let scrape = scene.collector.scrape().expect("it answers");
    assert_eq!(counter(&scrape, "dunlin_joins_total", &[]), 4);

    scene.collector.terminate().expect("it stops");
    scene.collector.restart().expect("it starts again, with the authority that it made");
    assert_eq!(joined(scene.join(&first, None)).node, node.node);
}

#[test]
fn join_that_is_refused_is_told_why_and_counted() {
    let namespace = Namespace::new("no-join").expect("a namespace");
    let scene = Scene::new(&namespace, 1);
    let joiner = Joiner::new().expect("a key");
    let other = Joiner::new().expect("a key");
    let wrong = JoinToken { secret: [8; 20], ..scene.token.clone() };
    assert_eq!(reason(&scene.join(&joiner, None)), JoinReason::NoToken);
    assert_eq!(reason(&scene.join(&joiner, Some(&wrong))), JoinReason::UnknownToken);
    let stolen = scene.ask(&joiner, |question| Join { public_key: other.public_key(), ..question });
    assert_eq!(reason(&stolen), JoinReason::BadProof, "somebody else's key");
    let no_key = scene.ask(&joiner, |question| Join { public_key: vec![0x30; 91], ..question });
    assert_eq!(reason(&no_key), JoinReason::BadProof);
    let newer = scene.ask(&joiner, |question| Join { wire_min: 900, wire_max: 901, ..question });
    assert_eq!(reason(&newer), JoinReason::Version);
    for known in [JoinReason::NoToken, JoinReason::UnknownToken, JoinReason::Version] {
        assert_eq!(scene.refusals(known), 1, "{known:?}");
    }
    assert_eq!(scene.refusals(JoinReason::BadProof), 2);
    let proof = scene.runtime.block_on(async {
        let endpoint = scene.endpoint();
        let elsewhere = scene.connect(&endpoint).await;
        joiner.question(&elsewhere, None, "").expect("a key signs").proof
    });
    let replayed = scene.ask(&joiner, |question| Join { proof, ..question });
    assert_eq!(reason(&replayed), JoinReason::BadProof, "a proof of another connection");
    assert!(matches!(scene.join(&joiner, Some(&scene.token)), JoinAnswer::Joined(_)), "the token is still good");
}

#[test]
fn network_that_tries_tokens_has_to_wait_and_a_known_key_does_not() {
    let namespace = Namespace::new("guesses").expect("a namespace");
    let scene = Scene::new(&namespace, 9);
    let (known, guesser) = (Joiner::new().expect("a key"), Joiner::new().expect("a key"));
    let node = joined(scene.join(&known, Some(&scene.token))).node;
    let mut tries = 0_u8;
    let refusal = until("it has to wait", LIMIT, || {
        tries += 1;
        let wrong = JoinToken { secret: [tries; 20], ..scene.token.clone() };
        let answer = scene.join(&guesser, (wrong != scene.token).then_some(&wrong));
        (reason(&answer) == JoinReason::TooMany).then_some(answer)
    });
    let JoinAnswer::Refused(refusal) = refusal.expect("not any number of tries") else { panic!("it is refused") };
    assert!(refusal.retry_after_ms >= 60_000, "{refusal:?}");
    assert!(tries >= 20, "a rack of hosts with an old token may try: {tries}");
    assert_eq!(joined(scene.join(&known, None)).node, node);
}

#[test]
fn peer_that_says_nonsense_or_nothing_is_closed_with_a_code() {
    let namespace = Namespace::new("nonsense").expect("a namespace");
    let scene = Scene::new(&namespace, 1);
    let endless = vec![0x7f; 20_000];
    let too_long = [&[0xff, 0xff, 0x03][..], &endless].concat();
    for (name, bytes, code) in [
        ("what cannot be decoded", &[3, 9, 9, 9][..], CloseCode::Malformed),
        ("a message that is announced as too long", &[0xff, 0xff, 0xff, 0x7f], CloseCode::TooLarge),
        ("more than a question may have", &too_long, CloseCode::TooLarge),
        ("half a question", &[100, 0], CloseCode::TooSlow),
    ] {
        let endpoint = scene.endpoint();
        let error = scene.runtime.block_on(async {
            let connection = scene.connect(&endpoint).await;
            tokio::time::timeout(LIMIT, ask(&connection, bytes)).await.expect("in time").expect_err("no answer");
            connection.closed().await
        });
        let ConnectionError::ApplicationClosed(close) = &error else { panic!("{name}: {error}") };
        assert_eq!(CloseCode::from_raw(close.error_code.into_inner()), Some(code), "{name}");
    }
    assert!(matches!(scene.join(&Joiner::new().expect("a key"), Some(&scene.token)), JoinAnswer::Joined(_)));
}

#[test]
fn many_join_at_once_by_one_token_and_each_is_another_node() {
    const AGENTS: usize = 300;
    let namespace = Namespace::new("many").expect("a namespace");
    let scene = Scene::new(&namespace, 300);
    let plan = EnrolPlan { collector: address(), token: scene.token.clone(), agents: AGENTS, at_once: 64, sockets: 4 };
    let enrolled = namespace.enter(|| scene.runtime.block_on(enrol(&plan))).expect("the namespace is there");
    let (enrolled, fleet) = enrolled.expect("all of them join");
    eprintln!("{enrolled:?}");
    assert_eq!(enrolled.agents, AGENTS);
    let nodes: HashSet<_> = fleet.nodes.iter().map(|node| node.id).collect();
    assert_eq!(nodes.len(), AGENTS, "each has an id of its own");
    let one_more = scene.join(&Joiner::new().expect("a key"), Some(&scene.token));
    assert_eq!(reason(&one_more), JoinReason::UsedUpToken, "each spent one use");
}

#[test]
fn collector_that_has_not_the_key_of_the_pin_is_not_asked() {
    let namespace = Namespace::new("pin").expect("a namespace");
    let scene = Scene::new(&namespace, 1);
    let mut other = scene.token.clone();
    other.pin.0[0] ^= 1;
    let endpoint = scene.endpoint();
    let joiner = Joiner::new().expect("a key");
    let joined = joiner.join(&endpoint, client_config(other.pin), address(), Some(&other), "web-1");
    let refused = scene.runtime.block_on(joined).expect_err("it is another collector");
    assert!(matches!(refused, JoinError::Connection(ConnectionError::TransportError(_))), "{refused}");
    let node = joined_node(&scene, &joiner);
    assert_ne!(node, NodeId::from_bytes([0; 16]));
}

fn joined_node(scene: &Scene<'_>, joiner: &Joiner) -> NodeId {
    joined(scene.join(joiner, Some(&scene.token))).node
}
