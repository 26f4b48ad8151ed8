//! The language as an operator meets it: what is accepted, and what it means.

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
