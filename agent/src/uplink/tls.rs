//! TLS 1.3 towards a collector: with the node's certificate for the session, without one to enrol.
//!
//! Whom the agent believes is `identity::trust`'s to say, whatever the date. No resumption: it would get round a
//! revocation.

use std::sync::Arc;

use dunlin_shared::wire::{ALPN, ALPN_JOIN};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, SignatureScheme, WantsVerifier,
};
use thiserror::Error as ThisError;

use crate::identity::Identity;
use crate::identity::trust::{Trust, algorithms};

#[derive(Debug, ThisError)]
pub enum TlsError {
    #[error("the authority, certificate or key of this agent cannot be used")]
    Identity(#[source] Error),
    #[error("the cipher that begins every QUIC connection is missing")]
    Cipher,
}

/// With the agent's certificate.
pub fn client_config(identity: &Identity) -> Result<Arc<QuicClientConfig>, TlsError> {
    let trust = Trust { authorities: identity.authorities.clone(), pin: None };
    let config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer { trust }))
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(TlsError::Identity)?;
    finish(config, ALPN)
}

/// To enrol: the agent proves its key inside the connection.
pub fn join_config(trust: &Trust) -> Result<Arc<QuicClientConfig>, TlsError> {
    let verifier = Arc::new(Believer { trust: trust.clone() });
    let config = builder()?.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    finish(config, ALPN_JOIN)
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Identity)
}

fn finish(mut config: ClientConfig, alpn: &[u8]) -> Result<Arc<QuicClientConfig>, TlsError> {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(|_| TlsError::Cipher)?))
}

#[derive(Debug)]
struct Believer {
    trust: Trust,
}

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let outcome = self.trust.check_collector(leaf, others);
        outcome.map(|()| ServerCertVerified::assertion()).map_err(|error| Error::InvalidCertificate(in_rustls(error)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Each of these becomes the alert that the collector logs.
fn in_rustls(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::CertNotValidForName(_) => CertificateError::NotValidForName,
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => CertificateError::Expired,
        _ => CertificateError::BadEncoding,
    }
}

/// Linked by name, so that the provider in use is never a matter of features.
const _: fn() -> CryptoProvider = rustls::crypto::ring::default_provider;
