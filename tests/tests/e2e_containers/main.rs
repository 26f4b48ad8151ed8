//! Containers of a real Docker and a real Podman, as a collector hears of them: each step of a life, and no secret.

mod life;
mod networks;
mod numbers;
mod secret;
mod trouble;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dunlin_shared::id::NodeId;
use dunlin_shared::inventory::{Container, Item, Key};
use dunlin_tests::deadline::until;
use dunlin_tests::engines::{Engine, Kind};
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::Authority;
use dunlin_tests::site::{Agent, Collector, QUIC_PORT, SiteError};
use dunlin_tests::tool;
use dunlin_tests::window::History;
use serde_json::Value;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// What stands in command lines and environments, and may stand nowhere else.
const SECRET: &str = "S3CRET";

/// A collector and an agent that follows one engine, all in one namespace.
struct Site<'n> {
    namespace: &'n Namespace,
    /// Of the engines, with commas.
    sockets: String,
    agent: Agent<'n>,
    collector: Collector<'n>,
}

impl<'n> Site<'n> {
    fn start(namespace: &'n Namespace, engine: &Engine<'_>) -> Self {
        Self::start_beside(namespace, &[engine.socket()])
    }

    /// The agent follows whoever listens there.
    fn start_beside(namespace: &'n Namespace, sockets: &[PathBuf]) -> Self {
        let authority = Authority::new().expect("an authority");
        let collector = Collector::start(namespace, &authority).expect("a collector");
        let sockets: Vec<_> = sockets.iter().map(|socket| socket.display().to_string()).collect();
        let sockets = sockets.join(",");
        let settings = [
            format!("DUNLIN_AGENT_COLLECT_SOCKETS={sockets}"),
            String::from("DUNLIN_AGENT_COLLECT_CONTAINER_LABELS=team"),
            String::from("DUNLIN_AGENT_SPOOL_DISK=1MiB"),
            // What it says at its most talkative is searched for secrets as well.
            String::from("DUNLIN_LOG=trace"),
        ];
        let prefix = [OsString::from("/usr/bin/env")].into_iter().chain(settings.map(OsString::from)).collect();
        let address = format!("127.0.0.1:{QUIC_PORT}");
        let agent = Agent::start_under(namespace, &authority, &address, prefix).expect("an agent");
        Self { namespace, sockets, agent, collector }
    }

    const fn namespace(&self) -> &'n Namespace {
        self.namespace
    }

    fn node(&self) -> NodeId {
        self.agent.node
    }

    /// Waits until the collector has heard what `look` looks for.
    fn wait<T>(&self, what: &str, look: impl FnMut(&History) -> Option<T>) -> T {
        let found = self.try_wait(what, look);
        found.unwrap_or_else(|error| panic!("{error}\nthe log of the agent:\n{}", self.agent.log_text()))
    }

    fn try_wait<T>(&self, what: &str, mut look: impl FnMut(&History) -> Option<T>) -> Result<T, SiteError> {
        self.collector.wait_window(what, LIMIT, |window| look(window.of(self.node()).ok()?))
    }

    /// Waits until so many things of a kind happened to the container.
    fn wait_happened(&self, name: &str, kind: &str, times: usize) {
        self.wait(&format!("{kind} of {name}"), |history| (happened(history, name, kind) >= times).then_some(()));
    }

    fn container(&self, name: &str) -> Container {
        self.wait(name, |history| container(history, name))
    }

    /// What a sample on a terminal says of the subject.
    fn once(&self, subject: &str, metric: &str) -> f64 {
        let mut command = Command::new(binary("dunlin-agent"));
        let text = self.namespace.finish(command.args(["once", "--json"])).expect("it tells");
        let said: Value = serde_json::from_str(&text).expect("it is JSON");
        let series = said["series"].as_array().expect("a list");
        let found = series.iter().find(|one| one["subject"] == subject && one["metric"] == metric);
        found.and_then(|one| one["value"].as_f64()).unwrap_or_else(|| panic!("{metric} of {subject}: {text}"))
    }

    /// What `dunlin` says on the collector's host, as JSON.
    fn dunlin(&self, arguments: &[&str]) -> Value {
        let text = self.dunlin_text(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn dunlin_text(&self, arguments: &[&str]) -> String {
        let url = format!("unix:{}", self.collector.state_dir().join("admin.sock").display());
        let mut command = Command::new(binary("dunlin"));
        command.args(["-o", "json"]).args(arguments).env("DUNLIN_URL", url);
        tool::finish(&mut command).expect("it answers")
    }

    /// What the collector's feed tells of containers, in its order: the kind of each event, and of whom.
    fn events(&self) -> Vec<(String, String)> {
        let text = self.dunlin_text(&["events", "--kind", "container.*"]);
        let event = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            let word = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            assert_eq!(event["node"], self.node().to_string(), "{line}");
            (word("kind"), word("container"))
        };
        text.lines().map(event).collect()
    }

    /// The container's line of `dunlin containers`, once it is as it should be.
    fn listed(&self, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.wait_listed("containers", |one| one["name"] == name && is_so(one))
    }

    /// A line of a list of `dunlin`, once there is one that is as it should be.
    fn wait_listed(&self, list: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let look = || self.dunlin(&[list])["items"].as_array()?.iter().find(|one| is_so(one)).cloned();
        until(list, LIMIT, look).unwrap_or_else(|error| panic!("{error}: {}", self.dunlin(&[list])))
    }

    /// What `dunlin metrics` says of the container: seconds of some clock, and values.
    fn readings(&self, name: &str, metric: &str) -> Vec<(f64, f64)> {
        let (node, subject) = (self.node().to_string(), format!("container:{name}"));
        let said = self.dunlin(&["metrics", &node, metric, "--subject", &subject, "--from", "1h"]);
        let points = said["items"][0]["points"].as_array().unwrap_or_else(|| panic!("{said}"));
        points.iter().filter_map(|point| Some((seconds(point[0].as_str()?)?, point[1].as_f64()?))).collect()
    }

    fn newest(&self, name: &str, metric: &str) -> f64 {
        self.readings(name, metric).last().unwrap_or_else(|| panic!("{metric} of {name} is not told")).1
    }

    /// No file of either program, and no log, holds the secret.
    fn has_no_secret(&self) {
        for directory in [self.agent.state_dir(), self.collector.state_dir()] {
            search(&directory);
        }
        for log in [self.agent.log_text(), self.collector.log_text()] {
            assert!(!log.contains(SECRET), "{log}");
        }
    }
}

/// One of this test's own build.
fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    own.ancestors().nth(2).expect("cargo keeps tests in PROFILE/deps").join(name)
}

/// Of the day, from a time as the API writes it.
fn seconds(time: &str) -> Option<f64> {
    let (_, clock) = time.trim_end_matches('Z').split_once('T')?;
    let mut parts = clock.split(':').map(|part| part.parse::<f64>().ok());
    Some(parts.next()?? * 3_600.0 + parts.next()?? * 60.0 + parts.next()??)
}

fn happened(history: &History, name: &str, kind: &str) -> usize {
    let key = Key::Container(name.into());
    history.happened.iter().filter(|one| one.key.as_ref() == Some(&key) && one.what.as_str() == kind).count()
}

fn container(history: &History, name: &str) -> Option<Container> {
    match history.stock.get(&Key::Container(name.into()))? {
        Item::Container(container) => Some((**container).clone()),
        _ => None,
    }
}

fn search(directory: &Path) {
    for entry in fs::read_dir(directory).expect("it is there").flatten() {
        if entry.path().is_dir() {
            search(&entry.path());
        } else if let Ok(bytes) = fs::read(entry.path()) {
            let found = bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
            assert!(!found, "{} holds the secret", entry.path().display());
        }
    }
}

fn engine(kind: Kind, namespace: &Namespace) -> Engine<'_> {
    Engine::start(kind, namespace).expect("an engine")
}
