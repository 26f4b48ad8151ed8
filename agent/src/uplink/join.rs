//! One join: a connection without a certificate, one question with the proof of the key, and one answer.
//!
//! What is answered is bounded before it is kept, and judged by `enrol`. The proof signs a secret of this very
//! connection, so it is worth nothing on another.

use std::net::SocketAddr;
use std::time::Duration;

use dunlin_shared::limits::{IDLE_TIMEOUT_MS, JOIN_BYTES_MAX};
use dunlin_shared::session::agent::Profile;
use dunlin_shared::wire::join::{Join, JoinAnswer, JoinReason, JoinRequest, PROOF_LABEL, PROOF_SECRET_BYTES};
use dunlin_shared::wire::{CloseCode, Deframer, WIRE_VERSION_MAX, WIRE_VERSION_MIN, WireError};
use quinn::{Connection, ConnectionError, ReadToEndError, VarInt};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::connect::{ConnectError, Connector, explain, is_about_certificates};
use crate::enrol::Ask;
use crate::identity::key::KeyError;

/// The alert of a peer that speaks none of our protocols.
const NO_COMMON_PROTOCOL: u64 = 0x178;
/// A collector stores thousands of joins in turn; it answers or refuses within its own limits.
const PATIENCE: Duration = Duration::from_millis(IDLE_TIMEOUT_MS);

/// What a collector answered, and the chain that it showed.
#[derive(Debug)]
pub struct Answered {
    pub ask: Box<Ask>,
    pub answer: JoinAnswer,
    pub collector: Vec<CertificateDer<'static>>,
}

#[derive(Debug, Error)]
pub enum JoinError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error(
        "{collector} ({address}) is not the collector of this join token: its authority is not the one that the token \
         names ({reason}); take a token of this collector, or mend `collectors`"
    )]
    NotOfToken { collector: String, address: SocketAddr, reason: String },
    #[error("{collector} ({address}) enrols nobody; is it a collector of this version?")]
    NoEnrolment { collector: String, address: SocketAddr },
    #[error("{collector} gave no answer to the join: {}", explain(source))]
    Ended { collector: String, source: ConnectionError },
    #[error("{collector} gave no answer to the join within 30 s")]
    Silent { collector: String },
    #[error("{collector} gave an answer to the join that is none")]
    Nonsense {
        collector: String,
        #[source]
        source: WireError,
    },
    #[error("the key of this agent cannot be proved")]
    Proof(#[source] KeyError),
}

/// Asks one collector.
pub async fn join(
    connector: &Connector,
    collector: &str,
    ask: Box<Ask>,
    profile: &Profile,
) -> Result<Answered, JoinError> {
    let connected = connector
        .connect_to_join(collector, &ask.trust)
        .await
        .map_err(|error| told_apart(error, ask.token.is_some()))?;
    let connection = &connected.connection;
    let request = request(connection, &ask, profile)?;
    let asked = tokio::time::timeout(PATIENCE, exchange(connection, &request)).await;
    let bytes = match asked {
        Err(_) => return Err(JoinError::Silent { collector: collector.to_owned() }),
        Ok(Err(source)) => return Err(JoinError::Ended { collector: collector.to_owned(), source }),
        Ok(Ok(bytes)) => bytes,
    };
    let shown = shown(connection);
    connection.close(VarInt::from_u32(CloseCode::Done as u32), b"");
    let answer = decode(&bytes).map_err(|source| JoinError::Nonsense { collector: collector.to_owned(), source })?;
    Ok(Answered { ask, answer, collector: shown })
}

/// The chain that the peer of a connection showed.
#[must_use]
pub fn shown(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    identity.map(|chain| *chain).unwrap_or_default()
}

/// What a refusal means, and what to do.
#[must_use]
pub const fn advice(reason: JoinReason) -> &'static str {
    match reason {
        JoinReason::NoToken => "the collector does not know this agent's key, and there is no join token",
        JoinReason::UnknownToken => "the collector does not know the join token; make another one",
        JoinReason::ExpiredToken => "the time of the join token is up; make another one",
        JoinReason::UsedUpToken => "the join token has been used as often as it may be; make another one",
        JoinReason::RevokedToken => "the join token was revoked; make another one",
        JoinReason::RevokedNode => {
            "this node was revoked; to bring it back as a new node, run `dunlin-agent seal` and give it a join token"
        }
        JoinReason::BadProof => "the collector cannot verify the proof of this agent's key; compare their versions",
        JoinReason::Version => "it speaks another version of the protocol; upgrade the older side",
        JoinReason::TooMany => "too many have asked to join; this agent asks again later",
        JoinReason::NotNow => "the collector cannot enrol anybody at the moment; this agent asks again later",
    }
}

pub(super) fn request(connection: &Connection, ask: &Ask, profile: &Profile) -> Result<Vec<u8>, JoinError> {
    let mut secret = [0; PROOF_SECRET_BYTES];
    connection
        .export_keying_material(&mut secret, PROOF_LABEL, b"")
        .map_err(|_| JoinError::Proof(KeyError::NoRandomness))?;
    let join = Join {
        wire_min: WIRE_VERSION_MIN,
        wire_max: WIRE_VERSION_MAX,
        token: ask.token.as_ref().map(|token| token.secret),
        public_key: ask.key.public_key(),
        proof: ask.key.sign(&secret).map_err(JoinError::Proof)?,
        name: profile.name.clone(),
        agent_version: profile.agent_version.clone(),
    };
    Ok(JoinRequest::Join(join).encode())
}

pub(super) async fn exchange(connection: &Connection, request: &[u8]) -> Result<Vec<u8>, ConnectionError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    // An error of the stream means that the connection ended, and how it did says more.
    if send.write_all(request).await.is_err() || send.finish().is_err() {
        return Err(connection.closed().await);
    }
    match receive.read_to_end(JOIN_BYTES_MAX).await {
        Ok(bytes) => Ok(bytes),
        Err(ReadToEndError::Read(_)) => Err(connection.closed().await),
        Err(ReadToEndError::TooLong) => Ok(Vec::new()),
    }
}

fn decode(bytes: &[u8]) -> Result<JoinAnswer, WireError> {
    let mut deframer = Deframer::default();
    deframer.push(bytes);
    match deframer.next_message()? {
        Some(body) => JoinAnswer::decode(body),
        None => Err(WireError::Malformed("the answer to a join")),
    }
}

/// Who is refused by its certificate is not the collector of the token.
pub(crate) fn told_apart(error: ConnectError, by_token: bool) -> JoinError {
    let ConnectError::Handshake { collector, address, source } = error else { return JoinError::Connect(error) };
    match source {
        ConnectionError::TransportError(error) if by_token && is_about_certificates(error.code.into()) => {
            JoinError::NotOfToken { collector, address, reason: error.reason }
        }
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == NO_COMMON_PROTOCOL => {
            JoinError::NoEnrolment { collector, address }
        }
        source => JoinError::Connect(ConnectError::Handshake { collector, address, source }),
    }
}
