//! Wires the agent together: configuration, state directory, epoch, spool, sampler, enrolment, uplink, signals.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use dunlin_shared::backoff::Backoff;
use dunlin_shared::config::{Key, Refused};
use dunlin_shared::id::NodeId;
use dunlin_shared::inventory::{Facts, Inventory};
use dunlin_shared::repeat::Repeats;
use dunlin_shared::session::agent::Profile;
use dunlin_shared::time::{MonoMs, WallMs};
use dunlin_shared::wire::StopReason;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{self, Collect, Config, DEFAULT_FILE, ENV_CONFIG, Places};
use crate::enrol::Enrolment;
use crate::enrol::token::TokenSources;
use crate::line::Line;
use crate::notify::{self, Systemd};
use crate::reload::{TakenOver, take_over};
use crate::resolve::{Resolver, system_entropy};
use crate::sample::Sampler;
use crate::sample::facts::{Watch, facts};
use crate::sight::keep::Keeper;
use crate::sight::{Kind, Seeing, State};
use crate::spool::Spool;
use crate::state::StateLock;
use crate::stats::Stats;
use crate::uplink::connect::{Connector, OwnEndpoints, Sockets};
use crate::uplink::{Change, Hooks, Options, Tick, Uplink, log_notes};
use crate::watchdog::{self, Pulse};
use crate::{epoch, goodbyes};

/// Where a configuration came from, so that it can be read again.
#[derive(Debug)]
pub struct Origin {
    pub file: Option<OsString>,
    pub flags: Vec<(&'static Key, OsString)>,
}

/// The longest wait for a token while nothing else may be done.
const SETTLE_MS: (u64, u64) = (1_000, 60_000);
/// Changes that nobody took yet: one is under way while the next is read.
const CHANGES_MAX: usize = 1;

/// Reads the file that the flag, the environment or the default names. Only the default may be missing.
pub fn load_config(file: Option<OsString>, flags: &[(&'static Key, OsString)]) -> Result<Config, Refused> {
    let (name, bytes, env) = read_config(file)?;
    Config::load(bytes.as_deref().map(|bytes| (name.as_str(), bytes)), &env, flags)
}

/// The same, for what needs no collector.
pub fn load_places(file: Option<OsString>, flags: &[(&'static Key, OsString)]) -> Result<Places, Refused> {
    let (name, bytes, env) = read_config(file)?;
    Places::load(bytes.as_deref().map(|bytes| (name.as_str(), bytes)), &env, flags)
}

/// The same, for a sample that goes nowhere.
pub fn load_collect(file: Option<OsString>, flags: &[(&'static Key, OsString)]) -> Result<Collect, Refused> {
    let (name, bytes, env) = read_config(file)?;
    Collect::load(bytes.as_deref().map(|bytes| (name.as_str(), bytes)), &env, flags)
}

/// The configuration as it may be shown to strangers.
pub fn load_shown(file: Option<OsString>, flags: &[(&'static Key, OsString)]) -> Result<String, Refused> {
    let (name, bytes, env) = read_config(file)?;
    config::shown(bytes.as_deref().map(|bytes| (name.as_str(), bytes)), &env, flags)
}

/// Runs until a signal asks it to stop.
pub async fn run(config: Config, origin: Origin) -> Result<()> {
    let clock = Clock::start();
    let _lock = StateLock::take(&config.state_dir)?;
    let (stop, mut stopped) = oneshot::channel();
    // All are heard from here on: one that comes while the start is busy waits for its end.
    let heard = |kind, what| signal(kind).with_context(|| format!("the signal to {what}"));
    let ends = (heard(SignalKind::terminate(), "stop")?, heard(SignalKind::interrupt(), "stop")?);
    let mut hangup = heard(SignalKind::hangup(), "read the configuration again")?;
    tokio::spawn(wait_for_signal(ends, stop));
    let pulse = watched()?;
    let mut enrolment = Enrolment::new(&config.state_dir, Path::new("/"), tokens_of(&config));
    let settled = settle(&mut enrolment, config, &origin, &mut hangup, &clock);
    let settled = tokio::select! {
        biased;
        _ = &mut stopped => None,
        settled = settled => Some(settled),
        () = pulse.beating() => None,
    };
    let Some(config) = settled else { return Ok(()) };

    let facts = described(&config);
    let (epoch, line) = open_line(&config, &facts, &clock)?;
    info!(epoch, version = env!("CARGO_PKG_VERSION"), "started");
    let sockets = Sockets::Own(OwnEndpoints::default());
    let connector = Connector::without_identity(Resolver::new("/", system_entropy), sockets);
    let options = Options {
        follows_host_name: config.name.is_none(),
        turn_ms: Some(pulse.every_ms),
        ..Options::new(config.collectors.clone(), config.interval_ms)
    };
    let root = Path::new("/");
    let stats = Arc::new(Stats::default());
    // A frame that the spool cannot hold drives all others out of it, and is lost itself.
    let sampler = Sampler::new(root, clock, Arc::clone(&stats)).within(config.spool_ram_bytes / 2);
    let (mut sampler, mut failures) = (sampler.collecting(config.collect.clone()).following(), Repeats::default());
    let mut keeper = Keeper::new(&config.state_dir);
    let mut watch = Watch::new(root, clock.mono());
    let stands = Arc::new(Mutex::new(None));
    let stood = Arc::clone(&stands);
    let hooks = Hooks {
        tick: Box::new(move |now, wall| {
            let stands = stood.lock().unwrap_or_else(PoisonError::into_inner).clone();
            tick(&mut sampler, &mut keeper, (now, wall), stands, &mut failures)
        }),
        facts: Box::new(move |now| watch.look(now)),
        acknowledged: Box::new(|_| {}),
        standing: Box::new(move |how| *stands.lock().unwrap_or_else(PoisonError::into_inner) = Some(stood_as(how))),
        alive: Box::new(move |line| {
            pulse.beat();
            stats.note(line);
        }),
    };
    let state_dir = config.state_dir.clone();
    let (changes, changed) = mpsc::channel(CHANGES_MAX);
    tokio::spawn(reload_on_hangup(config, origin, hangup, changes));
    let uplink = Uplink::new(line, connector, options, hooks, clock).enrolling(enrolment, facts).changing(changed);
    let line = uplink.run(stopped).await;
    close_line(line, &state_dir)?;
    info!("stopped");
    Ok(())
}

fn read_config(file: Option<OsString>) -> Result<ReadConfig, Refused> {
    let env: Vec<_> = std::env::vars_os().collect();
    let named = file.or_else(|| std::env::var_os(ENV_CONFIG));
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let name = path.to_string_lossy().into_owned();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Refused { lines: vec![format!("{name}: cannot be read: {error}")] }),
    };
    Ok((name, bytes, env))
}

/// Name and bytes of the file, and the environment.
type ReadConfig = (String, Option<Vec<u8>>, Vec<(OsString, OsString)>);

/// From now on the loop is watched. It has started, though it may wait for a person: systemd does not wait with it.
fn watched() -> Result<Pulse> {
    let (systemd, pulse) = (Systemd::of_process(), Pulse::new(notify::patience_ms()));
    systemd.iter().for_each(Systemd::is_ready);
    watchdog::watch(&pulse, systemd).context("the watchdog's thread")?;
    Ok(pulse)
}

/// Waits until the state directory is this machine's own, and gives the configuration as it is then.
async fn settle(
    enrolment: &mut Enrolment,
    mut config: Config,
    origin: &Origin,
    hangup: &mut Signal,
    clock: &Clock,
) -> Config {
    let mut pause = Backoff::new(SETTLE_MS.0, SETTLE_MS.1);
    let mut failures = Repeats::default();
    while let Err(complaint) = enrolment.settle() {
        if let Some(times) = failures.note(&complaint) {
            warn!(times, "nothing is sent: {complaint}");
        }
        notify::stands(&format!("nothing is sent: {complaint}"));
        let again = clock.mono().plus(pause.next_ms(clock.random()));
        tokio::select! {
            _ = hangup.recv() => {
                if let Some(taken) = reload(&config, origin) {
                    config = taken;
                    enrolment.look_for_tokens_in(tokens_of(&config));
                }
            }
            () = tokio::time::sleep_until(clock.instant(again)) => {}
        }
    }
    config
}

async fn reload_on_hangup(mut config: Config, origin: Origin, mut hangup: Signal, changes: mpsc::Sender<Change>) {
    while hangup.recv().await.is_some() {
        let Some(taken) = reload(&config, &origin) else { continue };
        let facts = described(&taken);
        let change = Change {
            collectors: taken.collectors.clone(),
            name: name_of(&taken, &facts),
            follows_host_name: taken.name.is_none(),
            interval_ms: taken.interval_ms,
            tokens: tokens_of(&taken),
            labels: taken.labels.clone(),
        };
        config = taken;
        if changes.send(change).await.is_err() {
            return;
        }
    }
}

/// The configuration as it is from now on; `None` when the old one stays.
fn reload(running: &Config, origin: &Origin) -> Option<Config> {
    match load_config(origin.file.clone(), &origin.flags) {
        Ok(read) => {
            let TakenOver { config, waiting } = take_over(running, read);
            if waiting.is_empty() {
                info!("the configuration was read again");
            } else {
                warn!("the configuration was read again; these keys wait for the next start: {}", waiting.join(", "));
            }
            Some(config)
        }
        Err(refused) => {
            for line in refused.lines {
                warn!("the configuration stays as it was: {line}");
            }
            None
        }
    }
}

fn tokens_of(config: &Config) -> TokenSources {
    TokenSources::of_process(config.join_token_file.clone())
}

fn described(config: &Config) -> Facts {
    Facts { labels: config.labels.clone(), ..facts(Path::new("/")) }
}

fn name_of(config: &Config, facts: &Facts) -> String {
    config.name.clone().unwrap_or_else(|| facts.host_name.clone())
}

fn open_line(config: &Config, facts: &Facts, clock: &Clock) -> Result<(u32, Line)> {
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
        // Nobody says Hello before the identity is there, and then it says which node this is.
        node: NodeId::from_bytes([0; 16]),
        name: name_of(config, facts),
        agent_version: facts.agent_version.clone(),
        boot_id: facts.boot_id,
        interval_ms: u32::try_from(config.interval_ms).unwrap_or(u32::MAX),
        ended,
    };
    let mut line = Line::new(profile, drawn.epoch, spool);
    line.take_inventory(clock.mono(), clock.wall(), &Inventory::Facts(facts.clone()));
    Ok((drawn.epoch.0, line))
}

/// Keeps for the next start what the collector has not confirmed.
fn close_line(mut line: Line, state_dir: &Path) -> Result<()> {
    if let Err(error) = goodbyes::save(state_dir, &line.session().unsaid()) {
        warn!("the collector will take this stop for a crash: the goodbye cannot be kept: {error}");
    }
    let left = line.session().unacknowledged().count();
    if left > 0 {
        let dir = state_dir.join("spool");
        let parked = line.spool_mut().park(&dir);
        parked.with_context(|| format!("{left} frames could not be kept in {}", dir.display()))?;
        info!(frames = left, "kept what the collector has not confirmed for the next start");
    }
    Ok(())
}

/// What failed is said once and at every power of two; what this host simply has not, once.
fn tick(
    sampler: &mut Sampler,
    keeper: &mut Keeper,
    (now, wall): (MonoMs, WallMs),
    uplink: Option<Seeing>,
    failures: &mut Repeats,
) -> Tick {
    let taken = sampler.sample(now, wall);
    let seeing = || uplink.into_iter().chain(sampler.seeing(&taken.failures)).collect();
    let kept = keeper.tick(now, wall, sampler.is_settled(), seeing);
    if let Err(error) = kept
        && let Some(times) = failures.note(&format!("sight: {error}"))
    {
        warn!(times, "what this agent sees cannot be written for `dunlin-agent check`: {error}");
    }
    for failure in taken.failures {
        let Some(times) = failures.note(&failure.error.to_string()) else { continue };
        let cause = std::error::Error::source(&failure.error).map(ToString::to_string).unwrap_or_default();
        match failure.error.is_absence() {
            false => warn!(times, cause, "{}: {}", failure.part, failure.error),
            true if times == 1 => info!("{}: {}", failure.part, failure.error),
            true => {}
        }
    }
    Tick { sample: taken.sample, stock: (!taken.is_early).then_some(taken.stock), happened: taken.happened }
}

/// The uplink's standing as `dunlin-agent check` is told it; systemd is told it in the same words.
fn stood_as(how: Result<&str, &str>) -> Seeing {
    let (state, text) = match how {
        Ok(collector) => (State::Works, format!("streaming to {collector}")),
        Err(why) => (State::Failed, why.to_owned()),
    };
    notify::stands(&if state == State::Works { text.clone() } else { format!("not connected: {text}") });
    Seeing::new(Kind::Uplink, state).says(text)
}

async fn wait_for_signal((mut term, mut int): (Signal, Signal), stop: oneshot::Sender<StopReason>) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    // The receiver is gone only when the uplink already returned.
    stop.send(StopReason::Stopped).ok();
}
