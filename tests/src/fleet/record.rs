//! Samples the machine it runs on into the catalogue's metrics, for recordings that benches replay.
//!
//! It reads only files of `/proc` and the sizes of file systems. A part that this machine has not is
//! left out; what matters is that a recording moves as a real host does.

use std::collections::BTreeMap;
use std::fs;

use dunlin_shared::metric::by_name;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::time::{MonoMs, WallMs};

/// Takes samples of about so many series.
#[derive(Debug)]
pub struct Recorder {
    series: usize,
    /// Process groups that were the largest at the first tick; they stay so that the series stay.
    groups: Option<Vec<String>>,
}

#[derive(Default)]
struct Group {
    count: f64,
    cpu_seconds: f64,
    rss_bytes: f64,
    threads: f64,
    files: f64,
}

/// File systems in memory that an agent would watch: those that can fill up.
const MEMORY_MOUNTS: [&str; 3] = ["/run", "/dev/shm", "/tmp"];
/// What a process group has.
const GROUP_SERIES: usize = 5;

impl Recorder {
    #[must_use]
    pub const fn new(series: usize) -> Self {
        Self { series, groups: None }
    }

    #[must_use]
    pub fn sample(&mut self, mono: MonoMs, wall: WallMs) -> Sample {
        let mut sample = Sample::new(mono, wall);
        cpu(&mut sample);
        memory(&mut sample);
        vm(&mut sample);
        load(&mut sample);
        pressure(&mut sample);
        sockets(&mut sample);
        file_systems(&mut sample);
        disks(&mut sample);
        nets(&mut sample);
        self.processes(&mut sample);
        sample
    }

    fn processes(&mut self, sample: &mut Sample) {
        let groups = groups();
        let room = self.series.saturating_sub(sample.rows().len()) / GROUP_SERIES;
        let chosen = self.groups.get_or_insert_with(|| {
            let mut largest: Vec<_> = groups.iter().collect();
            let size = |group: &Group| (group.rss_bytes, group.cpu_seconds);
            largest.sort_by(|a, b| size(b.1).partial_cmp(&size(a.1)).unwrap_or(std::cmp::Ordering::Equal));
            largest.into_iter().take(room).map(|(name, _)| name.clone()).collect()
        });
        for name in chosen {
            let (Some(group), Some(subject)) = (groups.get(name), Subject::new(SubjectKind::Process, name)) else {
                continue;
            };
            put(sample, &subject, "process_count", group.count);
            put(sample, &subject, "process_cpu_seconds", group.cpu_seconds);
            put(sample, &subject, "process_memory_bytes", group.rss_bytes);
            put(sample, &subject, "process_threads", group.threads);
            put(sample, &subject, "process_files_open", group.files);
        }
    }
}

fn cpu(sample: &mut Sample) {
    let text = read("/proc/stat");
    let hz = ticks_per_second();
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    let times = numbers(line("cpu").unwrap_or_default());
    if let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = times[..] {
        for (name, ticks) in [
            ("host_cpu_user_seconds", user + nice),
            ("host_cpu_system_seconds", system),
            ("host_cpu_idle_seconds", idle),
            ("host_cpu_iowait_seconds", iowait),
            ("host_cpu_irq_seconds", irq),
            ("host_cpu_softirq_seconds", softirq),
            ("host_cpu_steal_seconds", steal),
            ("host_cpu_nice_seconds", nice),
        ] {
            put_host(sample, name, ticks / hz);
        }
    }
    let cores = text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    put_host(sample, "host_cpu_cores", numbers(&cores.to_string()).first().copied().unwrap_or(0.0));
    for (key, name) in [
        ("ctxt", "host_context_switches"),
        ("intr", "host_interrupts"),
        ("processes", "host_forks"),
        ("procs_running", "host_processes_running"),
        ("procs_blocked", "host_processes_blocked"),
    ] {
        if let Some(&value) = line(key).map(numbers).unwrap_or_default().first() {
            put_host(sample, name, value);
        }
    }
}

fn memory(sample: &mut Sample) {
    let text = read("/proc/meminfo");
    let kib = |key: &str| field(&text, key).unwrap_or(0.0) * 1_024.0;
    let (total, available) = (kib("MemTotal:"), kib("MemAvailable:"));
    for (name, value) in [
        ("host_memory_total_bytes", total),
        ("host_memory_available_bytes", available),
        ("host_memory_used_bytes", total - available),
        ("host_memory_used_ratio", (total - available) / total),
        ("host_memory_free_bytes", kib("MemFree:")),
        ("host_memory_cached_bytes", kib("Cached:") + kib("SReclaimable:")),
        ("host_memory_buffers_bytes", kib("Buffers:")),
        ("host_memory_shared_bytes", kib("Shmem:")),
        ("host_memory_dirty_bytes", kib("Dirty:")),
        ("host_swap_total_bytes", kib("SwapTotal:")),
        ("host_swap_used_bytes", kib("SwapTotal:") - kib("SwapFree:")),
    ] {
        put_host(sample, name, value);
    }
}

fn vm(sample: &mut Sample) {
    let text = read("/proc/vmstat");
    for (key, name, unit) in [
        ("pswpin", "host_swap_in_bytes", 4_096.0),
        ("pswpout", "host_swap_out_bytes", 4_096.0),
        ("oom_kill", "host_oom_kills", 1.0),
    ] {
        if let Some(value) = field(&text, key) {
            put_host(sample, name, value * unit);
        }
    }
}

fn load(sample: &mut Sample) {
    let text = read("/proc/loadavg").replace('/', " ");
    if let [one, five, fifteen, _, threads, ..] = numbers(&text)[..] {
        put_host(sample, "host_load1", one);
        put_host(sample, "host_load5", five);
        put_host(sample, "host_load15", fifteen);
        put_host(sample, "host_threads", threads);
    }
    if let [open, _, most, ..] = numbers(&read("/proc/sys/fs/file-nr"))[..] {
        put_host(sample, "host_files_open", open);
        put_host(sample, "host_files_max", most);
    }
    for (file, name) in
        [("/proc/sys/kernel/random/entropy_avail", "host_entropy_bits"), ("/proc/uptime", "host_uptime_seconds")]
    {
        if let Some(&value) = numbers(&read(file)).first() {
            put_host(sample, name, value);
        }
    }
}

fn pressure(sample: &mut Sample) {
    for (file, line, name) in [
        ("cpu", "some", "host_pressure_cpu_some_seconds"),
        ("memory", "some", "host_pressure_memory_some_seconds"),
        ("memory", "full", "host_pressure_memory_full_seconds"),
        ("io", "some", "host_pressure_io_some_seconds"),
        ("io", "full", "host_pressure_io_full_seconds"),
    ] {
        let text = read(&format!("/proc/pressure/{file}"));
        let found = text.lines().find(|found| found.starts_with(line));
        if let Some(us) = found.and_then(|found| found.rsplit_once("total=")?.1.parse::<f64>().ok()) {
            put_host(sample, name, us / 1e6);
        }
    }
}

fn sockets(sample: &mut Sample) {
    let text = read("/proc/net/sockstat");
    if let Some(used) = field(&text, "sockets: used") {
        put_host(sample, "host_sockets_used", used);
    }
    let tcp = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    if let Some(waiting) = tcp.split_once(" tw ").and_then(|(_, rest)| numbers(rest).first().copied()) {
        put_host(sample, "host_tcp_time_wait", waiting);
    }
    for (file, head, key, name) in [
        ("snmp", "Tcp:", "CurrEstab", "host_tcp_established"),
        ("snmp", "Tcp:", "RetransSegs", "host_tcp_retransmits"),
        ("snmp", "Tcp:", "OutRsts", "host_tcp_resets_sent"),
        ("snmp", "Udp:", "InErrors", "host_udp_errors"),
        ("snmp", "Udp:", "RcvbufErrors", "host_udp_buffer_errors"),
        ("netstat", "TcpExt:", "ListenOverflows", "host_tcp_listen_overflows"),
    ] {
        let text = read(&format!("/proc/net/{file}"));
        let mut lines = text.lines().filter(|line| line.starts_with(head));
        if let (Some(names), Some(values)) = (lines.next(), lines.next())
            && let Some(at) = names.split_whitespace().position(|word| word == key)
            && let Some(value) = values.split_whitespace().nth(at).and_then(|word| word.parse().ok())
        {
            put_host(sample, name, value);
        }
    }
}

fn file_systems(sample: &mut Sample) {
    let mut seen = Vec::new();
    for line in read("/proc/mounts").lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(at)) = (words.next(), words.next()) else { continue };
        let real = device.starts_with("/dev/") || at == "/" || (device == "tmpfs" && MEMORY_MOUNTS.contains(&at));
        let key = if device == "tmpfs" { at } else { device };
        if !real || seen.iter().any(|known| known == key) {
            continue;
        }
        let (Ok(size), Some(subject)) = (rustix::fs::statvfs(at), Subject::new(SubjectKind::Fs, at)) else { continue };
        seen.push(key.to_owned());
        let [total, free, available, inodes, inodes_free] = [
            size.f_blocks * size.f_frsize,
            size.f_bfree * size.f_frsize,
            size.f_bavail * size.f_frsize,
            size.f_files,
            size.f_ffree,
        ]
        .map(float);
        put(sample, &subject, "fs_total_bytes", total);
        put(sample, &subject, "fs_used_bytes", total - free);
        put(sample, &subject, "fs_available_bytes", available);
        put(sample, &subject, "fs_used_ratio", (total - free) / (total - free + available).max(1.0));
        put(sample, &subject, "fs_inodes_total", inodes);
        put(sample, &subject, "fs_inodes_used", inodes - inodes_free);
    }
}

fn disks(sample: &mut Sample) {
    for line in read("/proc/diskstats").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some((name, rest)) = words.get(2).zip(words.get(3..14)) else { continue };
        let counts: Vec<f64> = rest.iter().filter_map(|word| word.parse().ok()).collect();
        let [reads, _, sectors_read, read_ms, writes, _, sectors_written, write_ms, flying, busy_ms, queue_ms] =
            counts[..]
        else {
            continue;
        };
        let whole = fs::metadata(format!("/sys/block/{name}/device")).is_ok();
        let Some(subject) = Subject::new(SubjectKind::Disk, name).filter(|_| whole && reads + writes > 0.0) else {
            continue;
        };
        for (metric, value) in [
            ("disk_read_bytes", sectors_read * 512.0),
            ("disk_written_bytes", sectors_written * 512.0),
            ("disk_reads", reads),
            ("disk_writes", writes),
            ("disk_read_wait_seconds", read_ms / 1e3),
            ("disk_write_wait_seconds", write_ms / 1e3),
            ("disk_busy_seconds", busy_ms / 1e3),
            ("disk_queue_seconds", queue_ms / 1e3),
            ("disk_in_flight", flying),
        ] {
            put(sample, &subject, metric, value);
        }
    }
}

fn nets(sample: &mut Sample) {
    for line in read("/proc/net/dev").lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let [rx_bytes, rx_packets, rx_errors, rx_drops, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_drops, ..] =
            numbers(rest)[..]
        else {
            continue;
        };
        let name = name.trim();
        if fs::metadata(format!("/sys/class/net/{name}/device")).is_err() {
            continue;
        }
        let Some(subject) = Subject::new(SubjectKind::Net, name) else { continue };
        for (metric, value) in [
            ("net_received_bytes", rx_bytes),
            ("net_sent_bytes", tx_bytes),
            ("net_received_packets", rx_packets),
            ("net_sent_packets", tx_packets),
            ("net_receive_errors", rx_errors),
            ("net_send_errors", tx_errors),
            ("net_receive_drops", rx_drops),
            ("net_send_drops", tx_drops),
        ] {
            put(sample, &subject, metric, value);
        }
    }
}

/// Processes by the name that the kernel has for them, its own threads included.
fn groups() -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else { return groups };
    for entry in entries.flatten() {
        let stat = read(&entry.path().join("stat").to_string_lossy());
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(") ")) else { continue };
        // From the third field on: the state is not a number.
        let fields = numbers(rest.split_once(' ').map_or("", |(_, rest)| rest));
        let (Some(user), Some(system), Some(threads), Some(rss)) =
            (fields.get(10), fields.get(11), fields.get(16), fields.get(20))
        else {
            continue;
        };
        // Threads of the kernel are named by their work and processor behind a slash.
        let name = name.split(['/', ':']).next().unwrap_or(name);
        let group = groups.entry(name.replace(' ', "_")).or_default();
        group.count += 1.0;
        group.cpu_seconds += (user + system) / ticks_per_second();
        group.rss_bytes += rss * 4_096.0;
        group.threads += threads;
        group.files += fs::read_dir(entry.path().join("fd")).map_or(0.0, |files| files.map(|_| 1.0).sum());
    }
    groups
}

fn put_host(sample: &mut Sample, metric: &str, value: f64) {
    put(sample, &Subject::HOST(), metric, value);
}

fn put(sample: &mut Sample, subject: &Subject, metric: &str, value: f64) {
    sample.push(subject, by_name(metric).expect("the names of this file are in the catalogue"), value);
}

/// What cannot be read reads as empty: that part is left out.
fn read(path: &str) -> String {
    fs::read(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Leading numbers of a text.
fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().map_while(|word| word.parse().ok()).collect()
}

/// The number behind a key at the beginning of a line.
fn field(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| numbers(line.strip_prefix(key)?.strip_prefix([' ', '\t'])?).first().copied())
}

fn ticks_per_second() -> f64 {
    float(rustix::param::clock_ticks_per_second())
}

#[expect(clippy::cast_precision_loss, reason = "sizes of disks fit 53 bits")]
const fn float(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_the_series_of_a_host_and_keeps_them() {
        let mut recorder = Recorder::new(150);
        let [first, second] = [1, 2].map(|n| recorder.sample(MonoMs(n), WallMs(0)));
        for name in ["host_cpu_idle_seconds", "host_memory_used_ratio", "host_load1", "net_received_bytes"] {
            let id = by_name(name).expect("in the catalogue").id.0;
            assert!(first.rows().iter().any(|(_, metric, _)| metric.raw() == id), "{name}");
        }
        assert!((60..=150).contains(&first.rows().len()), "{}", first.rows().len());
        assert!(second.rows().len() <= first.rows().len() + GROUP_SERIES);
    }
}
