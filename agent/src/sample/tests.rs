//! Ticks as a whole, on a recorded tree and on this host.

use std::collections::BTreeSet;

use dunlin_shared::inventory::Key;
use dunlin_shared::metric::{Kind, MetricId, by_id};
use dunlin_shared::sample::SubjectKind;

use super::tree::{Tree, Values};
use super::*;

const HOST: [(&str, &str); 12] = [
    ("proc/stat", "cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\nctxt 1\nbtime 1795255200\nprocesses 1\n"),
    ("proc/meminfo", "MemTotal: 2000 kB\nMemAvailable: 500 kB\n"),
    ("proc/vmstat", "oom_kill 0\n"),
    ("proc/loadavg", "0.50 1.25 2.00 3/411 99\n"),
    ("proc/sys/fs/file-nr", "1\t0\t100\n"),
    ("proc/net/sockstat", "sockets: used 1\n"),
    ("proc/net/snmp", "Tcp: CurrEstab\nTcp: 1\n"),
    ("proc/net/netstat", "TcpExt: ListenOverflows\nTcpExt: 0\n"),
    ("proc/net/dev", "Inter-|\n face |\n  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"),
    ("proc/net/tcp", "  sl\n"),
    ("proc/net/udp", "  sl\n"),
    ("proc/diskstats", "8 0 sda 1 0 8 1 1 0 8 1 0 1 1\n"),
];

fn take(tree: &Tree) -> Taken {
    Sampler::new(tree.path(), Clock::start(), Arc::default()).sample(MonoMs(0), WallMs(0))
}

#[test]
fn a_container_without_pressure_and_disks_has_the_rest_and_no_failure() {
    let tree = Tree::new(&HOST);
    tree.set("proc/1/mountinfo", "");
    tree.remove("proc/diskstats");
    let taken = take(&tree);
    let failed: Vec<_> = taken.failures.iter().filter(|failure| !failure.error.is_absence()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let absent: Vec<_> = taken.failures.iter().map(|failure| failure.part).collect();
    assert_eq!(absent, ["pressure", "units", "time", "disks"]);
    assert_eq!(Values::of(&taken.sample).host("host_load5"), Some(1.25));
}

#[test]
fn every_part_fails_alone_and_under_its_name() {
    for (file, part) in [
        ("proc/stat", "cpu"),
        ("proc/meminfo", "memory"),
        ("proc/loadavg", "load"),
        ("proc/net/snmp", "sockets"),
        ("proc/net/dev", "interfaces"),
        ("proc/net/tcp", "ports"),
        ("proc/diskstats", "disks"),
    ] {
        let tree = Tree::new(&HOST);
        tree.set("proc/1/mountinfo", "");
        let whole = take(&tree).sample.rows().len();
        tree.set(file, "Inter-|\nnonsense\nmore: nonsense\n");
        let taken = take(&tree);
        let failed: Vec<_> = taken.failures.iter().filter(|failure| !failure.error.is_absence()).collect();
        assert!(failed.len() == 1 && failed[0].part == part, "{file}: {failed:?}");
        assert!(taken.sample.rows().len() > whole / 3, "{file}");
        assert_eq!(Values::of(&taken.sample).at("agent", "agent_sample_failures"), Some(1.0));
    }
}

#[test]
fn a_root_without_anything_gives_the_agents_own_rows_and_says_what_is_missing() {
    let tree = Tree::new(&[]);
    let taken = take(&tree);
    assert!(taken.sample.rows().iter().all(|(subject, ..)| subject.kind == SubjectKind::Agent));
    for file in ["proc/stat", "proc/meminfo", "proc/loadavg", "mountinfo", "proc/net/dev"] {
        assert!(taken.failures.iter().any(|failure| failure.error.to_string().contains(file)), "{file}");
    }
}

#[test]
fn this_host_fails_nothing_and_no_series_is_told_twice() {
    let mut sampler = Sampler::new(Path::new("/"), Clock::start(), Arc::default());
    for tick in 0..3 {
        let taken = sampler.sample(MonoMs(tick), WallMs(0));
        let mut seen = BTreeSet::new();
        for (subject, metric, _) in taken.sample.rows() {
            assert!(seen.insert((subject.clone(), *metric)), "{subject} tells {metric:?} twice");
        }
        let values = Values::of(&taken.sample);
        for name in ["host_cpu_idle_seconds", "host_memory_used_ratio", "host_load1", "host_processes", "host_threads"]
        {
            assert!(values.host(name).is_some_and(|value| value >= 0.0), "{name}");
        }
        assert!(!values.subjects("fs:").is_empty() && values.at("agent", "agent_memory_bytes") > Some(0.0));
        let failed: Vec<_> = taken.failures.iter().filter(|failure| !failure.error.is_absence()).collect();
        assert!(failed.iter().all(|failure| failure.part == "file systems"), "{failed:?}");
    }
}

#[test]
fn ratios_are_parts_and_counters_are_not_negative() {
    let mut sampler = Sampler::new(Path::new("/"), Clock::start(), Arc::default());
    for tick in 0..3 {
        for (subject, metric, steps) in sampler.sample(MonoMs(tick), WallMs(0)).sample.rows() {
            let metric = by_id(MetricId(metric.raw())).expect("it stands in the catalogue");
            let value = metric.step.value(*steps);
            assert!(metric.kind == Kind::Gauge || value >= 0.0, "{subject} {} {value}", metric.name);
            assert!(
                !metric.name.ends_with("_ratio") || (0.0..=1.0).contains(&value),
                "{subject} {} {value}",
                metric.name
            );
        }
    }
}

#[test]
fn processes_that_the_kernel_killed_between_two_ticks_are_told() {
    let tree = Tree::new(&HOST);
    tree.set("proc/1/mountinfo", "");
    let mut sampler = Sampler::new(tree.path(), Clock::start(), Arc::default());
    let mut happened = |vmstat: &str| {
        tree.set("proc/vmstat", vmstat);
        sampler.sample(MonoMs(0), WallMs(7)).happened
    };
    assert!(happened("oom_kill 3\n").is_empty(), "what was before the agent is no news");
    assert!(happened("oom_kill 3\n").is_empty() && happened("pswpin 1\n").is_empty());
    let killed = Happening { at: WallMs(7), key: None, what: What::HostOomKilled { count: 2 } };
    assert_eq!(happened("oom_kill 5\n"), [killed]);
    assert!(happened("oom_kill 1\n").is_empty() && happened("oom_kill 1\n").is_empty());
}

#[test]
fn a_host_of_256_cores_with_everything_switched_off_tells_its_own_numbers_alone() {
    let tree = Tree::new(&HOST);
    let cores: String = (0..256).map(|core| format!("cpu{core} 1 2 3 4 5 6 7 8 0 0\n")).collect();
    tree.set("proc/stat", &format!("cpu  1 2 3 4 5 6 7 8 0 0\n{cores}btime 1\n"));
    tree.set("proc/1/mountinfo", "");
    tree.set("proc/1/stat", "1 (init) S 0 1 1 0 -1 256 0 0 0 0 5 5 0 0 20 0 1 0 1 4096 9 0\n");
    let collect = Collect { containers: false, processes: false, ports: false, units: false, ..Collect::default() };
    let mut sampler = Sampler::new(tree.path(), Clock::start(), Arc::default()).collecting(collect);
    let taken = sampler.sample(MonoMs(0), WallMs(0));
    let values = Values::of(&taken.sample);
    assert_eq!((values.host("host_cpu_cores"), values.host("host_processes")), (Some(256.0), Some(1.0)));
    assert!(values.subjects("process:").is_empty() && values.subjects("unit:").is_empty() && taken.stock.is_empty());
}

/// A source's word, and what it left out.
fn said(taken: &Taken, name: &str) -> Option<(String, u32)> {
    match taken.stock.get(&Key::Source(name.into()))? {
        Item::Source(source) => Some((source.says.to_string(), source.left_out)),
        _ => None,
    }
}

#[test]
fn a_host_of_five_thousand_containers_tells_as_many_as_fit_and_counts_the_others() {
    let tree = Tree::new(&HOST);
    tree.set("proc/1/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    for number in 0..5_000 {
        tree.set(&format!("sys/fs/cgroup/docker/{number:012x}{number:052x}/cpu.stat"), "usage_usec 1000000\n");
    }
    for number in 0..600 {
        tree.set(&format!("sys/fs/cgroup/system.slice/s{number}.service/cpu.stat"), "usage_usec 1000000\n");
    }
    let mut sampler = Sampler::new(tree.path(), Clock::start(), Arc::default());
    for tick in 0..3 {
        let taken = sampler.sample(MonoMs(tick * 10_000), WallMs(0));
        let containers = taken.stock.items().filter(|item| matches!(item, Item::Container(_))).count();
        assert_eq!(containers, 1_000, "tick {tick}");
        assert_eq!(said(&taken, "containers"), Some(("more containers than a node may have".into(), 4_000)));
        assert_eq!(said(&taken, "cgroups").map(|(_, left_out)| left_out), Some(88));
        let values = Values::of(&taken.sample);
        assert_eq!(values.at("agent", "agent_items_left_out"), Some(4_088.0));
        // Containers take no room from services.
        assert_eq!((values.subjects("container:").len(), values.subjects("unit:").len()), (1_000, 512));
    }
}
