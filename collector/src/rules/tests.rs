//! Files and sets together: what counts, what is left out, and what another text changes.

use std::sync::Arc;

use dunlin_shared::time::WallMs;

use super::*;

fn rule(name: &str, more: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nwhen = 'host_load1 > 8'\nsummary = \"s\"\n{more}\n")
}

fn set(text: &str) -> NamedSet {
    NamedSet { text: text.into(), by: "ann".to_owned(), at: WallMs(1) }
}

fn sets(all: &[(&str, &str)]) -> Sets {
    all.iter().map(|(name, text)| ((*name).to_owned(), Arc::new(set(text)))).collect()
}

fn files(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn origin(book: &RuleBook, name: &str) -> String {
    book.rule(name).map_or_else(|| "none".to_owned(), |rule| Origin::of(rule).to_string())
}

#[test]
fn a_rule_says_where_it_comes_from() {
    let book = RuleBook::default().with_files(files(&[("/etc/rules.d/a.toml", &rule("a", ""))])).expect("right");
    let book = book.put("web", set(&format!("\n{}", rule("b", "")))).expect("right");
    assert_eq!(origin(&book, "a"), "file /etc/rules.d/a.toml:2");
    assert_eq!(origin(&book, "b"), "set web:3");
    assert_eq!(origin(&book, "node-down"), "shipped");
    assert_eq!((book.number, book.count_of("web")), (2, 1));
}

#[test]
fn a_set_is_put_whole_or_not_at_all_with_the_place_of_both() {
    let book = RuleBook::default().with_files(files(&[("d/a.toml", &rule("a", ""))])).expect("right");
    let book = book.put("zoo", set(&rule("z", ""))).expect("right");
    let clash = book.put("web", set(&format!("{}{}", rule("b", ""), rule("a", "")))).expect_err("it clashes");
    assert_eq!(clash, ["web:7:8: two rules are named a; the other is at d/a.toml:2"]);
    // Also with a set whose name is behind its own.
    let clash = book.put("web", set(&rule("z", ""))).expect_err("it clashes");
    assert_eq!(clash, ["web:2:8: two rules are named z; the other is at zoo:2"]);
    let wrong = book.put("web", set(&rule("b", "form = \"5m\""))).expect_err("it is wrong");
    assert!(wrong[0].starts_with("web:5:1: unknown key \"form\""), "{wrong:?}");
    // Itself is no clash.
    let again = book.put("zoo", set(&rule("z", "for = \"5m\""))).expect("right");
    assert_eq!(again.rule("z").map(|rule| rule.for_ms), Some(300_000));
    assert!(book.without("nobody").is_none());
    assert_eq!(origin(&book.without("zoo").expect("there"), "z"), "none");
}

#[test]
fn what_does_not_go_with_files_is_left_out_by_itself_and_counts_again_when_it_does() {
    let all = [("bad", "[[rule"), ("clash", &*rule("a", "")), ("good", &*rule("g", ""))];
    let book = RuleBook::default().with_files(files(&[("d/a.toml", &rule("a", ""))])).expect("right");
    let book = book.with_sets(sets(&all));
    assert_eq!(book.left_out.keys().collect::<Vec<_>>(), ["bad", "clash"]);
    assert!(book.left_out["clash"][0].contains("d/a.toml:2"), "{:?}", book.left_out);
    assert_eq!((origin(&book, "a"), origin(&book, "g")), ("file d/a.toml:2".to_owned(), "set good:2".to_owned()));
    let moved = book.with_files(Vec::new()).expect("right");
    assert_eq!(moved.left_out.keys().collect::<Vec<_>>(), ["bad"]);
    assert_eq!(origin(&moved, "a"), "set clash:2");
    // A set that is put anew is no more left out, and another goes with it meanwhile.
    let mended = moved.put("bad", set(&rule("b", ""))).expect("right");
    assert!(mended.left_out.is_empty() && mended.rule("b").is_some());
    let more = book.put("more", set(&rule("m", ""))).expect("right");
    assert_eq!((more.left_out.len(), origin(&more, "m")), (2, "set more:2".to_owned()));
    assert!(book.with_files(files(&[("d/a.toml", "[[rule")])).is_err(), "files must be right");
}

#[test]
fn a_difference_names_what_is_other_and_not_the_line_on_which_it_stands() {
    let book = RuleBook::default().put("web", set(&[rule("a", ""), rule("b", ""), rule("c", "")].concat()));
    let book = book.expect("right");
    let text = ["\n\n".to_owned(), rule("b", ""), rule("c", "for = \"90s\"\nsubject = \"host\""), rule("d", "")];
    let next = book.put("web", set(&text.concat())).expect("right");
    let difference = Difference::between(&book, &next);
    let names =
        |rules: &[Arc<dunlin_shared::rule::Rule>]| rules.iter().map(|rule| rule.name.to_string()).collect::<Vec<_>>();
    assert_eq!((names(&difference.added), names(&difference.removed)), (vec!["d".to_owned()], vec!["a".to_owned()]));
    let [changed] = difference.changed.as_slice() else { panic!("{difference:?}") };
    let fields: Vec<_> = changed.fields.iter().map(|field| (field.field, &*field.before, &*field.after)).collect();
    assert_eq!(fields, [("for", "\"0s\"", "\"90s\""), ("subject", "", "\"host\"")]);
    assert_eq!(difference.counts(), "1 added, 1 changed, 1 removed");
    let same = Difference::between(&next, &next.put("web", set(&text.concat())).expect("right"));
    assert!(same.is_empty() && same.unchanged == next.rules.len());
    // What ships is switched off, or has another take its place.
    let off = book.put("off", set("[[rule]]\nname = \"node-down\"\nenabled = false\n")).expect("right");
    let difference = Difference::between(&book, &off);
    assert_eq!(difference.changed[0].fields[0].field, "enabled");
}

#[test]
fn a_set_has_a_name_that_no_file_has() {
    for right in ["web", "Web_1", "a", "0-a", &"a".repeat(63)] {
        assert!(is_set_name(right), "{right}");
    }
    for wrong in ["", "-a", "_a", "a.toml", "a/b", "a b", "é", "standard.toml", &"a".repeat(64)] {
        assert!(!is_set_name(wrong), "{wrong}");
    }
}

#[test]
fn sets_have_a_bound() {
    let mut book = RuleBook::default();
    for number in 0..dunlin_shared::limits::RULE_SETS_MAX {
        book = book.put(&format!("s{number}"), set(&rule(&format!("r{number}"), ""))).expect("right");
    }
    let many = book.put("more", set(&rule("more", ""))).expect_err("there is no room");
    assert!(many[0].starts_with("more: there are 100 sets"), "{many:?}");
    assert!(book.put("s7", set(&rule("r7", ""))).is_ok(), "another text of one needs none");
}

#[test]
fn durations_are_written_as_a_person_would() {
    let written = [0, 1, 250, 1_000, 90_000, 300_000, 7_200_000, 604_800_000].map(duration);
    assert_eq!(written, ["0s", "1ms", "250ms", "1s", "90s", "5m", "2h", "7d"]);
}
