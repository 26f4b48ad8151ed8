//! A collector that is away for longer than the spool lasts.
//!
//! The agent is its own code in this process, with samples larger than a small host has: the smallest spool
//! lasts minutes for those.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use dunlin_agent::clock::Clock;
use dunlin_agent::identity::Identity;
use dunlin_agent::line::Line;
use dunlin_agent::resolve::{Resolver, system_entropy};
use dunlin_agent::spool::Spool;
use dunlin_agent::uplink::connect::{Connector, OwnEndpoints, Sockets};
use dunlin_agent::uplink::tls::client_config;
use dunlin_agent::uplink::{Hooks, Options, Uplink};
use dunlin_shared::id::{Epoch, NodeId};
use dunlin_shared::metric::by_name;
use dunlin_shared::sample::{Sample, Subject, SubjectKind};
use dunlin_shared::session::agent::Profile;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::{GapReason, StopReason};
use dunlin_tests::pki::{Authority, node_ids};
use dunlin_tests::random::Random;
use dunlin_tests::scratch::Scratch;
use dunlin_tests::site::{Collector, QUIC_PORT, counter};
use dunlin_tests::topology::{COLLECTOR, Direct};
use tokio::sync::oneshot;

use crate::LIMIT;

/// The least that the configuration allows; with the samples below, a handful of frames.
const SPOOL_BYTES: usize = 16 * 1024;
const INTERVAL_MS: u32 = 1_000;
const SUBJECTS: usize = 200;
/// Three times what the spool holds.
const AWAY_FRAMES: i64 = 30;

/// An agent on a thread; it stops when it is told or dropped.
struct InProcess {
    node: NodeId,
    /// Wall time of the last sample, and how many there were.
    last_wall: Arc<AtomicI64>,
    samples: Arc<AtomicI64>,
    stop: Option<oneshot::Sender<StopReason>>,
    thread: Option<std::thread::JoinHandle<Line>>,
}

#[test]
fn gap_of_an_overflowed_spool_is_recorded_with_count_and_times() {
    let net = Direct::new().expect("the rig makes a network");
    let authority = Authority::new().expect("an authority");
    let mut collector = Collector::start(&net.collector, &authority).expect("a collector");
    let mut agent = net.agent.enter(|| InProcess::start(&authority)).expect("the namespace is there");
    collector.wait_committed(4, LIMIT).expect("frames arrive");
    collector.terminate().expect("it stops");
    let before = collector.window().expect("the window is readable");
    assert_eq!(before.of(agent.node).expect("the node is known").gaps, [], "nothing is given up while all is well");
    let (away_from, sampled) = (agent.last_wall(), agent.samples());
    dunlin_tests::deadline::until("more samples than the spool holds", LIMIT, || {
        (agent.samples() >= sampled + AWAY_FRAMES).then_some(())
    })
    .expect("it samples on");
    collector.restart().expect("it starts again");
    let history = collector
        .wait_window("the gap, and all around it", LIMIT, |window| {
            let history = window.of(agent.node).ok()?;
            (!history.gaps.is_empty() && history.check().is_ok()).then(|| history.clone())
        })
        .expect("frames and gap cover every number");
    let back_at = agent.last_wall();

    assert!(history.gap_frames() >= 5, "the spool is too small for all of it: {:?}", history.gaps);
    let arrived = history.frames.len() as u64;
    assert!(
        history.gap_frames() + arrived <= u64::try_from(agent.samples()).expect("a count"),
        "no more than there were"
    );
    for (_, gap) in &history.gaps {
        assert_eq!((gap.epoch, gap.reason), (Epoch(1), GapReason::Overflow));
        assert!(away_from <= gap.from && gap.from <= gap.to && gap.to <= back_at, "{away_from:?} {gap:?} {back_at:?}");
        let span_ms = gap.to.since(gap.from);
        let expected_ms = i64::try_from((gap.range.count() - 1) * u64::from(INTERVAL_MS)).expect("seconds");
        assert!((span_ms - expected_ms).abs() < 1_500, "{} frames in {span_ms} ms", gap.range.count());
    }
    let scrape = collector.scrape().expect("it answers");
    assert_eq!(counter(&scrape, "dunlin_gaps_total", &[]), history.gaps.len() as u64);
    let line = agent.stop();
    assert_eq!(line.spool().gaps(), [], "the gap was acknowledged");
}

impl InProcess {
    fn start(authority: &Authority) -> Self {
        let node = node_ids(200, 0)[199];
        let state = Scratch::new("in-process").expect("a directory");
        let identity = authority.node(node).expect("a certificate").identity();
        identity.write(state.path(), authority.ca_der(), "node").expect("it is writable");
        let identity = Identity::load(state.path()).expect("it was written");
        let tls = client_config(&identity).expect("it is valid");
        let profile = Profile {
            node,
            name: String::from("in-process"),
            agent_version: String::from("0"),
            boot_id: [7; 16],
            interval_ms: INTERVAL_MS,
            ended: Vec::new(),
        };
        let (last_wall, samples) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let (noted_wall, noted_samples) = (Arc::clone(&last_wall), Arc::clone(&samples));
        let mut random = Random::new(3);
        let hooks = Hooks {
            tick: Box::new(move |now, wall| {
                noted_wall.store(wall.0, Ordering::SeqCst);
                noted_samples.fetch_add(1, Ordering::SeqCst);
                sample(now, wall, &mut random).into()
            }),
            facts: Box::new(|_| None),
            acknowledged: Box::new(|_| {}),
            standing: Box::new(|_| {}),
            alive: Box::new(|_| {}),
        };
        let (stop, stopped) = oneshot::channel();
        // The thread is made inside the namespace, and its sockets with it.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let line = Line::new(profile, Epoch(1), Spool::new(SPOOL_BYTES));
            let connector =
                Connector::new(Resolver::new("/", system_entropy), tls, Sockets::Own(OwnEndpoints::default()));
            let options = Options::new(vec![format!("{COLLECTOR}:{QUIC_PORT}")], u64::from(INTERVAL_MS));
            runtime.block_on(Uplink::new(line, connector, options, hooks, Clock::start()).run(stopped))
        });
        Self { node, last_wall, samples, stop: Some(stop), thread: Some(thread) }
    }

    fn last_wall(&self) -> WallMs {
        WallMs(self.last_wall.load(Ordering::SeqCst))
    }

    fn samples(&self) -> i64 {
        self.samples.load(Ordering::SeqCst)
    }

    fn stop(&mut self) -> Line {
        drop(self.stop.take());
        self.thread.take().expect("it is stopped once").join().expect("the agent does not panic")
    }
}

/// Values that no delta makes small.
fn sample(now: MonoMs, wall: WallMs, random: &mut Random) -> Sample {
    let metric = by_name("process_memory_bytes").expect("the catalogue has it");
    let mut sample = Sample::new(now, wall);
    for number in 0..SUBJECTS {
        let subject = Subject::new(SubjectKind::Process, &format!("p{number}")).expect("a short name");
        #[expect(clippy::cast_precision_loss, reason = "any number will do")]
        sample.push(&subject, metric, (random.next_u64() >> 16) as f64);
    }
    sample
}
