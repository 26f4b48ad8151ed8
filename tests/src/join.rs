//! A client that joins as an agent does, without an agent: for tests that say what no agent would, and for ten
//! thousand joins in a minute.
//!
//! Keys are made before, so that a measurement counts the collector's work and not theirs.

use std::net::SocketAddr;
use std::sync::Arc;

use dunlin_collector::access::hash_of;
use dunlin_shared::token::{JoinToken, Pin};
use dunlin_shared::wire::join::{Join, JoinAnswer, JoinRequest, PROOF_LABEL, PROOF_SECRET_BYTES};
use dunlin_shared::wire::{ALPN_JOIN, COLLECTOR_NAME, Deframer, WIRE_VERSION_MAX, WIRE_VERSION_MIN, WireError};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum JoinError {
    #[error("a key could not be made or used")]
    Key(#[from] rcgen::Error),
    #[error("the endpoint cannot be used")]
    Endpoint(#[from] quinn::ConnectError),
    #[error("the connection ended")]
    Connection(#[from] quinn::ConnectionError),
    #[error("the question could not be asked")]
    Write(#[from] quinn::WriteError),
    #[error("the answer could not be read")]
    Read(#[from] quinn::ReadError),
    #[error("the answer makes no sense")]
    Wire(#[from] WireError),
    #[error("the answer was cut off")]
    CutOff,
    #[error("the connection has no secret of its own")]
    NoSecret,
}

/// A key that joins, once or again.
#[derive(Debug)]
pub struct Joiner {
    key: KeyPair,
}

impl Joiner {
    pub fn new() -> Result<Self, JoinError> {
        Ok(Self { key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)? })
    }

    /// As SubjectPublicKeyInfo.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// PKCS #8 in DER.
    #[must_use]
    pub fn private_key(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    /// What an honest agent would ask on this connection.
    pub fn question(&self, connection: &Connection, token: Option<&JoinToken>, name: &str) -> Result<Join, JoinError> {
        let mut secret = [0; PROOF_SECRET_BYTES];
        connection.export_keying_material(&mut secret, PROOF_LABEL, b"").map_err(|_| JoinError::NoSecret)?;
        Ok(Join {
            wire_min: WIRE_VERSION_MIN,
            wire_max: WIRE_VERSION_MAX,
            token: token.map(|token| token.secret),
            public_key: self.public_key(),
            proof: self.key.sign(&secret)?,
            name: name.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    /// Connects, asks, and gives the answer.
    pub async fn join(
        &self,
        endpoint: &Endpoint,
        config: ClientConfig,
        collector: SocketAddr,
        token: Option<&JoinToken>,
        name: &str,
    ) -> Result<JoinAnswer, JoinError> {
        let connection = endpoint.connect_with(config, collector, COLLECTOR_NAME)?.await?;
        let question = self.question(&connection, token, name)?;
        let answer = ask(&connection, &JoinRequest::Join(question).encode()).await;
        connection.close(0u32.into(), b"");
        answer
    }
}

/// Says what it is told to on the one stream, and waits for what comes.
pub async fn ask(connection: &Connection, bytes: &[u8]) -> Result<JoinAnswer, JoinError> {
    let (mut question, mut answer) = connection.open_bi().await?;
    question.write_all(bytes).await?;
    let mut deframer = Deframer::default();
    loop {
        if let Some(body) = deframer.next_message()? {
            return Ok(JoinAnswer::decode(body)?);
        }
        let chunk = answer.read_chunk(4_096, true).await?.ok_or(JoinError::CutOff)?;
        deframer.push(&chunk.bytes);
    }
}

/// Believes a collector that shows a certificate with the key of the pin, whoever signed what.
#[must_use]
pub fn client_config(pin: Pin) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    config.resumption = Resumption::disabled();
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("ring has QUIC's cipher")))
}

#[derive(Debug)]
struct Pinned {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let has_pin = |der: &CertificateDer<'_>| {
            ParsedCertificate::try_from(der)
                .is_ok_and(|parsed| hash_of(parsed.subject_public_key_info().as_ref()).0 == self.pin.0)
        };
        let is_shown = [end_entity].into_iter().chain(intermediates).any(has_pin);
        is_shown.then(ServerCertVerified::assertion).ok_or(CertificateError::UnknownIssuer.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
