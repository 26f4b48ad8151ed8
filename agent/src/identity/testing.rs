//! Authorities, collectors and nodes for the tests of this crate, made anew for each.
//!
//! What it signs is what a collector signs: the same names, uses and order of a chain.

use std::path::Path;

use dunlin_shared::id::NodeId;
use dunlin_shared::wire::{COLLECTOR_NAME, NODE_URI_PREFIX};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::key::NodeKey;
use super::{store_authorities, store_certificate, store_key};

pub(crate) const NODE: NodeId = NodeId::from_bytes([7; 16]);
/// A certificate's years of validity.
pub(crate) const VALID: (i32, i32) = (2020, 2040);

pub(crate) struct Authority {
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A collector's chain and its key.
pub(crate) struct Collector {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let params = authority_params(name);
        let der = params.self_signed(&key).expect("it signs itself").der().clone();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// The authority `next` as this one vouches for it.
    pub(crate) fn vouch_for(&self, next: &Self, name: &str) -> CertificateDer<'static> {
        authority_params(name).signed_by(next.issuer.key(), &self.issuer).expect("it signs").der().clone()
    }

    /// The leaf, then `rest`.
    pub(crate) fn collector(&self, name: &str, years: (i32, i32), rest: &[&CertificateDer<'static>]) -> Collector {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let san = SanType::DnsName(name.try_into().expect("a name"));
        let leaf = self.sign(&key, san, ExtendedKeyUsagePurpose::ServerAuth, years);
        let chain = std::iter::once(leaf).chain(rest.iter().map(|&der| der.clone())).collect();
        Collector { chain, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
    }

    /// A collector as it should be: its leaf, then its authority.
    pub(crate) fn good_collector(&self) -> Collector {
        self.collector(COLLECTOR_NAME, VALID, &[&self.der])
    }

    /// The certificate of a node with this key, given as SubjectPublicKeyInfo.
    pub(crate) fn node(&self, node: NodeId, public_key: &[u8]) -> CertificateDer<'static> {
        self.node_in(node, public_key, VALID)
    }

    pub(crate) fn node_in(&self, node: NodeId, public_key: &[u8], years: (i32, i32)) -> CertificateDer<'static> {
        let uri = format!("{NODE_URI_PREFIX}{node}");
        let san = SanType::URI(uri.as_str().try_into().expect("a name"));
        self.sign(&PublicKey(public_key[26..].to_vec()), san, ExtendedKeyUsagePurpose::ClientAuth, years)
    }

    /// Writes the identity of a node that has joined, and gives its key.
    pub(crate) fn enrol(&self, state_dir: &Path) -> NodeKey {
        let key = NodeKey::generate().expect("a key");
        store_key(state_dir, &key).expect("it is writable");
        store_authorities(state_dir, std::slice::from_ref(&self.der)).expect("it is writable");
        store_certificate(state_dir, &[self.node(NODE, &key.public_key())]).expect("it is writable");
        key
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        san: SanType,
        usage: ExtendedKeyUsagePurpose,
        years: (i32, i32),
    ) -> CertificateDer<'static> {
        let mut params = named("leaf");
        params.subject_alt_names = vec![san];
        params.extended_key_usages = vec![usage];
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        params.signed_by(key, &self.issuer).expect("it signs").der().clone()
    }
}

struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(VALID.0, 1, 1);
    params.not_after = date_time_ymd(VALID.1, 1, 1);
    params
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
