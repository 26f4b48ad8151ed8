//! One simulated agent: the real line and the real uplink, with made-up samples and stocks and a tally.
//!
//! It starts when its turn comes and ticks at a phase of its own; what it does at a tick follows from the tick, bad
//! behaviour included. The tally is written by the agent and read by the run; the lock is held for a few words at a
//! time and never across an await.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_agent::clock::Clock;
use dunlin_agent::enrol::token::TokenSources;
use dunlin_agent::identity::Identity;
use dunlin_agent::line::Line;
use dunlin_agent::resolve::{Resolver, system_entropy};
use dunlin_agent::spool::Spool;
use dunlin_agent::uplink::connect::{Connector, SlowReading, Sockets};
use dunlin_agent::uplink::tls::{TlsError, client_config};
use dunlin_agent::uplink::{Change, Hooks, Options, Tick, Uplink};
use dunlin_shared::id::{Epoch, Seq};
use dunlin_shared::range::SeqRange;
use dunlin_shared::sample::Sample;
use dunlin_shared::session::agent::Profile;
use dunlin_shared::wire::StopReason;
use quinn::Endpoint;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::load::Load;
use super::oracle::Tally;
use super::unruly::{Conduct, Unruly, reconnects_at};
use crate::pki::NodeIdentity;

/// 32 bytes a second: a Welcome takes some seconds, and an acknowledgement less than the time to the next.
const SLOW: SlowReading = SlowReading { window_bytes: 64, chunk_bytes: 16, pause: Duration::from_millis(500) };
/// A clone runs under this many epochs more: whatever of it is stored is found by that.
const CLONE_EPOCHS: u32 = 1_000;
/// How long a clone that is kept out stays away, as an agent that is told so does.
const CLONE_BACKOFF_MS: (u64, u64) = (1_000, 60_000);

/// What all agents of a run share.
#[derive(Clone, Debug)]
pub struct Shared {
    pub collector: String,
    pub load: Load,
    pub unruly: Unruly,
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

/// One agent before it runs.
struct Player {
    shared: Arc<Shared>,
    /// Its number in the fleet.
    index: usize,
    node: NodeIdentity,
    endpoint: Endpoint,
    conduct: Conduct,
    tally: Arc<Mutex<Tally>>,
}

impl Agent {
    /// Starts in the background after `delay`; must be called within a runtime.
    #[must_use]
    pub fn spawn(shared: &Arc<Shared>, index: usize, node: NodeIdentity, endpoint: Endpoint, delay: Duration) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (stop, stopped) = oneshot::channel();
        let conduct = shared.unruly.conduct(shared.load.seed, index, shared.interval_ms);
        let (shared, own) = (Arc::clone(shared), Arc::clone(&tally));
        let player = Player { shared, index, node, endpoint, conduct, tally: own };
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            Box::pin(player.play(stopped)).await
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

impl Player {
    async fn play(self, stopped: oneshot::Receiver<StopReason>) -> Result<(), TlsError> {
        let Shared { epoch, interval_ms, spool_ram_bytes, .. } = *self.shared;
        let clock = self.clock();
        let connector = self.connector()?;
        let mut line = Line::new(self.profile(), epoch, Spool::new(spool_ram_bytes));
        lock(&self.tally).sampled = 1;
        self.shared.counts.sampled.fetch_add(1, Relaxed);
        line.take_inventory(clock.mono(), clock.wall(), &self.shared.load.inventory(self.index));
        let options = Options::new(vec![self.shared.collector.clone()], interval_ms);
        // Dropped, it lets a clone end with the node that it is of.
        let (welcomed, clone) = match self.conduct {
            Conduct::Cloned => {
                let (welcomed, first) = oneshot::channel();
                let (over, ended) = oneshot::channel();
                let clone = self.clone_of(first, ended)?;
                (Some(welcomed), Some((over, tokio::spawn(clone))))
            }
            _ => (None, None),
        };
        let (changes, changed) = mpsc::channel(1);
        let hooks = self.hooks(changes, welcomed);
        let uplink = Uplink::new(line, connector, options, hooks, clock).changing(changed);
        let line = Box::pin(uplink.run(stopped)).await;
        note_gaps(&line, epoch, &self.tally);
        if let Some((over, clone)) = clone {
            // It may be over already, if nobody welcomed it.
            over.send(StopReason::Stopped).ok();
            clone.await.ok();
        }
        Ok(())
    }

    fn clock(&self) -> Clock {
        match self.conduct {
            Conduct::WrongClock(wrong) => self.shared.clock.wrong(wrong),
            _ => self.shared.clock,
        }
    }

    fn connector(&self) -> Result<Connector, TlsError> {
        let tls = client_config(&Identity {
            node: self.node.id,
            chain: vec![self.node.cert()],
            key: self.node.key(),
            authorities: vec![self.shared.authority.clone().into()],
        })?;
        let (resolver, sockets) = (Resolver::new("/", system_entropy), Sockets::Shared(self.endpoint.clone()));
        Ok(match self.conduct {
            Conduct::ReadsSlowly => Connector::reading_slowly(resolver, tls, sockets, SLOW),
            _ => Connector::new(resolver, tls, sockets),
        })
    }

    fn profile(&self) -> Profile {
        Profile {
            node: self.node.id,
            name: format!("fleet-{}", self.index),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: *self.node.id.bytes(),
            interval_ms: u32::try_from(self.shared.interval_ms).unwrap_or(u32::MAX),
            ended: Vec::new(),
        }
    }

    /// A copy of the node's disk on another machine, from when the node was `welcomed` first.
    fn clone_of(
        &self,
        welcomed: oneshot::Receiver<()>,
        ended: oneshot::Receiver<StopReason>,
    ) -> Result<impl Future<Output = ()> + use<>, TlsError> {
        let Shared { epoch, interval_ms, spool_ram_bytes, clock, .. } = *self.shared;
        let connector = self.connector()?;
        let boot_id = self.node.id.bytes().map(|byte| !byte);
        let profile = Profile { boot_id, name: format!("clone-{}", self.index), ..self.profile() };
        let options =
            Options { backoff_ms: CLONE_BACKOFF_MS, ..Options::new(vec![self.shared.collector.clone()], interval_ms) };
        let hooks = Hooks {
            tick: Box::new(|mono, wall| Sample::new(mono, wall).into()),
            facts: Box::new(|_| None),
            acknowledged: Box::new(|_| {}),
            standing: Box::new(|_| {}),
            alive: Box::new(|_| {}),
        };
        Ok(async move {
            if welcomed.await.is_ok() {
                let line = Line::new(profile, Epoch(epoch.0 + CLONE_EPOCHS), Spool::new(spool_ram_bytes));
                Box::pin(Uplink::new(line, connector, options, hooks, clock).run(ended)).await;
            }
        })
    }

    fn hooks(&self, changes: mpsc::Sender<Change>, mut welcomed: Option<oneshot::Sender<()>>) -> Hooks {
        let Shared { epoch, interval_ms, ref load, ref collector, ref counts, .. } = *self.shared;
        let (host, index, seed) = (load.host(self.index, epoch), self.index, load.seed);
        let (reconnects, collector) = (self.conduct == Conduct::Reconnects, collector.clone());
        let (mut ticks, mut reconnected) = (0, 0);
        let tick = Box::new(move |mono, wall| {
            let (sample, stock) = (host.sample(ticks, mono, wall), host.stock(ticks));
            let happened = host.happened(ticks, wall);
            if reconnects && reconnects_at(seed, index, epoch, ticks) {
                reconnected += 1;
                // One that is not heeded yet does for both.
                changes.try_send(another_way(&collector, index, reconnected, interval_ms)).ok();
            }
            ticks += 1;
            Tick { sample, stock: Some(stock), happened }
        });
        let (counts_then, own) = (Arc::clone(counts), Arc::clone(&self.tally));
        let acknowledged = Box::new(move |acknowledged: dunlin_shared::wire::FrameRange| {
            // The fleet's spools begin empty, so no other epoch is ever acknowledged.
            if acknowledged.epoch == epoch {
                lock(&own).acknowledged.insert_range(acknowledged.range);
                counts_then.acknowledged.fetch_add(acknowledged.range.count(), Relaxed);
            }
        });
        let standing = Box::new(move |standing: Result<&str, &str>| {
            if let Some(welcomed) = welcomed.take_if(|_| standing.is_ok()) {
                welcomed.send(()).ok();
            }
        });
        let (counts, own) = (Arc::clone(counts), Arc::clone(&self.tally));
        let mut dropped = 0;
        let alive = Box::new(move |line: &Line| {
            note_tick(line, &own, &counts);
            counts.spool_bytes_max.fetch_max(line.spool().len_bytes() as u64, Relaxed);
            if dropped != line.spool().dropped() {
                dropped = line.spool().dropped();
                note_gaps(line, epoch, &own);
            }
        });
        Hooks { tick, facts: Box::new(|_| None), acknowledged, standing, alive }
    }
}

/// The same collector under a list of another length: what the agent says in a Hello is another, so that it makes a new
/// connection, as it does when its configuration changes.
fn another_way(collector: &str, index: usize, times: usize, interval_ms: u64) -> Change {
    Change {
        collectors: vec![collector.to_owned(); 1 + times % 2],
        name: format!("fleet-{index}"),
        follows_host_name: false,
        interval_ms,
        tokens: TokenSources::default(),
        labels: std::collections::BTreeMap::new(),
    }
}

/// The loop that calls this takes one tick at most in a turn, and hears of no frame before.
fn note_tick(line: &Line, tally: &Mutex<Tally>, counts: &Counts) {
    let next = line.next_seq().0;
    let mut tally = lock(tally);
    let first = tally.sampled;
    if next > first {
        tally.numbering.note_tick(first, next);
        tally.sampled = next;
        counts.sampled.fetch_add(next - first, Relaxed);
    }
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
