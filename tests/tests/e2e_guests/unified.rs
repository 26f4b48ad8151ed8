//! Version 2 of control groups as a real kernel has them, with groups named as engines name those of containers, and no
//! engine: what the agent says beside the files that it read.

use std::collections::BTreeMap;

use dunlin_tests::guest::{Base, Guest};
use dunlin_tests::netns::Namespace;
use dunlin_tests::scratch::Scratch;
use serde_json::Value;

use crate::{LIMIT, between, write};

/// The catalogue keeps memory to 64 KiB, and time to a hundredth of a second.
const MEMORY_STEP: f64 = 65_536.0;
const TIME_STEP: f64 = 0.01;

/// The lines of `facts` in the guest's script, by their beginning.
struct Files(BTreeMap<String, f64>);

impl Files {
    fn of(text: &str) -> Self {
        let of = |line: &str| {
            let (key, value) = line.trim().rsplit_once(' ')?;
            Some((key.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter_map(of).collect())
    }

    fn at(&self, key: &str) -> f64 {
        *self.0.get(key).unwrap_or_else(|| panic!("{key} is not in {:?}", self.0))
    }
}

fn value(said: &Value, subject: &str, metric: &str, key: &str) -> f64 {
    let series = said["series"].as_array().expect("a list");
    let found = series.iter().find(|one| one["subject"] == subject && one["metric"] == metric);
    found.and_then(|one| one[key].as_f64()).unwrap_or_else(|| panic!("{subject} {metric} {key}"))
}

#[test]
fn control_groups_of_version_2_are_told_as_the_kernel_has_them() {
    let namespace = Namespace::new("unified").expect("a namespace");
    let files = Scratch::new("files").expect("a directory");
    write(files.path(), "init", include_str!("unified.init"));
    let mut guest = Guest::start(&namespace, Base::Bare, files.path()).expect("a guest");
    guest.wait_said("=== end", LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", guest.said()));
    let text = guest.said();
    let before = Files::of(between(&text, "=== before", "=== once"));
    let after = Files::of(between(&text, "=== after", "=== end"));
    let once = between(&text, "=== once", "=== after");
    let said: Value = serde_json::from_str(once).unwrap_or_else(|error| panic!("{error}: {once}"));
    let named = |digit: &str| format!("container:{}", digit.repeat(12));
    let (docker, podman, containerd, crio) = (named("1"), named("2"), named("3"), named("4"));
    let of = |subject: &str, metric: &str| value(&said, subject, metric, "value");

    // Half a processor, by a limit that is given out a hundred times a second.
    let used = of(&docker, "container_cpu_seconds");
    let [low, high] = [&before, &after].map(|files| files.at("cpu.stat usage_usec") / 1e6);
    assert!((low - TIME_STEP..=high + TIME_STEP).contains(&used), "{used} is not within {low} and {high}");
    let rate = value(&said, &docker, "container_cpu_seconds", "per_second");
    assert!((0.3..=0.55).contains(&rate), "{rate}");
    assert_eq!(of(&docker, "container_cpu_limit_cores"), 0.5);
    assert!(of(&docker, "container_cpu_throttled_seconds") >= before.at("cpu.stat throttled_usec") / 1e6 - TIME_STEP);

    assert_eq!(before.at("memory.current"), after.at("memory.current"), "the hog stands still");
    for (metric, expected) in [
        ("container_memory_used_bytes", after.at("memory.current") - after.at("memory.stat inactive_file")),
        ("container_memory_anon_bytes", after.at("memory.stat anon")),
        ("container_memory_file_bytes", after.at("memory.stat file")),
        ("container_memory_kernel_bytes", after.at("memory.stat kernel")),
        ("container_memory_limit_bytes", 64.0 * 1_048_576.0),
        ("container_processes", 3.0),
    ] {
        assert!((of(&podman, metric) - expected).abs() <= MEMORY_STEP, "{metric}: {} {expected}", of(&podman, metric));
    }
    assert!(of(&podman, "container_memory_anon_bytes") >= 16.0 * 1_048_576.0);

    assert_eq!((of(&containerd, "container_oom_kills"), after.at("memory.events oom_kill")), (1.0, 1.0));
    assert_eq!((of("host", "host_oom_kills"), of(&podman, "container_oom_kills")), (1.0, 0.0));
    assert_eq!((of(&crio, "container_running"), of("unit:nginx.service", "unit_tasks")), (1.0, 1.0));
    // This kernel has what that of the tests may lack.
    assert!(of("host", "host_pressure_memory_some_seconds") >= 0.0);

    let mut ports: Vec<_> = said["ports"].as_array().expect("a list").iter().collect();
    ports.sort_by_key(|port| port["port"].as_u64());
    let of = |port: &Value| ["network", "address", "port", "process", "container"].map(|key| port[key].to_string());
    let own = format!("\"{}\"", "4".repeat(12));
    let expected = [[&own, "\"127.0.0.1\"", "7004", "\"httpd\"", &own], ["null", "\"::\"", "7005", "\"nc\"", "null"]];
    assert_eq!(ports.into_iter().map(of).collect::<Vec<_>>(), expected);
    let wrong: Vec<_> =
        said["sources"].as_array().expect("a list").iter().filter(|one| one["working"] != true).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
