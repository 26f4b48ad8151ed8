//! Which certificates lead to which authority. Pure: bytes in, yes or no out, whatever the date.
//!
//! Dates are not checked, so that a board that boots in 1970 still connects. Signatures, names, uses
//! and the bounds of authorities are webpki's to check, as ever.

use dunlin_shared::limits::CHAIN_MAX;
use dunlin_shared::token::Pin;
use dunlin_shared::wire::COLLECTOR_NAME;
use ring::digest::{SHA256, digest};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, RawPublicKeyEntity};

/// Leaf and what leads from it may each be out of date, and each at either end.
const DATE_ATTEMPTS: usize = 5;

/// Whom an agent believes: one of these authorities, or the one whose key has this pin.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    pub authorities: Vec<CertificateDer<'static>>,
    pub pin: Option<Pin>,
}

impl Trust {
    /// Whether a collector that shows this chain is believed.
    pub fn check_collector(&self, leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let name = ServerName::try_from(COLLECTOR_NAME).map_err(|_| Error::UnsupportedNameType)?;
        EndEntityCert::try_from(leaf)?.verify_is_valid_for_subject_name(&name)?;
        let own: Vec<&CertificateDer<'_>> = self.authorities.iter().collect();
        let known = leads_to(leaf, others, &own, KeyUsage::server_auth());
        let (Err(_), Some(pin)) = (&known, self.pin) else { return known };
        let pinned: Vec<&CertificateDer<'_>> =
            others.iter().take(CHAIN_MAX).filter(|other| pin_of(other) == Some(pin)).collect();
        leads_to(leaf, others, &pinned, KeyUsage::server_auth())
    }
}

/// Whether this chain is a node's, and leads to one of the authorities.
pub fn check_node(chain: &[CertificateDer<'_>], authorities: &[CertificateDer<'_>]) -> Result<(), Error> {
    let (leaf, others) = chain.split_first().ok_or(Error::UnknownIssuer)?;
    leads_to(leaf, others, &authorities.iter().collect::<Vec<_>>(), KeyUsage::client_auth())
}

/// Whether the certificate is one of an authority. webpki says so when asked to take it for a leaf.
#[must_use]
pub fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    let Ok(anchor) = webpki::anchor_from_trusted_cert(certificate) else { return false };
    let Ok(parsed) = EndEntityCert::try_from(certificate) else { return false };
    let outcome = at_a_good_date(|at| {
        let anchors = [anchor.clone()];
        let outcome = parsed.verify_for_usage(algorithms().all, &anchors, &[], at, KeyUsage::server_auth(), None, None);
        outcome.map(drop)
    });
    matches!(outcome, Err(Error::CaUsedAsEndEntity))
}

/// Whether `certificate` names `issuer` as its issuer and bears its signature.
#[must_use]
pub fn is_signed_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok(signed), Ok(signer)) = (EndEntityCert::try_from(certificate), EndEntityCert::try_from(issuer)) else {
        return false;
    };
    let Some(parts) = signed_parts(certificate) else { return false };
    let key = signer.subject_public_key_info();
    let Ok(key) = RawPublicKeyEntity::try_from(&key) else { return false };
    let fits = algorithms().all.iter().filter(|algorithm| algorithm.signature_alg_id().as_ref() == parts.algorithm);
    signed.issuer() == signer.subject()
        && fits.into_iter().any(|&algorithm| key.verify_signature(algorithm, parts.body, parts.signature).is_ok())
}

/// What the certificate's key is, as SubjectPublicKeyInfo in DER.
#[must_use]
pub fn public_key_of(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    Some(EndEntityCert::try_from(certificate).ok()?.subject_public_key_info())
}

#[must_use]
pub fn pin_of(certificate: &CertificateDer<'_>) -> Option<Pin> {
    let hash = digest(&SHA256, public_key_of(certificate)?.as_ref());
    hash.as_ref().try_into().ok().map(Pin)
}

/// The signatures that a certificate may bear.
#[must_use]
pub fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

fn leads_to(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    authorities: &[&CertificateDer<'_>],
    usage: KeyUsage,
) -> Result<(), Error> {
    let parsed = EndEntityCert::try_from(leaf)?;
    let anchors: Vec<TrustAnchor<'_>> =
        authorities.iter().filter_map(|authority| webpki::anchor_from_trusted_cert(authority).ok()).collect();
    at_a_good_date(|at| parsed.verify_for_usage(algorithms().all, &anchors, others, at, usage, None, None).map(drop))
}

/// Judges at a time when every certificate of the chain is valid.
fn at_a_good_date<T>(judge: impl Fn(UnixTime) -> Result<T, Error>) -> Result<T, Error> {
    let mut at = UnixTime::since_unix_epoch(std::time::Duration::ZERO);
    let mut outcome = judge(at);
    for _ in 1..DATE_ATTEMPTS {
        match outcome {
            Err(Error::CertExpired { not_after, .. }) => at = not_after,
            Err(Error::CertNotValidYet { not_before, .. }) => at = not_before,
            _ => break,
        }
        outcome = judge(at);
    }
    outcome
}

/// What a certificate's signature is over, and what it is.
struct SignedParts<'a> {
    body: &'a [u8],
    /// What the SEQUENCE of the algorithm holds.
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// `SEQUENCE { body SEQUENCE, algorithm SEQUENCE, signature BIT STRING }` (RFC 5280, 4.1).
fn signed_parts(der: &[u8]) -> Option<SignedParts<'_>> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    let (_, inside, []) = element(der, SEQUENCE)? else { return None };
    let (body, _, rest) = element(inside, SEQUENCE)?;
    let (_, algorithm, rest) = element(rest, SEQUENCE)?;
    let (_, bits, []) = element(rest, BIT_STRING)? else { return None };
    // The first byte says how many bits of the last are unused: none.
    let (0, signature) = bits.split_first().map(|(unused, rest)| (*unused, rest))? else { return None };
    Some(SignedParts { body, algorithm, signature })
}

/// The first element whole, what it holds, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8], &[u8])> {
    let (&[found, first], _) = der.split_first_chunk::<2>()?;
    let (head, len) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81 => (3, usize::from(*der.get(2)?)),
        0x82 => (4, usize::from(u16::from_be_bytes([*der.get(2)?, *der.get(3)?]))),
        _ => return None,
    };
    let whole = der.get(..head + len).filter(|_| found == tag)?;
    Some((whole, &whole[head..], &der[head + len..]))
}

#[cfg(test)]
mod tests;
