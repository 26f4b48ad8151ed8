//! Rules by the command line of the real programs: sets that are applied, changed and deleted beside a real agent, what
//! rules would have said of a past, and trials without a collector.

mod past;
mod sets;
mod trials;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dunlin_collector::client::{Client, Target, Trust};
use dunlin_collector::shape::{Event, Feed};
use dunlin_tests::deadline::until;
use dunlin_tests::pki::Fleet;
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scratch::Scratch;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The place of a collector that knows some nodes, with a directory of rules.
struct Rig {
    scratch: Scratch,
    fleet: Fleet,
    quic: SocketAddr,
    http: SocketAddr,
}

/// What a command said and how it ended.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Rig {
    fn new(nodes: usize) -> Self {
        let scratch = Scratch::in_memory("rules").expect("a scratch directory");
        let fleet = Fleet::generate(nodes, 1).expect("certificates");
        fleet.write_collector(&scratch.join("state")).expect("the collector's identity");
        fs::create_dir(scratch.join("rules.d")).expect("it is writable");
        let loopback = (Ipv4Addr::LOCALHOST, 0);
        let quic = UdpSocket::bind(loopback).and_then(|socket| socket.local_addr()).expect("a UDP port");
        let http = TcpListener::bind(loopback).and_then(|socket| socket.local_addr()).expect("a TCP port");
        Self { scratch, fleet, quic, http }
    }

    fn start(&self) -> Running {
        let program = Program::ours("dunlin-collector", "dunlin-collector").expect("it is built");
        let program = program.arg("run").arg("--state-dir").arg(self.scratch.join("state"));
        let program = program.arg("--rules-dir").arg(self.scratch.join("rules.d"));
        let program = program.args(["--quic-listen", &self.quic.to_string(), "--http-listen", &self.http.to_string()]);
        let mut running = program.log(self.scratch.join("collector.log")).start().expect("it starts");
        running.wait_ready(self.http, LIMIT).expect("it becomes ready");
        running
    }

    /// The agent of the first node, on this host.
    fn agent(&self) -> Running {
        let program = Program::ours("dunlin-agent", "dunlin-agent").expect("it is built").arg("run");
        let program = program.arg("--state-dir").arg(self.scratch.join("agent"));
        let program = program.args(["--collectors", &self.quic.to_string(), "--interval", "1s"]);
        program.log(self.scratch.join("agent.log")).start().expect("it starts")
    }

    fn dunlin(&self, arguments: &[&str]) -> Said {
        let url = format!("unix:{}", self.scratch.join("state/admin.sock").display());
        dunlin(&[("DUNLIN_URL", &url)], arguments)
    }

    /// A file of rules to be applied.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.scratch.join(name);
        fs::write(&path, text).expect("it is writable");
        path.display().to_string()
    }

    /// Events of rules and alerts, oldest first.
    fn events(&self) -> Vec<Event> {
        let client = Client::new(Target::Unix(self.scratch.join("state/admin.sock")), None, &Trust::default());
        let feed = client.expect("a client").get::<Feed>("/api/v1/events?kind=alert.*&kind=rules.*&limit=1000");
        feed.expect("it is read").items
    }

    /// The first event of which that is so.
    fn wait_event(&self, what: &str, collector: &Running, is_so: impl Fn(&Event) -> bool) -> Event {
        let found = until(what, LIMIT, || self.events().into_iter().find(&is_so));
        found.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", self.events(), collector.log_text()))
    }
}

impl Said {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// What it says when all went well.
    fn well(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }
}

/// `dunlin`, with nobody at its terminal.
fn dunlin(environment: &[(&str, &str)], arguments: &[&str]) -> Said {
    let mut command = Command::new(binary("dunlin"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").envs(environment.iter().copied());
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    let said =
        Said { code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) };
    assert!(!said.err.contains("panicked"), "{}", said.err);
    said
}

fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let directory = test.parent().and_then(Path::parent).expect("target/debug").to_owned();
    let path = directory.join(name);
    assert!(path.is_file(), "{} is not built; run: cargo build --workspace --bins", path.display());
    path
}

fn end(mut running: Running) {
    let status = running.terminate(LIMIT).expect("it ends when asked");
    assert!(status.success(), "{status}:\n{}", running.log_text());
}
