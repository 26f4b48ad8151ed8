//! Sets of rules through the real pipeline onto a real disk: what counts when, what is told, and what a restart finds.

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::wire::{Goodbye, StopReason};
use serde_json::{Value, json};

use super::*;
use crate::record::{Pos, Record};
use crate::rules::{NotTaken, Origin, RuleBook, RulesInForce};

/// Fires for the one node as soon as it says goodbye.
const STOPPED: &str = "[[rule]]\nname = \"stopped\"\nwhen = 'node_state == stopped'\nsummary = \"s\"\n";

struct Scene {
    bench: Bench,
    rules: RulesInForce,
    board: Arc<ArcSwap<AlertBoard>>,
    clock: Clock,
    pos: Pos,
}

impl Scene {
    /// With what ships, which says nothing of a node that stopped.
    fn start(dir: &Path, files: &[(&str, &str)]) -> Self {
        let clock = Clock::start();
        let (control, opened) = Control::open(&dir.join("control.db"), clock.wall(), 7).expect("it opens");
        let rows = control.nodes().expect("read");
        let restored = |row: &NodeRow| crate::engine::Restored {
            life: Liveness::parse(&row.state).expect("its own word"),
            since: row.since,
            ..crate::engine::Restored::of(row.key, row.last_seen)
        };
        let engine = Engine::restore(opened.applied_pos, rows.iter().map(restored));
        let (revoked, _) = Revoked::open(dir).expect("it opens");
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let book = RuleBook::default().with_files(files).expect("right");
        let book = Arc::new(book.with_sets(control.rule_sets().expect("read")));
        let told = (Arc::default(), Arc::default(), clock);
        let pipeline = Pipeline::new(engine, (control, revoked), &rows, told).expect("read");
        let pipeline = pipeline.with_book(Arc::clone(&book));
        let pipeline = pipeline.watching(book.rules.iter().cloned(), &rows).expect("read");
        let (board, rules) = (Arc::clone(&pipeline.outlets().board), Arc::clone(&pipeline.outlets().rules));
        let bench = Bench::run(pipeline);
        let rules = RulesInForce::new(rules, bench.orders.clone());
        Self { bench, rules, board, clock, pos: opened.applied_pos }
    }

    async fn put(&self, set: &str, text: &str) -> Result<String, NotTaken> {
        let actor = Actor { name: String::from("ann"), token: None, from: None };
        let put = self.rules.put(actor, set, text.to_owned(), self.clock.wall()).await;
        put.map(|difference| difference.counts())
    }

    async fn delete(&self, set: &str) -> Result<String, NotTaken> {
        self.rules.delete(Actor::collector(), set).await.map(|difference| difference.counts())
    }

    async fn record(&mut self, event: Event) {
        self.pos = self.pos.next();
        let record = Record { at: self.clock.wall(), event };
        let logged = Logged { pos: Some(self.pos), record, reading: None };
        self.bench.queue.send(Input::Logged(vec![logged])).await.expect("it runs");
    }

    /// A node that was there and said goodbye.
    async fn goodbye(&mut self) {
        let session = SessionStart {
            node: NodeId::v7(1, [1; 10]),
            name: String::from("web-1"),
            agent_version: String::new(),
            boot_id: [0; 16],
            epoch: Epoch(1),
            interval_ms: 10_000,
            skew_ms: 0,
            before: None,
        };
        self.record(Event::Hello { node: NodeKey(1), session }).await;
        let goodbye = Goodbye { epoch: Epoch(1), next_seq: Seq(0), reason: StopReason::Restarting };
        self.record(Event::Goodbye { node: NodeKey(1), goodbye }).await;
    }

    /// Waits until these are all that sets have open.
    async fn open(&mut self, rules: &[&str]) {
        for _ in 0..100_000 {
            let board = self.board.load_full();
            let of_sets = board.alerts.iter().filter(|alert| matches!(Origin::of(&alert.rule), Origin::Set(_)));
            let mut names: Vec<&str> = of_sets.map(|alert| &*alert.rule.name).collect();
            names.sort_unstable();
            if names == rules {
                return;
            }
            self.record(Event::Tick { elapsed_ms: 1, paused_ms: 0 }).await;
            tokio::task::yield_now().await;
        }
        panic!("{:?}", self.board.load())
    }
}

/// What the feed tells of rules and alerts, and who did what with rules.
fn told(dir: &Path) -> (Vec<String>, Vec<String>) {
    let reader = ControlReader::open(&dir.join("control.db")).expect("it opens");
    let event = |event: crate::store::EventRow| {
        let body: Value = serde_json::from_str(&event.body).expect("JSON");
        match event.kind.as_str() {
            "alert.resolved" => format!("{} {}", event.kind, body["alert"]["reason"].as_str().unwrap_or("-")),
            "rules.changed" => format!("{} {} {} {}", event.kind, body["by"], body["set"], body["counts"]),
            "rules.refused" => format!("{} {} {}", event.kind, body["set"], body["lines"][0]),
            _ => event.kind,
        }
    };
    let events = reader.events(0, 100).expect("read").into_iter();
    let events = events.filter(|event| event.kind.starts_with("alert.") || event.kind.starts_with("rules."));
    let log = reader.log(None, 100).expect("read").into_iter().rev().map(|row| row.entry);
    let log = log.filter(|entry| entry.action.starts_with("rules."));
    let line = |entry: crate::store::NewLogEntry| {
        format!("{} {} {} {}", entry.actor, entry.action, entry.target, entry.detail)
    };
    (events.map(event).collect(), log.map(line).collect())
}

#[tokio::test]
async fn a_set_counts_once_it_is_on_disk_is_kept_over_a_restart_and_closes_its_alerts_when_it_goes() {
    let dir = Dir::new();
    let mut scene = Scene::start(dir.path(), &[]);
    scene.goodbye().await;
    assert_eq!(scene.put("own", STOPPED).await.as_deref(), Ok("1 added, 0 changed, 0 removed"));
    assert!(scene.rules.book().rule("stopped").is_some(), "whoever is answered finds it in force");
    scene.open(&["stopped"]).await;
    let severe = format!("{STOPPED}severity = \"critical\"\n");
    assert_eq!(scene.put("own", &severe).await.as_deref(), Ok("0 added, 1 changed, 0 removed"));
    scene.bench.stop();

    let mut scene = Scene::start(dir.path(), &[]);
    scene.open(&["stopped"]).await;
    assert_eq!(scene.rules.book().sets["own"].by, "ann");
    assert_eq!(scene.delete("own").await.as_deref(), Ok("0 added, 0 changed, 1 removed"));
    scene.open(&[]).await;
    assert!(matches!(scene.delete("own").await, Err(NotTaken::Refused(Refused::NotFound(_)))));
    scene.bench.stop();
    let (events, log) = told(dir.path());
    let counts = |added, changed, removed| json!({ "added": added, "changed": changed, "removed": removed });
    let expected = [
        format!("rules.changed \"ann\" \"own\" {}", counts(1, 0, 0)),
        "alert.firing".to_owned(),
        format!("rules.changed \"ann\" \"own\" {}", counts(0, 1, 0)),
        format!("rules.changed \"collector\" \"own\" {}", counts(0, 0, 1)),
        "alert.resolved rule_removed".to_owned(),
    ];
    assert_eq!(events, expected);
    let expected = [
        "ann rules.apply own 1 added, 0 changed, 0 removed",
        "ann rules.apply own 0 added, 1 changed, 0 removed",
        "collector rules.delete own 0 added, 0 changed, 1 removed",
    ];
    assert_eq!(log, expected);
}

#[tokio::test]
async fn a_set_that_clashes_with_files_is_left_out_loudly_and_counts_again_without_them() {
    let dir = Dir::new();
    let scene = Scene::start(dir.path(), &[]);
    assert_eq!(scene.put("own", STOPPED).await.as_deref(), Ok("1 added, 0 changed, 0 removed"));
    assert!(scene.put("other", &STOPPED.replace("\"stopped\"", "\"gone\"")).await.is_ok());
    scene.bench.stop();
    let mut scene = Scene::start(dir.path(), &[("d/a.toml", STOPPED)]);
    let book = scene.rules.book();
    assert_eq!(book.left_out.keys().collect::<Vec<_>>(), ["own"]);
    assert!(book.rule("gone").is_some() && &*book.rule("stopped").expect("the file's").place.file == "d/a.toml");
    // The directory without that file.
    scene.rules.read_again(dir.path()).await;
    assert!(scene.rules.book().left_out.is_empty());
    assert_eq!(&*scene.rules.book().rule("stopped").expect("the set's").place.file, "own");
    // What is told beside the log is written with its next record.
    scene.goodbye().await;
    scene.bench.stop();
    let (events, _) = told(dir.path());
    let refused = "rules.refused \"own\" \"own:2:8: two rules are named stopped; the other is at d/a.toml:2\"";
    assert_eq!(events.get(2).map(String::as_str), Some(refused), "{events:?}");
    assert!(events[3].starts_with("rules.changed \"collector\" null"), "{events:?}");
}

#[tokio::test]
async fn what_a_full_disk_could_not_keep_is_not_in_force() {
    let disk = Disk::new(2_048);
    let scene = Scene::start(disk.path(), &[]);
    assert!(scene.put("own", STOPPED).await.is_ok());
    let filler = disk.fill();
    let refused = scene.put("more", &STOPPED.replace("stopped\"", "gone\"")).await;
    assert!(matches!(refused, Err(NotTaken::Refused(Refused::NotNow(_)))), "{refused:?}");
    assert!(matches!(scene.delete("own").await, Err(NotTaken::Refused(Refused::NotNow(_)))));
    let book = scene.rules.book();
    assert!(book.rule("gone").is_none() && book.rule("stopped").is_some());
    std::fs::remove_file(filler).expect("it is there");
    assert!(scene.put("more", &STOPPED.replace("stopped\"", "gone\"")).await.is_ok());
    scene.bench.stop();
    let (_, log) = told(disk.path());
    assert_eq!(log.len(), 2, "{log:?}");
}
