//! What is wrong with a real agent's host, through a real collector: rules from files, alerts, their feed, and who follows it.

mod alerts;
mod backup;
mod consume;
mod rules;
mod silences;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use dunlin_shared::id::NodeId;
use dunlin_tests::deadline::until;
use dunlin_tests::netns::Namespace;
use dunlin_tests::pki::{Authority, enrol, node_ids};
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{HTTP, QUIC_PORT};
use serde_json::Value;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A collector with rules of its own, and a host whose agent ticks every second.
struct Site {
    namespace: Namespace,
    scratch: Scratch,
    node: NodeId,
    collector: Running,
}

/// What a command said and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

/// One transition, as the feed tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    kind: String,
    id: String,
    reason: Option<String>,
}

impl Site {
    fn start(rules: &str) -> Self {
        let namespace = Namespace::new("alerts").expect("a namespace");
        let scratch = Scratch::in_memory("alerts").expect("a place for its state");
        let authority = Authority::new().expect("an authority");
        authority.write_collector(&scratch.join("collector")).expect("its certificate");
        let node = authority.node(node_ids(1, 6)[0]).expect("a certificate");
        node.identity().write(&scratch.join("agent"), authority.ca_der(), "node").expect("its files");
        enrol(&scratch.join("collector"), std::slice::from_ref(&node)).expect("it is enrolled");
        fs::create_dir(scratch.join("rules.d")).expect("it is writable");
        fs::write(scratch.join("rules.d/own.toml"), rules).expect("it is writable");
        let mut collector = launch(&namespace, &scratch);
        collector.wait_ready(HTTP, LIMIT).expect("it gets ready");
        Self { namespace, scratch, node: node.id, collector }
    }

    fn restart(&mut self) {
        self.collector.terminate(LIMIT).expect("it stops");
        self.collector = launch(&self.namespace, &self.scratch);
        self.collector.wait_ready(HTTP, LIMIT).expect("it gets ready");
    }

    fn agent(&self) -> Running {
        let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built");
        let program = program.inside(&self.namespace).log(self.scratch.join("agent.log")).arg("run");
        let program = program.arg("--state-dir").arg(self.scratch.join("agent"));
        let collectors = format!("127.0.0.1:{QUIC_PORT}");
        program.args(["--collectors", &collectors, "--interval", "1s"]).start().expect("it starts")
    }

    fn rules(&self) -> PathBuf {
        self.scratch.join("rules.d/own.toml")
    }

    fn admin_token(&self) -> PathBuf {
        self.scratch.join("collector/admin-token")
    }

    /// `dunlin` on the collector's own host.
    fn dunlin(&self, arguments: &[&str]) -> Said {
        self.dunlin_with(&[], arguments)
    }

    fn dunlin_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Said {
        let url = format!("unix:{}", self.scratch.join("collector/admin.sock").display());
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace.name()]).arg(binary("dunlin")).args(arguments);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.scratch.path());
        command.env("DUNLIN_URL", url).envs(environment.iter().copied()).stdin(Stdio::null());
        let output = command.output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        let said =
            Said { code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) };
        assert!(!said.err.contains("panicked"), "{}", said.err);
        said
    }

    /// Alerts of a rule that are in a state.
    fn alerts(&self, rule: &str, state: &str) -> Vec<Value> {
        let said = self.dunlin(&["-o", "json", "alerts", "--rule", rule, "--state", state]);
        said.json()["items"].as_array().expect("a list").clone()
    }

    /// Waits for the one alert of a rule in a state.
    fn wait_alert(&self, rule: &str, state: &str) -> Value {
        let one = || <[Value; 1]>::try_from(self.alerts(rule, state)).ok().map(|[alert]| alert);
        self.wait(&format!("an alert of {rule} that is {state}"), one)
    }

    fn wait<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        until(what, LIMIT, look).unwrap_or_else(|error| panic!("{error}; {}", self.collector.log_text()))
    }

    /// What the feed tells of a rule's alerts, the oldest first.
    fn told(&self, rule: &str) -> Vec<Told> {
        let said = self.dunlin(&["-o", "json", "alerts", "feed"]);
        let events = said.out.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line is an event"));
        let of_rule = events.filter(|event| event["alert"]["rule"] == *rule);
        of_rule
            .map(|event| Told {
                kind: event["kind"].as_str().expect("a kind").to_owned(),
                id: event["alert"]["id"].as_str().expect("an id").to_owned(),
                reason: event["alert"]["reason"].as_str().map(str::to_owned),
            })
            .collect()
    }

    /// The same, once there are so many.
    fn wait_told(&self, rule: &str, count: usize) -> Vec<Told> {
        self.wait(&format!("{count} events of {rule}"), || Some(self.told(rule)).filter(|told| told.len() >= count))
    }

    /// Has the rules read again, and waits until the collector says what came of it.
    fn reread(&self, says: &str) -> String {
        let before = self.collector.log_text().len();
        self.collector.signal(rustix::process::Signal::HUP).expect("it runs");
        let line = || {
            let log = self.collector.log_text();
            log.get(before..)?.lines().find(|line| line.contains(says)).map(str::to_owned)
        };
        self.wait(says, line)
    }
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

fn launch(namespace: &Namespace, scratch: &Scratch) -> Running {
    collector(scratch).inside(namespace).start().expect("it starts")
}

/// As it is started, in whichever network.
fn collector(scratch: &Scratch) -> Program {
    let program = Program::ours("dunlin-collector", "dunlin-collector").expect("it is built");
    let program = program.log(scratch.join("collector.log")).arg("run");
    let program = program.arg("--state-dir").arg(scratch.join("collector"));
    let program = program.arg("--rules-dir").arg(scratch.join("rules.d"));
    program.args(["--http-listen", &HTTP.to_string(), "--quic-listen", &format!("0.0.0.0:{QUIC_PORT}")])
}

fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let directory = test.parent().and_then(|deps| deps.parent()).expect("target/debug").to_owned();
    let path = directory.join(name);
    assert!(path.is_file(), "{} is not built; run: cargo build --workspace --bins", path.display());
    path
}
