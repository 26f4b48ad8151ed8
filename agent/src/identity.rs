//! Who this agent is and whom it trusts: the certificate and key in its state directory, and the
//! authority of its collector.
//!
//! Read once at start. The node's id is what its certificate says, never what a file name says.

use std::path::{Path, PathBuf};

use dunlin_shared::id::NodeId;
use dunlin_shared::wire::NODE_URI_PREFIX;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

#[derive(Debug)]
pub struct Identity {
    pub node: NodeId,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub authorities: Vec<CertificateDer<'static>>,
}

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("{} cannot be read as PEM: {reason}; this agent needs ca.pem, node.pem and node.key in its state directory", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{} holds no certificate", path.display())]
    Empty { path: PathBuf },
    #[error("{} names no node; its subject alternative name should be a URI {NODE_URI_PREFIX}ID", path.display())]
    NoNode { path: PathBuf },
}

impl Identity {
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let node_pem = state_dir.join("node.pem");
        let chain = certificates(&node_pem)?;
        let node = node_of(&chain[0]).ok_or(IdentityError::NoNode { path: node_pem })?;
        let key_path = state_dir.join("node.key");
        let key = PrivateKeyDer::from_pem_file(&key_path)
            .map_err(|reason| IdentityError::Unreadable { path: key_path, reason: reason.to_string() })?;
        Ok(Self { node, chain, key, authorities: certificates(&state_dir.join("ca.pem"))? })
    }
}

/// The node that a certificate names.
#[must_use]
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut nodes = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(NODE_URI_PREFIX)?.parse().ok());
    nodes.next().filter(|_| nodes.next().is_none())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let unreadable = |reason: rustls::pki_types::pem::Error| IdentityError::Unreadable {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let found: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect::<Result<_, _>>().map_err(unreadable)?;
    if found.is_empty() {
        return Err(IdentityError::Empty { path: path.to_owned() });
    }
    Ok(found)
}
