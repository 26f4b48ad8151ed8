//! Control groups on recorded trees: version 1, version 2, both, and with what is missing in each.

use dunlin_shared::inventory::Engine;

use super::*;
use crate::sample::tree::Tree;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
const V1: &str = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
    33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
    34 31 0:31 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
    35 31 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
    36 31 0:33 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";

struct Host {
    tree: Tree,
    source: Source,
    groups: Groups,
    said: Vec<String>,
}

impl Host {
    fn new(mountinfo: &str, files: &[(&str, &str)]) -> Self {
        let tree = Tree::new(&[("proc/1/mountinfo", mountinfo)]);
        for (file, text) in files {
            tree.set(&format!("sys/fs/cgroup/{}", file.replace("ID", ID)), text);
        }
        let source = Source::new(tree.path());
        let mut host = Self { tree, source, groups: Groups::default(), said: Vec::new() };
        host.walk(0, 0);
        host
    }

    fn walk(&mut self, now: u64, owners: u64) -> Vec<Owner> {
        let mut failures = Failures::default();
        self.groups.walk(&mut self.source, MonoMs(now), owners, &mut failures);
        self.said = failures.into_list().into_iter().map(|failure| failure.error.to_string()).collect();
        self.owners()
    }

    fn owners(&self) -> Vec<Owner> {
        self.groups.found().iter().map(|found| found.owner.clone()).collect()
    }

    fn usage(&mut self, owner: &Owner) -> Usage {
        let found = self.groups.found().iter().find(|found| found.owner == *owner).expect("it was found").clone();
        let mut usage = Usage::default();
        for part in [Part::Cpu, Part::Limits, Part::Memory, Part::OomKills, Part::Io, Part::Tasks] {
            self.groups.read(&mut self.source, &found, part, &mut usage);
        }
        usage
    }
}

fn docker() -> Owner {
    Owner::Container { engine: Engine::Docker, id: ID.into() }
}

fn unit(name: &str) -> Owner {
    Owner::Unit(name.into())
}

#[test]
fn a_container_of_version_2_tells_everything() {
    let dir = "system.slice/docker-ID.scope";
    let files = [
        ("cpu.stat", "usage_usec 2500000\nuser_usec 1\nnr_throttled 3\nthrottled_usec 500000\n"),
        ("cpu.max", "150000 100000\n"),
        ("memory.current", "10000000\n"),
        ("memory.stat", "anon 4000000\nfile 5000000\nkernel 1000000\nkernel_stack 7\ninactive_file 3000000\n"),
        ("memory.max", "268435456\n"),
        ("memory.swap.current", "8192\n"),
        ("memory.events", "low 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n"),
        ("io.stat", "254:0 rbytes=4096 wbytes=8192 rios=1 wios=1 dbytes=0 dios=0\n"),
        ("pids.current", "12\n"),
    ];
    let files: Vec<_> = files.iter().map(|(file, text)| (format!("{dir}/{file}"), *text)).collect();
    let files: Vec<_> = files.iter().map(|(file, text)| (file.as_str(), *text)).collect();
    let mut host = Host::new(V2, &files);
    let expected = Usage {
        cpu_seconds: Some(2.5),
        throttled_seconds: Some(0.5),
        cpu_limit_cores: Some(1.5),
        memory_used_bytes: Some(7_000_000.0),
        anon_bytes: Some(4_000_000.0),
        file_bytes: Some(5_000_000.0),
        kernel_bytes: Some(1_000_000.0),
        memory_limit_bytes: Some(268_435_456.0),
        swap_bytes: Some(8_192.0),
        oom_kills: Some(1.0),
        read_bytes: Some(4_096.0),
        written_bytes: Some(8_192.0),
        tasks: Some(12.0),
    };
    assert_eq!(host.usage(&docker()), expected);
    assert_eq!((host.groups.version(), host.said.len()), ("control groups 2", 0));
}

#[test]
fn a_container_of_version_1_tells_the_same_from_five_hierarchies() {
    let mut host = Host::new(
        V1,
        &[
            ("cpu,cpuacct/docker/ID/cpuacct.usage", "2500000000\n"),
            ("cpu,cpuacct/docker/ID/cpu.stat", "nr_periods 1\nnr_throttled 1\nthrottled_time 500000000\n"),
            ("cpu,cpuacct/docker/ID/cpu.cfs_quota_us", "150000\n"),
            ("cpu,cpuacct/docker/ID/cpu.cfs_period_us", "100000\n"),
            ("memory/docker/ID/memory.usage_in_bytes", "10000000\n"),
            (
                "memory/docker/ID/memory.stat",
                "cache 1\nrss 1\ntotal_cache 5000000\ntotal_rss 4000000\ntotal_inactive_file 3000000\ntotal_swap 8192\n",
            ),
            ("memory/docker/ID/memory.kmem.usage_in_bytes", "1000000\n"),
            ("memory/docker/ID/memory.limit_in_bytes", "268435456\n"),
            ("memory/docker/ID/memory.memsw.usage_in_bytes", "10008192\n"),
            ("memory/docker/ID/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("blkio/docker/ID/blkio.throttle.io_service_bytes", "254:0 Read 1\n"),
            (
                "blkio/docker/ID/blkio.throttle.io_service_bytes_recursive",
                "254:0 Read 4096\n254:0 Write 8192\n254:0 Total 12288\nTotal 12288\n",
            ),
            ("pids/docker/ID/pids.current", "12\n"),
        ],
    );
    let usage = host.usage(&docker());
    assert_eq!((usage.cpu_seconds, usage.throttled_seconds), (Some(2.5), Some(0.5)));
    assert_eq!((usage.cpu_limit_cores, usage.memory_limit_bytes), (Some(1.5), Some(268_435_456.0)));
    assert_eq!((usage.memory_used_bytes, usage.anon_bytes), (Some(7_000_000.0), Some(4_000_000.0)));
    assert_eq!((usage.file_bytes, usage.kernel_bytes), (Some(5_000_000.0), Some(1_000_000.0)));
    assert_eq!((usage.swap_bytes, usage.oom_kills), (Some(8_192.0), Some(1.0)));
    assert_eq!((usage.read_bytes, usage.written_bytes), (Some(4_096.0), Some(8_192.0)));
    assert_eq!((usage.tasks, host.groups.version()), (Some(12.0), "control groups 1"));
    host.tree.set(&format!("sys/fs/cgroup/memory/docker/{ID}/memory.limit_in_bytes"), "9223372036854771712\n");
    host.tree.set(&format!("sys/fs/cgroup/cpu,cpuacct/docker/{ID}/cpu.cfs_quota_us"), "-1\n");
    let usage = host.usage(&docker());
    assert_eq!((usage.memory_limit_bytes, usage.cpu_limit_cores), (None, None));
}

#[test]
fn a_hybrid_host_tells_a_services_processor_time_by_version_2() {
    let unified = "37 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let mut host = Host::new(
        &format!("{V1}{unified}"),
        &[
            ("systemd/system.slice/nginx.service/tasks", "1\n"),
            ("unified/system.slice/nginx.service/cpu.stat", "usage_usec 3000000\n"),
            ("memory/system.slice/mysql.service/memory.usage_in_bytes", "4096\n"),
        ],
    );
    assert_eq!(host.owners(), [unit("mysql.service"), unit("nginx.service")]);
    let expected = Usage { cpu_seconds: Some(3.0), ..Usage::default() };
    assert_eq!(host.usage(&unit("nginx.service")), expected);
    assert_eq!(host.usage(&unit("mysql.service")).memory_used_bytes, Some(4_096.0));
    assert_eq!(host.groups.version(), "control groups 1 and 2");
}

#[test]
fn what_a_group_lacks_or_tells_wrongly_is_absent() {
    let mut host = Host::new(
        V2,
        &[
            ("a.service/memory.current", "4096\n"),
            ("a.service/memory.stat", "inactive_file 8192\nkernel_stack 10\nslab 5\nnonsense\n"),
            ("a.service/cpu.stat", "usage_usec many\n"),
            ("a.service/io.stat", ""),
            ("a.service/memory.max", "max\n"),
        ],
    );
    let expected = Usage {
        memory_used_bytes: Some(4_096.0),
        kernel_bytes: Some(15.0),
        read_bytes: Some(0.0),
        written_bytes: Some(0.0),
        ..Usage::default()
    };
    assert_eq!(host.usage(&unit("a.service")), expected);
}

#[test]
fn the_group_of_a_service_is_its_topmost_one_and_containers_within_it_are_found() {
    let user = "user.slice/user-1000.slice/user@1000.service";
    let host = Host::new(
        V2,
        &[
            ("system.slice/a.service/pids.current", "5\n"),
            ("system.slice/a.service/workers/pids.current", "4\n"),
            (&format!("{user}/app.slice/mail.service/pids.current"), "1\n"),
            (&format!("{user}/user.slice/libpod-ID.scope/container/pids.current"), "1\n"),
            ("kubepods.slice/pod7.slice/cri-containerd-ID.scope/pids.current", "1\n"),
            ("lxc.payload.web/system.slice/inner.service/pids.current", "1\n"),
            ("init.scope/pids.current", "1\n"),
        ],
    );
    let container = |engine, id: &str| Owner::Container { engine, id: id.into() };
    let expected = [
        container(Engine::Podman, ID),
        container(Engine::Containerd, ID),
        container(Engine::Lxc, "web"),
        unit("a.service"),
        unit("user@1000.service"),
    ];
    assert_eq!(host.owners(), expected);
    let mut host = host;
    assert_eq!(host.usage(&unit("a.service")).tasks, Some(5.0));
}

#[test]
fn an_lxc_guest_reads_its_own_part_of_the_tree() {
    // Its first process sees a hierarchy from its own root on, under whatever root the host has it.
    let mountinfo = "30 23 0:26 /lxc.payload/web /sys/fs/cgroup rw - cgroup2 none rw\n";
    let host = Host::new(mountinfo, &[("system.slice/a.service/pids.current", "5\n")]);
    assert_eq!(host.owners(), [unit("a.service")]);
}

#[test]
fn the_walk_is_repeated_when_owners_changed_and_once_a_minute() {
    let mut host = Host::new(V2, &[("a.service/pids.current", "1\n")]);
    host.tree.set("sys/fs/cgroup/b.service/pids.current", "1\n");
    assert_eq!(host.walk(30_000, 0).len(), 1);
    assert_eq!(host.walk(30_000, 1).len(), 2);
    host.tree.set("sys/fs/cgroup/c.service/pids.current", "1\n");
    assert_eq!(host.walk(89_999, 1).len(), 2);
    assert_eq!(host.walk(90_000, 1).len(), 3);
}

#[test]
fn without_mounts_it_is_said_and_the_usual_place_is_looked_at() {
    let host = Host::new("", &[]);
    assert!(host.said.len() == 1 && host.said[0].contains("no control groups"), "{:?}", host.said);
    let tree = Tree::new(&[("sys/fs/cgroup/cgroup.controllers", "cpu\n"), ("sys/fs/cgroup/a.service/cpu.stat", "")]);
    let (mut groups, mut failures) = (Groups::default(), Failures::default());
    let found = groups.walk(&mut Source::new(tree.path()), MonoMs(0), 0, &mut failures);
    assert_eq!(found.len(), 1);
    assert!(failures.into_list().is_empty());
}

#[test]
fn containers_beyond_the_limit_are_counted() {
    let files: Vec<_> = (0..1_600).map(|n| format!("docker/{n:064x}/pids.current")).collect();
    let files: Vec<_> = files.iter().map(|file| (file.as_str(), "1\n")).collect();
    let host = Host::new(V2, &files);
    assert_eq!((host.owners().len(), host.groups.left_out()), (1_000, LeftOut { containers: 600, others: 0 }));
}
