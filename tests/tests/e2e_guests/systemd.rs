//! A Debian with systemd, and the agent in it as its package runs it: what it says of units over the real bus.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};

use dunlin_shared::inventory::{Item, Key, Unit, What};
use dunlin_tests::guest::{Base, Guest, OUTSIDE};
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Collector, QUIC_PORT};
use dunlin_tests::window::History;
use serde_json::Value;

use crate::{LIMIT, WORD_PORT, between, debian, write};

/// Ends by itself with a code that is not 0.
const FAILS: &str = "
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'exit 3'
";
const STARVED: &str = "
[Service]
MemoryMax=16M
ExecStart=/usr/bin/tail /dev/zero
";
/// Loses a process for want of memory, and goes on.
const SURVIVES: &str = "
[Service]
MemoryMax=16M
OOMPolicy=continue
ExecStart=/bin/sh -c 'tail /dev/zero; exec sleep 1000'
";
/// 24 MiB, held by a pipe that nobody reads, in three processes.
const HOLDS: &str = "
[Service]
ExecStart=/bin/sh -c 'dd if=/dev/zero bs=24M count=1 | sleep 1000'
";
const SETTINGS: &str = "
[Service]
Environment=DUNLIN_AGENT_INTERVAL=1s DUNLIN_AGENT_COLLECTORS=";

/// The files of the guest: units, its script, and the agent as its package has it.
fn files(authority: &Authority, node: &dunlin_tests::pki::NodeIdentity) -> Scratch {
    let files = debian(include_str!("systemd.probe"));
    let unit = |name: &str, text: &str| write(files.path(), &format!("etc/systemd/system/{name}"), text);
    unit("fails.service", FAILS);
    unit("starved.service", STARVED);
    unit("survives.service", SURVIVES);
    unit("holds.service", HOLDS);
    unit("dunlin-agent.service", include_str!("../../../systemd/dunlin-agent.service"));
    unit("dunlin-agent.service.d/test.conf", &format!("{SETTINGS}{OUTSIDE}:{QUIC_PORT}\n"));
    write(files.path(), "setup", include_str!("../../../packaging/agent/setup"));
    let state = files.join("var/lib/private/dunlin-agent");
    node.identity().write(&state, authority.ca_der(), "node").expect("it is writable");
    let private = files.join("var/lib/private");
    fs::set_permissions(private, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("it is ours");
    files
}

fn failed(history: &History, name: &str) -> Option<Unit> {
    match history.stock.get(&Key::Unit(name.into()))? {
        Item::Unit(unit) => Some(unit.clone()),
        _ => None,
    }
}

fn happened(history: &History, name: &str) -> Vec<What> {
    let key = Key::Unit(name.into());
    history.happened.iter().filter(|one| one.key.as_ref() == Some(&key)).map(|one| one.what.clone()).collect()
}

#[test]
fn units_of_a_real_systemd_are_told_with_what_they_use_and_why_they_failed() {
    let namespace = Namespace::new("systemd").expect("a namespace");
    let authority = Authority::new().expect("an authority");
    let collector = Collector::start(&namespace, &authority).expect("a collector");
    let node = authority.node(node_ids(192, 0)[191]).expect("a certificate");
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, WORD_PORT));
    let listener = namespace.enter(listen).expect("the namespace is there").expect("it is free");
    let files = files(&authority, &node);
    let mut guest = Guest::start(&namespace, Base::Debian, files.path()).expect("a guest");
    guest.wait_said("=== waits", LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", guest.said()));
    let wait = |what: &str, look: &dyn Fn(&History) -> Option<Vec<What>>| {
        let found = collector.wait_window(what, LIMIT, |window| look(window.of(node.id).ok()?));
        found.unwrap_or_else(|error| {
            let window = collector.window().expect("it can be read");
            panic!("{error}\nthe node:\n{:?}\nthe guest:\n{}", window.of(node.id).map(|node| &node.stock), guest.said())
        })
    };
    wait("failed units", &|history| {
        let results = ["fails.service", "starved.service"].map(|name| failed(history, name).map(|unit| unit.result));
        (results == [Some("exit-code".into()), Some("oom-kill".into())]).then(Vec::new)
    });

    let (mut guests, _) = listener.accept().expect("the guest waits");
    guests.write_all(b"go on\n").expect("it listens");
    let recovered = wait("their recovery", &|history| {
        let is_gone = failed(history, "fails.service").is_none();
        is_gone.then(|| happened(history, "fails.service")).filter(|all| all.contains(&What::UnitRecovered))
    });
    assert!(recovered.ends_with(&[What::UnitRecovered]), "{recovered:?}");
    let still = wait("a unit that failed", &|history| failed(history, "starved.service").map(|_| Vec::new()));
    assert!(still.is_empty());
    guests.write_all(b"end\n").expect("it listens");
    guests.read_to_end(&mut Vec::new()).expect("it hangs up");
    guest.wait_said("=== end", LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", guest.said()));
    services_have_their_numbers(&guest.said());
}

fn services_have_their_numbers(text: &str) {
    let once = between(text, "=== once", "=== files");
    let said: Value = serde_json::from_str(once).unwrap_or_else(|error| panic!("{error}: {once}"));
    let series = said["series"].as_array().expect("a list");
    let of = |unit: &str, metric: &str| {
        let subject = format!("unit:{unit}.service");
        let found = series.iter().find(|one| one["subject"] == subject.as_str() && one["metric"] == metric);
        found.and_then(|one| one["value"].as_f64()).unwrap_or_else(|| panic!("{subject} {metric}"))
    };
    assert_eq!([of("fails", "unit_failed"), of("starved", "unit_failed")], [1.0, 1.0]);
    assert_eq!([of("survives", "unit_oom_kills"), of("holds", "unit_oom_kills")], [1.0, 0.0]);
    assert_eq!([of("survives", "unit_tasks"), of("holds", "unit_tasks")], [1.0, 3.0]);
    let files: Vec<f64> =
        between(text, "=== files", "=== waits").lines().filter_map(|line| line.trim().parse().ok()).collect();
    let &[current, inactive, usage_us] = &files[..] else { panic!("{files:?}") };
    let used = of("holds", "unit_memory_used_bytes");
    assert!((used - (current - inactive)).abs() <= 65_536.0 && used > 24.0 * 1_048_576.0, "{used} {files:?}");
    assert!((of("holds", "unit_cpu_seconds") - usage_us / 1e6).abs() <= 0.01, "{files:?}");
    // The agent is a unit like others, within its limits.
    assert!(of("dunlin-agent", "unit_memory_used_bytes") < 64.0 * 1_048_576.0);
    let sources = said["sources"].as_array().expect("a list");
    let systemd = sources.iter().find(|source| source["name"] == "systemd").expect("it is told");
    assert_eq!((&systemd["working"], &systemd["says"]), (&Value::Bool(true), &Value::from("")));
}
