//! How TLS asks the authority, connection by connection.
//!
//! No resumption and no early data: they would get round a revocation.

use std::sync::Arc;

use dunlin_shared::wire::{ALPN, ALPN_JOIN};
use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use thiserror::Error;

use crate::authority::Authority;

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("TLS cannot be set up")]
    Unusable(#[source] rustls::Error),
    #[error("the cipher that begins every QUIC connection is missing")]
    Cipher,
}

/// Whatever the authority comes to, connections that are made from then on meet it.
pub fn server_config(authority: &Arc<Authority>) -> Result<Arc<QuicServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(Arc::new(Nodes(Arc::clone(authority))))
        .with_cert_resolver(Arc::new(Collector(Arc::clone(authority))));
    config.alpn_protocols = vec![ALPN.to_vec(), ALPN_JOIN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(|_| TlsError::Cipher)?))
}

/// What the collector shows of itself: more to those who enrol, because they may know any of its authorities.
/// Even that is far below the three datagrams that may answer an address that is not proven yet.
#[derive(Debug)]
struct Collector(Arc<Authority>);

impl ResolvesServerCert for Collector {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = |wanted: &[u8]| hello.alpn().is_some_and(|mut offered| offered.any(|name| name == wanted));
        Some(self.0.collector_certificate(offered(ALPN_JOIN) && !offered(ALPN)))
    }
}

/// Who is a node. One without a certificate may enrol and nothing else; its connection sees to that.
#[derive(Debug)]
struct Nodes(Arc<Authority>);

impl ClientCertVerifier for Nodes {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.client_verifier().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.client_verifier().verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.client_verifier().verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.client_verifier().supported_verify_schemes()
    }
}
