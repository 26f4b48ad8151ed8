//! `dunlin versions`: which versions run where, for an upgrade of the fleet step by step.

use std::collections::BTreeMap;

use clap::Args;
use dunlin_collector::client::table::Table;
use serde_json::json;

use crate::nodes::{List, listed};
use crate::{Desk, Failure};

/// States of nodes that come back, if at all, by a person.
const GONE: [&str; 2] = ["revoked", "quarantined"];

#[derive(Debug, Args)]
pub(crate) struct Versions {
    /// Only nodes that bear it; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    nodes: usize,
    up: usize,
    /// The first of them by name, to look at.
    example: String,
}

pub(crate) fn versions(desk: &mut Desk<'_>, wanted: Versions) -> Result<(), Failure> {
    let list = List { labels: wanted.labels, states: Vec::new(), name: None };
    let nodes = listed(desk, &list)?;
    let running = nodes.into_iter().filter(|node| !GONE.contains(&node.state.as_str()));
    let counts = counted(running.map(|node| (node.version, node.state == "up", node.name)));
    if desk.as_json {
        let items: Vec<_> = counts
            .iter()
            .map(|(version, count)| json!({ "version": version, "nodes": count.nodes, "up": count.up, "example": count.example }))
            .collect();
        return Ok(writeln!(
            desk.out,
            "{}",
            json!({ "cli": env!("CARGO_PKG_VERSION"), "items": items, "next": null })
        )?);
    }
    let mut table = Table::new(&["VERSION", "NODES", "UP", "SUCH AS"]).right(&[1, 2]);
    for (version, count) in counts {
        let version = if version.is_empty() { String::from("not told") } else { version };
        table.row([version, count.nodes.to_string(), count.up.to_string(), count.example]);
    }
    if table.is_empty() {
        eprintln!("No node is like that.");
        return Ok(());
    }
    Ok(table.print(desk.out)?)
}

fn counted(nodes: impl Iterator<Item = (String, bool, String)>) -> BTreeMap<String, Count> {
    let mut counts = BTreeMap::<String, Count>::new();
    for (version, is_up, name) in nodes {
        let count = counts.entry(version).or_default();
        count.nodes += 1;
        count.up += usize::from(is_up);
        if count.example.is_empty() || name < count.example {
            count.example = name;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_by_version_with_one_to_look_at() {
        let node = |version: &str, is_up, name: &str| (version.to_owned(), is_up, name.to_owned());
        let nodes = [node("0.2.0", true, "b"), node("0.1.0", false, "c"), node("0.2.0", true, "a")];
        let counts = counted(nodes.into_iter());
        assert_eq!(counts["0.2.0"], Count { nodes: 2, up: 2, example: "a".into() });
        assert_eq!(counts["0.1.0"], Count { nodes: 1, up: 0, example: "c".into() });
    }
}
