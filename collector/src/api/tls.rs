//! The certificate with which HTTP is served off loopback. It can be replaced while connections are open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum HttpTlsError {
    #[error("{} cannot be read as PEM: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{} holds no certificate", path.display())]
    Empty { path: PathBuf },
    #[error("the certificate for HTTP cannot be used with its key")]
    Unusable(#[source] rustls::Error),
}

/// What every new connection is shown.
#[derive(Debug)]
pub struct HttpCertificate {
    current: ArcSwap<CertifiedKey>,
}

impl HttpCertificate {
    /// As an operator gives it: a chain and its key, each in PEM.
    pub fn from_files(cert: &Path, key: &Path) -> Result<Arc<Self>, HttpTlsError> {
        let (chain, key) = read(cert, key)?;
        Self::new(chain, &key)
    }

    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Result<Arc<Self>, HttpTlsError> {
        Ok(Arc::new(Self { current: ArcSwap::from_pointee(certified(chain, key)?) }))
    }

    /// For connections from now on; the old one goes on when the new one cannot be used.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
    ) -> Result<(), HttpTlsError> {
        self.current.store(Arc::new(certified(chain, key)?));
        Ok(())
    }

    /// The same from the files that it came from.
    pub fn reread(&self, cert: &Path, key: &Path) -> Result<(), HttpTlsError> {
        let (chain, key) = read(cert, key)?;
        self.replace(chain, &key)
    }

    /// TLS 1.3 alone, and nothing but HTTP/1.1 inside.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, HttpTlsError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(HttpTlsError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for HttpCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Result<CertifiedKey, HttpTlsError> {
    CertifiedKey::from_der(chain, key.clone_key(), &provider()).map_err(HttpTlsError::Unusable)
}

fn read(cert: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), HttpTlsError> {
    let unreadable = |path: &Path, reason: rustls::pki_types::pem::Error| HttpTlsError::Unreadable {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|reason| unreadable(cert, reason))?;
    if chain.is_empty() {
        return Err(HttpTlsError::Empty { path: cert.to_owned() });
    }
    Ok((chain, PrivateKeyDer::from_pem_file(key).map_err(|reason| unreadable(key, reason))?))
}
