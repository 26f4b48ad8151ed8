//! One attempt to reach a collector: names to addresses, a fresh socket, a handshake.
//!
//! A fresh socket for each attempt means that whatever was wedged in the last one is gone with it. The
//! endpoint around it stays: its receive buffer of 3 MB is never touched beyond the first pages, unless
//! it is freed and comes back from the heap, which then has to clear it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_shared::limits::{CONNECTION_WINDOW_BYTES, HANDSHAKE_MS, IDLE_TIMEOUT_MS, STREAM_WINDOW_BYTES};
use dunlin_shared::wire::{COLLECTOR_NAME, CloseCode};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime,
    TransportConfig, VarInt,
};
use thiserror::Error;

use super::tls::{self, TlsError};
use crate::enrol::Refused;
use crate::identity::Identity;
use crate::identity::trust::Trust;
use crate::resolve::{ResolveError, Resolver};

/// Where a collector listens when its address names no port.
pub const DEFAULT_PORT: u16 = 9737;

/// The collector holds an acknowledgement back so long, which lets it ride with its own message
/// after the commit. The commit takes at most 100 ms.
const ACK_DELAY: Duration = Duration::from_millis(150);

/// Between looks whether the collector has confirmed a handshake, and how long it may still close after it.
const CONFIRMED_EVERY: Duration = Duration::from_millis(10);
const CLOSE_WITHIN: Duration = Duration::from_millis(100);

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("{collector}: its name has no address")]
    Resolve {
        collector: String,
        #[source]
        source: ResolveError,
    },
    #[error("no UDP socket could be opened")]
    Socket(#[source] std::io::Error),
    #[error("{collector} ({address}): {}", explain(source))]
    Handshake { collector: String, address: SocketAddr, source: ConnectionError },
    #[error("{collector} ({address}) did not answer within 5 s; is the collector running, and does UDP reach it?")]
    Silent { collector: String, address: SocketAddr },
    #[error("{collector} ({address}) cannot be connected to: {reason}")]
    Unusable { collector: String, address: SocketAddr, reason: String },
    #[error("this agent has no certificate to connect with")]
    NoIdentity,
    #[error("no connection can be secured")]
    Tls(#[from] TlsError),
}

/// Which sockets connections use.
#[derive(Clone, Debug)]
pub enum Sockets {
    /// One for each attempt, on an endpoint for each family.
    Own(OwnEndpoints),
    /// One that many agents of one process share, for a simulated fleet.
    Shared(Endpoint),
}

/// How a simulated agent reads that is slow: the collector may send no more than the window ahead of what was read.
#[derive(Clone, Copy, Debug)]
pub struct SlowReading {
    pub window_bytes: u32,
    /// How much is read at a time, and how long it pauses then.
    pub chunk_bytes: usize,
    pub pause: Duration,
}

/// The endpoints of one agent, made when they are first needed.
#[derive(Clone, Debug, Default)]
pub struct OwnEndpoints {
    by_family: Arc<Mutex<[Option<Endpoint>; 2]>>,
}

#[derive(Clone, Debug)]
pub struct Connector {
    resolver: Resolver,
    /// None before the agent has a certificate.
    config: Option<ClientConfig>,
    sockets: Sockets,
    slow: Option<SlowReading>,
}

/// A connection, and the endpoint that must outlive it.
#[derive(Debug)]
pub struct Connected {
    pub connection: Connection,
    pub endpoint: Endpoint,
    pub address: SocketAddr,
    /// None for an agent that reads whatever there is.
    pub slow: Option<SlowReading>,
}

impl ConnectError {
    /// Who did not say a word to the handshake.
    #[must_use]
    pub const fn unanswered(&self) -> Option<SocketAddr> {
        match self {
            Self::Silent { address, .. } | Self::Handshake { address, source: ConnectionError::TimedOut, .. } => {
                Some(*address)
            }
            _ => None,
        }
    }
}

impl Connected {
    /// Waits until the collector has judged the certificate that it was shown: for a client of TLS 1.3 the handshake is
    /// done before that. The error is what it has against it, or against the node.
    pub async fn judged(&self) -> Result<(), ConnectionError> {
        let confirmed = async {
            while self.connection.stats().frame_rx.handshake_done == 0 {
                tokio::time::sleep(CONFIRMED_EVERY).await;
            }
            // A close may be on its way behind the confirmation.
            tokio::time::sleep(CLOSE_WITHIN).await;
        };
        tokio::select! {
            biased;
            error = self.connection.closed() => Err(error),
            confirmed = tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS), confirmed) => {
                confirmed.map_err(|_| ConnectionError::TimedOut)
            }
        }
    }
}

impl Connector {
    #[must_use]
    pub fn new(resolver: Resolver, tls: Arc<QuicClientConfig>, sockets: Sockets) -> Self {
        Self { resolver, config: Some(over_quic(tls, None)), sockets, slow: None }
    }

    /// One whose connections are read slowly; for a simulated fleet.
    #[must_use]
    pub fn reading_slowly(resolver: Resolver, tls: Arc<QuicClientConfig>, sockets: Sockets, slow: SlowReading) -> Self {
        Self { resolver, config: Some(over_quic(tls, Some(slow))), sockets, slow: Some(slow) }
    }

    /// One that can only enrol until it is given an identity.
    #[must_use]
    pub const fn without_identity(resolver: Resolver, sockets: Sockets) -> Self {
        Self { resolver, config: None, sockets, slow: None }
    }

    /// Connections from now on are made with this.
    pub fn use_identity(&mut self, identity: &Identity) -> Result<(), ConnectError> {
        self.config = Some(over_quic(tls::client_config(identity)?, self.slow));
        Ok(())
    }

    /// Tries every address of one collector in turn.
    pub async fn connect(&self, collector: &str) -> Result<Connected, ConnectError> {
        let config = self.config.as_ref().ok_or(ConnectError::NoIdentity)?;
        self.reach(collector, config).await
    }

    /// The same to enrol, believing whom `trust` names.
    pub async fn connect_to_join(&self, collector: &str, trust: &Trust) -> Result<Connected, ConnectError> {
        self.reach(collector, &over_quic(tls::join_config(trust)?, None)).await
    }

    async fn reach(&self, collector: &str, config: &ClientConfig) -> Result<Connected, ConnectError> {
        let addresses = self
            .resolver
            .resolve(collector, DEFAULT_PORT)
            .await
            .map_err(|source| ConnectError::Resolve { collector: collector.to_owned(), source })?;
        let mut failure = None;
        for address in addresses {
            match self.attempt(collector, address, config).await {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = Some(error),
            }
        }
        // The resolver never answers with an empty list.
        Err(failure.unwrap_or_else(|| ConnectError::Socket(std::io::ErrorKind::AddrNotAvailable.into())))
    }

    async fn attempt(
        &self,
        collector: &str,
        address: SocketAddr,
        config: &ClientConfig,
    ) -> Result<Connected, ConnectError> {
        let endpoint = match &self.sockets {
            Sockets::Own(endpoints) => endpoints.fresh(address).map_err(ConnectError::Socket)?,
            Sockets::Shared(endpoint) => endpoint.clone(),
        };
        let name = || collector.to_owned();
        let connecting = endpoint
            .connect_with(config.clone(), address, COLLECTOR_NAME)
            .map_err(|error| ConnectError::Unusable { collector: name(), address, reason: error.to_string() })?;
        match tokio::time::timeout(Duration::from_millis(HANDSHAKE_MS), connecting).await {
            Ok(Ok(connection)) => Ok(Connected { connection, endpoint, address, slow: self.slow }),
            Ok(Err(source)) => Err(ConnectError::Handshake { collector: name(), address, source }),
            Err(_) => Err(ConnectError::Silent { collector: name(), address }),
        }
    }
}

impl OwnEndpoints {
    /// The family's endpoint on a new socket. Its connection ids are empty: one connection, one socket. While an
    /// earlier connection still ends, packets would go to that one, and to nobody once it has ended: the next has an
    /// endpoint of its own then.
    fn fresh(&self, peer: SocketAddr) -> std::io::Result<Endpoint> {
        let (family, local): (usize, SocketAddr) = match peer {
            SocketAddr::V4(_) => (0, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (1, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        let socket = std::net::UdpSocket::bind(local)?;
        let mut endpoints = self.by_family.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints[family].as_ref().filter(|endpoint| endpoint.open_connections() == 0) {
            endpoint.rebind(socket)?;
            return Ok(endpoint.clone());
        }
        let mut config = EndpointConfig::default();
        config.cid_generator(|| Box::new(quinn_proto::RandomConnectionIdGenerator::new(0)));
        let endpoint = Endpoint::new(config, None, socket, Arc::new(TokioRuntime))?;
        endpoints[family] = Some(endpoint.clone());
        Ok(endpoint)
    }
}

fn over_quic(tls: Arc<QuicClientConfig>, slow: Option<SlowReading>) -> ClientConfig {
    let mut config = ClientConfig::new(tls);
    let mut transport = transport();
    if let Some(slow) = slow {
        transport.stream_receive_window(VarInt::from_u32(slow.window_bytes));
    }
    config.transport_config(Arc::new(transport));
    config
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.max_ack_delay(Some(ACK_DELAY));
    let idle_ms = u32::try_from(IDLE_TIMEOUT_MS).unwrap_or(u32::MAX);
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .ack_frequency_config(Some(acks))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(false);
    transport
}

/// What a connection's end means, for a person.
#[must_use]
pub fn explain(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ApplicationClosed(close) => match CloseCode::from_raw(close.error_code.into_inner()) {
            Some(code) => format!("the collector closed the connection: {}", advice(code)),
            None => format!("the collector closed the connection with code {}", close.error_code),
        },
        ConnectionError::TimedOut => "no answer; the collector, or the way to it, is down".to_owned(),
        ConnectionError::Reset => "the collector was restarted".to_owned(),
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == EXPIRED => String::from(
            "the collector says that the time of this agent's certificate is up; it is asked for another one",
        ),
        ConnectionError::ConnectionClosed(close) => format!(
            "refused: {}; the certificate or the authority of one side does not suit the other",
            String::from_utf8_lossy(&close.reason)
        ),
        ConnectionError::TransportError(error) if is_about_certificates(error.code.into()) => format!(
            "this agent does not believe the collector's certificate ({}); is its ca.pem that of this collector? If \
             its authority was turned while this host was away, a new join token brings the node back as it was. To \
             move this host to another collector, run `dunlin-agent seal` and give it a join token of that one",
            error.reason
        ),
        other => other.to_string(),
    }
}

/// What one side has against the other's certificate, if that is why the connection ended.
#[must_use]
pub fn refusal(error: &ConnectionError) -> Option<Refused> {
    match error {
        ConnectionError::ConnectionClosed(close) if is_about_certificates(close.error_code.into()) => {
            Some(Refused::Certificate)
        }
        ConnectionError::TransportError(error) if is_about_certificates(error.code.into()) => Some(Refused::Stranger),
        _ => (close_code(error) == Some(CloseCode::NotEnrolled)).then_some(Refused::NotEnrolled),
    }
}

/// The code with which the collector closed.
#[must_use]
pub fn close_code(error: &ConnectionError) -> Option<CloseCode> {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseCode::from_raw(close.error_code.into_inner()),
        _ => None,
    }
}

/// QUIC carries a TLS alert as 0x100 and its number.
const EXPIRED: u64 = 0x12d;

/// 42 to 48 are about certificates, 51 is what a signature by another key of the same name comes to, and 116 says
/// that there was none.
pub(super) const fn is_about_certificates(code: u64) -> bool {
    matches!(code, 0x12a..=0x130 | 0x133 | 0x174)
}

const fn advice(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Done => "done",
        CloseCode::Malformed | CloseCode::Unexpected => "it could not understand this agent; compare their versions",
        CloseCode::TooLarge => "a message exceeded its limit",
        CloseCode::Version => "it speaks another version of the protocol; upgrade the older side",
        CloseCode::WrongNode => "the certificate of this agent is another node's",
        CloseCode::Superseded => "a newer connection of this node took over",
        CloseCode::Flooding => "this agent sent more than its share",
        CloseCode::TooSlow => "the first message came too late",
        CloseCode::Draining => "it is being stopped",
        CloseCode::Overloaded => "it is overloaded",
        CloseCode::Internal => "it failed inside; its log says why",
        CloseCode::NotEnrolled => "it does not know this node; give this agent a join token to enrol it anew",
        CloseCode::Revoked => {
            "this node was revoked; to bring it back as a new node, run `dunlin-agent seal` and give it a join token"
        }
        CloseCode::NotApproved => "this node waits for approval; somebody must approve it on the collector",
        CloseCode::Quarantined => {
            "another machine is this node already; run `dunlin adopt NODE` if this is the right one, else \
             `dunlin-agent seal` and a join token make it a node of its own"
        }
        CloseCode::Rewound => "this machine was set back to an earlier state; it goes on under a new epoch",
    }
}
