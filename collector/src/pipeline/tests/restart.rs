//! What is told of a node is told once, however often the collector starts, and whatever it had not written by then.

use dunlin_shared::codec::encode_key;
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::{Epoch, FrameId};
use dunlin_shared::sample::{Layout, Reading};

use super::*;
use crate::engine::alert::AlertId;
use crate::record::Record;
use crate::recover::{Recovered, recover, started};
use crate::rules::RuleBook;
use crate::store::Log;

const RULE: &str = "[[rule]]\nname = \"node-down\"\nwhen = 'node_state == down'\nsummary = \"{node}\"\n";

/// A collector without a network: its log and what follows from it.
struct Line {
    log: Log,
    pipeline: Pipeline,
    at: WallMs,
}

impl Line {
    fn start(dir: &Path, at: WallMs) -> Self {
        Self::start_with(dir, at, RULE)
    }

    fn start_with(dir: &Path, at: WallMs, rules: &str) -> Self {
        let rules = vec![(String::from("rules.toml"), String::from(rules))];
        let rules = RuleBook::default().with_files(rules).expect("it is right");
        let own = (Arc::default(), Arc::default(), Clock::start());
        let Recovered { mut log, pipeline, .. } = recover(dir, &rules, own).expect("our own files");
        if log.due(at) {
            log.rotate(at, &[]).expect("it is rotated");
        }
        let mut line = Self { log, pipeline, at };
        line.put(started(at).event);
        line
    }

    fn put(&mut self, event: Event) {
        self.put_reading(event, None);
    }

    fn put_reading(&mut self, event: Event, reading: Option<Arc<Reading>>) {
        let record = Record { at: self.at, event };
        self.log.begin().expect("it begins");
        let pos = Some(self.log.append(&record).expect("it is appended"));
        self.log.commit().expect("it is committed");
        self.pipeline.apply(Logged { pos, record, reading }).expect("it is applied");
    }

    fn wait(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.at = self.at.plus(1_000);
            self.put(Event::Tick { elapsed_ms: 1_000, paused_ms: 0 });
        }
    }

    fn hello(&mut self, epoch: u32) {
        let session = SessionStart {
            node: NodeId::v7(1, [3; 10]),
            name: String::from("web-1"),
            agent_version: String::from("0.1.0"),
            boot_id: BOOT,
            epoch: Epoch(epoch),
            interval_ms: 10_000,
            skew_ms: 0,
            before: None,
        };
        self.put(Event::Hello { node: NodeKey(0), session });
    }
}

/// Kinds and ids.
fn alerts(dir: &Path) -> Vec<(String, String)> {
    let rows = ControlReader::open(&dir.join("control.db")).and_then(|reader| reader.events(0, 1_000)).expect("read");
    let rows = rows.into_iter().filter(|row| row.kind.starts_with("alert."));
    rows.map(|row| {
        let body: serde_json::Value = serde_json::from_str(&row.body).expect("JSON");
        (row.kind, body["alert"]["id"].as_str().expect("an alert has an id").to_owned())
    })
    .collect()
}

#[test]
fn a_node_that_is_down_is_told_once_whatever_was_written_before_the_starts() {
    for is_written in [true, false] {
        let dir = Dir::new();
        let at = Clock::start().wall();
        let mut line = Line::start(dir.path(), at);
        line.hello(1);
        line.wait(1);
        line.pipeline.write().expect("it is written");
        line.wait(70);
        for _ in 0..3 {
            if is_written {
                line.pipeline.write().expect("it is written");
            }
            let at = line.at;
            drop(line);
            line = Line::start(dir.path(), at);
            line.wait(1);
        }
        line.pipeline.write().expect("it is written");
        let told = alerts(dir.path());
        assert_eq!(told.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), ["alert.firing"]);
        line.hello(2);
        let at = line.at;
        drop(line);
        drop(Line::start(dir.path(), at));
        let id = told[0].1.clone();
        assert_eq!(alerts(dir.path()), [told[0].clone(), ("alert.resolved".to_owned(), id)]);
    }
}

/// When each was told, in seconds after the first.
fn times(dir: &Path) -> Vec<(String, i64)> {
    let rows = ControlReader::open(&dir.join("control.db")).and_then(|reader| reader.events(0, 1_000)).expect("read");
    let rows: Vec<_> = rows.into_iter().filter(|row| row.kind.starts_with("alert.")).collect();
    rows.iter().map(|row| (row.kind.clone(), row.at.since(rows[0].at) / 1_000)).collect()
}

#[test]
fn what_goes_on_firing_for_a_while_ends_when_it_would_have_ended_without_a_start() {
    let rule = format!("{RULE}keep_firing_for = \"1m\"\n");
    let run = |starts: &[u32]| {
        let dir = Dir::new();
        let mut line = Line::start_with(dir.path(), Clock::start().wall(), &rule);
        line.hello(1);
        line.wait(70);
        line.hello(2);
        for second in 0..70 {
            if starts.contains(&second) {
                line.pipeline.write().expect("it is written");
                let at = line.at;
                drop(line);
                line = Line::start_with(dir.path(), at, &rule);
                line.hello(3 + second);
            }
            line.wait(1);
            let heartbeat = Event::Heartbeat { node: NodeKey(0) };
            line.put(heartbeat);
        }
        line.pipeline.write().expect("it is written");
        times(dir.path())
    };
    let without = run(&[]);
    assert_eq!(without.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), ["alert.firing", "alert.resolved"]);
    assert_eq!(run(&[1]), without);
    assert_eq!(run(&[59]), without);
    assert_eq!(run(&[10, 30, 50]), without);
}

#[test]
fn an_alert_on_a_node_that_was_silent_for_long_has_one_name_whoever_starts_meanwhile() {
    let none = "[[rule]]\nname = \"none\"\nwhen = 'node_state == held'\nsummary = \"x\"\n";
    let run = |starts: &[u32]| {
        let dir = Dir::new();
        let mut line = Line::start_with(dir.path(), Clock::start().wall(), none);
        line.hello(1);
        let reading =
            Reading { mono: MonoMs(5), wall: line.at, layout: Arc::new(Layout::default()), values: Vec::new() };
        let (kind, body) = (BodyKind::Key, encode_key(&reading));
        let frame = Frame { id: FrameId::new(1, 77), kind, body };
        line.put_reading(Event::Frame { node: NodeKey(0), lane: Lane::Live, frame }, Some(Arc::new(reading)));
        line.pipeline.note_seen();
        for minute in 0..30 {
            if starts.contains(&minute) {
                line.pipeline.write().expect("it is written");
                let at = line.at;
                drop(line);
                line = Line::start_with(dir.path(), at, none);
            }
            // Far longer than what a start finds of frames.
            line.wait(60);
        }
        line.pipeline.write().expect("it is written");
        let at = line.at;
        drop(line);
        // The rule is new, and the node is down since long before it.
        line = Line::start_with(dir.path(), at, RULE);
        line.wait(1);
        line.pipeline.write().expect("it is written");
        alerts(dir.path())
    };
    let id = AlertId::of("node-down", Some(NodeId::v7(1, [3; 10])), "host", FrameId::new(1, 77)).to_string();
    let told = [("alert.firing".to_owned(), id)];
    for starts in [&[][..], &[0], &[25], &[5, 20]] {
        assert_eq!(run(starts), told);
    }
}
