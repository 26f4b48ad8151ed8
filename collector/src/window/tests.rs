//! The window against what was written: before it is sealed and after, merged, cut and damaged, on virtual time.

mod model;
mod trouble;

use std::sync::Arc;

use arc_swap::ArcSwap;
use dunlin_shared::codec::{encode_delta, encode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{FrameId, NodeId};
use dunlin_shared::metric::{MetricRef, by_name};
use dunlin_shared::sample::{ABSENT, Layout, Reading, Series, Subject};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::Lane;
use tokio::sync::mpsc;

use super::*;
use crate::block::{Column, Measure, Row, Stretch};
use crate::clock::Clock;
use crate::config::CollectorConfig;
use crate::health::Health;
use crate::ingest::Ingest;
use crate::pipeline::Input;
use crate::points::{Fold, Line, Wanted, fold, lines};
use crate::record::{Event, NodeKey, Pos, Record, SessionStart};
use crate::rollup;
use crate::stats::Stats;
use crate::store::tests::{Dir, execute};
use crate::store::{Files, Level, Log, Span};
use crate::stretch::Taken;

/// 2026-11-21 10:00:00 UTC.
const T0: i64 = 1_795_255_200_000;
const TICK_MS: i64 = 10_000;
const NODES: u32 = 5;
const METRICS: [&str; 4] = ["host_cpu_idle_seconds", "host_load1", "fs_used_ratio", "net_received_bytes"];

/// A log that is written, and a keeper that seals it.
struct Rig {
    dir: Dir,
    log: Log,
    keeper: Keeper,
    health: Arc<Health>,
    stats: Arc<Stats>,
    events: mpsc::Receiver<Input>,
    _pipeline: mpsc::Sender<Input>,
    bases: std::collections::HashMap<u32, (FrameId, Reading)>,
    /// No new journal can be begun at the moment.
    is_stuck: bool,
}

impl Rig {
    /// What is written is of another day than the test: ages are long.
    fn new(bytes: &str) -> Self {
        let config = format!("[retention]\nfull = \"3650d\"\nfive_minutes = \"3650d\"\nhours = \"3650d\"\n{bytes}");
        let dir = Dir::new();
        let state = dir.path().join("window");
        let (log, _) = Log::open(&state, WallMs(T0), Pos(0)).expect("a new log");
        let (pipeline, events) = mpsc::channel(64);
        let (health, stats) = (Arc::<Health>::default(), Arc::<Stats>::default());
        let tuning = CollectorConfig::load(Some(("c", config.as_bytes())), &[], &[]).expect("good").tuning;
        let tuned = Arc::new(ArcSwap::from_pointee(tuning));
        let shared = (Arc::clone(&health), Arc::clone(&stats), Clock::start());
        let keeper = Keeper::new(dir.path(), tuned, (&pipeline, &Arc::default()), shared);
        Self {
            dir,
            log,
            keeper,
            health,
            stats,
            events,
            _pipeline: pipeline,
            bases: Default::default(),
            is_stuck: false,
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("window")
    }

    fn window(&self) -> Window {
        Window::new(self.state(), Arc::default())
    }

    /// Writes the ticks of some minutes, as a writer would: a file each five minutes, deltas behind keys.
    fn write(&mut self, from_tick: i64, ticks: i64) {
        for tick in from_tick..from_tick + ticks {
            let at = T0 + tick * TICK_MS;
            if self.log.due(WallMs(at)) && !self.is_stuck {
                let mut ingest = Ingest::default();
                for node in 1..=NODES {
                    ingest.learn(NodeKey(node), node_id(node));
                }
                self.log.rotate(WallMs(at), &ingest.snapshot()).expect("rotate");
                self.bases.clear();
            }
            self.log.begin().expect("begin");
            for node in 1..=NODES {
                for record in self.records(node, tick, at) {
                    self.log.append(&record).expect("append");
                }
            }
            self.log.commit().expect("commit");
            self.health.set_applied(Pos(self.log.next_pos().0 - 1));
        }
    }

    fn records(&mut self, node: u32, tick: i64, at: i64) -> Vec<Record> {
        // Node 2 is away for a quarter of an hour and brings its backlog afterwards; node 3 starts anew at tick 100.
        let away = node == 2 && (40..130).contains(&tick);
        let epoch = if node == 3 && tick >= 100 { 2 } else { 1 };
        if away {
            return Vec::new();
        }
        let record = |lane, id, kind, body, late_ms| {
            let frame = Frame { id, kind, body };
            Record { at: WallMs(at + late_ms), event: Event::Frame { node: NodeKey(node), lane, frame } }
        };
        let seq = |tick: i64| tick.cast_unsigned() + 1;
        let mut records = Vec::new();
        if tick == 0 {
            let session = SessionStart {
                node: node_id(node),
                name: format!("host-{node}"),
                agent_version: String::from("0.1.0"),
                boot_id: [1; 16],
                epoch: dunlin_shared::id::Epoch(1),
                interval_ms: 10_000,
                skew_ms: 0,
                before: None,
            };
            records.push(Record { at: WallMs(at), event: Event::Hello { node: NodeKey(node), session } });
        }
        let reading = reading(node, tick);
        let id = FrameId::new(epoch, seq(tick));
        let delta = self.bases.get(&node).filter(|(base, _)| base.epoch == id.epoch && base.seq.0 + 1 == id.seq.0);
        let delta = delta.and_then(|(_, base)| encode_delta(base, &reading));
        let late_ms = i64::from(node) * 3 + tick % 7;
        records.push(match delta {
            Some(body) => record(Lane::Live, id, BodyKind::Delta { back: 1 }, body, late_ms),
            None => record(Lane::Live, id, BodyKind::Key, encode_key(&reading), late_ms),
        });
        self.bases.insert(node, (id, reading));
        if node == 2 && (130..220).contains(&tick) {
            let spooled = tick - 90;
            let id = FrameId::new(epoch, seq(spooled));
            records.push(record(Lane::Backlog, id, BodyKind::Key, encode_key(&self::reading(node, spooled)), 50));
        }
        records
    }

    /// Everything of a node, as lines of points.
    fn samples(&self, node: u32) -> Vec<Line> {
        let wanted =
            |_: &Subject, measure: &Measure| measure.about().is_some_and(|about| METRICS.contains(&about.name));
        let taken = Taken { wanted: &wanted, skew_ms: 0, values_max: usize::MAX };
        let (from, to) = (WallMs(0), WallMs(i64::MAX));
        let asked = Asked { node: NodeKey(node), from, to, taken, frames_max: usize::MAX };
        let stretches = self.window().stretches(&asked).expect("it is read");
        let mut lines =
            lines(&stretches, &Wanted { from, to: WallMs(T0 + 400 * 86_400_000), interval_ms: 10_000, raw: false });
        lines.sort_by_key(|line| line.measure.about().map(|about| about.name.to_owned()));
        lines
    }

    fn rolled(&self, level: Level, node: u32) -> Vec<Rolled> {
        let metrics: Vec<String> = METRICS.iter().map(ToString::to_string).collect();
        let wanted = |key: NodeKey, _: &Subject| key == NodeKey(node);
        let asked = FleetAsked {
            level,
            metrics: &metrics,
            wanted: &wanted,
            nodes: (NodeKey(node), NodeKey(node)),
            fresh: &[(NodeKey(node), 0)],
            from: WallMs(0),
            to: WallMs(i64::MAX),
            cells_max: usize::MAX,
        };
        let mut rolled = self.window().rolled(&asked).expect("it is read");
        rolled.sort_by_key(|rolled| rolled.measure.about().map(|about| about.name.to_owned()));
        rolled
    }

    fn files(&self) -> Files {
        Files::list(&self.state()).expect("it can be listed")
    }

    fn keep(&mut self) {
        self.keeper.look().expect("nothing fails");
        let sealed = self.health.sealed();
        self.log.drop_sealed(sealed, 0, WallMs(i64::MAX)).expect("they can be removed");
    }

    /// A collector that is stopped, given samples of one node from elsewhere, and started again.
    fn take_in(&mut self, node: u32, now: WallMs) {
        let (other, _) = Log::open(&self.dir.path().join("other"), now, Pos(0)).expect("a new log");
        std::mem::replace(&mut self.log, other).close().expect("closed");
        let next = Log::open(&self.state(), now, Pos(0)).expect("it opens").0.next_pos();
        let row = |tick: i64| Row {
            time: WallMs(T0 - 86_400_000 + tick * TICK_MS),
            epoch: dunlin_shared::id::Epoch(0),
            seq: dunlin_shared::id::Seq(tick.cast_unsigned()),
            mono: MonoMs((tick * TICK_MS).cast_unsigned()),
        };
        let measure = Measure::Catalogued(by_name(METRICS[1]).expect("it is in the catalogue").id);
        let column = Column { subject: Subject::HOST(), measure, values: (0..1_000).collect() };
        let stretch = Stretch { rows: (0..1_000).map(row).collect(), columns: vec![column] };
        let mut intake = Intake::new(&self.state(), next, now);
        intake.put((NodeKey(node), node_id(node)), stretch).expect("it is written");
        assert_eq!(intake.finish(next).expect("it is written"), 1);
        self.log = Log::open(&self.state(), now, Pos(0)).expect("it opens").0;
        self.bases.clear();
    }

    fn told(&mut self) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        while let Ok(Input::Told(event)) = self.events.try_recv() {
            kinds.push(event.kind);
        }
        kinds
    }
}

fn node_id(node: u32) -> NodeId {
    NodeId::v7(node.into(), [u8::try_from(node).expect("small"); 10])
}

/// Idle time grows unevenly, load wanders, a file system comes and goes, a card counts and wraps once.
fn reading(node: u32, tick: i64) -> Reading {
    let metric = |name: &str| MetricRef::catalogued(by_name(name).expect("it is in the catalogue").id);
    let series = |subject, name: &str| Series { subject, metric: metric(name) };
    let layout = Layout {
        subjects: vec![Subject::HOST(), subject("fs:/var"), subject("net:eth0")],
        series: vec![series(0, METRICS[0]), series(0, METRICS[1]), series(1, METRICS[2]), series(2, METRICS[3])],
        open: Vec::new(),
    };
    let n = i64::from(node);
    let idle = tick * 900 + (tick * tick * n) % 97 * 4 + tick / 7 * 30;
    let load = 100 + (tick * 37 * n) % 91;
    let used = if tick % 50 < 40 { 500 + tick / 20 } else { ABSENT };
    let received = (tick * 12_345 * n) % 30_000_000;
    let mono = MonoMs((1_000_000 + tick * TICK_MS).cast_unsigned());
    Reading {
        mono,
        wall: WallMs(T0 + tick * TICK_MS),
        layout: Arc::new(layout),
        values: vec![idle, load, used, received],
    }
}

fn subject(text: &str) -> Subject {
    Subject::parse(text).expect("a subject")
}

fn is_near(a: Option<f64>, b: Option<f64>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= a.abs().max(b.abs()) / 2_048.0 + 1e-3,
        (a, b) => a == b,
    }
}

/// Roll-ups are what folding the samples gives. Late frames close a gap between the live ones around them, for which
/// there was no rate when it was sealed: node 2 is not asked for its counters there.
fn agree(rig: &Rig, node: u32) {
    for (level, slot_ms) in [(Level::Mid, 300_000), (Level::Long, 3_600_000)] {
        let rolled = rig.rolled(level, node);
        let samples = rig.samples(node);
        assert_eq!(rolled.len(), samples.len(), "{level:?} of node {node}");
        for (rolled, line) in rolled.iter().zip(&samples) {
            assert_eq!((&rolled.measure, &rolled.subject), (&line.measure, &line.subject));
            if node == 2 && line.is_rate {
                continue;
            }
            for how in [Fold::Min, Fold::Max, Fold::Mean, Fold::Last] {
                // Of a slot that came in parts, the last is that of the part that came last.
                if node == 2 && how == Fold::Last {
                    continue;
                }
                let folded: Vec<_> =
                    fold(&line.points, slot_ms, how).into_iter().filter(|(_, value)| value.is_some()).collect();
                let points = rollup::points(&rolled.cells, slot_ms, how, (WallMs(0), WallMs(i64::MAX)));
                let points: Vec<_> = points.into_iter().filter(|(_, value)| value.is_some()).collect();
                assert_eq!(folded.len(), points.len(), "{level:?} {how:?} of {} on node {node}", line.subject);
                for ((at, a), (other, b)) in folded.into_iter().zip(points) {
                    let place = format!("{level:?} {how:?} of {} on node {node} at {}", line.subject, at.0);
                    assert!(at == other && is_near(a, b), "{place}: {a:?} of samples, {b:?} of cells: {rolled:?}");
                }
            }
        }
    }
}

#[test]
fn sealing_and_merging_change_no_answer() {
    let mut rig = Rig::new("");
    rig.write(0, 90);
    let before: Vec<_> = (1..=NODES).map(|node| rig.samples(node)).collect();
    assert!(before.iter().all(|lines| lines.len() == METRICS.len()));
    (1..=NODES).for_each(|node| agree(&rig, node));
    rig.keep();
    assert_eq!(rig.files().of(Level::Full).count(), 2, "two of three files are closed");
    assert_eq!(rig.files().closed().len(), 0, "and their journals are gone");
    let after: Vec<_> = (1..=NODES).map(|node| rig.samples(node)).collect();
    assert_eq!(before, after);
    (1..=NODES).for_each(|node| agree(&rig, node));

    rig.write(90, 400);
    let before: Vec<_> = (1..=NODES).map(|node| rig.samples(node)).collect();
    rig.keep();
    let files = rig.files();
    assert!(files.of(Level::Full).any(|name| name.span == Span::Hour), "{files:?}");
    assert!(files.of(Level::Long).next().is_some() && files.superseded.is_empty());
    let after: Vec<_> = (1..=NODES).map(|node| rig.samples(node)).collect();
    assert_eq!(before, after);
    (1..=NODES).for_each(|node| agree(&rig, node));
    let values = |line: &Line| line.points.iter().filter(|(_, value)| value.is_some()).count();
    assert_eq!(values(&after[0][1]), 489, "a rate for each tick but the first");
    assert_eq!(values(&after[1][2]), 490, "the backlog is there");
}

#[test]
fn days_are_merged_as_well() {
    let mut rig = Rig::new("");
    // An hour after midnight: 25 hours by a file each half an hour would take long, so most of the day is left out.
    for hour in [0, 1, 15, 16] {
        rig.write(hour * 360, 6);
        rig.write(hour * 360 + 40, 6);
    }
    rig.keep();
    let files = rig.files();
    let spans = |level| files.of(level).map(|name| name.span).collect::<Vec<_>>();
    assert!(spans(Level::Mid).contains(&Span::Day) && spans(Level::Long).contains(&Span::Day), "{files:?}");
    (1..=NODES).filter(|node| *node != 2).for_each(|node| agree(&rig, node));
}

#[test]
fn a_crash_between_any_two_names_loses_and_doubles_nothing() {
    let mut rig = Rig::new("");
    rig.write(0, 400);
    let before: Vec<_> = (1..=NODES).map(|node| rig.samples(node)).collect();
    let copy =
        |rig: &Rig| -> Vec<PathBuf> { rig.files().sealed.iter().map(|name| name.path().to_path_buf()).collect() };
    rig.keeper.look().expect("nothing fails");
    // What was there before the merge comes back beside what it made: as if nothing had been removed.
    let made = copy(&rig);
    assert!(!made.is_empty());
    let after: Vec<_> = (1..=NODES).map(|node| rig.samples(node)).collect();
    assert_eq!(before, after, "journals that are sealed and still there are read once");
    // The roll-ups of the last file are lost as by a crash before their name: they are made again.
    let mid = rig.files().of(Level::Mid).next_back().expect("there is one").clone();
    let bytes = std::fs::read(mid.path()).expect("read");
    std::fs::remove_file(mid.path()).expect("removed");
    // A start does not know what its last run had sealed.
    rig.health.set_sealed(Pos(0));
    rig.keeper.look().expect("nothing fails");
    assert_eq!(
        rig.files().of(Level::Mid).next_back().map(|name| name.path().to_path_buf()),
        Some(mid.path().to_path_buf())
    );
    assert!(!bytes.is_empty());
    (1..=NODES).for_each(|node| agree(&rig, node));
    let unfinished = rig.state().join("full.new");
    std::fs::write(&unfinished, b"half a file").expect("written");
    rig.write(400, 100);
    rig.keep();
    assert!(!unfinished.exists());
    let again: Vec<_> = (1..=NODES).map(|node| rig.samples(node)).collect();
    for (before, again) in before.iter().flatten().zip(again.iter().flatten()) {
        assert!(
            again.points.len() > before.points.len()
                && again.points.starts_with(&before.points[..before.points.len() - 1])
        );
    }
}

#[test]
fn damage_costs_what_it_hit_and_is_set_aside_and_told() {
    let mut rig = Rig::new("");
    rig.write(0, 90);
    rig.keep();
    let whole: Vec<_> = (1..=NODES).map(|node| rig.samples(node)).collect();
    let first = rig.files().of(Level::Full).next().expect("there is one").clone();
    execute(first.path(), "UPDATE block SET body = zeroblob(length(body)) WHERE id = 4 << 16");
    let window = Window::new(rig.state(), Arc::clone(&rig.keeper.errand.word));
    let wanted = |_: &Subject, _: &Measure| true;
    let taken = Taken { wanted: &wanted, skew_ms: 0, values_max: usize::MAX };
    let asked = Asked { node: NodeKey(4), from: WallMs(0), to: WallMs(i64::MAX), taken, frames_max: usize::MAX };
    let left = window.stretches(&asked).expect("the rest is served");
    assert!(!left.is_empty() && left.iter().map(|stretch| stretch.rows.len()).sum::<usize>() < 90);
    rig.keep();
    assert_eq!(rig.told(), ["storage.damaged"]);
    assert_eq!(rig.stats.files_set_aside.value(), 1);
    let aside = std::fs::read_dir(rig.state())
        .expect("listed")
        .filter(|entry| entry.as_ref().expect("an entry").file_name().to_string_lossy().contains(".damaged-"));
    assert_eq!(aside.count(), 1);
    for node in (1..=NODES).filter(|node| *node != 4) {
        assert_eq!(rig.samples(node), whole[node as usize - 1], "node {node} lost nothing");
    }
    rig.keep();
    assert_eq!(rig.told(), Vec::<&str>::new(), "it is told once");

    // A file that is damaged as a whole.
    let second = rig.files().of(Level::Full).next_back().expect("there is one").clone();
    std::fs::write(second.path(), vec![0; 4_096]).expect("written");
    assert!(!window.stretches(&asked).expect("the rest is served").is_empty());
    rig.keep();
    assert_eq!(rig.told(), ["storage.damaged"]);
    assert!(!second.path().exists());
}

#[test]
fn a_damaged_journal_gives_what_can_be_read_of_it() {
    let mut rig = Rig::new("");
    rig.write(0, 70);
    let journal = rig.files().closed()[0].path().to_path_buf();
    rig.log.checkpoint_if_due().expect("folded");
    execute(&journal, "UPDATE record SET body = zeroblob(7) WHERE pos = 60");
    rig.keep();
    assert_eq!(rig.told(), ["storage.damaged"]);
    let rows: usize = (1..=NODES).map(|node| rig.samples(node)[1].points.len()).sum();
    // Deltas behind a lost frame are lost up to the next key, of one node alone.
    assert!(rows < 70 * NODES as usize && rows > 69 * (NODES as usize - 1), "{rows}");
}

#[test]
fn what_has_no_room_goes_and_a_full_disk_is_told() {
    let mut rig = Rig::new("bytes = \"1MiB\"");
    for part in 0..40 {
        rig.write(part * 30, 30);
        rig.keep();
    }
    let quota = rig.health.journal_room();
    assert_eq!(quota, (1 << 20) / 100 * 60);
    let bytes: u64 = rig.files().of(Level::Full).map(|name| crate::store::bytes_of(name.path())).sum();
    assert!(bytes <= quota, "{bytes}");
    let page = rig.stats.render();
    assert!(page.contains("dunlin_window_bytes{resolution=\"full\"}"), "{page}");
    assert!(rig.stats.window[0].age_s.value() > 0);
}

#[test]
fn what_is_taken_in_is_answered_and_merged_over_by_nothing() {
    let mut rig = Rig::new("");
    rig.write(0, 40);
    rig.take_in(9, WallMs(T0 + 40 * TICK_MS));
    rig.write(40, 700);
    let before: Vec<_> = (1..=NODES).chain([9]).map(|node| rig.samples(node)).collect();
    assert_eq!(before.last().map(|lines| lines[0].points.len()), Some(1_000 + 1), "and the gap behind it");
    let rolled = rig.rolled(Level::Mid, 9);
    rig.keep();
    let files = rig.files();
    assert!(files.of(Level::Full).any(|name| name.span == Span::Hour), "what the log had is merged: {files:?}");
    for level in Level::ALL {
        assert_eq!(files.of(level).filter(|name| name.span == Span::Day).count(), 1, "{level:?}: {files:?}");
    }
    let after: Vec<_> = (1..=NODES).chain([9]).map(|node| rig.samples(node)).collect();
    assert_eq!(before, after);
    assert_eq!(rolled, rig.rolled(Level::Mid, 9));
    assert_eq!(rig.rolled(Level::Long, 9).iter().map(|rolled| rolled.cells.len()).sum::<usize>(), 3);
}
