//! A collector with its fleet, watched while somebody floods it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dunlin_agent::clock::Clock;
use dunlin_collector::client::{Client, escaped};
use dunlin_collector::shape::{Event, Feed};
use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use serde_json::Value;

use super::ground::{Ground, Wires};
use super::witness::{self, Seen};
use super::{Flood, FloodPlan};
use crate::netns::Namespace;
use crate::rig::{Look, Place, Rig};
use crate::site::HTTP;

/// Longer than any promise allows: what takes so long is an error.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// One that sends too often, and one that names too much; the rest trickles.
const BUSY_ROGUES: usize = 2;

/// The kinds of event that name who does wrong.
const TOLD: [&str; 5] =
    ["uplink.flooded", "uplink.flood_over", "network.refused", "node.cut_off", "node.names_refused"];

pub(super) struct Scene<'a> {
    plan: FloodPlan,
    rig: Rig<'a>,
    ground: Ground<'a>,
    collector: &'a Namespace,
    admin: Client,
    cursor: Option<String>,
    clock: Clock,
}

/// A stretch of time, and how the collector was in it.
#[derive(Debug)]
pub(super) struct Spell {
    pub(super) times: (WallMs, WallMs),
    pub(super) seconds: f64,
    pub(super) rss_before_mib: f64,
    pub(super) growth_mib: f64,
    pub(super) cores: f64,
    pub(super) committed_ms: f64,
    pub(super) kernel_drops: u64,
    /// What the flood says that it did.
    pub(super) did: String,
    pub(super) downs: u64,
    /// Events that are of this flood, as far as anybody can tell.
    pub(super) told: u64,
    /// The first event that says who it is.
    pub(super) named: Option<String>,
}

impl<'a> Scene<'a> {
    /// All agents are connected, and what came with their first frames is over.
    pub(super) fn start(plan: FloodPlan, wires: &'a Wires) -> Result<Self> {
        let place = Place {
            quic: Ground::target().into(),
            http: HTTP,
            collector: Some(&wires.fleet.collector),
            fleet: Some(&wires.fleet.agent),
        };
        let mut rig = Rig::start(plan.nodes + BUSY_ROGUES + plan.trickles, place)?;
        let rogues = rig.nodes()[plan.nodes..].to_vec();
        let authority = rig.authority().to_vec();
        let ground = Ground { plan, target: Ground::target(), attacker: &wires.flooder, rogues, authority };
        let admin = rig.admin()?;
        rig.play(plan.nodes, &format!("{}ms", plan.interval.as_millis()), &["--series", &plan.series.to_string()])?;
        #[expect(clippy::cast_precision_loss, reason = "thousands of nodes")]
        rig.wait_metric("dunlin_connections", plan.nodes as f64, LIMIT)?;
        let clock = Clock::start();
        let mut scene = Self { plan, rig, ground, collector: &wires.fleet.collector, admin, cursor: None, clock };
        scene.watch(3 * plan.interval)?;
        scene.news()?;
        Ok(scene)
    }

    /// Nobody floods.
    pub(super) fn quiet(&mut self) -> Result<Spell> {
        say("quiet");
        self.spell(|scene| {
            scene.watch(2 * scene.plan.interval)?;
            Ok(String::new())
        })
    }

    /// One flood from its beginning to when all is as it was.
    pub(super) fn play(&mut self, flood: &Flood) -> Result<Spell> {
        say(flood.what);
        let mut spell = self.spell(|scene| {
            let worker = (flood.start)(&scene.ground)?;
            scene.watch(scene.plan.takes)?;
            worker.stop()
        })?;
        // What is told at the end of a flood is told some time later.
        self.watch(2 * self.plan.interval)?;
        let news = self.news()?;
        let is_down = |event: &&Event| event.kind == "node.down" && !self.is_rogue(event);
        spell.downs = news.iter().filter(is_down).count() as u64;
        let is_told = |event: &&Event| TOLD.contains(&event.kind.as_str());
        spell.told = news.iter().filter(is_told).count() as u64;
        for event in news.iter().filter(is_told) {
            say(&format!("  {} {}", event.kind, Value::Object(event.more.clone())));
        }
        let named = news.iter().find(|event| (flood.names)(event, &self.ground));
        spell.named = named.map(|event| format!("{} {}", event.kind, Value::Object(event.more.clone())));
        Ok(spell)
    }

    /// Ends all, and reads in the log what became of the fleet in each of these stretches.
    pub(super) fn finish(self, spells: &[(WallMs, WallMs)]) -> Result<(Vec<Seen>, Value)> {
        say("what was stored is compared with what was acknowledged");
        let ours: HashSet<NodeId> = self.rig.nodes()[..self.plan.nodes].iter().map(|node| node.id).collect();
        let others: HashSet<NodeId> = self.ground.rogues.iter().map(|node| node.id).collect();
        let (_, summary, seen) = self.rig.finish_with(&others, |state| witness::look(state, &ours, spells))?;
        Ok((seen, summary))
    }

    fn spell(&mut self, work: impl FnOnce(&mut Self) -> Result<String>) -> Result<Spell> {
        let (before, drops, from, began) = (self.rig.look()?, self.kernel_drops()?, self.clock.wall(), Instant::now());
        self.rig.collector.forget_peak()?;
        let did = work(self)?;
        let (after, to, seconds) = (self.rig.look()?, self.clock.wall(), began.elapsed().as_secs_f64());
        let quantile = after.scrape.quantile_since(&before.scrape, "dunlin_received_to_committed_seconds", &[], 0.99);
        Ok(Spell {
            times: (from, to),
            seconds,
            rss_before_mib: mib(before.usage.rss_kib),
            growth_mib: mib(after.usage.rss_peak_kib.saturating_sub(before.usage.rss_kib)),
            cores: cpu_between(&before, &after) / seconds,
            committed_ms: quantile.unwrap_or(f64::INFINITY) * 1e3,
            kernel_drops: self.kernel_drops()?.saturating_sub(drops),
            did,
            downs: 0,
            told: 0,
            named: None,
        })
    }

    /// Lets time pass; a collector that ended meanwhile is an error at once.
    fn watch(&mut self, takes: Duration) -> Result<()> {
        let began = Instant::now();
        while let Some(left) = takes.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(LOOK_EVERY));
            self.rig.collector.usage().context("the collector is gone")?;
        }
        Ok(())
    }

    /// What was told since the last time.
    fn news(&mut self) -> Result<Vec<Event>> {
        let mut news = Vec::new();
        loop {
            let after = self.cursor.as_deref().map_or_else(String::new, |after| format!("&after={}", escaped(after)));
            let feed: Feed = self.admin.wait_for(&format!("/api/v1/events?limit=1000{after}"), LIMIT)?;
            let count = feed.items.len();
            news.extend(feed.items);
            ensure!(news.len() < 1_000_000, "the feed never ends");
            self.cursor = Some(feed.next);
            if count == 0 {
                return Ok(news);
            }
        }
    }

    fn is_rogue(&self, event: &Event) -> bool {
        self.ground.rogues.iter().any(|rogue| event.node.as_ref() == Some(&rogue.id.to_string()))
    }

    /// On any socket of the collector's namespace.
    fn kernel_drops(&self) -> Result<u64> {
        let table = self.collector.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("Udp: "));
        let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let both = names.split_whitespace().zip(values.split_whitespace());
        let count =
            both.into_iter().find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, value)| value.parse().ok());
        count.context("the kernel counts no RcvbufErrors")
    }
}

fn cpu_between(before: &Look, after: &Look) -> f64 {
    after.usage.cpu.saturating_sub(before.usage.cpu).as_secs_f64()
}

#[expect(clippy::print_stderr, reason = "the progress of a tool that a person watches")]
fn say(what: &str) {
    eprintln!("dunlin-fleet: {what}");
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 KiB")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}
