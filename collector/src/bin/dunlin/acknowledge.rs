//! `dunlin alert ack` and `unack`: who sees to an alert.

use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_collector::client::escaped;
use dunlin_collector::client::tokens::parse_labels;
use dunlin_collector::shape::{AcknowledgeAllRequest, AcknowledgeRequest, Acknowledged};
use serde_json::json;

use crate::{Desk, Failure};

/// A page of a thousand takes well below a second where the disk is not busy.
const PAGE_TIME: Duration = Duration::from_secs(60);

#[derive(Debug, Subcommand)]
pub(crate) enum AlertOrder {
    /// Say that somebody sees to alerts, until they are resolved
    Ack(Ack),
    /// Take that back
    Unack(Unack),
}

#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("which").args(["alerts", "labels", "rule", "node", "subject", "severity"]).required(true).multiple(true)),
    after_help = "Without ids: all that fire, that nobody acknowledged, and that fit all of what is named. In RULE and SUBJECT * stands for anything."
)]
pub(crate) struct Ack {
    /// Their ids, or the first digits of each, at least 6
    #[arg(value_name = "ALERT", conflicts_with_all = ["labels", "rule", "node", "subject", "severity"])]
    alerts: Vec<String>,
    /// Of nodes that bear it; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Of rules of such a name
    #[arg(long)]
    rule: Option<String>,
    /// Of this node: an id, or a name that one node alone has
    #[arg(long)]
    node: Option<String>,
    /// About such a subject, such as fs:/var*
    #[arg(long)]
    subject: Option<String>,
    /// info, warning or critical
    #[arg(long)]
    severity: Option<String>,
    /// For whoever wonders
    #[arg(long, default_value = "")]
    why: String,
}

#[derive(Debug, Args)]
pub(crate) struct Unack {
    /// Their ids, or the first digits of each, at least 6
    #[arg(value_name = "ALERT", required = true)]
    alerts: Vec<String>,
}

pub(crate) fn order(desk: &mut Desk<'_>, wanted: &AlertOrder) -> Result<(), Failure> {
    match wanted {
        AlertOrder::Ack(wanted) if wanted.alerts.is_empty() => all(desk, wanted),
        AlertOrder::Ack(wanted) => {
            let body = json!(AcknowledgeRequest { why: wanted.why.clone() });
            let each = |id: &String| desk.client.order("POST", &path(id), Some(&body));
            Ok(wanted.alerts.iter().try_for_each(each)?)
        }
        AlertOrder::Unack(wanted) => {
            Ok(wanted.alerts.iter().try_for_each(|id| desk.client.order("DELETE", &path(id), None))?)
        }
    }
}

/// As many questions as it takes: what is acknowledged is chosen no more.
fn all(desk: &mut Desk<'_>, wanted: &Ack) -> Result<(), Failure> {
    let request = json!(AcknowledgeAllRequest {
        labels: parse_labels(&wanted.labels).map_err(Failure::Usage)?,
        rule: wanted.rule.clone(),
        node: wanted.node.clone(),
        subject: wanted.subject.clone(),
        severity: wanted.severity.clone(),
        why: wanted.why.clone(),
    });
    let mut count = 0;
    loop {
        let page: Acknowledged = desk.client.ask("POST", "/api/v1/alerts/ack", Some(&request), PAGE_TIME)?;
        count += page.acknowledged;
        if !page.more || page.acknowledged == 0 {
            break;
        }
    }
    if desk.as_json {
        return Ok(writeln!(desk.out, "{}", json!({ "acknowledged": count }))?);
    }
    Ok(writeln!(desk.out, "{count} alerts are acknowledged")?)
}

fn path(id: &str) -> String {
    format!("/api/v1/alerts/{}/ack", escaped(id))
}
