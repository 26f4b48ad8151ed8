//! What an authority signs, and with what dates. It knows nothing of files.
//!
//! An authority's name follows from its key, so that the key alone is enough to go on signing.

use std::net::IpAddr;
use std::time::Duration;

use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use dunlin_shared::token::Pin;
use dunlin_shared::wire::NODE_URI_PREFIX;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SignatureAlgorithm, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::AuthorityError;
use crate::clock::Clock;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Longer than a machine lives; a turn of the authority takes place when somebody wants one.
const AUTHORITY_LIFE_MS: i64 = 20 * 365 * DAY_MS;
/// Short, because a lost key is good for no longer, and long enough for a node that is away for a few days.
pub const NODE_LIFE_MS: i64 = 7 * DAY_MS;
/// What browsers and agents meet. Made anew long before.
pub(super) const SERVER_LIFE_MS: i64 = 90 * DAY_MS;
/// Clocks of nodes and ours are not the same.
const BEFORE_MS: i64 = HOUR_MS;
/// Where dates are cut off, at the year 9000: certificates have four digits for a year, and room is needed for a life.
const WALL_MS_MAX: i64 = 221_845_392_000_000;

/// How a P-256 key begins, as SubjectPublicKeyInfo in DER; its point of 65 bytes follows.
const P256_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const POINT_BYTES: usize = 65;

/// An agent's public key: P-256, not compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; POINT_BYTES]);

pub(super) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    spki: Vec<u8>,
}

/// For whom a server certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    Dns(String),
    Ip(IpAddr),
}

impl PublicKey {
    /// From SubjectPublicKeyInfo in DER, if it is one of ours. Whether the point lies on the curve shows when
    /// its first signature is checked.
    #[must_use]
    pub fn parse(spki: &[u8]) -> Option<Self> {
        let point = <[u8; POINT_BYTES]>::try_from(spki.strip_prefix(&P256_HEAD)?).ok()?;
        (point[0] == 4).then_some(Self(point))
    }

    /// The SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[&P256_HEAD[..], &self.0].concat())
    }

    /// Whether whoever holds the key signed this.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_ASN1, self.0);
        key.verify(message, signature).is_ok()
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Signer {
    pub(super) fn generate() -> Result<Self, AuthorityError> {
        Ok(Self::of(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ECDSA_P256_SHA256)?;
        Ok(Self::of(key))
    }

    /// SubjectPublicKeyInfo in DER.
    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(super) fn pin(&self) -> Pin {
        Pin(sha256(&self.spki))
    }

    pub(super) fn pkcs8(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    pub(super) fn self_signed(&self, now: WallMs) -> Result<CertificateDer<'static>, AuthorityError> {
        let params = authority_params(&self.spki, now, 1)?;
        Ok(params.self_signed(self.issuer.key())?.der().clone())
    }

    /// The other authority, signed by this one.
    pub(super) fn cross_sign(&self, other: &Self, now: WallMs) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut params = authority_params(&other.spki, now, 0)?;
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(other.issuer.key(), &self.issuer)?.der().clone())
    }

    pub(super) fn node(
        &self,
        node: NodeId,
        key: &PublicKey,
        now: WallMs,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let mut params = params(&node.to_string(), now, NODE_LIFE_MS)?;
        let uri = format!("{NODE_URI_PREFIX}{node}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }

    /// A certificate with a key of its own.
    pub(super) fn server(
        &self,
        names: &[ServerName],
        now: WallMs,
    ) -> Result<(CertificateDer<'static>, PrivatePkcs8KeyDer<'static>), AuthorityError> {
        let common = names.first().map_or_else(|| String::from("dunlin-collector"), ToString::to_string);
        let mut params = params(&common, now, SERVER_LIFE_MS)?;
        let san = |name: &ServerName| match name {
            ServerName::Dns(name) => Ok::<_, rcgen::Error>(SanType::DnsName(name.as_str().try_into()?)),
            ServerName::Ip(address) => Ok(SanType::IpAddress(*address)),
        };
        params.subject_alt_names = names.iter().map(san).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok((certificate, PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    fn of(key: KeyPair) -> Self {
        let spki = key.subject_public_key_info();
        let mut params = CertificateParams::default();
        params.distinguished_name = authority_name(&spki);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self { issuer: Issuer::new(params, key), spki }
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("pin", &self.pin()).finish_non_exhaustive()
    }
}

impl std::fmt::Display for ServerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn authority_name(spki: &[u8]) -> DistinguishedName {
    let short: String = sha256(spki)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    name(&format!("Dunlin authority {short}"))
}

fn authority_params(spki: &[u8], now: WallMs, below: u8) -> Result<CertificateParams, AuthorityError> {
    let mut params = params("", now, AUTHORITY_LIFE_MS)?;
    params.distinguished_name = authority_name(spki);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    Ok(params)
}

fn params(common: &str, now: WallMs, life_ms: i64) -> Result<CertificateParams, AuthorityError> {
    let mut serial = Clock::random::<16>().ok_or(AuthorityError::NoRandom)?;
    // Positive, and of the same length whatever was drawn.
    serial[0] = 0x40 | serial[0] & 0x3f;
    let mut params = CertificateParams::default();
    let at = now.0.clamp(0, WALL_MS_MAX);
    params.not_before = date_time_ymd(1970, 1, 1) + seconds(at - BEFORE_MS);
    params.not_after = date_time_ymd(1970, 1, 1) + seconds(at + life_ms);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = name(common);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Whole seconds since 1970, as certificates have them.
fn seconds(ms: i64) -> Duration {
    Duration::from_secs(u64::try_from(ms / 1_000).unwrap_or(0))
}
