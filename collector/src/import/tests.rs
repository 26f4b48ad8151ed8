//! What was exported comes back, what is wrong is said with its place, and nothing half done stays.

use std::fs;
use std::sync::Arc;

use dunlin_shared::id::{Epoch, NodeId, Seq};
use dunlin_shared::metric::{Kind, OpenMetric, Step, Unit, by_name};
use dunlin_shared::sample::{ABSENT, Subject};
use dunlin_shared::time::MonoMs;
use proptest::prelude::*;

use super::*;
use crate::block::{Column, Measure, Row, Stretch};
use crate::export::{Asked, Export, Format, Node};
use crate::points::{Line, Wanted, lines};
use crate::record::{Event, NodeKey, Pos, Record};
use crate::registry::{Admission, Change, Member};
use crate::store::tests::Dir;
use crate::store::{ControlBatch, Level, NodeRow, Ordered};
use crate::stretch::Taken;
use crate::window::{self, FleetAsked, Intake, Rolled, Window};

/// 2026-11-21 10:00:00 UTC.
const T0: i64 = 1_795_255_200_000;
const NOW: WallMs = WallMs(T0 + 30 * 86_400_000);

fn node_id(node: u32) -> NodeId {
    NodeId::v7(node.into(), [u8::try_from(node).expect("small"); 10])
}

fn catalogued(name: &str) -> Measure {
    Measure::Catalogued(by_name(name).expect("it is in the catalogue").id)
}

fn open(name: &str, unit: Unit, kind: Kind, step: Step) -> Measure {
    Measure::Open(OpenMetric::new(name, unit, kind, step).expect("a good name"))
}

/// Every kind of series there is; a name that has to be quoted everywhere.
fn series() -> Vec<(Subject, Measure)> {
    let subject = |text: &str| Subject::parse(text).expect("a subject");
    vec![
        (Subject::HOST(), catalogued("host_cpu_idle_seconds")),
        (Subject::HOST(), catalogued("host_load1")),
        (Subject::HOST(), open("x_jobs", Unit::Count, Kind::Counter, Step::Per(1_000))),
        (Subject::HOST(), open("x_queue_bytes", Unit::Bytes, Kind::Gauge, Step::Each(1))),
        (subject("fs:/a,\"b\"\\\nc"), catalogued("fs_used_ratio")),
        (subject("net:eth0"), catalogued("net_received_bytes")),
    ]
}

/// A moment, and the steps of each series that has any.
type Told = (i64, Vec<Option<i64>>);

/// A state with samples, as if they had come.
struct State {
    dir: Dir,
    nodes: Vec<Node>,
}

impl State {
    fn empty() -> Self {
        Self { dir: Dir::new(), nodes: Vec::new() }
    }

    /// One stretch a node: moments and, for each series, steps or nothing.
    fn with(rows: &[Vec<Told>]) -> Self {
        let mut state = Self::empty();
        let dir = state.window_dir();
        fs::create_dir_all(&dir).expect("made");
        let mut intake = Intake::new(&dir, Pos(1), NOW);
        for (number, rows) in (1..).zip(rows) {
            let row = |(at, seq): (&Told, u64)| Row {
                time: WallMs(at.0),
                epoch: Epoch(1),
                seq: Seq(seq),
                mono: MonoMs(at.0.unsigned_abs()),
            };
            let column = |(at, (subject, measure)): (usize, (Subject, Measure))| Column {
                subject,
                measure,
                values: rows.iter().map(|(_, values)| values[at].unwrap_or(ABSENT)).collect(),
            };
            let columns = series().into_iter().enumerate().map(column).collect();
            let stretch = Stretch { rows: rows.iter().zip(1..).map(row).collect(), columns };
            for part in stretch.parts(50) {
                intake.put((NodeKey(number), node_id(number)), part).expect("it is written");
            }
            let name = Arc::from(format!("host, \"{number}\""));
            state.nodes.push(Node { id: node_id(number), key: NodeKey(number), name, interval_ms: 10_000, skew_ms: 0 });
        }
        intake.finish(Pos(1)).expect("it is written");
        state
    }

    fn window_dir(&self) -> PathBuf {
        self.dir.path().join("window")
    }

    fn window(&self) -> Window {
        Window::new(self.window_dir(), Arc::default())
    }

    fn export(&self, asked: Asked) -> String {
        let mut export = Export::new(Asked { to: NOW, nodes: self.nodes.clone(), ..asked });
        let window = self.window();
        let mut text = Vec::new();
        while export.read(&window).expect("it is read") {
            loop {
                let chunk = export.chunk();
                if chunk.is_empty() {
                    break;
                }
                text.extend(chunk);
            }
        }
        String::from_utf8(text).expect("text")
    }

    fn file(&self, text: &[u8]) -> PathBuf {
        let path = self.dir.path().join("file");
        fs::write(&path, text).expect("written");
        path
    }

    fn import(&self, text: &[u8]) -> Result<Imported, String> {
        let file = self.file(text);
        let done = run(self.dir.path(), &[file], NOW);
        assert!(!self.window_dir().join("import.new").exists(), "nothing stays apart");
        done.map_err(|error| error.to_string())
    }

    fn rows(&self) -> Vec<NodeRow> {
        let (control, _) = Control::open(&self.dir.path().join("control.db"), NOW, 1).expect("it opens");
        control.nodes().expect("it is read")
    }

    /// Every point of a node, counters as they are counted.
    fn points(&self, node: NodeId) -> Vec<(String, Vec<(i64, f64)>)> {
        let key = self.nodes.iter().find(|known| known.id == node).map(|known| known.key);
        let key =
            key.or_else(|| self.rows().iter().find(|row| row.id == node).map(|row| row.key)).expect("it is known");
        let wanted = |_: &Subject, _: &Measure| true;
        let taken = Taken { wanted: &wanted, skew_ms: 0, values_max: usize::MAX };
        let (from, to) = (WallMs(0), NOW);
        let asked = window::Asked { node: key, from, to, taken, frames_max: usize::MAX };
        let stretches = self.window().stretches(&asked).expect("it is read");
        let shown = Wanted { from, to, interval_ms: 10_000, raw: true };
        let point = |line: Line| {
            let about = line.measure.about().expect("known");
            let points = line.points.iter().filter_map(|(at, value)| Some((at.0, (*value)?))).collect();
            (format!("{} {} {} {}", line.subject, about.name, about.unit.as_str(), about.kind.as_str()), points)
        };
        let mut points: Vec<_> = lines(&stretches, &shown).into_iter().map(point).collect();
        points.sort_by(|a, b| a.0.cmp(&b.0));
        points
    }

    fn rolled(&self, level: Level) -> Vec<Rolled> {
        let metrics: Vec<String> =
            series().iter().filter_map(|(_, measure)| Some(measure.about()?.name.to_owned())).collect();
        let wanted = |_: NodeKey, _: &Subject| true;
        let nodes = (NodeKey(0), NodeKey(u32::MAX));
        let (from, to) = (WallMs(0), NOW);
        let asked =
            FleetAsked { level, metrics: &metrics, wanted: &wanted, nodes, fresh: &[], from, to, cells_max: 1 << 20 };
        self.window().rolled(&asked).expect("it is read")
    }
}

/// Ten minutes of two nodes with gaps, a reset and something that comes and goes.
fn example() -> State {
    let row = |node: i64, tick: i64| {
        let idle = (tick * 1_000 * node) % 70_000;
        let queue = (tick % 7 != 0).then_some(tick * 13);
        let used = (tick < 40).then_some(500 + tick);
        (T0 + tick * 10_000 + tick % 3, vec![Some(idle), Some(tick % 90), queue, Some(tick), used, Some(tick << 40)])
    };
    let rows = |node: i64| (0..500).filter(|tick| !(100..130).contains(tick)).map(|tick| row(node, tick)).collect();
    State::with(&[rows(1), rows(2)])
}

#[test]
fn what_was_exported_comes_back_from_both_formats_and_doubles_nothing() {
    let first = example();
    for format in [Format::Csv, Format::OpenMetrics] {
        let text = first.export(Asked { format, ..Asked::default() });
        let second = State::empty();
        let imported = second.import(text.as_bytes()).expect("it is good");
        assert_eq!((imported.nodes, imported.new_nodes, imported.from), (2, 2, WallMs(T0)));
        for node in &first.nodes {
            let (a, b) = (first.points(node.id), second.points(node.id));
            assert_eq!(
                a.iter().map(|(name, _)| name).collect::<Vec<_>>(),
                b.iter().map(|(name, _)| name).collect::<Vec<_>>()
            );
            assert!(a == b, "{format:?} of {}", node.id);
        }
        let rows = second.rows();
        assert_eq!(rows.iter().map(|row| &*row.name).collect::<Vec<_>>(), ["host, \"1\"", "host, \"2\""]);
        assert!(rows.iter().all(|row| row.interval_ms == Some(10_001)), "what is a gap is told by it");
        for level in [Level::Mid, Level::Long] {
            assert_eq!(first.rolled(level), second.rolled(level), "{level:?}");
        }
        let again = second.import(text.as_bytes()).expect_err("it is there already");
        assert!(again.contains("has samples of this time already"), "{again}");
        assert_eq!(second.points(node_id(1)), first.points(node_id(1)));
        let text_again = State { nodes: first.nodes.clone(), ..second }.export(Asked { format, ..Asked::default() });
        assert!(text == text_again, "and is exported as it was");
    }
}

#[test]
fn openmetrics_has_each_family_and_each_series_in_one_piece() {
    let state = example();
    let full = state.export(Asked { format: Format::OpenMetrics, ..Asked::default() });
    let mid = state.export(Asked { format: Format::OpenMetrics, level: Level::Mid, rates: true, ..Asked::default() });
    for text in [&full, &mid] {
        assert!(text.ends_with("# EOF\n"));
        let mut families = std::collections::HashSet::new();
        let mut ended = std::collections::HashSet::new();
        let mut last: Option<(&str, f64)> = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("# TYPE ") {
                assert!(families.insert(name.to_owned()), "{name} comes twice");
            }
            let Some((series, rest)) = line.split_once("} ") else { continue };
            let at: f64 = rest.split_once(' ').expect("a time").1.parse().expect("a number");
            match last {
                Some((before, then)) if before == series => assert!(at > then, "{line}"),
                _ => assert!(ended.insert(series.to_owned()), "{series} comes twice"),
            }
            last = Some((series, at));
        }
    }
    assert!(full.contains("host_cpu_idle_seconds_total{") && full.contains("# UNIT x_queue_bytes bytes\n"));
    assert!(mid.contains("host_load1_mean{") && mid.contains("# TYPE x_jobs_count gauge\n"), "{mid:.2000}");
}

#[test]
fn an_export_is_as_long_as_what_is_asked_for() {
    let state = example();
    let count = |asked: Asked| state.export(asked).lines().count() - 1;
    let one = Asked { metrics: vec![String::from("host_load1")], ..Asked::default() };
    assert_eq!(count(one.clone()), 2 * 470);
    let range = Asked { from: Some(WallMs(T0)), to: NOW, ..one.clone() };
    assert_eq!(count(range), 2 * 470);
    let subjects = Asked { subjects: vec![Subject::parse("net:eth0").expect("a subject")], ..Asked::default() };
    assert_eq!(count(subjects), 2 * 470);
    let rates =
        state.export(Asked { metrics: vec![String::from("net_received_bytes")], rates: true, ..Asked::default() });
    assert_eq!(rates.lines().count() - 1, 2 * 468, "one less for each beginning");
    assert!(rates.lines().nth(1).is_some_and(|line| line.contains(",bytes,rate,")), "{rates:.300}");
    let mid = state.export(Asked { level: Level::Mid, rates: true, ..one });
    assert_eq!(mid.lines().next(), Some(crate::export::csv::CELLS));
    assert_eq!(mid.lines().count() - 1, 2 * 17, "a gap shorter than a slot leaves none out: {mid}");
}

#[test]
fn what_holds_no_samples_is_refused() {
    let state = example();
    for format in [Format::Csv, Format::OpenMetrics] {
        let rolled = state.export(Asked { format, level: Level::Long, rates: true, ..Asked::default() });
        let said = State::empty().import(rolled.as_bytes()).expect_err("roll-ups");
        assert!(said.contains("roll-ups") && said.contains("--resolution full"), "{said}");
        let rates = state.export(Asked { format, rates: true, ..Asked::default() });
        let said = State::empty().import(rates.as_bytes()).expect_err("rates");
        assert!(said.contains("rate") && said.contains("--counter value"), "{said}");
    }
}

/// A line of CSV, and one of OpenMetrics, about node 1.
fn csv(time: &str, metric: &str, subject: &str, value: &str) -> String {
    let (unit, kind) = if metric == "net_received_bytes" { ("bytes", "counter") } else { ("count", "gauge") };
    format!("{time},{},h,{subject},{metric},{unit},{kind},{value}\r\n", node_id(1))
}

fn sample(time: &str, value: &str) -> String {
    format!("host_load1{{node=\"{}\",name=\"h\",subject=\"host\"}} {value} {time}\n", node_id(1))
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_nothing_is_imported() {
    const HEAD: &str = "time,node,name,subject,metric,unit,kind,value\r\n";
    const TYPE: &str = "# TYPE host_load1 gauge\n";
    let good = csv("2026-11-21T10:00:00.000Z", "host_load1", "host", "1");
    let at = |time: &str| csv(time, "host_load1", "host", "1");
    let other = |metric: &str, subject: &str, value: &str| csv("2026-11-21T10:00:10Z", metric, subject, value);
    let node2 = good.replace(&node_id(1).to_string(), &node_id(2).to_string());
    let huge = "x".repeat(20_000);
    let cases: Vec<(String, u64, &str)> = vec![
        (format!("{HEAD}{good}{}", at("1970-01-01T00:00:00Z")), 3, "before 2000"),
        (format!("{HEAD}{good}{}", at("2100-01-01T00:00:00Z")), 3, "in the future"),
        (format!("{HEAD}{good}{}", at("2026-11-21T09:59:59Z")), 3, "times have to ascend"),
        (format!("{HEAD}{good}{good}"), 3, "two values"),
        (format!("{HEAD}{good}{}", at("yesterday")), 3, "RFC 3339"),
        (format!("{HEAD}{good}{node2}{}", at("2026-11-21T10:00:10Z")), 4, "stand together"),
        (format!("{HEAD}{good}{}", other("host_load1", "host", "NaN")), 3, "the value is NaN"),
        (format!("{HEAD}{good}{}", other("host_load1", "host", "inf")), 3, "the value is inf"),
        (format!("{HEAD}{good}{}", other("host_load1", "host", "1e300")), 3, "larger than"),
        (format!("{HEAD}{good}{}", other("host_load1", "host", "many")), 3, "has to be a number"),
        (format!("{HEAD}{good}{}", other("cpu", "host", "1")), 3, "named x_*"),
        (format!("{HEAD}{good}{}", other("x_Big", "host", "1")), 3, "open name space"),
        (format!("{HEAD}{good}{}", other("host_load1", "fs:/", "1")), 3, "is about subjects such as host"),
        (format!("{HEAD}{good}{}", other("host_load1", "nothing", "1")), 3, "the subject is"),
        (format!("{HEAD}{good}{}", other("fs_used_ratio", "fs:/", "1")), 3, "has the unit ratio here"),
        (format!("{HEAD}{good}{}", good.replace("gauge", "counter")), 3, "has the kind gauge here"),
        (format!("{HEAD}{good}{}", good.replace(&node_id(1).to_string(), "web-1")), 3, "is not a node id"),
        (
            format!("{HEAD}{good}{}", good.replace(&node_id(1).to_string(), "").replace(",h,", ",,")),
            3,
            "neither a node's id",
        ),
        (format!("{HEAD}{good}a,b\r\n"), 3, "2 fields"),
        (format!("{HEAD}{good}{huge}"), 3, "longer than"),
        (format!("{HEAD}{good}\"{}", "x\n".repeat(10_000)), 8_195, "has no end"),
        (format!("{HEAD}{}", good.trim_end()), 2, "in the middle of a line"),
        (format!("time,value\r\n{good}"), 1, "the columns are"),
        (String::from("{}"), 1, "middle of a line"),
        (String::from("hello\n"), 1, "neither CSV nor OpenMetrics"),
        (String::new(), 1, "the file is empty"),
        (format!("{TYPE}{}", sample("1795255200", "1")), 2, "does not end with # EOF"),
        (format!("{TYPE}{}# EOF\n{TYPE}", sample("1795255200", "1")), 4, "behind # EOF"),
        (format!("{TYPE}{}{}", sample("1795255200", "1"), sample("1795255190", "1")), 3, "goes forward in time"),
        (format!("{TYPE}{}{}", sample("1795255200", "1"), sample("1795255200.000", "2")), 3, "is the same as"),
        (format!("{TYPE}{}", sample("1795255200000", "1")), 2, "in the future"),
        (format!("{TYPE}{}", sample("12", "1")), 2, "seconds since 1970"),
        (format!("{TYPE}{}", sample("NaN", "1")), 2, "the time is"),
        (format!("{TYPE}{}", sample("1795255200", "+Inf")), 2, "the value is inf"),
        (sample("1795255200", "1"), 1, "neither CSV nor"),
        (format!("# TYPE host_load1 summary\n{}", sample("1795255200", "1")), 1, "gauge, counter or unknown"),
        (
            format!("# TYPE host_load5 gauge\n{}", sample("1795255200", "1")),
            2,
            "in this family it has to be host_load5",
        ),
        (format!("{TYPE}host_load1 1 1795255200\n"), 2, "has no labels"),
        (format!("{TYPE}host_load1{{node=\"x\" 1 2\n"), 2, "comma or a brace"),
        (format!("{TYPE}host_load1{{cpu=\"0\"}} 1 1795255200\n"), 2, "label \"cpu\""),
        (format!("{TYPE}host_load1{{subject=\"host\"}} 1\n"), 2, "has no time"),
    ];
    for (text, line, words) in cases {
        let state = State::empty();
        let said = state.import(text.as_bytes()).expect_err(words);
        let place = format!("file:{line}: ");
        assert!(said.contains(&place) && said.contains(words), "{text:.200}\n{said}\nwas to be {place}{words}");
        assert!(state.rows().is_empty() && Files::list(&state.window_dir()).expect("listed").sealed.is_empty());
    }
    let state = State::empty();
    let said = state.import(&[HEAD.as_bytes(), good.as_bytes(), b"\xff\xfe\r\n"].concat()).expect_err("no text");
    assert!(said.contains("file:3: the line is not UTF-8"), "{said}");
}

#[test]
fn what_is_said_of_a_line_moves_no_cursor() {
    let state = State::empty();
    let head = "time,node,name,subject,metric,unit,kind,value\r\n";
    let line = |name: &str| format!("2026-11-21T10:00:00Z,,{name},host,host_load1,count,gauge,1\r\n");
    let csv = [head, &line("a\x1b[2J"), &line("b"), &line("a\x1b[2J")].concat();
    let open = "# TYPE host\x1b[2J gauge\nx{name=\"a\",subject=\"host\"} 1 1795255200\n# EOF\n";
    for text in [&csv, open] {
        let said = state.import(text.as_bytes()).expect_err("it is wrong");
        assert!(!said.contains(char::is_control) && said.contains("[2J"), "{said:?}");
    }
}

#[test]
fn nodes_are_known_by_id_or_by_the_name_that_one_has() {
    const HEAD: &str = "time,node,name,subject,metric,unit,kind,value\r\n";
    let state = State::empty();
    let (mut control, _) = Control::open(&state.dir.path().join("control.db"), NOW, 1).expect("new");
    fs::create_dir_all(state.window_dir()).expect("made");
    let names = [(node_id(1), "one"), (node_id(2), "twin"), (node_id(3), "twin")];
    control.ensure_nodes(&names, NOW).expect("added");
    control.close().expect("closed");
    let line = |second: u32, node: &str, name: &str| {
        format!("{HEAD}2026-11-21T10:00:{second:02}Z,{node},{name},host,host_load1,count,gauge,1\r\n")
    };
    let imported = |text: String| state.import(text.as_bytes()).map(|done| done.new_nodes);
    assert_eq!(imported(line(1, &node_id(1).to_string(), "renamed")), Ok(0));
    assert_eq!(imported(line(2, "", "one")), Ok(0));
    assert_eq!(imported(line(3, &node_id(9).to_string(), "one")), Ok(0), "an id of another fleet, and a name of ours");
    assert!(imported(line(4, "", "twin")).is_err_and(|said| said.contains("several nodes have the name")));
    assert_eq!(imported(line(5, "", "new")), Ok(1));
    assert_eq!(imported(line(6, &node_id(8).to_string(), "")), Ok(1));
    assert_eq!(state.rows().len(), 5);
    assert_eq!(state.points(node_id(1))[0].1.iter().map(|(at, _)| at - T0).collect::<Vec<_>>(), [1_000, 2_000, 3_000]);
    let registry = Control::open(&state.dir.path().join("control.db"), NOW, 1).expect("it opens").0.registry();
    let registry = registry.expect("it is read");
    let member = registry.member(node_id(8)).expect("it is a member");
    assert_eq!((member.admission, member.key), (Admission::Revoked, None));
}

#[test]
fn who_has_joined_and_was_not_heard_yet_is_let_in_after_an_import_as_before() {
    let state = State::empty();
    let path = state.dir.path().join("control.db");
    let joined = Member { admission: Admission::Approved, ..Member::without_agent(String::from("one"), NOW) };
    let (mut control, _) = Control::open(&path, NOW, 1).expect("new");
    let ordered = Ordered { changes: vec![Change::Member(node_id(1), joined.clone())], ..Ordered::default() };
    control.apply_with(&ControlBatch::default(), &ordered).expect("written");
    control.close().expect("closed");
    let head = "time,node,name,subject,metric,unit,kind,value\r\n";
    let text = head.to_owned() + &csv("2026-11-21T10:00:00Z", "host_load1", "host", "1");
    assert_eq!(state.import(text.as_bytes()).map(|done| done.new_nodes), Ok(1));
    let registry = Control::open(&path, NOW, 1).expect("it opens").0.registry().expect("it is read");
    assert_eq!(registry.member(node_id(1)), Some(&joined));
    assert!(!state.points(node_id(1)).is_empty());
}

#[test]
fn files_that_follow_each_other_are_imported_together_or_not_at_all() {
    const HEAD: &str = "time,node,name,subject,metric,unit,kind,value\r\n";
    let state = State::empty();
    let file = |name: &str, time: &str| {
        let path = state.dir.path().join(name);
        fs::write(&path, format!("{HEAD}{}", csv(time, "host_load1", "host", "1"))).expect("written");
        path
    };
    let (first, second) = (file("a", "2026-11-21T10:00:00Z"), file("b", "2026-11-21T11:00:00Z"));
    let said = run(state.dir.path(), &[second.clone(), first.clone()], NOW).expect_err("the wrong way round");
    assert!(said.to_string().contains("files have to follow each other"), "{said}");
    assert!(state.rows().is_empty());
    assert_eq!(run(state.dir.path(), &[first, second], NOW).expect("in order").samples, 2);
}

#[test]
fn nodes_go_on_from_file_to_file() {
    let state = State::empty();
    let file = |name: &str, hour: u32| {
        let line = |node: &str| {
            let id = node_id(if node == "a" { 1 } else { 2 });
            format!("2026-11-21T{hour}:00:00Z,{id},{node},host,host_load1,count,gauge,1\r\n")
        };
        let path = state.dir.path().join(name);
        let head = "time,node,name,subject,metric,unit,kind,value\r\n";
        fs::write(&path, format!("{head}{}{}", line("a"), line("b"))).expect("written");
        path
    };
    let files = [file("one", 10), file("two", 11), file("three", 12)];
    assert_eq!(run(state.dir.path(), &files, NOW).expect("they follow each other").samples, 6);
    for node in [1, 2] {
        assert_eq!(state.points(node_id(node)).iter().map(|(_, points)| points.len()).sum::<usize>(), 3);
    }
}

#[test]
fn nobody_is_numbered_anew_who_is_known_to_the_log_alone() {
    let text = example().export(Asked { metrics: vec![String::from("host_load1")], ..Asked::default() });
    let state = State::empty();
    drop(Control::open(&state.dir.path().join("control.db"), NOW, 1).expect("new"));
    let (mut log, _) = Log::open(&state.window_dir(), NOW, Pos(0)).expect("new");
    log.rotate(NOW, &[]).expect("rotated");
    log.begin().expect("begun");
    let event = Event::Lost { node: NodeKey(1) };
    log.append(&Record { at: NOW, event }).expect("appended");
    log.commit().expect("committed");
    log.close().expect("closed");
    let said = state.import(text.as_bytes()).expect_err("its key would be given to another");
    assert!(said.contains("start the collector once"), "{said}");
}

#[test]
fn the_log_goes_on_above_what_was_imported_and_seals_what_it_had() {
    let text = example().export(Asked { metrics: vec![String::from("host_load1")], ..Asked::default() });
    let state = State::empty();
    let control = state.dir.path().join("control.db");
    drop(Control::open(&control, NOW, 1).expect("new"));
    let (mut log, _) = Log::open(&state.window_dir(), NOW, Pos(0)).expect("new");
    let write = |log: &mut Log, at: WallMs| {
        log.rotate(at, &[]).expect("rotated");
        log.begin().expect("begun");
        let pos = log.append(&Record { at, event: Event::Started }).expect("appended");
        log.commit().expect("committed");
        pos
    };
    let before = write(&mut log, NOW);
    log.close().expect("closed");
    state.import(text.as_bytes()).expect("it is good");
    let sealed = Files::list(&state.window_dir()).expect("listed").sealed;
    assert!(sealed.iter().all(|name| name.first > before) && sealed.len() == 3, "{sealed:?}");
    let (mut log, opened) = Log::open(&state.window_dir(), NOW, Pos(0)).expect("it opens");
    assert!(opened.set_aside.is_empty() && opened.lost_after.is_none(), "{opened:?}");
    let after = write(&mut log, NOW.plus(300_000));
    assert!(sealed.iter().all(|name| name.last < after));
    let closed = Files::list(&state.window_dir()).expect("listed").closed();
    assert_eq!(closed.iter().map(|journal| (journal.first(), journal.last())).collect::<Vec<_>>(), [(before, before)]);
    assert_eq!(log.scan(Pos(0)).filter_map(Result::ok).map(|(pos, _)| pos).collect::<Vec<_>>(), [before, after]);
}

#[test]
fn what_was_decided_is_carried_out_later_and_what_was_not_goes() {
    let text = example().export(Asked::default());
    let state = State::empty();
    state.import(text.as_bytes()).expect("it is good");
    let (dir, apart) = (state.window_dir(), state.window_dir().join("import.new"));
    let sealed = Files::list(&dir).expect("listed").sealed;
    let whole = state.points(node_id(1));
    // As a crash between the decision and the last move leaves it.
    fs::create_dir(&apart).expect("made");
    let name = sealed[0].path().file_name().expect("a name");
    fs::rename(sealed[0].path(), apart.join(name)).expect("moved");
    fs::write(apart.join("decided"), b"").expect("written");
    assert!(settle(&dir).expect("settled"));
    assert_eq!(state.points(node_id(1)), whole);
    // And as one before the decision does.
    fs::create_dir(&apart).expect("made");
    fs::write(apart.join(name), b"half").expect("written");
    assert!(!settle(&dir).expect("settled"));
    assert!(!apart.exists() && !settle(&dir).expect("settled"));
    assert_eq!(state.points(node_id(1)), whole);
}

#[test]
fn a_state_that_is_in_use_or_lacks_its_control_db_is_refused() {
    let text = example().export(Asked::default());
    let state = State::empty();
    let lock = StateLock::take(state.dir.path()).expect("free");
    assert!(state.import(text.as_bytes()).is_err_and(|said| said.contains("in use")));
    drop(lock);
    state.import(text.as_bytes()).expect("it is good");
    fs::remove_file(state.dir.path().join("control.db")).expect("removed");
    assert!(state.import(text.as_bytes()).is_err_and(|said| said.contains("start the collector once")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_exported_comes_back(
        ticks in prop::collection::vec((1i64..40_000, prop::collection::vec(prop::option::of(-1_000_000i64..1_000_000_000), 6)), 1..120),
        is_csv: bool,
    ) {
        let mut at = T0;
        let rows: Vec<_> = ticks.into_iter().map(|(passed, values)| {
            at += passed;
            (at, values)
        }).collect();
        let is_empty = rows.iter().all(|(_, values)| values.iter().all(Option::is_none));
        let first = State::with(&[rows]);
        let format = if is_csv { Format::Csv } else { Format::OpenMetrics };
        let text = first.export(Asked { format, ..Asked::default() });
        let second = State::empty();
        second.import(text.as_bytes()).map_err(TestCaseError::fail)?;
        prop_assert_eq!(second.rows().is_empty(), is_empty);
        if !is_empty {
            prop_assert_eq!(first.points(node_id(1)), second.points(node_id(1)));
        }
    }
}
