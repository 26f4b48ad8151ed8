//! The uplink against a collector in the same process, over real QUIC: enrolling, being refused, renewing,
//! changing authorities, going on after a rewind. Every wait is for something that the collector saw.

mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dunlin_shared::id::{Epoch, NodeId, Seq};
use dunlin_shared::inventory::Facts;
use dunlin_shared::limits::JOIN_TOKEN_SECRET_BYTES;
use dunlin_shared::session::agent::Profile;
use dunlin_shared::token::JoinToken;
use dunlin_shared::wire::join::JoinReason;
use dunlin_shared::wire::{ALPN, ALPN_JOIN, AgentControl, Hello};
use tokio::task::JoinHandle;

use self::server::{Asked, Play, Server};
use super::connect::{OwnEndpoints, Sockets};
use super::*;
use crate::enrol::Ask;
use crate::identity::key::NodeKey;
use crate::identity::testing::{Authority, NODE, VALID};
use crate::identity::trust::{self, Trust};
use crate::identity::{Identity, store_certificate};
use crate::resolve::{Resolver, system_entropy};
use crate::state::tests::Dir;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
const BOTH: &[&[u8]] = &[ALPN, ALPN_JOIN];
const NONE: NodeId = NodeId::from_bytes([0; 16]);

struct Agent {
    dir: Dir,
    changes: mpsc::Sender<Change>,
    stop: Option<oneshot::Sender<StopReason>>,
    running: JoinHandle<Line>,
}

impl Agent {
    fn start(dir: Dir, server: &Server) -> Self {
        Self::on(dir, server, "", false)
    }

    /// On a host of this name, which the agent first sees while it runs.
    fn on(dir: Dir, server: &Server, host_name: &'static str, follows_host_name: bool) -> Self {
        Self::among(dir, &[server], host_name, follows_host_name)
    }

    fn among(dir: Dir, servers: &[&Server], host_name: &'static str, follows_host_name: bool) -> Self {
        let enrolment = Enrolment::new(&dir.0, Path::new("/none"), tokens(&dir.0));
        let spool = Spool::new(64 * 1024);
        let profile = profile();
        let hooks = Hooks {
            tick: Box::new(|mono, wall| Sample::new(mono, wall).into()),
            facts: Box::new(|_| Some(Facts { host_name: host_name.to_owned(), ..Facts::default() })),
            acknowledged: Box::new(|_| {}),
            standing: Box::new(|_| {}),
            alive: Box::new(|_| {}),
        };
        let options = Options {
            follows_host_name,
            backoff_ms: (50, 200),
            ..Options::new(servers.iter().map(|server| server.address.to_string()).collect(), 1_000)
        };
        let (changes, changed) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let uplink = Uplink::new(Line::new(profile, Epoch(1), spool), connector(), options, hooks, Clock::start())
            .enrolling(enrolment, Facts::default())
            .changing(changed);
        Self { dir, changes, stop: Some(stop), running: tokio::spawn(uplink.run(stopped)) }
    }

    async fn stop(mut self) -> (Dir, Line) {
        drop(self.stop.take());
        let line = tokio::time::timeout(LIMIT, self.running).await.expect("it stops").expect("it does not panic");
        (self.dir, line)
    }

    fn change(&self, server: &Server) -> Change {
        Change {
            collectors: vec![server.address.to_string()],
            name: String::from("web-1"),
            follows_host_name: false,
            interval_ms: 1_000,
            tokens: tokens(&self.dir.0),
            labels: BTreeMap::new(),
        }
    }
}

fn profile() -> Profile {
    Profile {
        node: NONE,
        name: String::from("web-1"),
        agent_version: String::from("0"),
        boot_id: [1; 16],
        interval_ms: 1_000,
        ended: Vec::new(),
    }
}

fn connector() -> Connector {
    Connector::without_identity(Resolver::new("/", system_entropy), Sockets::Own(OwnEndpoints::default()))
}

fn tokens(dir: &Path) -> TokenSources {
    TokenSources::new(None, Some(token_file(dir)), None)
}

fn token_file(dir: &Path) -> PathBuf {
    dir.join("token")
}

fn token(authority: &Authority, n: u8) -> JoinToken {
    let pin = trust::pin_of(&authority.der).expect("it is a certificate");
    JoinToken { secret: [n; JOIN_TOKEN_SECRET_BYTES], pin }
}

fn give_token(dir: &Dir, authority: &Authority, n: u8) {
    fs::write(token_file(&dir.0), token(authority, n).reveal()).expect("it is writable");
}

async fn asked(server: &mut Server) -> Asked {
    let asked = tokio::time::timeout(LIMIT, server.asked.recv()).await.expect("somebody comes");
    asked.expect("the server runs")
}

async fn hello(server: &mut Server) -> (Hello, rustls::pki_types::CertificateDer<'static>) {
    loop {
        match asked(server).await {
            Asked::Hello(hello, shown) => return (hello, shown),
            Asked::Said(_) => {}
            other @ Asked::Join(_) => panic!("a Hello was due: {other:?}"),
        }
    }
}

async fn joined(server: &mut Server) -> dunlin_shared::wire::join::Join {
    loop {
        match asked(server).await {
            Asked::Join(join) => return join,
            Asked::Said(_) => {}
            other @ Asked::Hello(..) => panic!("a join was due: {other:?}"),
        }
    }
}

const fn welcome() -> Play {
    Play::Welcome { next_authority: Vec::new() }
}

#[tokio::test]
async fn a_fresh_agent_enrols_by_its_token_and_comes_back_as_the_node_it_became() {
    let ours = Arc::new(Authority::new("ours"));
    let mut server = Server::start(&ours, BOTH, vec![Play::Enrol, welcome(), welcome()]);
    let dir = Dir::new();
    give_token(&dir, &ours, 3);
    let agent = Agent::start(dir, &server);
    let join = joined(&mut server).await;
    assert_eq!((join.token, join.name.as_str()), (Some([3; JOIN_TOKEN_SECRET_BYTES]), "web-1"));
    let (first, shown) = hello(&mut server).await;
    assert_eq!(first.node, NODE);
    let (dir, line) = agent.stop().await;
    assert_eq!(line.session().profile().node, NODE);
    let kept = Identity::load(&dir.0).expect("it is whole");
    assert_eq!(kept.chain, [shown]);
    fs::remove_file(token_file(&dir.0)).expect("it is there");
    let agent = Agent::start(dir, &server);
    assert_eq!(hello(&mut server).await.0.node, NODE, "it asks for nothing more");
    agent.stop().await;
}

#[tokio::test]
async fn what_was_sampled_before_the_enrolment_waits_for_it() {
    let ours = Arc::new(Authority::new("ours"));
    let mut server = Server::start(&ours, BOTH, vec![Play::Enrol, welcome()]);
    let agent = Agent::start(Dir::new(), &server);
    give_token(&agent.dir, &ours, 3);
    joined(&mut server).await;
    let (hello, _) = hello(&mut server).await;
    let spooled = hello.spooled.first().expect("the inventory and a sample at least");
    assert_eq!((spooled.epoch, spooled.range.first.0), (Epoch(1), 0));
    agent.stop().await;
}

#[tokio::test]
async fn a_refused_token_is_tried_again_at_once_when_another_is_given() {
    let ours = Arc::new(Authority::new("ours"));
    let mut server = Server::start(&ours, BOTH, vec![Play::Refuse(JoinReason::UsedUpToken), Play::Enrol, welcome()]);
    let dir = Dir::new();
    give_token(&dir, &ours, 3);
    let agent = Agent::start(dir, &server);
    let first = joined(&mut server).await;
    give_token(&agent.dir, &ours, 4);
    agent.changes.send(agent.change(&server)).await.expect("it runs");
    let second = joined(&mut server).await;
    assert_eq!(second.token, Some([4; JOIN_TOKEN_SECRET_BYTES]));
    assert_eq!(first.public_key, second.public_key, "the key stays");
    assert_eq!(hello(&mut server).await.0.node, NODE);
    agent.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_by_the_key_without_a_token() {
    let ours = Arc::new(Authority::new("ours"));
    let mut server = Server::start(&ours, BOTH, vec![Play::Enrol, welcome()]);
    let dir = Dir::new();
    let key = ours.enrol(&dir.0);
    let expired = ours.node_in(NODE, &key.public_key(), (2000, 2001));
    store_certificate(&dir.0, &[expired]).expect("it is writable");
    let agent = Agent::start(dir, &server);
    let join = joined(&mut server).await;
    assert_eq!((join.token, join.public_key), (None, key.public_key()));
    let (hello, shown) = hello(&mut server).await;
    assert_eq!((hello.node, shown), (NODE, Identity::load(&agent.dir.0).expect("it is whole").chain[0].clone()));
    agent.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_renewed_in_the_session_is_shown_on_the_next_connection() {
    let ours = Arc::new(Authority::new("ours"));
    let mut server = Server::start(&ours, BOTH, vec![Play::Renew { years: (2022, 2042) }]);
    let dir = Dir::new();
    ours.enrol(&dir.0);
    let agent = Agent::start(dir, &server);
    let (_, old) = hello(&mut server).await;
    loop {
        if let Asked::Said(AgentControl::Present { nonce: 7 }) = asked(&mut server).await {
            break;
        }
    }
    let renewed = Identity::load(&agent.dir.0).expect("it is whole").chain[0].clone();
    assert_ne!(renewed, old);
    // Another name is said on another connection.
    server.play(welcome());
    let change = Change { name: String::from("web-2"), ..agent.change(&server) };
    agent.changes.send(change).await.expect("it runs");
    let (hello, shown) = hello(&mut server).await;
    assert_eq!((hello.name.as_str(), shown), ("web-2", renewed));
    agent.stop().await;
}

#[tokio::test]
async fn a_host_that_is_renamed_says_so_with_its_next_hello_unless_its_name_is_configured() {
    for (follows_host_name, name) in [(true, "web-9"), (false, "web-1")] {
        let ours = Arc::new(Authority::new("ours"));
        let mut server = Server::start(&ours, BOTH, vec![welcome()]);
        let dir = Dir::new();
        ours.enrol(&dir.0);
        let agent = Agent::on(dir, &server, "web-9", follows_host_name);
        assert_eq!(hello(&mut server).await.0.name, name);
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_collector_that_goes_over_to_its_next_authority_keeps_its_agents() {
    let ours = Arc::new(Authority::new("ours"));
    let next = Authority::new("next");
    let vouched = ours.vouch_for(&next, "next");
    let mut server = Server::start(&ours, BOTH, vec![Play::Welcome { next_authority: vouched.to_vec() }, welcome()]);
    let dir = Dir::new();
    ours.enrol(&dir.0);
    let agent = Agent::start(dir, &server);
    hello(&mut server).await;
    server.show(next.collector(dunlin_shared::wire::COLLECTOR_NAME, VALID, &[]));
    // The heartbeat or the goodbye: what is said after the welcome was read shows that it was.
    let change = Change { name: String::from("web-2"), ..agent.change(&server) };
    until_believed(&agent.dir.0, 2).await;
    agent.changes.send(change).await.expect("it runs");
    assert_eq!(hello(&mut server).await.0.name, "web-2");
    agent.stop().await;
}

async fn until_believed(dir: &Path, count: usize) {
    let believed = async {
        while Identity::load(dir).map(|identity| identity.authorities.len()).unwrap_or_default() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, believed).await.expect("the authority is kept");
}

#[tokio::test]
async fn a_rewound_agent_comes_back_at_once_under_a_higher_epoch() {
    let ours = Arc::new(Authority::new("ours"));
    let mut server = Server::start(&ours, BOTH, vec![Play::Close(CloseCode::Rewound), welcome()]);
    let dir = Dir::new();
    ours.enrol(&dir.0);
    let agent = Agent::start(dir, &server);
    let (first, _) = hello(&mut server).await;
    let (second, _) = hello(&mut server).await;
    assert!(second.epoch > first.epoch, "{:?} {:?}", second.epoch, first.epoch);
    let [before] = first.spooled[..] else { panic!("it has ticked: {:?}", first.spooled) };
    let [after] = second.spooled[..] else { panic!("nothing waits under the old epoch: {:?}", second.spooled) };
    assert_eq!((after.epoch, after.range.first), (second.epoch, Seq(0)), "it is numbered anew");
    assert!(after.range.count() > before.range.count(), "and the facts are said again");
    agent.stop().await;
}

#[tokio::test]
async fn a_collector_that_is_being_stopped_is_left_for_the_other_one() {
    let ours = Arc::new(Authority::new("ours"));
    let mut first = Server::start(&ours, BOTH, vec![Play::Drain { ms: u32::MAX }, welcome()]);
    let mut second = first.beside(&ours, BOTH);
    let dir = Dir::new();
    ours.enrol(&dir.0);
    let agent = Agent::among(dir, &[&first, &second], "", false);
    // Whichever it begins with is the one that stops.
    let is_first = tokio::select! {
        _ = hello(&mut first) => true,
        _ = hello(&mut second) => false,
    };
    hello(if is_first { &mut second } else { &mut first }).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_uplink_that_is_watched_turns_though_nothing_happens() {
    let turns = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&turns);
    let hooks = Hooks {
        tick: Box::new(|mono, wall| Sample::new(mono, wall).into()),
        facts: Box::new(|_| None),
        acknowledged: Box::new(|_| {}),
        standing: Box::new(|_| {}),
        alive: Box::new(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }),
    };
    // Nobody is there, the next attempt is far, and so is the next tick.
    let options = Options {
        backoff_ms: (3_600_000, 3_600_000),
        turn_ms: Some(5),
        ..Options::new(vec![String::from("127.0.0.1:9")], 300_000)
    };
    let (stop, stopped) = oneshot::channel();
    let line = Line::new(profile(), Epoch(1), Spool::new(64 * 1024));
    let running = tokio::spawn(Uplink::new(line, connector(), options, hooks, Clock::start()).run(stopped));
    let turning = async {
        while turns.load(std::sync::atomic::Ordering::SeqCst) < 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, turning).await.expect("it turns");
    drop(stop);
    tokio::time::timeout(LIMIT, running).await.expect("it stops").expect("it does not panic");
}

#[tokio::test]
async fn a_node_that_was_forgotten_enrols_anew_when_there_is_a_token() {
    let ours = Arc::new(Authority::new("ours"));
    let mut server = Server::start(&ours, BOTH, vec![Play::Close(CloseCode::NotEnrolled), Play::Enrol, welcome()]);
    let dir = Dir::new();
    let key = ours.enrol(&dir.0);
    give_token(&dir, &ours, 5);
    let agent = Agent::start(dir, &server);
    hello(&mut server).await;
    let join = joined(&mut server).await;
    assert_eq!((join.token, join.public_key), (Some([5; JOIN_TOKEN_SECRET_BYTES]), key.public_key()));
    hello(&mut server).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_token_of_another_collector_is_named_as_what_is_wrong_and_its_secret_is_not_sent() {
    let (ours, other) = (Arc::new(Authority::new("ours")), Authority::new("other"));
    let mut server = Server::start(&ours, BOTH, Vec::new());
    let ask = |authority: &Authority| {
        let token = token(authority, 3);
        let trust = Trust { authorities: Vec::new(), pin: Some(token.pin) };
        Box::new(Ask { key: NodeKey::generate().expect("a key"), token: Some(token), trust })
    };
    let address = server.address.to_string();
    let error = join::join(&connector(), &address, ask(&other), &profile()).await.expect_err("another's");
    assert!(error.to_string().contains("is not the collector of this join token"), "{error}");
    server.close_all();
    assert!(server.asked.try_recv().is_err(), "nothing was asked");

    let server = Server::start(&ours, &[ALPN], Vec::new());
    let address = server.address.to_string();
    let error = join::join(&connector(), &address, ask(&ours), &profile()).await.expect_err("it enrols nobody");
    assert!(error.to_string().contains("enrols nobody"), "{error}");
}

#[tokio::test]
async fn a_connection_outlives_the_end_of_the_one_right_before_it() {
    let ours = Arc::new(Authority::new("ours"));
    let server = Server::start(&ours, BOTH, vec![Play::Enrol]);
    let (connector, address) = (connector(), server.address.to_string());
    let (key, token) = (NodeKey::generate().expect("a key"), token(&ours, 3));
    let ask = Ask { key, trust: Trust { authorities: Vec::new(), pin: Some(token.pin) }, token: Some(token) };
    let first = connector.connect_to_join(&address, &ask.trust).await.expect("it is there");
    first.connection.close(0_u32.into(), b"");
    let second = connector.connect_to_join(&address, &ask.trust).await.expect("it is there");
    tokio::time::timeout(LIMIT, first.endpoint.wait_idle()).await.expect("the first ends for good");
    let request = join::request(&second.connection, &ask, &profile()).expect("it can be proved");
    let answered = tokio::time::timeout(LIMIT, join::exchange(&second.connection, &request)).await;
    assert!(answered.expect("it is heard").is_ok_and(|answer| !answer.is_empty()));
}
