//! `dunlin metrics`: what a node measures, now or over time.

use clap::{Args, Subcommand};
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, quantity};
use dunlin_collector::shape::{MetricPage, SeriesPage};
use serde_json::Value;

use crate::export::{Export, export};
use crate::nodes::path;
use crate::{Desk, Failure};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Metrics {
    #[command(subcommand)]
    pub(crate) command: Option<MetricsCommand>,
    /// An id, or a name that one node alone has
    #[arg(required = true)]
    node: Option<String>,
    /// Over time; all of them as they are now when absent
    metric: Option<String>,
    /// Only of this subject, such as host or fs:/var
    #[arg(long)]
    subject: Option<String>,
    /// From when on: a duration before now, or RFC 3339
    #[arg(long, default_value = "1h")]
    from: String,
    /// Until when
    #[arg(long)]
    to: Option<String>,
    /// One point for each, such as 5m
    #[arg(long)]
    step: Option<String>,
    /// What becomes of the points in a step: mean, min, max or last
    #[arg(long, requires = "step")]
    fold: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MetricsCommand {
    /// Write samples or roll-ups of many nodes as CSV or OpenMetrics
    Export(Export),
}

pub(crate) fn show(desk: &mut Desk<'_>, wanted: &Metrics) -> Result<(), Failure> {
    if let Some(MetricsCommand::Export(wanted)) = &wanted.command {
        return export(desk, wanted);
    }
    let node = wanted.node.as_deref().unwrap_or_default();
    match &wanted.metric {
        None => now(desk, (node, wanted)),
        Some(metric) => over_time(desk, (node, wanted), metric),
    }
}

fn now(desk: &mut Desk<'_>, (node, wanted): (&str, &Metrics)) -> Result<(), Failure> {
    let subject = wanted.subject.as_ref().map(|subject| format!("?subject={}", escaped(subject))).unwrap_or_default();
    let value: Value = desk.client.get(&path(node, &format!("/metrics{subject}")))?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{value}")?);
    }
    let page: MetricPage = serde_json::from_value(value).map_err(std::io::Error::from)?;
    let mut table = Table::new(&["SUBJECT", "METRIC", "VALUE", "KIND"]).right(&[2]);
    for item in page.items {
        let value = quantity(item.value, &item.unit, false);
        table.row([item.subject, item.metric, value, item.kind]);
    }
    match page.at {
        Some(at) if !table.is_empty() => {
            table.print(desk.out)?;
            eprintln!("Measured {} ago, by the node's clock.", desk.when.ago(at));
        }
        _ => eprintln!("The node has sent nothing since the collector started."),
    }
    Ok(())
}

fn over_time(desk: &mut Desk<'_>, (node, wanted): (&str, &Metrics), metric: &str) -> Result<(), Failure> {
    let mut query = format!("/series?metric={}&from={}", escaped(metric), escaped(&wanted.from));
    let more = [("to", &wanted.to), ("step", &wanted.step), ("fold", &wanted.fold), ("subject", &wanted.subject)];
    for (key, value) in more.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        query.push_str(&format!("&{key}={}", escaped(value)));
    }
    let value: Value = desk.client.get(&path(node, &query))?;
    if desk.as_json {
        return Ok(writeln!(desk.out, "{value}")?);
    }
    let page: SeriesPage = serde_json::from_value(value).map_err(std::io::Error::from)?;
    if page.items.is_empty() {
        eprintln!("The node has nothing of it in that time.");
        return Ok(());
    }
    let mut table = Table::new(&["TIME", "SUBJECT", "VALUE"]).right(&[2]);
    for series in page.items {
        for (at, point) in series.points {
            let value = point.map_or(String::from("-"), |value| quantity(value, &series.unit, series.per_second));
            table.row([desk.when.local(at), series.subject.clone(), value]);
        }
    }
    eprintln!("Times are {}.", desk.when.zone());
    Ok(table.print(desk.out)?)
}
