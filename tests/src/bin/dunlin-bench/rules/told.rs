//! From a frame that is received to its alert in the feed: through the real writer and pipeline in real time, with a few
//! alerts a second, and then with all nodes of the fleet within one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::thread::{JoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use dunlin_collector::clock::Clock;
use dunlin_collector::health::Health;
use dunlin_collector::pipeline::Input;
use dunlin_collector::record::NodeKey;
use dunlin_collector::recover::{Recovered, recover, started};
use dunlin_collector::rules::RuleBook;
use dunlin_collector::stats::Stats;
use dunlin_collector::store::{ControlReader, StoreError};
use dunlin_collector::uplink::mailbox::{Bell, Mailbox, Place};
use dunlin_collector::writer::{Arrival, Greeting, LOGGED_QUEUE, Logged, QUEUE, SessionId, Writer};
use dunlin_shared::metric::{Kind, OpenMetric, Step, Unit};
use dunlin_shared::sample::Subject;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::Lane;
use dunlin_tests::fleet::history::{EPOCH, hello};
use dunlin_tests::fleet::load::Load;
use dunlin_tests::pki::node_ids;
use dunlin_tests::scrape::Scrape;
use dunlin_tests::scratch::Scratch;
use tokio::sync::{mpsc, watch};

use super::{FLEET, PART, SERIES};
use crate::window::flow::{Playing, rss_kib};
use crate::window::{INTERVAL_MS, float};
use dunlin_tests::table::Table;

const TOLD_MS_MAX: f64 = 500.0;
const STORM_S_MAX: f64 = 5.0;
const COMMIT_MS_MAX: f64 = 200.0;
/// When the feed is not complete by then, it never is.
const LIMIT: Duration = Duration::from_secs(120);
/// One of so many crosses at each tick.
const ONE_OF: u64 = 100;
const DRILL: &str = "[[rule]]\nname = \"drill\"\nwhen = 'x_drill > 0.5'\nsubject = \"host\"\n\
    summary = \"{node} is at {value}\"\n";

/// The writer, the pipeline, and who listens to the feed.
struct Line {
    arrivals: mpsc::Sender<Arrival>,
    threads: Vec<JoinHandle<Result<(), StoreError>>>,
    newest: watch::Receiver<u64>,
    stats: Arc<Stats>,
    clock: Clock,
}

/// Nodes that are connected, and how often they have ticked.
struct Fleet {
    nodes: Vec<Playing>,
    metric: OpenMetric,
    tick: u64,
}

/// When which event was there: the newest number, and the time.
type Seen = Vec<(u64, WallMs)>;

pub(super) fn measure(table: &mut Table, short: bool) -> Result<()> {
    let (nodes, steady_ticks, tick) =
        if short { (200, 4, Duration::from_secs(1)) } else { (FLEET, 6, Duration::from_secs(10)) };
    let scratch = Scratch::new("rules")?;
    let line = Line::start(scratch.path())?;
    let is_over = AtomicBool::new(false);
    let (seen, calm, storm) = scope(|scope| -> Result<_> {
        let listening = scope.spawn(|| listen(&line, &is_over));
        let ticking = scope.spawn(|| line.tick(&is_over));
        let played = play(&line, (nodes, steady_ticks, tick));
        is_over.store(true, Relaxed);
        ticking.join().map_err(|_| anyhow!("the thread that ticks panicked"))?;
        let seen = listening.join().map_err(|_| anyhow!("the thread that listens panicked"))??;
        let (calm, storm) = played?;
        Ok((seen, calm, storm))
    })?;
    line.stop()?;
    let times = times(scratch.path(), &seen)?;
    let of = |from: WallMs, to: WallMs| -> Vec<f64> {
        let mut all: Vec<f64> = times.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, ms)| *ms).collect();
        all.sort_unstable_by(f64::total_cmp);
        all
    };
    let few = of(calm.from, calm.to);
    ensure!(!few.is_empty(), "nothing fired");
    let at = |sorted: &[f64], part: usize| sorted[(sorted.len() * part / 100).min(sorted.len() - 1)];
    let what = format!("{nodes} nodes, {} alerts: a frame received to its event on disk", few.len());
    table.note(PART, format!("{what}, median"), format!("{:.0} ms", at(&few, 50)));
    table.promise(PART, &format!("{what}, p99"), at(&few, 99), TOLD_MS_MAX, "ms");
    let all = of(storm.from, storm.to);
    ensure!(all.len() == nodes, "{} alerts are in the feed of {nodes} that fired", all.len());
    table.promise(
        PART,
        &format!("{nodes} alerts within a second: the feed is complete"),
        storm.took_s,
        STORM_S_MAX,
        "s",
    );
    table.note(
        PART,
        "the same, a frame to its event: median, p99",
        format!("{:.0} ms, {:.0} ms", at(&all, 50), at(&all, 99)),
    );
    table.note(PART, "the same, RSS of writer, pipeline and bench grows by", format!("{:.1} MiB", storm.grown_mib));
    table.promise(PART, "the same, commit p99", storm.commit_ms, COMMIT_MS_MAX, "ms");
    Ok(())
}

#[derive(Clone, Copy)]
struct Calm {
    from: WallMs,
    to: WallMs,
}

#[derive(Clone, Copy)]
struct Storm {
    from: WallMs,
    to: WallMs,
    took_s: f64,
    grown_mib: f64,
    commit_ms: f64,
}

/// Some ticks in which a few cross, one in which nobody does, and one second in which all do.
fn play(line: &Line, (nodes, ticks, tick): (usize, u64, Duration)) -> Result<(Calm, Storm)> {
    let mut fleet = Fleet::connect(line, nodes)?;
    // The first frame of each lays out what rules read.
    fleet.send(line, tick, |_, _| false)?;
    let from = line.clock.wall();
    for _ in 0..ticks {
        fleet.send(line, tick, |node, tick| node % ONE_OF == tick % ONE_OF)?;
    }
    let to = line.clock.wall();
    fleet.send(line, tick, |_, _| false)?;
    let before = Scrape::parse(&line.stats.render())?;
    let (before_kib, first) = (rss_kib()?, *line.newest.borrow());
    let (began, storm_from) = (Instant::now(), line.clock.wall());
    let highest_kib = AtomicU64::new(before_kib);
    fleet.send(line, Duration::from_secs(1), |_, _| true)?;
    // Nothing else is told meanwhile.
    while *line.newest.borrow() < first + nodes as u64 {
        ensure!(began.elapsed() < LIMIT, "{} events of {nodes}", *line.newest.borrow() - first);
        highest_kib.fetch_max(rss_kib()?, Relaxed);
        sleep(Duration::from_millis(5));
    }
    let took_s = began.elapsed().as_secs_f64();
    let after = Scrape::parse(&line.stats.render())?;
    let commit = after.quantile_since(&before, "dunlin_commit_seconds", &[], 0.99);
    let grown_kib = highest_kib.load(Relaxed).max(rss_kib()?) - before_kib.min(highest_kib.load(Relaxed));
    let storm = Storm {
        from: storm_from,
        to: line.clock.wall().plus(1),
        took_s,
        grown_mib: float(grown_kib) / 1_024.0,
        commit_ms: commit.context("something was committed")? * 1e3,
    };
    Ok((Calm { from, to }, storm))
}

impl Line {
    fn start(state: &Path) -> Result<Self> {
        let clock = Clock::start();
        let (health, stats) = (Arc::<Health>::default(), Arc::<Stats>::default());
        let own = || (Arc::clone(&health), Arc::clone(&stats), clock);
        let drill = vec![("drill.toml".to_owned(), DRILL.to_owned())];
        // Every rule that ships counts here.
        let rules = RuleBook::default().with_files(drill).map_err(|lines| anyhow!("{}", lines.join("\n")))?;
        let Recovered { mut log, mut ingest, pipeline, .. } = recover(state, &rules, own())?;
        if log.due(clock.wall()) {
            log.rotate(clock.wall(), &ingest.snapshot())?;
            ingest.rotated();
        }
        log.begin()?;
        let record = started(clock.wall());
        let pos = Some(log.append(&record)?);
        log.commit()?;
        let (arrivals, queue) = mpsc::channel(QUEUE);
        let (logged, logged_queue) = mpsc::channel(LOGGED_QUEUE);
        logged.try_send(Input::Logged(vec![Logged { pos, record, reading: None }])).context("a new queue has room")?;
        // Nothing is sealed here: who would be woken has gone.
        let (keeper, _) = sync_channel(1);
        let newest = pipeline.outlets().newest_event.subscribe();
        let writer = Writer::new(log, ingest, (logged, keeper), own());
        let threads = vec![
            std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(queue))?,
            std::thread::Builder::new().name("pipeline".to_owned()).spawn(move || pipeline.run(logged_queue))?,
        ];
        Ok(Self { arrivals, threads, newest, stats, clock })
    }

    fn send(&self, arrival: Arrival) -> Result<()> {
        self.arrivals.blocking_send(arrival).map_err(|_| anyhow!("the writer has ended"))
    }

    /// As the collector's own clock ticks.
    fn tick(&self, is_over: &AtomicBool) {
        let mut before = self.clock.mono();
        while !is_over.load(Relaxed) {
            sleep(Duration::from_secs(1));
            let now = self.clock.mono();
            let elapsed_ms = now.since(before);
            before = now;
            // Whoever ended meanwhile is told of by the thread that sends frames.
            self.send(Arrival::Tick { at: self.clock.wall(), elapsed_ms, paused_ms: 0 }).ok();
        }
    }

    fn stop(self) -> Result<()> {
        drop(self.arrivals);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    }
}

impl Fleet {
    fn connect(line: &Line, nodes: usize) -> Result<Self> {
        let load = Load::made_up(1, SERIES);
        let bell = Arc::<Bell>::default();
        let mut playing = Vec::with_capacity(nodes);
        for (index, id) in node_ids(nodes, 1).into_iter().enumerate() {
            let at = line.clock.wall();
            let mailbox = Arc::new(Mailbox::new(Place(index), Arc::clone(&bell), "bench"));
            let hello = Box::new(hello(index, id, INTERVAL_MS, at));
            line.send(Arrival::Hello(Greeting { session: SessionId(index as u64), at, hello, mailbox }))?;
            let key = NodeKey(u32::try_from(index)?);
            playing.push(Playing::new(key, load.host(index, EPOCH)));
        }
        let metric = OpenMetric::new("x_drill", Unit::Count, Kind::Gauge, Step::Each(1)).context("a good name")?;
        Ok(Self { nodes: playing, metric, tick: 0 })
    }

    /// One tick of every node, spread evenly over `within`.
    fn send(&mut self, line: &Line, within: Duration, crosses: impl Fn(u64, u64) -> bool) -> Result<()> {
        let (began, all) = (Instant::now(), u32::try_from(self.nodes.len())?);
        for (number, node) in (0..).zip(&mut self.nodes) {
            let due = within * number / all;
            if let Some(early) = due.checked_sub(began.elapsed()).filter(|early| *early > Duration::from_millis(2)) {
                sleep(early);
            }
            let at = line.clock.wall();
            let mut sample = node.host.sample(self.tick, MonoMs(self.tick * INTERVAL_MS), at);
            let value = f64::from(u8::from(crosses(number.into(), self.tick)));
            ensure!(sample.push_open(&Subject::HOST(), &self.metric, value), "there is room");
            let frame = node.frame_of(self.tick, &sample);
            let session = SessionId(number.into());
            // Making it is not what is measured.
            let (at, received) = (line.clock.wall(), line.clock.mono());
            line.send(Arrival::Frame { session, at, received, lane: Lane::Live, frame })?;
        }
        self.tick += 1;
        sleep(within.saturating_sub(began.elapsed()));
        Ok(())
    }
}

/// Until it is over: which event was there when.
fn listen(line: &Line, is_over: &AtomicBool) -> Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let mut newest = line.newest.clone();
    let mut seen = Seen::new();
    while !is_over.load(Relaxed) {
        let changed =
            runtime.block_on(async { tokio::time::timeout(Duration::from_millis(200), newest.changed()).await });
        if changed.is_ok() {
            seen.push((*newest.borrow_and_update(), line.clock.wall()));
        }
    }
    seen.push((*newest.borrow(), line.clock.wall()));
    Ok(seen)
}

/// Of each firing of the drill: when its frame was received, and how many milliseconds later it was on disk.
fn times(state: &Path, seen: &Seen) -> Result<Vec<(WallMs, f64)>> {
    let reader = ControlReader::open(&state.join("control.db"))?;
    let (mut after, mut times) = (0, Vec::new());
    loop {
        let rows = reader.events(after, 1_000)?;
        let Some(last) = rows.last() else { return Ok(times) };
        after = last.id;
        for row in rows.iter().filter(|row| row.kind == "alert.firing" && row.body.contains("\"rule\":\"drill\"")) {
            let place = seen.partition_point(|(newest, _)| *newest < row.id);
            // What came when the run was over was not listened to.
            let Some((_, when)) = seen.get(place) else { continue };
            times.push((row.at, float(when.since(row.at).max(0).unsigned_abs())));
        }
    }
}
