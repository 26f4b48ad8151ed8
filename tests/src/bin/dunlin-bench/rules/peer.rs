//! Prometheus with a tenth of the fleet and the same rules: how long an evaluation of its group takes.
//!
//! Its targets are one small server that answers on as many loopback addresses, each with what a node of ours measures.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dunlin_shared::metric::{MetricId, by_id};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_tests::deadline::until;
use dunlin_tests::fleet::history::EPOCH;
use dunlin_tests::fleet::load::{Host, Load};
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scrape::Scrape;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;

use super::{PART, RULES, SERIES};
use crate::window::INTERVAL_MS;
use dunlin_tests::table::Table;

const LIMIT: Duration = Duration::from_secs(60);
const SERVERS: usize = 4;
/// The first twenty rules that ship, as far as its language says them.
const WORDS: [(&str, &str); RULES] = [
    ("cpu-busy", "1 - (rate(host_cpu_idle_seconds[5m]) + rate(host_cpu_iowait_seconds[5m])) / host_cpu_cores > 0.8"),
    ("load-high", "host_load5 > 4 * host_cpu_cores"),
    (
        "memory-pressure",
        "(host_memory_available_bytes / host_memory_total_bytes < 0.1) and ((rate(host_pressure_memory_some_seconds[5m]) > 0.1) \
         or (rate(host_major_faults[5m]) > 300 unless host_pressure_memory_some_seconds))",
    ),
    (
        "memory-critical",
        "(host_memory_available_bytes / host_memory_total_bytes < 0.05) and ((rate(host_pressure_memory_full_seconds[2m]) > 0.25) \
         or (rate(host_major_faults[2m]) > 2000 unless host_pressure_memory_full_seconds))",
    ),
    ("oom-kill", "increase(host_oom_kills[10m]) > 0"),
    ("swap-thrash", "rate(host_swap_in_bytes[5m]) > 1048576 and rate(host_swap_out_bytes[5m]) > 1048576"),
    (
        "io-pressure",
        "rate(host_pressure_io_full_seconds[10m]) > 0.5 and avg_over_time(host_processes_blocked[10m]) > 3",
    ),
    ("disk-low", "fs_used_ratio > 0.9 and fs_available_bytes < 21474836480 unless fs_read_only == 1"),
    ("disk-critical", "fs_used_ratio > 0.95 and fs_available_bytes < 4294967296 unless fs_read_only == 1"),
    (
        "disk-filling",
        "4 * delta(fs_used_bytes[1h]) > fs_available_bytes and 24 * delta(fs_used_bytes[10m]) > fs_available_bytes \
         and fs_used_ratio > 0.6",
    ),
    ("inodes-low", "fs_inodes_used_ratio > 0.9"),
    ("fs-read-only", "fs_read_only == 1 and min_over_time(fs_read_only[6h]) == 0"),
    ("fs-not-responding", "fs_responding == 0"),
    ("file-handles-high", "host_files_open / host_files_max > 0.8"),
    ("conntrack-high", "host_conntrack_entries / host_conntrack_max > 0.8"),
    ("socket-overflow", "rate(host_tcp_listen_overflows[10m]) + rate(host_udp_buffer_errors[10m]) > 1"),
    (
        "net-errors",
        "rate(net_receive_errors[15m]) + rate(net_send_errors[15m]) > 1 and 1000 * (rate(net_receive_errors[15m]) + \
         rate(net_send_errors[15m])) > rate(net_received_packets[15m]) + rate(net_sent_packets[15m])",
    ),
    ("clock-skew", "abs(host_time_error_seconds) > 5"),
    ("clock-unsynced", "host_time_synced == 0"),
    ("node-down", "up == 0"),
];

/// `ours` is what one frame takes here, judged by those rules.
pub(super) fn measure(table: &mut Table, ours: Duration, short: bool) -> Result<()> {
    match evaluate(table, ours, short) {
        Err(error) if short => table.note(PART, "prometheus is left out", format!("{error:#}")),
        Err(error) => return Err(error.context("make bench installs the peers: tests/scripts/prepare DIR peers")),
        Ok(()) => {}
    }
    Ok(())
}

fn evaluate(table: &mut Table, ours: Duration, short: bool) -> Result<()> {
    let binary = tool::find("prometheus")?;
    let (targets, interval_s, lasts) =
        if short { (20, 1, Duration::from_secs(6)) } else { (1_000, 10, Duration::from_secs(120)) };
    let scratch = Scratch::new("prometheus")?;
    let server = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let port = server.local_addr()?.port();
    configure(&scratch, targets, interval_s, port)?;
    let at = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let is_over = AtomicBool::new(false);
    let (times, cores) = scope(|scope| {
        for _ in 0..SERVERS {
            scope.spawn(|| serve(&server, interval_s, &is_over));
        }
        let program = Program::at(&binary).log(scratch.join("log"));
        let program = program.arg(format!("--config.file={}", scratch.join("prometheus.yml").display()));
        let program = program.arg(format!("--storage.tsdb.path={}", scratch.join("data").display()));
        let running = program.arg(format!("--web.listen-address={at}")).start().context("prometheus");
        let watched = running.and_then(|running| watch(&running, at, (targets, interval_s), lasts));
        is_over.store(true, Relaxed);
        // Each of them waits for one more.
        (0..SERVERS).for_each(|_| drop(TcpStream::connect((Ipv4Addr::LOCALHOST, port))));
        watched
    })?;
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)] * 1e3;
    let what = format!("prometheus, {targets} targets, {RULES} rules: an evaluation, median and longest");
    table.note(PART, what, format!("{:.1} ms, {:.1} ms", at(50), at(100)));
    table.note(PART, "prometheus, scrapes and all, of a core", format!("{cores:.3}"));
    let all = ours * u32::try_from(targets)?;
    table.note(
        PART,
        format!("here, a frame of each of {targets} nodes judged"),
        format!("{:.1} ms", all.as_secs_f64() * 1e3),
    );
    Ok(())
}

/// Evaluations, sorted, once all targets are known; and what it took of a core meanwhile.
fn watch(
    running: &Running,
    at: SocketAddr,
    (targets, interval_s): (usize, u64),
    lasts: Duration,
) -> Result<(Vec<f64>, f64)> {
    let metrics = || Scrape::parse(&running.get(at, "/metrics").ok()?.body).ok();
    let least = f64::from(u32::try_from(targets)?) * f64::from(u32::try_from(SERIES)?) * 0.9;
    let is_full = || (metrics()?.sum("prometheus_tsdb_head_series", &[]) >= least).then_some(());
    until("all targets", LIMIT, is_full).with_context(|| running.log_text())?;
    let (began, before) = (Instant::now(), running.usage()?.cpu);
    let mut times = Vec::new();
    while began.elapsed() < lasts {
        sleep(Duration::from_secs(interval_s));
        let now = metrics().context("prometheus answers no more")?;
        times.push(now.sum("prometheus_rule_group_last_duration_seconds", &[]));
    }
    // Before the first evaluation.
    times.retain(|time| *time > 0.0);
    ensure!(!times.is_empty(), "no rule was evaluated");
    times.sort_unstable_by(f64::total_cmp);
    Ok((times, (running.usage()?.cpu - before).as_secs_f64() / began.elapsed().as_secs_f64()))
}

fn configure(scratch: &Scratch, targets: usize, interval_s: u64, port: u16) -> Result<()> {
    let mut rules = format!("groups:\n- name: fleet\n  interval: {interval_s}s\n  rules:\n");
    for (name, words) in WORDS {
        writeln!(rules, "  - alert: {name}\n    expr: '{words}'\n    for: 10m")?;
    }
    std::fs::write(scratch.join("rules.yml"), rules)?;
    let rules = scratch.join("rules.yml");
    let mut config = format!(
        "global:\n  scrape_interval: {interval_s}s\n  scrape_timeout: {interval_s}s\n\
         rule_files: [{}]\nscrape_configs:\n- job_name: fleet\n  static_configs:\n  - targets:\n",
        rules.display()
    );
    for target in 0..targets {
        writeln!(config, "    - {}:{port}", address(target)?)?;
    }
    Ok(std::fs::write(scratch.join("prometheus.yml"), config)?)
}

fn address(target: usize) -> Result<Ipv4Addr> {
    let number = u16::try_from(target)?;
    let [high, low] = number.to_be_bytes();
    Ok(Ipv4Addr::new(127, 1, high, low))
}

/// Answers each scrape with what the node whose address was asked measures then.
fn serve(listener: &TcpListener, interval_s: u64, is_over: &AtomicBool) -> Result<()> {
    let (load, began) = (Load::made_up(1, SERIES), Instant::now());
    let mut hosts: HashMap<usize, Host> = HashMap::new();
    for stream in listener.incoming() {
        if is_over.load(Relaxed) {
            break;
        }
        let mut stream = stream?;
        let IpAddr::V4(asked) = stream.local_addr()?.ip() else { bail!("an address of version 4") };
        let node = usize::from(u16::from_be_bytes([asked.octets()[2], asked.octets()[3]]));
        let mut request = [0; 4_096];
        // One write of a client is one read here; a scrape that fails is told by its target's absence.
        if stream.read(&mut request).is_err() {
            continue;
        }
        let host = hosts.entry(node).or_insert_with(|| load.host(node, EPOCH));
        let page = page(host, 1 + began.elapsed().as_secs() / interval_s)?;
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            page.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(page.as_bytes())).ok();
    }
    Ok(())
}

fn page(host: &Host, tick: u64) -> Result<String> {
    let mut page = String::new();
    for (subject, metric, steps) in host.sample(tick, MonoMs(tick * INTERVAL_MS), WallMs(0)).rows() {
        let Some(metric) = by_id(MetricId(metric.raw())) else { continue };
        writeln!(page, "{}{{subject={:?}}} {}", metric.name, subject.to_string(), metric.step.value(*steps))?;
    }
    Ok(page)
}
