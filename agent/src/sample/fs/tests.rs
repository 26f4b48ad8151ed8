//! File systems of recorded trees, and some that hang: a gate holds their answers until a test opens it.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use dunlin_shared::time::{MonoMs, WallMs};

use super::*;
use crate::sample::tree::{Tree, Values};

const SPACE: Space =
    Space { total_bytes: 1 << 30, free_bytes: 1 << 29, available_bytes: 1 << 28, inodes: 1_000, inodes_free: 250 };
/// Ticks until a state must have come, on a machine however busy.
const TICKS_MAX: usize = 2_000;

/// File systems whose answers are held, and how often each was asked.
#[derive(Default)]
struct Gate {
    held: Mutex<HashSet<PathBuf>>,
    opened: Condvar,
    asked: Mutex<Vec<PathBuf>>,
}

impl Gate {
    fn holding(paths: &[&str]) -> Arc<Self> {
        let gate = Self::default();
        gate.held.lock().expect("no holder panicked").extend(paths.iter().map(PathBuf::from));
        Arc::new(gate)
    }

    fn open(&self) {
        self.held.lock().expect("no holder panicked").clear();
        self.opened.notify_all();
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().expect("no holder panicked").iter().filter(|asked| *asked == Path::new(path)).count()
    }

    fn ask(self: &Arc<Self>) -> Ask {
        let gate = Arc::clone(self);
        Arc::new(move |path| {
            gate.asked.lock().expect("no holder panicked").push(path.to_owned());
            let held = gate.held.lock().expect("no holder panicked");
            drop(gate.opened.wait_while(held, |held| held.contains(path)).expect("no holder panicked"));
            Ok(SPACE)
        })
    }
}

fn mountinfo(mounts: &[(&str, &str)]) -> String {
    let line = |(n, (path, kind)): (usize, &(&str, &str))| format!("{n} 1 8:{n} / {path} rw - {kind} x rw\n");
    mounts.iter().enumerate().map(line).collect()
}

fn tick(file_systems: &mut FileSystems, tree: &Tree) -> (Values, Vec<String>) {
    let (mut sample, mut failures) = (Sample::new(MonoMs(0), WallMs(0)), Failures::default());
    file_systems.ask(&mut Source::new(tree.path()), &mut failures);
    file_systems.collect(&mut sample, &mut failures);
    (Values::of(&sample), failures.into_list().iter().map(|failure| failure.error.to_string()).collect())
}

/// Ticks until it is as `look` wants.
fn tick_until(file_systems: &mut FileSystems, tree: &Tree, what: &str, look: impl Fn(&Values) -> bool) -> Values {
    for _ in 0..TICKS_MAX {
        let (values, _) = tick(file_systems, tree);
        if look(&values) {
            return values;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("never: {what}");
}

fn responding(values: &Values, path: &str) -> Option<f64> {
    values.at(&format!("fs:{path}"), "fs_responding")
}

#[test]
fn space_of_a_recorded_tree_is_as_df_prints_it() {
    let tree = Tree::new(&[
        ("proc/1/mountinfo", &mountinfo(&[("/", "ext4"), ("/none", "btrfs"), ("/gone", "xfs")])),
        ("statfs", "/ 4096 1000 400 350 100 25\n/none 4096 10 5 5 0 0\n"),
    ]);
    let mut file_systems = FileSystems::new(Clock::start(), ask_of(tree.path()));
    let values = tick_until(&mut file_systems, &tree, "an answer", |values| responding(values, "/none") == Some(1.0));
    let of = |name: &str| values.at("fs:/", name).expect("it is told");
    assert_eq!(of("fs_total_bytes"), 4_096_000.0);
    assert_eq!((of("fs_inodes_total"), of("fs_inodes_used"), of("fs_inodes_used_ratio")), (100.0, 75.0, 0.75));
    assert!((of("fs_used_ratio") - 600.0 / 950.0).abs() < 1e-3, "{}", of("fs_used_ratio"));
    assert_eq!(values.at("fs:/none", "fs_inodes_total"), None, "it makes inodes as it needs them");
    let (_, said) = tick(&mut file_systems, &tree);
    assert!(said.iter().any(|line| line.ends_with("the file system at /gone")), "{said:?}");
}

#[test]
fn a_hung_mount_costs_its_own_rows_and_is_asked_once_until_it_answers() {
    let tree = Tree::new(&[("proc/1/mountinfo", &mountinfo(&[("/mnt", "nfs4"), ("/", "ext4"), ("/var", "xfs")]))]);
    let gate = Gate::holding(&["/mnt"]);
    let mut file_systems = FileSystems::new(Clock::start(), gate.ask());
    let hung = |values: &Values| {
        responding(values, "/mnt") == Some(0.0)
            && ["/", "/var"].iter().all(|path| responding(values, path) == Some(1.0))
    };
    let values = tick_until(&mut file_systems, &tree, "the others are told", hung);
    assert_eq!(values.at("fs:/mnt", "fs_total_bytes"), None);
    for _ in 0..20 {
        let (values, said) = tick(&mut file_systems, &tree);
        assert_eq!(responding(&values, "/mnt"), Some(0.0));
        assert!(said.iter().any(|line| line.contains("/mnt did not answer")), "{said:?}");
    }
    assert_eq!((gate.asked("/mnt"), file_systems.alive.count()), (1, 2), "one thread waits, one asks the others");
    assert!(gate.asked("/var") > 20);

    gate.open();
    let answered = |values: &Values| responding(values, "/mnt") == Some(1.0);
    let values = tick_until(&mut file_systems, &tree, "it answers again", answered);
    assert_eq!(values.at("fs:/mnt", "fs_total_bytes"), Some(f64::from(1 << 30)));
    for _ in 0..TICKS_MAX {
        if file_systems.alive.count() == 1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("its thread never ended");
}

#[test]
fn threads_that_wait_are_bounded_and_local_file_systems_are_told_all_the_same() {
    let paths: Vec<String> = (0..40).map(|n| format!("/mnt/{n:02}")).collect();
    let mut all = vec![("/", "ext4")];
    all.extend(paths.iter().map(|path| (path.as_str(), "nfs")));
    let tree = Tree::new(&[("proc/1/mountinfo", &mountinfo(&all))]);
    let gate = Gate::holding(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    let mut file_systems = FileSystems::new(Clock::start(), gate.ask());
    let mut held = false;
    for _ in 0..2 * THREADS_MAX {
        let (_, said) = tick(&mut file_systems, &tree);
        held |= said.iter().any(|line| line.contains("threads wait"));
        assert!(file_systems.alive.count() <= THREADS_MAX);
    }
    assert!(held, "it is said that not all are asked");
    tick_until(&mut file_systems, &tree, "the local one is told", |values| responding(values, "/") == Some(1.0));
    gate.open();
    let all = |values: &Values| paths.iter().all(|path| responding(values, path) == Some(1.0));
    tick_until(&mut file_systems, &tree, "every one answers again", all);
}

#[test]
fn a_mount_that_is_taken_away_while_it_hangs_is_forgotten() {
    let tree = Tree::new(&[("proc/1/mountinfo", &mountinfo(&[("/", "ext4"), ("/mnt", "nfs")]))]);
    let gate = Gate::holding(&["/mnt"]);
    let mut file_systems = FileSystems::new(Clock::start(), gate.ask());
    tick_until(&mut file_systems, &tree, "it hangs", |values| responding(values, "/mnt") == Some(0.0));
    tree.set("proc/1/mountinfo", &mountinfo(&[("/", "ext4")]));
    let values =
        tick_until(&mut file_systems, &tree, "the other is told", |values| responding(values, "/") == Some(1.0));
    assert_eq!(values.subjects("fs:"), ["fs:/"]);
    gate.open();
}

#[test]
fn an_error_is_an_answer_and_is_no_space() {
    let tree = Tree::new(&[("proc/1/mountinfo", &mountinfo(&[("/mnt", "fuse.sshfs")]))]);
    let ask: Ask = Arc::new(|_| Err(io::ErrorKind::NotConnected.into()));
    let mut file_systems = FileSystems::new(Clock::start(), ask);
    let (values, said) = tick(&mut file_systems, &tree);
    assert_eq!((responding(&values, "/mnt"), values.at("fs:/mnt", "fs_total_bytes")), (Some(0.0), None));
    assert_eq!(said.len(), 1);
}

#[test]
fn what_the_sandbox_covers_is_said_and_not_guessed() {
    let tree = Tree::new(&[
        ("proc/1/mountinfo", &mountinfo(&[("/", "ext4"), ("/home", "ext4"), ("/srv", "ext4")])),
        ("proc/self/mountinfo", "1 1 8:0 / / ro - ext4 x rw\n2 1 0:99 / /home ro - tmpfs t ro\n"),
    ]);
    let gate = Gate::holding(&[]);
    let mut file_systems = FileSystems::new(Clock::start(), gate.ask());
    let (_, said) = tick(&mut file_systems, &tree);
    assert!(said[0].starts_with("hidden") && said[0].ends_with("at /home and 1 more"), "{said:?}");
    let values = tick_until(&mut file_systems, &tree, "the root", |values| responding(values, "/") == Some(1.0));
    assert_eq!((values.subjects("fs:"), gate.asked("/home")), (vec!["fs:/".to_owned()], 0));
    assert_eq!(values.at("fs:/", "fs_read_only"), Some(0.0), "read-only is the sandbox, not the host");
}

#[test]
fn without_the_first_process_the_own_mounts_are_told_and_that_is_said() {
    let tree = Tree::new(&[("proc/self/mountinfo", &mountinfo(&[("/", "ext4")]))]);
    let mut file_systems = FileSystems::new(Clock::start(), Gate::holding(&[]).ask());
    let (_, said) = tick(&mut file_systems, &tree);
    assert!(said[0].contains("those that the agent sees itself"), "{said:?}");
    tick_until(&mut file_systems, &tree, "the root", |values| responding(values, "/") == Some(1.0));
}

#[test]
fn of_two_thousand_mounts_two_hundred_are_told() {
    let paths: Vec<String> = (0..2_000).map(|n| format!("/srv/{n:04}")).collect();
    let all: Vec<_> = paths.iter().map(|path| (path.as_str(), "ext4")).collect();
    let tree = Tree::new(&[("proc/1/mountinfo", &mountinfo(&all))]);
    let mut file_systems = FileSystems::new(Clock::start(), Gate::holding(&[]).ask());
    let (_, said) = tick(&mut file_systems, &tree);
    assert!(said.iter().any(|line| line.contains("more than 200 file systems")), "{said:?}");
    let full = |values: &Values| values.subjects("fs:").len() == FILE_SYSTEMS_MAX;
    tick_until(&mut file_systems, &tree, "as many as are allowed", full);
}
