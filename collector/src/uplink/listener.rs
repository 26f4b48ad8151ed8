//! How the endpoint is set up: its limits stand before anything is believed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_shared::limits::{
    BIDI_STREAMS_MAX, CONNECTION_WINDOW_BYTES, HANDSHAKES_MAX, IDLE_TIMEOUT_MS, INCOMING_BUFFER_BYTES,
    INCOMING_BUFFER_TOTAL_BYTES, STREAM_WINDOW_BYTES, UNI_STREAMS_MAX,
};
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    Endpoint, EndpointConfig, HashedConnectionIdGenerator, IdleTimeout, ServerConfig, TransportConfig, VarInt,
};

use super::keys::EndpointKeys;
use super::socket::Socket;

/// After a crash every agent is told by a reset that its connection is gone: ten thousand within ten
/// seconds. QUIC's usual pace of 50 a second would leave most of them to the idle timeout. A reset is
/// smaller than the packet it answers, and forged connection ids get none.
const RESET_PAUSE: Duration = Duration::from_millis(1);
const _: () = assert!(10_000 * RESET_PAUSE.as_millis() <= 10_000);

/// An open socket and the state machine behind it.
#[derive(Debug)]
pub struct Listener {
    pub(super) socket: Socket,
    pub(super) endpoint: Endpoint,
    /// What ids of connections are made with.
    pub(super) id_key: u64,
}

/// Opens the endpoint on an address; `[::]` serves IPv4 as well where the system lets it.
pub fn bind(address: SocketAddr, tls: Arc<QuicServerConfig>, keys: &EndpointKeys) -> std::io::Result<Listener> {
    let token_key = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(&keys.tokens);
    let mut server = ServerConfig::new(tls, Arc::new(token_key));
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
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config.min_reset_interval(RESET_PAUSE);
    let socket = Socket::bind(address)?;
    let endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(server)), !socket.may_fragment(), None);
    Ok(Listener { socket, endpoint, id_key })
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
