//! Points from frames that are made here, on virtual time.

use std::sync::Arc;

use dunlin_shared::codec::{encode_delta, encode_key};
use dunlin_shared::frame::{BodyKind, Frame};
use dunlin_shared::id::FrameId;
use dunlin_shared::metric::{MetricRef, by_name};
use dunlin_shared::sample::{Layout, Reading, Series, SubjectKind};
use dunlin_shared::time::MonoMs;
use dunlin_shared::wire::Lane;

use super::*;
use crate::record::{Event, NodeKey, Record};
use crate::stretch::{self, Clocks, Taken, TooMany};

const NODE: NodeKey = NodeKey(1);

fn reading(mono: u64, idle: i64, load: i64) -> Reading {
    let series = |name: &str| Series {
        subject: 0,
        metric: MetricRef::catalogued(by_name(name).expect("it is in the catalogue").id),
    };
    let layout = Layout {
        subjects: vec![Subject::HOST()],
        series: vec![series("host_cpu_idle_seconds"), series("host_load1")],
        open: Vec::new(),
    };
    Reading { mono: MonoMs(mono), wall: WallMs(0), layout: Arc::new(layout), values: vec![idle, load] }
}

fn frame(at: i64, lane: Lane, id: (u32, u64), kind: BodyKind, body: Vec<u8>) -> Record {
    let frame = Frame { id: FrameId::new(id.0, id.1), kind, body };
    Record { at: WallMs(at), event: Event::Frame { node: NODE, lane, frame } }
}

fn key(at: i64, epoch: u32, seq: u64, reading: &Reading) -> Record {
    frame(at, Lane::Live, (epoch, seq), BodyKind::Key, encode_key(reading))
}

const WANTED: Wanted = Wanted { from: WallMs(0), to: WallMs(1_000_000), interval_ms: 10_000, raw: false };

fn stretch(records: &[Record], metric: &str, skew_ms: i64, values_max: usize) -> Result<Stretch, TooMany> {
    let wanted = |_: &Subject, measure: &Measure| measure.about().is_some_and(|about| about.name == metric);
    stretch::of(records, Taken { wanted: &wanted, skew_ms, values_max }, &Clocks::default())
}

fn asked(records: &[Record], metric: &str, wanted: &Wanted) -> Vec<(i64, Option<f64>)> {
    asked_with(records, metric, wanted, 0)
}

fn asked_with(records: &[Record], metric: &str, wanted: &Wanted, skew_ms: i64) -> Vec<(i64, Option<f64>)> {
    let lines = lines(&[stretch(records, metric, skew_ms, 1_000).expect("few values")], wanted);
    assert!(lines.len() <= 1);
    lines.into_iter().flat_map(|line| line.points).map(|(at, value)| (at.0, value)).collect()
}

/// Idle time is counted in hundredths of a second, load in hundredths.
#[test]
fn counters_become_rates_and_gauges_stay() {
    let readings = [reading(10_000, 1_000, 50), reading(20_000, 2_000, 75), reading(30_000, 2_500, ABSENT)];
    let mut records = vec![key(100_000, 1, 0, &readings[0])];
    for (seq, pair) in (1..).zip(readings.windows(2)) {
        let body = encode_delta(&pair[0], &pair[1]).expect("it builds on it");
        let at = 100_000 + i64::try_from(seq).expect("small") * 10_000 + 40;
        records.push(frame(at, Lane::Live, (1, seq), BodyKind::Delta { back: 1 }, body));
    }
    let to = WallMs(130_000);
    let rates = asked(&records, "host_cpu_idle_seconds", &Wanted { to, ..WANTED });
    // The delay of a single frame does not move its point: the least of all counts.
    assert_eq!(rates, [(110_000, Some(1.0)), (120_000, Some(0.5))]);
    let raw = asked(&records, "host_cpu_idle_seconds", &Wanted { to, raw: true, ..WANTED });
    assert_eq!(raw, [(100_000, Some(10.0)), (110_000, Some(20.0)), (120_000, Some(25.0))]);
    let load = asked(&records, "host_load1", &Wanted { to, ..WANTED });
    assert_eq!(load, [(100_000, Some(0.5)), (110_000, Some(0.75))]);
    assert_eq!(asked(&records, "host_load5", &WANTED), []);
}

#[test]
fn a_counter_that_fell_began_anew_and_a_gap_is_no_rate() {
    let records = [
        key(100_000, 1, 0, &reading(10_000, 1_000, 0)),
        key(110_000, 2, 0, &reading(500, 300, 0)),
        key(160_000, 2, 1, &reading(50_500, 5_300, 0)),
        key(170_000, 2, 2, &reading(60_500, 6_300, 0)),
    ];
    let points = asked(&records, "host_cpu_idle_seconds", &Wanted { to: WallMs(175_000), ..WANTED });
    assert_eq!(points, [(110_000, Some(0.3)), (120_000, None), (170_000, Some(1.0))]);
}

#[test]
fn what_an_agent_adds_up_is_no_rate_where_its_next_run_counts_less() {
    let of = |mono, used| {
        let metric = MetricRef::catalogued(by_name("process_cpu_seconds").expect("it is in the catalogue").id);
        let bash = Subject::new(SubjectKind::Process, "bash").expect("a name");
        let layout = Layout { subjects: vec![bash], series: vec![Series { subject: 0, metric }], open: Vec::new() };
        Reading { mono: MonoMs(mono), wall: WallMs(0), layout: Arc::new(layout), values: vec![used] }
    };
    let records = [
        key(100_000, 1, 0, &of(10_000, 500_000)),
        key(110_000, 2, 0, &of(500, 400_000)),
        key(120_000, 2, 1, &of(10_500, 401_000)),
        key(130_000, 2, 2, &of(20_500, 1_000)),
    ];
    let points = asked(&records, "process_cpu_seconds", &Wanted { to: WallMs(135_000), ..WANTED });
    assert_eq!(points, [(120_000, Some(1.0)), (130_000, Some(1.0))]);
}

#[test]
fn what_ended_long_ago_ends_in_a_gap_and_nothing_is_not_a_line() {
    let records = [key(100_000, 1, 0, &reading(0, 0, 100)), key(110_000, 1, 1, &reading(10_000, 0, 100))];
    let points = asked(&records, "host_load1", &WANTED);
    assert_eq!(points, [(100_000, Some(1.0)), (110_000, Some(1.0)), (120_000, None)]);
    assert_eq!(asked(&records, "host_load1", &Wanted { from: WallMs(115_000), ..WANTED }), []);
}

#[test]
fn backlog_stands_where_it_was_measured_beside_the_live_frames_of_its_run() {
    let late = frame(500_000, Lane::Backlog, (1, 1), BodyKind::Key, encode_key(&reading(20_000, 0, 2)));
    let records = [key(100_000, 1, 0, &reading(10_000, 0, 1)), late, key(120_000, 1, 2, &reading(30_000, 0, 3))];
    let points = asked(&records, "host_load1", &Wanted { to: WallMs(125_000), ..WANTED });
    assert_eq!(points, [(100_000, Some(0.01)), (110_000, Some(0.02)), (120_000, Some(0.03))]);
}

#[test]
fn a_run_without_live_frames_goes_by_the_agents_clock_unless_that_is_absurd() {
    let spooled = |wall: i64| {
        let reading = Reading { wall: WallMs(wall), ..reading(0, 0, 7) };
        vec![frame(500_000, Lane::Backlog, (1, 0), BodyKind::Key, encode_key(&reading))]
    };
    let at = |wall: i64| asked_with(&spooled(wall), "host_load1", &WANTED, 1_000)[0].0;
    assert_eq!(at(401_000), 400_000);
    assert_eq!(at(9_000_000), 500_000, "the future has not been measured");
}

#[test]
fn a_delta_without_its_base_is_passed_over() {
    let (first, second) = (reading(10_000, 0, 1), reading(20_000, 0, 2));
    let body = encode_delta(&first, &second).expect("it builds on it");
    let delta = frame(110_000, Lane::Live, (1, 1), BodyKind::Delta { back: 1 }, body);
    assert_eq!(asked(std::slice::from_ref(&delta), "host_load1", &WANTED), []);
    let broken = frame(120_000, Lane::Live, (1, 2), BodyKind::Key, vec![1, 2, 3]);
    assert_eq!(asked(&[delta, broken], "host_load1", &WANTED), []);
}

#[test]
fn too_many_values_are_refused_before_they_are_held() {
    let records: Vec<_> = (0..20).map(|n| key(100_000, 1, n, &reading(n, 0, 1))).collect();
    assert_eq!(stretch(&records, "host_load1", 0, 10), Err(TooMany(10)));
}

#[test]
fn steps_are_folded_and_empty_ones_are_gaps() {
    let points: Vec<_> =
        [(0, 1.0), (1_000, 3.0), (2_000, 5.0), (11_000, 7.0)].map(|(at, value)| (WallMs(at), Some(value))).to_vec();
    let folded = |how| -> Vec<_> { fold(&points, 3_000, how).into_iter().map(|(at, value)| (at.0, value)).collect() };
    assert_eq!(folded(Fold::Mean), [(0, Some(3.0)), (3_000, None), (6_000, None), (9_000, Some(7.0))]);
    assert_eq!(
        (folded(Fold::Min)[0].1, folded(Fold::Max)[0].1, folded(Fold::Last)[0].1),
        (Some(1.0), Some(5.0), Some(5.0))
    );
    assert_eq!(fold(&[], 1_000, Fold::Last), []);
}

#[test]
fn what_came_in_several_stretches_is_one_line_whatever_their_order() {
    let records: Vec<Record> = (0..9)
        .map(|n| {
            let mono = n * 10_000;
            let (at, steps) = (100_000 + i64::try_from(mono).expect("small"), i64::try_from(n).expect("small"));
            key(at, 1, n, &reading(mono, steps * 500, steps))
        })
        .collect();
    let whole = asked(&records, "host_cpu_idle_seconds", &WANTED);
    let part = |records: &[Record]| stretch(records, "host_cpu_idle_seconds", 0, 1_000).expect("few values");
    let parts = [part(&records[..2]), part(&records[5..]), part(&records[2..5])];
    let points = lines(&parts, &WANTED).remove(0).points;
    assert_eq!(points.into_iter().map(|(at, value)| (at.0, value)).collect::<Vec<_>>(), whole);
}

#[test]
fn the_interval_is_the_median_of_a_run_and_unknown_of_a_single_row() {
    let at = |mono| key(100_000 + i64::try_from(mono).expect("small"), 1, mono, &reading(mono, 0, 0));
    let stretch = |monos: &[u64]| {
        let records: Vec<Record> = monos.iter().map(|&mono| at(mono)).collect();
        stretch(&records, "host_load1", 0, 1_000).expect("few values")
    };
    assert_eq!(interval_ms(&stretch(&[0, 10_000, 20_001, 60_000, 70_000]).rows), Some(10_001));
    assert_eq!(interval_ms(&stretch(&[5]).rows), None);
}
