//! What may stand nowhere, or in one place only: clocks, unbounded queues, ignored tests, empty names, loose ends.
//! Words that no file may hold are built from pieces here, so that this file does not hold them either.

use crate::Finding;
use crate::lexer::Token;
use crate::source::Source;
use crate::tree::File;

/// The one file of each program that reads the clock; all other code takes `now` as an argument.
const CLOCK_FILES: &[&str] = &["agent/src/clock.rs", "collector/src/clock.rs", "collector/src/bin/dunlin/clock.rs"];

const CLOCK_READS: &[&str] = &[
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "tokio::time::Instant::now",
    "uuid::Uuid::now_v7",
];

const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "manager", "misc"];

/// Hosts of package registries, in pieces that are joined before the search.
const REGISTRY_HOSTS: &[[&str; 2]] = &[
    ["crates", ".io"],
    ["npmjs", ".org"],
    ["npmjs", ".com"],
    ["pypi", ".org"],
    ["pythonhosted", ".org"],
    ["rubygems", ".org"],
    ["proxy.golang", ".org"],
    ["repo.maven.apache", ".org"],
    ["artif", "actory"],
];

const LOOSE_ENDS: &[[&str; 2]] = &[["TO", "DO"], ["FIX", "ME"], ["XX", "X"]];

pub(crate) fn clocks(source: &Source) -> Vec<Finding> {
    if CLOCK_FILES.contains(&source.path.as_str()) {
        return Vec::new();
    }
    source
        .paths
        .iter()
        .filter(|path| !source.is_test(path.line))
        .filter(|path| CLOCK_READS.iter().any(|read| path.names(read)) && !path.text().ends_with('*'))
        .map(|path| {
            let advice = format!("`{}`: take `now` as an argument; only clock.rs reads the clock", path.text());
            Finding::new(&source.path, path.line, advice)
        })
        .collect()
}

pub(crate) fn unbounded_queues(source: &Source) -> Vec<Finding> {
    source
        .paths
        .iter()
        .filter(|path| {
            let last = path.segments.last().map(String::as_str);
            path.names("std::sync::mpsc::channel") && last == Some("channel")
                || matches!(last, Some("unbounded" | "unbounded_channel"))
        })
        .map(|path| {
            let advice = format!("`{}`: give the queue a bound, and say what happens when it is full", path.text());
            Finding::new(&source.path, path.line, advice)
        })
        .collect()
}

pub(crate) fn ignored_tests(source: &Source) -> Vec<Finding> {
    let opens = [Token::Mark('#'), Token::Mark('['), Token::Word("ignore".to_owned())];
    source
        .tokens
        .windows(opens.len())
        .filter(|window| window.iter().map(|(_, token)| token).eq(opens.iter()))
        .map(|window| Finding::new(&source.path, window[0].0, "a test runs or does not exist; mend it or delete it"))
        .collect()
}

pub(crate) fn names(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let stem = source.path.trim_end_matches(".rs");
    if let Some(name) = stem.split('/').find(|part| EMPTY_NAMES.contains(part)) {
        let advice = format!("`{name}` says nothing; name the file after the noun it owns");
        findings.push(Finding::new(&source.path, 0, advice));
    }
    for pair in source.tokens.windows(2) {
        if let [(_, Token::Word(keyword)), (line, Token::Word(name))] = pair
            && keyword == "fn"
            && let Some(noun) = name.strip_prefix("get_")
        {
            findings.push(Finding::new(&source.path, *line, format!("call it `{noun}`: a getter bears no prefix")));
        }
    }
    findings
}

/// Loose ends and registry hosts in any text; banners in Rust only, where a Markdown table is no banner.
pub(crate) fn texts(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let mut find = |advice: String| findings.push(Finding::new(&file.path, index + 1, advice));
        for host in REGISTRY_HOSTS.iter().map(|pieces| pieces.concat()) {
            if line.contains(&host) {
                find(format!("`{host}`: no file names a package registry; leave it to cargo's own configuration"));
            }
        }
        for word in LOOSE_ENDS.iter().map(|pieces| pieces.concat()) {
            if line.split(|c: char| !c.is_alphanumeric()).any(|found| found == word) {
                find(format!("`{word}`: do it now, or write an issue"));
            }
        }
        if file.path.ends_with(".rs") && is_banner(line) {
            find("a banner comment: split the file, or let the names speak".to_owned());
        }
    }
    findings
}

fn is_banner(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix("//") else {
        return false;
    };
    ["----", "====", "****", "####", "~~~~"].iter().any(|rule| comment.contains(rule))
        // A table in a module's header rules its columns with bars.
        && !comment.contains('|')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source::new(path, text)).iter().map(|finding| finding.line).collect()
    }

    fn text_lines(path: &str, text: &str) -> Vec<usize> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        texts(&file).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn clock_reads_fire_outside_the_clock_file() {
        for text in [
            "fn f() { std::time::SystemTime::now(); }",
            "use std::time::Instant;fn f() { Instant::now(); }",
            "use std::time; fn f() { time::Instant::now(); }",
            "use tokio::time::Instant as I; fn f() { I::now(); }",
            "use std::time::Instant; const F: fn() -> Instant = Instant::now;",
        ] {
            assert_eq!(lines(clocks, "agent/src/app.rs", text), [1], "{text}");
            assert_eq!(lines(clocks, "agent/src/clock.rs", text), [0; 0]);
            assert_eq!(lines(clocks, "tests/src/rig.rs", text), [0; 0]);
        }
        let other = "use std::time::{Duration, Instant}; use crate::Clock; fn f(now: Instant) { Clock::now(); }";
        assert_eq!(lines(clocks, "agent/src/app.rs", other), [0; 0]);
    }

    #[test]
    fn unbounded_queues_fire_and_bounded_ones_do_not() {
        for text in [
            "use tokio::sync::mpsc; fn f() { mpsc::unbounded_channel::<u8>(); }",
            "use tokio::sync::mpsc::unbounded_channel;",
            "use std::sync::mpsc; fn f() { mpsc::channel::<u8>(); }",
            "fn f() { flume::unbounded(); }",
        ] {
            assert_eq!(lines(unbounded_queues, "agent/src/app.rs", text), [1], "{text}");
        }
        for text in [
            "use tokio::sync::mpsc; fn f() { mpsc::channel(8); }",
            "use std::sync::mpsc; fn f() { mpsc::sync_channel(8); }",
        ] {
            assert_eq!(lines(unbounded_queues, "agent/src/app.rs", text), [0; 0], "{text}");
        }
    }

    #[test]
    fn ignored_tests_fire_with_or_without_a_reason() {
        let text = "#[test]\n#[ignore]\nfn a() {}\n#[test]\n#[ignore = \"slow\"]\nfn b() {}\n";
        assert_eq!(lines(ignored_tests, "tests/tests/x.rs", text), [2, 5]);
    }

    #[test]
    fn empty_names_and_getters_fire() {
        assert_eq!(lines(names, "agent/src/utils.rs", ""), [0]);
        assert_eq!(lines(names, "collector/src/common/mod.rs", ""), [0]);
        assert_eq!(lines(names, "agent/src/uplink.rs", "\nfn get_name() {}\nfn get(&self) {}"), [2]);
    }

    #[test]
    fn registry_hosts_and_loose_ends_fire_in_any_text() {
        for pieces in REGISTRY_HOSTS {
            assert_eq!(text_lines("README.md", &format!("a\nhttps://{}/x\n", pieces.concat())), [2]);
        }
        for pieces in LOOSE_ENDS {
            assert_eq!(text_lines("agent/src/app.rs", &format!("// {}: later\n", pieces.concat())), [1]);
        }
        assert_eq!(text_lines("Makefile", "apt-get install docker.io # XXXX\n"), [0; 0]);
    }

    #[test]
    fn banners_fire_in_code_and_tables_do_not() {
        assert_eq!(text_lines("agent/src/app.rs", "fn a() {}\n// ------ spool ------\n"), [2]);
        assert_eq!(text_lines("agent/src/app.rs", "//! | a | b |\n//! |----|----|\n"), [0; 0]);
        assert_eq!(text_lines("README.md", "// ------\n"), [0; 0]);
    }
}
