//! `dunlin top`: the fleet, live in the terminal. Where stdout is no terminal it prints one picture and ends.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, number};
use dunlin_collector::client::when::When;
use dunlin_collector::shape::{Moment, Node};

use crate::nodes::{List, query};
use crate::{Desk, Failure};

const EVERY: Duration = Duration::from_secs(1);
/// More lines than a terminal has; the rest is counted.
const NODES_MAX: usize = 1_000;
/// Time of the processors, of which `idle` and `iowait` were spent on nothing.
const CPU: [&str; 7] = ["user", "system", "idle", "iowait", "irq", "softirq", "steal"];
const OTHERS: [&str; 3] = ["host_load1", "host_memory_used_ratio", "fs_used_ratio@fs:/"];

#[derive(Debug, Args)]
pub(crate) struct Top {
    #[command(flatten)]
    list: List,
    /// One picture, then end
    #[arg(long)]
    once: bool,
    /// Lines on the screen
    #[arg(long, default_value_t = 40)]
    rows: usize,
}

/// What the processors of each node had done at the picture before: all of it, and the idle part.
type Before = HashMap<String, (f64, f64, Option<f64>)>;

pub(crate) fn top(desk: &mut Desk<'_>, wanted: &Top) -> Result<(), Failure> {
    let query = asked(&wanted.list)?;
    let is_live = std::io::stdout().is_terminal() && !wanted.once;
    let mut before = Before::new();
    // A share of time needs two looks at it.
    take(desk, &query, &mut before)?;
    loop {
        std::thread::sleep(EVERY);
        let (nodes, busy) = take(desk, &query, &mut before)?;
        let lines = picture(&nodes, &busy, wanted.rows, &When::here());
        if is_live {
            // Home, each line cleared behind its text, then all below: nothing flickers.
            write!(desk.out, "\x1b[H")?;
            for line in &lines {
                write!(desk.out, "{line}\x1b[K\r\n")?;
            }
            write!(desk.out, "\x1b[J")?;
            desk.out.flush()?;
        } else {
            lines.iter().try_for_each(|line| writeln!(desk.out, "{line}"))?;
            return Ok(());
        }
    }
}

fn asked(list: &List) -> Result<String, Failure> {
    let mut query = query(list)?;
    query.push(if query.contains('?') { '&' } else { '?' });
    let cpu = CPU.iter().map(|mode| format!("host_cpu_{mode}_seconds"));
    let values: Vec<String> =
        cpu.chain(OTHERS.map(str::to_owned)).map(|value| format!("value={}", escaped(&value))).collect();
    query.push_str(&values.join("&"));
    Ok(query)
}

/// The nodes, and how busy the processors of each are, once that is known.
fn take(desk: &Desk<'_>, query: &str, before: &mut Before) -> Result<(Vec<Node>, HashMap<String, f64>), Failure> {
    let items = desk.client.all(query, NODES_MAX)?;
    let nodes: Vec<Node> = items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect();
    let mut busy = HashMap::new();
    for node in &nodes {
        let value = |mode: &str| node.values.get(&format!("host_cpu_{mode}_seconds")).copied().unwrap_or(0.0);
        let (all, idle) = (CPU.iter().map(|mode| value(mode)).sum::<f64>(), value("idle") + value("iowait"));
        let entry = before.entry(node.id.clone()).or_insert((all, idle, None));
        // Between two frames the numbers stand still, and the share that was known goes on.
        if all > entry.0 {
            *entry = (all, idle, Some((1.0 - (idle - entry.1) / (all - entry.0)).clamp(0.0, 1.0)));
        } else if all < entry.0 {
            *entry = (all, idle, None);
        }
        busy.extend(entry.2.map(|share| (node.id.clone(), share)));
    }
    Ok((nodes, busy))
}

/// What is wrong first, then what is busiest.
fn picture(nodes: &[Node], busy: &HashMap<String, f64>, rows: usize, when: &When) -> Vec<String> {
    let mut sorted: Vec<&Node> = nodes.iter().collect();
    let share = |node: &Node| busy.get(&node.id).copied();
    sorted.sort_by(|a, b| {
        let wrong = |node: &Node| node.state == "up" || node.state == "maintenance";
        let by_share = share(b).unwrap_or(-1.0).total_cmp(&share(a).unwrap_or(-1.0));
        wrong(a).cmp(&wrong(b)).then(by_share).then_with(|| a.name.cmp(&b.name))
    });
    let up = nodes.iter().filter(|node| node.state == "up").count();
    let noun = if nodes.len() == 1 { "node" } else { "nodes" };
    let mut lines = vec![
        format!("{} {noun}, {up} up    {} {}", nodes.len(), when.clock(Moment(when.now)), when.zone()),
        String::new(),
    ];
    let mut table = Table::new(&["NAME", "STATE", "CPU", "LOAD", "MEMORY", "DISK /", "SEEN"]).right(&[2, 3, 4, 5, 6]);
    let percent = |ratio: Option<f64>| ratio.map_or(String::from("-"), |ratio| format!("{:.0} %", ratio * 100.0));
    for node in sorted.iter().take(rows.max(1)) {
        let value = |name: &str| node.values.get(name).copied();
        table.row([
            node.name.clone(),
            node.state.clone(),
            percent(share(node)),
            value(OTHERS[0]).map_or(String::from("-"), number),
            percent(value(OTHERS[1])),
            percent(value(OTHERS[2])),
            node.last_seen.map_or(String::from("never"), |seen| when.ago(seen)),
        ]);
    }
    lines.extend(table.lines());
    if sorted.len() > rows.max(1) {
        lines.push(format!("and {} more; --rows shows more of them", sorted.len() - rows.max(1)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::WallMs;

    use super::*;

    fn node(name: &str, state: &str, memory: Option<f64>) -> Node {
        let text = format!(
            r#"{{"id":"{name}","name":"{name}","state":"{state}","since":"2026-11-21T14:00:00Z",
            "last_seen":"2026-11-21T14:00:00Z","labels":{{}},"facts":null,"version":"0.1.0","skew_ms":null,
            "enrolled":"2026-11-21T14:00:00Z","interval_ms":null,"ephemeral":false,"maintenance":null,"quarantined":[]}}"#
        );
        let mut node: Node = serde_json::from_str(&text).expect("a node");
        node.values.extend(memory.map(|ratio| (OTHERS[1].to_owned(), ratio)));
        node
    }

    #[test]
    fn what_is_wrong_stands_above_what_is_busy() {
        let nodes = [node("idle", "up", Some(0.5)), node("busy", "up", Some(0.894)), node("gone", "down", None)];
        let busy = HashMap::from([(String::from("busy"), 0.97), (String::from("idle"), 0.02)]);
        let when = When::utc("2026-11-21T14:00:07Z".parse::<Moment>().map_or(WallMs(0), |at| at.0));
        let lines = picture(&nodes, &busy, 2, &when);
        assert_eq!(
            lines,
            [
                "3 nodes, 2 up    14:00:07 UTC",
                "",
                "NAME  STATE   CPU  LOAD  MEMORY  DISK /  SEEN",
                "gone  down      -     -       -       -    7s",
                "busy  up     97 %     -    89 %       -    7s",
                "and 1 more; --rows shows more of them",
            ]
        );
    }
}
