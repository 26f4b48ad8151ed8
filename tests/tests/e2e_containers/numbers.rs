//! What the agent says of containers of known size beside what `docker stats` says of them.
//!
//! A container at rest is compared as it stands. Of one at work both counted over the same time is compared: what
//! `docker stats` prints of it is made of that counter, over a second of its own choice.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use dunlin_tests::deadline::until;
use dunlin_tests::engines::{Engine, Kind};
use dunlin_tests::netns::Namespace;
use serde_json::Value;

use crate::{LIMIT, Site, engine, seconds};

/// As the issue of numbers has it: of what `docker stats` says.
const NEAR: f64 = 0.02;
const MIB: f64 = 1_048_576.0;
/// A buffer of this size, written whole and held by a pipe that nobody reads; and a file beside it, whose pages are
/// charged to the container and are no memory in use.
const MEMORY_HOG: &str =
    "dd if=/dev/zero of=/file bs=1M count=48 2>/dev/null; dd if=/dev/zero bs=64M count=1 2>/dev/null | sleep 1000";
const HOG_BYTES: f64 = 64.0 * MIB;
const FILE_BYTES: f64 = 48.0 * MIB;
const CPU_HOG: &str = "while :; do :; done";
/// Half a core, given out a hundred times a second, so that each second has as much as the next.
const HALF_A_CORE: &[&str] = &["--network", "host", "--cpu-period", "10000", "--cpu-quota", "5000"];
/// Some seconds of a processor, and then rest.
const SPENT_HOG: &str = "dd if=/dev/zero of=/dev/null bs=1M count=300000 2>/dev/null; sleep 1000";
/// Of a processor: what a tick moves at either end is little beside it.
const SPENT_SECONDS: f64 = 10.0;

/// A line of `docker stats`.
#[derive(Clone, Copy, Debug)]
struct Line {
    cores: f64,
    memory_bytes: f64,
    limit_bytes: f64,
    tasks: f64,
}

/// What the engine's own interface says, which is what `docker stats` is made of.
#[derive(Clone, Copy, Debug)]
struct Counted {
    /// Of the day.
    at_s: f64,
    cpu_seconds: f64,
    charged_bytes: f64,
    inactive_bytes: f64,
    file_bytes: f64,
}

#[test]
fn numbers_of_hogs_are_those_of_docker_stats() {
    let namespace = Namespace::new("numbers").expect("a namespace");
    let docker = engine(Kind::Docker, &namespace);
    let host = ["--network", "host"];
    docker
        .launch("memory", &[&host[..], &["--memory", "256m"]].concat(), &["sh", "-c", MEMORY_HOG])
        .expect("it starts");
    docker.launch("spent", &host, &["sh", "-c", SPENT_HOG]).expect("it starts");
    let site = Site::start(&namespace, &docker);
    memory_is_near(&site, &docker);
    spent_time_is_near(&site, &docker);
    docker.launch("cpu", HALF_A_CORE, &["sh", "-c", CPU_HOG]).expect("it starts");
    rate_is_near(&site, &docker);
}

fn memory_is_near(site: &Site<'_>, docker: &Engine<'_>) {
    let is_grown = |line: &Line| line.memory_bytes > HOG_BYTES && line.tasks > 2.0;
    until("the hog to have grown", LIMIT, || Some(stats(docker, "memory")).filter(is_grown)).expect("it grows");
    let line = stats(docker, "memory");
    // It may be written still.
    let is_whole = |counted: &Counted| counted.file_bytes >= FILE_BYTES;
    let counted = until("the whole file to be charged", LIMIT, || Some(counted(docker, "memory")).filter(is_whole));
    let counted = counted.expect("it is written");
    // The file is charged, and neither tells it as memory in use.
    assert!(counted.inactive_bytes > FILE_BYTES * 0.8, "{counted:?}");
    assert!(counted.charged_bytes > HOG_BYTES + FILE_BYTES * 0.9, "{counted:?}");
    let container = site.listed("memory", |one| one["memory_bytes"].as_f64() > Some(HOG_BYTES));
    let said = container["memory_bytes"].as_f64().expect("a number");
    assert_near("memory", said, line.memory_bytes);
    assert!(said < HOG_BYTES + FILE_BYTES / 2.0, "the file is no memory in use: {said}");
    assert_eq!(container["memory_limit_bytes"].as_f64(), Some(256.0 * MIB));
    assert_near("limit", 256.0 * MIB, line.limit_bytes);
    for (metric, value) in [
        ("container_memory_used_bytes", line.memory_bytes),
        ("container_memory_anon_bytes", HOG_BYTES),
        ("container_memory_file_bytes", counted.file_bytes),
        ("container_processes", line.tasks),
    ] {
        assert_near(metric, site.newest("memory", metric), value);
    }
}

fn spent_time_is_near(site: &Site<'_>, docker: &Engine<'_>) {
    let still = until("a hog that has spent its time", LIMIT, || {
        let (before, line, after) = (counted(docker, "spent"), stats(docker, "spent"), counted(docker, "spent"));
        (before.cpu_seconds == after.cpu_seconds && line.cores == 0.0).then_some(after)
    });
    let counted = still.expect("it comes to rest");
    assert!(counted.cpu_seconds > 0.5, "{counted:?}");
    // No engine is asked: it is known by its control group alone.
    let id = docker.run(&["inspect", "--format", "{{.Id}}", "spent"]).expect("it tells");
    let said = site.once(&format!("container:{}", &id[..12]), "container_cpu_seconds");
    assert_near("processor time", said, counted.cpu_seconds);
}

/// Both over the same time, whatever the machine does beside: the engine's counter, and the agent's readings of it.
fn rate_is_near(site: &Site<'_>, docker: &Engine<'_>) {
    let at_work = |line: &Line| line.cores > 0.2;
    let line = until("the hog at work", LIMIT, || Some(stats(docker, "cpu")).filter(at_work)).expect("it works");
    assert!(line.cores < 0.6, "{line:?}");
    site.listed("cpu", |one| one["cpu_cores"].as_f64() > Some(0.2));
    let from = counted(docker, "cpu");
    let enough = |to: &Counted| to.cpu_seconds - from.cpu_seconds > SPENT_SECONDS;
    let to = until("some seconds of a processor", LIMIT, || Some(counted(docker, "cpu")).filter(enough));
    let to = to.expect("it works on");
    let readings = until("what was read meanwhile", LIMIT, || {
        let readings = site.readings("cpu", "container_cpu_seconds");
        readings.last().is_some_and(|last| last.0 >= to.at_s).then_some(readings)
    });
    // Each is the rate since the one before it; of the first and the last a part counts.
    let within = |two: &[(f64, f64)]| (two[1].0.min(to.at_s) - two[0].0.max(from.at_s)).max(0.0) * two[1].1;
    let said: f64 = readings.expect("it goes on").windows(2).map(within).sum();
    assert_near("processor time", said, to.cpu_seconds - from.cpu_seconds);
    assert_eq!(site.newest("cpu", "container_cpu_limit_cores"), 0.5);
    assert!(site.newest("cpu", "container_cpu_throttled_seconds") > 0.0);
}

#[track_caller]
fn assert_near(what: &str, said: f64, docker: f64) {
    assert!((said - docker).abs() <= docker * NEAR, "{what}: the agent says {said}, docker {docker}");
}

fn stats(docker: &Engine<'_>, name: &str) -> Line {
    let format = "{{.CPUPerc}} {{.MemUsage}} {{.PIDs}}";
    let text = docker.run(&["stats", "--no-stream", "--format", format, name]).expect("it tells");
    let words: Vec<&str> = text.split_whitespace().collect();
    let &[cores, used, "/", limit, tasks] = &words[..] else { panic!("{text}") };
    let number = |text: &str| text.parse::<f64>().unwrap_or_else(|error| panic!("{text}: {error}"));
    let cores = number(cores.trim_end_matches('%')) / 100.0;
    Line { cores, memory_bytes: bytes(used), limit_bytes: bytes(limit), tasks: number(tasks) }
}

/// `64.5MiB`
fn bytes(text: &str) -> f64 {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).expect("a unit");
    let (number, unit) = text.split_at(split);
    let unit = match unit {
        "B" => 1.0,
        "KiB" => 1_024.0,
        "MiB" => MIB,
        "GiB" => 1_024.0 * MIB,
        _ => panic!("{text}"),
    };
    number.parse::<f64>().expect("a number") * unit
}

fn counted(docker: &Engine<'_>, name: &str) -> Counted {
    let mut stream = UnixStream::connect(docker.socket()).expect("it listens");
    // In this version of HTTP an answer ends with its connection.
    write!(stream, "GET /containers/{name}/stats?stream=false&one-shot=true HTTP/1.0\r\nHost: docker\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (_, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let json: Value = serde_json::from_str(body).expect("it is JSON");
    let of = |path: &str| json.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}: {json}"));
    // The names of version 1 of control groups, and those of version 2.
    let stat = |names: [&str; 2]| {
        let found = names.iter().find_map(|name| json["memory_stats"]["stats"][name].as_f64());
        found.unwrap_or_else(|| panic!("{names:?}: {json}"))
    };
    Counted {
        at_s: json["read"].as_str().and_then(seconds).expect("a time"),
        cpu_seconds: of("/cpu_stats/cpu_usage/total_usage") / 1e9,
        charged_bytes: of("/memory_stats/usage"),
        inactive_bytes: stat(["total_inactive_file", "inactive_file"]),
        file_bytes: stat(["total_cache", "file"]),
    }
}
