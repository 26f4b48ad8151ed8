//! Orders through the real pipeline onto a real disk.

use std::path::Path;
use std::thread::JoinHandle;

use dunlin_shared::wire::CloseCode;

use super::*;
use crate::access::hash_of;
use crate::gate::Verdict;
use crate::orders::Orders;
use crate::registry::{Actor, Answer, JoinWish, KeyHash, Labels, Refused, Role, TokenWish, What};
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
        let pipeline = Pipeline::new(engine, control, &rows, (Arc::default(), Arc::default(), clock)).expect("read");
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
