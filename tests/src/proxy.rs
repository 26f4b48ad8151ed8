//! A UDP proxy between agents and a collector, with weather. Each client has its own socket towards the
//! collector, as behind a NAT, and its own flow each way, so that its fates do not depend on other clients.
//!
//! It addresses loopback and the rig's namespaces alone; inside one, run it on a runtime that was made there.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use thiserror::Error;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::scratch::is_test_address;
use crate::weather::{Counts, Flow, Weather};

/// Larger than any packet that QUIC sends over Ethernet; what fills it whole is dropped.
const DATAGRAM_BYTES_MAX: usize = 2_048;

/// Datagrams of one client that wait for its task, a burst and more.
const CLIENT_QUEUE_LEN: usize = 256;

/// Ten thousand agents and room for those that came back from another port.
const CLIENTS_MAX: usize = 20_000;

#[derive(Debug, Error)]
pub enum ProxyError {
    #[error("{0} is neither loopback nor in a namespace of the rig")]
    Foreign(SocketAddr),
    #[error("the proxy could not bind to {address}")]
    Bind { address: SocketAddr, source: io::Error },
}

/// A direction, seen from the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Up,
    Down,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    binding: watch::Sender<u64>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    weather: Mutex<[Weather; 2]>,
    counts: Mutex<[Counts; 2]>,
}

/// One client's task: its socket towards the collector and its two flows.
struct Lane {
    client: SocketAddr,
    target: SocketAddr,
    listener: Arc<UdpSocket>,
    upstream: UdpSocket,
    shared: Arc<Shared>,
    flows: [Flow; 2],
}

impl Proxy {
    /// Listens on `listen` and passes on to `target`, at first in fair weather.
    pub async fn start(listen: SocketAddr, target: SocketAddr, seed: u64) -> Result<Self, ProxyError> {
        if let Some(foreign) = [listen, target].into_iter().find(|address| !is_test_address(address.ip())) {
            return Err(ProxyError::Foreign(foreign));
        }
        let bind_error = |source| ProxyError::Bind { address: listen, source };
        let listener = UdpSocket::bind(listen).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let shared = Arc::new(Shared::default());
        let (binding, bindings) = watch::channel(0);
        let task = tokio::spawn(listen_on(Arc::new(listener), target, seed, Arc::clone(&shared), bindings));
        Ok(Self { address, shared, binding, task })
    }

    /// Where agents connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for datagrams that come in.
    pub fn set_weather(&self, way: Way, weather: Weather) {
        locked(&self.shared.weather)[way.index()] = weather;
    }

    /// Both ways.
    pub fn set_weather_all(&self, weather: Weather) {
        *locked(&self.shared.weather) = [weather; 2];
    }

    /// Every client's next datagram reaches the collector from another port; what is sent to the old one is lost.
    pub fn rebind(&self) {
        self.binding.send_modify(|number| *number += 1);
    }

    /// What was counted in this direction, all clients together.
    #[must_use]
    pub fn counts(&self, way: Way) -> Counts {
        locked(&self.shared.counts)[way.index()]
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lane {
    async fn run(mut self, mut inbox: mpsc::Receiver<Vec<u8>>, mut bindings: watch::Receiver<u64>) {
        bindings.mark_unchanged();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            let due = self.flows.iter().filter_map(Flow::next_due).min();
            tokio::select! {
                // A change of the binding comes before any datagram, so that `rebind` holds from its return on.
                biased;
                changed = bindings.changed() => {
                    let Ok(()) = changed else { return };
                    match upstream_to(self.target).await {
                        Ok(upstream) => self.upstream = upstream,
                        Err(error) => tracing::warn!(%error, "the proxy keeps its old port"),
                    }
                }
                datagram = inbox.recv() => {
                    let Some(datagram) = datagram else { return };
                    self.offer(Way::Up, datagram);
                }
                // An error is the collector's closed port, told by ICMP; the agent must not learn of it here.
                Ok(len) = self.upstream.recv(&mut buffer) => {
                    if len < DATAGRAM_BYTES_MAX {
                        self.offer(Way::Down, buffer[..len].to_vec());
                    }
                }
                () = sleep_until(due) => {}
            }
            self.deliver().await;
        }
    }

    fn offer(&mut self, way: Way, datagram: Vec<u8>) {
        let weather = locked(&self.shared.weather)[way.index()];
        self.flows[way.index()].offer(Instant::now(), &weather, datagram);
    }

    async fn deliver(&mut self) {
        let now = Instant::now();
        for way in [Way::Up, Way::Down] {
            while let Some(datagram) = self.flows[way.index()].pop(now) {
                let sent = match way {
                    Way::Up => self.upstream.send(&datagram).await,
                    Way::Down => self.listener.send_to(&datagram, self.client).await,
                };
                if let Err(error) = sent {
                    tracing::debug!(client = %self.client, ?way, %error, "the proxy could not pass a datagram on");
                }
            }
            let counts = self.flows[way.index()].take_counts();
            locked(&self.shared.counts)[way.index()].add(counts);
        }
    }
}

async fn listen_on(
    listener: Arc<UdpSocket>,
    target: SocketAddr,
    seed: u64,
    shared: Arc<Shared>,
    bindings: watch::Receiver<u64>,
) {
    let mut lanes: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    // Dropped with this task, and then every lane ends.
    let mut tasks = JoinSet::new();
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((len, client)) = listener.recv_from(&mut buffer).await else {
            continue;
        };
        if len == DATAGRAM_BYTES_MAX || (lanes.len() >= CLIENTS_MAX && !lanes.contains_key(&client)) {
            continue;
        }
        if !lanes.contains_key(&client) {
            let Ok(upstream) = upstream_to(target).await else {
                continue;
            };
            // Two flows a client, each with a seed of its own.
            let first = seed.wrapping_add(2 * lanes.len() as u64);
            let flows = [Flow::new(first), Flow::new(first.wrapping_add(1))];
            let (sender, inbox) = mpsc::channel(CLIENT_QUEUE_LEN);
            let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
            tasks.spawn(Lane { client, target, listener, upstream, shared, flows }.run(inbox, bindings.clone()));
            lanes.insert(client, sender);
        }
        if lanes[&client].try_send(buffer[..len].to_vec()).is_err() {
            locked(&shared.counts)[Way::Up.index()].overflowed += 1;
        }
    }
}

async fn upstream_to(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = match target {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The values behind these locks are whole after every statement, whoever panicked.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Way {
    const fn index(self) -> usize {
        match self {
            Self::Up => 0,
            Self::Down => 1,
        }
    }
}
