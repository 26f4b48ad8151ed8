//! Many agents that join by one token, as fast as the collector lets them: what it takes.
//!
//! So many at a time, each on a connection of its own. Whoever is told to come again does, after as long as it
//! was told. Keys are made before the clock starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dunlin_shared::token::JoinToken;
use dunlin_shared::wire::join::{JoinAnswer, JoinReason, JoinRefusal, Joined};
use quinn::{ClientConfig, Endpoint};
use serde::Serialize;

use crate::join::{JoinError, Joiner, client_config};
use crate::pki::{Fleet, Identity, NodeIdentity};

/// How long one may try. Far above what it takes at the promised speed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Whoever is turned away without a time comes again after this.
const AGAIN_MS: u32 = 500;

#[derive(Clone, Debug)]
pub struct EnrolPlan {
    pub collector: SocketAddr,
    pub token: JoinToken,
    pub agents: usize,
    /// How many join at a time.
    pub at_once: usize,
    pub sockets: usize,
}

/// What `dunlin-fleet enrol` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Enrolled {
    pub agents: usize,
    pub seconds: f64,
    pub per_second: f64,
    /// From the first packet to the answer, those that had to come again included.
    pub p50_ms: u64,
    pub p99_ms: u64,
    pub worst_ms: u64,
    /// How often somebody was told to come again, or lost its connection.
    pub tried_again: usize,
}

/// What the workers share.
struct Doing {
    plan: EnrolPlan,
    config: ClientConfig,
    joiners: Vec<Joiner>,
    next: AtomicUsize,
    tried_again: AtomicUsize,
    /// The number of each, what it was given, and how long that took.
    done: Mutex<Vec<(usize, Joined, u64)>>,
}

/// Each joins once; any refusal that is not for now alone ends it all. The fleet is those that joined, in the order
/// of their names; the collector's own key stays with the collector.
pub async fn enrol(plan: &EnrolPlan) -> Result<(Enrolled, Fleet)> {
    let joiners = (0..plan.agents).map(|_| Joiner::new()).collect::<Result<Vec<_>, _>>()?;
    let endpoints = (0..plan.sockets.max(1))
        .map(|_| Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))
        .collect::<Result<Vec<_>, _>>()
        .context("a socket for the agents")?;
    let doing = Arc::new(Doing {
        plan: plan.clone(),
        config: client_config(plan.token.pin),
        joiners,
        next: AtomicUsize::new(0),
        tried_again: AtomicUsize::new(0),
        done: Mutex::new(Vec::with_capacity(plan.agents)),
    });
    let began = Instant::now();
    let workers: Vec<_> = (0..plan.at_once.clamp(1, plan.agents.max(1)))
        .map(|worker| tokio::spawn(work(Arc::clone(&doing), endpoints[worker % endpoints.len()].clone())))
        .collect();
    for worker in workers {
        worker.await??;
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut done = std::mem::take(&mut *doing.done.lock().unwrap_or_else(PoisonError::into_inner));
    done.sort_unstable_by_key(|(at, ..)| *at);
    let mut took_ms: Vec<u64> = done.iter().map(|(.., ms)| *ms).collect();
    took_ms.sort_unstable();
    let quantile = |per_mille: usize| took_ms.get(took_ms.len() * per_mille / 1_000).copied().unwrap_or(0);
    let enrolled = Enrolled {
        agents: took_ms.len(),
        seconds,
        per_second: f64::from(u32::try_from(took_ms.len()).unwrap_or(u32::MAX)) / seconds.max(f64::EPSILON),
        p50_ms: quantile(500),
        p99_ms: quantile(990),
        worst_ms: took_ms.last().copied().unwrap_or(0),
        tried_again: doing.tried_again.load(Relaxed),
    };
    Ok((enrolled, fleet(&doing.joiners, done)?))
}

async fn work(doing: Arc<Doing>, endpoint: Endpoint) -> Result<()> {
    loop {
        let at = doing.next.fetch_add(1, Relaxed);
        let Some(joiner) = doing.joiners.get(at) else { return Ok(()) };
        let started = Instant::now();
        let (joined, again) = one(&doing.plan, joiner, &endpoint, &doing.config, &format!("fleet-{at}")).await?;
        doing.tried_again.fetch_add(again, Relaxed);
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        doing.done.lock().unwrap_or_else(PoisonError::into_inner).push((at, joined, ms));
    }
}

fn fleet(joiners: &[Joiner], done: Vec<(usize, Joined, u64)>) -> Result<Fleet> {
    let mut ca_der = Vec::new();
    let mut nodes = Vec::with_capacity(done.len());
    for (at, joined, _) in done {
        let Joined { node, chain, authorities, .. } = joined;
        let (Some(cert_der), Some(ca)) = (chain.into_iter().next(), authorities.into_iter().next()) else {
            bail!("node {node} was given no certificate or no authority");
        };
        nodes.push(NodeIdentity { id: node, cert_der, key_der: joiners[at].private_key() });
        ca_der = ca;
    }
    Ok(Fleet { ca_der, collector: Identity { cert_der: Vec::new(), key_der: Vec::new() }, nodes })
}

/// What it was given, and how often it had to come again.
async fn one(
    plan: &EnrolPlan,
    joiner: &Joiner,
    endpoint: &Endpoint,
    config: &ClientConfig,
    name: &str,
) -> Result<(Joined, usize)> {
    let until = Instant::now() + PATIENCE;
    let mut again = 0;
    while Instant::now() < until {
        let answer = joiner.join(endpoint, config.clone(), plan.collector, Some(&plan.token), name).await;
        let pause_ms = match answer {
            Ok(JoinAnswer::Joined(joined)) => return Ok((joined, again)),
            Ok(JoinAnswer::Refused(JoinRefusal { reason: JoinReason::NotNow, retry_after_ms })) => retry_after_ms,
            Ok(JoinAnswer::Refused(JoinRefusal { reason, .. })) => bail!("{name} is refused: {}", reason.as_str()),
            // A collector with much to do turns connections away; an agent comes again.
            Err(JoinError::Connection(_) | JoinError::Write(_) | JoinError::Read(_) | JoinError::CutOff) => AGAIN_MS,
            Err(error) => return Err(error.into()),
        };
        again += 1;
        tokio::time::sleep(Duration::from_millis(pause_ms.into())).await;
    }
    bail!("{name} could not join within {PATIENCE:?}")
}
