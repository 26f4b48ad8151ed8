//! One simulated agent: the real line and the real uplink, with made-up samples and a tally.
//!
//! It starts when its turn comes and ticks at a phase of its own. The tally is written by the agent
//! and read by the run; the lock is held for a few words at a time and never across an await.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_agent::clock::Clock;
use dunlin_agent::identity::Identity;
use dunlin_agent::line::Line;
use dunlin_agent::resolve::{Resolver, system_entropy};
use dunlin_agent::spool::Spool;
use dunlin_agent::uplink::connect::{Connector, Sockets};
use dunlin_agent::uplink::tls::{TlsError, client_config};
use dunlin_agent::uplink::{Hooks, Options, Uplink};
use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::range::SeqRange;
use dunlin_shared::session::agent::Profile;
use dunlin_shared::wire::StopReason;
use quinn::Endpoint;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::load::Load;
use super::oracle::Tally;
use crate::pki::NodeIdentity;

/// What all agents of a run share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub collector: String,
    pub load: Load,
    pub epoch: Epoch,
    pub interval_ms: u64,
    pub spool_ram_bytes: usize,
    pub clock: Clock,
    pub authority: Vec<u8>,
    pub counts: Arc<Counts>,
}

/// Sums over the fleet, for the progress line.
#[derive(Debug, Default)]
pub struct Counts {
    pub sampled: AtomicU64,
    pub acknowledged: AtomicU64,
    pub spool_bytes_max: AtomicU64,
}

#[derive(Debug)]
pub struct Agent {
    tally: Arc<Mutex<Tally>>,
    stop: Option<oneshot::Sender<StopReason>>,
    task: JoinHandle<Result<(), TlsError>>,
}

impl Agent {
    /// Starts in the background after `delay`; must be called within a runtime.
    #[must_use]
    pub fn spawn(shared: &Arc<Shared>, index: usize, node: NodeIdentity, endpoint: Endpoint, delay: Duration) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (stop, stopped) = oneshot::channel();
        let (shared, own) = (Arc::clone(shared), Arc::clone(&tally));
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            Box::pin(play(shared, index, node, endpoint, own, stopped)).await
        });
        Self { tally, stop: Some(stop), task }
    }

    #[must_use]
    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// How many frames were sampled so far.
    #[must_use]
    pub fn sampled(&self) -> u64 {
        lock(&self.tally).sampled
    }

    /// Whether each of the first `sampled` frames is acknowledged or given up.
    #[must_use]
    pub fn is_settled(&self, sampled: u64) -> bool {
        lock(&self.tally).pending_before(sampled).is_empty()
    }

    /// Asks the agent to say goodbye.
    pub fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The receiver is gone only when the agent has ended.
            stop.send(StopReason::Stopped).ok();
        }
    }

    /// Waits for the end of a stopped agent, and says what it knew last.
    pub async fn tally_at_end(self) -> anyhow::Result<Tally> {
        self.task.await??;
        Ok(lock(&self.tally).clone())
    }
}

async fn play(
    shared: Arc<Shared>,
    index: usize,
    node: NodeIdentity,
    endpoint: Endpoint,
    tally: Arc<Mutex<Tally>>,
    stopped: oneshot::Receiver<StopReason>,
) -> Result<(), TlsError> {
    let tls = client_config(&Identity {
        node: node.id,
        chain: vec![node.cert()],
        key: node.key(),
        authorities: vec![shared.authority.clone().into()],
    })?;
    let connector = Connector::new(Resolver::new("/", system_entropy), tls, Sockets::Shared(endpoint));
    let profile = Profile {
        node: node.id,
        name: format!("fleet-{index}"),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        boot_id: *node.id.bytes(),
        interval_ms: u32::try_from(shared.interval_ms).unwrap_or(u32::MAX),
        ended: Vec::new(),
    };
    let clock = shared.clock;
    let mut line = Line::new(profile, shared.epoch, Spool::new(shared.spool_ram_bytes));
    lock(&tally).sampled = 1;
    shared.counts.sampled.fetch_add(1, Relaxed);
    line.take_inventory(clock.mono(), clock.wall(), &shared.load.inventory(index));
    let options = Options::new(vec![shared.collector.clone()], shared.interval_ms);
    let hooks = hooks(&shared, index, &tally);
    let line = Uplink::new(line, connector, options, hooks, clock).run(stopped).await;
    note_gaps(&line, shared.epoch, &tally);
    Ok(())
}

fn hooks(shared: &Arc<Shared>, index: usize, tally: &Arc<Mutex<Tally>>) -> Hooks {
    let host = shared.load.host(index, shared.epoch);
    let epoch = shared.epoch;
    let (counts, own) = (Arc::clone(&shared.counts), Arc::clone(tally));
    let mut ticks = 0;
    let tick = Box::new(move |mono, wall| {
        let sample = host.sample(ticks, mono, wall);
        ticks += 1;
        lock(&own).sampled += 1;
        counts.sampled.fetch_add(1, Relaxed);
        sample.into()
    });
    let (counts, own) = (Arc::clone(&shared.counts), Arc::clone(tally));
    let acknowledged = Box::new(move |acknowledged: dunlin_shared::wire::FrameRange| {
        // The fleet's spools begin empty, so no other epoch is ever acknowledged.
        if acknowledged.epoch == epoch {
            lock(&own).acknowledged.insert_range(acknowledged.range);
            counts.acknowledged.fetch_add(acknowledged.range.count(), Relaxed);
        }
    });
    let (counts, own) = (Arc::clone(&shared.counts), Arc::clone(tally));
    let mut dropped = 0;
    let alive = Box::new(move |line: &Line| {
        counts.spool_bytes_max.fetch_max(line.spool().len_bytes() as u64, Relaxed);
        if dropped != line.spool().dropped() {
            dropped = line.spool().dropped();
            note_gaps(line, epoch, &own);
        }
    });
    Hooks { tick, facts: Box::new(|_| None), acknowledged, standing: Box::new(|_| {}), alive }
}

fn note_gaps(line: &Line, epoch: Epoch, tally: &Mutex<Tally>) {
    let mut tally = lock(tally);
    // A gap may say that it reaches beyond what was sampled; what was not sampled is not lost.
    let Some(last) = tally.sampled.checked_sub(1).map(Seq) else { return };
    for gap in line.spool().gaps().iter().filter(|gap| gap.epoch == epoch && gap.range.first <= last) {
        tally.gaps.insert_range(SeqRange { first: gap.range.first, last: gap.range.last.min(last) });
    }
}

/// A tally is whole after every statement, so one that a panic left behind is still true.
fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
