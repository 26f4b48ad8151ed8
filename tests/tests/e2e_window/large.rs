//! A node with all the subjects that it may have, through the whole collector.

use dunlin_collector::store::{Files, Level, Span};
use dunlin_shared::limits::{SERIES_MAX, SUBJECTS_MAX};
use dunlin_tests::fleet::history::{History, write};
use dunlin_tests::fleet::load::Load;

use super::*;

/// A collector of two nodes takes 30 MiB; what it holds of one while it is sealed is bounded by values, 64 MiB of them.
const RSS_KIB_MAX: u64 = 160 * 1024;
/// A roll-up keeps means to sixteenths of the metric's step, which is 64 KiB; all else of it is exact.
const MEAN_WITHIN: f64 = 4_096.0;
/// Process groups have this many series.
const OF_A_PROCESS: usize = 5;

/// So many series that the visitor makes the last subject.
fn load() -> Load {
    let subjects = |series| {
        let load = Load::made_up(1, series);
        let tick = (0..160).max_by_key(|tick| rows_at(&load, *tick).len()).expect("there are ticks");
        let mut subjects: Vec<_> = rows_at(&load, tick);
        subjects.sort();
        subjects.dedup();
        subjects.len()
    };
    let some = 1_000;
    let series = some + (SUBJECTS_MAX - subjects(some)) * OF_A_PROCESS;
    assert_eq!(subjects(series), SUBJECTS_MAX);
    assert!(series + OF_A_PROCESS <= SERIES_MAX, "{series} series");
    Load::made_up(1, series)
}

fn rows_at(load: &Load, tick: u64) -> Vec<String> {
    let sample = load.host(0, Epoch(1)).sample(tick, MonoMs(0), WallMs(0));
    sample.rows().iter().map(|(subject, ..)| subject.to_string()).collect()
}

/// Folded by hand: when the slot began, and the least, the greatest, the mean and the last of what is in it.
fn folded(points: &[(WallMs, f64)], slot_ms: i64) -> Vec<(WallMs, [f64; 4])> {
    let slot = |at: WallMs| at.0.div_euclid(slot_ms);
    let fold = |points: &[(WallMs, f64)]| {
        let values = || points.iter().map(|(_, value)| *value);
        let (min, max) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        #[expect(clippy::cast_precision_loss, reason = "a count of ticks")]
        let mean = values().sum::<f64>() / points.len() as f64;
        (WallMs(slot(points[0].0) * slot_ms), [min, max, mean, points[points.len() - 1].1])
    };
    points.chunk_by(|a, b| slot(a.0) == slot(b.0)).map(fold).collect()
}

#[test]
fn a_node_with_all_the_subjects_that_it_may_have_is_sealed_and_answered_like_any_other() {
    let rig = Rig::new(1);
    let load = load();
    let hour = WallMs(now().0 - now().0.rem_euclid(HOUR_MS));
    // Two hours that are merged, and what there is of a third.
    let until = hour.plus(600_000).min(now().plus(-60_000));
    let history = History { nodes: 1, ticks: 270, interval_ms: 30_000, until, load, ahead_ms: vec![] };
    let past = write(&rig.state, &rig.fleet, &history).expect("the collector has stopped");
    let collector = rig.start();
    let live = rig.play(2, history.load.series, 6.0);
    rig.wait_sealed(&collector);
    let files = Files::list(&rig.state.join("window")).expect("it can be listed");
    for level in Level::ALL {
        assert!(files.of(level).any(|name| name.span == Span::Hour), "{}: {files:?}", level.as_str());
    }

    let (from, to) = (hour.plus(-HOUR_MS), hour.plus(-1));
    let range = [("from", rfc3339(from)), ("to", rfc3339(to))];
    let asked = |metric: &str, more: &[(&str, &str)]| {
        let mut query = vec![("metric", metric)];
        let missing = range.iter().filter(|(key, _)| more.iter().all(|(given, _)| given != key));
        query.extend(missing.map(|(key, value)| (*key, value.as_str())));
        query.extend(more);
        rig.series(0, &query)
    };
    // The agent ticks faster by now, so that there is a gap behind each point; half an hour of them may be asked for.
    let half = from.plus(HOUR_MS / 2);
    for metric in ["process_memory_bytes", "process_cpu_seconds", "host_load1"] {
        let sent = within(sent(&history, &host(&history, 0), metric), (half, to));
        let found = asked(metric, &[("counter", "value"), ("resolution", "full"), ("from", &rfc3339(half))]);
        let found: Vec<_> = found.iter().map(|series| (series.subject.clone(), points(series))).collect();
        assert_eq!(found.len(), sent.len(), "{metric}");
        assert!(found == sent, "{metric} is what was sent");
    }
    let sent = within(sent(&history, &host(&history, 0), "process_memory_bytes"), (from, to));
    assert!(sent.len() > SUBJECTS_MAX - 20, "{} subjects", sent.len());
    for (resolution, slot_ms) in [("5m", 300_000), ("1h", HOUR_MS)] {
        for (at, fold) in ["min", "max", "mean", "last"].into_iter().enumerate() {
            let found =
                asked("process_memory_bytes", &[("resolution", resolution), ("step", resolution), ("fold", fold)]);
            let within = if fold == "mean" { MEAN_WITHIN } else { 0.0 };
            assert_eq!(found.len(), sent.len(), "{resolution} {fold}");
            for (series, (subject, sent)) in found.iter().zip(&sent) {
                let (found, sent) = (points(series), folded(sent, slot_ms));
                let is_same = found.len() == sent.len()
                    && found.iter().zip(&sent).all(|(a, b)| a.0 == b.0 && (a.1 - b.1[at]).abs() <= within);
                assert!(
                    *subject == series.subject && is_same,
                    "{subject} {resolution} {fold}: {found:?}, not {sent:?}"
                );
            }
        }
    }
    let usage = collector.usage().expect("it runs");
    eprintln!("{} series in {SUBJECTS_MAX} subjects: {} KiB at most", history.load.series, usage.rss_peak_kib);
    assert!(usage.rss_peak_kib < RSS_KIB_MAX, "{} KiB", usage.rss_peak_kib);
    end(collector);
    let report = rig.verify(&[past, live]);
    assert!(report.frames > history.ticks, "{report:?}");
}

fn within(
    mut sent: Vec<(String, Vec<(WallMs, f64)>)>,
    (from, to): (WallMs, WallMs),
) -> Vec<(String, Vec<(WallMs, f64)>)> {
    sent.iter_mut().for_each(|(_, points)| points.retain(|(at, _)| (from..=to).contains(at)));
    sent.retain(|(_, points)| !points.is_empty());
    sent
}
