//! Plays a fleet from its start to its last acknowledgement, and writes down what it saw.
//!
//! The oracle's file is written every second, so that a fleet that is killed leaves what it knew. In the
//! end nothing is claimed that the collector did not say: what is neither acknowledged nor given up is pending.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dunlin_agent::clock::Clock;
use dunlin_shared::id::{Epoch, NodeId};
use dunlin_shared::time::WallMs;
use quinn::Endpoint;
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::agent::{Agent, Counts, Shared};
use super::load::Load;
use super::oracle::{Node, Oracle, Run};
use super::unruly::Unruly;
use crate::pki;

/// Files that a run needs beside its sockets: runtime, oracle, standard streams, and some to spare.
const FILES_BESIDE_SOCKETS: u64 = 64;
/// How often the settling fleet is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct Plan {
    pub collector: SocketAddr,
    /// The number in the fleet of the first agent that is played.
    pub first: usize,
    pub load: Load,
    pub unruly: Unruly,
    pub epoch: Epoch,
    pub interval_ms: u64,
    /// Agents start evenly over this time.
    pub ramp: Duration,
    pub sockets: usize,
    /// What the sockets are bound to, in turn; without any, whatever leads to the collector.
    pub from: Vec<IpAddr>,
    pub spool_ram_bytes: usize,
    /// Without an end it runs until a signal.
    pub duration: Option<Duration>,
    pub settle: Duration,
    pub oracle: PathBuf,
    pub quiet: bool,
}

/// How a run went; `sampled = acknowledged + gaps + pending`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub agents: usize,
    pub epoch: u32,
    pub seconds: f64,
    /// Until every agent had a connection; `None` when that never was so.
    pub all_connected_after_seconds: Option<f64>,
    pub sampled: u64,
    pub acknowledged: u64,
    pub gaps: u64,
    pub pending: u64,
    /// Whether everything that was sampled before the end was acknowledged or given up in time.
    pub settled: bool,
    /// Connections that were tried, and how many more those are than there are agents.
    pub handshakes: u64,
    pub reconnects: u64,
    pub spool_bytes_max: u64,
}

struct Playing {
    plan: Plan,
    ids: Vec<NodeId>,
    agents: Vec<Agent>,
    endpoints: Vec<Endpoint>,
    counts: Arc<Counts>,
    began: Instant,
    /// What the wall clock read when the agents' clock read 0.
    clock_began: WallMs,
    all_connected_after: Option<Duration>,
}

/// Plays to the end; must be called within a runtime.
pub async fn run(plan: Plan, fleet: pki::Fleet) -> Result<Summary> {
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut playing = Playing::start(plan, fleet)?;
    playing.until_the_end(&mut signals).await?;
    let settled = playing.settle(&mut signals).await?;
    playing.finish(settled).await
}

impl Playing {
    fn start(plan: Plan, fleet: pki::Fleet) -> Result<Self> {
        let endpoints = endpoints(&plan)?;
        let counts = Arc::new(Counts::default());
        let clock = Clock::start();
        let shared = Arc::new(Shared {
            collector: plan.collector.to_string(),
            load: plan.load.clone(),
            unruly: plan.unruly,
            epoch: plan.epoch,
            interval_ms: plan.interval_ms,
            spool_ram_bytes: plan.spool_ram_bytes,
            clock,
            authority: fleet.ca_der,
            counts: Arc::clone(&counts),
        });
        let share = plan.ramp / u32::try_from(fleet.nodes.len().max(1)).context("too many agents")?;
        let ids = fleet.nodes.iter().map(|node| node.id).collect();
        let starts = std::iter::successors(Some(Duration::ZERO), |start| Some(*start + share));
        let agents = fleet.nodes.into_iter().zip(starts).enumerate();
        let agents = agents.map(|(index, (node, start))| {
            let endpoint = endpoints[index % endpoints.len()].clone();
            Agent::spawn(&shared, plan.first + index, node, endpoint, start)
        });
        let agents = agents.collect();
        let clock_began = clock.wall().plus(-i64::try_from(clock.mono().0)?);
        let began = Instant::now();
        Ok(Self { plan, ids, agents, endpoints, counts, began, clock_began, all_connected_after: None })
    }

    async fn until_the_end(&mut self, signals: &mut (Signal, Signal)) -> Result<()> {
        let end = self.plan.duration.map(|duration| self.began + duration);
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let mut before = (0, 0);
        loop {
            tokio::select! {
                () = heard(signals) => return Ok(()),
                () = sleep_until(end) => return Ok(()),
                _ = seconds.tick() => {}
            }
            self.report(&mut before);
            self.write().await?;
        }
    }

    /// Agents go on sampling meanwhile, as real ones would; what counts is what was sampled until now.
    async fn settle(&mut self, signals: &mut (Signal, Signal)) -> Result<bool> {
        let marks: Vec<u64> = self.agents.iter().map(Agent::sampled).collect();
        let end = Some(Instant::now() + self.plan.settle);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut before = (self.counts.sampled.load(Relaxed), self.counts.acknowledged.load(Relaxed));
        let mut reported = Instant::now();
        loop {
            if self.agents.iter().zip(&marks).all(|(agent, &mark)| agent.is_settled(mark)) {
                return Ok(true);
            }
            tokio::select! {
                () = heard(signals) => return Ok(false),
                () = sleep_until(end) => return Ok(false),
                _ = looks.tick() => {}
            }
            if reported.elapsed() >= Duration::from_secs(1) {
                reported = Instant::now();
                self.report(&mut before);
                self.write().await?;
            }
        }
    }

    async fn finish(mut self, settled: bool) -> Result<Summary> {
        let seconds = self.began.elapsed().as_secs_f64();
        // A goodbye waits two seconds for its farewell: all at once, a large fleet's would be late.
        let pause = Duration::from_millis(self.plan.interval_ms) / u32::try_from(self.agents.len().max(1))?;
        let mut paused = Duration::ZERO;
        for agent in &mut self.agents {
            agent.stop();
            paused += pause;
            if paused >= Duration::from_millis(1) {
                tokio::time::sleep(std::mem::take(&mut paused)).await;
            }
        }
        let handshakes = self.endpoints.iter().map(|endpoint| endpoint.stats().outgoing_handshakes).sum();
        let mut summary = Summary {
            agents: self.agents.len(),
            epoch: self.plan.epoch.0,
            seconds,
            all_connected_after_seconds: self.all_connected_after.map(|after| after.as_secs_f64()),
            sampled: 0,
            acknowledged: 0,
            gaps: 0,
            pending: 0,
            settled,
            handshakes,
            reconnects: handshakes.saturating_sub(self.agents.len() as u64),
            spool_bytes_max: self.counts.spool_bytes_max.load(Relaxed),
        };
        let mut nodes = Vec::with_capacity(self.agents.len());
        for (index, agent) in std::mem::take(&mut self.agents).into_iter().enumerate() {
            let tallies = agent.tally_at_end().await?;
            summary.sampled += tallies.sampled;
            summary.gaps += tallies.gaps.count();
            summary.pending += tallies.pending().count();
            nodes.push(Node::new(self.ids[index], self.plan.first + index, self.plan.epoch, &tallies));
        }
        summary.acknowledged = summary.sampled - summary.gaps - summary.pending;
        let run = Run::new(&self.plan.load, self.plan.epoch, self.clock_began, true);
        Oracle { run, nodes }.write(&self.plan.oracle)?;
        Ok(summary)
    }

    /// One line a second: what is going on.
    #[expect(clippy::print_stderr, reason = "the progress of a tool that a person watches")]
    fn report(&mut self, before: &mut (u64, u64)) {
        let connected: usize = self.endpoints.iter().map(Endpoint::open_connections).sum();
        if connected >= self.agents.len() && self.all_connected_after.is_none() {
            self.all_connected_after = Some(self.began.elapsed());
        }
        let now = (self.counts.sampled.load(Relaxed), self.counts.acknowledged.load(Relaxed));
        if !self.plan.quiet {
            eprintln!(
                "{:6.1} s  connected {connected}  sampled {}/s  acknowledged {}/s  pending {}",
                self.began.elapsed().as_secs_f64(),
                now.0 - before.0,
                now.1.saturating_sub(before.1),
                now.0.saturating_sub(now.1)
            );
        }
        *before = now;
    }

    async fn write(&self) -> Result<()> {
        let nodes = self.agents.iter().zip(&self.ids).zip(self.plan.first..);
        let nodes = nodes.map(|((agent, id), index)| Node::new(*id, index, self.plan.epoch, &agent.tally()));
        let run = Run::new(&self.plan.load, self.plan.epoch, self.clock_began, false);
        let (oracle, path) = (Oracle { run, nodes: nodes.collect() }, self.plan.oracle.clone());
        tokio::task::spawn_blocking(move || oracle.write(&path)).await??;
        Ok(())
    }
}

/// Sockets that the agents share, each of them on a port of its own.
fn endpoints(plan: &Plan) -> Result<Vec<Endpoint>> {
    let needed = plan.sockets as u64 + FILES_BESIDE_SOCKETS;
    if let Some(allowed) = getrlimit(Resource::Nofile).current.filter(|&allowed| allowed < needed) {
        bail!("{} sockets need {needed} open files and {allowed} are allowed; run `ulimit -n {needed}`", plan.sockets);
    }
    if plan.sockets == 0 {
        bail!("a fleet needs at least one socket");
    }
    let any: IpAddr = match plan.collector {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let from = if plan.from.is_empty() { vec![any] } else { plan.from.clone() };
    let endpoint =
        |&from: &IpAddr| Endpoint::client((from, 0).into()).with_context(|| format!("a UDP socket on {from}"));
    from.iter().cycle().take(plan.sockets).map(endpoint).collect()
}

async fn heard(signals: &mut (Signal, Signal)) {
    tokio::select! {
        _ = signals.0.recv() => {}
        _ = signals.1.recv() => {}
    }
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end.into()).await,
        None => std::future::pending().await,
    }
}
