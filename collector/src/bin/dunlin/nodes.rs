//! `dunlin nodes`, and what is done to one.

use std::time::Duration;

use clap::Args;
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, labels};
use dunlin_collector::client::tokens::parse_labels;
use dunlin_collector::shape::{ApprovalRequest, Approved, Node, Waiting};
use serde_json::{Map, Value, json};

use crate::{Desk, Failure};

/// A fleet that is ten times what one collector carries.
const LISTED_MAX: usize = 100_000;
/// A page of a thousand takes well below a second where the disk is not busy.
const APPROVAL_TIME: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those that bear it; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Only those that are in it; repeated, any of them
    #[arg(long = "state")]
    pub(crate) states: Vec<String>,
    /// Only those of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// An id, or a name that one node alone has
    pub(crate) node: String,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").args(["nodes", "held", "pending"]).required(true)))]
pub(crate) struct Approve {
    /// Ids, or names that one node alone has
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// All that are held: they have a certificate of this collector, which does not know them any more
    #[arg(long)]
    held: bool,
    /// All that joined by a token made with --approve
    #[arg(long)]
    pending: bool,
    /// Of those, only the ones that bear it; repeated, all of them. What a held node bears it says itself
    #[arg(long = "label", value_name = "KEY=VALUE", conflicts_with = "nodes")]
    labels: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// An id, or a name that one node alone has
    node: String,
    /// For the feed and the log
    #[arg(long, default_value = "")]
    why: String,
}

#[derive(Debug, Args)]
pub(crate) struct Label {
    /// An id, or a name that one node alone has
    node: String,
    /// KEY=VALUE gives one, KEY- takes one away
    #[arg(required = true)]
    changes: Vec<String>,
}

/// The question of `nodes`, without its page.
pub(crate) fn query(list: &List) -> Result<String, Failure> {
    let mut query = String::from("/api/v1/nodes?");
    for (key, value) in parse_labels(&list.labels).map_err(Failure::Usage)? {
        query.push_str(&format!("label={}&", escaped(&format!("{key}={value}"))));
    }
    list.states.iter().for_each(|state| query.push_str(&format!("state={}&", escaped(state))));
    list.name.iter().for_each(|name| query.push_str(&format!("name={}&", escaped(name))));
    Ok(query.trim_end_matches(['&', '?']).to_owned())
}

pub(crate) fn list(desk: &mut Desk<'_>, list: &List) -> Result<(), Failure> {
    let items = desk.client.all(&query(list)?, LISTED_MAX)?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!({ "items": items, "next": null }))?);
    }
    let nodes: Vec<Node> = items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect();
    let mut table = Table::new(&["NAME", "STATE", "FOR", "SEEN", "ALERTS", "VERSION", "LABELS", "ID"]).right(&[4]);
    for node in nodes {
        let seen = node.last_seen.map_or(String::from("never"), |seen| desk.when.ago(seen));
        let since = desk.when.ago(node.since);
        let alerts = node.alerts.to_string();
        table.row([node.name, node.state, since, seen, alerts, node.version, labels(&node.labels), node.id]);
    }
    if table.is_empty() {
        let hint = if list.labels.is_empty() && list.states.is_empty() && list.name.is_none() {
            "No node has enrolled. Make a token for one: dunlin token create --role join --uses 1 --ttl 24h"
        } else {
            "No node is like that."
        };
        eprintln!("{hint}");
        return Ok(());
    }
    Ok(table.print(desk.out)?)
}

/// As they are shown.
pub(crate) fn listed(desk: &Desk<'_>, list: &List) -> Result<Vec<Node>, Failure> {
    let items = desk.client.all(&query(list)?, LISTED_MAX)?;
    Ok(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
}

pub(crate) fn order(desk: &Desk<'_>, method: &str, word: &str, what: &str) -> Result<(), Failure> {
    Ok(desk.client.order(method, &path(word, what), None)?)
}

/// As many questions as it takes: who was let in waits no more.
pub(crate) fn approve(desk: &mut Desk<'_>, wanted: &Approve) -> Result<(), Failure> {
    for node in &wanted.nodes {
        order(desk, "POST", node, "/approve")?;
    }
    if !wanted.nodes.is_empty() {
        return Ok(());
    }
    let state = if wanted.held { Waiting::Held } else { Waiting::Pending };
    let labels = parse_labels(&wanted.labels).map_err(Failure::Usage)?;
    let request = json!(ApprovalRequest { state, labels, limit: None });
    let mut count = 0;
    loop {
        let page: Approved = desk.client.ask("POST", "/api/v1/approvals", Some(&request), APPROVAL_TIME)?;
        count += page.approved;
        if !page.more || page.approved == 0 {
            break;
        }
    }
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!({ "approved": count }))?);
    }
    Ok(writeln!(desk.out, "{count} nodes may send now")?)
}

pub(crate) fn revoke(desk: &Desk<'_>, revoke: &Revoke) -> Result<(), Failure> {
    let body = json!({ "why": revoke.why });
    Ok(desk.client.order("POST", &path(&revoke.node, "/revoke"), Some(&body))?)
}

pub(crate) fn label(desk: &Desk<'_>, label: &Label) -> Result<(), Failure> {
    let mut changes = Map::new();
    for change in &label.changes {
        let (key, value) = match (change.split_once('='), change.strip_suffix('-')) {
            (Some((key, value)), _) if !key.is_empty() => (key, Value::from(value)),
            (None, Some(key)) if !key.is_empty() => (key, Value::Null),
            _ => {
                return Err(Failure::Usage(format!(
                    "{change:?} is no change; write KEY=VALUE, or KEY- to take it away"
                )));
            }
        };
        changes.insert(key.to_owned(), value);
    }
    Ok(desk.client.order("PATCH", &path(&label.node, ""), Some(&json!({ "labels": changes })))?)
}

pub(crate) fn path(word: &str, what: &str) -> String {
    format!("/api/v1/nodes/{}{what}", escaped(word))
}
