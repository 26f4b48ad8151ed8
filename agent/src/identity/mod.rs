//! Who this agent is and whom it trusts: the files `node.key`, `node.pem` and `ca.pem` of its state directory.
//!
//! The node's id is what its certificate says, never what a file name says. Each file is replaced whole or not
//! at all. Nothing here ever removes a key or makes a second one.
//!
//! ```text
//! node.key   PEM "PRIVATE KEY": PKCS #8, ECDSA on P-256; 0600, refused when others can read it
//! node.pem   PEM "CERTIFICATE"s: the node's own, then what leads from it to an authority
//! ca.pem     PEM "CERTIFICATE"s: the authorities that are believed, oldest first
//! ```

pub mod key;
mod pem;
#[cfg(test)]
pub(crate) mod testing;
pub mod trust;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dunlin_shared::id::NodeId;
use dunlin_shared::limits::{AUTHORITIES_MAX, CHAIN_MAX};
use dunlin_shared::wire::NODE_URI_PREFIX;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use self::key::NodeKey;
use crate::state;

pub const KEY: &str = "node.key";
pub const CERTIFICATE: &str = "node.pem";
pub const AUTHORITIES: &str = "ca.pem";

/// A chain of certificates at their longest has 11 KiB in PEM.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Reading, writing or searching by anybody but the owner.
const OTHERS: u32 = 0o077;

#[derive(Debug)]
pub struct Identity {
    pub node: NodeId,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub authorities: Vec<CertificateDer<'static>>,
}

/// One file as it was found.
#[derive(Debug)]
pub enum Part<T> {
    Missing,
    Good(T),
    Bad(IdentityError),
}

/// The three files as they were found.
#[derive(Debug)]
pub struct Files {
    pub key: Part<NodeKey>,
    pub certificate: Part<Certificate>,
    pub authorities: Part<Vec<CertificateDer<'static>>>,
}

#[derive(Debug)]
pub struct Certificate {
    pub node: NodeId,
    pub chain: Vec<CertificateDer<'static>>,
}

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("{} is missing", path.display())]
    Missing { path: PathBuf },
    #[error("{} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} can be read by others; if nobody took it, run: chmod 600 {}", path.display(), path.display())]
    Open { path: PathBuf },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} names no node; its subject alternative name should be a URI {NODE_URI_PREFIX}ID", path.display())]
    NoNode { path: PathBuf },
    #[error("{} is the certificate of another key than node.key", path.display())]
    OtherKey { path: PathBuf },
}

impl Identity {
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let Files { key, certificate, authorities } = Files::read(state_dir);
        let key = key.into_good(|| state_dir.join(KEY))?;
        let Certificate { node, chain } = certificate.into_good(|| state_dir.join(CERTIFICATE))?;
        let authorities = authorities.into_good(|| state_dir.join(AUTHORITIES))?;
        Ok(Self { node, chain, key: key.private(), authorities })
    }
}

impl<T> Part<T> {
    pub fn into_good(self, path: impl FnOnce() -> PathBuf) -> Result<T, IdentityError> {
        match self {
            Self::Good(good) => Ok(good),
            Self::Bad(error) => Err(error),
            Self::Missing => Err(IdentityError::Missing { path: path() }),
        }
    }

    fn of(read: Result<Option<T>, IdentityError>) -> Self {
        match read {
            Ok(Some(good)) => Self::Good(good),
            Ok(None) => Self::Missing,
            Err(error) => Self::Bad(error),
        }
    }
}

impl Files {
    #[must_use]
    pub fn read(state_dir: &Path) -> Self {
        let key = Part::of(read_key(&state_dir.join(KEY)));
        let path = state_dir.join(CERTIFICATE);
        let mut certificate = Part::of(read_certificate(&path));
        if let (Part::Good(key), Part::Good(found)) = (&key, &certificate)
            && !is_of_key(&found.chain, &key.public_key())
        {
            certificate = Part::Bad(IdentityError::OtherKey { path });
        }
        let authorities = Part::of(read_chain(&state_dir.join(AUTHORITIES), AUTHORITIES_MAX));
        Self { key, certificate, authorities }
    }
}

/// On the disk when it returns: a certificate is asked for only after that.
pub fn store_key(state_dir: &Path, key: &NodeKey) -> io::Result<()> {
    state::replace(&state_dir.join(KEY), key.pem().as_bytes())
}

pub fn store_certificate(state_dir: &Path, chain: &[CertificateDer<'_>]) -> io::Result<()> {
    state::replace(&state_dir.join(CERTIFICATE), chain_pem(chain).as_bytes())
}

pub fn store_authorities(state_dir: &Path, authorities: &[CertificateDer<'_>]) -> io::Result<()> {
    state::replace(&state_dir.join(AUTHORITIES), chain_pem(authorities).as_bytes())
}

/// Whether the first certificate of the chain is of this key, given as SubjectPublicKeyInfo.
#[must_use]
pub fn is_of_key(chain: &[CertificateDer<'_>], public_key: &[u8]) -> bool {
    chain.first().and_then(trust::public_key_of).is_some_and(|own| own.as_ref() == public_key)
}

/// The node that a certificate names.
#[must_use]
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut nodes = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(NODE_URI_PREFIX)?.parse().ok());
    nodes.next().filter(|_| nodes.next().is_none())
}

fn read_key(path: &Path) -> Result<Option<NodeKey>, IdentityError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let mode = std::fs::metadata(path).map_err(|source| unreadable(path, source))?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(IdentityError::Open { path: path.to_owned() });
    }
    let der = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|error| damaged(path, explain(&error)))?;
    NodeKey::from_pkcs8(der.secret_pkcs8_der()).map(Some).map_err(|error| damaged(path, error.to_string()))
}

fn read_certificate(path: &Path) -> Result<Option<Certificate>, IdentityError> {
    let Some(chain) = read_chain(path, CHAIN_MAX)? else { return Ok(None) };
    let node = node_of(&chain[0]).ok_or_else(|| IdentityError::NoNode { path: path.to_owned() })?;
    Ok(Some(Certificate { node, chain }))
}

/// One certificate at least, each of them readable.
fn read_chain(path: &Path, count_max: usize) -> Result<Option<Vec<CertificateDer<'static>>>, IdentityError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&text)
        .take(count_max + 1)
        .collect::<Result<_, _>>()
        .map_err(|error| damaged(path, explain(&error)))?;
    match found.len() {
        0 => return Err(damaged(path, String::from("it holds no certificate"))),
        count if count > count_max => return Err(damaged(path, format!("more than {count_max} certificates"))),
        _ => {}
    }
    if found.iter().any(|der| trust::public_key_of(der).is_none()) {
        return Err(damaged(path, String::from("it holds something that is no certificate")));
    }
    Ok(Some(found))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    state::read(path, FILE_BYTES_MAX).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Unreadable { path: path.to_owned(), source }
}

fn damaged(path: &Path, reason: String) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), reason }
}

fn explain(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::NoItemsFound => String::from("it is not PEM, or holds something else"),
        other => other.to_string(),
    }
}

fn chain_pem(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| pem::encode("CERTIFICATE", der)).collect()
}

#[cfg(test)]
mod tests;
