//! What ships is tried here; what a wrong text is told as well.

use super::*;
use crate::rules::SHIPPED;

fn shipped(which: &str) -> Result<Vec<Arc<Rule>>, Vec<String>> {
    assert_eq!(which, "standard");
    let rules = dunlin_shared::rule::file::parse(SHIPPED.0, SHIPPED.1).expect("what ships is right");
    Ok(rules.into_iter().map(Arc::new).collect())
}

#[test]
fn every_rule_that_ships_does_what_its_trial_says_and_each_has_one() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/rules");
    let mut texts = String::new();
    let mut differences = Vec::new();
    let mut looks = 0;
    for entry in std::fs::read_dir(dir).expect("the trials are there") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let outcome = run(&name, &text, shipped).unwrap_or_else(|lines| panic!("{lines:?}"));
        looks += outcome.looks;
        differences.extend(outcome.differences);
        texts.push_str(&text);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(looks > 100, "{looks} looks");
    for rule in shipped("standard").expect("they ship") {
        let fires = format!("  firing {} ", rule.name);
        assert!(texts.contains(&fires), "no trial lets {} fire", rule.name);
    }
}

#[test]
fn the_documented_trial_does_what_it_says_with_the_documented_rule() {
    let text = include_str!("../../../docs/rules.md");
    let block = |begins: &str| {
        let blocks = text.split("```").skip(1).step_by(2).filter_map(|block| Some(block.split_once('\n')?.1));
        blocks.into_iter().find(|block| block.starts_with(begins)).expect("it is there")
    };
    let rules = |which: &str| {
        assert_eq!(which, "web.toml");
        let rules = dunlin_shared::rule::file::parse(which, block("[[rule]]\nname = \"memory-high\"")).expect("right");
        Ok(rules.into_iter().map(Arc::new).collect())
    };
    let outcome = run("web.test", block("rules web.toml"), rules).expect("it is right");
    assert_eq!((outcome.looks, outcome.differences), (3, Vec::new()));
}

#[test]
fn the_reference_box_raises_nothing() {
    let text = include_str!("../../../tests/rules/reference-box.test");
    let outcome = run("reference-box.test", text, shipped).expect("it is right");
    assert_eq!(outcome.differences, [""; 0]);
    assert!(text.contains("host_memory_used_ratio 0.89") && !text.contains("firing"));
}

#[test]
fn what_is_otherwise_is_told_with_its_line() {
    let text = "rules standard\nnode a\nstate 1m a down\neval at 2m none\neval at 3m\n  firing node-down a host\n  firing cpu-busy a host\n";
    let outcome = run("x.test", text, shipped).expect("it can be read");
    let told = ["x.test:4: at 2m: and yet: firing node-down a host", "x.test:7: at 3m: not so: firing cpu-busy a host"];
    assert_eq!((outcome.looks, outcome.differences), (2, told.map(String::from).to_vec()));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let wrong = |text: &str| run("x.test", text, shipped).expect_err("it is wrong").join("\n");
    assert_eq!(wrong("eval at 1m none"), "x.test: it names no rules; write \"rules standard\", or \"rules FILE\"");
    assert_eq!(wrong("rules standard\nnode a"), "x.test: it looks at nothing; write for example \"eval at 5m none\"");
    assert_eq!(
        wrong("rules standard\neval at soon"),
        "x.test:2: \"soon\" is no time; write for example 90s, 5m or 1m30s"
    );
    let text = "rules standard\nload 10s\n  a host host_lood 1\neval at 1m none";
    assert_eq!(wrong(text), "x.test:3: \"host_lood\" is no metric");
    let text = "rules standard\nload 10s\n  a fs:/ host_load1 1\neval at 1m none";
    assert_eq!(wrong(text), "x.test:3: host_load1 is about host");
    let text = "rules standard\nload 10s\n  a host host_load1 1xx\neval at 1m none";
    assert!(wrong(text).starts_with("x.test:3: \"1xx\" is no value"));
    assert!(wrong("rules standard\nfree beer").starts_with("x.test:2: \"free\" is no statement"));
    let text = "rules standard\nstate 1m b down\neval at 2m none";
    assert_eq!(wrong(text), "x.test: there is no node \"b\"; write \"node b\" first");
    assert_eq!(wrong("rules standard\n  firing x y z"), "x.test:2: it is indented below nothing");
}
