//! What another collector exported is imported into one that is stopped; then its agents come. Both are one series, whole
//! and once, before the live frames are sealed and merged and after.

use std::collections::BTreeSet;

use dunlin_collector::store::{Files, Level, Span};
use dunlin_tests::fleet::history::{History, close_journal, write};
use dunlin_tests::fleet::load::Load;

use super::*;

const METRICS: [&str; 3] = ["host_load1", "host_context_switches", "process_memory_bytes"];
const SERIES: usize = 90;
const MINUTE_MS: i64 = 60_000;

/// Points of every series of a metric, by subject.
type Found = Vec<(String, Vec<(WallMs, f64)>)>;

fn past(ticks: u64, until: WallMs) -> History {
    let load = Load::made_up(1, SERIES);
    History { nodes: 2, ticks, interval_ms: 10_000, until, load, ahead_ms: vec![] }
}

/// A program that ends by itself and well, and what it said.
fn run(name: &str, package: &str, url: &str, arguments: &[&str]) -> String {
    let program = Program::ours(package, name).expect("it is built").args(arguments.iter().copied());
    let mut running = program.env("DUNLIN_URL", url).start().expect("it starts");
    let status = running.wait_exit(LIMIT).expect("it ends");
    assert!(status.success(), "{name} {arguments:?}: {status}: {}", running.log_text());
    running.log_text()
}

impl Rig {
    /// Another collector of the same fleet.
    fn move_to(&mut self, name: &str) {
        self.state = self.scratch.join(name);
        self.fleet.write_collector(&self.state).expect("the collector's identity");
    }

    fn export(&self, file: &str, more: &[&str]) -> String {
        let path = self.scratch.join(file).display().to_string();
        let url = format!("unix:{}", self.state.join("admin.sock").display());
        run("dunlin", "dunlin-collector", &url, &[&["metrics", "export", "--out", &path], more].concat());
        path
    }

    /// As they were counted, of all that there is.
    fn all(&self, metric: &str, from: WallMs) -> Found {
        let found = self
            .series(0, &[("metric", metric), ("counter", "value"), ("from", &rfc3339(from)), ("resolution", "full")]);
        found.iter().map(|series| (series.subject.clone(), points(series))).collect()
    }

    /// Slots of a resolution, by subject.
    fn rolled(&self, metric: &str, from: WallMs, resolution: &str) -> Found {
        let query = [
            ("metric", metric),
            ("from", &rfc3339(from)),
            ("resolution", resolution),
            ("step", resolution),
            ("fold", "max"),
        ];
        self.series(0, &query).iter().map(|series| (series.subject.clone(), points(series))).collect()
    }

    fn spans(&self, level: Level) -> BTreeSet<Span> {
        let files = Files::list(&self.state.join("window")).expect("it can be listed");
        files.of(level).map(|name| name.span).collect()
    }
}

/// What was measured in both pasts, and nothing but that up to the end of the second.
fn judge(found: &Found, metric: &str, (first, second): (&History, &History)) {
    let (mut expected, more) = (sent(first, &host(first, 0), metric), sent(second, &host(second, 0), metric));
    for (subject, points) in more {
        match expected.iter_mut().find(|(known, _)| *known == subject) {
            Some((_, known)) => known.extend(points),
            None => expected.push((subject, points)),
        }
    }
    let mut found = found.clone();
    found.iter_mut().for_each(|(_, points)| points.retain(|(at, _)| *at <= second.until));
    found.retain(|(_, points)| !points.is_empty());
    expected.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.iter().all(|(_, points)| points.is_sorted_by(|a, b| a.0 < b.0)), "{metric}: each time is there once");
    assert!(found == expected, "{metric} is what was sent: {:?}, not {:?}", found.first(), expected.first());
}

#[test]
fn what_is_imported_and_what_comes_live_after_it_are_one_series_before_and_after_it_is_sealed() {
    let mut rig = Rig::new(2);
    let hour = WallMs(now().0 - now().0.rem_euclid(HOUR_MS));
    let first = past(360, hour.plus(-5 * HOUR_MS));
    write(&rig.state, &rig.fleet, &first).expect("the collector has stopped");
    let collector = rig.start();
    rig.wait_sealed(&collector);
    let files = [rig.export("all.csv", &[]), rig.export("all.om", &["--format", "openmetrics"])];
    end(collector);
    for (number, file) in files.iter().enumerate() {
        rig.move_to(&format!("imported-{number}"));
        let state = rig.state.display().to_string();
        let said = run("dunlin-collector", "dunlin-collector", "", &["import", "--state-dir", &state, file]);
        assert!(said.contains("samples of 2 nodes"), "{said}");
        // What was live for two hours since then, and agents that still are.
        let second = past(810, hour.plus(10 * MINUTE_MS).min(now().plus(-MINUTE_MS)));
        write(&rig.state, &rig.fleet, &second).expect("the collector has stopped");
        let collector = rig.start();
        rig.play(2, SERIES, 8.0);
        rig.wait_sealed(&collector);
        let from = begins(&first).plus(-MINUTE_MS);
        let answers = |rig: &Rig| {
            let all = METRICS.map(|metric| rig.all(metric, from));
            (all, rig.rolled(METRICS[0], from, "5m"), rig.rolled(METRICS[0], from, "1h"))
        };
        let before = answers(&rig);
        for (found, metric) in before.0.iter().zip(METRICS) {
            judge(found, metric, (&first, &second));
        }
        let live =
            |(_, points): &(String, Vec<(WallMs, f64)>)| points.iter().filter(|point| point.0 > second.until).count();
        assert!(live(&before.0[0][0]) >= 3, "agents that are live are there as well");
        let slots = before.1[0].1.len() + before.2[0].1.len();
        assert!(slots >= 12 + 1 + 27 + 3, "{slots} slots of both pasts");
        assert!(before.1.iter().chain(&before.2).all(|(_, slots)| slots.is_sorted_by(|a, b| a.0 < b.0)));
        assert!(rig.spans(Level::Full).is_superset(&[Span::Hour, Span::Day].into()), "imported, and merged beside it");
        end(collector);

        // The journal of the live frames is closed, and the hour that they came in ends.
        close_journal(&rig.state, now().plus(5 * MINUTE_MS)).expect("the collector has stopped");
        close_journal(&rig.state, now().plus(50 * MINUTE_MS)).expect("the collector has stopped");
        let collector = rig.start();
        rig.wait_sealed(&collector);
        let after = answers(&rig);
        assert!(after.0 == before.0, "sealing changes no answer");
        let known = |found: &Found| found.iter().map(|(_, points)| points.len()).collect::<Vec<_>>();
        assert!(known(&after.1) == known(&before.1) && known(&after.2) == known(&before.2), "nor any roll-up");
        let text = std::fs::read_to_string(rig.export("again.csv", &["--metric", METRICS[0]])).expect("it is there");
        let lines: BTreeSet<&str> =
            text.lines().map(|line| line.rsplit_once(',').map_or(line, |(key, _)| key)).collect();
        assert_eq!(lines.len(), text.lines().count(), "no sample is exported twice");
        end(collector);
    }
}
