//! Memory and load of the host.
//!
//! More parts follow; each is a function from a root to rows, and its failure costs only itself.

use std::path::Path;

use dunlin_shared::metric::{Metric, by_name};
use dunlin_shared::sample::{Sample, Subject};

use super::{SampleError, malformed, read};

/// Adds every part to the sample and returns what failed.
pub fn sample_host(root: &Path, sample: &mut Sample) -> Vec<SampleError> {
    [memory(root, sample), load(root, sample)].into_iter().filter_map(Result::err).collect()
}

fn memory(root: &Path, sample: &mut Sample) -> Result<(), SampleError> {
    let (path, text) = read(root, "proc/meminfo")?;
    let mut parts = [0.0; 9];
    const NAMES: [&str; 9] =
        ["MemTotal", "MemAvailable", "MemFree", "Cached", "SReclaimable", "Buffers", "Shmem", "SwapTotal", "SwapFree"];
    for (number, line) in text.lines().enumerate() {
        let (name, rest) = line.split_once(':').ok_or_else(|| malformed(&path, number, line))?;
        let Some(part) = NAMES.iter().position(|known| *known == name) else { continue };
        let kib = rest.trim().trim_end_matches(" kB").parse::<u64>().map_err(|_| malformed(&path, number, line))?;
        #[expect(clippy::cast_precision_loss, reason = "memory sizes fit 53 bits")]
        let bytes = (kib * 1024) as f64;
        parts[part] = bytes;
    }
    let [total, available, free, cached, reclaimable, buffers, shared, swap_total, swap_free] = parts;
    if total <= 0.0 {
        return Err(malformed(&path, 0, "no MemTotal"));
    }
    let used = total - available;
    for (name, value) in [
        ("host_memory_total_bytes", total),
        ("host_memory_available_bytes", available),
        ("host_memory_used_bytes", used),
        ("host_memory_used_ratio", used / total),
        ("host_memory_free_bytes", free),
        ("host_memory_cached_bytes", cached + reclaimable),
        ("host_memory_buffers_bytes", buffers),
        ("host_memory_shared_bytes", shared),
        ("host_swap_total_bytes", swap_total),
        ("host_swap_used_bytes", swap_total - swap_free),
    ] {
        sample.push(&Subject::HOST(), metric(name), value);
    }
    Ok(())
}

fn load(root: &Path, sample: &mut Sample) -> Result<(), SampleError> {
    let (path, text) = read(root, "proc/loadavg")?;
    let line = text.lines().next().unwrap_or_default();
    let wrong = || malformed(&path, 0, line);
    let fields: Vec<&str> = line.split(' ').collect();
    for (field, name) in ["host_load1", "host_load5", "host_load15"].into_iter().enumerate() {
        let value = fields.get(field).and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        sample.push(&Subject::HOST(), metric(name), value);
    }
    let (running, threads) = fields.get(3).and_then(|text| text.split_once('/')).ok_or_else(wrong)?;
    sample.push(&Subject::HOST(), metric("host_processes_running"), running.parse().map_err(|_| wrong())?);
    sample.push(&Subject::HOST(), metric("host_threads"), threads.parse().map_err(|_| wrong())?);
    Ok(())
}

fn metric(name: &str) -> &'static Metric {
    by_name(name).expect("the name stands in the catalogue: every call here is tested")
}

#[cfg(test)]
mod tests {
    use dunlin_shared::codec::Grouper;
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;

    fn tree(files: &[(&str, &str)]) -> std::path::PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("dunlin-host-{}-{unique}", std::process::id()));
        for (name, text) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
            std::fs::write(path, text).expect("it can be written");
        }
        root
    }

    const MEMINFO: &str = "MemTotal: 2000 kB\nMemFree: 100 kB\nMemAvailable: 500 kB\nBuffers: 10 kB\n\
                           Cached: 200 kB\nSwapTotal: 64 kB\nSwapFree: 0 kB\nShmem: 5 kB\nSReclaimable: 20 kB\n\
                           HugePages_Total: 0\n";

    #[test]
    fn memory_and_load_of_a_recorded_host() {
        let root = tree(&[("proc/meminfo", MEMINFO), ("proc/loadavg", "0.50 1.25 2.00 3/411 99\n")]);
        let mut sample = Sample::new(MonoMs(0), WallMs(0));
        let failures = sample_host(&root, &mut sample);
        assert!(failures.is_empty(), "{failures:?}");
        let (reading, _) = Grouper::default().lay_out(&sample);
        let value = |name| reading.value(&Subject::HOST(), name);
        assert_eq!(value("host_memory_used_ratio"), Some(0.75));
        assert_eq!(value("host_swap_used_bytes"), Some(65_536.0));
        assert_eq!((value("host_load5"), value("host_threads")), (Some(1.25), Some(411.0)));
    }

    #[test]
    fn a_part_that_fails_costs_itself_alone_and_names_its_file() {
        let root = tree(&[("proc/meminfo", MEMINFO), ("proc/loadavg", "garbage")]);
        let mut sample = Sample::new(MonoMs(0), WallMs(0));
        let failures = sample_host(&root, &mut sample);
        assert_eq!(failures.len(), 1);
        assert!(failures[0].to_string().contains("proc/loadavg line 1"), "{}", failures[0]);
        assert_eq!(sample.rows().len(), 10);
    }
}
