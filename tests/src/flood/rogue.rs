//! A node with a good certificate and the real agent's line and uplink, of which a flood decides what is measured and how often.
//!
//! What it says of its interval is what it agreed to, whatever it does then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use dunlin_agent::clock::Clock;
use dunlin_agent::identity::Identity;
use dunlin_agent::line::Line;
use dunlin_agent::resolve::{Resolver, system_entropy};
use dunlin_agent::spool::Spool;
use dunlin_agent::uplink::connect::{Connector, Sockets};
use dunlin_agent::uplink::tls::client_config;
use dunlin_agent::uplink::{Hooks, Options, Uplink};
use dunlin_shared::id::Epoch;
use dunlin_shared::sample::Sample;
use dunlin_shared::session::agent::Profile;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::StopReason;
use tokio::sync::oneshot;

use super::ground::{Ground, endpoint};
use super::worker::Worker;
use crate::pki::NodeIdentity;

const SPOOL_BYTES: usize = 8 * 1024 * 1024;
const EPOCH: Epoch = Epoch(1);

/// What a flood decides.
pub(super) struct Conduct {
    pub(super) name: &'static str,
    pub(super) agreed_ms: u64,
    pub(super) tick_ms: u64,
    pub(super) measure: Box<dyn FnMut(MonoMs, WallMs) -> Sample + Send>,
}

#[derive(Debug, Default)]
struct Counts {
    sampled: AtomicU64,
    acknowledged: AtomicU64,
}

/// Plays it until the worker is stopped.
pub(super) fn start(ground: &Ground<'_>, node: &NodeIdentity, conduct: Conduct) -> Result<Worker> {
    let (socket, node, authority) = (ground.socket()?, node.clone(), ground.authority.clone());
    let collector = ground.target.to_string();
    Worker::start_async(conduct.name, move |end| async move {
        let counts = Arc::<Counts>::default();
        let identity =
            Identity { node: node.id, chain: vec![node.cert()], key: node.key(), authorities: vec![authority.into()] };
        let connections = endpoint(socket)?;
        let connector = Connector::new(
            Resolver::new("/", system_entropy),
            client_config(&identity)?,
            Sockets::Shared(connections.clone()),
        );
        let profile = Profile {
            node: node.id,
            name: conduct.name.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: *node.id.bytes(),
            interval_ms: u32::try_from(conduct.agreed_ms)?,
            ended: Vec::new(),
        };
        let line = Line::new(profile, EPOCH, Spool::new(SPOOL_BYTES));
        let options = Options::new(vec![collector], conduct.tick_ms);
        let (stop, stopped) = oneshot::channel();
        let uplink = Uplink::new(line, connector, options, hooks(conduct.measure, &counts), Clock::start());
        let run = tokio::spawn(uplink.run(stopped));
        end.comes().await;
        // The receiver is gone only when the agent has ended.
        stop.send(StopReason::Stopped).ok();
        run.await.context("the agent of a flood panicked")?;
        let (sampled, acknowledged) = (counts.sampled.load(Relaxed), counts.acknowledged.load(Relaxed));
        let connected = connections.stats().outgoing_handshakes;
        Ok(format!("{sampled} frames measured, {acknowledged} acknowledged, over {connected} connections"))
    })
}

fn hooks(mut measure: Box<dyn FnMut(MonoMs, WallMs) -> Sample + Send>, counts: &Arc<Counts>) -> Hooks {
    let (ticked, told) = (Arc::clone(counts), Arc::clone(counts));
    Hooks {
        tick: Box::new(move |mono, wall| {
            ticked.sampled.fetch_add(1, Relaxed);
            measure(mono, wall).into()
        }),
        facts: Box::new(|_| None),
        acknowledged: Box::new(move |range| {
            told.acknowledged.fetch_add(range.range.count(), Relaxed);
        }),
        standing: Box::new(|_| {}),
        alive: Box::new(|_| {}),
    }
}
