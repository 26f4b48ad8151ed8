//! The rules that come with the collector: they are right, each says what it says in both languages, and each has its page.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const FILE: &str = "packaging/rules/standard.toml";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[track_caller]
fn shipped() -> Vec<Rule> {
    let text = fs::read_to_string(root().join(FILE)).expect("it is committed");
    file::parse(FILE, &text).unwrap_or_else(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}

#[test]
fn every_shipped_rule_speaks_both_languages_and_has_its_page() {
    for rule in shipped() {
        let name = &rule.name;
        assert!(rule.is_enabled && rule.summary_zh.is_some(), "{name}");
        let runbook = rule.runbook.as_deref().unwrap_or_default();
        assert_eq!(runbook, format!("runbooks/{name}.md"));
        let page = fs::read_to_string(root().join("docs").join(runbook)).expect("each rule has its page");
        assert!(page.starts_with(&format!("# {name}\n")), "{runbook} begins with another name");
    }
}

#[test]
fn every_page_has_its_rule_and_its_line_in_the_index() {
    let rules = shipped();
    let names: BTreeSet<String> = rules.iter().map(|rule| rule.name.to_string()).collect();
    let pages = fs::read_dir(root().join("docs/runbooks")).expect("it is committed");
    let pages: BTreeSet<String> = pages
        .filter_map(|page| page.ok()?.file_name().to_str()?.strip_suffix(".md").map(str::to_owned))
        .filter(|page| page != "README")
        .collect();
    assert_eq!(pages, names);
    let index = fs::read_to_string(root().join("docs/runbooks/README.md")).expect("it is committed");
    for Rule { name, severity, .. } in &rules {
        let line = format!("| [{name}]({name}.md) | {} |", severity.as_str());
        assert!(index.contains(&line), "the index has no line {line}");
    }
}

#[test]
fn a_page_that_has_no_address_lies_among_the_runbooks() {
    let text = |page: &str| format!("{}runbook = \"{page}\"\n", with_when("host_load1 > 4"));
    assert!(file::parse("a.toml", &text("runbooks/load-high.md")).is_ok());
    for page in ["runbooks/.md", "runbooks/../keys.md", "runbooks/a/b.md", "load-high.md", "/etc/passwd"] {
        let errors = file::parse("a.toml", &text(page)).expect_err(page);
        assert!(errors[0].message.contains("is no address of a page"), "{errors:?}");
    }
}
