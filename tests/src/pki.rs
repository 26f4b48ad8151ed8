//! Throw-away certificates: one authority, its collector, and as many nodes as a fleet has.
//!
//! It makes what the real enrolment will make, in the places where the programs read it. The private keys
//! are for tests alone; files that hold one are 0600 all the same, since the programs may insist on it.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use dunlin_collector::access::hash_of;
use dunlin_collector::authority::{Authority as Signer, AuthorityError, Certificate, PublicKey};
use dunlin_collector::registry::{Admission, Change, KeyHash, Labels, Member, Role, Token, TokenId};
use dunlin_collector::store::{Control, ControlBatch, Ordered, StoreError};
use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use dunlin_shared::token::Pin;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::random::Random;

/// The one name that agents accept in a collector's certificate.
pub const COLLECTOR_NAME: &str = "collector.dunlin";

/// The first bytes of a fleet file; the digit is raised when the layout changes.
const FLEET_MAGIC: &[u8] = b"dunlin-fleet-1\n";

/// 100,000 nodes at about 700 bytes, ten times what a collector carries.
const FLEET_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// The machines that run the tests have two cores.
const THREADS: usize = 2;

/// Node ids carry a time; this one is 2026-01-01, so that a seed gives the same ids on every day.
const FIRST_NODE_UNIX_MS: u64 = 1_767_225_600_000;

#[derive(Debug, Error)]
pub enum PkiError {
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    #[error("{path}")]
    File { path: PathBuf, source: io::Error },
    #[error("a certificate of ours cannot be read")]
    Unreadable(#[source] rustls::Error),
    #[error("the nodes could not be made known to the collector")]
    Store(#[from] StoreError),
    #[error("{path} holds no authority")]
    NoAuthority { path: PathBuf },
    #[error("{path} is no certificate of a node")]
    NotANode { path: PathBuf },
    #[error("the authority of a collector cannot be used")]
    Signer(#[from] AuthorityError),
    #[error("{path} is no fleet file of this version; make it anew")]
    NotAFleet { path: PathBuf },
}

/// Nodes of a test that a collector knows from its start: more than any test plays one by one.
const KNOWN_NODES: usize = 256;

/// A certificate authority of one test.
#[derive(Debug)]
pub struct Authority {
    ca_der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    /// Those of its nodes so far: what a collector knows of a node stays true.
    made: Mutex<HashMap<NodeId, NodeIdentity>>,
}

/// A certificate and its key (PKCS #8), both DER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cert_der: Vec<u8>,
    pub key_der: Vec<u8>,
}

/// What a simulated agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    pub id: NodeId,
    pub cert_der: Vec<u8>,
    pub key_der: Vec<u8>,
}

/// An authority's certificate with its collector and nodes: made once, written, read by every run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    pub ca_der: Vec<u8>,
    pub collector: Identity,
    pub nodes: Vec<NodeIdentity>,
}

impl Authority {
    pub fn new() -> Result<Self, PkiError> {
        let mut params = params("Dunlin test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let ca_der = params.self_signed(&key)?.der().to_vec();
        Ok(Self { ca_der, issuer: Issuer::new(params, key), made: Mutex::default() })
    }

    #[must_use]
    pub fn ca_der(&self) -> &[u8] {
        &self.ca_der
    }

    pub fn collector(&self) -> Result<Identity, PkiError> {
        self.issue("collector", SanType::DnsName(COLLECTOR_NAME.try_into()?), ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The same for the same id, whenever it is asked for.
    pub fn node(&self, id: NodeId) -> Result<NodeIdentity, PkiError> {
        let made = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made().get(&id) {
            return Ok(known.clone());
        }
        let Identity { cert_der, key_der } = self.client(&format!("dunlin:node:{id}"))?;
        let node = NodeIdentity { id, cert_der, key_der };
        Ok(made().entry(id).or_insert(node).clone())
    }

    /// What a collector needs that knows the first of all node ids, as if each of them had joined.
    pub fn write_collector(&self, state: &Path) -> Result<(), PkiError> {
        self.collector()?.write(state, &self.ca_der, "collector")?;
        let ids = node_ids(KNOWN_NODES, 0);
        let nodes = ids.into_iter().map(|id| self.node(id)).collect::<Result<Vec<_>, _>>()?;
        enrol(state, &nodes)
    }

    /// A client certificate with any URI, for peers that claim what they are not.
    pub fn client(&self, uri: &str) -> Result<Identity, PkiError> {
        self.issue("node", SanType::URI(uri.try_into()?), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A client certificate with several URIs, or none.
    pub fn client_of(&self, uris: &[String]) -> Result<Identity, PkiError> {
        let mut params = params("node");
        let uris = uris.iter().map(|uri| Ok(SanType::URI(uri.as_str().try_into()?)));
        params.subject_alt_names = uris.collect::<Result<_, rcgen::Error>>()?;
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A client certificate of which the time is up.
    pub fn expired_client(&self, uri: &str) -> Result<Identity, PkiError> {
        let mut params = params("node");
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.not_after = date_time_ymd(2021, 1, 1);
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, name: &str, san: SanType, usage: ExtendedKeyUsagePurpose) -> Result<Identity, PkiError> {
        let mut params = params(name);
        params.subject_alt_names = vec![san];
        self.sign(params, usage)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<Identity, PkiError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { cert_der: cert.der().to_vec(), key_der: key.serialize_der() })
    }
}

impl Fleet {
    /// The ids follow from the seed; the keys never do.
    pub fn generate(count: usize, seed: u64) -> Result<Self, PkiError> {
        let authority = Authority::new()?;
        let ids = node_ids(count, seed);
        let share = count.div_ceil(THREADS).max(1);
        let nodes = std::thread::scope(|scope| {
            let workers: Vec<_> = ids
                .chunks(share)
                .map(|ids| scope.spawn(|| ids.iter().map(|&id| authority.node(id)).collect::<Result<Vec<_>, _>>()))
                .collect();
            let mut nodes = Vec::with_capacity(count);
            for worker in workers {
                nodes.extend(worker.join().expect("a worker only signs and does not panic")?);
            }
            Ok::<_, PkiError>(nodes)
        })?;
        Ok(Self { ca_der: authority.ca_der().to_vec(), collector: authority.collector()?, nodes })
    }

    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        let body = postcard::to_stdvec(self).expect("a fleet holds byte strings only, which postcard always takes");
        private_file(path, &[FLEET_MAGIC, &body].concat())
    }

    pub fn read(path: &Path) -> Result<Self, PkiError> {
        let file_error = |source| PkiError::File { path: path.to_owned(), source };
        let not_a_fleet = || PkiError::NotAFleet { path: path.to_owned() };
        if fs::metadata(path).map_err(file_error)?.len() > FLEET_BYTES_MAX {
            return Err(not_a_fleet());
        }
        let bytes = fs::read(path).map_err(file_error)?;
        let body = bytes.strip_prefix(FLEET_MAGIC).ok_or_else(not_a_fleet)?;
        match postcard::take_from_bytes(body) {
            Ok((fleet, [])) => Ok(fleet),
            Ok(_) | Err(_) => Err(not_a_fleet()),
        }
    }

    /// Writes `ca.pem`, `collector.pem` and `collector.key` into a collector's state directory, and a
    /// `control.db` that knows all the nodes, as if each of them had joined.
    pub fn write_collector(&self, state: &Path) -> Result<(), PkiError> {
        self.collector.write(state, &self.ca_der, "collector")?;
        enrol(state, &self.nodes)
    }

    /// Writes `ca.pem`, `node.pem` and `node.key` of the node at `index` into an agent's state directory.
    pub fn write_agent(&self, index: usize, state: &Path) -> Result<NodeId, PkiError> {
        let node = &self.nodes[index];
        node.identity().write(state, &self.ca_der, "node")?;
        Ok(node.id)
    }

    #[must_use]
    pub fn ca(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.ca_der.clone())
    }
}

impl Identity {
    /// Writes `ca.pem`, NAME.pem and NAME.key (0600) into a state directory, which is made if it is not there.
    pub fn write(&self, state: &Path, ca_der: &[u8], name: &str) -> Result<(), PkiError> {
        fs::create_dir_all(state).map_err(|source| PkiError::File { path: state.to_owned(), source })?;
        for (file, label, der) in [
            ("ca.pem".to_owned(), "CERTIFICATE", ca_der),
            (format!("{name}.pem"), "CERTIFICATE", &self.cert_der),
            (format!("{name}.key"), "PRIVATE KEY", &self.key_der),
        ] {
            private_file(&state.join(file), pem(label, der).as_bytes())?;
        }
        Ok(())
    }

    #[must_use]
    pub fn cert(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.cert_der.clone())
    }

    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key_der.clone()).into()
    }
}

impl NodeIdentity {
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { cert_der: self.cert_der.clone(), key_der: self.key_der.clone() }
    }

    #[must_use]
    pub fn cert(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.cert_der.clone())
    }

    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key_der.clone()).into()
    }

    /// What a collector pins this node to.
    pub fn key_hash(&self) -> Result<KeyHash, PkiError> {
        let cert = self.cert();
        let parsed = ParsedCertificate::try_from(&cert).map_err(PkiError::Unreadable)?;
        Ok(KeyHash(hash_of(parsed.subject_public_key_info().as_ref()).0))
    }
}

/// Makes nodes known to a collector that is not running.
pub fn enrol(state: &Path, nodes: &[NodeIdentity]) -> Result<(), PkiError> {
    let now = WallMs(i64::try_from(FIRST_NODE_UNIX_MS).unwrap_or(0));
    let mut ordered = Ordered::default();
    for node in nodes {
        ordered.changes.push(Change::Member(node.id, member(node.key_hash()?, now)));
    }
    let (mut control, _) = Control::open(&state.join("control.db"), now, FIRST_NODE_UNIX_MS)?;
    control.apply_with(&ControlBatch::default(), &ordered)?;
    Ok(control.close()?)
}

/// Makes a join token known to a collector that is not running, and never was.
pub fn grant(state: &Path, secret: &[u8], token: Token) -> Result<(), PkiError> {
    let now = token.created;
    fs::create_dir_all(state).map_err(|source| PkiError::File { path: state.to_owned(), source })?;
    let mut ordered = Ordered::default();
    ordered.changes.push(Change::Token(TokenId(1), Token { secret: hash_of(secret), ..token }));
    let (mut control, _) = Control::open(&state.join("control.db"), now, FIRST_NODE_UNIX_MS)?;
    control.apply_with(&ControlBatch::default(), &ordered)?;
    Ok(control.close()?)
}

/// A join token for so many nodes.
#[must_use]
pub fn join_token(uses: u32) -> Token {
    let created = WallMs(i64::try_from(FIRST_NODE_UNIX_MS).unwrap_or(0));
    Token {
        role: Role::Join,
        name: String::from("rig"),
        secret: hash_of(&[]),
        created,
        created_by: String::from("rig"),
        expires: None,
        uses_left: Some(uses),
        used: 0,
        labels: Labels::new(),
        needs_approval: false,
        per_hour: None,
        hour: (created, 0),
        is_ephemeral: false,
        last_used: None,
        is_deleted: false,
    }
}

/// What a token carries of the authority that a collector made for itself.
pub fn pin_of(state: &Path) -> Result<Pin, PkiError> {
    let path = state.join("ca.pem");
    let unreadable = |_| PkiError::NoAuthority { path: path.clone() };
    let newest = CertificateDer::from_pem_file(&path).map_err(unreadable)?;
    let parsed = ParsedCertificate::try_from(&newest).map_err(PkiError::Unreadable)?;
    Ok(Pin(hash_of(parsed.subject_public_key_info().as_ref()).0))
}

/// Gives a stopped agent the certificate that it would have if it had been off since `then`: of the same node and
/// key, by the authority that its collector made for itself. Copies of that authority's files are left in `scratch`.
pub fn age_certificate(collector: &Path, agent: &Path, scratch: &Path, then: WallMs) -> Result<(), PkiError> {
    fs::create_dir_all(scratch).map_err(|source| PkiError::File { path: scratch.to_owned(), source })?;
    for name in ["ca.key", "ca.pem"] {
        let from = collector.join(name);
        fs::copy(&from, scratch.join(name)).map_err(|source| PkiError::File { path: from, source })?;
    }
    let path = agent.join("node.pem");
    let not_a_node = || PkiError::NotANode { path: path.clone() };
    let held = CertificateDer::from_pem_file(&path).map_err(|_| not_a_node())?;
    let held = Certificate::read(&held).ok_or_else(not_a_node)?;
    let (node, key) = (held.node.ok_or_else(not_a_node)?, PublicKey::parse(&held.spki).ok_or_else(not_a_node)?);
    let chain = Signer::open(scratch, then)?.sign(node, &key, then)?;
    let text: String = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    private_file(&path, text.as_bytes())
}

fn member(key: KeyHash, now: WallMs) -> Member {
    Member {
        key: Some(key),
        name: String::from("rig"),
        admission: Admission::Approved,
        enrolled: now,
        token: None,
        token_labels: Labels::new(),
        operator_labels: Labels::new(),
        is_ephemeral: false,
        maintenance: None,
        quarantined: Vec::new(),
        is_forgotten: false,
    }
}

/// The ids that a seed gives: one a millisecond, in order.
#[must_use]
pub fn node_ids(count: usize, seed: u64) -> Vec<NodeId> {
    let mut random = Random::new(seed);
    (FIRST_NODE_UNIX_MS..)
        .take(count)
        .map(|unix_ms| {
            let mut bytes = [0; 10];
            bytes[..8].copy_from_slice(&random.next_u64().to_le_bytes());
            bytes[8..].copy_from_slice(&random.next_u64().to_le_bytes()[..2]);
            NodeId::v7(unix_ms, bytes)
        })
        .collect()
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Wide enough that a test may move the clock by years.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

fn private_file(path: &Path, bytes: &[u8]) -> Result<(), PkiError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)
    };
    write().map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// RFC 7468 text: base64 in lines of 64.
fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let bits = three.iter().fold(0_u32, |bits, &byte| (bits << 8) | u32::from(byte)) << (8 * (3 - three.len()));
            for place in 0..4 {
                let sextet = (bits >> (18 - 6 * place)) & 0x3f;
                text.push(if place > three.len() { '=' } else { char::from(ALPHABET[sextet as usize]) });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_text_is_read_back_at_every_length() {
        for len in 1..=100_u8 {
            let der: Vec<u8> = (0..len).collect();
            let read = CertificateDer::from_pem_slice(pem("CERTIFICATE", &der).as_bytes()).expect("own PEM is valid");
            assert_eq!(read.as_ref(), der, "{len} bytes");
        }
    }

    #[test]
    fn node_ids_follow_from_the_seed_and_differ() {
        let ids = node_ids(1_000, 7);
        assert_eq!(ids, node_ids(1_000, 7));
        assert_ne!(ids[0], node_ids(1, 8)[0]);
        assert!(ids.is_sorted_by(|a, b| a < b));
    }
}
