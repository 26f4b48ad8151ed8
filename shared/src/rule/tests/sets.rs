//! Sets of rules: one layer over another, names that stand once, and as many rules as there may be.

use super::*;
use crate::limits::RULES_MAX;

fn rule(name: &str, threshold: u32) -> String {
    format!("[[rule]]\nname = \"{name}\"\nwhen = 'host_load1 > {threshold}'\nsummary = \"{{node}} is busy\"\n\n")
}

fn files(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn refused(shipped: &[(&str, &str)], own: &[(&str, &str)]) -> Vec<String> {
    RuleSet::of(&files(shipped), &files(own)).expect_err("a mistake").iter().map(ToString::to_string).collect()
}

#[test]
fn an_own_rule_takes_the_place_of_the_shipped_one_that_has_its_name() {
    let shipped = rule("busy", 4) + &rule("away", 5) + &rule("calm", 6);
    let own = rule("busy", 40) + "[[rule]]\nname = \"away\"\nenabled = false\n\n" + &rule("extra", 7);
    let set = RuleSet::of(&files(&[("shipped.toml", &shipped)]), &files(&[("own.toml", &own)])).expect("right");
    let names: Vec<&str> = set.rules().iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["away", "busy", "calm", "extra"]);
    let threshold = |name: &str| set.by_name(name).and_then(|rule| rule.when.shown(&[0.0]).1);
    assert_eq!((threshold("busy"), threshold("calm"), threshold("none")), (Some(40.0), Some(6.0), None));
    let enabled: Vec<bool> = set.rules().iter().map(|rule| rule.is_enabled).collect();
    assert_eq!(enabled, [false, true, true, true]);
    assert_eq!(set.by_name("busy").map(|rule| &*rule.place.file), Some("own.toml"));
}

#[test]
fn two_rules_of_one_name_are_told_with_both_places() {
    let twice = rule("busy", 4) + &rule("busy", 5);
    assert_eq!(refused(&[], &[("a.toml", &twice)]), ["a.toml:7:8: two rules are named busy; the other is at a.toml:2"]);
    let one = rule("busy", 4);
    let said = ["b.toml:2:8: two rules are named busy; the other is at a.toml:2"];
    assert_eq!(refused(&[], &[("a.toml", &one), ("b.toml", &one)]), said);
}

#[test]
fn what_is_not_there_cannot_be_switched_off() {
    let off = "[[rule]]\nname = \"bussy\"\nenabled = false\n";
    let none = "no rule named bussy comes with the collector, so there is none to switch off";
    let shipped = rule("busy", 4);
    let near = format!("a.toml:2:8: {none}; did you mean busy?");
    assert_eq!(refused(&[("s.toml", &shipped)], &[("a.toml", off)]), [near]);
    assert_eq!(refused(&[], &[("a.toml", off)]), [format!("a.toml:2:8: {none}; write its when and summary")]);
    let errors = file::parse("a.toml", off).expect_err("by itself it is no rule");
    let when = "a.toml:2:8: the rule bussy has no when; write when = 'host_memory_used_ratio > 90%'";
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), [when]);
}

#[test]
fn a_file_of_nothing_but_mistakes_is_soon_refused() {
    let keys: String = (0..200_000).map(|n| format!("k{n} = 1\n")).collect();
    let labels: Vec<String> = (0..200_000).map(|n| format!("K{n} = 1")).collect();
    for text in [
        keys.clone(),
        format!("[[rule]]\n{keys}"),
        format!("[[rule]]\nwhere = {{ {} }}\n", labels.join(", ")),
        "[[rule]]\n".repeat(100_000),
        "= = =\n".repeat(100_000),
        (0..9_000).map(|n| format!("[[rule]]\nname = \"off-{n}\"\nenabled = false\n")).collect(),
    ] {
        let shipped: String = (0..1_000).map(|n| rule(&format!("busy-{n}"), 4)).collect();
        assert_eq!(refused(&[("s.toml", &shipped)], &[("a.toml", &text)]).len(), 20);
    }
}

#[test]
fn a_set_with_a_mistake_anywhere_is_none() {
    let right = rule("busy", 4);
    let wrong = rule("calm", 4).replace("host_load1", "host_lod1");
    let said = ["b.toml:3:9: when: unknown metric \"host_lod1\"; did you mean host_load1?"];
    assert_eq!(refused(&[], &[("a.toml", &right), ("b.toml", &wrong)]), said);
}

#[test]
fn ten_thousand_rules_are_a_set_and_one_more_is_none() {
    let text: String = (0..RULES_MAX).map(full).collect();
    let all = [(String::from("a.toml"), text)];
    let set = timed(|| RuleSet::of(&[], &all)).expect("right");
    assert_eq!(set.rules().len(), RULES_MAX);
    assert_eq!(set.by_name("rule-9999").map(|rule| rule.place.line), Some(14 * 9_999 + 2));
    let [(_, text)] = all;
    let errors = RuleSet::of(&[], &[(String::from("a.toml"), text + &rule("more", 4))]).expect_err("one too many");
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["a.toml:140001:1: there are more than 10000 rules; the rest has no room"]);
    let halves = |file: &str, from: usize| (file.to_owned(), (from..from + 6_000).map(full).collect::<String>());
    let errors = RuleSet::of(&[halves("s.toml", 0)], &[halves("a.toml", 6_000)]).expect_err("too many together");
    assert!(errors.iter().all(|error| error.message == "12000 rules are too many; the limit is 10000"), "{errors:?}");
}

/// Told for whoever measures: how long a machine takes is no matter of right and wrong.
#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test may see how long it takes")]
fn timed<T>(work: impl FnOnce() -> T) -> T {
    let begun = std::time::Instant::now();
    let done = work();
    println!("{RULES_MAX} rules: {:?}", begun.elapsed());
    done
}

/// A rule with everything that it may have.
fn full(n: usize) -> String {
    format!(
        r#"[[rule]]
name = "rule-{n}"
when = 'avg(fs_used_ratio, 5m) > {}% and fs_available_bytes < 2GiB unless node_state == maintenance'
for = "5m"
clear = 'avg(fs_used_ratio, 5m) < 50%'
severity = "critical"
where = {{ role = "web-*", env = "prod" }}
subject = ["fs:/var*", "fs:/srv"]
summary = "{{node}}: {{subject}} has used {{value}} of its space for {{for}}, more than {{threshold}} ({{label.role}})"
summary_zh = "{{node}} 的 {{subject}} 已用 {{value}}"
runbook = "https://wiki.example.net/disk"
enabled = true
keep_firing_for = "2m"

"#,
        60 + n % 40
    )
}
