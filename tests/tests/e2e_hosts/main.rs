//! Fresh hosts that systemd boots, and the packages on them: from nothing to watched, and everything that happens to a
//! service on a host between its installation and its removal.

mod ansible;
mod first_minute;
mod lifecycle;
mod old_kernel;
mod refused;
mod tarball;
mod withstands;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dunlin_tests::deadline::until;
use dunlin_tests::host::Host;
use dunlin_tests::package::Built;
use dunlin_tests::topology::{AGENT, COLLECTOR, Direct};
use serde_json::Value;

/// Far above what any step takes on a busy machine. What is promised in seconds is printed, and judged by the bench.
const LIMIT: Duration = Duration::from_secs(90);

/// What the packages bear where nothing else is said.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A host with a collector, and another one on its wire.
struct Pair {
    collector: Host,
    web: Host,
    network: Direct,
}

impl Pair {
    fn boot() -> Self {
        let network = Direct::new().expect("two namespaces");
        // As on any server: its own address is the one on its way out.
        network.collector.ip(&["route", "add", "default", "via", &AGENT.to_string()]).expect("a way out");
        let collector = Host::boot(&network.collector, "collector").expect("a host");
        let web = Host::boot(&network.agent, "web-1").expect("a host");
        Self { collector, web, network }
    }

    /// Both, and the collector's packages on its host.
    fn with_collector() -> Self {
        let pair = Self::boot();
        pair.install_collector(VERSION);
        pair
    }

    /// Waits for no more than dpkg does: a unit that says when it is ready is ready then.
    fn install_collector(&self, version: &str) -> Duration {
        for name in ["dunlin-cli", "dunlin-collector"] {
            self.collector.put(&package(name, version), "/root").expect("it is writable");
        }
        let began = Instant::now();
        let install = format!("dpkg -i /root/dunlin-cli_{version}_*.deb /root/dunlin-collector_{version}_*.deb");
        self.collector.run(&install).expect("it installs");
        assert_eq!(self.collector.property("dunlin-collector", "ActiveState").expect("a state"), "active");
        began.elapsed()
    }

    /// The line that the collector prints for a host, as somebody there would paste it. Root needs no sudo.
    fn invitation(&self, words: &str) -> String {
        let said = self.collector.run(&format!("dunlin-collector invite {words}")).expect("a line");
        assert_eq!(said.lines().count(), 1, "one line, to be pasted: {said}");
        assert!(said.contains(&format!("={COLLECTOR}:9737 ")), "by its own address on the way out: {said}");
        said.trim().strip_prefix("sudo ").expect("a person is not root").to_owned()
    }

    /// Puts the agent's package on the other host, and pastes a line there.
    fn paste(&self, line: &str) {
        self.web.put(&package("dunlin-agent", VERSION), "/root").expect("it is writable");
        self.web.run(&format!("cd /root && {line}")).expect("it installs");
    }

    /// Both with everything on them, and the node up.
    fn watched() -> Self {
        let pair = Self::with_collector();
        pair.paste(&pair.invitation(""));
        pair.wait_up();
        pair
    }

    fn nodes(&self) -> Option<Vec<Value>> {
        let said = self.collector.run("dunlin nodes -o json").ok()?;
        Some(serde_json::from_str::<Value>(&said).ok()?["items"].as_array()?.clone())
    }

    /// Waits for one node that is up, and gives its id.
    fn wait_up(&self) -> String {
        self.wait_for_state("up")
    }

    fn wait_for_state(&self, state: &str) -> String {
        let found = until(&format!("one node that is {state}"), LIMIT, || {
            let nodes = self.nodes()?;
            let is_it = nodes.len() == 1 && nodes[0]["state"] == state;
            is_it.then(|| nodes[0]["id"].as_str().map(str::to_owned))?
        });
        found.unwrap_or_else(|error| {
            panic!(
                "{error}: {:?}\nthe host:\n{}\nthe collector:\n{}",
                self.nodes(),
                self.web.journal(),
                self.collector.journal()
            )
        })
    }

    /// Waits until `systemctl status` of the agent has one line that says this.
    fn wait_status(&self, text: &str) {
        let said = self.web.wait(&format!("{text:?} in systemctl status"), LIMIT, || {
            self.web.property("dunlin-agent", "StatusText").ok().filter(|line| line.contains(text))
        });
        said.unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A package, built once for all tests.
fn package(name: &str, version: &str) -> PathBuf {
    let packages = Built::find().and_then(|built| built.packed(version)).expect("the packages are built");
    let begins = format!("{name}_{version}_");
    let mut files = std::fs::read_dir(packages).expect("it was made").flatten().map(|entry| entry.path());
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins));
    files.find(is_it).unwrap_or_else(|| panic!("no package {begins}"))
}
