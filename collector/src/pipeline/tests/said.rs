//! What people say of alerts, through the real pipeline onto a real disk.

use std::time::Duration;

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::rule::file::parse;
use dunlin_shared::wire::{Goodbye, StopReason};
use serde_json::Value;

use super::*;
use crate::board::AlertView;
use crate::policy::{Answer as Said, Matchers, SilenceWish, What as Saying};
use crate::record::{Pos, Record};

const RULES: &str = "[[rule]]\nname = \"stopped\"\nwhen = \"node_state == stopped\"\nfor = \"0s\"\nsummary = \"s\"\n";

/// A pipeline with a rule and a node that is stopped and starts again.
struct Scene {
    bench: Bench,
    board: Arc<ArcSwap<AlertBoard>>,
    silences: Arc<ArcSwap<SilenceBoard>>,
    clock: Clock,
    pos: Pos,
    epoch: u32,
}

impl Scene {
    fn start(dir: &Path) -> Self {
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
        let told = (Arc::default(), Arc::default(), clock);
        let rules = parse("rules.toml", RULES).expect("good").into_iter().map(Arc::new);
        let pipeline = Pipeline::new(engine, (control, revoked), &rows, told).expect("read");
        let pipeline = pipeline.watching(rules, &rows).expect("read");
        let (board, silences) = (Arc::clone(&pipeline.outlets().board), Arc::clone(&pipeline.outlets().silences));
        let bench = Bench::run(pipeline);
        Self {
            bench,
            board,
            silences,
            clock,
            pos: opened.applied_pos,
            epoch: u32::try_from(opened.applied_pos.0).expect("few") + 1,
        }
    }

    async fn put(&mut self, event: Event) {
        self.pos = self.pos.next();
        let record = Record { at: self.clock.wall(), event };
        let logged = Logged { pos: Some(self.pos), record, reading: None };
        self.bench.queue.send(Input::Logged(vec![logged])).await.expect("it runs");
    }

    async fn tick(&mut self) {
        self.put(Event::Tick { elapsed_ms: 1, paused_ms: 0 }).await;
        tokio::task::yield_now().await;
    }

    async fn hello(&mut self) {
        self.epoch += 1;
        let session = SessionStart {
            node: node(),
            name: String::from("web-1"),
            agent_version: String::new(),
            boot_id: [0; 16],
            epoch: Epoch(self.epoch),
            interval_ms: 10_000,
            skew_ms: 0,
            before: None,
        };
        self.put(Event::Hello { node: NodeKey(1), session }).await;
    }

    async fn goodbye(&mut self) {
        let goodbye = Goodbye { epoch: Epoch(self.epoch), next_seq: Seq(0), reason: StopReason::Restarting };
        self.put(Event::Goodbye { node: NodeKey(1), goodbye }).await;
    }

    /// The one alert that is open, once it is as it should be.
    async fn alert(&mut self, what: &str, is_so: impl Fn(&AlertView) -> bool) -> Arc<AlertView> {
        for _ in 0..100_000 {
            let board = self.board.load_full();
            if let Some(alert) = board.alerts.first().filter(|alert| is_so(alert)) {
                return Arc::clone(alert);
            }
            self.tick().await;
        }
        panic!("{what}: {:?}", self.board.load())
    }

    async fn no_alert(&mut self) {
        for _ in 0..100_000 {
            if self.board.load().alerts.is_empty() {
                return;
            }
            self.tick().await;
        }
        panic!("{:?}", self.board.load())
    }

    /// Ticks until the feed tells so many things of alerts, and stops.
    async fn told(mut self, dir: &Path, count: usize) -> Vec<String> {
        for _ in 0..1_000 {
            if told(dir).len() >= count {
                break;
            }
            self.tick().await;
        }
        self.bench.stop();
        told(dir)
    }

    async fn say(&self, what: Saying) -> Result<Said, Refused> {
        self.bench.orders.say(Actor { name: String::from("ann"), token: None, from: None }, what).await
    }

    /// All silences for so long.
    async fn silence(&self, ms: i64) -> Result<Said, Refused> {
        let rule = Some(dunlin_shared::rule::Pattern::new("stop*"));
        let matchers = Matchers { rule, ..Matchers::default() };
        let end = Some(self.clock.wall().plus(ms));
        let wish = SilenceWish { matchers, reason: String::from("r"), start: None, end, weekly: None };
        self.say(Saying::Silence(wish)).await
    }
}

fn node() -> NodeId {
    NodeId::v7(1, [1; 10])
}

/// What the feed tells of alerts: the kind, who acknowledged, and under which silence.
fn told(dir: &Path) -> Vec<String> {
    let reader = ControlReader::open(&dir.join("control.db")).expect("it opens");
    let events = reader.events(0, 100).expect("read").into_iter().filter(|event| event.kind.starts_with("alert."));
    let words = |body: &str| {
        let body: Value = serde_json::from_str(body).expect("JSON");
        let alert = &body["alert"];
        let who = alert["acknowledged"]["who"].as_str().unwrap_or("-").to_owned();
        format!("{who} {}", alert["silenced"].as_str().unwrap_or("-"))
    };
    events.map(|event| format!("{} {}", event.kind, words(&event.body))).collect()
}

#[tokio::test]
async fn what_is_said_of_an_alert_is_told_once_shown_and_there_again_after_a_restart() {
    let dir = Dir::new();
    let mut scene = Scene::start(dir.path());
    scene.hello().await;
    scene.goodbye().await;
    let alert = scene.alert("it fires", |_| true).await.id;
    let acknowledge = || Saying::Acknowledge { alert, why: String::from("on it") };
    assert_eq!(scene.say(acknowledge()).await, Ok(Said::Done));
    let shown = scene.board.load().alerts[0].acknowledged.clone().expect("whoever is answered sees it");
    assert_eq!((shown.by.as_str(), shown.why.as_str()), ("ann", "on it"));
    assert!(matches!(scene.say(acknowledge()).await, Err(Refused::Conflict(_))));
    let made = scene.silence(3_600_000).await;
    let Ok(Said::Silenced(id)) = made else { panic!("{made:?}") };
    assert_eq!(scene.board.load().alerts[0].silenced, Some(id));
    scene.bench.stop();

    let mut scene = Scene::start(dir.path());
    let alert = scene.alert("it is as it was", |alert| alert.silenced == Some(id)).await;
    assert!(alert.acknowledged.is_some() && scene.silences.load().silence(id).is_some());
    assert_eq!(scene.say(Saying::Expire(id)).await, Ok(Said::Done));
    assert_eq!(scene.board.load().alerts[0].silenced, None);
    scene.hello().await;
    scene.no_alert().await;
    assert!(matches!(scene.say(Saying::Unacknowledge(alert.id)).await, Err(Refused::Conflict(_))), "it is over");
    scene.bench.stop();
    let expected = [
        "alert.firing - -",
        "alert.acknowledged ann -",
        "alert.silenced ann s1",
        "alert.unsilenced ann -",
        "alert.resolved ann -",
    ];
    assert_eq!(told(dir.path()), expected);
    let reader = ControlReader::open(&dir.path().join("control.db")).expect("it opens");
    let done: Vec<_> = reader.log(None, 9).expect("read").into_iter().map(|row| row.entry.action).collect();
    assert_eq!(done, ["silence.expire", "silence.create", "alert.acknowledge"]);
    assert!(reader.said(alert.id).expect("read").acknowledged.is_some(), "whoever asks later is told");
}

#[tokio::test]
async fn whoever_hears_of_an_alert_finds_it_as_it_was_told() {
    let dir = Dir::new();
    let mut scene = Scene::start(dir.path());
    let heard = async |scene: &mut Scene, count: usize| {
        let mut newest = scene.bench.newest_event.clone();
        while told(dir.path()).len() < count {
            newest.changed().await.expect("it runs");
        }
        scene.board.load_full()
    };
    scene.hello().await;
    scene.goodbye().await;
    // No tick passes in between.
    let board = heard(&mut scene, 1).await;
    assert_eq!((board.alerts.len(), board.firing_on(node())), (1, 1));
    scene.hello().await;
    assert!(heard(&mut scene, 2).await.alerts.is_empty());
    scene.bench.stop();
    assert_eq!(told(dir.path()), ["alert.firing - -", "alert.resolved - -"]);
}

#[tokio::test]
async fn an_alert_that_fires_under_a_silence_says_so_and_is_told_when_the_clock_ends_it() {
    let dir = Dir::new();
    let mut scene = Scene::start(dir.path());
    scene.hello().await;
    let Ok(Said::Silenced(id)) = scene.silence(2_000).await else { panic!("it is made") };
    scene.goodbye().await;
    scene.alert("it fires under the silence", |alert| alert.silenced == Some(id)).await;
    for _ in 0..3_000 {
        if scene.board.load().alerts[0].silenced.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        scene.tick().await;
    }
    assert_eq!(scene.told(dir.path(), 2).await, ["alert.firing - s1", "alert.unsilenced - -"]);
}

#[tokio::test]
async fn a_label_that_is_given_or_taken_away_silences_or_not() {
    let dir = Dir::new();
    let mut scene = Scene::start(dir.path());
    let secret = scene.bench.token(Role::Join).await;
    let Ok(Answer::Joined { node: id, .. }) = scene.bench.ask(join(Some(&secret))).await else { panic!("it is good") };
    let session = SessionStart {
        node: id,
        name: String::from("web-1"),
        agent_version: String::new(),
        boot_id: BOOT,
        epoch: Epoch(9),
        interval_ms: 10_000,
        skew_ms: 0,
        before: None,
    };
    scene.epoch = 9;
    scene.put(Event::Hello { node: NodeKey(1), session }).await;
    scene.goodbye().await;
    scene.alert("it fires", |_| true).await;
    let matchers =
        Matchers { labels: [("env".into(), dunlin_shared::rule::Pattern::new("prod"))].into(), ..Matchers::default() };
    let end = Some(scene.clock.wall().plus(3_600_000));
    let wish = SilenceWish { matchers, reason: String::from("r"), start: None, end, weekly: None };
    assert!(scene.say(Saying::Silence(wish)).await.is_ok());
    assert_eq!(scene.board.load().alerts[0].silenced, None);
    let label = |value: Option<&str>| What::Label {
        node: id,
        labels: [(String::from("env"), value.map(str::to_owned))].into(),
    };
    scene.bench.ask(label(Some("prod"))).await.expect("it is known");
    assert!(scene.board.load().alerts[0].silenced.is_some());
    scene.bench.ask(label(None)).await.expect("it is known");
    assert_eq!(scene.board.load().alerts[0].silenced, None);
    let told = scene.told(dir.path(), 3).await;
    assert_eq!(told, ["alert.firing - -", "alert.silenced - s1", "alert.unsilenced - -"]);
}

#[tokio::test]
async fn what_a_full_disk_could_not_keep_silences_and_acknowledges_nothing() {
    let disk = Disk::new(2_048);
    let mut scene = Scene::start(disk.path());
    scene.hello().await;
    scene.goodbye().await;
    let alert = scene.alert("it fires", |_| true).await.id;
    let filler = disk.fill();
    let acknowledge = || Saying::Acknowledge { alert, why: String::new() };
    let refused = scene.say(acknowledge()).await;
    assert!(matches!(refused, Err(Refused::NotNow(_))), "{refused:?}");
    let refused = scene.silence(3_600_000).await;
    assert!(matches!(refused, Err(Refused::NotNow(_))), "{refused:?}");
    let shown = scene.alert("it is shown", |_| true).await;
    assert_eq!((shown.silenced, shown.acknowledged.is_none()), (None, true));
    assert!(scene.silences.load().silences.is_empty());
    std::fs::remove_file(filler).expect("it is there");
    assert_eq!(scene.say(acknowledge()).await, Ok(Said::Done));
    assert_eq!(scene.told(disk.path(), 2).await, ["alert.firing - -", "alert.acknowledged ann -"]);
}
