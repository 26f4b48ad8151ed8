//! What ends an alert: a condition of its own, or the other side of what began it, and never both at once.

use super::*;

fn with_clear(when: &str, clear: &str) -> Result<Rule, Vec<String>> {
    let text = format!("[[rule]]\nname = \"a\"\nwhen = '{when}'\nclear = '{clear}'\nsummary = \"x\"\n");
    let rules = file::parse("a.toml", &text);
    rules
        .map(|mut rules| rules.pop().expect("one rule"))
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn refused(when: &str, clear: &str, at: usize, message: &str) {
    let said = with_clear(when, clear).expect_err("a mistake");
    assert_eq!(said, [format!("a.toml:4:{}: clear: {message}", at + 10)], "{when}, {clear}");
}

#[test]
fn a_short_end_takes_the_left_side_of_its_beginning() {
    let rule = with_clear("avg(host_memory_used_ratio, 5m) > 90%", "< 85%").expect("right");
    let Some(Test::Compare { left, operator, right }) = &rule.clear else { panic!("{rule:?}") };
    assert_eq!((left, *operator, right), (&Value::Term(0), Operator::Less, &Value::Number(0.85)));
    assert_eq!(rule.terms.len(), 1);
    let rule = with_clear("90% < host_memory_used_ratio", "<= 90%").expect("the exact opposite is right");
    assert_eq!(rule.when.first(), (&Value::Term(0), Operator::Greater, &Value::Number(0.9)));
    let rule = with_clear("node_state == down", "== up").expect("a word is compared with a word");
    assert_eq!(rule.clear.map(|clear| clear.judge(&[1.0])), Some(Verdict::Holds));
}

#[test]
fn a_whole_end_reads_the_same_subject() {
    let rule = with_clear("fs_used_ratio > 90%", "fs_used_ratio < 80% and fs_available_bytes > 1GiB").expect("right");
    assert_eq!((rule.terms.len(), rule.scope), (2, Scope::Kind(SubjectKind::Fs)));
    with_clear("fs_used_ratio > 90%", "host_load1 < 4").expect("what the node has one of stands beside it");
    refused(
        "host_load1 > 4",
        "host_load1 < 2 and fs_used_ratio < 50%",
        0,
        "when is about the node and clear about each file system; both are about the same",
    );
    refused(
        "fs_used_ratio > 90%",
        "disk_in_flight < 3",
        0,
        "fs_used_ratio is of each file system and disk_in_flight of each disk; a rule is about one of them",
    );
}

#[test]
fn an_end_that_may_hold_at_once_with_the_beginning_is_refused() {
    let said = |when: &str, write: &str| format!("it may hold while when does, which says {when}; write {write}");
    refused("host_memory_used_ratio > 90%", "< 95%", 0, &said("> 90%", "\"<= 90%\" or less"));
    refused("host_memory_used_ratio >= 90%", "<= 90%", 0, &said(">= 90%", "\"< 90%\" or less"));
    refused("host_memory_used_ratio > 90%", "host_memory_used_ratio < 95%", 0, &said("> 90%", "\"<= 90%\" or less"));
    refused("host_memory_available_bytes < 1GiB", "> 512MiB", 0, &said("< 1GiB", "\">= 1GiB\" or more"));
    refused("host_memory_used_ratio > 90%", "> 95%", 0, &said("> 90%", "\"<= 90%\" or less"));
    refused("node_state == down", "!= up", 0, &said("== down", "\"!= down\""));
    refused(
        "host_load1 >= host_cpu_cores",
        "host_load1 <= host_cpu_cores",
        0,
        &said(">= host_cpu_cores", "\"< host_cpu_cores\" or less"),
    );
    let same = "it is what when says; say what ends the alert";
    refused("host_memory_used_ratio > 90%", "host_memory_used_ratio > 90%", 0, same);
    with_clear("host_memory_used_ratio >= 90%", "< 90%").expect("they never hold at once");
    with_clear("node_state != up", "== up").expect("they never hold at once");
}

#[test]
fn a_short_end_has_a_number_that_fits() {
    refused("host_memory_used_ratio > 90%", "< 85", 2, "a ratio is at most 1; write 85%");
    refused("host_memory_used_bytes > 1GiB", "< 5m", 2, "bytes and seconds do not go together");
    refused("host_load1 > 4", "< host_cpu_cores", 2, "behind the operator stands a number, or write a whole condition");
    refused("node_state == down", "== upp", 3, "\"upp\" is no word of node_state; did you mean up?");
    refused("node_state == down", "< up", 0, "node_state is one of its words; write == or !=");
    let several = "when is more than one comparison; write a whole condition, like host_load1 < 4";
    refused("host_load1 > 4 or host_load5 > 4", "< 2", 0, several);
    refused("absent(host_load1, 5m)", "< 2", 0, several);
}
