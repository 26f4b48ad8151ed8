//! The window by the real programs: a past of some hours is sealed, merged and rolled up by a collector that runs, agents
//! stream beside it, and the API is asked for what was sent.
//!
//! A past is written by the collector's own code while it is stopped, so that no test waits for hours; what must be
//! answered follows from the fleet's load alone.

mod clocks;
mod imported;
mod large;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use dunlin_collector::client::{Client, Target, Trust, escaped};
use dunlin_collector::shape::{Series, SeriesPage};
use dunlin_shared::id::Epoch;
use dunlin_shared::metric::{MetricId, by_id};
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_tests::deadline::until;
use dunlin_tests::fleet::history::History;
use dunlin_tests::fleet::load::Host;
use dunlin_tests::fleet::oracle::Oracle;
use dunlin_tests::fleet::verify::{Report, verify};
use dunlin_tests::http;
use dunlin_tests::pki::Fleet;
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scrape::Scrape;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::window::is_sealed;

/// Far above what any step takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);
const HOUR_MS: i64 = 3_600_000;

/// A fleet, and the place of a collector that knows it.
struct Rig {
    scratch: Scratch,
    state: PathBuf,
    fleet: Fleet,
    quic: SocketAddr,
    http: SocketAddr,
}

impl Rig {
    fn new(agents: usize) -> Self {
        let scratch = Scratch::in_memory("window").expect("a scratch directory");
        let fleet = Fleet::generate(agents, 1).expect("certificates");
        let state = scratch.join("state");
        fleet.write_collector(&state).expect("the collector's identity");
        fleet.write(&scratch.join("fleet.bin")).expect("the fleet's file");
        let loopback = (Ipv4Addr::LOCALHOST, 0);
        let quic = UdpSocket::bind(loopback).and_then(|socket| socket.local_addr()).expect("a UDP port");
        let http = TcpListener::bind(loopback).and_then(|socket| socket.local_addr()).expect("a TCP port");
        Self { scratch, state, fleet, quic, http }
    }

    fn start(&self) -> Running {
        let program = Program::ours("dunlin-collector", "dunlin-collector").expect("it is built");
        let program = program.arg("run").arg("--state-dir").arg(&self.state);
        let program = program.args(["--quic-listen", &self.quic.to_string(), "--http-listen", &self.http.to_string()]);
        let mut running = program.log(self.scratch.join("collector.log")).start().expect("it starts");
        running.wait_ready(self.http, LIMIT).expect("it becomes ready");
        running
    }

    /// All agents of the fleet, at a tick of a second, until that many of their frames are committed and all that they
    /// sampled is acknowledged.
    fn play(&self, epoch: u32, series: usize, frames: f64) -> Oracle {
        let before = self.committed();
        let oracle = self.scratch.join(&format!("oracle-{epoch}"));
        let program = Program::ours("dunlin-tests", "dunlin-fleet").expect("it is built");
        let program = program.args(["run", "--quiet", "--interval", "1s", "--collector", &self.quic.to_string()]);
        let program = program.args(["--start-epoch", &epoch.to_string(), "--series", &series.to_string()]);
        let program = program.args(["--agents", &self.fleet.nodes.len().to_string(), "--spool-ram", "8MiB"]);
        let program = program.arg("--pki").arg(self.scratch.path()).arg("--oracle").arg(&oracle);
        let fleet = program.log(self.scratch.join("fleet.log")).start().expect("it starts");
        let enough = || (self.committed() >= before + frames).then_some(());
        until("frames of agents", LIMIT, enough).unwrap_or_else(|error| panic!("{error}: {}", fleet.log_text()));
        end(fleet);
        Oracle::read(&oracle).expect("its file")
    }

    fn committed(&self) -> f64 {
        let page = http::get(self.http, "/metrics", LIMIT).expect("it answers");
        Scrape::parse(&page.body).expect("it is sound").sum("dunlin_frames_committed_total", &[])
    }

    /// Waits until all that is closed is sealed, and every hour that has ended merged.
    fn wait_sealed(&self, collector: &Running) {
        let sealed = || is_sealed(&self.state).expect("it can be listed").then_some(());
        until("all is sealed and merged", LIMIT, sealed)
            .unwrap_or_else(|error| panic!("{error}: {}", collector.log_text()));
    }

    fn client(&self) -> Client {
        let target = Target::Unix(self.state.join("admin.sock"));
        Client::new(target, None, &Trust::default()).expect("a client")
    }

    /// The series of a node, by their subjects.
    fn series(&self, node: usize, query: &[(&str, &str)]) -> Vec<Series> {
        let query: Vec<_> = query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let path = format!("/api/v1/nodes/{}/series?{}", self.fleet.nodes[node].id, query.join("&"));
        let page: SeriesPage = self.client().get(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut items = page.items;
        items.sort_by(|a, b| a.subject.cmp(&b.subject));
        items
    }

    fn verify(&self, oracles: &[Oracle]) -> Report {
        let report = verify(&self.state, oracles, &self.fleet).expect("the window can be read");
        assert!(report.is_clean(), "{} violations: {:?}", report.violations, report.shown);
        report
    }
}

fn end(mut running: Running) {
    let status = running.terminate(LIMIT).expect("it ends when asked");
    assert!(status.success(), "{status}:\n{}", running.log_text());
}

fn now() -> WallMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    WallMs(i64::try_from(since.as_millis()).expect("it fits for long"))
}

fn rfc3339(at: WallMs) -> String {
    dunlin_collector::shape::Moment(at).to_string()
}

/// When the first tick of a past was, by our clock. The first node of a fleet ticks at once.
fn begins(history: &History) -> WallMs {
    history.until.plus(-i64::try_from(history.ticks * history.interval_ms).expect("it is short"))
}

/// What a host measured at each tick of a past, by subject and time.
fn sent(history: &History, host: &Host, metric: &str) -> Vec<(String, Vec<(WallMs, f64)>)> {
    let mut found: Vec<(String, Vec<(WallMs, f64)>)> = Vec::new();
    for tick in 0..history.ticks {
        let at = begins(history).plus(i64::try_from(tick * history.interval_ms).expect("it is short"));
        for (subject, number, steps) in host.sample(tick, MonoMs(0), at).rows() {
            let Some(about) = by_id(MetricId(number.raw())).filter(|about| about.name == metric) else { continue };
            let subject = subject.to_string();
            let place = found.iter().position(|(known, _)| *known == subject).unwrap_or_else(|| {
                found.push((subject, Vec::new()));
                found.len() - 1
            });
            found[place].1.push((at, about.step.value(*steps)));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// The host that a node of a past is.
fn host(history: &History, node: usize) -> Host {
    history.load.host(node, Epoch(1))
}

/// Points that are known.
fn points(series: &Series) -> Vec<(WallMs, f64)> {
    series.points.iter().filter_map(|(at, value)| Some((at.0, (*value)?))).collect()
}
