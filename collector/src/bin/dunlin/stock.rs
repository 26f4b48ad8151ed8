//! `dunlin containers`, `processes` and `ports`: what stands on the nodes.

use std::cmp::Ordering;

use clap::Args;
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, bytes, number};
use dunlin_collector::client::tokens::parse_labels;
use dunlin_collector::shape::{Container, Port, Process};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Desk, Failure};

/// What a fleet of 10,000 nodes with ten of a thing each has.
const LISTED_MAX: usize = 100_000;

#[derive(Debug, Args)]
pub(crate) struct Where {
    /// Only on this node: an id, or a name that one node alone has
    node: Option<String>,
    /// Only on nodes that bear it; repeated, all of them
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Containers {
    #[command(flatten)]
    place: Where,
    /// Only those that are in it, such as exited; repeated, any of them
    #[arg(long = "state")]
    states: Vec<String>,
    /// Only those of this name
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Processes {
    #[command(flatten)]
    place: Where,
    /// Only those of this name
    #[arg(long)]
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ports {
    #[command(flatten)]
    place: Where,
    /// Only those that other networks may reach
    #[arg(long)]
    exposed: bool,
    /// Only of this number
    #[arg(long)]
    port: Option<u16>,
}

impl Where {
    fn query(&self, what: &str) -> Result<String, Failure> {
        let mut query = format!("/api/v1/{what}?");
        self.node.iter().for_each(|node| query.push_str(&format!("node={}&", escaped(node))));
        for (key, value) in parse_labels(&self.labels).map_err(Failure::Usage)? {
            query.push_str(&format!("label={}&", escaped(&format!("{key}={value}"))));
        }
        Ok(query)
    }
}

pub(crate) fn containers(desk: &mut Desk<'_>, wanted: &Containers) -> Result<(), Failure> {
    let mut query = wanted.place.query("containers")?;
    wanted.states.iter().for_each(|state| query.push_str(&format!("state={}&", escaped(state))));
    wanted.name.iter().for_each(|name| query.push_str(&format!("name={}&", escaped(name))));
    let Some(containers) = listed::<Container>(desk, &query, "No container is like that.")? else { return Ok(()) };
    let head = ["NODE", "NAME", "STATE", "HEALTH", "FOR", "CPU", "MEMORY", "LIMIT", "RESTARTS", "IMAGE"];
    let mut table = Table::new(&head).right(&[4, 5, 6, 7, 8]);
    for container in containers {
        let health = if container.health == "none" { String::from("-") } else { container.health };
        table.row([
            container.node_name,
            container.name,
            container.state,
            health,
            desk.when.ago(container.since),
            cores(container.cpu_cores),
            size(container.memory_bytes),
            size(container.memory_limit_bytes),
            container.restarts.to_string(),
            container.image,
        ]);
    }
    Ok(table.print(desk.out)?)
}

/// The busiest of each node first.
pub(crate) fn processes(desk: &mut Desk<'_>, wanted: &Processes) -> Result<(), Failure> {
    let mut query = wanted.place.query("processes")?;
    wanted.name.iter().for_each(|name| query.push_str(&format!("name={}&", escaped(name))));
    let found = listed::<Process>(desk, &query, "No process group is like that.")?;
    let Some(mut processes) = found else { return Ok(()) };
    processes.sort_by(|a, b| a.node.cmp(&b.node).then_with(|| by_cpu(a, b)));
    let head = ["NODE", "NAME", "COUNT", "CPU", "MEMORY", "THREADS", "FILES", "USER", "IN"];
    let mut table = Table::new(&head).right(&[2, 3, 4, 5, 6]);
    let count = |count: Option<u64>| count.map_or(String::from("-"), |count| count.to_string());
    for process in processes {
        table.row([
            process.node_name,
            process.name,
            count(process.count),
            cores(process.cpu_cores),
            size(process.memory_bytes),
            count(process.threads),
            count(process.files_open),
            process.user.unwrap_or_default(),
            process.container.or(process.unit).unwrap_or_default(),
        ]);
    }
    Ok(table.print(desk.out)?)
}

pub(crate) fn ports(desk: &mut Desk<'_>, wanted: &Ports) -> Result<(), Failure> {
    let mut query = wanted.place.query("ports")?;
    query.push_str(if wanted.exposed { "exposed=true&" } else { "" });
    wanted.port.iter().for_each(|port| query.push_str(&format!("port={port}&")));
    let Some(ports) = listed::<Port>(desk, &query, "No port is like that.")? else { return Ok(()) };
    let head = ["NODE", "PROTOCOL", "ADDRESS", "PORT", "SCOPE", "PROCESS", "CONTAINER", "USER", "FOR"];
    let mut table = Table::new(&head).right(&[3, 8]);
    for port in ports {
        table.row([
            port.node_name,
            port.protocol,
            port.address,
            port.port.to_string(),
            port.scope,
            port.process.unwrap_or_else(|| String::from("-")),
            port.container.unwrap_or_default(),
            port.user.unwrap_or_default(),
            desk.when.ago(port.since),
        ]);
    }
    Ok(table.print(desk.out)?)
}

pub(crate) fn by_cpu(a: &Process, b: &Process) -> Ordering {
    let cpu = |process: &Process| process.cpu_cores.unwrap_or(-1.0);
    cpu(b).total_cmp(&cpu(a)).then(b.memory_bytes.cmp(&a.memory_bytes)).then_with(|| a.name.cmp(&b.name))
}

/// As many as are in use, to the hundredth.
pub(crate) fn cores(cores: Option<f64>) -> String {
    cores.map_or(String::from("-"), |cores| if cores < 10.0 { format!("{cores:.2}") } else { number(cores) })
}

pub(crate) fn size(size: Option<u64>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    size.map_or(String::from("-"), |size| bytes(size as f64))
}

/// All of them; `None` when there is nothing left to print.
fn listed<T: DeserializeOwned>(desk: &mut Desk<'_>, query: &str, none: &str) -> Result<Option<Vec<T>>, Failure> {
    let items = whole(desk.client.all(query.trim_end_matches(['&', '?']), LISTED_MAX + 1)?)?;
    if desk.as_json {
        writeln!(desk.out, "{}", json!({ "items": items, "next": null }))?;
        return Ok(None);
    }
    if items.is_empty() {
        eprintln!("{none}");
        return Ok(None);
    }
    Ok(Some(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect()))
}

fn whole(items: Vec<Value>) -> Result<Vec<Value>, Failure> {
    if items.len() <= LISTED_MAX { Ok(items) } else { Err(Failure::TooMany(LISTED_MAX)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_never_listed_as_if_it_were_all() {
        assert_eq!(whole(vec![Value::Null; LISTED_MAX]).expect("all of them").len(), LISTED_MAX);
        let refused = whole(vec![Value::Null; LISTED_MAX + 1]).expect_err("there are more").to_string();
        assert!(refused.contains("more than 100000") && refused.contains("--label"), "{refused}");
    }
}
