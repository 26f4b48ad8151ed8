//! The router in front of a pipeline of its own: the real registry and files, no network.

mod access;
mod alerts;
mod export;
mod feed;
mod hostile;
mod log;
mod policy;
mod rules;
mod stock;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt as _;

use super::caller::{Peer, reveal};
use super::{Published, router};
use crate::access::{Access, Grant, hash_of};
use crate::authority::Authority;
use crate::board::{AlertBoard, SilenceBoard};
use crate::clock::Clock;
use crate::engine::NodeState;
use crate::health::Health;
use crate::orders::{Asked, Orders};
use crate::pipeline::Input;
use crate::policy::SilenceId;
use crate::record::NodeKey;
use crate::registry::{Actor, Admission, Answer, Labels, Role, TokenId, What};
use crate::rules::{RuleBook, RulesInForce};
use crate::stats::Stats;
use crate::store::{Control, ControlBatch, NewEvent, Ordered};
use crate::view::{About, FleetView, NodeView};

pub(super) const INCARNATION: u64 = 7;

/// A collector without agents, and what was ordered of it.
pub(super) struct Rig {
    pub(super) router: Router,
    pub(super) orders: Kept,
    /// What was refused, for the log.
    pub(super) refused: Kept,
    /// What was said of alerts.
    pub(super) said: KeptSaid,
    /// The rules that were ordered.
    pub(super) ruled: KeptRules,
    pub(super) book: Arc<ArcSwap<RuleBook>>,
    board: Arc<ArcSwap<AlertBoard>>,
    silences: Arc<ArcSwap<SilenceBoard>>,
    fleet: Arc<ArcSwap<FleetView>>,
    newest: watch::Sender<u64>,
    control: Control,
    dir: PathBuf,
}

pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answered {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

/// The token of a role; limited to `tenant=a` when it is to be.
pub(super) fn token(role: Role, limited: bool) -> String {
    reveal(&secret(role, limited))
}

fn secret(role: Role, limited: bool) -> [u8; 20] {
    [u8::try_from(Role::ALL.iter().position(|known| *known == role).expect("listed")).expect("five") * 2
        + u8::from(limited); 20]
}

pub(super) fn node_id(number: u8) -> NodeId {
    NodeId::v7(1_000 + u64::from(number), [number; 10])
}

impl Rig {
    /// Nodes 1 and 2 are named `twin`, 1 and 3 bear `tenant=a`, the others `tenant=b`.
    pub(super) fn new() -> Self {
        let nodes = [("twin", "a"), ("twin", "b"), ("alone", "a"), ("other", "b")];
        Self::with((1..).zip(nodes).map(|(number, (name, tenant))| node(number, name, tenant)).collect())
    }

    pub(super) fn with(nodes: Vec<NodeView>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("dunlin-api-{}-{number}", std::process::id()));
        std::fs::create_dir_all(dir.join("window")).expect("a scratch directory");
        let (control, _) = Control::open(&dir.join("control.db"), WallMs(0), INCARNATION).expect("a new database");
        let access = Access::default();
        access.publish(Role::ALL.iter().flat_map(|role| [grant(*role, false), grant(*role, true)]).collect());
        let (pipeline, queue) = mpsc::channel(8);
        let (newest, newest_event) = watch::channel(0);
        let (orders, refused, said) = (Kept::default(), Kept::default(), KeptSaid::default());
        let (ruled, book) = (KeptRules::default(), Arc::new(ArcSwap::from_pointee(shipped())));
        let published =
            published(&dir, (fleet(nodes), Arc::clone(&book)), access, Orders::new(&pipeline), newest_event);
        let shown = Arc::clone(&published.fleet);
        let (board, silences) = (Arc::clone(&published.board), Arc::clone(&published.silences));
        let kept = (Arc::clone(&orders), Arc::clone(&refused), Arc::clone(&said));
        tokio::spawn(carry_out(queue, kept, (Arc::clone(&ruled), Arc::clone(&book)), pipeline));
        Self {
            router: router(published),
            orders,
            refused,
            said,
            ruled,
            book,
            board,
            silences,
            fleet: shown,
            newest,
            control,
            dir,
        }
    }

    /// Adds events about a node each, and says that they are there.
    pub(super) fn happen(&mut self, nodes: &[Option<u8>]) {
        let event = |node: &Option<u8>| NewEvent {
            at: WallMs(1_000),
            kind: "node.up",
            node: node.map(node_id),
            body: String::from(r#"{"name":"x","kind":"forged","cursor":"forged"}"#),
        };
        let ordered = Ordered { events: nodes.iter().map(event).collect(), ..Ordered::default() };
        self.control.apply_with(&ControlBatch::default(), &ordered).expect("it is stored");
        let newest = self.control.newest_event().expect("it is read");
        self.newest.send_replace(newest);
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answered {
        let answer = self.router.clone().oneshot(request).await.expect("the router does not fail");
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.expect("the body is whole").to_bytes();
        Answered { status: parts.status, headers: parts.headers, body }
    }

    pub(super) async fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> Answered {
        self.send(request(method, path, token, Body::from(body.to_owned()))).await
    }

    pub(super) async fn get(&self, path: &str) -> Answered {
        self.ask("GET", path, Some(&token(Role::Admin, false)), "").await
    }
}

pub(super) fn request(method: &str, path: &str, token: Option<&str>, body: Body) -> Request<Body> {
    let from: IpAddr = [198, 51, 100, 7].into();
    let mut request = Request::builder().method(method).uri(path).extension(Peer::Tcp { from, loopback: false });
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(body).expect("a request")
}

type Kept = Arc<std::sync::Mutex<Vec<(Actor, What)>>>;

type KeptRules = Arc<std::sync::Mutex<Vec<(Actor, crate::rules::Order)>>>;

type KeptSaid = Arc<std::sync::Mutex<Vec<(Actor, crate::policy::What)>>>;

async fn carry_out(
    mut queue: mpsc::Receiver<Input>,
    (orders, refused, said): (Kept, Kept, KeptSaid),
    (ruled, book): (KeptRules, Arc<ArcSwap<RuleBook>>),
    _kept: mpsc::Sender<Input>,
) {
    while let Some(input) = queue.recv().await {
        let Input::Order(order) = input else { continue };
        let (what, ticket) = match order.asked {
            Asked::Registry(what, ticket) => (what, ticket),
            Asked::Rules(asked, ticket) => {
                book.store(Arc::clone(&asked.book));
                ruled.lock().expect("not poisoned").push((order.actor, *asked));
                ticket.answer(Ok(()));
                continue;
            }
            Asked::Policy(what, ticket) => {
                let answer = match &what {
                    crate::policy::What::Silence(_) => crate::policy::Answer::Silenced(SilenceId(1)),
                    crate::policy::What::AcknowledgeAll { alerts, .. } => {
                        crate::policy::Answer::Acknowledged(alerts.len())
                    }
                    _ => crate::policy::Answer::Done,
                };
                said.lock().expect("not poisoned").push((order.actor, what));
                ticket.answer(Ok(answer));
                continue;
            }
        };
        let answer = match &what {
            What::CreateToken(_) => Answer::Token { id: TokenId(12), secret: [9; 20] },
            What::ApproveAll { nodes, .. } => Answer::Approved(nodes.len()),
            _ => Answer::Done,
        };
        let kept = if matches!(what, What::NoteRefused { .. }) { &refused } else { &orders };
        kept.lock().expect("not poisoned").push((order.actor, what));
        ticket.answer(Ok(answer));
    }
}

fn published(
    dir: &Path,
    (fleet, book): (FleetView, Arc<ArcSwap<RuleBook>>),
    access: Access,
    orders: Orders,
    newest_event: watch::Receiver<u64>,
) -> Published {
    let clock = Clock::start();
    let authority = Authority::open(dir, clock.wall()).expect("it is made");
    Published {
        clock,
        health: Arc::<Health>::default(),
        stats: Arc::<Stats>::default(),
        fleet: Arc::new(ArcSwap::from_pointee(fleet)),
        board: Arc::default(),
        silences: Arc::default(),
        access: Arc::new(access),
        rules: RulesInForce::new(book, orders.clone()),
        orders,
        newest_event,
        incarnation: INCARNATION,
        authority: Some(Arc::new(authority)),
        state_dir: dir.to_owned(),
        window: Arc::default(),
    }
}

/// What ships, with a file of one rule.
fn shipped() -> RuleBook {
    let text = "[[rule]]\nname = \"busy\"\nwhen = 'host_load1 > 8'\nsummary = \"s\"\n";
    RuleBook::default().with_files(vec![("d/a.toml".to_owned(), text.to_owned())]).expect("right")
}

fn grant(role: Role, limited: bool) -> (crate::registry::SecretHash, Arc<Grant>) {
    let labels = if limited { Labels::from([("tenant".into(), "a".into())]) } else { Labels::new() };
    let name = format!("{}{}", role.as_str(), if limited { "-of-a" } else { "" });
    let grant = Grant { token: TokenId(1), name, role, labels, expires: None };
    (hash_of(&secret(role, limited)), Arc::new(grant))
}

fn fleet(nodes: Vec<NodeView>) -> FleetView {
    let mut by_name = std::collections::HashMap::<Arc<str>, Vec<NodeId>>::new();
    for node in &nodes {
        by_name.entry(Arc::clone(&node.about.name)).or_default().push(node.id);
    }
    FleetView { counts: vec![(NodeState::Up, nodes.len())], nodes, by_name: Arc::new(by_name) }
}

fn node(number: u8, name: &str, tenant: &str) -> NodeView {
    let trusted = Labels::from([("tenant".into(), tenant.into())]);
    let mut labels = trusted.clone();
    // What an agent says of itself opens nothing.
    labels.insert("said".into(), "a".into());
    let about = About {
        key: Some(NodeKey(number.into())),
        name: name.into(),
        admission: Admission::Approved,
        enrolled: WallMs(1_000),
        labels,
        trusted_labels: trusted,
        facts: None,
        version: "0.1.0".into(),
        skew_ms: None,
        interval_ms: None,
        is_ephemeral: false,
        maintained_until: None,
        quarantined: Vec::new(),
    };
    NodeView {
        id: node_id(number),
        about: Arc::new(about),
        state: NodeState::Up,
        since: WallMs(2_000),
        last_seen: Some(WallMs(3_000)),
        latest: None,
    }
}
