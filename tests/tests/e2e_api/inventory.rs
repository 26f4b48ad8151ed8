//! What stands on a node, from an agent's own line through the real collector to people and programs: told whole, by
//! its changes, and whole again when the collector lost it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};

use dunlin_agent::clock::Clock;
use dunlin_agent::identity::Identity;
use dunlin_agent::line::Line;
use dunlin_agent::resolve::{Resolver, system_entropy};
use dunlin_agent::spool::Spool;
use dunlin_agent::uplink::connect::{Connector, Sockets};
use dunlin_agent::uplink::tls::client_config;
use dunlin_agent::uplink::{Hooks, Options, Tick, Uplink};
use dunlin_collector::engine::StockMark;
use dunlin_collector::stock::KeptStock;
use dunlin_collector::store::{Control, ControlBatch, StockUpdate};
use dunlin_shared::id::Epoch;
use dunlin_shared::inventory::{
    Container, ContainerState, Group, Happening, Item, Key, Place, Port, Protocol, Scope, Stock, What,
};
use dunlin_shared::metric::by_name;
use dunlin_shared::sample::{Sample, Subject};
use dunlin_shared::session::agent::Profile;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::StopReason;
use dunlin_tests::pki::Fleet;
use quinn::Endpoint;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::*;

const INTERVAL_MS: u32 = 1_000;

/// What the agent sees at its next tick.
#[derive(Debug, Default)]
struct Host {
    stock: Stock,
    happened: Vec<Happening>,
}

/// A collector on loopback, and one agent in this process that sees what the test says.
struct Bench {
    scratch: Scratch,
    fleet: Fleet,
    quic: SocketAddr,
    http: SocketAddr,
    host: Arc<Mutex<Host>>,
    runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        let scratch = Scratch::in_memory("inventory").expect("a scratch directory");
        let fleet = Fleet::generate(1, 1).expect("certificates");
        fleet.write_collector(&scratch.join("state")).expect("the collector's identity");
        let loopback = (Ipv4Addr::LOCALHOST, 0);
        let quic = UdpSocket::bind(loopback).and_then(|socket| socket.local_addr()).expect("a UDP port");
        let http = TcpListener::bind(loopback).and_then(|socket| socket.local_addr()).expect("a TCP port");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { scratch, fleet, quic, http, host: Arc::default(), runtime: runtime.expect("a runtime") }
    }

    fn collector(&self) -> Running {
        let program = Program::ours("dunlin-collector", "dunlin-collector").expect("the collector is built");
        let program = program.arg("run").arg("--state-dir").arg(self.scratch.join("state"));
        let program = program.args(["--quic-listen", &self.quic.to_string(), "--http-listen", &self.http.to_string()]);
        let mut running = program.log(self.scratch.join("collector.log")).start().expect("the collector starts");
        running.wait_ready(self.http, LIMIT).expect("the collector becomes ready");
        running
    }

    /// The agent's own line and uplink, until it is told to stop.
    fn agent(&self) -> oneshot::Sender<StopReason> {
        let node = self.fleet.nodes[0].clone();
        let authorities = vec![self.fleet.ca()];
        let identity = Identity { node: node.id, chain: vec![node.cert()], key: node.key(), authorities };
        let tls = client_config(&identity).expect("a good identity");
        let profile = Profile {
            node: node.id,
            name: String::from("db-1"),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: [9; 16],
            interval_ms: INTERVAL_MS,
            ended: Vec::new(),
        };
        let clock = Clock::start();
        let line = Line::new(profile, Epoch(1), Spool::new(512 * 1024));
        let options = Options::new(vec![self.quic.to_string()], INTERVAL_MS.into());
        let host = Arc::clone(&self.host);
        let hooks = Hooks {
            tick: Box::new(move |mono, wall| {
                let mut host = host.lock().expect("no panic while it is held");
                let happened = std::mem::take(&mut host.happened);
                Tick { sample: sample(mono, wall), stock: Some(host.stock.clone()), happened }
            }),
            facts: Box::new(|_| None),
            acknowledged: Box::new(|_| ()),
            standing: Box::new(|_| ()),
            alive: Box::new(|_| ()),
        };
        let (stop, stopped) = oneshot::channel();
        self.runtime.spawn(async move {
            let endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
            let connector = Connector::new(Resolver::new("/", system_entropy), tls, Sockets::Shared(endpoint));
            Uplink::new(line, connector, options, hooks, clock).run(stopped).await;
        });
        stop
    }

    fn see(&self, items: impl IntoIterator<Item = Item>, happened: Vec<Happening>) {
        *self.host.lock().expect("no panic while it is held") = Host { stock: Stock::of(items), happened };
    }

    fn dunlin(&self, arguments: &[&str]) -> Said {
        let url = format!("unix:{}", self.scratch.join("state").join("admin.sock").display());
        let mut command = Command::new(binary("dunlin"));
        command.args(arguments).env_clear().env("DUNLIN_URL", url).env("HOME", self.scratch.path());
        let output = command.stdin(Stdio::null()).output().expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
        Said { code: output.status.code().expect("no signal"), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Waits until the list of a command is as it should be.
    fn wait(&self, arguments: &[&str], is_so: impl Fn(&[serde_json::Value]) -> bool) -> Vec<serde_json::Value> {
        let looked = until(&arguments.join(" "), LIMIT, || {
            let said = self.dunlin(&[&["-o", "json"], arguments].concat());
            let items = (said.code == 0).then(|| said.json()["items"].as_array().cloned())??;
            is_so(&items).then_some(items)
        });
        looked.unwrap_or_else(|error| panic!("{error}; {}", self.dunlin(arguments).out))
    }

    /// The row of the one node, as if it had never been.
    fn lose_stock(&self) {
        let (mut control, opened) =
            Control::open(&self.scratch.join("state").join("control.db"), WallMs(0), 0).expect("it opens");
        let row = control.stocks().expect("read").pop().expect("there is one");
        let (mark, body) = (StockMark::default(), Some(KeptStock::default().body()));
        let update = StockUpdate { node: row.node, mark, noise: None, body };
        let applied_pos = opened.applied_pos.next();
        let batch = ControlBatch {
            applied_pos,
            stocks: vec![update],
            mass: control.mass().expect("read"),
            ..ControlBatch::default()
        };
        assert!(control.apply(&batch).expect("applied"));
        control.close().expect("closed");
    }
}

/// Half a core each.
fn sample(mono: MonoMs, wall: WallMs) -> Sample {
    let mut sample = Sample::new(mono, wall);
    let seconds = f64::from(u32::try_from(mono.0).expect("a short test")) / 1_000.0;
    let mut push = |subject: &str, metric: &str, value: f64| {
        let subject = Subject::parse(subject).expect("a subject");
        sample.push(&subject, by_name(metric).expect("a metric"), value);
    };
    push("host", "host_load1", 0.5);
    push("container:cache", "container_cpu_seconds", seconds / 2.0);
    push("container:cache", "container_memory_used_bytes", 1_048_576.0);
    push("process:redis-server", "process_cpu_seconds", seconds / 2.0);
    push("process:redis-server", "process_count", 1.0);
    push("process:redis-server", "process_memory_bytes", 1_048_576.0);
    sample
}

fn container(state: ContainerState, exit_code: Option<i32>) -> Item {
    let container = Container { name: "cache".into(), id: "abc".into(), is_told: true, ..Container::default() };
    Item::Container(Box::new(Container { image: "redis:7".into(), state, exit_code, ..container }))
}

fn port(number: u16) -> Item {
    let place = Place { network: None, protocol: Protocol::Tcp, address: Ipv4Addr::UNSPECIFIED.into(), port: number };
    let (process, container) = (Some("redis-server".into()), Some("cache".into()));
    Item::Port(Port { place, scope: Scope::Any, process, container, user: None })
}

fn group() -> Item {
    Item::Group(Group { name: "redis-server".into(), container: Some("cache".into()), unit: None, user: None })
}

fn of_kind(kind: &'static str) -> impl Fn(&[serde_json::Value]) -> bool {
    move |events| events.iter().any(|event| event["kind"] == kind)
}

#[test]
fn what_stands_on_a_node_is_told_kept_changed_and_told_again_when_it_is_lost() {
    let bench = Bench::new();
    let mut collector = bench.collector();
    bench.see([container(ContainerState::Running, None), port(6_379), group()], Vec::new());
    let stop = bench.agent();

    let measured = |items: &[serde_json::Value]| items.len() == 1 && items[0]["cpu_cores"].is_f64();
    let containers = bench.wait(&["containers", "db-1"], measured);
    assert_eq!((&containers[0]["state"], &containers[0]["memory_bytes"]), (&"running".into(), &1_048_576.into()));
    for item in [&containers[0], &bench.wait(&["processes"], measured)[0]] {
        let cores = item["cpu_cores"].as_f64().expect("it is a number");
        assert!((0.4..0.6).contains(&cores), "{item}");
    }
    assert_eq!(bench.wait(&["ports", "--exposed"], |items| !items.is_empty())[0]["port"], 6_379);

    let crashed = What::ContainerCrashed { exit_code: Some(139) };
    let happened = Happening { at: WallMs(0), key: Some(Key::Container("cache".into())), what: crashed };
    bench.see([container(ContainerState::Exited, Some(139)), port(80), port(6_379)], vec![happened]);
    bench.wait(&["ports"], |items| items.len() == 2);
    bench.wait(&["containers", "--state", "exited"], |items| items.len() == 1);
    assert_eq!(bench.wait(&["processes"], |items| items.is_empty()).len(), 0);
    let events = bench.dunlin(&["-o", "json", "events", "--kind", "container.*", "--kind", "port.*"]);
    let events: Vec<serde_json::Value> =
        events.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(of_kind("container.crashed")(&events) && of_kind("port.opened")(&events), "{events:?}");
    assert_eq!(events.len(), 2, "each is told once: {events:?}");

    let screen = bench.dunlin(&["node", "db-1"]);
    assert_eq!(screen.code, 0, "{}", screen.err);
    assert!(screen.out.lines().count() <= 30, "{}", screen.out);
    for word in ["db-1  up", "container.crashed", "exited", "6379/tcp cache", "LATELY"] {
        assert!(screen.out.contains(word), "{word}:\n{}", screen.out);
    }
    let node = bench.dunlin(&["-o", "json", "node", "db-1"]).json();
    assert_eq!((&node["counts"]["ports"], &node["ports"][0]["port"]), (&2.into(), &80.into()));

    let status = collector.terminate(LIMIT).expect("it ends when asked");
    assert!(status.success(), "{status}:\n{}", collector.log_text());
    bench.lose_stock();
    let mut collector = bench.collector();
    bench.wait(&["ports"], |items| items.len() == 2);
    bench.wait(&["containers", "--state", "exited"], |items| items.len() == 1);
    let after = bench.dunlin(&["-o", "json", "events", "--kind", "container.*", "--kind", "port.*"]);
    assert_eq!(after.out.lines().count(), 2, "nothing of it is news: {}", after.out);
    stop.send(StopReason::Stopped).ok();
    collector.terminate(LIMIT).expect("it ends when asked");
}
