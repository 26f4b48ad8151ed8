//! What one control group uses, from its files.

use std::path::{Path, PathBuf};

use super::hierarchy::{CPU, CPU_ACCOUNT, IO, MEMORY, TASKS};
use super::parse::{cores, cpu_max, io_split, io_unified, keyed, limit};
use crate::sample::float;
use crate::sample::source::Source;

/// Each is absent where the group does not tell it, and a limit where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::sample) struct Usage {
    pub(in crate::sample) cpu_seconds: Option<f64>,
    pub(in crate::sample) throttled_seconds: Option<f64>,
    pub(in crate::sample) cpu_limit_cores: Option<f64>,
    /// Charged, less inactive file cache.
    pub(in crate::sample) memory_used_bytes: Option<f64>,
    pub(in crate::sample) anon_bytes: Option<f64>,
    pub(in crate::sample) file_bytes: Option<f64>,
    pub(in crate::sample) kernel_bytes: Option<f64>,
    pub(in crate::sample) memory_limit_bytes: Option<f64>,
    pub(in crate::sample) swap_bytes: Option<f64>,
    pub(in crate::sample) oom_kills: Option<f64>,
    pub(in crate::sample) read_bytes: Option<f64>,
    pub(in crate::sample) written_bytes: Option<f64>,
    /// Processes and threads.
    pub(in crate::sample) tasks: Option<f64>,
}

/// What is read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sample) enum Part {
    Cpu,
    /// How much of it there may be.
    Limits,
    Memory,
    OomKills,
    Io,
    Tasks,
}

/// Where a controller's files are, and whether they are those of version 2.
type Dir = Option<(PathBuf, bool)>;

impl Usage {
    pub(super) fn read(&mut self, source: &mut Source, part: Part, dir: impl Fn(u8) -> Dir) {
        match part {
            Part::Cpu => self.cpu(source, dir(CPU_ACCOUNT), dir(CPU)),
            Part::Limits => self.limits(source, dir(MEMORY), dir(CPU)),
            Part::Memory => self.memory(source, dir(MEMORY)),
            Part::OomKills => self.oom_kills = oom_kills(source, dir(MEMORY)),
            Part::Io => self.io(source, dir(IO)),
            Part::Tasks => self.tasks = dir(TASKS).and_then(|(dir, _)| source.number(dir.join("pids.current"))),
        }
    }

    fn cpu(&mut self, source: &mut Source, account: Dir, cpu: Dir) {
        (self.cpu_seconds, self.throttled_seconds) = (None, None);
        match &account {
            Some((dir, false)) => self.cpu_seconds = source.number(dir.join("cpuacct.usage")).map(|ns| ns / 1e9),
            Some((dir, true)) => {
                let found = keys_of(source, &dir.join("cpu.stat"), ["usage_usec", "throttled_usec"]);
                let [used, throttled] = found.map(|us| us.map(|us| float(us) / 1e6));
                (self.cpu_seconds, self.throttled_seconds) = (used, throttled);
            }
            None => {}
        }
        if let Some((dir, false)) = &cpu {
            let [throttled] = keys_of(source, &dir.join("cpu.stat"), ["throttled_time"]);
            self.throttled_seconds = throttled.map(|ns| float(ns) / 1e9);
        }
    }

    fn limits(&mut self, source: &mut Source, memory: Dir, cpu: Dir) {
        (self.memory_limit_bytes, self.cpu_limit_cores) = (None, None);
        if let Some((dir, is_unified)) = memory {
            let file = if is_unified { "memory.max" } else { "memory.limit_in_bytes" };
            let text = source.read(dir.join(file)).ok();
            self.memory_limit_bytes = text.and_then(|text| limit(&text.lossy())).map(float);
        }
        match cpu {
            Some((dir, true)) => {
                let text = source.read(dir.join("cpu.max")).ok();
                self.cpu_limit_cores = text.and_then(|text| cpu_max(&text.lossy()));
            }
            Some((dir, false)) => {
                let mut number = |file: &str| source.line(dir.join(file))?.parse::<i64>().ok();
                let quota = number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us"));
                self.cpu_limit_cores = quota.and_then(|(quota, period)| cores(quota, period));
            }
            None => {}
        }
    }

    fn memory(&mut self, source: &mut Source, dir: Dir) {
        (self.memory_used_bytes, self.anon_bytes, self.file_bytes) = (None, None, None);
        (self.kernel_bytes, self.swap_bytes) = (None, None);
        let Some((dir, is_unified)) = dir else { return };
        let charged = if is_unified { "memory.current" } else { "memory.usage_in_bytes" };
        let charged = source.number(dir.join(charged));
        let stat = dir.join("memory.stat");
        let inactive = if is_unified {
            let keys = ["inactive_file", "anon", "file", "kernel", "kernel_stack", "pagetables", "percpu", "slab"];
            let [inactive, anon, file, kernel, rest @ ..] = keys_of(source, &stat, keys).map(|bytes| bytes.map(float));
            (self.anon_bytes, self.file_bytes) = (anon, file);
            // Kernels before 5.18 tell its parts alone.
            let parts = rest.iter().any(Option::is_some).then(|| rest.iter().flatten().sum());
            self.kernel_bytes = kernel.or(parts);
            self.swap_bytes = source.number(dir.join("memory.swap.current"));
            inactive
        } else {
            let keys = ["total_inactive_file", "total_rss", "total_cache", "total_swap"];
            let [inactive, anon, file, swap] = keys_of(source, &stat, keys).map(|bytes| bytes.map(float));
            (self.anon_bytes, self.file_bytes) = (anon, file);
            self.kernel_bytes = source.number(dir.join("memory.kmem.usage_in_bytes"));
            // Swap is accounted only where both are; the difference of two files may be below nothing for a moment.
            let both = source.number(dir.join("memory.memsw.usage_in_bytes")).zip(charged);
            self.swap_bytes = both.map(|(both, memory)| swap.unwrap_or((both - memory).max(0.0)));
            inactive
        };
        self.memory_used_bytes = charged.map(|charged| {
            let less = charged - inactive.unwrap_or_default();
            if less >= 0.0 { less } else { charged }
        });
    }

    fn io(&mut self, source: &mut Source, dir: Dir) {
        (self.read_bytes, self.written_bytes) = (None, None);
        let Some((dir, is_unified)) = dir else { return };
        // Of version 1 the plain file leaves out the groups below, and older kernels have no other.
        let files: &[&str] = if is_unified {
            &["io.stat"]
        } else {
            &["blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"]
        };
        for file in files {
            let Ok(text) = source.read(dir.join(file)) else { continue };
            let sums = if is_unified { io_unified(&text.lossy()) } else { io_split(&text.lossy()) };
            (self.read_bytes, self.written_bytes) = (Some(float(sums.0)), Some(float(sums.1)));
            return;
        }
    }
}

/// Its own and those of the groups below.
fn oom_kills(source: &mut Source, dir: Dir) -> Option<f64> {
    let (dir, is_unified) = dir?;
    let file = if is_unified { "memory.events" } else { "memory.oom_control" };
    let [kills] = keys_of(source, &dir.join(file), ["oom_kill"]);
    kills.map(float)
}

fn keys_of<const N: usize>(source: &mut Source, file: &Path, keys: [&str; N]) -> [Option<u64>; N] {
    source.read(file).map_or([None; N], |text| keyed(&text.lossy(), keys))
}
