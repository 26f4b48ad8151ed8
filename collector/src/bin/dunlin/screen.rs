//! `dunlin node`: one node on one screen: how it is, what is wrong, what is loaded and by whom, and what changed lately.

use dunlin_collector::client::escaped;
use dunlin_collector::client::table::{Table, bytes, labels, number, plain};
use dunlin_collector::client::when::When;
use dunlin_collector::shape::{Alert, Container, MetricPage, Node, Port, Process, SeriesPage};
use serde_json::{Value, json};

use crate::alerts::order;
use crate::feed::more;
use crate::manner::Manner;
use crate::nodes::path;
use crate::stock::{by_cpu, cores, size};
use crate::{Desk, Failure};

/// Of each list so many lines; all of it is thirty.
const GROUPS: usize = 4;
const CONTAINERS: usize = 5;
const CHANGES: usize = 5;
/// They take the room of changes.
const ALERTS: usize = 3;
const DISKS: usize = 4;
/// Exposed ports stand on one line.
const PORTS: usize = 8;
/// More than any node has of a thing.
const ITEMS_MAX: usize = 5_000;
/// Time of the processors, of which the first two were spent on nothing.
const CPU: [&str; 7] = ["idle", "iowait", "user", "system", "irq", "softirq", "steal"];
const NOW: [&str; 6] =
    ["host_load1", "host_load5", "host_load15", "host_memory_used_ratio", "host_memory_total_bytes", "fs_used_ratio"];

/// Everything that the screen shows.
#[derive(Debug)]
struct Picture {
    node: Node,
    /// Those that fire, the worst first.
    alerts: Vec<Alert>,
    /// Cores in use, and all of them.
    busy: Option<(f64, f64)>,
    /// By metric and subject.
    values: Vec<(String, String, f64)>,
    processes: Vec<Process>,
    containers: Vec<Container>,
    exposed: Vec<Port>,
}

pub(crate) fn show(desk: &mut Desk<'_>, word: &str) -> Result<(), Failure> {
    let mut node: Value = desk.client.get(&path(word, ""))?;
    let id = node["id"].as_str().unwrap_or(word).to_owned();
    let list = |what: &str| desk.client.all(&format!("/api/v1/{what}node={}", escaped(&id)), ITEMS_MAX);
    let (containers, processes, alerts) = (list("containers?")?, list("processes?")?, list("alerts?")?);
    if desk.as_json {
        node["ports"] = Value::from(list("ports?")?);
        (node["containers"], node["processes"]) = (json!(containers), json!(processes));
        // How many there are says the node itself.
        node["firing"] = json!(alerts);
        return Ok(writeln!(desk.out, "{node}")?);
    }
    let exposed = parsed(list("ports?exposed=true&")?);
    let metrics = NOW.map(|metric| format!("metric={metric}")).join("&");
    let now: MetricPage = desk.client.get(&path(&id, &format!("/metrics?{metrics}")))?;
    let mut alerts: Vec<Alert> = parsed(alerts);
    alerts.sort_by_key(order);
    let picture = Picture {
        alerts,
        busy: busy(desk, &id)?,
        node: serde_json::from_value(node).map_err(std::io::Error::from)?,
        values: now.items.into_iter().map(|item| (item.metric, item.subject, item.value)).collect(),
        processes: parsed(processes),
        containers: parsed(containers),
        exposed,
    };
    for line in picture.lines(desk.when, &desk.manner) {
        writeln!(desk.out, "{}", plain(line.trim_end()))?;
    }
    Ok(())
}

impl Picture {
    fn lines(&self, when: &When, manner: &Manner) -> Vec<String> {
        let mut lines = self.head(when);
        let wrong = self.wrong(when, manner);
        let changed = CHANGES.saturating_sub(wrong.len());
        lines.extend(wrong);
        lines.push(String::new());
        lines.extend(self.load());
        if !self.processes.is_empty() {
            lines.push(String::new());
            lines.extend(self.groups());
        }
        if !self.containers.is_empty() {
            lines.push(String::new());
            lines.extend(self.containers(when));
        }
        lines.push(String::new());
        lines.push(self.ports());
        let changes = self.node.changes.as_deref().unwrap_or_default();
        if !changes.is_empty() {
            lines.push(String::new());
            lines.push(format!("LATELY (times are {})", when.zone()));
            lines.extend(
                changes.iter().take(changed).map(|event| format!("{}  {}", when.local(event.at), more(event, manner))),
            );
        }
        lines
    }

    fn head(&self, when: &When) -> Vec<String> {
        let node = &self.node;
        let seen = node.last_seen.map_or(String::from("never"), |seen| format!("{} ago", when.ago(seen)));
        let off = node.skew_ms.filter(|ms| ms.abs() >= 1_000).map(|ms| format!(", its clock is off by {ms} ms"));
        let (since, off) = (when.ago(node.since), off.unwrap_or_default());
        let mut lines = vec![format!("{}  {} for {since}, seen {seen}{off}  {}", node.name, node.state, node.id)];
        if let Some(facts) = &node.facts {
            let system = [facts.os.as_str(), &facts.kernel, &facts.architecture].join(", ");
            let every = node.interval_ms.map_or(String::new(), |ms| format!(" every {} s", f64::from(ms) / 1_000.0));
            lines.push(format!("{system}; agent {}{every}", node.version));
        }
        if !node.labels.is_empty() {
            lines.push(labels(&node.labels));
        }
        if let Some(maintenance) = &node.maintenance {
            let end = |until| format!("until {} {}", when.local(until), when.zone());
            lines.push(format!("maintenance {}", maintenance.until.map_or(String::from("until it is ended"), end)));
        }
        for machine in &node.quarantined {
            let how = format!("if it is the right one: dunlin adopt {}", node.id);
            lines.push(format!("quarantined {} (boot {}); {how}", machine.name, machine.boot_id));
        }
        lines
    }

    fn wrong(&self, when: &When, manner: &Manner) -> Vec<String> {
        let line = |alert: &Alert| {
            let (since, summary, id) = (when.ago(alert.since), manner.summary(alert), &alert.id);
            format!("{} for {since}: {summary}  {:.8}", alert.severity.to_uppercase(), id)
        };
        let mut lines: Vec<String> = self.alerts.iter().take(ALERTS).map(line).collect();
        let more = self.alerts.len().saturating_sub(ALERTS);
        if more > 0 {
            lines.push(format!("and {more} more: dunlin alerts --node {}", self.node.name));
        }
        lines
    }

    fn load(&self) -> Vec<String> {
        let value = |metric: &str| self.values.iter().find(|(name, _, _)| name == metric).map(|(_, _, value)| *value);
        let percent = |ratio: f64| format!("{:.0} %", ratio * 100.0);
        let unknown = || String::from("-");
        let share = |(used, all): (f64, f64)| format!("{} of {} cores", percent(used / all), number(all.round()));
        let load: Vec<String> = NOW[..3].iter().map(|metric| value(metric).map_or_else(unknown, number)).collect();
        let total = value("host_memory_total_bytes").map_or_else(unknown, bytes);
        let used = value("host_memory_used_ratio").map_or_else(unknown, percent);
        let mut disks: Vec<(f64, &str)> = self
            .values
            .iter()
            .filter(|(metric, _, _)| metric == "fs_used_ratio")
            .map(|(_, subject, value)| (*value, subject.strip_prefix("fs:").unwrap_or(subject)))
            .collect();
        disks.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        let disks: Vec<String> =
            disks.iter().take(DISKS).map(|(ratio, mount)| format!("{mount} {}", percent(*ratio))).collect();
        vec![
            format!("CPU     {}   load {}", self.busy.map_or_else(unknown, share), load.join(" ")),
            format!("MEMORY  {used} of {total}"),
            format!("DISK    {}", disks.join("   ")),
        ]
    }

    /// The busiest beside the largest.
    fn groups(&self) -> Vec<String> {
        let (mut by_use, mut by_size): (Vec<_>, Vec<_>) = (self.processes.iter().collect(), Vec::new());
        by_use.sort_by(|a, b| by_cpu(a, b));
        by_size.extend(self.processes.iter());
        by_size.sort_by(|a, b| b.memory_bytes.cmp(&a.memory_bytes).then_with(|| a.name.cmp(&b.name)));
        let mut table = Table::new(&["BY CPU", "CORES", "", "BY MEMORY", "BYTES"]).right(&[1, 4]);
        for (busy, large) in by_use.into_iter().zip(by_size).take(GROUPS) {
            let (used, held) = (cores(busy.cpu_cores), size(large.memory_bytes));
            table.row([named(busy), used, String::new(), named(large), held]);
        }
        table.lines()
    }

    /// What is not well first, then the largest.
    fn containers(&self, when: &When) -> Vec<String> {
        let is_well = |one: &Container| one.state == "running" && one.health != "unhealthy";
        let mut sorted: Vec<&Container> = self.containers.iter().collect();
        sorted.sort_by(|a, b| {
            let by_size = b.memory_bytes.cmp(&a.memory_bytes);
            is_well(a).cmp(&is_well(b)).then(by_size).then_with(|| a.name.cmp(&b.name))
        });
        let mut table = Table::new(&["CONTAINER", "STATE", "FOR", "CORES", "MEMORY", "LIMIT", "IMAGE"]);
        table = table.right(&[2, 3, 4, 5]);
        for one in sorted.iter().take(CONTAINERS) {
            let state = match one.health.as_str() {
                "none" | "" => one.state.clone(),
                health => format!("{}, {health}", one.state),
            };
            let (used, held) = (cores(one.cpu_cores), size(one.memory_bytes));
            let limit = size(one.memory_limit_bytes);
            table.row([one.name.clone(), state, when.ago(one.since), used, held, limit, one.image.clone()]);
        }
        let mut lines = table.lines();
        let more = sorted.len().saturating_sub(CONTAINERS);
        if more > 0 {
            lines.push(format!("and {more} more: dunlin containers {}", self.node.name));
        }
        lines
    }

    fn ports(&self) -> String {
        let all = self.node.counts.map_or(0, |counts| counts.ports);
        let mut words: Vec<String> = Vec::new();
        for port in &self.exposed {
            let owner = port.container.as_deref().or(port.process.as_deref()).unwrap_or("?");
            let word = format!("{}/{} {owner}", port.port, port.protocol);
            // The same over both versions of IP is one.
            if !words.contains(&word) {
                words.push(word);
            }
        }
        let more = words.len().saturating_sub(PORTS);
        words.truncate(PORTS);
        let list = if words.is_empty() { String::from("none") } else { words.join(", ") };
        let rest = if more > 0 { format!(", and {more} more: dunlin ports --exposed") } else { String::new() };
        format!("EXPOSED ({} of {all} ports)  {list}{rest}", self.exposed.len())
    }
}

fn parsed<T: serde::de::DeserializeOwned>(items: Vec<Value>) -> Vec<T> {
    items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect()
}

/// Cores in use and all of them, as it was last.
fn busy(desk: &Desk<'_>, id: &str) -> Result<Option<(f64, f64)>, Failure> {
    let metrics = CPU.map(|mode| format!("metric=host_cpu_{mode}_seconds")).join("&");
    let page: SeriesPage = desk.client.get(&path(id, &format!("/series?{metrics}&subject=host&from=2m")))?;
    let last = |mode: &str| {
        let name = format!("host_cpu_{mode}_seconds");
        let series = page.items.iter().find(|series| series.metric == name)?;
        series.points.iter().rev().find_map(|(_, value)| *value)
    };
    let idle: f64 = CPU[..2].iter().filter_map(|mode| last(mode)).sum();
    let used: f64 = CPU[2..].iter().filter_map(|mode| last(mode)).sum();
    Ok((idle + used > 0.0).then_some((used, idle + used)))
}

fn named(process: &Process) -> String {
    match &process.container {
        Some(container) if *container != process.name => format!("{} ({container})", process.name),
        _ => process.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use dunlin_collector::shape::Moment;
    use dunlin_shared::time::WallMs;

    use super::*;
    use crate::alerts::tests::alert;

    fn node() -> Node {
        let text = r#"{"id":"0192f0c1","name":"db-1","state":"up","since":"2026-11-21T11:00:00Z",
            "last_seen":"2026-11-21T13:59:56Z","labels":{"env":"prod"},"facts":{"host_name":"db-1","os":"Debian 12",
            "kernel":"6.1.0","architecture":"x86_64","cpus":2,"memory_bytes":1,"boot_id":"b"},"version":"0.1.0",
            "skew_ms":3,"enrolled":"2026-11-21T14:00:00Z","interval_ms":10000,"ephemeral":false,"maintenance":null,
            "quarantined":[],"counts":{"containers":2,"containers_up":1,"processes":2,"ports":9,"ports_exposed":2,
            "units_failed":0},"changes":[{"cursor":"7-1","at":"2026-11-21T13:59:00Z","kind":"container.crashed",
            "node":"0192f0c1","name":"db-1","container":"web","exit_code":139,"happened":"2026-11-21T13:58:59Z"}]}"#;
        serde_json::from_str(text).expect("a node")
    }

    fn process(name: &str, cpu: Option<f64>, memory: u64) -> Process {
        let value = json!({ "node": "n", "node_name": "db-1", "name": name, "container": null, "unit": null,
            "user": null, "count": 1, "cpu_cores": cpu, "memory_bytes": memory, "threads": 1, "files_open": 1,
            "started": null, "since": "2026-11-21T13:00:00Z" });
        serde_json::from_value(value).expect("a process")
    }

    fn container(name: &str, state: &str, memory: u64) -> Container {
        let value = json!({ "node": "n", "node_name": "db-1", "name": name, "id": "a", "image": "i:1", "digest": "",
            "engine": "docker", "state": state, "health": "none", "restart_policy": "", "restarts": 0,
            "exit_code": null, "oom_killed": false, "stop_asked": false, "since": "2026-11-21T13:00:00Z",
            "started": null, "finished": null, "cpu_cores": 0.5, "cpu_limit_cores": null, "memory_bytes": memory,
            "memory_limit_bytes": null, "published": [], "networks": [], "compose_project": null,
            "compose_service": null, "labels": {}, "told_by_engine": true });
        serde_json::from_value(value).expect("a container")
    }

    fn port(address: &str) -> Port {
        let value = json!({ "node": "n", "node_name": "db-1", "protocol": "tcp", "address": address, "scope": "any",
            "port": 22, "process": "sshd", "container": null, "user": null, "network": null,
            "since": "2026-11-21T13:00:00Z" });
        serde_json::from_value(value).expect("a port")
    }

    fn picture() -> Picture {
        let value = |metric: &str, subject: &str, value| (metric.to_owned(), subject.to_owned(), value);
        Picture {
            node: node(),
            alerts: Vec::new(),
            busy: Some((0.68, 2.0)),
            values: vec![
                value("host_load1", "host", 0.5),
                value("host_memory_used_ratio", "host", 0.894),
                value("host_memory_total_bytes", "host", 1_932_735_283.0),
                value("fs_used_ratio", "fs:/boot", 0.1),
                value("fs_used_ratio", "fs:/", 0.45),
            ],
            processes: vec![process("mysqld", Some(0.25), 1 << 20), process("java", Some(0.01), 1 << 29)],
            containers: vec![container("db", "running", 1 << 29), container("web", "exited", 0)],
            exposed: vec![port("0.0.0.0"), port("::")],
        }
    }

    fn manner() -> Manner {
        Manner::of(None, |_| None, false)
    }

    fn when() -> When {
        When::utc("2026-11-21T14:00:00Z".parse::<Moment>().map_or(WallMs(0), |at| at.0))
    }

    #[test]
    fn one_screen_says_how_it_is_what_is_loaded_by_whom_and_what_changed() {
        let said = [
            "db-1  up for 3h, seen 4s ago  0192f0c1",
            "Debian 12, 6.1.0, x86_64; agent 0.1.0 every 10 s",
            "env=prod",
            "",
            "CPU     34 % of 2 cores   load 0.500 - -",
            "MEMORY  89 % of 1.8 GiB",
            "DISK    / 45 %   /boot 10 %",
            "",
            "BY CPU  CORES    BY MEMORY      BYTES",
            "mysqld   0.25    java       512.0 MiB",
            "java     0.01    mysqld       1.0 MiB",
            "",
            "CONTAINER  STATE    FOR  CORES     MEMORY  LIMIT  IMAGE",
            "web        exited   60m   0.50        0 B      -  i:1",
            "db         running  60m   0.50  512.0 MiB      -  i:1",
            "",
            "EXPOSED (2 of 9 ports)  22/tcp sshd",
            "",
            "LATELY (times are UTC)",
            "2026-11-21 13:59:00  container.crashed  container=web  exit_code=139",
        ];
        assert_eq!(picture().lines(&when(), &manner()), said);
        let mut wrong = picture();
        wrong.alerts = vec![alert("0123456789abcdef0123", "critical", "2026-11-21T13:45:00Z")];
        let lines = wrong.lines(&when(), &manner());
        assert_eq!(lines[3], "CRITICAL for 15m: db-1 uses 93.1 % of its memory  01234567");
    }

    #[test]
    fn a_node_with_much_of_everything_still_fits_on_a_screen() {
        let mut full = picture();
        full.processes = (0..99).map(|n| process(&format!("p{n}"), None, n)).collect();
        full.containers = (0..99).map(|n| container(&format!("c{n}"), "running", n)).collect();
        let event = full.node.changes.as_ref().expect("one")[0].clone();
        full.node.changes = Some(vec![event; 20]);
        full.alerts = vec![alert("0123456789abcdef0123", "critical", "2026-11-21T13:45:00Z"); 99];
        let lines = full.lines(&when(), &manner());
        assert!(lines.len() <= 30, "{} lines:\n{}", lines.len(), lines.join("\n"));
        assert!(lines.iter().any(|line| line == "and 94 more: dunlin containers db-1"), "{lines:?}");
    }
}
