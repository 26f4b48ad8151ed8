//! Orders through the real pipeline onto a real disk.

mod past;
mod restart;
mod rules;
mod said;
mod stock;

use std::path::Path;
use std::thread::JoinHandle;

use dunlin_shared::wire::CloseCode;

use super::*;
use crate::access::hash_of;
use crate::gate::Verdict;
use crate::orders::Orders;
use crate::registry::{
    Actor, Admission, Answer, JoinWish, KeyHash, Labels, Luck, Refused, Role, SecretHash, TokenId, TokenWish, What,
};
use crate::store::ControlReader;
use crate::store::tests::Dir;
use crate::store::tests::full::Disk;

const KEY: KeyHash = KeyHash([6; 32]);
const BOOT: [u8; 16] = [9; 16];

/// A pipeline that runs, and everything that it tells.
struct Bench {
    queue: mpsc::Sender<Input>,
    orders: Orders,
    gate: Arc<Gate>,
    access: Arc<Access>,
    view: Arc<ArcSwap<FleetView>>,
    newest_event: watch::Receiver<u64>,
    thread: JoinHandle<Result<(), StoreError>>,
}

impl Bench {
    fn start(dir: &Path) -> Self {
        let clock = Clock::start();
        let (control, opened) = Control::open(&dir.join("control.db"), clock.wall(), 7).expect("it opens");
        let rows = control.nodes().expect("read");
        let engine = Engine::restore(opened.applied_pos, []);
        let (revoked, _) = Revoked::open(dir).expect("it opens");
        let pipeline =
            Pipeline::new(engine, (control, revoked), &rows, (Arc::default(), Arc::default(), clock)).expect("read");
        Self::run(pipeline)
    }

    fn run(pipeline: Pipeline) -> Self {
        let outlets = pipeline.outlets();
        let (gate, access, view) = (Arc::clone(&outlets.gate), Arc::clone(&outlets.access), Arc::clone(&outlets.view));
        let newest_event = outlets.newest_event.subscribe();
        let (queue, inputs) = mpsc::channel(64);
        let orders = Orders::new(&queue);
        let thread = std::thread::spawn(move || pipeline.run(inputs));
        Self { queue, orders, gate, access, view, newest_event, thread }
    }

    async fn ask(&self, what: What) -> Result<Answer, Refused> {
        self.orders.ask(Actor::collector(), what).await
    }

    async fn token(&self, role: Role) -> [u8; 20] {
        let wish = TokenWish {
            role,
            name: String::from("t"),
            uses: None,
            expires: None,
            labels: Labels::new(),
            needs_approval: false,
            per_hour: None,
            is_ephemeral: false,
        };
        match self.ask(What::CreateToken(wish)).await {
            Ok(Answer::Token { secret, .. }) => secret,
            other => panic!("{other:?}"),
        }
    }

    fn stop(self) {
        drop(self.queue);
        self.thread.join().expect("it does not panic").expect("it ends well");
    }
}

fn join(secret: Option<&[u8]>) -> What {
    let (name, version) = (String::from("web-1"), String::new());
    What::Join(JoinWish { key: KEY, token: secret.map(hash_of), name, version })
}

#[tokio::test]
async fn who_is_answered_finds_it_on_disk_at_the_gate_and_in_the_picture() {
    let dir = Dir::new();
    let mut bench = Bench::start(dir.path());
    let viewer = bench.token(Role::Viewer).await;
    assert!(bench.access.grant(&viewer, WallMs(0)).is_some_and(|grant| grant.role == Role::Viewer));
    let secret = bench.token(Role::Join).await;
    assert!(bench.access.grant(&secret, WallMs(0)).is_none(), "who may join may not read");
    let Ok(Answer::Joined { node, is_approved: true }) = bench.ask(join(Some(&secret))).await else {
        panic!("the token is good")
    };
    assert_eq!(bench.gate.judge(node, &KEY, &BOOT), Verdict::Enter);
    assert_eq!(bench.view.load().find("web-1").map(|found| found.id), Ok(node));
    assert_eq!(*bench.newest_event.borrow_and_update(), 1);

    let reader = ControlReader::open(&dir.path().join("control.db")).expect("it opens");
    assert_eq!(reader.events(0, 9).expect("read")[0].kind, "node.enrolled");
    let done: Vec<_> = reader.log(None, 9).expect("read").into_iter().map(|row| row.entry.action).collect();
    assert_eq!(done, ["node.enrol", "token.create", "token.create"]);

    bench.ask(What::Revoke { node, why: String::from("stolen") }).await.expect("it is known");
    assert_eq!(bench.gate.judge(node, &KEY, &BOOT), Verdict::Close(CloseCode::Revoked));
    assert_eq!(bench.gate.take_evicted(), [(node, CloseCode::Revoked)]);
    bench.stop();

    let again = Bench::start(dir.path());
    assert_eq!(again.gate.judge(node, &KEY, &BOOT), Verdict::Close(CloseCode::Revoked));
    assert!(again.access.grant(&viewer, WallMs(0)).is_some());
    again.stop();
}

#[tokio::test]
async fn what_a_full_disk_could_not_keep_never_was() {
    let disk = Disk::new(2_048);
    let bench = Bench::start(disk.path());
    let secret = bench.token(Role::Join).await;
    let filler = disk.fill();
    let refused = bench.ask(join(Some(&secret))).await;
    assert!(matches!(refused, Err(Refused::NotNow(_))), "{refused:?}");
    assert!(bench.view.load().nodes.is_empty());
    std::fs::remove_file(filler).expect("it is there");
    let Ok(Answer::Joined { node, .. }) = bench.ask(join(Some(&secret))).await else { panic!("there is space again") };
    assert_eq!(bench.gate.judge(node, &KEY, &BOOT), Verdict::Enter);
    assert!(matches!(bench.ask(join(None)).await, Ok(Answer::Joined { node: again, .. }) if again == node));
    bench.stop();
}

#[tokio::test]
async fn whom_a_person_shuts_out_stands_in_the_file_before_the_answer_and_comes_back_as_another() {
    let dir = Dir::new();
    let bench = Bench::start(dir.path());
    let secret = bench.token(Role::Join).await;
    let named = || Revoked::open(dir.path()).expect("it opens").1.lines;
    let Ok(Answer::Joined { node, .. }) = bench.ask(join(Some(&secret))).await else { panic!("the token is good") };
    assert!(named().is_empty());
    bench.ask(What::Revoke { node, why: String::new() }).await.expect("it is known");
    let lines = named();
    assert_eq!(
        lines.iter().map(|line| (line.node, line.key, line.is_forgotten)).collect::<Vec<_>>(),
        [(node, Some(KEY), false)]
    );
    // What is changed of a revoked node adds no line; that its key is free again does.
    bench.ask(What::Label { node, labels: [(String::from("k"), None)].into() }).await.expect("it is known");
    bench.ask(What::Forget(node)).await.expect("it is known");
    assert_eq!(named().iter().map(|line| line.is_forgotten).collect::<Vec<_>>(), [false, true]);
    let Ok(Answer::Joined { node: again, .. }) = bench.ask(join(Some(&secret))).await else {
        panic!("its key is free")
    };
    assert_ne!(again, node);
    bench.stop();

    // Whoever came back is not held to the old lines when control.db is lost: a person decides.
    let mut lost = Registry::restore([], [], true);
    lost.merge_revoked(&named());
    let luck = Luck { node: [1; 10], secret: [2; 20], secret_hash: SecretHash([3; 32]) };
    let mut stranger = |node| {
        let what = What::Stranger { node, key: KEY, name: String::from("web-1") };
        lost.decide(WallMs(0), &luck, &Actor::collector(), what).answer
    };
    assert_eq!(stranger(again), Ok(Answer::Done));
    assert!(matches!(stranger(node), Err(Refused::Conflict(_))));
}

#[tokio::test]
async fn a_token_is_noted_as_used_without_a_write_for_each_use() {
    let dir = Dir::new();
    let bench = Bench::start(dir.path());
    let viewer = bench.token(Role::Viewer).await;
    let written = || {
        let tokens = ControlReader::open(&dir.path().join("control.db")).expect("it opens").tokens().expect("read");
        tokens.first().and_then(|(_, token)| token.last_used)
    };
    for at in 1..100 {
        assert!(bench.access.grant(&viewer, WallMs(at)).is_some());
    }
    // An order is written at once; that the token was shown is not.
    let _join = bench.token(Role::Join).await;
    assert_eq!((written(), bench.access.used(TokenId(1))), (None, Some(WallMs(99))));
    bench.stop();
    assert_eq!(written(), Some(WallMs(99)), "the end writes what waits");
}

#[tokio::test]
async fn ten_thousand_that_are_held_are_let_in_page_by_page() {
    let dir = Dir::new();
    let held = |number: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        What::Stranger { node: NodeId::v7(number, [1; 10]), key: KeyHash(bytes), name: format!("n{number}") }
    };
    Control::open(&dir.path().join("control.db"), WallMs(0), 7).expect("it opens").0.hold_strangers().expect("stored");
    let bench = Bench::start(dir.path());
    // Many at once, since each alone waits for the disk.
    let asked: Vec<_> = (0..10_000)
        .map(|number| {
            let orders = bench.orders.clone();
            tokio::spawn(async move { orders.ask(Actor::collector(), held(number)).await })
        })
        .collect();
    for asked in asked {
        assert_eq!(asked.await.expect("it does not panic"), Ok(Answer::Done));
    }
    for page in 0..10 {
        let nodes: Vec<_> = bench
            .view
            .load()
            .nodes
            .iter()
            .filter(|node| node.about.admission == Admission::Held)
            .map(|node| node.id)
            .take(1_000)
            .collect();
        assert_eq!(nodes.len(), 1_000, "page {page}: whoever was let in waits no more");
        let what = What::ApproveAll { nodes, waits: Admission::Held, detail: String::from("held") };
        assert_eq!(bench.ask(what).await, Ok(Answer::Approved(1_000)));
    }
    let node = NodeId::v7(9_999, [1; 10]);
    assert!(bench.view.load().nodes.iter().all(|node| node.about.admission == Admission::Approved));
    let reader = ControlReader::open(&dir.path().join("control.db")).expect("it opens");
    let lines = reader.log(None, 10).expect("read");
    assert!(lines.iter().all(|row| row.entry.action == "node.approve" && row.entry.target == "1000 nodes"));
    assert_eq!(reader.events(20_000 - 1, 9).expect("read").first().map(|event| event.node), Some(Some(node)));
    bench.stop();
}
