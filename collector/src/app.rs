//! Wires the collector together: lock, recovery, threads, listeners, signals, and the way down.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use arc_swap::ArcSwap;
use dunlin_shared::time::WallMs;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::api::Published;
use crate::authority::Authority;
use crate::clock::Clock;
use crate::config::CollectorConfig;
use crate::health::Health;
use crate::ingest::Ingest;
use crate::notify::Systemd;
use crate::orders::Orders;
use crate::pipeline::Input;
use crate::recover::{Recovered, recover, started};
use crate::rules::RuleBook;
use crate::stats::Stats;
use crate::store::{Log, StateLock, StoreError};
use crate::tuning::{Origin, Tuned, reload_on_hangup};
use crate::uplink::driver::Driver;
use crate::uplink::shared::{Keepers, Shared};
use crate::uplink::{keys, listener, tls};
use crate::web;
use crate::window::{Keeper, Word};
use crate::writer::{Arrival, LOGGED_QUEUE, Logged, QUEUE, Writer};

/// The log's clock: how often deadlines are looked at.
const TICK_MS: u64 = 1_000;
/// A tick that comes so much later than it should says that the collector itself stood still.
const PAUSE_MS: u64 = 500;

/// How often the collector's own certificate is looked at. It has a month left when it is made anew.
const CERTIFICATE_MS: u64 = 3_600_000;

/// Runs until a signal asks it to stop, or until a disk can no longer be trusted.
pub async fn run(config: CollectorConfig, origin: Origin, files: RuleBook) -> Result<()> {
    let hangup = signal(SignalKind::hangup()).context("the signal to read the configuration again")?;
    let tuned: Tuned = Arc::new(ArcSwap::from_pointee(config.tuning));
    let clock = Clock::start();
    let (health, stats) = (Arc::<Health>::default(), Arc::<Stats>::default());
    let own = || (Arc::clone(&health), Arc::clone(&stats), clock);
    let _lock = StateLock::take(&config.state_dir)?;
    let authority = Arc::new(Authority::open(&config.state_dir, clock.wall())?);
    let tls = tls::server_config(&authority)?;
    let keys = keys::endpoint_keys(&config.state_dir)?;
    let http = bind_http(&config).await?;
    let Recovered { mut log, mut ingest, pipeline, past, incarnation } = recover(&config.state_dir, &files, own())?;
    let listener = listener::bind(config.quic_listen, tls, &keys)
        .with_context(|| format!("quic_listen: {} cannot be bound", config.quic_listen))?;

    let first = begin_log(&mut log, &mut ingest, clock.wall())?;
    health.stored();

    let (arrivals, queue) = mpsc::channel(QUEUE);
    let (logged, logged_queue) = mpsc::channel(LOGGED_QUEUE);
    let published = web::published(pipeline.outlets(), Orders::new(&logged), own());
    let (state_dir, authority_shown) = (config.state_dir.clone(), Some(Arc::clone(&authority)));
    let published = Published { incarnation, state_dir, authority: authority_shown, ..published };
    let (gate, orders) = (Arc::clone(&pipeline.outlets().gate), Orders::new(&logged));
    logged.try_send(Input::Logged(vec![first])).map_err(|_| anyhow!("a new queue has room"))?;
    let (keeper, wakes) = std::sync::mpsc::sync_channel(1);
    let (word, rules) = (Arc::clone(&published.window), published.rules.clone());
    let pipeline = pipeline.tuned_by(Arc::clone(&tuned)).awaiting(past.as_ref());
    let window = Keeper::new(&config.state_dir, Arc::clone(&tuned), (&logged, &word), own()).telling(past);
    let writer = Writer::new(log, ingest, (logged, keeper), own());
    let (mut failed, threads) = start_threads([
        ("log", Box::new(move || writer.run(queue))),
        ("pipeline", Box::new(move || pipeline.run(logged_queue))),
        ("window", Box::new(move || window.run(&wakes))),
    ])?;

    let (drain, draining) = watch::channel(false);
    let systemd = Arc::new(Systemd::of_process());
    let ticker = tokio::spawn(tick(clock, arrivals.clone(), Arc::clone(&systemd)));
    tokio::spawn(keep_certificate(clock, Arc::clone(&authority)));
    let shown = web::tls(&config, &authority, clock)?;
    let shared =
        Shared::new(clock, Arc::clone(&stats), arrivals, Keepers { authority: Arc::clone(&authority), gate, orders });
    let mut serving = tokio::spawn(Driver::new(listener, shared).run(draining));
    let serving_http = web::serve(http, shown.as_ref(), published).await?;
    tokio::spawn(reload_on_hangup(hangup, origin, config.clone(), (tuned, shown), rules));
    health.serve();
    say_ready(&config, &systemd);

    let failure = tokio::select! {
        () = wait_for_signal() => None,
        failure = &mut failed => Some(failure.unwrap_or_else(|_| anyhow!("a thread ended without a word"))),
        served = &mut serving => Some(served.map_or_else(anyhow::Error::from, listener_failed)),
    };
    begin_to_stop(&health, &word, &drain);
    if failure.is_none() {
        (&mut serving).await.context("the listener failed")?.context("the listener failed")?;
    }
    ticker.abort();
    serving.abort();
    if let Some(failure) = failure {
        return Err(failure);
    }
    join(threads).await?;
    drop(serving_http);
    info!("stopped");
    Ok(())
}

async fn bind_http(config: &CollectorConfig) -> Result<TcpListener> {
    let bound = TcpListener::bind(config.http_listen).await;
    bound.with_context(|| format!("http_listen: {} cannot be bound", config.http_listen))
}

fn say_ready(config: &CollectorConfig, systemd: &Systemd) {
    systemd.is_ready(&format!("agents come in at {}, people at {}", config.quic_listen, config.http_listen));
    info!(quic = %config.quic_listen, http = %config.http_listen, version = env!("CARGO_PKG_VERSION"), "ready");
}

/// The first record of this run.
fn begin_log(log: &mut Log, ingest: &mut Ingest, now: WallMs) -> Result<Logged> {
    if log.due(now) {
        log.rotate(now, &ingest.snapshot())?;
        ingest.rotated();
    }
    log.begin()?;
    let record = started(now);
    let pos = log.append(&record)?;
    log.commit()?;
    Ok(Logged { pos: Some(pos), record, reading: None })
}

fn begin_to_stop(health: &Health, word: &Word, drain: &watch::Sender<bool>) {
    health.drain();
    word.halt();
    info!("stopping");
    drain.send_replace(true);
}

fn listener_failed(served: std::io::Result<()>) -> anyhow::Error {
    match served {
        Ok(()) => anyhow!("the listener ended without a word"),
        Err(error) => anyhow::Error::from(error).context("the listener failed"),
    }
}

type Work = (&'static str, Box<dyn FnOnce() -> Result<(), StoreError> + Send>);

/// The receiver hears of the first thread that failed.
fn start_threads(all: [Work; 3]) -> Result<(oneshot::Receiver<anyhow::Error>, Vec<JoinHandle<()>>)> {
    let (fail, failed) = oneshot::channel();
    let fail = Arc::new(std::sync::Mutex::new(Some(fail)));
    let mut threads = Vec::new();
    for (name, work) in all {
        let fail = Arc::clone(&fail);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(error) = work()
                && let Some(fail) = fail.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
            {
                // Nobody listens any more only when the collector already stops.
                fail.send(anyhow::Error::from(error).context(format!("the {name} thread cannot go on"))).ok();
            }
        })?;
        threads.push(thread);
    }
    Ok((failed, threads))
}

async fn join(threads: Vec<JoinHandle<()>>) -> Result<()> {
    for thread in threads {
        tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow!("a thread panicked"))?;
    }
    Ok(())
}

/// Systemd hears of a tick once the log's thread has room for it: a log that hangs for minutes is silence.
async fn tick(clock: Clock, arrivals: mpsc::Sender<Arrival>, systemd: Arc<Systemd>) {
    let mut interval = tokio::time::interval(Duration::from_millis(TICK_MS));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = clock.mono();
    loop {
        interval.tick().await;
        let now = clock.mono();
        let elapsed_ms = now.since(before);
        before = now;
        let late_ms = elapsed_ms.saturating_sub(TICK_MS);
        let paused_ms = if late_ms > PAUSE_MS { late_ms } else { 0 };
        if paused_ms > 0 {
            warn!(paused_ms, "the collector stood still; deadlines are extended");
        }
        if arrivals.send(Arrival::Tick { at: clock.wall(), elapsed_ms, paused_ms }).await.is_err() {
            return;
        }
        systemd.is_alive();
    }
}

/// The collector's own certificate is made anew while it runs; whoever connects then meets the new one.
async fn keep_certificate(clock: Clock, authority: Arc<Authority>) {
    if authority.pin().is_none() {
        return warn!("no node can join or be renewed here: ca.key is missing in the state directory");
    }
    let mut interval = tokio::time::interval(Duration::from_millis(CERTIFICATE_MS));
    loop {
        interval.tick().await;
        let authority = Arc::clone(&authority);
        let renewed = tokio::task::spawn_blocking(move || authority.renew_if_due(clock.wall())).await;
        match renewed {
            Ok(Ok(true)) => info!("made the collector's certificate anew"),
            Ok(Ok(false)) => {}
            Ok(Err(failed)) => warn!("the collector's certificate could not be made anew: {failed}"),
            Err(failed) => warn!("the collector's certificate could not be made anew: {failed}"),
        }
    }
}

async fn wait_for_signal() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        warn!("signals cannot be heard; the collector can only be killed");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
