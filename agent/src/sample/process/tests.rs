//! Processes on recorded trees, on virtual time, and on this host.

use std::cell::RefCell;
use std::collections::BTreeMap;

use dunlin_shared::inventory::Key;
use proptest::prelude::*;

use super::rank::STAY_TICKS;
use super::*;
use crate::sample::tree::{Tree, Values};

const DOCKER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A host whose processes a test makes and ends.
struct Host {
    tree: Tree,
    source: Source,
    processes: Processes,
    collect: Collect,
    names: RefCell<BTreeMap<String, String>>,
    now: u64,
}

struct Told {
    values: Values,
    stock: Stock,
    said: Vec<String>,
}

impl Host {
    fn new() -> Self {
        let tree =
            Tree::new(&[("proc/uptime", "10000.00 1.00\n"), ("etc/passwd", "root:x:0:0::/:\nwww:x:33:33::/:\n")]);
        let source = Source::new(tree.path());
        let (processes, collect) = (Processes::new(tree.path(), Clock::start()), Collect::default());
        let host = Self { tree, source, processes, collect, names: RefCell::default(), now: 0 };
        host.process(1, "init", 0, 1);
        host
    }

    /// With so many ticks of the kernel's clock used, and so many pages.
    fn process(&self, pid: u32, name: &str, cpu_ticks: u64, pages: u64) {
        self.set(pid, "stat", &stat(pid, name, 'S', cpu_ticks, 2, 1_000, pages));
        self.set(pid, "cmdline", &format!("/usr/bin/{name}\0--secret=S3CRET\0"));
        self.set(pid, "cgroup", "0::/\n");
        self.set(pid, "status", "Uid:\t0\t33\t0\t0\n");
    }

    fn set(&self, pid: u32, file: &str, text: &str) {
        self.tree.set(&format!("proc/{pid}/{file}"), text);
    }

    fn end(&self, pid: u32) {
        std::fs::remove_dir_all(self.tree.path().join(format!("proc/{pid}"))).expect("it was there");
    }

    fn take(&mut self) -> Told {
        let (mut sample, mut stock) = (Sample::new(MonoMs(self.now), WallMs(0)), Stock::default());
        let mut failures = Failures::default();
        let names = |id: &str| self.names.borrow().get(id).map(|name| name.as_str().into());
        let wall = WallMs(1_700_000_000_000 + i64::try_from(self.now).expect("a test is short"));
        let asked = Asked { now: MonoMs(self.now), wall, collect: &self.collect, name_of: &names };
        self.processes.look(&mut self.source, &asked, &mut failures);
        self.processes.count(&mut sample);
        self.processes.tell(&mut self.source, &mut Users::default(), &mut sample, &mut stock, &mut failures);
        self.now += 10_000;
        let said = failures.into_list().into_iter().map(|failure| failure.error.to_string()).collect();
        Told { values: Values::of(&sample), stock, said }
    }
}

impl Told {
    fn at(&self, group: &str, name: &str) -> Option<f64> {
        self.values.at(&format!("process:{group}"), &format!("process_{name}"))
    }

    fn groups(&self) -> Vec<String> {
        let names = self.values.subjects("process:").into_iter();
        let mut names: Vec<_> = names.filter_map(|name| name.strip_prefix("process:").map(str::to_owned)).collect();
        names.sort();
        names
    }

    fn item(&self, group: &str) -> GroupItem {
        match self.stock.get(&Key::Group(group.into())) {
            Some(Item::Group(item)) => item.clone(),
            other => panic!("{group}: {other:?}"),
        }
    }

    fn source(&self) -> SourceItem {
        match self.stock.get(&Key::Source("processes".into())) {
            Some(Item::Source(item)) => item.clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn stat(pid: u32, name: &str, state: char, cpu_ticks: u64, threads: u64, start: u64, pages: u64) -> String {
    format!(
        "{pid} ({name}) {state} 1 1 1 0 -1 4194560 0 0 0 0 {cpu_ticks} 0 0 0 20 0 {threads} 0 {start} 4096 {pages} 0 0\n"
    )
}

#[test]
fn memory_is_what_statm_adds_up() {
    let mut host = Host::new();
    host.process(7, "nginx", 100, 992);
    host.set(7, "statm", "5746 1024 0 5 0 0 0\n");
    assert_eq!(host.take().at("nginx", "memory_bytes"), Some(1_024.0 * 4_096.0));
    // It goes on from there by what is read of every process.
    host.set(7, "statm", "");
    host.process(7, "nginx", 200, 1_088);
    assert_eq!(host.take().at("nginx", "memory_bytes"), Some(1_120.0 * 4_096.0));
}

#[test]
fn a_process_that_does_not_tell_at_a_tick_counts_as_it_was() {
    let mut host = Host::new();
    for pid in [20, 21] {
        host.process(pid, "mysqld", 100, 256);
    }
    let counts = |told: &Told| ["count", "threads", "memory_bytes", "cpu_seconds"].map(|name| told.at("mysqld", name));
    let whole = counts(&host.take());
    assert_eq!(whole[0], Some(2.0));
    host.set(21, "stat", "no columns\n");
    let odd = host.take();
    assert_eq!((counts(&odd), odd.said.len()), (whole, 1), "{:?}", odd.said);
    // What cannot be read though it is there.
    host.tree.remove("proc/21/stat");
    host.set(21, "stat/none", "");
    let refused = host.take();
    assert_eq!((counts(&refused), refused.said.len()), (whole, 1), "{:?}", refused.said);
    assert_eq!(refused.values.host("host_processes"), Some(3.0));
    host.end(21);
    assert_eq!(host.take().at("mysqld", "count"), Some(1.0));
}

#[test]
fn a_group_is_the_sum_of_its_processes() {
    let mut host = Host::new();
    for (pid, ticks) in [(20, 150), (21, 50)] {
        host.process(pid, "mysqld", ticks, 256);
        host.set(pid, "io", "rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\n");
        for file in ["0", "1", "77"] {
            host.set(pid, &format!("fd/{file}"), "");
        }
    }
    let told = host.take();
    assert!(told.said.is_empty(), "{:?}", told.said);
    let page = float(rustix::param::page_size() as u64);
    let found =
        ["count", "cpu_seconds", "memory_bytes", "threads", "oldest_start_seconds"].map(|name| told.at("mysqld", name));
    assert_eq!(found, [Some(2.0), Some(2.0), Some(512.0 * page), Some(4.0), Some(1_699_990_010.0)]);
    // Of what was before the group was told nothing is known; from then on all of it is.
    let found = ["files_open", "read_bytes", "written_bytes"].map(|name| told.at("mysqld", name));
    assert_eq!(found, [Some(8.0), Some(0.0), Some(0.0)], "files are told to the nearest eight");
    host.set(21, "io", "read_bytes: 12288\nwrite_bytes: 8192\n");
    host.process(21, "mysqld", 51, 256);
    assert_eq!(host.take().at("mysqld", "read_bytes"), Some(8_192.0));
    assert_eq!(told.values.host("host_processes"), Some(3.0));
    let item = told.item("mysqld");
    assert_eq!((item.user.as_deref(), item.unit, item.container), (Some("www"), None, None));
}

#[test]
fn what_ended_processes_had_used_stays_in_their_group() {
    let mut host = Host::new();
    host.process(20, "worker", 1_000, 10);
    host.process(21, "worker", 500, 10);
    assert_eq!(host.take().at("worker", "cpu_seconds"), Some(15.0));
    host.end(20);
    host.process(21, "worker", 600, 10);
    assert_eq!(host.take().at("worker", "cpu_seconds"), Some(16.0));
    // The pid comes back as another process, of the same name and with less behind it.
    host.end(21);
    host.tree.set("proc/21/stat", &stat(21, "worker", 'S', 100, 1, 900_000, 5));
    assert_eq!(host.take().at("worker", "cpu_seconds"), Some(17.0));
    host.end(21);
    let told = host.take();
    assert_eq!((told.at("worker", "count"), told.at("worker", "cpu_seconds")), (Some(0.0), Some(17.0)));
    for _ in 0..=STAY_TICKS {
        host.take();
    }
    assert_eq!(host.take().at("worker", "count"), None);
    host.process(30, "worker", 200, 10);
    assert_eq!(host.take().at("worker", "cpu_seconds"), Some(19.0), "it goes on where it stood");
}

#[test]
fn a_process_that_becomes_another_program_leaves_its_use_behind() {
    let mut host = Host::new();
    host.process(20, "bash", 100, 10);
    host.take();
    host.process(20, "mysqld", 150, 10);
    let told = host.take();
    assert_eq!((told.at("bash", "cpu_seconds"), told.at("mysqld", "cpu_seconds")), (Some(1.0), Some(0.5)));
    assert_eq!((told.at("bash", "count"), told.at("mysqld", "count")), (Some(0.0), Some(1.0)));
}

#[test]
fn hostile_names_and_processes_that_end_while_they_are_read_cost_nothing_else() {
    let mut host = Host::new();
    host.process(20, "a b) S 1 (\n", 0, 9);
    host.tree.set_bytes(
        b"proc/21/stat",
        &[b"21 (", &b"\xff\xfe"[..], &stat(21, "", 'S', 0, 1, 1, 9).as_bytes()[4..]].concat(),
    );
    // Their directories stand, and nothing is in them; or a line was cut to nothing.
    host.tree.set("proc/22/environ", "");
    host.tree.set("proc/23/stat", "");
    host.tree.set("proc/meminfo", "");
    host.tree.set("proc/99999999999/stat", "");
    let told = host.take();
    assert!(told.said.is_empty(), "{:?}", told.said);
    assert_eq!(told.groups(), ["\\xff\\xfe", "a b) S 1 (\\x0a", "init"]);
    assert_eq!(told.values.host("host_processes"), Some(5.0));
    host.tree.set("proc/24/stat", "24 (x) S nonsense\n");
    let told = host.take();
    assert!(told.said.len() == 1 && told.said[0].contains("proc/24/stat line 1"), "{:?}", told.said);
    assert_eq!(told.groups().len(), 3);
}

#[test]
fn zombies_and_threads_of_the_kernel_are_counted_and_in_no_group() {
    let mut host = Host::new();
    host.process(20, "worker", 10, 10);
    host.tree.set("proc/2/stat", "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 3 0 0 20 0 1 0 5 0 0 0\n");
    host.tree.set("proc/30/stat", &stat(30, "defunct", 'Z', 900, 1, 1, 0));
    let told = host.take();
    assert_eq!(
        (told.groups(), told.values.host("host_processes_zombie")),
        (vec!["init".into(), "worker".into()], Some(1.0))
    );
    // It used something before it ended, and is not there any more.
    host.tree.set("proc/20/stat", &stat(20, "worker", 'Z', 110, 1, 1_000, 0));
    let told = host.take();
    assert_eq!((told.at("worker", "cpu_seconds"), told.at("worker", "count")), (Some(1.1), Some(0.0)));
    assert_eq!((told.values.host("host_processes_zombie"), told.values.host("host_processes")), (Some(2.0), Some(4.0)));
    // A pid of a thread of the kernel that another process has now is noticed within six ticks.
    host.process(2, "late", 0, 10);
    assert!((0..6).any(|_| host.take().at("late", "count") == Some(1.0)));
}

#[test]
fn interpreters_are_grouped_by_container_unit_or_script() {
    let mut host = Host::new();
    for (pid, cgroup, line) in [
        (20, format!("0::/system.slice/docker-{DOCKER}.scope\n"), "/usr/bin/python3\0-m\0celery\0"),
        (21, "0::/system.slice/billing.service\n".to_owned(), "node\0/srv/x.js\0"),
        (22, "0::/user.slice/user-0.slice/session-1.scope\n".to_owned(), "python3\0/srv/tool.py\0S3CRET\0"),
        (23, "0::/user.slice/user-1000.slice/user@1000.service/app.slice\n".to_owned(), "bash\0-c\0S3CRET\0"),
        (24, format!("0::/system.slice/docker-{DOCKER}.scope\n"), "mysqld\0"),
    ] {
        host.process(pid, "x", 0, 10);
        host.set(pid, "cgroup", &cgroup);
        host.set(pid, "cmdline", line);
    }
    let told = host.take();
    assert_eq!(told.groups(), ["0123456789ab", "bash", "billing", "init", "mysqld", "tool.py"]);
    assert_eq!(told.item("mysqld").container.as_deref(), Some("0123456789ab"));
    assert_eq!(told.item("mysqld").user.as_deref(), Some("33"), "the host's names are not the container's");
    assert_eq!(told.item("billing").unit.as_deref(), Some("billing.service"));
    // The engine answers.
    host.names.borrow_mut().insert(DOCKER.into(), "web".into());
    let told = host.take();
    assert_eq!((told.at("web", "count"), told.at("0123456789ab", "count")), (Some(1.0), Some(0.0)));
    assert_eq!(told.item("mysqld").container.as_deref(), Some("web"));
    let pass = host.processes.pass();
    assert_eq!(pass.of_container(DOCKER).collect::<Vec<_>>(), [20, 24]);
    assert_eq!((pass.group_of(20), pass.group_of(99), pass.user_of(20)), (Some("web"), None, Some(33)));
    assert_eq!((pass.owner_of(21), pass.owner_of(99)), (&Owner::Unit("billing.service".into()), &Owner::Host));
    assert_eq!((pass.tasks_of(pass.owner_of(21)), pass.pids().count()), (Some(2), 6));
}

#[test]
fn where_a_groups_processes_differ_nothing_is_said_of_them() {
    let mut host = Host::new();
    host.process(20, "nginx", 0, 10);
    host.process(21, "nginx", 0, 10);
    host.set(21, "cgroup", "0::/system.slice/nginx.service\n");
    host.set(21, "status", "Uid:\t0\t0\t0\t0\n");
    let item = host.take().item("nginx");
    assert_eq!((item.container, item.unit, item.user), (None, None, None));
}

#[test]
fn owners_that_come_and_go_change_the_generation_and_nothing_else_does() {
    let mut host = Host::new();
    host.process(20, "a", 0, 10);
    host.set(20, "cgroup", "0::/system.slice/a.service\n");
    host.take();
    let first = host.processes.pass().generation();
    host.process(21, "b", 0, 10);
    host.take();
    assert_eq!(host.processes.pass().generation(), first);
    host.end(20);
    host.take();
    assert_ne!(host.processes.pass().generation(), first);
}

#[test]
fn watched_groups_are_told_without_a_process_and_what_is_switched_off_is_not() {
    let mut host = Host::new();
    host.collect.watch = vec!["backup".into()];
    for n in 0..40 {
        host.process(100 + n, &format!("big{n}"), 0, 1_000);
    }
    assert_eq!(host.take().at("backup", "count"), Some(0.0));
    host.process(20, "backup", 10, 1);
    assert_eq!(host.take().at("backup", "cpu_seconds"), Some(0.1));
    let mut host = Host::new();
    host.collect.processes = false;
    host.take();
    assert_eq!(host.processes.pass().group_of(1), None);
}

#[test]
fn an_agent_that_sees_its_own_processes_alone_counts_none() {
    let mut host = Host::new();
    host.process(20, "agent", 0, 10);
    host.end(1);
    let told = host.take();
    assert!(told.said.len() == 1 && told.said[0].contains("hidepid"), "{:?}", told.said);
    assert_eq!((told.values.host("host_processes"), told.groups()), (None, vec![]));
    assert!(!told.source().is_working && told.source().says.contains("hidepid"));
}

#[test]
fn the_texts_of_the_source_fit_the_wire() {
    for text in [HIDDEN_ITEM, IO_HIDDEN, FILES_HIDDEN] {
        assert!(text.len() <= dunlin_shared::limits::FACT_BYTES_MAX);
    }
}

#[test]
fn names_made_up_without_end_are_bounded_and_counted() {
    let mut groups = Groups::default();
    let met = (0..4_200).filter(|n| groups.intern(&format!("n{n}")).is_some()).count();
    assert_eq!((met, groups.left_out(), groups.intern("n7").is_some()), (4_096, 104, true));
    groups.begin();
    groups.end(Some(1.0), None, &[]);
    assert!(groups.intern("n4199").is_some(), "what has no process makes room");
}

#[test]
fn the_processes_of_this_host_are_those_that_its_own_files_tell() {
    let mut source = Source::new(Path::new("/"));
    let mut processes = Processes::new(Path::new("/"), Clock::start());
    let collect = Collect::default();
    let asked = Asked { now: MonoMs(0), wall: WallMs(0), collect: &collect, name_of: &|_| None };
    processes.look(&mut source, &asked, &mut Failures::default());
    let pass = processes.pass();
    let own = std::process::id();
    let exe = std::env::current_exe().expect("it has a name");
    let name = exe.file_name().and_then(|name| name.to_str()).expect("cargo names it");
    assert_eq!(pass.group_of(own), Some(name));
    let uid = std::fs::read("/proc/self/status").ok().and_then(|text| stat::user(&text)).expect("it has a user");
    assert!(pass.user_of(own).is_none_or(|user| user == uid));
    assert!(pass.pids().any(|pid| pid == own) && pass.pids().is_sorted());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn counters_never_fall_and_groups_hold_all_that_was_seen(
        ticks in proptest::collection::vec(proptest::collection::vec((0_usize..3, any::<bool>(), 0_u64..50), 6), 1..12),
    ) {
        let (mut host, mut used) = (Host::new(), [0_u64; 6]);
        let (mut before, mut sum) = (BTreeMap::<String, f64>::new(), 0);
        for tick in ticks {
            for (slot, (name, is_there, more)) in (0_u32..).zip(tick) {
                let at = slot as usize;
                if is_there {
                    (used[at], sum) = (used[at] + more, sum + more);
                    host.process(20 + slot, ["a", "b", "c"][name], used[at], 10);
                } else if host.tree.path().join(format!("proc/{}", 20 + slot)).exists() {
                    host.end(20 + slot);
                    used[at] = 0;
                }
            }
            let told = host.take();
            let mut all = 0.0;
            for group in ["a", "b", "c"] {
                let Some(now) = told.at(group, "cpu_seconds") else { continue };
                all += now;
                prop_assert!(now >= before.insert(group.to_owned(), now).unwrap_or(0.0));
            }
            prop_assert!((all - float(sum) / 100.0).abs() < 1e-6, "{} {}", all, sum);
        }
    }
}

#[test]
fn processes_beyond_those_that_are_kept_are_counted_as_processes_and_as_left_out() {
    let mut host = Host::new();
    host.processes.table.max = 40;
    (2..=100).for_each(|pid| host.process(pid, "sleep", 5, 9));
    for tick in 0..3 {
        let told = host.take();
        assert_eq!(told.values.host("host_processes"), Some(100.0), "tick {tick}");
        assert_eq!((told.at("init", "count"), told.at("sleep", "count")), (Some(1.0), Some(39.0)), "tick {tick}");
        let Some(Item::Source(said)) = told.stock.get(&Key::Source("processes".into())) else { panic!("it is told") };
        assert_eq!((said.is_working, said.left_out), (true, 60));
    }
    // There is room again, a tick after it was seen.
    (2..=70).for_each(|pid| host.end(pid));
    host.take();
    assert_eq!(host.take().at("sleep", "count"), Some(30.0));
}
