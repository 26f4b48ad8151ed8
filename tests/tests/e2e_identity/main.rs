//! Identity with the real programs: from a join token to a node, and everything that may happen to it since.
//!
//! A machine is a mount namespace with a boot id and a machine-id of its own, on the collector's network or on one with a
//! wire to it; a copied disk is a copied state directory.

mod backup;
mod bundle;
mod check;
mod expired;
mod lost;
mod machines;
mod moved;
mod restored;
mod sealed;
mod turns;
mod words;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dunlin_tests::deadline::until;
use dunlin_tests::netns::{self, End, Namespace};
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scrape::Scrape;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{HTTP, QUIC_PORT, counter, with_files};
use dunlin_tests::tool;
use dunlin_tests::topology::{AGENT, COLLECTOR};
use dunlin_tests::window::{History, Window};
use serde_json::Value;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What is promised from the answer of `revoke` to the end of the node's connection.
const OUT_WITHIN: Duration = Duration::from_secs(5);
/// What a revoked node says, and what its owner can do.
const REVOKED: &[&str] =
    &["this node was revoked", "to bring it back as a new node, run `dunlin-agent seal`", "join token"];

/// A collector that made its own authority, in a namespace of its own.
struct Site {
    namespace: Namespace,
    scratch: Scratch,
    collector: Running,
}

/// An agent on a machine of its own.
struct Host {
    state: PathBuf,
    running: Running,
}

impl Site {
    fn start() -> Self {
        let namespace = Namespace::new("id").expect("a namespace");
        let scratch = Scratch::in_memory("identity").expect("a directory");
        let collector = Self::launch(&namespace, &scratch);
        Self { namespace, scratch, collector }
    }

    fn launch(namespace: &Namespace, scratch: &Scratch) -> Running {
        Self::launch_on(namespace, scratch, Ipv4Addr::UNSPECIFIED)
    }

    /// The same for agents on one address alone.
    fn launch_on(namespace: &Namespace, scratch: &Scratch, address: Ipv4Addr) -> Running {
        let program = Program::ours("dunlin-collector", "dunlin-collector").expect("it is built");
        let program = program.inside(namespace).log(scratch.join("collector.log")).arg("run");
        let program = program.arg("--state-dir").arg(scratch.join("collector"));
        let program = program.args(["--quic-listen", &format!("{address}:{QUIC_PORT}")]);
        let mut running = program.args(["--http-listen", &HTTP.to_string()]).start().expect("it starts");
        running.wait_ready(HTTP, LIMIT).expect("it gets ready");
        running
    }

    /// What `dunlin` says, as JSON where it is asked for.
    fn dunlin(&self, arguments: &[&str]) -> Result<String, tool::ToolError> {
        let test = std::env::current_exe().expect("this test has a path");
        let binary = test.parent().and_then(Path::parent).expect("target/debug").join("dunlin");
        let mut command = tool::command("env").expect("coreutils are there");
        let socket = self.scratch.join("collector").join("admin.sock");
        command.arg(format!("DUNLIN_URL=unix:{}", socket.display())).arg(binary).args(arguments);
        tool::finish(&mut command)
    }

    fn done(&self, arguments: &[&str]) -> String {
        self.dunlin(arguments).unwrap_or_else(|error| panic!("{error}\n{}", self.collector.log_text()))
    }

    fn nodes(&self) -> Vec<Value> {
        let said: Value = serde_json::from_str(&self.done(&["nodes", "-o", "json"])).expect("it is JSON");
        said["items"].as_array().expect("a list").clone()
    }

    fn events(&self, kind: &str) -> usize {
        self.done(&["events", "-o", "json"]).matches(&format!("\"{kind}\"")).count()
    }

    /// What the collector counts.
    fn scrape(&self) -> Scrape {
        Scrape::parse(&self.collector.get(HTTP, "/metrics").expect("it answers").body).expect("it is a page")
    }

    /// Agents that the collector talks with at the moment.
    fn connections(&self) -> u64 {
        counter(&self.scrape(), "dunlin_connections", &[])
    }

    /// What the collector has on disk of one node.
    fn history(&self, id: &str) -> Option<History> {
        let window = Window::read(&self.scratch.join("collector").join("window")).ok()?;
        window.of(id.parse().expect("an id")).ok().cloned()
    }

    /// A file with a new join token.
    fn token(&self, arguments: &[&str]) -> PathBuf {
        let text = self.done(&[&["token", "create", "--role", "join", "--ttl", "1h"], arguments].concat());
        let path = self.scratch.join(&format!("token-{}", self.done(&["token", "list"]).lines().count()));
        fs::write(&path, text).expect("it can be written");
        path
    }

    /// Starts the agent of a machine, with a log of its own. What is in its state directory it finds there.
    fn host(&self, name: &str, machine: (u8, u8), token: Option<&Path>) -> Host {
        self.host_of((name, name), machine, token, &format!("127.0.0.1:{QUIC_PORT}"))
    }

    /// The same, with a directory that is not called as it calls itself, and another list of collectors.
    fn host_of(&self, names: (&str, &str), machine: (u8, u8), token: Option<&Path>, collectors: &str) -> Host {
        self.host_in(&self.namespace, names, machine, token, collectors)
    }

    /// The same on a network of its own, from where the collector is reached over a wire.
    fn host_beyond(&self, wire: &Namespace, name: &str, machine: (u8, u8), token: Option<&Path>) -> Host {
        self.host_in(wire, (name, name), machine, token, &format!("{COLLECTOR}:{QUIC_PORT}"))
    }

    /// A network with a wire to the collector's.
    fn wired(&self) -> Namespace {
        let other = Namespace::new("wired").expect("a namespace");
        let end = |namespace, address| End { namespace, device: "wire", address };
        netns::connect(end(&other, AGENT), end(&self.namespace, COLLECTOR)).expect("a wire");
        other
    }

    fn host_in(
        &self,
        namespace: &Namespace,
        (place, name): (&str, &str),
        (boot, machine): (u8, u8),
        token: Option<&Path>,
        collectors: &str,
    ) -> Host {
        static STARTS: AtomicUsize = AtomicUsize::new(0);
        let state = self.scratch.join(place);
        let (boot_id, machine_id) =
            (self.scratch.join(&format!("boot-{boot}")), self.scratch.join(&format!("id-{machine}")));
        fs::write(&boot_id, format!("0000000{boot}-0000-4000-8000-000000000000\n")).expect("it can be written");
        fs::write(&machine_id, format!("{machine:032x}\n")).expect("it can be written");
        let files = [(&*boot_id, "/proc/sys/kernel/random/boot_id"), (&*machine_id, "/etc/machine-id")];
        let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built");
        let program = program.inside(namespace).under(with_files(&files).expect("a mount namespace"));
        let log = format!("{place}-{}.log", STARTS.fetch_add(1, Ordering::Relaxed));
        let program = program.log(self.scratch.join(&log)).arg("run").arg("--state-dir").arg(&state);
        let mut program = program.args(["--collectors", collectors, "--interval", "1s", "--name", name]);
        if let Some(token) = token {
            program = program.arg("--join-token-file").arg(token);
        }
        Host { state, running: program.start().expect("it starts") }
    }

    /// Waits until `look` finds what it looks for among the nodes.
    fn wait<T>(&self, what: &str, hosts: &[&Host], mut look: impl FnMut(&[Value]) -> Option<T>) -> T {
        until(what, LIMIT, || look(&self.nodes())).unwrap_or_else(|error| {
            let logs: Vec<_> = hosts.iter().map(|host| host.running.log_text()).collect();
            panic!("{error}: {:#?}\n{}\n{}", self.nodes(), self.collector.log_text(), logs.join("\n--\n"))
        })
    }

    /// Waits until one node of that name is up, and gives its id.
    fn up(&self, name: &str, host: &Host) -> String {
        self.wait(&format!("{name} is up"), &[host], |nodes| {
            let node = nodes.iter().find(|node| node["name"] == name && node["state"] == "up")?;
            Some(node["id"].as_str()?.to_owned())
        })
    }
}

impl Host {
    fn stop(&mut self) {
        self.running.terminate(LIMIT).expect("it stops");
    }

    fn wait_log(&mut self, text: &str) {
        self.running.wait_log(text, LIMIT).expect("it says so");
    }

    /// A copy of its disk for another machine.
    fn copied_to(&self, site: &Site, name: &str) {
        let mut command = tool::command("cp").expect("coreutils are there");
        tool::finish(command.arg("-a").arg(&self.state).arg(site.scratch.join(name))).expect("it is copied");
    }
}

#[test]
fn a_host_with_a_token_is_a_node_with_labels_and_stays_that_node() {
    let site = Site::start();
    let token = site.token(&["--uses", "1", "--label", "env=prod"]);
    let mut host = site.host("web", (1, 1), Some(&token));
    let id = site.up("web", &host);
    assert_eq!(site.nodes()[0]["labels"]["env"], "prod");
    host.running.terminate(LIMIT).expect("it stops");
    fs::remove_file(&token).expect("it is there");
    let host = site.host("web", (1, 1), None);
    assert_eq!(site.up("web", &host), id, "it needs the token no more");
    assert_eq!(site.nodes().len(), 1);
    assert_eq!(site.events("node.enrolled"), 1);
    assert!(site.done(&["log"]).contains("token.create"));
}

#[test]
fn a_token_that_is_used_up_is_said_on_the_host_that_came_too_late() {
    let site = Site::start();
    let token = site.token(&["--uses", "1"]);
    let first = site.host("first", (1, 1), Some(&token));
    site.up("first", &first);
    let mut late = site.host("late", (2, 2), Some(&token));
    late.wait_log("the join token has been used as often as it may be");
    let other = site.token(&["--approve"]);
    fs::copy(&other, &token).expect("it can be written");
    late.running.terminate(LIMIT).expect("it stops");
    let mut late = site.host("late", (2, 2), Some(&token));
    late.wait_log("waits for approval");
    let waiting = site.wait("one that waits", &[&late], |nodes| {
        nodes.iter().find(|node| node["state"] == "pending").map(|node| node["name"].clone())
    });
    assert_eq!(waiting, "late");
    site.done(&["approve", "late"]);
    site.up("late", &late);
}

#[test]
fn a_revoked_node_is_out_at_once_and_comes_back_only_sealed_and_with_a_token() {
    let site = Site::start();
    let token = site.token(&[]);
    let mut host = site.host("web", (1, 1), Some(&token));
    let id = site.up("web", &host);
    assert_eq!(site.connections(), 1);
    site.done(&["revoke", "web"]);
    let answered = Instant::now();
    let is_out = || (site.connections() == 0).then(|| answered.elapsed());
    let took = until("no connection", LIMIT, is_out).expect("it is cut off");
    assert!(took < OUT_WITHIN, "{took:?}\n{}\n{}", site.collector.log_text(), host.running.log_text());
    host.complains(REVOKED);
    assert_eq!(site.nodes()[0]["state"], "revoked");
    host.running.terminate(LIMIT).expect("it stops");

    let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built");
    let program = program.arg("seal").arg("--state-dir").arg(&host.state).log(site.scratch.join("seal.log"));
    let sealed = program.start().and_then(|mut seal| seal.wait_exit(LIMIT)).expect("it ends");
    assert!(sealed.success());
    let host = site.host("web", (1, 1), Some(&token));
    assert_ne!(site.up("web", &host), id);
}
