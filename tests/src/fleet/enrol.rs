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
use dunlin_shared::wire::join::{JoinAnswer, JoinReason, JoinRefusal};
use quinn::{ClientConfig, Endpoint};
use serde::Serialize;

use crate::join::{JoinError, Joiner, client_config};

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

/// Each joins once; any refusal that is not for now alone ends it all.
pub async fn enrol(plan: &EnrolPlan) -> Result<Enrolled> {
    let joiners = (0..plan.agents).map(|_| Joiner::new()).collect::<Result<Vec<_>, _>>()?;
    let endpoints = (0..plan.sockets.max(1))
        .map(|_| Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))
        .collect::<Result<Vec<_>, _>>()
        .context("a socket for the agents")?;
    let config = client_config(plan.token.pin);
    let (next, tried_again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (joiners, took_ms) = (Arc::new(joiners), Arc::new(Mutex::new(Vec::with_capacity(plan.agents))));
    let began = Instant::now();
    let workers: Vec<_> = (0..plan.at_once.clamp(1, plan.agents.max(1)))
        .map(|worker| {
            let endpoint = endpoints[worker % endpoints.len()].clone();
            let (plan, config, joiners) = (plan.clone(), config.clone(), Arc::clone(&joiners));
            let (next, tried_again, took_ms) = (Arc::clone(&next), Arc::clone(&tried_again), Arc::clone(&took_ms));
            tokio::spawn(async move {
                loop {
                    let at = next.fetch_add(1, Relaxed);
                    let Some(joiner) = joiners.get(at) else { return Ok::<_, anyhow::Error>(()) };
                    let started = Instant::now();
                    let again = one(&plan, joiner, &endpoint, &config, &format!("fleet-{at}")).await?;
                    tried_again.fetch_add(again, Relaxed);
                    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                    took_ms.lock().unwrap_or_else(PoisonError::into_inner).push(ms);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    let seconds = began.elapsed().as_secs_f64();
    let mut took_ms = std::mem::take(&mut *took_ms.lock().unwrap_or_else(PoisonError::into_inner));
    took_ms.sort_unstable();
    let quantile = |per_mille: usize| took_ms.get(took_ms.len() * per_mille / 1_000).copied().unwrap_or(0);
    Ok(Enrolled {
        agents: took_ms.len(),
        seconds,
        per_second: f64::from(u32::try_from(took_ms.len()).unwrap_or(u32::MAX)) / seconds.max(f64::EPSILON),
        p50_ms: quantile(500),
        p99_ms: quantile(990),
        worst_ms: took_ms.last().copied().unwrap_or(0),
        tried_again: tried_again.load(Relaxed),
    })
}

/// How often it had to come again.
async fn one(
    plan: &EnrolPlan,
    joiner: &Joiner,
    endpoint: &Endpoint,
    config: &ClientConfig,
    name: &str,
) -> Result<usize> {
    let until = Instant::now() + PATIENCE;
    let mut again = 0;
    while Instant::now() < until {
        let answer = joiner.join(endpoint, config.clone(), plan.collector, Some(&plan.token), name).await;
        let pause_ms = match answer {
            Ok(JoinAnswer::Joined(_)) => return Ok(again),
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
