//! Files of rules: read, or refused with few messages that fit a screen and a terminal, each with a place in the file.
//! What is read is judged on any values, and says of them what it says of them again.
#![no_main]

use dunlin_shared::rule::{Fields, Rule, RuleSet, file};
use libfuzzer_sys::fuzz_target;

const ERRORS_MAX: usize = 20;

fuzz_target!(|data: &[u8]| {
    let Some((&which, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    // The same as a whole file, or as a condition: a fuzzer seldom finds quotes that fit.
    let file = match which % 3 {
        0 => text.to_owned(),
        1 => format!("[[rule]]\nname = \"a\"\nsummary = \"{{value}}\"\nwhen = '''\n{}'''\n", text.replace("''", "")),
        _ => format!(
            "[[rule]]\nname = \"a\"\nwhen = 'fs_used_ratio > 90%'\nclear = '''{0}'''\nsummary = '''{0}'''\n",
            text.replace("''", "")
        ),
    };
    match file::parse("a.toml", &file) {
        Ok(rules) => rules.iter().for_each(judge),
        Err(errors) => {
            assert!((1..=ERRORS_MAX).contains(&errors.len()), "{} errors", errors.len());
            for error in errors {
                let line = file.split('\n').nth(error.line - 1).expect("a line of the file");
                assert!((1..=line.chars().count() + 1).contains(&error.column), "{error} is in no line");
                assert!(error.message.len() <= 2_000, "{} bytes in a line", error.message.len());
                assert!(!error.to_string().chars().any(char::is_control), "{error:?} would reach a terminal");
            }
        }
    }
    let files = [("a.toml".to_owned(), file)];
    if let Ok(set) = RuleSet::of(&files, &files) {
        assert!(set.rules().is_sorted_by(|one, other| one.name < other.name));
        assert!(set.rules().iter().all(|rule| set.by_name(&rule.name) == Some(rule)));
    }
});

fn judge(rule: &Rule) {
    for value in [0.0, 1.0, -3.5, 1e300, f64::NAN] {
        let values = vec![value; rule.terms.len()];
        assert_eq!(rule.when.judge(&values), rule.when.judge(&values));
        let (shown, threshold) = rule.when.shown(&values);
        let text = rule.summary.render(&Fields {
            node: "node",
            subject: "fs:/var",
            rule: &rule.name,
            severity: rule.severity,
            value: shown,
            threshold,
            shown_as: &rule.shown_as,
            for_ms: rule.for_ms,
            label: &|_| Some("label"),
        });
        assert!(!text.is_empty() && !text.chars().any(char::is_control));
    }
    assert!(rule.terms.len() <= 16 && rule.judges_like(rule));
}
