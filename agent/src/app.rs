//! Wires the agent together: configuration, identity, epoch, spool, sampler, uplink, signals.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use dunlin_shared::config::{Key, Refused};
use dunlin_shared::inventory::{Facts, Inventory};
use dunlin_shared::repeat::Repeats;
use dunlin_shared::sample::Sample;
use dunlin_shared::session::agent::Profile;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::StopReason;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{Config, DEFAULT_FILE, ENV_CONFIG};
use crate::identity::Identity;
use crate::line::Line;
use crate::resolve::{Resolver, system_entropy};
use crate::sample::Sampler;
use crate::sample::facts::{Watch, facts};
use crate::spool::Spool;
use crate::stats::Stats;
use crate::uplink::connect::{Connector, OwnEndpoints, Sockets};
use crate::uplink::tls::client_config;
use crate::uplink::{Hooks, Options, Uplink, log_notes};
use crate::{epoch, goodbyes};

/// Reads the file that the flag, the environment or the default names. Only the default may be missing.
pub fn load_config(file: Option<OsString>, flags: &[(&'static Key, OsString)]) -> Result<Config, Refused> {
    let env: Vec<_> = std::env::vars_os().collect();
    let named = file.or_else(|| std::env::var_os(ENV_CONFIG));
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let name = path.to_string_lossy().into_owned();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Refused { lines: vec![format!("{name}: cannot be read: {error}")] }),
    };
    Config::load(bytes.as_deref().map(|bytes| (name.as_str(), bytes)), &env, flags)
}

/// Runs until a signal asks it to stop.
pub async fn run(config: Config) -> Result<()> {
    let clock = Clock::start();
    let identity = Identity::load(&config.state_dir)?;
    let tls = client_config(&identity)?;
    let root = Path::new("/");
    let facts = facts(root);
    let mut watch = Watch::new(root, facts.clone(), clock.mono());
    let (epoch, line) = open_line(&config, &identity, facts, &clock)?;
    info!(node = %identity.node, epoch, version = env!("CARGO_PKG_VERSION"), "started");

    let connector = Connector::new(Resolver::new("/", system_entropy), tls, Sockets::Own(OwnEndpoints::default()));
    let options = Options::new(config.collectors.clone(), config.interval_ms);
    let stats = Arc::new(Stats::default());
    let (mut sampler, mut failures) = (Sampler::new(root, clock, Arc::clone(&stats)), Repeats::default());
    let hooks = Hooks {
        sample: Box::new(move |now, wall| sample(&mut sampler, now, wall, &mut failures)),
        inventory: Box::new(move |now| watch.changed(now).map(Inventory::Facts)),
        acknowledged: Box::new(|_| {}),
        alive: Box::new(move |line| stats.note(line)),
    };
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(wait_for_signal(stop));
    let mut line = Uplink::new(line, connector, options, hooks, clock).run(stopped).await;
    if let Err(error) = goodbyes::save(&config.state_dir, &line.session().unsaid()) {
        warn!("the collector will take this stop for a crash: the goodbye cannot be kept: {error}");
    }
    let left = line.session().unacknowledged().count();
    if left > 0 {
        let dir = config.state_dir.join("spool");
        let parked = line.spool_mut().park(&dir);
        parked.with_context(|| format!("{left} frames could not be kept in {}", dir.display()))?;
        info!(frames = left, "kept what the collector has not confirmed for the next start");
    }
    info!("stopped");
    Ok(())
}

fn open_line(config: &Config, identity: &Identity, facts: Facts, clock: &Clock) -> Result<(u32, Line)> {
    let state_dir = &config.state_dir;
    let disk_bytes = Some(config.spool_disk_bytes).filter(|&bytes| bytes > 0);
    let (mut spool, recovered) = Spool::open(&state_dir.join("spool"), config.spool_ram_bytes, disk_bytes);
    log_notes(&mut spool);
    if recovered.frames > 0 {
        info!(frames = recovered.frames, "frames of earlier runs wait for the collector");
    }
    let drawn = epoch::raise(state_dir, recovered.epoch_max, clock.wall()).with_context(|| {
        format!("no epoch can be drawn; the agent must be able to write to {}", state_dir.display())
    })?;
    if let Some(file) = &drawn.set_aside {
        warn!(file = %file.display(), "the epoch's file was damaged; it is set aside and a later epoch is drawn");
    }
    let ended = goodbyes::load(state_dir).into_iter().filter(|goodbye| goodbye.epoch < drawn.epoch).collect();
    let profile = Profile {
        node: identity.node,
        name: config.name.clone().unwrap_or_else(|| facts.host_name.clone()),
        agent_version: facts.agent_version.clone(),
        boot_id: facts.boot_id,
        interval_ms: u32::try_from(config.interval_ms).unwrap_or(u32::MAX),
        ended,
    };
    let mut line = Line::new(profile, drawn.epoch, spool);
    line.take_inventory(clock.mono(), clock.wall(), &Inventory::Facts(facts));
    Ok((drawn.epoch.0, line))
}

/// What failed is said once and at every power of two; what this host simply has not, once.
fn sample(sampler: &mut Sampler, now: MonoMs, wall: WallMs, failures: &mut Repeats) -> Sample {
    let taken = sampler.sample(now, wall);
    for failure in taken.failures {
        let Some(times) = failures.note(&failure.error.to_string()) else { continue };
        let cause = std::error::Error::source(&failure.error).map(ToString::to_string).unwrap_or_default();
        match failure.error.is_absence() {
            false => warn!(times, cause, "{}: {}", failure.part, failure.error),
            true if times == 1 => info!("{}: {}", failure.part, failure.error),
            true => {}
        }
    }
    taken.sample
}

async fn wait_for_signal(stop: oneshot::Sender<StopReason>) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        warn!("signals cannot be heard; the agent can only be killed");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    // The receiver is gone only when the uplink already returned.
    stop.send(StopReason::Stopped).ok();
}
