//! Whom the agent believes: a collector whose certificate chains to the pinned authority and bears
//! the fixed name. Dates are not checked, so that a board that boots in 1970 still connects.

use std::sync::Arc;

use dunlin_shared::wire::{ALPN, COLLECTOR_NAME};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use thiserror::Error;

use crate::identity::Identity;

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("the authority, certificate or key of this agent cannot be used")]
    Identity(#[source] Error),
    #[error("the authority of the collector cannot be used")]
    Authority(#[source] rustls::server::VerifierBuilderError),
    #[error("the cipher that begins every QUIC connection is missing")]
    Cipher,
}

/// TLS 1.3 with the agent's certificate. No resumption: it would get round a revocation.
pub fn client_config(identity: &Identity) -> Result<Arc<QuicClientConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in &identity.authorities {
        roots.add(authority.clone()).map_err(TlsError::Identity)?;
    }
    let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(TlsError::Authority)?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Identity)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedAuthority { webpki }))
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(QuicClientConfig::try_from(config).map_err(|_| TlsError::Cipher)?))
}

/// webpki's verification, at a time when every certificate of the chain is valid.
#[derive(Debug)]
struct PinnedAuthority {
    webpki: Arc<WebPkiServerVerifier>,
}

/// Leaf and authority may each be out of date, and each at either end.
const DATE_ATTEMPTS: usize = 5;

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = ServerName::try_from(COLLECTOR_NAME).map_err(|_| Error::General(String::from("a bad name")))?;
        let mut at = now;
        for _ in 0..DATE_ATTEMPTS {
            match self.webpki.verify_server_cert(leaf, intermediates, &name, ocsp, at) {
                Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => at = not_after,
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                    at = not_before;
                }
                outcome => return outcome,
            }
        }
        Err(Error::InvalidCertificate(CertificateError::Expired))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Linked by name, so that the provider in use is never a matter of features.
const _: fn() -> CryptoProvider = rustls::crypto::ring::default_provider;
