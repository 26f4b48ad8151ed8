//! The API and the command line of a real collector with a real agent, as people and programs use them.

mod commands;
mod export;
mod feed;
mod hostile;
mod inventory;
mod reload;
mod tls;
mod verbs;
mod wire;

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

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A collector that knows two nodes of one name, in a namespace of its own.
struct Site {
    namespace: Namespace,
    scratch: Scratch,
    nodes: Vec<NodeId>,
    collector: Running,
}

/// What a command said and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Site {
    fn start() -> Self {
        Self::start_with(&["--http-listen", &HTTP.to_string()], |_| {})
    }

    fn start_with(arguments: &[&str], prepare: impl FnOnce(&Scratch)) -> Self {
        let namespace = Namespace::new("api").expect("a namespace");
        let scratch = Scratch::in_memory("api").expect("a place for its state");
        let authority = Authority::new().expect("an authority");
        let state = scratch.join("collector");
        let identity = authority.collector().expect("a certificate");
        identity.write(&state, authority.ca_der(), "collector").expect("its files");
        let nodes: Vec<_> = node_ids(2, 5).into_iter().map(|id| authority.node(id).expect("a certificate")).collect();
        nodes[0].identity().write(&scratch.join("agent"), authority.ca_der(), "node").expect("its files");
        enrol(&state, &nodes).expect("they are enrolled");
        prepare(&scratch);
        let program = Program::ours("dunlin-collector", "dunlin-collector").expect("it is built");
        let program = program.inside(&namespace).log(scratch.join("collector.log")).arg("run");
        let program = program.arg("--state-dir").arg(&state).args(arguments.iter().copied());
        let program = program.args(["--quic-listen", &format!("0.0.0.0:{QUIC_PORT}")]);
        let mut collector = program.start().expect("it starts");
        collector.wait_log("ready", LIMIT).expect("it gets ready");
        Self { namespace, scratch, nodes: nodes.iter().map(|node| node.id).collect(), collector }
    }

    fn agent(&self) -> Running {
        let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built");
        let program = program.inside(&self.namespace).log(self.scratch.join("agent.log")).arg("run");
        let program = program.arg("--state-dir").arg(self.scratch.join("agent"));
        let collectors = format!("127.0.0.1:{QUIC_PORT}");
        program.args(["--collectors", &collectors, "--interval", "1s"]).start().expect("it starts")
    }

    fn state(&self) -> PathBuf {
        self.scratch.join("collector")
    }

    /// `dunlin` on the collector's own host.
    fn dunlin(&self, arguments: &[&str]) -> Said {
        let url = format!("unix:{}", self.state().join("admin.sock").display());
        self.dunlin_with(&[("DUNLIN_URL", &url)], arguments)
    }

    fn dunlin_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Said {
        self.run("dunlin", environment, arguments)
    }

    /// A program that ends by itself, in the namespace.
    fn run(&self, program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Said {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace.name()]).arg(binary(program)).args(arguments);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.scratch.path());
        let output = command.envs(environment.iter().copied()).stdin(Stdio::null()).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        let said =
            Said { code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) };
        assert!(!said.err.contains("panicked"), "{}", said.err);
        said
    }

    fn admin_token(&self) -> String {
        fs::read_to_string(self.state().join("admin-token")).expect("the first start left it").trim().to_owned()
    }

    /// Waits until a command's output is as it should be.
    fn wait(&self, what: &str, arguments: &[&str], is_so: impl Fn(&Said) -> bool) -> Said {
        let looked = until(what, LIMIT, || Some(self.dunlin(arguments)).filter(&is_so));
        looked.unwrap_or_else(|error| {
            let last = self.dunlin(arguments);
            panic!("{error}; {}{}\n{}", last.out, last.err, self.collector.log_text())
        })
    }
}

impl Said {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

/// So that the collector makes an authority of its own.
fn without_authority(scratch: &Scratch) {
    for file in ["ca.pem", "collector.pem", "collector.key"] {
        fs::remove_file(scratch.join("collector").join(file)).expect("it was written");
    }
}

fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let directory = test.parent().and_then(|deps| deps.parent()).expect("target/debug").to_owned();
    let path = directory.join(name);
    assert!(path.is_file(), "{} is not built; run: cargo build --workspace --bins", path.display());
    path
}
