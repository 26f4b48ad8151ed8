//! The same borders in `Cargo.toml`: a dependency that a crate may not use is not even declared.

use crate::Finding;
use crate::tree::File;

/// Manifest, dependency that it may not declare, and why.
const BANNED: &[(&str, &str, &str)] = &[
    ("shared/Cargo.toml", "dunlin-", "shared depends on no other crate of ours"),
    ("shared/Cargo.toml", "tokio", "shared has no runtime"),
    ("shared/Cargo.toml", "quinn", "shared knows nothing of its transport"),
    ("shared/Cargo.toml", "rusqlite", "only the collector's store uses SQLite"),
    ("shared/Cargo.toml", "tracing", "shared returns effects and logs nothing"),
    ("agent/Cargo.toml", "dunlin-collector", "only tests sees both ends"),
    ("agent/Cargo.toml", "dunlin-tests", "product code never depends on the tests"),
    ("agent/Cargo.toml", "rusqlite", "only the collector's store uses SQLite"),
    ("agent/Cargo.toml", "axum", "the agent listens nowhere"),
    ("collector/Cargo.toml", "dunlin-agent", "only tests sees both ends"),
    ("collector/Cargo.toml", "dunlin-tests", "product code never depends on the tests"),
];

pub(crate) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_dependencies = false;
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        }
        let name = line.split("dependencies.").last().filter(|_| in_dependencies).unwrap_or_default();
        for (manifest, banned, why) in BANNED {
            if file.path == *manifest && name.starts_with(banned) {
                let advice = format!("drop the dependency on {banned}: {why}");
                findings.push(Finding::new(&file.path, index + 1, advice));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        check(&file).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn banned_dependencies_fire_in_every_form() {
        assert_eq!(lines("agent/Cargo.toml", "[dependencies]\ndunlin-collector.workspace = true\n"), [2]);
        assert_eq!(lines("shared/Cargo.toml", "[dev-dependencies]\nserde = \"1\"\ntokio = \"1\"\n"), [3]);
        assert_eq!(lines("collector/Cargo.toml", "[dependencies.dunlin-agent]\nworkspace = true\n"), [1]);
    }

    #[test]
    fn a_package_may_bear_its_own_name() {
        assert!(lines("shared/Cargo.toml", "[package]\nname = \"dunlin-shared\"\n[lib]\ntokio = 1\n").is_empty());
        assert!(lines("tests/Cargo.toml", "[dependencies]\ndunlin-agent.workspace = true\n").is_empty());
    }
}
