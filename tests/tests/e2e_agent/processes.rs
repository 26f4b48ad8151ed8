//! What the agent says of process groups beside what `ps` says of their processes, where a test's own are all there are.
//!
//! They stand still meanwhile: `ps` says the same before and after, so that both must agree to the last one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use dunlin_tests::process::Program;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::tool;
use serde_json::Value;

use crate::{LIMIT, agent_binary};

/// Names of programs as files may have them, and as a person reads them.
const NAMES: [(&[u8], &str); 6] = [
    (b"plain", "plain"),
    (b"with space", "with space"),
    (b"a (b) c) R 1 2", "a (b) c) R 1 2"),
    (b"two\nlines", "two\\x0alines"),
    (b"\xff\xfe raw", "\\xff\\xfe raw"),
    // The kernel knows fifteen bytes of it. What stands behind the word that they end in might be a title's secret.
    (b"longer than fifteen bytes", "longer than fifteen"),
];
/// Processes of each.
const EACH: f64 = 3.0;
/// Of a processor, before it rests: `ps` prints whole seconds.
const SPENT_S: f64 = 2.0;
/// The catalogue keeps memory to so much.
const MEMORY_STEP: f64 = 65_536.0;
const SPINNER: &str =
    "my $held = 'x' x 64_000_000; 1 while (times)[0] < 2; open(my $f, '>', $ARGV[0]); close($f); sleep 1000;";
/// The first process of its namespace. Its words: the agent, the directory, the programs.
const SCRIPT: &str = r#"
agent=$1 dir=$2
shift 2
listed() { echo "=== $1"; ps -eo pid=,nlwp=,rss=,cputimes= --sort pid; }
redis-server --port 0 --unixsocket "$dir/socket" --save "" >/dev/null 2>&1 & echo "redis-server $!"
perl "$dir/spin.pl" "$dir/spent" & echo "spin.pl $!"
number=0
for program in "$@"; do
    for one in 1 2 3; do "$program" 1000 & echo "$number $!"; done
    number=$((number + 1))
done
until [ -e "$dir/spent" ] && [ "$(ps -C redis-server -o nlwp= | tr -d ' ')" -ge 4 ]; do sleep 0.1; done
# Everything has been started by then, and rests.
sleep 1
listed before
echo "=== once"
"$agent" once --json
listed after
echo "=== end"
"#;

/// What `ps` says of one process, or of a group of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Listed {
    count: f64,
    threads: f64,
    memory_bytes: f64,
    cpu_seconds: f64,
}

impl Listed {
    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            threads: self.threads + other.threads,
            memory_bytes: self.memory_bytes + other.memory_bytes,
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
        }
    }
}

/// By process.
fn listed(text: &str) -> BTreeMap<u32, Listed> {
    let of = |line: &str| {
        let numbers: Vec<f64> = line.split_whitespace().map(|word| word.parse().expect("a number")).collect();
        let &[_, threads, rss_kib, cpu_seconds] = &numbers[..] else { panic!("{line}") };
        let pid = line.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("a process");
        (pid, Listed { count: 1.0, threads, memory_bytes: rss_kib * 1_024.0, cpu_seconds })
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(of).collect()
}

/// The parts of what the script printed, by their titles.
fn parts(text: &str) -> BTreeMap<&str, &str> {
    text.split("=== ").filter_map(|part| part.split_once('\n')).collect()
}

fn said(scratch: &Scratch) -> String {
    fs::write(scratch.join("spin.pl"), SPINNER).expect("it is writable");
    let programs: Vec<PathBuf> = NAMES.iter().map(|(name, _)| scratch.path().join(OsStr::from_bytes(name))).collect();
    for program in &programs {
        fs::copy(tool::find("sleep").expect("coreutils are there"), program).expect("it fits");
    }
    let log = scratch.join("said");
    let unshare = tool::find("unshare").expect("util-linux is there");
    let program = Program::at(unshare).args(["-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", SCRIPT, "sh"]);
    let program = program.arg(agent_binary()).arg(scratch.path()).args(programs.into_iter().map(OsString::from));
    for tool in ["ps", "perl", "redis-server"] {
        tool::find(tool).unwrap_or_else(|error| panic!("{error}"));
    }
    let mut running = program.log(&log).start().expect("it starts");
    let status = running.wait_exit(LIMIT).expect("it ends");
    assert!(status.success(), "{}", running.log_text());
    format!("started\n{}", running.log_text())
}

#[test]
fn groups_sum_to_what_ps_says_of_their_processes() {
    let scratch = Scratch::new("processes").expect("a directory");
    let text = said(&scratch);
    let parts = parts(&text);
    let (before, after) = (listed(parts["before"]), listed(parts["after"]));
    let mut expected: BTreeMap<String, Listed> = BTreeMap::new();
    for line in parts["started"].lines() {
        let (name, pid) = line.rsplit_once(' ').expect("a name and a process");
        let name = name.parse::<usize>().map_or(name, |number| NAMES[number].1);
        let pid: u32 = pid.parse().expect("a number");
        assert_eq!(before[&pid], after[&pid], "{name} stands still");
        let group = expected.entry(name.to_owned()).or_default();
        *group = group.add(before[&pid]);
    }
    assert_eq!(expected.len(), NAMES.len() + 2);

    let json: Value = serde_json::from_str(parts["once"]).unwrap_or_else(|error| panic!("{error}: {text}"));
    let series = json["series"].as_array().expect("a list");
    let of = |name: &str, metric: &str| {
        let subject = format!("process:{name}");
        let found = series.iter().find(|one| one["subject"] == subject.as_str() && one["metric"] == metric);
        found.and_then(|one| one["value"].as_f64()).unwrap_or_else(|| panic!("{metric} of {name} is not told: {json}"))
    };
    for (name, group) in &expected {
        assert_eq!(of(name, "process_count"), group.count, "{name}");
        assert_eq!(of(name, "process_threads"), group.threads, "{name}");
        let memory = of(name, "process_memory_bytes");
        assert!((memory - group.memory_bytes).abs() <= MEMORY_STEP, "{name}: {memory} {group:?}");
        // `ps` cuts what is not a whole second, of each.
        let cpu = of(name, "process_cpu_seconds");
        assert!((group.cpu_seconds..=group.cpu_seconds + group.count).contains(&cpu), "{name}: {cpu} {group:?}");
    }
    assert!(expected["spin.pl"].cpu_seconds >= SPENT_S && expected["redis-server"].threads >= 4.0, "{expected:?}");
    assert!(NAMES.iter().all(|(_, name)| expected[*name].count == EACH), "{expected:?}");
    // None is left out, and none is counted twice: only the `ps` itself was there before, and the agent was not.
    let told = series.iter().filter(|one| one["metric"] == "process_count");
    let told: f64 = told.filter_map(|one| one["value"].as_f64()).sum();
    assert_eq!(told, before.values().map(|one| one.count).sum::<f64>());
    let all = series.iter().find(|one| one["metric"] == "host_processes").and_then(|one| one["value"].as_f64());
    assert_eq!(all, Some(told));
}
