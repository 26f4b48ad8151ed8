//! A rule that looks hours back, over a start of a collector with a real log and a real window.

use dunlin_shared::codec::encode_key;
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId};
use dunlin_shared::metric::{MetricRef, by_name};
use dunlin_shared::sample::{Layout, Reading, Series, Subject};

use super::*;
use crate::config::CollectorConfig;
use crate::record::Record;
use crate::recover::{Recovered, recover, started};
use crate::rules::RuleBook;
use crate::store::Log;
use crate::window::Keeper;

const RULE: &str = "[[rule]]\nname = \"mean\"\nwhen = 'avg(host_load1, 6h) > 5'\nsummary = \"{node}\"\n";
const TICK_MS: i64 = 10_000;
const MINUTE: usize = 6;
const HOUR: usize = 60 * MINUTE;

struct Scene {
    log: Log,
    pipeline: Pipeline,
    keeper: Keeper,
    inputs: mpsc::Receiver<Input>,
    _queue: mpsc::Sender<Input>,
    at: WallMs,
    seq: u64,
}

impl Scene {
    fn start(dir: &Path, at: WallMs, seq: u64) -> Self {
        let rules = vec![(String::from("rules.toml"), String::from(RULE))];
        let rules = RuleBook::default().with_files(rules).expect("it is right");
        let (health, stats, clock) = (Arc::<Health>::default(), Arc::<Stats>::default(), Clock::start());
        let own = || (Arc::clone(&health), Arc::clone(&stats), clock);
        let Recovered { mut log, pipeline, past, .. } = recover(dir, &rules, own()).expect("our own files");
        if log.due(at) {
            log.rotate(at, &[]).expect("it is rotated");
        }
        let tuning = CollectorConfig::load(Some(("c", &b""[..])), &[], &[]).expect("good").tuning;
        let (queue, inputs) = mpsc::channel(64);
        let tuned = Arc::new(ArcSwap::from_pointee(tuning));
        let pipeline = pipeline.awaiting(past.as_ref());
        let keeper = Keeper::new(dir, tuned, (&queue, &Arc::default()), own()).telling(past);
        let mut scene = Self { log, pipeline, keeper, inputs, _queue: queue, at, seq };
        scene.put(vec![(started(at).event, None)]);
        let session = SessionStart {
            node: NodeId::v7(1, [3; 10]),
            name: String::from("web-1"),
            agent_version: String::from("0.1.0"),
            boot_id: BOOT,
            epoch: Epoch(1),
            interval_ms: 10_000,
            skew_ms: 0,
            before: None,
        };
        scene.put(vec![(Event::Hello { node: NodeKey(1), session }, None)]);
        scene
    }

    /// As the keeper tells it while the collector runs already.
    fn tell_past(&mut self) -> usize {
        self.keeper.tell_past();
        let mut series = 0;
        while let Ok(input) = self.inputs.try_recv() {
            match input {
                Input::Past(past) => {
                    series += past.len();
                    self.pipeline.take_past(&past);
                }
                Input::PastEnds => self.pipeline.engine.end_past(),
                other => panic!("{other:?}"),
            }
        }
        series
    }

    fn put(&mut self, events: Vec<(Event, Option<Arc<Reading>>)>) {
        self.log.begin().expect("it begins");
        let at = self.at;
        let logged = events.into_iter().map(|(event, reading)| {
            let record = Record { at, event };
            let pos = Some(self.log.append(&record).expect("it is appended"));
            Logged { pos, record, reading }
        });
        let logged: Vec<_> = logged.collect();
        self.log.commit().expect("it is committed");
        logged.into_iter().for_each(|logged| self.pipeline.apply(logged).expect("it is applied"));
    }

    /// So many frames, ten seconds apart. What is closed is sealed meanwhile.
    fn frames(&mut self, count: usize, load: f64) {
        for _ in 0..count {
            self.at = self.at.plus(TICK_MS);
            if self.log.due(self.at) {
                self.pipeline.write().expect("it is written");
                self.log.rotate(self.at, &[]).expect("it is rotated");
                self.keeper.look().expect("nothing fails");
            }
            self.seq += 1;
            let reading = reading(self.at, load);
            let (id, kind, body) = (FrameId::new(1, self.seq), BodyKind::Key, encode_key(&reading));
            let frame = Event::Frame { node: NodeKey(1), lane: Lane::Live, frame: Frame { id, kind, body } };
            let tick = Event::Tick { elapsed_ms: TICK_MS.unsigned_abs(), paused_ms: 0 };
            self.put(vec![(tick, None), (frame, Some(reading))]);
        }
    }
}

fn reading(at: WallMs, load: f64) -> Arc<Reading> {
    let metric = by_name("host_load1").expect("in the catalogue");
    let series = vec![Series { subject: 0, metric: MetricRef::catalogued(metric.id) }];
    let layout = Layout { subjects: vec![Subject::HOST()], series, ..Layout::default() };
    let mono = MonoMs(at.0.unsigned_abs() % 1_000_000_000_000);
    Arc::new(Reading {
        mono,
        wall: at,
        layout: Arc::new(layout),
        values: vec![metric.step.quantise(load).expect("a load")],
    })
}

/// What was told of alerts, and when.
fn told(dir: &Path) -> Vec<(String, WallMs)> {
    let rows = ControlReader::open(&dir.join("control.db")).and_then(|reader| reader.events(0, 1_000)).expect("read");
    rows.into_iter().filter(|row| row.kind.starts_with("alert.")).map(|row| (row.kind, row.at)).collect()
}

#[test]
fn a_rule_over_six_hours_fires_behind_a_start_when_it_would_have_fired_without_one() {
    let began = Clock::start().wall().plus(-8 * 3_600_000);
    let run = |starts: bool| {
        let dir = Dir::new();
        let mut scene = Scene::start(dir.path(), began, 0);
        assert_eq!(scene.tell_past(), 0, "there is none");
        scene.frames(5 * HOUR, 2.0);
        scene.frames(20 * MINUTE, 20.0);
        scene.pipeline.write().expect("it is written");
        if starts {
            let (at, seq) = (scene.at, scene.seq);
            drop(scene);
            scene = Scene::start(dir.path(), at, seq);
            // Before it is told, twenty minutes of load are all that is known.
            scene.frames(2, 20.0);
            assert_eq!(scene.tell_past(), 1);
        } else {
            scene.frames(2, 20.0);
        }
        scene.frames(HOUR, 20.0);
        scene.pipeline.write().expect("it is written");
        told(dir.path())
    };
    let (without, with) = (run(false), run(true));
    let [(kind, at)] = &without[..] else { panic!("{without:?}") };
    let [(other_kind, other)] = &with[..] else { panic!("{with:?}") };
    assert_eq!((kind.as_str(), other_kind.as_str()), ("alert.firing", "alert.firing"));
    assert!(at.since(began) > 5 * 3_600_000 + 40 * 60_000, "it takes most of an hour of load");
    // A slot may fall into the next twelfth of the window.
    assert!(at.since(*other).abs() <= 300_000, "{at:?} and with a start {other:?}");
}
