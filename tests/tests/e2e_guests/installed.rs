//! The packages on a fresh Debian: installed, a fleet of one, removed with their state left, and purged of it.

use std::fs;
use std::time::Duration;

use dunlin_tests::guest::{Base, Guest};
use dunlin_tests::netns::Namespace;
use dunlin_tests::package::Built;
use serde_json::Value;

use crate::{LIMIT, between, debian};

/// dpkg unpacks, a second program runs and all is started three times, where others only boot.
const DONE_LIMIT: Duration = LIMIT.saturating_mul(4);
const PROGRAMS: [&str; 4] = [
    "/usr/bin/dunlin",
    "/usr/bin/dunlin-agent",
    "/usr/bin/dunlin-collector",
    "/lib/systemd/system/dunlin-agent.service",
];
/// What an operator wrote, and what the services did.
const KEPT: [&str; 4] = [
    "/etc/dunlin/agent.toml",
    "/etc/dunlin/collector.toml",
    "/var/lib/dunlin-agent/node.key",
    "/var/lib/dunlin-collector/ca.key",
];

/// Whether `look` of the guest's script found all of these as they should be.
fn are(found: &str, how: &str, paths: &[&str]) -> bool {
    paths.iter().all(|path| found.lines().any(|line| line.trim() == format!("{how} {path}")))
}

#[test]
fn packages_install_run_are_removed_with_their_state_left_and_purged_of_it() {
    let namespace = Namespace::new("installed").expect("a namespace");
    let files = debian(include_str!("installed.probe"));
    let packages = files.join("packages");
    fs::create_dir(&packages).expect("it is writable");
    Built::find().and_then(|built| built.pack(&packages)).expect("the packages are built");
    let mut guest = Guest::start(&namespace, Base::Debian, files.path()).expect("a guest");
    guest.wait_said("=== end", DONE_LIMIT).unwrap_or_else(|error| panic!("{error}\n{}", guest.said()));
    let said = guest.said();

    assert!(said.contains("=== ahead") && said.contains("=== behind"), "{said}");
    let up = between(&said, "=== up\n", "=== ahead").lines().next().unwrap_or_default();
    let nodes: Value = serde_json::from_str(up).unwrap_or_else(|error| panic!("{error}: {up}"));
    let nodes = nodes["items"].as_array().expect("a list");
    assert!(nodes.len() == 1 && nodes[0]["state"] == "up", "{up}");
    let installed = between(&said, "=== installed", "=== remove");
    assert!(are(installed, "here", &PROGRAMS) && are(installed, "here", &KEPT), "{said}");
    for unit in ["dunlin-agent", "dunlin-collector"] {
        assert!(installed.contains(&format!("{unit} enabled active")), "{said}");
    }
    let removed = between(&said, "=== removed", "=== purge\n");
    assert!(are(removed, "gone", &PROGRAMS) && are(removed, "here", &KEPT), "{said}");
    let purged = between(&said, "=== purged", "=== end");
    assert!(are(purged, "gone", &PROGRAMS) && are(purged, "gone", &KEPT), "{said}");
    assert!(!removed.contains(" active") && !purged.contains(" active"), "{said}");
}
