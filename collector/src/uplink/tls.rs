//! The collector's certificate, the authority whose nodes it believes, and the keys of its endpoint.
//!
//! No resumption and no early data: they would get round a revocation. The endpoint's keys are kept
//! on disk, so that agents notice a restart at their next packet and end a handshake that it interrupted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_shared::id::NodeId;
use dunlin_shared::wire::{ALPN, NODE_URI_PREFIX};
use quinn_proto::crypto::rustls::QuicServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;

use crate::clock::Clock;

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("{} cannot be read as PEM: {reason}; the collector needs ca.pem, collector.pem and collector.key in its state directory", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{} holds no certificate", path.display())]
    Empty { path: PathBuf },
    #[error("the certificate and key of this collector cannot be used")]
    Unusable(#[source] rustls::Error),
    #[error("the authority of the nodes cannot be used")]
    Authority(#[source] rustls::server::VerifierBuilderError),
    #[error("the cipher that begins every QUIC connection is missing")]
    Cipher,
    #[error("{} cannot be used", path.display())]
    Endpoint {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// Keys that must survive a restart.
#[derive(Debug)]
pub struct EndpointKeys {
    pub reset: [u8; 64],
    pub connection_ids: u64,
    /// A handshake that was asked to come back with a token may come back to the next run.
    pub tokens: [u8; 32],
}

const ENDPOINT_KEYS_BYTES: usize = 64 + 8 + 32;

pub fn server_config(state_dir: &Path) -> Result<Arc<QuicServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in certificates(&state_dir.join("ca.pem"))? {
        roots.add(authority).map_err(TlsError::Unusable)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(TlsError::Authority)?;
    let key_path = state_dir.join("collector.key");
    let key = PrivateKeyDer::from_pem_file(&key_path)
        .map_err(|reason| TlsError::Unreadable { path: key_path, reason: reason.to_string() })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&state_dir.join("collector.pem"))?, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(QuicServerConfig::try_from(config).map_err(|_| TlsError::Cipher)?))
}

/// Made on the first start, mode 0600.
pub fn endpoint_keys(state_dir: &Path) -> Result<EndpointKeys, TlsError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = state_dir.join("endpoint.key");
    let failed = |source| TlsError::Endpoint { path: path.clone(), source };
    let bytes: [u8; ENDPOINT_KEYS_BYTES] = match std::fs::read(&path) {
        Ok(bytes) if bytes.len() == ENDPOINT_KEYS_BYTES => bytes.try_into().map_err(|_| TlsError::NoRandom)?,
        // A file of another size was torn by a power cut at the first start: nothing depends on it.
        Ok(_) | Err(_) => {
            let fresh = Clock::random::<ENDPOINT_KEYS_BYTES>().ok_or(TlsError::NoRandom)?;
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path).map_err(failed)?;
            file.write_all(&fresh).and_then(|()| file.sync_all()).map_err(failed)?;
            fresh
        }
    };
    let (mut reset, mut connection_ids, mut tokens) = ([0; 64], [0; 8], [0; 32]);
    reset.copy_from_slice(&bytes[..64]);
    connection_ids.copy_from_slice(&bytes[64..72]);
    tokens.copy_from_slice(&bytes[72..]);
    Ok(EndpointKeys { reset, connection_ids: u64::from_le_bytes(connection_ids), tokens })
}

/// The node that a verified certificate names.
#[must_use]
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut nodes = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(NODE_URI_PREFIX)?.parse().ok());
    nodes.next().filter(|_| nodes.next().is_none())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |reason: rustls::pki_types::pem::Error| TlsError::Unreadable {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)?;
    if found.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned() });
    }
    Ok(found)
}
