//! The fleet against the real collector: what is acknowledged is stored, and the proof can fail.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunlin_collector::api::socket_path;
use dunlin_collector::client::{Client, Target, Trust};
use dunlin_collector::record::{Event, Pos, Record};
use dunlin_collector::shape::{Feed, Node};
use dunlin_collector::stock::KeptStock;
use dunlin_collector::store::{Control, ControlBatch, Log, StockRow, StockUpdate};
use dunlin_shared::frame::BodyKind;
use dunlin_shared::id::FrameId;
use dunlin_shared::time::WallMs;
use dunlin_tests::fleet::oracle::Oracle;
use dunlin_tests::fleet::unruly::{Conduct, Unruly};
use dunlin_tests::fleet::verify::{Report, verify};
use dunlin_tests::pki::Fleet;
use dunlin_tests::process::{Program, Running};
use dunlin_tests::scrape::Scrape;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::{deadline, http};

const LIMIT: Duration = Duration::from_secs(60);

struct Rig {
    scratch: Scratch,
    fleet: Fleet,
    quic: SocketAddr,
    http: SocketAddr,
}

impl Rig {
    fn new(agents: usize) -> Self {
        let scratch = Scratch::in_memory("fleet").expect("a scratch directory");
        let fleet = Fleet::generate(agents, 1).expect("certificates");
        fleet.write_collector(&scratch.join("state")).expect("the collector's identity");
        fleet.write(&scratch.join("fleet.bin")).expect("the fleet's file");
        let loopback = (Ipv4Addr::LOCALHOST, 0);
        let quic = UdpSocket::bind(loopback).and_then(|socket| socket.local_addr()).expect("a UDP port");
        let http = TcpListener::bind(loopback).and_then(|socket| socket.local_addr()).expect("a TCP port");
        Self { scratch, fleet, quic, http }
    }

    fn collector(&self) -> Running {
        let program = Program::ours("dunlin-collector", "dunlin-collector").expect("the collector is built");
        let program = program.arg("run").arg("--state-dir").arg(self.state());
        let program = program.args(["--quic-listen", &self.quic.to_string(), "--http-listen", &self.http.to_string()]);
        let mut running = program.log(self.scratch.join("collector.log")).start().expect("the collector starts");
        running.wait_ready(self.http, LIMIT).expect("the collector becomes ready");
        running
    }

    fn play(&self, extra: &[&str]) -> Running {
        let program = Program::ours("dunlin-tests", "dunlin-fleet").expect("the fleet is built");
        let program = program.args(["run", "--quiet", "--interval", "1s", "--collector", &self.quic.to_string()]);
        let program = program.args(["--agents", &self.fleet.nodes.len().to_string()]).args(extra);
        let program = program.arg("--pki").arg(self.scratch.path()).arg("--oracle").arg(self.oracle());
        program.log(self.scratch.join("fleet.log")).start().expect("the fleet starts")
    }

    fn wait_metric(&self, name: &str, least: f64) {
        let found = deadline::until(&format!("{name} of {least}"), LIMIT, || {
            let page = http::get(self.http, "/metrics", LIMIT).ok()?;
            (Scrape::parse(&page.body).ok()?.value(name, &[])? >= least).then_some(())
        });
        found.expect("the collector's counters rise");
    }

    fn admin(&self) -> Client {
        let target = Target::Unix(socket_path(&self.state()));
        Client::new(target, None, &Trust::default()).expect("a client")
    }

    fn verify(&self, change: impl FnOnce(&mut Oracle)) -> Report {
        let mut oracle = Oracle::read(&self.oracle()).expect("the oracle's file");
        change(&mut oracle);
        verify(&self.state(), &[oracle], &self.fleet).expect("the window can be read")
    }

    fn state(&self) -> PathBuf {
        self.scratch.join("state")
    }

    fn oracle(&self) -> PathBuf {
        self.scratch.join("oracle")
    }
}

fn end(mut running: Running) {
    let status = running.terminate(LIMIT * 2).expect("it ends when asked");
    assert!(status.success(), "{status}:\n{}", running.log_text());
}

#[test]
fn verify_passes_what_is_true_and_finds_what_is_not() {
    let rig = Rig::new(20);
    let collector = rig.collector();
    let fleet = rig.play(&[]);
    rig.wait_metric("dunlin_frames_committed_total", 100.0);
    end(fleet);
    end(collector);
    let report = rig.verify(|_| ());
    assert!(report.is_clean(), "{:?}", report.shown);
    // Facts, and what stands on each host.
    assert!(report.inventories >= 40 && report.gap_records == 0, "{report:?}");
    assert_eq!((report.stocks, report.stocks_lost), (20, 0));
    assert!(report.frames >= 80 && report.deltas > 0, "{report:?}");

    let found = |what: &str, change: &dyn Fn(&mut Oracle)| {
        let report = rig.verify(|oracle| change(oracle));
        assert!(report.shown.iter().any(|line| line.contains(what)), "{what}: {:?}", report.shown);
    };
    found("were acknowledged and are not there", &|oracle| {
        let next = oracle.nodes[3].sampled + 1;
        oracle.nodes[3].acknowledged.push((next, next));
    });
    found("was never sampled", &|oracle| oracle.nodes[0].sampled = 2);
    found("has Some(", &|oracle| oracle.run.seed += 1);
    found("never was in epoch", &|oracle| oracle.nodes.truncate(19));
    found("its number is a sample's", &|oracle| oracle.nodes[5].told.clear());

    let id = store_again(&rig.state());
    let report = rig.verify(|_| ());
    let is_named = |line: &str| line.contains(&format!(": frame {id} of node")) && line.ends_with("is there twice");
    assert!(report.violations == 1 && is_named(&report.shown[0]), "{:?}", report.shown);

    keep_nothing_of_one(&rig.state());
    let report = rig.verify(|_| ());
    assert!(report.violations == 2 && report.shown[1].contains("is not what frame"), "{:?}", report.shown);
}

/// Has nothing stand on one node, as a collector would that had lost it.
fn keep_nothing_of_one(state: &Path) {
    let (mut control, opened) = Control::open(&state.join("control.db"), WallMs(0), 1).expect("it was closed");
    let StockRow { node, mark, noise } = control.stocks().expect("it can be read")[0];
    let stocks = vec![StockUpdate { node, mark, noise, body: Some(KeptStock::default().body()) }];
    let batch = ControlBatch { applied_pos: opened.applied_pos, is_beside: true, stocks, ..ControlBatch::default() };
    assert!(control.apply(&batch).expect("it can be written"));
    control.close().expect("it can be closed");
}

/// Stores a keyframe that is there a second time, as a collector would that had not noticed; gives its id.
fn store_again(state: &Path) -> FrameId {
    let (mut log, _) = Log::open(&state.join("window"), WallMs(0), Pos(0)).expect("it was closed in good order");
    let records = log.scan(Pos(0)).map(|item| item.expect("it is sound").1);
    let keyframe = |record: Record| match &record.event {
        Event::Frame { frame, .. } if frame.kind == BodyKind::Key => Some((frame.id, record)),
        _ => None,
    };
    let (id, record) = records.filter_map(keyframe).last().expect("each node has sent one");
    log.begin().and_then(|()| log.append(&record)).expect("it can be written");
    log.commit().and_then(|()| log.close()).expect("it can be written");
    id
}

#[test]
fn agents_are_back_soon_after_the_collector_was_killed_and_nothing_is_lost() {
    let rig = Rig::new(600);
    let mut collector = rig.collector();
    let fleet = rig.play(&["--spool-ram", "64KiB"]);
    rig.wait_metric("dunlin_connections_accepted_total", 600.0);
    collector.kill9().expect("the collector can be killed");
    let collector = rig.collector();
    let began = Instant::now();
    rig.wait_metric("dunlin_connections_accepted_total", 600.0);
    // Without a reset each agent would wait for 30 s of silence.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    end(fleet);
    end(collector);
    let report = rig.verify(|_| ());
    assert!(report.is_clean(), "{:?}", report.shown);
    assert!(report.acknowledged > 600, "{report:?}");
}

#[test]
fn frames_that_a_spool_gave_up_are_gaps_in_the_log() {
    let rig = Rig::new(2);
    let collector = rig.collector();
    let fleet = rig.play(&["--spool-ram", "4KiB", "--series", "400"]);
    rig.wait_metric("dunlin_frames_committed_total", 6.0);
    end(collector);
    let oracle = rig.oracle();
    deadline::until("a gap in each node's oracle", LIMIT, || {
        Oracle::read(&oracle).ok()?.nodes.iter().all(|node| !node.gaps.is_empty()).then_some(())
    })
    .expect("a small spool overflows");
    let collector = rig.collector();
    rig.wait_metric("dunlin_gaps_total", 2.0);
    end(fleet);
    end(collector);
    let report = rig.verify(|_| ());
    assert!(report.is_clean(), "{:?}", report.shown);
    assert!(report.gap_records >= 2 && report.gap_frames > 2, "{report:?}");
    let found = rig.verify(|oracle| oracle.nodes.iter_mut().for_each(|node| node.gaps.clear()));
    assert!(found.shown.iter().any(|line| line.contains("was not given up")), "{:?}", found.shown);
}

#[test]
fn of_unruly_nodes_it_is_told_what_they_do_and_of_others_nothing() {
    let rig = Rig::new(40);
    let collector = rig.collector();
    let share = |percent: &str| percent.parse().expect("it is a share");
    let unruly = Unruly {
        reconnecting: share("10%"),
        reading_slowly: share("10%"),
        wrong_clock: share("10%"),
        cloned: share("5%"),
    };
    let conduct = |node: usize| unruly.conduct(1, node, 1_000);
    let shares = ["--reconnecting=10%", "--reading-slowly=10%", "--wrong-clock=10%", "--cloned=5%"];
    let fleet = rig.play(&shares);
    // Each of four reconnects once in six seconds.
    rig.wait_metric("dunlin_connections_accepted_total", 60.0);
    rig.wait_metric("dunlin_frames_committed_total", 400.0);
    let admin = rig.admin();
    let quarantined = || {
        let feed: Feed = admin.get("/api/v1/events?limit=1000").expect("it answers");
        let about = feed.items.into_iter().filter(|event| event.kind == "node.quarantined");
        about.filter_map(|event| event.node).collect::<Vec<_>>()
    };
    let told = deadline::until("both clones are told", LIMIT, || Some(quarantined()).filter(|told| told.len() >= 2));
    let mut told = told.expect("they come as soon as their nodes are there");
    let id = |node: usize| rig.fleet.nodes[node].id.to_string();
    let mut cloned: Vec<String> = (0..40).filter(|node| conduct(*node) == Conduct::Cloned).map(id).collect();
    told.sort();
    cloned.sort();
    assert_eq!(told, cloned);
    for node in 0..40 {
        let about: Node = admin.get(&format!("/api/v1/nodes/{}", id(node))).expect("it is known");
        // One that is slow to connect may be moved by then.
        let expected_ms = match conduct(node) {
            Conduct::WrongClock(wrong) => [wrong.ahead_ms, wrong.ahead_then_ms],
            _ => [0, 0],
        };
        let skew_ms = about.skew_ms.expect("it said Hello");
        let is_so = expected_ms.iter().any(|ms| (skew_ms - ms).abs() < 4_000);
        assert!(is_so, "node {node} is off by {skew_ms}, not {expected_ms:?}");
    }
    end(fleet);
    end(collector);
    let report = rig.verify(|_| ());
    assert!(report.is_clean(), "{:?}", report.shown);
    assert_eq!((report.stocks, report.stocks_lost), (40, 0), "{report:?}");
}
