//! A past that is made up, and what rules would have said of it.

use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::metric::{Kind, OpenMetric, Step, Unit, by_name};
use dunlin_shared::rule::file::parse;
use dunlin_shared::sample::ABSENT;

use super::*;
use crate::block::{Column, Row};

const TICK_MS: i64 = 10_000;
const FROM: WallMs = WallMs(1_000_000_000);

fn rules(text: &str) -> Vec<Arc<Rule>> {
    parse("a.toml", text).expect("right").into_iter().map(Arc::new).collect()
}

fn rule(name: &str, when: &str, more: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nwhen = '{when}'\nsummary = \"s\"\n{more}\n")
}

fn whose() -> Whose {
    let labels = [("role".to_owned(), "db".to_owned())].into();
    Whose { id: NodeId::v7(1, [1; 10]), labels: Arc::new(labels), interval_ms: 10_000 }
}

/// Rows from a tick on, a value of a metric for each.
fn stretch(first: i64, metric: &str, subject: &str, values: &[Option<f64>]) -> Stretch {
    let subject = Subject::parse(subject).expect("a subject");
    let (measure, step) = match by_name(metric) {
        Some(metric) => (Measure::Catalogued(metric.id), metric.step),
        None => {
            let own = OpenMetric::new(metric, Unit::Count, Kind::Gauge, Step::Per(1_000)).expect("a name");
            (Measure::Open(own), Step::Per(1_000))
        }
    };
    let row = |at: i64| Row {
        time: FROM.plus(at * TICK_MS),
        epoch: Epoch(1),
        seq: Seq(u64::try_from(at + 10_000).expect("positive")),
        mono: MonoMs(u64::try_from((at + 10_000) * TICK_MS).expect("positive")),
    };
    let rows = (first..).take(values.len()).map(row).collect();
    let values = values.iter().map(|value| value.and_then(|value| step.quantise(value)).unwrap_or(ABSENT)).collect();
    Stretch { rows, columns: vec![Column { subject, measure, values }] }
}

fn values(parts: &[(usize, f64)]) -> Vec<Option<f64>> {
    parts.iter().flat_map(|(count, value)| vec![Some(*value); *count]).collect()
}

fn times(firings: &[Firing]) -> Vec<(&str, i64, i64, Option<i64>)> {
    let tick = |at: WallMs| at.since(FROM) / TICK_MS;
    let one = |firing| {
        let Firing { subject, began, fired, resolved, .. }: &Firing = firing;
        (&**subject, tick(*began), tick(*fired), resolved.map(tick))
    };
    firings.iter().map(one).collect()
}

#[test]
fn what_held_for_long_enough_fires_when_it_did_and_is_resolved_when_it_ended() {
    let rules = rules(&rule("busy", "host_load1 > 8", "for = \"1m\""));
    let values = values(&[(10, 1.0), (3, 9.0), (7, 1.0), (20, 9.5), (10, 1.0)]);
    let past = [stretch(0, "host_load1", "host", &values)];
    let firings = judge(&rules, &whose(), &past, (FROM, FROM.plus(50 * TICK_MS)));
    assert_eq!(times(&firings), [("host", 20, 26, Some(40))]);
    assert_eq!((firings[0].value, firings[0].threshold), (Some(9.5), Some(8.0)));
}

#[test]
fn a_past_in_pieces_that_came_late_is_judged_in_the_order_in_which_it_was_measured() {
    let rules = rules(&rule("busy", "avg(x_queue, 1m) > 8", ""));
    let whole = [stretch(0, "x_queue", "container:a", &values(&[(20, 1.0), (20, 9.5), (20, 1.0)]))];
    let late = [
        stretch(0, "x_queue", "container:a", &values(&[(20, 1.0)])),
        stretch(40, "x_queue", "container:a", &values(&[(20, 1.0)])),
        stretch(20, "x_queue", "container:a", &values(&[(20, 9.5)])),
    ];
    let range = (FROM, FROM.plus(60 * TICK_MS));
    let expected = judge(&rules, &whose(), &whole, range);
    assert_eq!(expected.len(), 1);
    assert_eq!(judge(&rules, &whose(), &late, range), expected);
}

#[test]
fn what_began_before_the_time_is_known_by_what_lies_before_it() {
    let rules = rules(&rule("busy", "host_load1 > 8", "for = \"5m\""));
    assert_eq!(lead_ms(&rules), 300_000);
    let past = [stretch(-60, "host_load1", "host", &values(&[(75, 9.0), (20, 1.0)]))];
    let firings = judge(&rules, &whose(), &past, (FROM, FROM.plus(50 * TICK_MS)));
    assert_eq!(times(&firings), [("host", -30, 0, Some(15))]);
    // What was over before it is not told.
    let past = [stretch(-60, "host_load1", "host", &values(&[(59, 9.0), (20, 1.0)]))];
    assert_eq!(judge(&rules, &whose(), &past, (FROM, FROM.plus(50 * TICK_MS))), []);
}

#[test]
fn what_still_fires_at_the_end_has_no_end_and_a_silent_node_begins_anew() {
    let rules = rules(&rule("busy", "host_load1 > 8", "for = \"2m\""));
    let past = [
        stretch(0, "host_load1", "host", &values(&[(10, 9.0)])),
        stretch(20, "host_load1", "host", &values(&[(20, 9.0)])),
    ];
    let firings = judge(&rules, &whose(), &past, (FROM, FROM.plus(60 * TICK_MS)));
    assert_eq!(times(&firings), [("host", 20, 32, None)], "what was pending when it fell silent is dropped");
}

#[test]
fn rules_are_on_the_nodes_and_subjects_that_they_name_alone() {
    let text = [
        rule("other", "fs_used_ratio > 50%", "where = { role = \"web\" }"),
        rule("var", "fs_used_ratio > 50%", "subject = \"fs:/var*\""),
    ];
    let rules = rules(&text.concat());
    let metric = |name: &str| Measure::Catalogued(by_name(name).expect("there").id);
    let subject = |text: &str| Subject::parse(text).expect("a subject");
    assert!(is_read(&rules[1..], &subject("fs:/var/lib"), &metric("fs_used_ratio")));
    assert!(!is_read(&rules[1..], &subject("fs:/home"), &metric("fs_used_ratio")));
    assert!(!is_read(&rules, &subject("host"), &metric("host_load1")));
    let past = |of: &str| stretch(0, "fs_used_ratio", of, &values(&[(9, 0.6), (9, 0.1)]));
    let firings = judge(&rules, &whose(), &[past("fs:/var/lib"), past("fs:/home")], (FROM, FROM.plus(18 * TICK_MS)));
    assert_eq!(times(&firings), [("fs:/var/lib", 0, 0, Some(9))]);
}

#[test]
fn what_the_collector_alone_knows_is_said_plainly() {
    let why = |when: &str| unfit(&rules(&rule("a", when, ""))[0]);
    assert_eq!(why("host_load1 > 8"), None);
    assert_eq!(
        why("node_state == down").as_deref(),
        Some("node_state is known to the collector alone, and its past is not kept")
    );
    let two = why("container_health == unhealthy and container_state == running").expect("it is unfit");
    assert!(two.starts_with("container_health, container_state are known"), "{two}");
}
