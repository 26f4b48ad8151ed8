//! What the agent says of this host beside what the system's own tools say of it.
//!
//! A value that only grows lies between two readings of the tool. One that goes up and down is compared when the tool
//! said nearly the same before and after, which a host does sooner or later, however busy it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use dunlin_tests::deadline::until;
use dunlin_tests::tool;
use serde_json::Value;

use crate::{LIMIT, agent_binary};

/// What may move between the two readings, and what the agent may then be off, as a part of the whole: nothing that
/// anybody would act on, and more than an idle host moves in a second.
const NEAR: f64 = 0.01;

/// One sample of the real program, by subject and metric.
struct Said {
    values: BTreeMap<(String, String), f64>,
    json: Value,
}

impl Said {
    fn now() -> Self {
        let output = Command::new(agent_binary()).args(["once", "--json"]).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let of = |series: &Value| {
            let text = |key: &str| series[key].as_str().expect("a name").to_owned();
            ((text("subject"), text("metric")), series["value"].as_f64().expect("a number"))
        };
        let values = json["series"].as_array().expect("a list").iter().map(of).collect();
        Self { values, json }
    }

    fn of(&self, subject: &str, metric: &str) -> f64 {
        let key = (subject.to_owned(), metric.to_owned());
        *self.values.get(&key).unwrap_or_else(|| panic!("{subject} {metric} is not told"))
    }

    fn host(&self, metric: &str) -> f64 {
        self.of("host", metric)
    }

    fn subjects(&self, kind: &str) -> Vec<String> {
        let mut names: Vec<String> =
            self.values.keys().filter_map(|(s, _)| s.strip_prefix(kind)).map(str::to_owned).collect();
        names.dedup();
        names
    }
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Takes both until the host stood still meanwhile, and gives what the tool and the agent said then.
fn at_rest(what: &str, whole: f64, read: impl Fn() -> Vec<f64>) -> (Vec<f64>, Said) {
    let still = until(what, LIMIT, || {
        let (before, said, after) = (read(), Said::now(), read());
        let moved = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        (before.len() == after.len() && moved <= whole * NEAR).then_some((after, said))
    });
    still.expect("the host stands still for a second")
}

#[track_caller]
fn assert_near(what: &str, said: f64, tool: f64, slack: f64) {
    assert!((said - tool).abs() <= slack, "{what}: the agent says {said}, the tool {tool}; {slack} are allowed");
}

#[test]
fn memory_agrees_with_free() {
    let free = || {
        let text = tool::run("free", &["-b", "-w"]).expect("free is there");
        let line = |head: &str| numbers(text.lines().find_map(|line| line.strip_prefix(head)).expect("its line"));
        [line("Mem:"), line("Swap:")].concat()
    };
    let total = free()[0];
    let (found, said) = at_rest("memory at rest", total, free);
    let [total, _, free, shared, buffers, cached, available, swap_total, swap_used, _] = found[..] else {
        panic!("free prints other columns: {found:?}");
    };
    assert_near("total", said.host("host_memory_total_bytes"), total, 4_096.0);
    assert_near("swap", said.host("host_swap_total_bytes"), swap_total, 4_096.0);
    // The precision of the catalogue comes on top.
    let slack = total * 2.0 * NEAR + 65_536.0;
    for (name, value) in [
        ("host_memory_free_bytes", free),
        ("host_memory_shared_bytes", shared),
        ("host_memory_buffers_bytes", buffers),
        ("host_memory_cached_bytes", cached),
        ("host_memory_available_bytes", available),
        ("host_memory_used_bytes", total - available),
        ("host_swap_used_bytes", swap_used),
    ] {
        assert_near(name, said.host(name), value, slack);
    }
}

#[test]
fn processor_time_agrees_with_proc_stat() {
    let stat = || {
        let text = std::fs::read_to_string("/proc/stat").expect("it is there");
        let line = |head: &str| numbers(text.lines().find_map(|line| line.strip_prefix(head)).expect("its line"));
        let modes: Vec<f64> = line("cpu ").iter().map(|ticks| ticks / 100.0).collect();
        (
            modes,
            line("ctxt ")[0],
            line("processes ")[0],
            text.lines().filter(|line| line.starts_with("cpu")).count() - 1,
        )
    };
    let (before, said, after) = (stat(), Said::now(), stat());
    let named: [(&str, &[usize]); 6] =
        [("user", &[0, 1]), ("nice", &[1]), ("system", &[2]), ("irq", &[5]), ("softirq", &[6]), ("steal", &[7])];
    for (mode, columns) in named {
        let [low, high] = [&before.0, &after.0].map(|modes| columns.iter().map(|&column| modes[column]).sum::<f64>());
        let value = said.host(&format!("host_cpu_{mode}_seconds"));
        assert!((low - 0.01..=high + 0.01).contains(&value), "{mode}: {value} is not within {low} and {high}");
    }
    // The kernel's idle time may go back by a tick or two; one second of each core is more than that.
    let idle = said.host("host_cpu_idle_seconds");
    assert!((before.0[3] - 1.0..=after.0[3] + 1.0).contains(&idle), "{idle}");
    let switches = said.host("host_context_switches");
    assert!((before.1 - 1_000.0..=after.1 + 1_000.0).contains(&switches), "{switches}");
    let forks = said.host("host_forks");
    assert!((before.2..=after.2).contains(&forks), "{forks}");
    #[expect(clippy::cast_precision_loss, reason = "processors")]
    let cores = after.3 as f64;
    assert_eq!(said.host("host_cpu_cores"), cores);
    let (least, most) = (said.host("host_cpu_busy_core_min_ratio"), said.host("host_cpu_busy_core_max_ratio"));
    assert!((0.0..=1.0).contains(&least) && (least..=1.0).contains(&most), "{least} {most}");
}

#[test]
fn file_systems_agree_with_df() {
    let df = |columns: &str, path: &str| {
        let text = tool::run("df", &["-B1", &format!("--output={columns}"), path]).expect("df is there");
        numbers(text.lines().nth(1).expect("a line of values"))
    };
    let names: Vec<String> = Said::now().subjects("fs:");
    assert!(names.iter().any(|name| name == "/"), "{names:?}");
    for name in names.iter().filter(|name| !name.contains('\\') && Path::new(name).exists()) {
        let read = || df("size,used,avail,itotal,iused", name);
        let whole = read()[0];
        let (found, said) = at_rest(name, whole, read);
        let [size, used, available, inodes, inodes_used] = found[..] else { panic!("{found:?}") };
        let subject = format!("fs:{name}");
        assert_near("size", said.of(&subject, "fs_total_bytes"), size, 4_096.0);
        let slack = whole * 2.0 * NEAR + 65_536.0;
        assert_near("used", said.of(&subject, "fs_used_bytes"), used, slack);
        assert_near("available", said.of(&subject, "fs_available_bytes"), available, slack);
        assert_near("inodes", said.of(&subject, "fs_inodes_total"), inodes, 0.0);
        // Inodes come and go in whole trees where something is built.
        assert_near("inodes used", said.of(&subject, "fs_inodes_used"), inodes_used, inodes * NEAR);
        if used + available > 1_000.0 * 65_536.0 {
            assert_near("ratio", said.of(&subject, "fs_used_ratio"), used / (used + available), 2.0 * NEAR);
        }
    }
}

#[test]
fn interfaces_agree_with_ip() {
    let links = || -> Vec<Value> {
        let text = tool::run("ip", &["-j", "-s", "link"]).expect("ip is there");
        serde_json::from_str(&text).expect("it is JSON")
    };
    let of = |links: &[Value], name: &str| links.iter().find(|link| link["ifname"] == name).cloned();
    let (before, said, after) = (links(), Said::now(), links());
    let names = said.subjects("net:");
    for name in &names {
        let (before, after) = (of(&before, name).expect("ip knows it"), of(&after, name).expect("ip knows it"));
        for (metric, way, key) in [
            ("net_received_bytes", "rx", "bytes"),
            ("net_received_packets", "rx", "packets"),
            ("net_receive_errors", "rx", "errors"),
            ("net_sent_bytes", "tx", "bytes"),
            ("net_sent_packets", "tx", "packets"),
            ("net_send_errors", "tx", "errors"),
            ("net_send_drops", "tx", "dropped"),
        ] {
            let [low, high] = [&before, &after].map(|link| link["stats64"][way][key].as_f64().expect("a number"));
            let value = said.of(&format!("net:{name}"), metric);
            assert!((low..=high).contains(&value), "{name} {metric}: {value} is not within {low} and {high}");
        }
    }
    // What was left out is the loopback, an end of somebody else's link, or never carried anything.
    for link in &before {
        let name = link["ifname"].as_str().expect("a name").to_owned();
        let carried = ["rx", "tx"].map(|way| link["stats64"][way]["packets"].as_f64().unwrap_or(0.0));
        let is_physical = Path::new("/sys/class/net").join(&name).join("device").exists();
        assert!(!is_physical || names.contains(&name), "{name} is a card with {carried:?} packets and is not told");
    }
    assert!(!names.contains(&"lo".to_owned()));
}

#[test]
fn load_and_uptime_agree_with_uptime() {
    let averages = || {
        let text = tool::run("uptime", &[] as &[&str]).expect("uptime is there");
        let (_, averages) = text.split_once("load average:").expect("it prints averages");
        numbers(&averages.replace(',', " "))
    };
    // The kernel brings them up to date every 5 s; in between they stand still.
    let (found, said) = at_rest("load at rest", 0.0, averages);
    for (metric, average) in ["host_load1", "host_load5", "host_load15"].into_iter().zip(found) {
        assert_near(metric, said.host(metric), average, 0.005);
    }
    let up = std::fs::read_to_string("/proc/uptime").expect("it is there");
    // The catalogue keeps it to ten minutes.
    assert_near("uptime", said.host("host_uptime_seconds"), numbers(&up)[0], 301.0 + LIMIT.as_secs_f64());
    let booted = tool::run("date", &["-d", tool::run("uptime", &["-s"]).expect("it prints").trim(), "+%s"]);
    let booted: f64 = booted.expect("date reads it").trim().parse().expect("a number");
    assert_near("boot", said.host("host_boot_seconds"), booted, 10.0);
}

#[test]
fn this_host_is_told_without_failures_and_as_what_it_is() {
    let said = Said::now();
    let kernel = tool::run("uname", &["-r"]).expect("uname is there");
    assert_eq!(said.json["facts"]["kernel"].as_str(), Some(kernel.trim()));
    let failures = said.json["failures"].as_array().expect("a list");
    let failed = failures.iter().filter(|failure| !failure["message"].to_string().contains("is not there: "));
    assert_eq!(failed.count(), 0, "{failures:?}");
    let rates = said.json["series"].as_array().expect("a list");
    // Other subjects may have come between the two looks.
    let counters = rates.iter().filter(|series| series["kind"] == "counter" && series["subject"] == "host");
    assert!(counters.clone().count() > 20 && counters.clone().all(|series| series["per_second"].is_number()));
}
