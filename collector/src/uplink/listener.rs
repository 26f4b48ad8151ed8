//! The endpoint: limits before anything is believed, then one task for each connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_shared::limits::{
    BIDI_STREAMS_MAX, CONNECTION_WINDOW_BYTES, HANDSHAKE_MS, HANDSHAKES_MAX, IDLE_TIMEOUT_MS, INCOMING_BUFFER_BYTES,
    INCOMING_BUFFER_TOTAL_BYTES, STREAM_WINDOW_BYTES, UNI_STREAMS_MAX,
};
use dunlin_shared::wire::CloseCode;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, warn};

use super::admission::{Admission, Prefix, Verdict};
use super::conn::{self, Shared};
use super::tls::EndpointKeys;

/// How long draining connections may take before the endpoint goes.
const DRAIN_MS: u64 = 1_500;

/// After a crash every agent is told by a reset that its connection is gone: ten thousand within ten
/// seconds. quinn's own pace of 50 a second would leave most of them to the idle timeout. A reset is
/// smaller than the packet it answers, and forged connection ids get none.
const RESET_PAUSE: Duration = Duration::from_millis(1);

/// Opens the endpoint on an address; `[::]` serves IPv4 as well where the system lets it.
pub fn bind(address: SocketAddr, tls: Arc<QuicServerConfig>, keys: &EndpointKeys) -> std::io::Result<Endpoint> {
    let mut server = ServerConfig::with_crypto(tls);
    server
        .transport_config(Arc::new(transport()))
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES)
        .migration(true);
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &keys.reset);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    let id_key = keys.connection_ids;
    // Ids that this key made are known again after a restart, and answered with a reset.
    config.cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(id_key)));
    config.min_reset_interval(RESET_PAUSE);
    let socket = std::net::UdpSocket::bind(address)?;
    Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))
}

/// Accepts until `drain` turns true, then lets every connection acknowledge and end.
pub async fn serve(endpoint: Endpoint, shared: Arc<Shared>, drain: watch::Receiver<bool>) {
    let mut draining = drain.clone();
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let admission = Arc::new(Mutex::new(Admission::default()));
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((slot, endpoint.accept().await?))
        };
        tokio::select! {
            _ = draining.wait_for(|&draining| draining) => break,
            accepted = accepted => match accepted {
                Some((slot, incoming)) => admit(slot, incoming, &admission, &shared, &drain),
                None => break,
            },
        }
    }
    endpoint.set_server_config(None);
    let drained = Duration::from_millis(DRAIN_MS);
    if tokio::time::timeout(drained, shared.all_ended()).await.is_err() {
        debug!("some connections did not end by themselves");
    }
    endpoint.close(VarInt::from_u32(CloseCode::Draining as u32), CloseCode::Draining.as_str().as_bytes());
    if tokio::time::timeout(drained, endpoint.wait_idle()).await.is_err() {
        debug!("some agents may not have heard that the collector stopped");
    }
}

fn admit(
    slot: OwnedSemaphorePermit,
    incoming: Incoming,
    admission: &Arc<Mutex<Admission>>,
    shared: &Arc<Shared>,
    drain: &watch::Receiver<bool>,
) {
    let address = incoming.remote_address().ip();
    let verdict = lock(admission).judge(address, incoming.remote_address_validated());
    match verdict {
        Verdict::Accept(prefix) => {
            let turn = Turn { admission: Arc::clone(admission), prefix, _slot: slot };
            tokio::spawn(handshake(incoming, turn, Arc::clone(shared), drain.clone()));
        }
        Verdict::Retry => {
            shared.stats.handshakes_retried.one();
            if let Err(error) = incoming.retry() {
                // Only a validated address cannot be asked again, and those are not asked.
                error.into_incoming().ignore();
            }
        }
        Verdict::Refuse => {
            shared.stats.handshakes_refused.one();
            incoming.refuse();
        }
    }
}

/// A place among the handshakes under way; given back when it is dropped.
struct Turn {
    admission: Arc<Mutex<Admission>>,
    prefix: Prefix,
    _slot: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.admission).done(self.prefix);
    }
}

async fn handshake(incoming: Incoming, turn: Turn, shared: Arc<Shared>, drain: watch::Receiver<bool>) {
    let started_at = shared.clock.mono();
    let peer = incoming.remote_address();
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return handshake_failed(&shared, peer, &error),
    };
    let connection = match tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS), connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return handshake_failed(&shared, peer, &error),
        Err(late) => return handshake_failed(&shared, peer, &late),
    };
    drop(turn);
    shared.stats.connections_accepted.one();
    // A task of its own: the handshake's large future is freed with this one.
    tokio::spawn(conn::run(connection, started_at, shared, drain));
}

fn handshake_failed(shared: &Shared, peer: SocketAddr, error: &dyn std::error::Error) {
    shared.stats.handshakes_failed.one();
    if let Some(times) = shared.note_failure("handshake") {
        warn!(times, %peer, "a handshake failed: {error}");
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle_ms = u32::try_from(IDLE_TIMEOUT_MS).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(STREAM_WINDOW_BYTES))
        // What a collector sends is small: no probing for larger packets.
        .mtu_discovery_config(None)
        .datagram_receive_buffer_size(None);
    transport
}

fn lock(admission: &Mutex<Admission>) -> std::sync::MutexGuard<'_, Admission> {
    admission.lock().unwrap_or_else(PoisonError::into_inner)
}
