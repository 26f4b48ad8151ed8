//! Wires the collector together: lock, recovery, threads, listeners, signals, and the way down.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use dunlin_shared::config::{Key, Refused};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::api::{self, AdminSocket, HttpCertificate, Published};
use crate::clock::Clock;
use crate::config::{CollectorConfig, DEFAULT_FILE, ENV_CONFIG, Http};
use crate::health::Health;
use crate::orders::Orders;
use crate::pipeline::{Input, Outlets};
use crate::recover::{Recovered, recover, started};
use crate::stats::Stats;
use crate::store::{StateLock, StoreError};
use crate::uplink::driver::Driver;
use crate::uplink::shared::Shared;
use crate::uplink::{listener, tls};
use crate::writer::{Arrival, LOGGED_QUEUE, QUEUE, Writer};

/// The log's clock: how often deadlines are looked at.
const TICK_MS: u64 = 1_000;
/// A tick that comes so much later than it should says that the collector itself stood still.
const PAUSE_MS: u64 = 500;

/// Reads the file that the flag, the environment or the default names. Only the default may be missing.
pub fn load_config(file: Option<OsString>, flags: &[(&'static Key, OsString)]) -> Result<CollectorConfig, Refused> {
    let env: Vec<_> = std::env::vars_os().collect();
    let named = file.or_else(|| std::env::var_os(ENV_CONFIG));
    let path = named.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let name = path.to_string_lossy().into_owned();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Refused { lines: vec![format!("{name}: cannot be read: {error}")] }),
    };
    CollectorConfig::load(bytes.as_deref().map(|bytes| (name.as_str(), bytes)), &env, flags)
}

/// Runs until a signal asks it to stop, or until a disk can no longer be trusted.
pub async fn run(config: CollectorConfig) -> Result<()> {
    let clock = Clock::start();
    let (health, stats) = (Arc::<Health>::default(), Arc::<Stats>::default());
    let _lock = StateLock::take(&config.state_dir)?;
    let tls = tls::server_config(&config.state_dir)?;
    let keys = tls::endpoint_keys(&config.state_dir)?;
    let http = TcpListener::bind(config.http_listen)
        .await
        .with_context(|| format!("http_listen: {} cannot be bound", config.http_listen))?;
    let Recovered { mut log, mut ingest, pipeline, incarnation } =
        recover(&config.state_dir, (Arc::clone(&health), Arc::clone(&stats), clock))?;

    let now = clock.wall();
    if log.due(now) {
        log.rotate(now, &ingest.snapshot())?;
        ingest.rotated();
    }
    log.begin()?;
    let pos = log.append(&started(now))?;
    log.commit()?;
    health.stored();

    let (arrivals, queue) = mpsc::channel(QUEUE);
    let (logged, logged_queue) = mpsc::channel(LOGGED_QUEUE);
    let about = (config.state_dir.clone(), incarnation);
    let published = published(pipeline.outlets(), &logged, about, (Arc::clone(&health), Arc::clone(&stats), clock));
    let first = crate::writer::Logged { pos: Some(pos), record: started(now), reading: None };
    logged.try_send(Input::Logged(vec![first])).map_err(|_| anyhow!("a new queue has room"))?;
    let writer = Writer::new(log, ingest, config.retention, logged, (Arc::clone(&health), Arc::clone(&stats), clock));
    let (mut failed, threads) = start_threads(
        ("log", Box::new(move || writer.run(queue))),
        ("pipeline", Box::new(move || pipeline.run(logged_queue))),
    )?;

    let listener = listener::bind(config.quic_listen, tls, &keys)
        .with_context(|| format!("quic_listen: {} cannot be bound", config.quic_listen))?;
    let (drain, draining) = watch::channel(false);
    let ticker = tokio::spawn(tick(clock, arrivals.clone()));
    let mut serving = tokio::spawn(Driver::new(listener, Shared::new(clock, stats, arrivals)).run(draining));
    let http_tls = http_tls(&config.http, config.http_listen)?;
    let serving_http = serve_http(http, http_tls, published).await?;
    health.serve();
    info!(quic = %config.quic_listen, http = %config.http_listen, version = env!("CARGO_PKG_VERSION"), "ready");

    let failure = tokio::select! {
        () = wait_for_signal() => None,
        failure = &mut failed => Some(failure.unwrap_or_else(|_| anyhow!("a thread ended without a word"))),
        served = &mut serving => Some(served.map_or_else(anyhow::Error::from, listener_failed)),
    };
    health.drain();
    info!("stopping");
    drain.send_replace(true);
    if failure.is_none() {
        (&mut serving).await.context("the listener failed")?.context("the listener failed")?;
    }
    ticker.abort();
    serving.abort();
    if let Some(failure) = failure {
        return Err(failure);
    }
    for thread in threads {
        tokio::task::spawn_blocking(move || thread.join()).await?.map_err(|_| anyhow!("a thread panicked"))?;
    }
    drop(serving_http);
    info!("stopped");
    Ok(())
}

fn published(
    outlets: &Outlets,
    logged: &mpsc::Sender<Input>,
    (state_dir, incarnation): (PathBuf, u64),
    (health, stats, clock): (Arc<Health>, Arc<Stats>, Clock),
) -> Published {
    Published {
        clock,
        health,
        stats,
        fleet: Arc::clone(&outlets.view),
        access: Arc::clone(&outlets.access),
        orders: Orders::new(logged),
        newest_event: outlets.newest_event.subscribe(),
        incarnation,
        pin: Arc::default(),
        state_dir,
    }
}

/// The socket of the admin goes with the value that comes back.
async fn serve_http(http: TcpListener, tls: Option<Arc<ServerConfig>>, published: Published) -> Result<AdminSocket> {
    let (orders, state_dir) = (published.orders.clone(), published.state_dir.clone());
    let mut admin = AdminSocket::bind(&state_dir)?;
    let listener = api::Listener::new(api::router(published));
    if let Some(socket) = admin.take() {
        tokio::spawn(listener.clone().serve_admin(socket));
    }
    tokio::spawn(listener.serve(http, tls));
    // Without it the admin socket is still a way in.
    if let Err(error) = api::first_token(&orders, &state_dir).await {
        warn!("{:#}", anyhow::Error::from(error));
    }
    Ok(admin)
}

fn http_tls(http: &Http, listen: SocketAddr) -> Result<Option<Arc<ServerConfig>>> {
    let certificate = match http {
        Http::Loopback => return Ok(None),
        Http::Insecure => {
            warn!(%listen, "HTTP is plain (insecure_http): whoever is on the way reads tokens along");
            return Ok(None);
        }
        Http::Given { cert, key } => HttpCertificate::from_files(cert, key)?,
        Http::Own { .. } => {
            return Err(anyhow!(
                "tls.names: the collector's own authority certifies no names yet; give tls.cert and tls.key"
            ));
        }
    };
    Ok(Some(certificate.server_config()?))
}

fn listener_failed(served: std::io::Result<()>) -> anyhow::Error {
    match served {
        Ok(()) => anyhow!("the listener ended without a word"),
        Err(error) => anyhow::Error::from(error).context("the listener failed"),
    }
}

type Work = (&'static str, Box<dyn FnOnce() -> Result<(), StoreError> + Send>);

/// The receiver hears of the first thread that failed.
fn start_threads(writer: Work, pipeline: Work) -> Result<(oneshot::Receiver<anyhow::Error>, Vec<JoinHandle<()>>)> {
    let (fail, failed) = oneshot::channel();
    let fail = Arc::new(std::sync::Mutex::new(Some(fail)));
    let mut threads = Vec::new();
    for (name, work) in [writer, pipeline] {
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

async fn tick(clock: Clock, arrivals: mpsc::Sender<Arrival>) {
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
