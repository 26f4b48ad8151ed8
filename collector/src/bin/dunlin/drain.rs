//! `dunlin drain` and `undrain`: planned downtime, of a node or of all that bear a label.

use clap::Args;
use dunlin_collector::client::ClientError;
use dunlin_collector::client::table::plain;
use dunlin_collector::client::tokens::parse_labels;
use dunlin_collector::shape::{MaintenanceRequest, Node};
use serde_json::{Value, json};

use crate::nodes::{List, listed, path};
use crate::{Desk, Failure};

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").args(["node", "labels"]).required(true)))]
pub(crate) struct Drain {
    /// An id, or a name that one node alone has
    node: Option<String>,
    /// All nodes that bear it; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How long, such as 1h; until it is ended when absent
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "end")]
    duration: Option<String>,
    /// For the feed and the log
    #[arg(long, conflicts_with = "end")]
    reason: Option<String>,
    /// The downtime is over; the same as undrain
    #[arg(long)]
    end: bool,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").args(["node", "labels"]).required(true)))]
pub(crate) struct Undrain {
    /// An id, or a name that one node alone has
    node: Option<String>,
    /// All nodes in downtime that bear it; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
}

pub(crate) fn drain(desk: &mut Desk<'_>, wanted: Drain) -> Result<(), Failure> {
    let Drain { node, labels, duration, reason, end } = wanted;
    if end {
        return undrain(desk, Undrain { node, labels });
    }
    let body = json!(MaintenanceRequest { until: None, duration, reason });
    match node {
        Some(node) => Ok(desk.client.order("POST", &path(&node, "/maintenance"), Some(&body))?),
        None => each(desk, labels, ("POST", Some(&body)), |node| node.state != "revoked"),
    }
}

pub(crate) fn undrain(desk: &mut Desk<'_>, wanted: Undrain) -> Result<(), Failure> {
    match wanted.node {
        Some(node) => Ok(desk.client.order("DELETE", &path(&node, "/maintenance"), None)?),
        None => each(desk, wanted.labels, ("DELETE", None), |node| node.maintenance.is_some()),
    }
}

/// One after the other. Where one cannot be, the others are all the same, and which it was is said.
fn each(
    desk: &mut Desk<'_>,
    labels: Vec<String>,
    (method, body): (&str, Option<&Value>),
    is_meant: impl Fn(&Node) -> bool,
) -> Result<(), Failure> {
    parse_labels(&labels).map_err(Failure::Usage)?;
    let nodes = listed(desk, &List { labels, states: Vec::new(), name: None })?;
    let (mut done, mut failed): (usize, Option<ClientError>) = (0, None);
    for node in nodes.iter().filter(|node| is_meant(node)) {
        match desk.client.order(method, &path(&node.id, "/maintenance"), body) {
            Ok(()) => done += 1,
            // What is not there, or over already, is no reason to leave the others; that nobody answers is.
            Err(error @ ClientError::Refused(_)) => {
                eprintln!("{}", plain(&format!("{} ({}): {error}", node.name, node.id)));
                failed = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if desk.as_json {
        writeln!(desk.out, "{}", json!({ "nodes": done }))?;
    } else {
        let what = if method == "POST" { "are in maintenance" } else { "are in maintenance no more" };
        writeln!(desk.out, "{done} nodes {what}")?;
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}
