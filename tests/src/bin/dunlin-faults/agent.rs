//! A real agent that is killed, stopped, or loses its power while the collector is away. Its identity stays, its epoch
//! rises, and what it had sampled arrives or is said to be lost.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use dunlin_collector::record::{Event, NodeKey};
use dunlin_collector::store::{Control, GapRow, Reader};
use dunlin_shared::id::{Epoch, NodeId};
use dunlin_shared::range::{SeqRange, SeqSet};
use dunlin_shared::time::WallMs;
use dunlin_tests::deadline::until;
use dunlin_tests::disk::Disk;
use dunlin_tests::pki::Fleet;
use dunlin_tests::process::{Program, Running};

use crate::Plan;
use crate::report::{Report, Times};
use crate::site::{STOP_LIMIT, Site};

/// How long the agent samples once a second while the collector is away.
const AWAY: Duration = Duration::from_secs(5);
/// One tick may be under way, and the first comes at once.
const FRAMES_MIN: u64 = 4;
/// A reconnect waits for 30 s at most.
const ARRIVE_LIMIT: Duration = Duration::from_secs(90);
const STARTED: &str = "started";
const STREAMING: &str = "streaming to the collector";
/// Below this ext4 has no journal worth the name.
const DISK_MIB: u32 = 32;

/// An agent and its state directory.
#[derive(Debug)]
struct Host {
    state: PathBuf,
    node: NodeId,
    log: PathBuf,
    collector: SocketAddr,
    disk_spool: bool,
}

/// What the collector's files say of one node.
#[derive(Debug)]
struct Held {
    frames: Vec<(Epoch, SeqSet)>,
    /// A frame that stands there twice.
    twice: u64,
    gaps: Vec<GapRow>,
}

/// The parts are few processes that wait for each other most of the time, so they run beside each other.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let mut report = Report::new("agent-kill");
    let fleet = &Fleet::generate(4, plan.seed)?;
    type Part<'a> = (&'static str, Box<dyn FnOnce(&mut Report) -> Result<()> + Send + 'a>);
    let parts: [Part<'_>; 4] = [
        ("RAM spool", Box::new(|report| killed(fleet, false, report))),
        ("disk spool", Box::new(|report| killed(fleet, true, report))),
        ("clean stop", Box::new(|report| stopped(fleet, report))),
        ("power cuts", Box::new(|report| power(plan, fleet, report))),
    ];
    let done: Vec<Result<(&'static str, Report)>> = std::thread::scope(|scope| {
        let started = parts.map(|(name, part)| {
            let thread = scope.spawn(move || {
                let mut report = Report::new("agent-kill");
                part(&mut report).context(name).map(|()| (name, report))
            });
            (name, thread)
        });
        let join = |(name, thread): (_, std::thread::ScopedJoinHandle<'_, _>)| {
            thread.join().unwrap_or_else(|_| bail!("{name}: the thread panicked"))
        };
        started.into_iter().map(join).collect()
    });
    for part in done {
        let (name, part) = part?;
        report.absorb(&format!("{name}: "), part);
    }
    Ok(report)
}

/// `kill -9` while frames wait for the collector: in memory they are lost and said to be, on disk they arrive.
fn killed(fleet: &Fleet, disk_spool: bool, report: &mut Report) -> Result<()> {
    let site = Site::new(1, None)?;
    fleet.write_collector(&site.state)?;
    let host = Host::new(&site, fleet, usize::from(disk_spool), site.scratch.join("agent"), disk_spool)?;
    let identity = host.identity()?;
    let mut collector = site.start_ready(&mut Times::default())?;
    let mut agent = host.start()?;
    agent.wait_log(STREAMING, ARRIVE_LIMIT)?;
    wait_for_frames(&site)?;
    collector.kill9()?;
    sleep(AWAY);
    agent.kill9()?;
    let mut collector = site.start_ready(&mut Times::default())?;
    let agent = host.start()?;
    host.wait_starts(STREAMING, 2)?;
    report.expect(host.identity()? == identity, || "the identity changed".to_owned());
    let epochs = host.epochs();
    let follows = matches!(epochs[..], [first, second] if second == first + 1);
    report.expect(follows, || format!("epochs {epochs:?} of two starts"));
    wait_for_backlog(&site, &host)?;
    stop(agent, &mut collector)?;

    let held = held(&site.state, host.node)?;
    report.expect(held.twice == 0, || format!("{} frames stand there twice", held.twice));
    let (first, gaps) = held.of(epochs[0]);
    if disk_spool {
        report.count("disk_frames", first.count());
        report.count("disk_gaps", gaps.len());
        let known: u64 = gaps.iter().filter_map(|gap| gap.count).sum();
        report.expect(first.count() > FRAMES_MIN, || format!("only {} frames arrived", first.count()));
        report.expect(is_prefix(&first), || format!("holes: {:?}", first.ranges()));
        report.expect(known == 0, || format!("{known} frames are said to be lost"));
    } else {
        report.count("ram_frames", first.count());
        report.count("ram_gaps", gaps.len());
        report.expect(gaps.len() == 1, || format!("{} gaps are recorded instead of 1", gaps.len()));
        // What is missing begins behind the first range, and the gap does not begin later.
        let next = first.ranges().first().filter(|range| range.first.0 == 0).map_or(0, |range| range.last.0 + 1);
        report.expect(gaps.iter().all(|gap| gap.first.0 <= next), || format!("{gaps:?}, and {next} is missing"));
    }
    Ok(())
}

/// A clean stop while the collector is away parks what waits, and the next start delivers it.
fn stopped(fleet: &Fleet, report: &mut Report) -> Result<()> {
    let site = Site::new(1, None)?;
    fleet.write_collector(&site.state)?;
    let host = Host::new(&site, fleet, 2, site.scratch.join("agent"), false)?;
    let mut collector = site.start_ready(&mut Times::default())?;
    let mut agent = host.start()?;
    agent.wait_log(STREAMING, ARRIVE_LIMIT)?;
    wait_for_frames(&site)?;
    collector.kill9()?;
    sleep(AWAY);
    let status = agent.terminate(STOP_LIMIT)?;
    report.expect(status.success(), || format!("a stop while the collector is away ends with {status}"));
    let mut collector = site.start_ready(&mut Times::default())?;
    let agent = host.start()?;
    host.wait_starts(STREAMING, 2)?;
    wait_for_backlog(&site, &host)?;
    stop(agent, &mut collector)?;
    let held = held(&site.state, host.node)?;
    let (first, gaps) = held.of(host.epochs()[0]);
    report.count("parked_frames", first.count());
    report.expect(is_prefix(&first) && first.count() > FRAMES_MIN, || format!("{:?} arrived", first.ranges()));
    report.expect(held.twice == 0, || format!("{} frames stand there twice", held.twice));
    report.count("parked_gaps", gaps.len());
    let known: u64 = gaps.iter().filter_map(|gap| gap.count).sum();
    report.expect(known == 0, || format!("{known} frames are said to be lost"));
    Ok(())
}

/// The agent's own disk loses power, also while it starts. Each start afterwards has the same identity and a higher
/// epoch than any before, and no hole in what was kept.
fn power(plan: &Plan, fleet: &Fleet, report: &mut Report) -> Result<()> {
    let cuts = if plan.short { 3 } else { 30 };
    let mut random = plan.random(8);
    let site = Site::new(1, None)?;
    fleet.write_collector(&site.state)?;
    let disk = Disk::new(DISK_MIB)?;
    let host = Host::new(&site, fleet, 3, disk.join("agent"), true)?;
    rustix::fs::syncfs(File::open(disk.path())?)?;
    let identity = host.identity()?;
    for cut in 0..cuts {
        let mut agent = host.start()?;
        // The first cut meets frames on disk, others a start.
        let run_ms = if cut == 0 { 3_000 } else { random.below(600) };
        sleep(Duration::from_millis(run_ms));
        disk.power_cut()?;
        agent.kill9()?;
        disk.restore()?;
        report.expect(host.identity().is_ok_and(|now| now == identity), || format!("cut {cut}: identity lost"));
    }
    let mut collector = site.start_ready(&mut Times::default())?;
    let mut agent = host.start()?;
    agent.wait_log(STREAMING, ARRIVE_LIMIT)?;
    wait_for_backlog(&site, &host)?;
    stop(agent, &mut collector)?;
    let epochs = host.epochs();
    report.count("agent_cuts", cuts);
    // A start that was cut before it said so may have used an epoch of its own.
    report.expect(epochs.is_sorted_by(|a, b| a < b), || format!("epochs do not rise: {epochs:?}"));
    let held = held(&site.state, host.node)?;
    report.expect(held.twice == 0, || format!("{} frames stand there twice", held.twice));
    for (epoch, frames) in &held.frames {
        let gap = held.gaps.iter().any(|gap| gap.epoch == *epoch);
        report.expect(gap || is_prefix(frames), || format!("epoch {}: {:?} and no gap", epoch.0, frames.ranges()));
    }
    Ok(())
}

impl Host {
    fn new(site: &Site, fleet: &Fleet, index: usize, state: PathBuf, disk_spool: bool) -> Result<Self> {
        let node = fleet.write_agent(index, &state)?;
        Ok(Self { state, node, log: site.scratch.join("agent.log"), collector: site.quic, disk_spool })
    }

    fn start(&self) -> Result<Running> {
        let spool = if self.disk_spool { "1MiB" } else { "0" };
        let program = Program::ours("dunlin-agent", "dunlin-agent")?.log(&self.log).arg("run");
        let program = program.arg("--state-dir").arg(&self.state);
        let collector = self.collector.to_string();
        Ok(program.args(["--collectors", &collector, "--interval", "1s", "--spool-disk", spool]).start()?)
    }

    fn identity(&self) -> Result<Vec<Vec<u8>>> {
        let read = |name: &&str| fs::read(self.state.join(name)).with_context(|| (*name).to_owned());
        ["ca.pem", "node.pem", "node.key"].iter().map(read).collect()
    }

    /// Waits until the log, of all runs, has so many lines with this text.
    fn wait_starts(&self, text: &str, count: usize) -> Result<()> {
        let log = || fs::read_to_string(&self.log).unwrap_or_default();
        let there = until(text, ARRIVE_LIMIT, || (log().matches(text).count() >= count).then_some(()));
        there.with_context(log)
    }

    /// What each start said that it drew.
    fn epochs(&self) -> Vec<u32> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let of = |line: &str| line.split("epoch=").nth(1)?.split_whitespace().next()?.parse().ok();
        text.lines().filter(|line| line.contains(STARTED)).filter_map(of).collect()
    }
}

impl Held {
    fn of(&self, epoch: u32) -> (SeqSet, Vec<&GapRow>) {
        let frames = self.frames.iter().find(|(known, _)| known.0 == epoch).map(|(_, set)| set.clone());
        (frames.unwrap_or_default(), self.gaps.iter().filter(|gap| gap.epoch.0 == epoch).collect())
    }
}

/// Waits until the collector has taken a few.
fn wait_for_frames(site: &Site) -> Result<()> {
    until("some frames", ARRIVE_LIMIT, || {
        sleep(Duration::from_millis(100));
        let committed = site.metrics().ok()?.sum("dunlin_frames_committed_total", &[]);
        (committed >= 3.0).then_some(())
    })?;
    Ok(())
}

/// Waits until the newest run is there from its first frame on. A backlog arrives oldest first, so all before it came.
fn wait_for_backlog(site: &Site, host: &Host) -> Result<()> {
    until("the end of the backlog", ARRIVE_LIMIT, || {
        sleep(Duration::from_millis(300));
        let newest = *host.epochs().last()?;
        let all = frames(&site.state, |_| true).ok()?.0;
        all.iter().any(|(epoch, frames)| epoch.0 == newest && is_prefix(frames)).then_some(())
    })?;
    Ok(())
}

fn stop(mut agent: Running, collector: &mut Running) -> Result<()> {
    for (who, program) in [("agent", &mut agent), ("collector", collector)] {
        let status = program.terminate(STOP_LIMIT)?;
        ensure!(status.success(), "a clean stop of the {who} ends with {status}");
    }
    Ok(())
}

fn is_prefix(frames: &SeqSet) -> bool {
    matches!(frames.ranges(), [] | [SeqRange { first: dunlin_shared::id::Seq(0), .. }])
}

/// Reads the state of a collector that has stopped.
fn held(state: &Path, node: NodeId) -> Result<Held> {
    let (control, _) = Control::open(&state.join("control.db"), WallMs(0), 0)?;
    let Some(row) = control.nodes()?.into_iter().find(|row| row.id == node) else { bail!("node {node} is not known") };
    let gaps = control.gaps(row.key)?;
    control.close()?;
    let (frames, twice) = frames(state, |node| node == row.key)?;
    Ok(Held { frames, twice, gaps })
}

/// What is in the log of these nodes, also while a collector writes it, and how many frames stand there twice.
fn frames(state: &Path, is_of: impl Fn(NodeKey) -> bool) -> Result<(Vec<(Epoch, SeqSet)>, u64)> {
    let (mut all, mut twice): (Vec<(Epoch, SeqSet)>, u64) = (Vec::new(), 0);
    for record in Reader::new(&state.join("window")).scan(dunlin_collector::record::Pos(0))? {
        let (_, record) = record?;
        let Event::Frame { node, frame, .. } = record.event else { continue };
        if !is_of(node) {
            continue;
        }
        let at = all.iter().position(|(epoch, _)| *epoch == frame.id.epoch).unwrap_or_else(|| {
            all.push((frame.id.epoch, SeqSet::new()));
            all.len() - 1
        });
        let set = &mut all[at].1;
        twice += u64::from(set.contains(frame.id.seq));
        set.insert_range(SeqRange::one(frame.id.seq));
    }
    Ok((all, twice))
}
