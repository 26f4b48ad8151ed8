//! The language as an operator meets it: what is accepted, and what it means.

mod ends;
mod files;
mod hostile;
mod refused;
mod sets;
mod shipped;
mod shown;

use super::*;

/// A rule with this condition and nothing else that it can do without.
fn with_when(when: &str) -> String {
    format!("[[rule]]\nname = \"a\"\nwhen = '{when}'\nsummary = \"{{rule}}\"\n")
}

#[track_caller]
fn accepted(when: &str) -> Rule {
    match file::parse("a.toml", &with_when(when)) {
        Ok(mut rules) => rules.pop().expect("one rule"),
        Err(errors) => panic!("{when}: {errors:?}"),
    }
}

#[test]
fn every_key_of_a_rule_is_read() {
    let text = r#"
[[rule]]
name = "memory-high"
enabled = true
when = 'host_memory_used_ratio > 90%'
for = "5m"
clear = '< 85%'
keep_firing_for = "2m"
severity = "critical"
where = { role = "basic-*" }
subject = "host"
summary = "{node} uses {value} of its memory"
summary_zh = "{node} 的内存已用 {value}"
runbook = "https://wiki.example.net/memory"
"#;
    let rules = file::parse("a.toml", text).expect("a right file");
    let [rule] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!((&*rule.name, rule.is_enabled, rule.scope), ("memory-high", true, Scope::Node));
    assert_eq!((rule.for_ms, rule.keep_firing_ms, rule.severity), (300_000, 120_000, Severity::Critical));
    let compare = |operator, number| Test::Compare { left: Value::Term(0), operator, right: Value::Number(number) };
    assert_eq!(rule.when, compare(Operator::Greater, 0.9));
    assert_eq!(rule.clear, Some(compare(Operator::Less, 0.85)));
    assert_eq!((&*rule.when_text, rule.clear_text.as_deref()), ("host_memory_used_ratio > 90%", Some("< 85%")));
    assert_eq!((rule.terms.len(), rule.subjects.len(), &rule.shown_as), (1, 1, &ShownAs::Ratio));
    assert!(rule.is_on(|key| (key == "role").then_some("basic-server")) && !rule.is_on(|_| None));
    assert_eq!(rule.place, Place { file: "a.toml".into(), line: 3 });
}

#[test]
fn a_word_is_its_place_in_the_list() {
    let rule = accepted("node_state == down");
    assert_eq!(rule.when.first(), (&Value::Term(0), Operator::Equal, &Value::Number(3.0)));
    assert_eq!(rule.shown_as.write(3.0), "down");
}

#[test]
fn what_a_rule_is_about_follows_from_what_it_reads() {
    let scope = |when: &str| accepted(when).scope;
    assert_eq!(scope("host_load1 > 4 and agent_spool_frames > 5 and node_state == up"), Scope::Node);
    assert_eq!(scope("fs_used_ratio > 90% and host_load1 > 4"), Scope::Kind(SubjectKind::Fs));
    assert_eq!(scope("container_state == exited and container_oom_kills > 3"), Scope::Kind(SubjectKind::Container));
    assert_eq!(scope("port_exposed == 1"), Scope::Port);
    assert_eq!(scope("fleet_nodes_missing > 5"), Scope::Fleet);
    assert_eq!(scope("delta(collector_frames_refused, 5m) > 0"), Scope::Collector);
    assert_eq!(scope("x_queue > 5"), Scope::Any);
    assert_eq!(scope("x_queue > 5 and host_load1 > 4"), Scope::Node);
    assert_eq!(scope("x_queue > 5 and unit_failed == 1"), Scope::Kind(SubjectKind::Unit));
    let with_subject = |when: &str, subject: &str| {
        let text = format!("{}subject = {subject}\n", with_when(when));
        file::parse("a.toml", &text).expect("right").pop().expect("one rule").scope
    };
    assert_eq!(with_subject("x_queue > 5", "\"container:*\""), Scope::Kind(SubjectKind::Container));
    assert_eq!(with_subject("x_queue > 5", "[\"container:*\", \"fs:*\"]"), Scope::Any);
    assert_eq!(with_subject("x_queue > 5", "\"host\""), Scope::Node);
    assert_eq!(with_subject("port_exposed == 1", "\"port:tcp:[::]:3306\""), Scope::Port);
}

#[test]
fn operators_bind_as_tightly_as_people_expect() {
    let same = |one: &str, other: &str| assert_eq!(accepted(one).when, accepted(other).when, "{one}");
    same("host_load1 + 2 * host_load5 > 4", "(host_load1 + (2 * host_load5)) > 4");
    same("host_load1 - 1 - host_load5 > 4", "((host_load1 - 1) - host_load5) > 4");
    same("-host_load1 * 2 < -4", "((-host_load1) * 2) < (-4)");
    same(
        "host_load1 > 1 or host_load5 > 1 and host_load15 > 1 unless host_processes > 1",
        "host_load1 > 1 or ((host_load5 > 1 and host_load15 > 1) unless host_processes > 1)",
    );
    same("host_load1>1 and(host_load5>1)", "(host_load1 > 1) and (host_load5 > 1)");
    same("(host_load1) > (2 * (3 + 1))", "host_load1 > 8");
}

#[test]
fn numbers_are_read_in_their_units() {
    let threshold = |when: &str| accepted(when).when.shown(&[0.0; 16]).1;
    assert_eq!(threshold("host_memory_used_ratio > 90%"), Some(0.9));
    assert_eq!(threshold("host_memory_used_bytes > 1.5GiB"), Some(1_610_612_736.0));
    assert_eq!(threshold("host_memory_used_bytes > 2KB + 5B"), Some(2_005.0));
    assert_eq!(threshold("rate(net_sent_bytes, 1m) > 10MB/s"), Some(10_000_000.0));
    assert_eq!(threshold("rate(net_sent_packets, 1m) > 10/s"), Some(10.0));
    assert_eq!(threshold("host_uptime_seconds < 250ms"), Some(0.25));
    assert_eq!(threshold("host_uptime_seconds < 1w + 1d"), Some(691_200.0));
    assert_eq!(threshold("rate(host_pressure_io_full_seconds, 1m) > 10%"), Some(0.1));
    assert_eq!(threshold("delta(host_swap_in_bytes, 5m) > 0"), Some(0.0));
    assert_eq!(accepted("rate(net_sent_bytes, 90s) > 1MB/s").terms[0].over.map(|over| over.window_ms), Some(90_000));
}

#[test]
fn a_value_is_read_once_however_often_it_is_named() {
    let rule = accepted("avg(host_load1, 5m) > 4 and avg(host_load1, 5m) > host_load1 / 2 or host_load1 > 99");
    assert_eq!(rule.terms.len(), 2);
    let count = accepted("count_over(node_state == down, 1h) >= 3");
    let over = count.terms[0].over.map(|over| over.function);
    assert_eq!(over, Some(Function::Count { operator: Operator::Equal, than: 3.0 }));
    let absent = accepted("absent(host_load1, 5m) and node_state == up");
    assert_eq!(absent.terms[0].over, Some(Over { function: Function::Absent, window_ms: 300_000 }));
    assert_eq!(absent.when.judge(&[1.0, 1.0]), Verdict::Holds);
}
