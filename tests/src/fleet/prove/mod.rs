//! The product's claim, measured by one command: a fleet of simulated agents against a real collector, on one machine,
//! through what fleets go through. Each line is a promise beside what it came to.
//!
//! Collector and fleet have a network each, so that what crosses the wire between them is counted by the kernel. No figure
//! counts before the collector's disk was compared with what it acknowledged. Each part measures, and tells at the end.

mod asked;
mod cut;
mod fallen;
mod feed;
mod island;
mod lossy;
pub mod overload;
mod promised;
mod restart;
mod steady;
mod unruly;
mod watch;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dunlin_agent::clock::Clock;
use dunlin_collector::client::tokens;
use dunlin_collector::shape::TokenRequest;
use dunlin_shared::time::WallMs;
use serde_json::Value;

use self::feed::{Follower, Heard, What};
use self::watch::{Moment, Spell, Watch};
use super::ask::Times;
use super::drill;
use super::oracle::Oracle;
use super::unruly::{Conduct, Share, Unruly};
use crate::machine::SmallBuffers;
use crate::rig::{Place, Rig};
use crate::site::{HTTP, QUIC_PORT};
use crate::table::Table;
use crate::topology::{AGENT, COLLECTOR, Direct, ISLAND};

const PART: &str = "fleet";
/// What `dunlin-fleet run` makes hosts of unless it is told another.
const SEED: u64 = 1;
/// Each node fires an alert at one tick of so many.
const DRILL_ONE_OF: u64 = 100;
/// A multiple of the addresses that they are bound to in turn.
const SOCKETS: usize = 4 * island::ONE_OF;
/// Longer than any promise allows: what takes so long is an error.
const LIMIT: Duration = Duration::from_secs(180);
/// From here on the collector has noticed that many nodes are away, and has told it.
const LOSS_TOLD: Duration = Duration::from_secs(45);

#[derive(Clone, Copy, Debug)]
pub struct ProvePlan {
    pub nodes: usize,
    pub interval: Duration,
    pub series: usize,
    /// What all of it takes, about; the parts are shares of it.
    pub takes: Duration,
    pub requests_per_second: u32,
    /// Those that are killed or stopped apart.
    pub unruly: Unruly,
}

/// That all of it runs, on any build.
pub const SHORT: ProvePlan = ProvePlan {
    nodes: 100,
    interval: Duration::from_secs(1),
    series: 150,
    takes: Duration::from_secs(20),
    requests_per_second: 100,
    unruly: Unruly {
        reconnecting: Share::percent(3),
        reading_slowly: Share::percent(3),
        wrong_clock: Share::percent(4),
        cloned: Share::percent(2),
    },
};

/// At the promised scale: a hundred of a kind, and half as many clones.
pub const UNRULY: Unruly = Unruly {
    reconnecting: Share::percent(1),
    reading_slowly: Share::percent(1),
    wrong_clock: Share::percent(1),
    cloned: Share::half_percent(),
};

struct Proof<'a> {
    plan: ProvePlan,
    rig: Rig<'a>,
    network: &'a Direct,
    follower: Follower,
    watch: Watch,
    token: String,
    clock: Clock,
    /// When the collector was ready first.
    started: Instant,
    /// Of all nodes, by their numbers.
    ids: Vec<String>,
    /// Nodes below this one are played to the end; those from there on fall.
    mainland: usize,
    /// Nodes that are played now.
    present: usize,
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
    ensure!(plan.nodes >= 10, "a fleet of which some are killed has ten nodes at least");
    let _buffers = SmallBuffers::set()?;
    let network = Direct::new()?;
    network.add_island()?;
    let mut proof = Proof::start(plan, &network)?;
    let alone = proof.watch.look(&proof.rig, proof.network)?;
    table.note(PART, "nodes, series, a tick each", proof.scale());
    table.note(PART, "the collector before any agent came: RSS", format!("{:.1} MiB", alone.rss_mib));
    let connected = proof.connect()?;
    table.note(PART, "all connected, started within a tick", format!("{connected:.1} s"));
    let steady = proof.spell("steady", plan.share(22))?;
    let asked = proof.ask()?;
    let lossy = proof.lossy()?;
    let island = proof.island()?;
    let fallen = proof.fallen()?;
    let restart = proof.restart()?;
    let pause = proof.pause()?;
    let cut = proof.cut()?;
    let heard = proof.follower.heard();
    let began = Oracle::read(&proof.rig.oracle_file())?.run.began;
    let alerts = Alerts { heard: &heard, began: WallMs(began) };

    steady::tell(table, plan, &steady, &alerts)?;
    asked.tell(table, plan, &alerts);
    lossy.tell(table);
    island.tell(table);
    fallen.tell(table, &heard, &proof.ids);
    restart.tell(table);
    pause.tell(table);
    cut.tell(table);
    proof.tell_unruly(table, &heard, &fallen);
    let happened = ["container.crashed", "container.stopped", "port.opened", "port.closed"].map(|kind| heard.of(kind));
    table.note(PART, "heard: containers crashed and stopped, ports opened and closed", format!("{happened:?}"));
    proof.finish(table)
}

impl ProvePlan {
    /// Of a hundred parts of what all of it takes.
    fn share(&self, hundredths: u32) -> Duration {
        (self.takes * hundredths / 100).max(2 * self.interval)
    }

    /// Whether there is time for what is promised within a minute.
    fn is_full(&self) -> bool {
        self.takes >= Duration::from_secs(300)
    }
}

impl<'a> Proof<'a> {
    fn start(plan: ProvePlan, network: &'a Direct) -> Result<Self> {
        let place = Place {
            quic: SocketAddr::from((COLLECTOR, QUIC_PORT)),
            http: HTTP,
            collector: Some(&network.collector),
            fleet: Some(&network.agent),
        };
        let rig = Rig::start(plan.nodes, place)?;
        let started = Instant::now();
        let admin = rig.admin()?;
        let rules = format!("{}{}", drill::rule(), unruly::skew_rule());
        let _: Value = admin.send_text("PUT", "/api/v1/rules?set=fleet", &rules, LIMIT)?;
        let token = tokens::create(&admin, &viewer())?.token;
        let follower = Follower::start(rig.admin()?)?;
        let ids = rig.nodes().iter().map(|node| node.id.to_string()).collect();
        let mainland = plan.nodes - 2 * fallen::each_of(plan);
        let (watch, clock) = (Watch::new(plan), Clock::start());
        Ok(Self { plan, rig, network, follower, watch, token, clock, started, ids, mainland, present: plan.nodes })
    }

    fn scale(&self) -> String {
        format!("{}, {}, {:?}", self.plan.nodes, self.plan.series, self.plan.interval)
    }

    fn connect(&mut self) -> Result<f64> {
        self.watch.say("agents connect");
        let began = Instant::now();
        let interval = format!("{}ms", self.plan.interval.as_millis());
        let (series, drill) = (self.plan.series.to_string(), DRILL_ONE_OF.to_string());
        let hosts = ["--series", &series, "--drill", &drill];
        let each = fallen::each_of(self.plan);
        for (name, first) in [(fallen::KILLED, self.mainland), (fallen::STOPPED, self.mainland + each)] {
            self.rig.play_beside(name, (first, each), &interval, &hosts)?;
        }
        let Unruly { reconnecting, reading_slowly, wrong_clock, cloned } = self.plan.unruly;
        let shares = [
            ("--reconnecting", reconnecting),
            ("--reading-slowly", reading_slowly),
            ("--wrong-clock", wrong_clock),
            ("--cloned", cloned),
        ];
        let shares = shares.map(|(name, share)| format!("{name}={share}"));
        let sockets = SOCKETS.to_string();
        let from: Vec<String> =
            (1..island::ONE_OF).map(|_| AGENT).chain([ISLAND]).map(|at| format!("--from={at}")).collect();
        let words = hosts.into_iter().chain(["--sockets", &sockets]);
        let words: Vec<&str> =
            words.chain(from.iter().map(String::as_str)).chain(shares.iter().map(String::as_str)).collect();
        self.rig.play(self.mainland, &interval, &words)?;
        self.wait_connected()?;
        let took = began.elapsed().as_secs_f64();
        // What came with the burst of the first frames is over, and what the catalogue of each needs is in memory.
        self.spell("settling", 3 * self.plan.interval)?;
        Ok(took)
    }

    /// Of those that reconnect all the time some are always on their way.
    fn wait_connected(&mut self) -> Result<()> {
        let away = (0..self.mainland).filter(|node| unruly::conduct(self.plan, *node) == Conduct::Reconnects).count();
        #[expect(clippy::cast_precision_loss, reason = "thousands of nodes")]
        let nodes = (self.present - away) as f64;
        let (began, mut connected) = (Instant::now(), 0.0);
        loop {
            if let Ok(now) = self.watch.look(&self.rig, self.network) {
                connected = now.scrape.sum("dunlin_connections", &[]);
                if connected >= nodes {
                    return Ok(());
                }
                self.watch.show("agents come", Some(&now));
            }
            ensure!(began.elapsed() < LIMIT, "{connected} of {nodes} agents are connected after {LIMIT:?}");
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

    /// How much was told until now.
    fn told(&self) -> usize {
        self.follower.heard().told.len()
    }

    /// Nodes that were told as gone since so much was told.
    fn gone_since(&self, before: usize) -> usize {
        let heard = self.follower.heard();
        [What::Down, What::Stopped].iter().map(|what| heard.told_since(before, *what).len()).sum()
    }

    /// What is on the collector's disk is compared with what was acknowledged.
    fn finish(self, table: &mut Table) -> Result<()> {
        let Self { rig, follower, watch, .. } = self;
        watch.say("what was stored is compared with what was acknowledged");
        let (report, summary) = rig.finish()?;
        follower.finish()?;
        table.promise(PART, "RSS at its highest in all of this", watch.rss_peak_mib(), promised::RSS_PEAK_MIB, "MiB");
        table.note(PART, "descriptors, threads at their most", watch.most());
        let frames = format!("{} stored, {} acknowledged", report.frames + report.inventories, report.acknowledged);
        table.note(PART, "verified: every acknowledged frame exactly once", frames);
        let stocks =
            format!("{} told, {} held, {} asked for anew", report.inventories, report.stocks, report.stocks_lost);
        table.note(PART, "verified: what stands on nodes is what was told last", stocks);
        let lost = summary["gaps"].as_u64().and_then(|gaps| usize::try_from(gaps).ok()).unwrap_or(usize::MAX);
        table.never(PART, "frames that an agent had to give up", lost);
        let pending = usize::from(summary["settled"] != true);
        table.never(PART, "frames that were not acknowledged within a minute: fleets that have some", pending);
        Ok(())
    }
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
