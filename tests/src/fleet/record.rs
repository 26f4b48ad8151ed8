//! Samples the machine it runs on into the catalogue's metrics, for recordings that benches replay.
//!
//! The host is sampled by the agent's own sampler. The largest groups of processes come on top, as many as there is room
//! for; what matters is that a recording moves as a real host does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use dunlin_agent::clock::Clock;
use dunlin_agent::sample::Sampler;
use dunlin_agent::stats::Stats;
use dunlin_shared::metric::by_name;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::time::{MonoMs, WallMs};

/// Takes samples of about so many series.
#[derive(Debug)]
pub struct Recorder {
    sampler: Sampler,
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

/// What a process group has.
const GROUP_SERIES: usize = 5;

impl Recorder {
    #[must_use]
    pub fn new(series: usize) -> Self {
        let sampler = Sampler::new(Path::new("/"), Clock::start(), Arc::new(Stats::default()));
        Self { sampler, series, groups: None }
    }

    #[must_use]
    pub fn sample(&mut self, mono: MonoMs, wall: WallMs) -> Sample {
        let mut sample = self.sampler.sample(mono, wall).sample;
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
        // More than a host has: one with many file systems has several hundred.
        let mut recorder = Recorder::new(2_000);
        let [first, second] = [1, 2].map(|n| recorder.sample(MonoMs(n), WallMs(0)));
        for name in ["host_cpu_idle_seconds", "host_memory_used_ratio", "host_load1", "net_received_bytes"] {
            let id = by_name(name).expect("in the catalogue").id.0;
            assert!(first.rows().iter().any(|(_, metric, _)| metric.raw() == id), "{name}");
        }
        assert!((60..=2_000).contains(&first.rows().len()), "{}", first.rows().len());
        assert!(second.rows().len() <= first.rows().len() + GROUP_SERIES);
    }
}
