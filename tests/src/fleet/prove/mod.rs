//! The product's claim, measured by one command: a fleet of simulated agents against a real collector, on one machine,
//! through what fleets go through. Each line is a promise beside what it came to.
//!
//! Collector and fleet have a network each, so that what crosses the wire between them is counted by the kernel. No figure
//! counts before the collector's disk was compared with what it acknowledged.

mod feed;
pub mod overload;
mod watch;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_agent::clock::Clock;
use dunlin_collector::client::tokens;
use dunlin_collector::shape::TokenRequest;
use dunlin_shared::time::WallMs;
use serde_json::Value;

use self::feed::{Follower, Heard};
use self::watch::{Moment, Spell, Watch};
use super::ask::Times;
use super::drill;
use super::oracle::Oracle;
use crate::machine::SmallBuffers;
use crate::process::Program;
use crate::rig::{Place, Rig};
use crate::site::{HTTP, QUIC_PORT};
use crate::table::Table;
use crate::topology::{COLLECTOR, Direct};

const PART: &str = "fleet";
/// Each node fires an alert at one tick of so many.
const DRILL_ONE_OF: u64 = 100;
const ASK_CONNECTIONS: usize = 64;
/// Longer than any promise allows: what takes so long is an error.
const LIMIT: Duration = Duration::from_secs(180);
/// From here on the collector has noticed that a whole fleet is away, and has told it.
const LOSS_TOLD: Duration = Duration::from_secs(45);

/// What is promised, in the units of the table.
mod promised {
    pub(super) const RSS_MIB: f64 = 520.0;
    pub(super) const RSS_PEAK_MIB: f64 = 700.0;
    pub(super) const CORES: f64 = 0.5;
    pub(super) const COMMITTED_MS: f64 = 200.0;
    pub(super) const ALERT_MS: f64 = 1_000.0;
    pub(super) const INBOUND_MBIT: f64 = 5.0;
    pub(super) const BACK_S: f64 = 60.0;
    pub(super) const REQUESTS: f64 = 10_000.0;
    pub(super) const ASKED_P95_MS: f64 = 100.0;
    pub(super) const LOSS_S: f64 = 60.0;
    /// Of the fleet that the promises speak of.
    pub(super) const NODES: usize = 10_000;
    /// What the ends of a measurement may cut off.
    pub(super) const SLACK: f64 = 0.99;
}

#[derive(Clone, Copy, Debug)]
pub struct ProvePlan {
    pub nodes: usize,
    pub interval: Duration,
    pub series: usize,
    /// What all of it takes, about; the parts are shares of it.
    pub takes: Duration,
    pub requests_per_second: u32,
}

/// That all of it runs, on any build.
pub const SHORT: ProvePlan = ProvePlan {
    nodes: 100,
    interval: Duration::from_secs(1),
    series: 150,
    takes: Duration::from_secs(20),
    requests_per_second: 100,
};

struct Proof<'a> {
    plan: ProvePlan,
    rig: Rig<'a>,
    network: &'a Direct,
    follower: Follower,
    watch: Watch,
    token: String,
    clock: Clock,
}

/// From when to when a part went on, by the clock of who follows the feed, and how the collector was at both.
struct Part {
    from: WallMs,
    to: WallMs,
    before: Moment,
    after: Moment,
    spell: Spell,
}

/// Runs all of it; what is missed is said in the table.
pub fn prove(plan: ProvePlan, table: &mut Table) -> Result<()> {
    ensure!(plan.nodes > 0, "a fleet has at least one node");
    let _buffers = SmallBuffers::set()?;
    let network = Direct::new()?;
    let mut proof = Proof::begin(plan, &network)?;
    let alone = proof.watch.look(&proof.rig, proof.network)?;
    table.note(PART, "nodes, series, a tick each", proof.scale());
    table.note(PART, "the collector before any agent came: RSS", mib(alone.rss_mib));
    let connected = proof.connect()?;
    table.note(PART, "all connected, started within a tick", format!("{connected:.1} s"));
    let steady = proof.spell("steady", plan.share(50))?;
    let (asked_part, asked) = proof.ask()?;
    let restart = proof.restart()?;
    let pause = proof.pause()?;
    let cut = proof.cut()?;
    let Proof { rig, follower, watch, .. } = proof;
    watch.say("what was stored is compared with what was acknowledged");
    let began = Oracle::read(&rig.oracle_file())?.run.began;
    let (report, summary) = rig.finish()?;
    let heard = follower.finish()?;

    let alerts = Alerts { heard: &heard, began: WallMs(began) };
    tell_steady(table, plan, &steady, &alerts)?;
    tell_asked(table, plan, &asked_part, &asked, &alerts);
    table.promise(PART, "kill -9 and a start: ready", restart.ready_s, 10.0, "s");
    table.promise(PART, "the same: every agent back", restart.back_s, promised::BACK_S, "s");
    table.promise(PART, "the same: nodes told as down", restart.downs, 0.0, "");
    let what = format!("stopped for {:.0} s (SIGSTOP): nodes told as down", pause.seconds);
    table.promise(PART, &what, pause.downs, 0.0, "");
    tell_cut(table, &cut);
    table.promise(PART, "RSS at its highest in all of this", watch.rss_peak_mib(), promised::RSS_PEAK_MIB, "MiB");
    table.note(PART, "descriptors, threads at their most", watch.most());
    let frames = format!("{} stored, {} acknowledged", report.frames + report.inventories, report.acknowledged);
    table.note(PART, "verified: every acknowledged frame exactly once", frames);
    table.note(
        PART,
        "never acknowledged, given up by an agent",
        format!("{}, {}", summary["pending"], summary["gaps"]),
    );
    Ok(())
}

impl ProvePlan {
    /// Of a hundred parts of what all of it takes.
    fn share(&self, hundredths: u32) -> Duration {
        (self.takes * hundredths / 100).max(2 * self.interval)
    }

    const fn is_promised(&self) -> bool {
        self.nodes >= promised::NODES
    }
}

impl<'a> Proof<'a> {
    /// A collector that nobody has come to yet, with the drill's rule and who follows its feed.
    fn begin(plan: ProvePlan, network: &'a Direct) -> Result<Self> {
        let place = Place {
            quic: SocketAddr::from((COLLECTOR, QUIC_PORT)),
            http: HTTP,
            collector: Some(&network.collector),
            fleet: Some(&network.agent),
        };
        let rig = Rig::start(plan.nodes, place)?;
        let admin = rig.admin()?;
        let _: Value = admin.send_text("PUT", "/api/v1/rules?set=fleet", &drill::rule(), LIMIT)?;
        let token = tokens::create(&admin, &viewer())?.token;
        let follower = Follower::start(rig.admin()?)?;
        let watch = Watch::new(plan);
        Ok(Self { plan, rig, network, follower, watch, token, clock: Clock::start() })
    }

    fn scale(&self) -> String {
        format!("{}, {}, {:?}", self.plan.nodes, self.plan.series, self.plan.interval)
    }

    #[expect(clippy::cast_precision_loss, reason = "thousands of nodes")]
    fn nodes(&self) -> f64 {
        self.plan.nodes as f64
    }

    fn connect(&mut self) -> Result<f64> {
        self.watch.say("agents connect");
        let began = Instant::now();
        let interval = format!("{}ms", self.plan.interval.as_millis());
        let (series, drill) = (self.plan.series.to_string(), DRILL_ONE_OF.to_string());
        self.rig.play(self.plan.nodes, &interval, &["--series", &series, "--drill", &drill])?;
        self.wait_connected()?;
        let took = began.elapsed().as_secs_f64();
        // What came with the burst of the first frames is over, and what the catalogue of each needs is in memory.
        self.spell("settling", 3 * self.plan.interval)?;
        Ok(took)
    }

    fn wait_connected(&mut self) -> Result<()> {
        let nodes = self.nodes();
        let began = Instant::now();
        loop {
            if let Ok(now) = self.watch.look(&self.rig, self.network)
                && now.scrape.sum("dunlin_connections", &[]) >= nodes
            {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "not all of {nodes} agents are connected after {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Nothing is done but looking, for so long.
    fn spell(&mut self, name: &str, takes: Duration) -> Result<Part> {
        let before = self.watch.look(&self.rig, self.network)?;
        let from = self.clock.wall();
        let spell = self.watch.through(name, takes, &self.rig, self.network)?;
        let after = self.watch.look(&self.rig, self.network)?;
        Ok(Part { from, to: self.clock.wall(), before, after, spell })
    }

    /// The API is asked as hard as is promised, from the collector's own machine.
    fn ask(&mut self) -> Result<(Part, Value)> {
        let takes = self.plan.share(10);
        let program = Program::ours("dunlin-tests", "dunlin-fleet")?;
        let program = program.args(["ask", "--http", &HTTP.to_string(), "--token", &self.token]);
        let program = program.args(["--rate", &self.plan.requests_per_second.to_string()]);
        let program = program.args(["--seconds", &takes.as_secs().max(1).to_string()]);
        let program = program.args(["--connections", &ASK_CONNECTIONS.to_string()]);
        let mut asking = program.inside(&self.network.collector).start()?;
        let part = self.spell("asking the API", takes)?;
        let status = asking.wait_exit(LIMIT)?;
        let said = asking.log_text();
        ensure!(status.success(), "dunlin-fleet ask ended with {status}:\n{said}");
        let line = said.lines().rev().find(|line| line.starts_with('{')).context("it printed no summary")?;
        Ok((part, serde_json::from_str(line)?))
    }

    fn restart(&mut self) -> Result<Restart> {
        self.watch.say("kill -9");
        let before = Falls::of(&self.follower.heard());
        let began = Instant::now();
        self.rig.kill_and_restart()?;
        let ready_s = began.elapsed().as_secs_f64();
        self.wait_connected()?;
        let back_s = began.elapsed().as_secs_f64();
        // A node that is thought lost is told after half a minute, and two deadlines after a start.
        self.spell("after the start", self.plan.share(6))?;
        Ok(Restart { ready_s, back_s, downs: Falls::of(&self.follower.heard()).since(before) })
    }

    fn pause(&mut self) -> Result<Pause> {
        let before = Falls::of(&self.follower.heard());
        let takes = self.plan.share(20);
        self.rig.collector.stop()?;
        self.watch.wait("stopped", takes);
        self.rig.collector.cont()?;
        self.wait_connected()?;
        self.spell("after the stop", self.plan.share(4))?;
        Ok(Pause { seconds: takes.as_secs_f64(), downs: Falls::of(&self.follower.heard()).since(before) })
    }

    fn cut(&mut self) -> Result<Cut> {
        let takes = self.plan.share(10).max(if self.plan.is_promised() { 2 * LOSS_TOLD } else { Duration::ZERO });
        let before = Falls::of(&self.follower.heard());
        let losses_before = self.follower.heard().of("mass.loss");
        let began = Instant::now();
        self.network.cut()?;
        let mut told_s = None;
        while began.elapsed() < takes {
            self.watch.wait("cut off", Duration::from_millis(500).min(takes));
            if told_s.is_none() && self.follower.heard().of("mass.loss") > losses_before {
                told_s = Some(began.elapsed().as_secs_f64());
            }
        }
        let healed = Instant::now();
        self.network.heal()?;
        let sampled = self.watch.look(&self.rig, self.network)?;
        self.wait_connected()?;
        let back_s = healed.elapsed().as_secs_f64();
        let part = self.spell("backlog", self.plan.share(20))?;
        let heard = self.follower.heard();
        let losses = heard.of("mass.loss") - losses_before;
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let losses = losses as f64;
        let (inbound, returning) = (part.spell.inbound_mbit_max, sampled.inbound_mbit(&part.before));
        Ok(Cut {
            seconds: takes.as_secs_f64(),
            told_s,
            losses,
            downs: Falls::of(&heard).since(before),
            back_s,
            returning,
            inbound,
        })
    }
}

/// How often a node was told as gone.
#[derive(Clone, Copy, Debug)]
struct Falls(u64);

impl Falls {
    fn of(heard: &Heard) -> Self {
        Self(heard.of("node.down") + heard.of("node.stopped"))
    }

    #[expect(clippy::cast_precision_loss, reason = "thousands of nodes")]
    const fn since(self, before: Self) -> f64 {
        (self.0 - before.0) as f64
    }
}

struct Restart {
    ready_s: f64,
    back_s: f64,
    downs: f64,
}

struct Pause {
    seconds: f64,
    downs: f64,
}

struct Cut {
    seconds: f64,
    told_s: Option<f64>,
    losses: f64,
    downs: f64,
    back_s: f64,
    /// While they came back, handshakes and all.
    returning: f64,
    /// Once all of them were there.
    inbound: f64,
}

struct Alerts<'a> {
    heard: &'a Heard,
    /// When the fleet's clock read 0.
    began: WallMs,
}

impl Alerts<'_> {
    /// From the sample to whoever follows the feed; of what was heard in this part.
    fn times(&self, part: &Part) -> (usize, Times) {
        let drills = self.heard.drills.iter().filter(|drill| (part.from..=part.to).contains(&drill.heard));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of hours")]
        let ms: Vec<f64> = drills.map(|drill| drill.heard.since(self.began) as f64 - drill.sampled_ms).collect();
        (ms.len(), Times::of(ms))
    }
}

fn tell_steady(table: &mut Table, plan: ProvePlan, part: &Part, alerts: &Alerts<'_>) -> Result<()> {
    let seconds = part.before.seconds_to(&part.after);
    let frames = part.after.grown(&part.before, "dunlin_frames_committed_total");
    ensure!(frames > 0.0, "no frame was committed");
    #[expect(clippy::cast_precision_loss, reason = "thousands of nodes")]
    let due = plan.nodes as f64 / plan.interval.as_secs_f64();
    table.promise_least(
        PART,
        &format!("{seconds:.0} s steady: frames committed"),
        frames / seconds,
        due * promised::SLACK,
        "a second",
    );
    table.promise(PART, "the same: RSS at its highest", part.spell.rss_max_mib, promised::RSS_MIB, "MiB");
    let cpu = part.after.cpu_since(&part.before);
    table.promise_to(PART, "the same: of a core", (cpu / seconds, promised::CORES), "", 3);
    table.note(PART, "the same: CPU a frame", format!("{:.0} us", cpu * 1e6 / frames));
    committed(table, part, "the same");
    let (count, times) = alerts.times(part);
    ensure!(count > 0, "no alert was heard");
    let what = format!("the same: from a sample to whoever follows the feed, {count} alerts: p99");
    table.promise(PART, &what, times.p99_ms, promised::ALERT_MS, "ms");
    table.note(PART, "the same: median, longest", format!("{:.0} ms, {:.0} ms", times.median_ms, times.longest_ms));
    let (inbound, outbound) = part.before.mbit_to(&part.after);
    table.promise(PART, "the same: inbound, by the kernel's count", inbound, promised::INBOUND_MBIT, "Mbit/s");
    table.note(PART, "the same: outbound", format!("{outbound:.2} Mbit/s"));
    let bytes = (inbound + outbound) * 1e6 / 8.0 * seconds / frames;
    table.note(PART, "the same: bytes a tick, both ways, with Ethernet's headers", format!("{bytes:.0}"));
    table.note(
        PART,
        "the same: written to disk",
        format!("{:.0} kB/s", part.after.written_since(&part.before) / 1e3 / seconds),
    );
    Ok(())
}

fn committed(table: &mut Table, part: &Part, whose: &str) {
    let quantile =
        part.after.scrape.quantile_since(&part.before.scrape, "dunlin_received_to_committed_seconds", &[], 0.99);
    let ms = quantile.unwrap_or(f64::INFINITY) * 1e3;
    table.promise(PART, &format!("{whose}: received to committed, p99"), ms, promised::COMMITTED_MS, "ms");
}

fn tell_asked(table: &mut Table, plan: ProvePlan, part: &Part, asked: &Value, alerts: &Alerts<'_>) {
    let figure = |of: &Value, name: &str| of[name].as_f64().unwrap_or(f64::INFINITY);
    let whose = format!("the API asked {} times a second", plan.requests_per_second);
    let rate = asked["requests_per_second"].as_f64().unwrap_or(0.0);
    let least = f64::from(plan.requests_per_second).min(promised::REQUESTS) * promised::SLACK;
    table.promise_least(PART, &format!("{whose}: answers"), rate, least, "a second");
    table.promise(PART, &format!("{whose}: not answered with 200"), figure(asked, "failed"), 0.0, "");
    table.promise(PART, &format!("{whose}: p95"), figure(&asked["all"], "p95_ms"), promised::ASKED_P95_MS, "ms");
    let all = &asked["all"];
    let shown = format!("{:.1} ms, {:.1} ms", figure(all, "median_ms"), figure(all, "p99_ms"));
    table.note(PART, format!("{whose}: median, p99"), shown);
    for kind in asked["by_kind"].as_array().into_iter().flatten() {
        let name = kind[0].as_str().unwrap_or_default();
        let shown = format!("{:.1} ms, {:.1} ms", figure(&kind[1], "median_ms"), figure(&kind[1], "p95_ms"));
        table.note(PART, format!("{whose}, {name}: median, p95"), shown);
    }
    committed(table, part, &whose);
    let (count, times) = alerts.times(part);
    let what = format!("{whose}: sample to feed, {count} alerts: p99");
    table.promise(PART, &what, times.p99_ms, promised::ALERT_MS, "ms");
    let cpu = part.after.cpu_since(&part.before) / part.before.seconds_to(&part.after);
    table.note(PART, format!("{whose}: of a core, frames included"), format!("{cpu:.2}"));
}

fn tell_cut(table: &mut Table, cut: &Cut) {
    let whose = format!("all cut off for {:.0} s", cut.seconds);
    if cut.seconds >= LOSS_TOLD.as_secs_f64() {
        table.promise(
            PART,
            &format!("{whose}: one loss is told after"),
            cut.told_s.unwrap_or(f64::INFINITY),
            promised::LOSS_S,
            "s",
        );
        table.promise(PART, &format!("{whose}: losses told"), cut.losses, 1.0, "");
    }
    table.promise(PART, &format!("{whose}: nodes told as down"), cut.downs, 0.0, "");
    table.promise(PART, &format!("{whose}: every agent back"), cut.back_s, promised::BACK_S, "s");
    let returning = format!("{:.1} Mbit/s", cut.returning);
    table.note(PART, format!("{whose}: inbound while they come back, handshakes and all"), returning);
    let what = format!("{whose}: inbound with backlog once they are back, ten seconds at most");
    table.promise(PART, &what, cut.inbound, promised::INBOUND_MBIT, "Mbit/s");
}

fn viewer() -> TokenRequest {
    TokenRequest {
        role: String::from("viewer"),
        name: String::from("fleet"),
        uses: None,
        ttl: None,
        expires: None,
        labels: std::collections::BTreeMap::new(),
        needs_approval: false,
        per_hour: None,
        ephemeral: false,
    }
}

fn mib(mib: f64) -> String {
    format!("{mib:.1} MiB")
}
