//! The house rules as a test: borders between crates and modules, sizes, names and documents.
//! Every rule is a pure function over a path and its text, and beside it stands a bad example that must fire.
//! A finding is printed as `path:line: what to do`. Rules change here, never by an exception in the code they judge.

mod bans;
mod borders;
mod documents;
mod lexer;
mod manifests;
mod size;
mod source;
mod tree;

use source::Source;
use tree::File;

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    /// Counted from 1; 0 stands for the file as a whole.
    line: usize,
    advice: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, advice: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, advice: advice.into() }
    }
}

fn rust_sources(files: &[File]) -> Vec<Source> {
    files.iter().filter(|file| file.path.ends_with(".rs")).map(|file| Source::new(&file.path, &file.text)).collect()
}

fn report(mut findings: Vec<Finding>) {
    findings.sort();
    findings.dedup();
    let lines: Vec<String> =
        findings.iter().map(|finding| format!("{}:{}: {}", finding.path, finding.line, finding.advice)).collect();
    assert!(lines.is_empty(), "house rules broken:\n{}", lines.join("\n"));
}

fn judge_sources(rule: impl Fn(&Source) -> Vec<Finding>) {
    let sources = rust_sources(&tree::read_all());
    report(sources.iter().flat_map(rule).collect());
}

#[test]
fn the_walk_sees_every_crate() {
    let files = tree::read_all();
    for path in [
        "Cargo.toml",
        "agent/src/main.rs",
        "collector/src/main.rs",
        "shared/src/lib.rs",
        "tests/src/lib.rs",
        "tests/tests/tidy/main.rs",
    ] {
        assert!(files.iter().any(|file| file.path == path), "{path} was not walked");
    }
    assert!(files.iter().all(|file| !file.path.starts_with("target/")));
}

#[test]
fn crates_and_modules_keep_their_borders() {
    judge_sources(borders::check);
}

#[test]
fn manifests_keep_their_borders() {
    report(tree::read_all().iter().flat_map(manifests::check).collect());
}

#[test]
fn one_file_a_program_reads_the_clock() {
    judge_sources(bans::clocks);
}

#[test]
fn no_queue_is_unbounded() {
    judge_sources(bans::unbounded_queues);
}

#[test]
fn no_test_is_ignored() {
    judge_sources(bans::ignored_tests);
}

#[test]
fn names_follow_the_house_style() {
    judge_sources(bans::names);
}

#[test]
fn texts_are_finished_and_name_no_registry() {
    report(tree::read_all().iter().flat_map(bans::texts).collect());
}

#[test]
fn files_and_functions_keep_their_size() {
    judge_sources(size::check);
}

#[test]
fn documents_are_true_and_in_step() {
    report(documents::check(&tree::read_all()));
}
