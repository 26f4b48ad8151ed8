//! Memory and swap: how much there is and where it went, from `/proc/meminfo`, and how much moved, from `/proc/vmstat`.
//!
//! What ZFS caches is in no line of `/proc/meminfo`: the kernel takes it for used, though most of it can be had back.

use dunlin_shared::metric::Metric;
use dunlin_shared::sample::Sample;

use super::failure::{Failures, SampleError};
use super::source::{Source, Text};
use super::{float, metric, put};

const NAMES: [&str; 11] = [
    "MemTotal",
    "MemAvailable",
    "MemFree",
    "Cached",
    "SReclaimable",
    "Buffers",
    "Shmem",
    "Dirty",
    "SwapTotal",
    "SwapFree",
    "AnonPages",
];
/// Of ZFS, where it is loaded.
const ARC: &str = "proc/spl/kstat/zfs/arcstats";

/// What each counter of `/proc/vmstat` counts is a page or a thing.
const COUNTS: [(&str, &Metric, Unit); 4] = [
    ("pswpin", metric("host_swap_in_bytes"), Unit::Page),
    ("pswpout", metric("host_swap_out_bytes"), Unit::Page),
    ("pgmajfault", metric("host_major_faults"), Unit::One),
    ("oom_kill", metric("host_oom_kills"), Unit::One),
];

/// The cache of ZFS, and what of it stays whatever happens.
#[derive(Clone, Copy, Debug)]
struct Arc {
    size: f64,
    least: f64,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Page,
    One,
}

/// Returns how many processes the kernel killed for want of memory since boot, where it counts them.
pub(super) fn sample(source: &mut Source, sample: &mut Sample, failures: &mut Failures) -> Option<u64> {
    let arc = source.read(ARC).ok().and_then(|text| Arc::parse(&text.lossy()));
    let memory = source.read("proc/meminfo").and_then(|text| memory(&text, arc, sample));
    failures.keep(memory);
    let moved = source.read("proc/vmstat").map(|text| moved(&text.lossy(), sample));
    failures.keep(moved).flatten()
}

fn memory(text: &Text<'_>, arc: Option<Arc>, sample: &mut Sample) -> Result<(), SampleError> {
    let lossy = text.lossy();
    let mut parts = [0_u64; NAMES.len()];
    let mut left = NAMES.len();
    for (number, line) in lossy.lines().enumerate() {
        let (name, rest) = line.split_once(':').ok_or_else(|| text.malformed(number, line))?;
        let Some(part) = NAMES.iter().position(|known| *known == name) else { continue };
        let kib = rest.trim().trim_end_matches(" kB").parse::<u64>();
        parts[part] = kib.map_err(|_| text.malformed(number, line))?.saturating_mul(1024);
        left = left.saturating_sub(1);
        if left == 0 {
            break;
        }
    }
    let [total, available, free, cached, reclaimable, buffers, shared, dirty, swap_total, swap_free, anon] =
        parts.map(float);
    if total <= 0.0 {
        return Err(text.malformed(0, "no MemTotal"));
    }
    let mut available = available;
    if let Some(arc) = arc {
        put(sample, const { metric("host_memory_arc_bytes") }, arc.size);
        // A guest sees its host's cache, and no memory of its own that it could be in.
        let room = (total - free - cached - buffers - anon).max(0.0);
        available += (arc.size - arc.least).clamp(0.0, room);
    }
    // The kernel's estimate can exceed the total for a moment on a host that gives memory back.
    let used = (total - available).max(0.0);
    const { &MEMORY }
        .iter()
        .zip([
            total,
            available,
            used,
            used / total,
            free,
            cached + reclaimable,
            buffers,
            shared,
            dirty,
            swap_total,
            (swap_total - swap_free).max(0.0),
        ])
        .for_each(|(metric, value)| put(sample, metric, value));
    Ok(())
}

const MEMORY: [&Metric; 11] = [
    metric("host_memory_total_bytes"),
    metric("host_memory_available_bytes"),
    metric("host_memory_used_bytes"),
    metric("host_memory_used_ratio"),
    metric("host_memory_free_bytes"),
    metric("host_memory_cached_bytes"),
    metric("host_memory_buffers_bytes"),
    metric("host_memory_shared_bytes"),
    metric("host_memory_dirty_bytes"),
    metric("host_swap_total_bytes"),
    metric("host_swap_used_bytes"),
];

impl Arc {
    /// From lines of `name type value`.
    fn parse(text: &str) -> Option<Self> {
        let value = |wanted: &str| {
            let mut fields = text.lines().map(str::split_whitespace);
            fields.find_map(|mut line| (line.next()? == wanted).then(|| line.nth(1)?.parse::<u64>().ok()).flatten())
        };
        Some(Self { size: float(value("size")?), least: float(value("c_min").unwrap_or(0)) })
    }
}

/// A kernel that was built without one of them has no line for it.
fn moved(text: &str, sample: &mut Sample) -> Option<u64> {
    let mut oom_kills = None;
    let page = float(rustix::param::page_size() as u64);
    for line in text.lines() {
        let Some((name, value)) = line.split_once(' ') else { continue };
        let known = COUNTS.iter().find(|(known, ..)| *known == name);
        if let (Some((_, metric, unit)), Ok(value)) = (known, value.parse::<u64>()) {
            let each = if matches!(unit, Unit::Page) { page } else { 1.0 };
            put(sample, metric, float(value) * each);
            if name == "oom_kill" {
                oom_kills = Some(value);
            }
        }
    }
    oom_kills
}

#[cfg(test)]
mod tests {
    use dunlin_shared::time::{MonoMs, WallMs};

    use super::*;
    use crate::sample::tree::{Tree, Values};

    const MEMINFO: &str = "MemTotal: 2000 kB\nMemFree: 100 kB\nMemAvailable: 500 kB\nBuffers: 10 kB\n\
                           Cached: 200 kB\nSwapTotal: 64 kB\nSwapFree: 0 kB\nDirty: 64 kB\nShmem: 5 kB\n\
                           SReclaimable: 20 kB\nHugePages_Total: 0\n";

    fn take(files: &[(&str, &str)]) -> (Values, Vec<String>) {
        let tree = Tree::new(files);
        let (mut taken, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
        sample(&mut Source::new(tree.path()), &mut taken, &mut failures);
        let said = failures.into_list().iter().map(|failure| failure.error.to_string()).collect();
        (Values::of(&taken), said)
    }

    #[test]
    fn parts_of_memory_and_what_was_swapped() {
        let vmstat = "nr_free_pages 1\npswpin 10\npswpout 20\npgmajfault 7\noom_kill 3\n";
        let (values, said) = take(&[("proc/meminfo", MEMINFO), ("proc/vmstat", vmstat)]);
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(values.host("host_memory_used_ratio"), Some(0.75));
        assert_eq!(values.host("host_swap_used_bytes"), Some(65_536.0));
        assert_eq!(values.host("host_memory_dirty_bytes"), Some(65_536.0));
        let page = float(rustix::param::page_size() as u64);
        assert_eq!(values.host("host_swap_in_bytes"), Some(10.0 * page));
        assert_eq!((values.host("host_major_faults"), values.host("host_oom_kills")), (Some(7.0), Some(3.0)));
    }

    #[test]
    fn a_kernel_without_a_counter_has_no_row_of_it() {
        let (values, said) = take(&[("proc/meminfo", MEMINFO), ("proc/vmstat", "pswpin 1\n")]);
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(values.host("host_oom_kills"), None);
    }

    #[test]
    fn more_available_than_total_is_nothing_used() {
        let text = MEMINFO.replace("MemAvailable: 500", "MemAvailable: 2001");
        let (values, _) = take(&[("proc/meminfo", &text), ("proc/vmstat", "")]);
        assert_eq!(values.host("host_memory_used_bytes"), Some(0.0));
    }

    #[test]
    fn what_zfs_would_give_back_is_available() {
        let arc = "13 1 0x01 147 39984 6 1\nname                            type data\nhits                            4    9\n\
                   c_min                           4    102400\nsize                            4    921600\n";
        let (values, said) = take(&[("proc/meminfo", MEMINFO), ("proc/vmstat", ""), (ARC, arc)]);
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(values.host("host_memory_arc_bytes"), Some(917_504.0), "to its precision");
        // 500 kB by the kernel, and 900 kB less 100 kB that stay.
        assert_eq!(values.host("host_memory_used_ratio"), Some(0.35));
        // Within a guest nearly all is accounted for: there is no room for the cache of another's.
        let guest = format!("{MEMINFO}AnonPages: 1690 kB\n");
        let (values, _) = take(&[("proc/meminfo", &guest), ("proc/vmstat", ""), (ARC, arc)]);
        assert_eq!(values.host("host_memory_used_ratio"), Some(0.75));
        for nonsense in ["", "size", "size 4", "size 4 many\n", "c_min 4 1\n"] {
            let (values, said) = take(&[("proc/meminfo", MEMINFO), ("proc/vmstat", ""), (ARC, nonsense)]);
            assert!(said.is_empty() && values.host("host_memory_used_ratio") == Some(0.75), "{nonsense:?}");
        }
    }

    #[test]
    fn each_of_the_two_fails_alone_and_names_its_file() {
        let (values, said) = take(&[("proc/meminfo", "MemTotal: many kB\n"), ("proc/vmstat", "oom_kill 1\n")]);
        assert!(said.len() == 1 && said[0].contains("proc/meminfo line 1"), "{said:?}");
        assert_eq!(values.host("host_oom_kills"), Some(1.0));
    }
}
