//! The documents at the root: the architecture page stays short, paths in it exist, and the two READMEs keep step.

use crate::Finding;
use crate::tree::File;

/// What one sitting takes to read.
const ARCHITECTURE_LINES_MAX: usize = 200;

/// Directories of the root: a backticked word that starts with one of them is a path.
const TOP_LEVEL: &[&str] =
    &["agent/", "collector/", "shared/", "packaging/", "systemd/", "tests/", "docs/", ".ci/", ".config/"];

const REQUIRED: &[&str] =
    &["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "README.zh-CN.md"];

pub(crate) fn check(files: &[File]) -> Vec<Finding> {
    let text_of = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    let mut findings: Vec<Finding> = REQUIRED
        .iter()
        .filter(|path| text_of(path).is_none())
        .map(|path| Finding::new(path, 0, "the project has this document; write it"))
        .collect();
    if let Some(text) = text_of("ARCHITECTURE.md") {
        findings.extend(length(text));
    }
    for path in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        findings.extend(dead_paths(path, text_of(path).unwrap_or_default(), files));
    }
    if let (Some(english), Some(chinese)) = (text_of("README.md"), text_of("README.zh-CN.md")) {
        findings.extend(out_of_step(english, chinese));
    }
    findings
}

fn length(text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    (lines > ARCHITECTURE_LINES_MAX).then(|| {
        let advice = format!("{lines} lines, at most {ARCHITECTURE_LINES_MAX}; move details into module headers");
        Finding::new("ARCHITECTURE.md", 0, advice)
    })
}

fn dead_paths(document: &str, text: &str, files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for span in line.split('`').skip(1).step_by(2).filter(|span| is_path(span)) {
            if !files.iter().any(|file| is_at(&file.path, span)) {
                let advice = format!("`{span}` does not exist; name files and directories as they are now");
                findings.push(Finding::new(document, index + 1, advice));
            }
        }
    }
    findings
}

/// True if `span` is this file, a directory above it, or the end of its path: a map of one crate need not repeat it.
fn is_at(path: &str, span: &str) -> bool {
    let dir = format!("{}/", span.trim_end_matches('/'));
    path == span || path.starts_with(&dir) || path.ends_with(&format!("/{span}"))
}

/// A path of the tree, and not a path on a host, a URL, a pattern or a command.
fn is_path(span: &str) -> bool {
    let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let in_tree = TOP_LEVEL.iter().any(|dir| span.starts_with(dir));
    let is_file = span.ends_with(".rs") || span.ends_with(".md");
    plain && !span.starts_with('/') && (in_tree || is_file)
}

/// The levels of all headings, and a 0 for each fence that opens a block of code.
fn outline(text: &str) -> Vec<usize> {
    let mut outline = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            outline.extend(in_code.then_some(0));
        } else if !in_code && line.starts_with('#') {
            outline.push(line.chars().take_while(|&c| c == '#').count());
        }
    }
    outline
}

fn out_of_step(english: &str, chinese: &str) -> Option<Finding> {
    let (english, chinese) = (outline(english), outline(chinese));
    let same = english.iter().zip(&chinese).take_while(|(a, b)| a == b).count();
    (english != chinese).then(|| {
        let advice =
            format!("headings and code blocks differ from README.md after the first {same}; translate what is missing");
        Finding::new("README.zh-CN.md", 0, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(changed: &[(&str, &str)]) -> Vec<File> {
        let mut files: Vec<File> =
            REQUIRED.iter().map(|path| File { path: (*path).to_owned(), text: "# Head\n".to_owned() }).collect();
        for (path, text) in changed {
            files.retain(|file| file.path != *path);
            files.push(File { path: (*path).to_owned(), text: (*text).to_owned() });
        }
        files
    }

    #[test]
    fn a_missing_document_fires() {
        assert!(check(&tree(&[])).is_empty());
        assert_eq!(check(&[]).len(), REQUIRED.len());
    }

    #[test]
    fn a_long_architecture_page_fires() {
        assert!(check(&tree(&[("ARCHITECTURE.md", &"x\n".repeat(200))])).is_empty());
        assert_eq!(check(&tree(&[("ARCHITECTURE.md", &"x\n".repeat(201))])).len(), 1);
    }

    #[test]
    fn dead_paths_fire_and_live_ones_do_not() {
        let text = "See `shared/src/wire.rs`, `src/wire.rs`, `shared/src/`, `README.md`, `cargo test`, `/etc/dunlin/agent.toml`, `crate::wire`.\n";
        let live = tree(&[("ARCHITECTURE.md", text), ("shared/src/wire.rs", "")]);
        assert!(check(&live).is_empty());
        let dead = tree(&[("CONTRIBUTING.md", "\nSee `shared/src/wire.rs` and `wire.rs`.\n")]);
        let found = check(&dead);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].path.as_str(), found[0].line), ("CONTRIBUTING.md", 2));
    }

    #[test]
    fn readmes_out_of_step_fire() {
        let english = "# A\n```\n# no heading\n```\n## B\n";
        for chinese in ["# A\n## B\n", "# A\n```\nx\n```\n", "# A\n```\nx\n```\n### B\n"] {
            assert_eq!(check(&tree(&[("README.md", english), ("README.zh-CN.md", chinese)])).len(), 1, "{chinese:?}");
        }
        assert!(check(&tree(&[("README.md", english), ("README.zh-CN.md", english)])).is_empty());
    }
}
