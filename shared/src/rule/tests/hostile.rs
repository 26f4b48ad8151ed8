//! Any text at all: read or refused, never a panic, and every mistake has a place in the file.

use proptest::prelude::*;

use super::*;

const PIECES: &[&str] = &[
    "host_load1",
    "fs_used_ratio",
    "x_a",
    "node_state",
    "down",
    "port_exposed",
    "avg",
    "rate",
    "count_over",
    "absent",
    "abs",
    "(",
    ")",
    ",",
    " and ",
    " or ",
    " unless ",
    ">",
    "<",
    ">=",
    "==",
    "!=",
    "=",
    "+",
    "-",
    "*",
    "/",
    "90%",
    "5m",
    "1GiB",
    "10MB/s",
    "0",
    "1",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\\",
    "#",
    "\n",
    "\r\n",
    "\t",
    "ü",
    "\u{2028}",
    "[[rule]]\n",
    "name = ",
    "when = ",
    "summary = ",
    "where = ",
    "{node}",
    "{label.",
    "'''",
    "\"\"\"",
    "\\u00e9",
    ".",
    "subject = ",
    "clear = ",
    "for = ",
];

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![9 => proptest::sample::select(PIECES).prop_map(str::to_owned), 1 => ".{0,4}"];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn judge(text: &str) -> Result<(), TestCaseError> {
    if let Err(errors) = file::parse("a.toml", text) {
        prop_assert!((1..=20).contains(&errors.len()));
        prop_assert!(errors.is_sorted_by_key(|error| (error.line, error.column)));
        for error in errors {
            let line = text.split('\n').nth(error.line - 1).unwrap_or_default();
            prop_assert!((1..=line.chars().count() + 1).contains(&error.column), "{error} of {text:?}");
            prop_assert!(!error.message.contains(char::is_control), "{error:?} would reach a terminal");
        }
    }
    Ok(())
}

/// As a basic TOML string.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|letter| match letter {
        '"' | '\\' => format!("\\{letter}"),
        _ if letter.is_control() => format!("\\u{:04x}", u32::from(letter)),
        _ => letter.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// A comparison that is right.
fn comparison() -> impl Strategy<Value = String> {
    let window = proptest::sample::select(vec!["10s", "90s", "5m", "1h", "24h"]);
    let operator = proptest::sample::select(vec![">", "<"]);
    let pair = proptest::sample::select(vec![
        ("host_memory_used_ratio", "50%"),
        ("fs_used_ratio", "0.9"),
        ("host_load1 / host_cpu_cores", "2"),
        ("fs_total_bytes - fs_used_bytes", "1.5GiB"),
        ("max(host_load5, W)", "4"),
        ("rate(host_swap_in_bytes, W)", "10MB/s"),
        ("delta(host_oom_kills, W)", "3"),
        ("rate(host_pressure_io_full_seconds, W)", "10%"),
        ("abs(node_skew_seconds)", "5s"),
        ("host_temperature_celsius * 1.1", "90"),
        ("count_over(fs_inodes_used_ratio > 90%, W)", "5"),
        ("changes(node_state, W)", "3"),
        ("avg(x_queue, W) * -2", "7m"),
    ]);
    (pair, operator, window)
        .prop_map(|((left, right), operator, window)| format!("{} {operator} {right}", left.replace('W', window)))
}

fn condition() -> impl Strategy<Value = String> {
    let test = prop_oneof![
        8 => comparison(),
        1 => Just(String::from("node_state != maintenance")),
        1 => Just(String::from("absent(fs_used_ratio, 5m)")),
    ];
    test.prop_recursive(3, 8, 2, |inner| {
        let by = proptest::sample::select(vec!["and", "or", "unless"]);
        (inner.clone(), by, inner).prop_map(|(left, by, right)| format!("({left}) {by} {right}"))
    })
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused(text in pieces()) {
        judge(&text)?;
        judge(&format!("[[rule]]\nname = \"a\"\nsummary = \"x\"\nwhen = 'host_load1 > 4'\n{text}"))?;
    }

    #[test]
    fn any_text_of_a_rule_is_read_or_refused(when in pieces(), clear in pieces(), summary in pieces(), plain: String) {
        let (when, clear, summary) = (quoted(&when), quoted(&clear), quoted(&summary));
        judge(&format!("[[rule]]\nname = \"a\"\nwhen = {when}\nclear = {clear}\nsummary = {summary}\n"))?;
        let plain = quoted(&plain);
        judge(&format!("[[rule]]\nname = {plain}\nwhen = {plain}\nsummary = {plain}\nsubject = {plain}\nfor = {plain}\n"))?;
    }

    #[test]
    fn a_right_rule_is_accepted(when in condition(), value: f64) {
        let rule = accepted(&when);
        let values = vec![value; rule.terms.len()];
        let judged = rule.when.judge(&values);
        prop_assert_eq!(judged, rule.when.judge(&values));
        let (shown, threshold) = rule.when.shown(&values);
        let fields = Fields {
            node: "n",
            subject: "fs:/var",
            rule: &rule.name,
            severity: rule.severity,
            value: shown,
            threshold,
            shown_as: &rule.shown_as,
            for_ms: rule.for_ms,
            label: &|_| None,
        };
        prop_assert_eq!(rule.summary.render(&fields), "a");
        prop_assert!(rule.shown_as.write(value).len() < 40);
    }
}
