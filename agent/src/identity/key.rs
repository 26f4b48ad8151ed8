//! The key of this agent: ECDSA on P-256, made once and never sent, printed or replaced.
//!
//! The one place beside the clock that draws randomness, for a key is nothing else.

use std::fmt;

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use super::pem;

/// SubjectPublicKeyInfo of an uncompressed point on P-256, up to the point (RFC 5480).
const SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    #[error("the system gives no randomness")]
    NoRandomness,
    #[error("it holds no ECDSA key on P-256 in PKCS #8")]
    NotAKey,
}

pub struct NodeKey {
    pkcs8: Vec<u8>,
    pair: EcdsaKeyPair,
}

impl NodeKey {
    pub fn generate() -> Result<Self, KeyError> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        Self::from_pkcs8(made.map_err(|_| KeyError::NoRandomness)?.as_ref())
    }

    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der, &SystemRandom::new());
        Ok(Self { pkcs8: der.to_owned(), pair: pair.map_err(|_| KeyError::NotAKey)? })
    }

    /// As it lies in the state directory.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// As SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn public_key(&self) -> Vec<u8> {
        [&SPKI_HEAD[..], self.pair.public_key().as_ref()].concat()
    }

    /// ECDSA with SHA-256, in ASN.1.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| KeyError::NoRandomness)?;
        Ok(signature.as_ref().to_vec())
    }

    #[must_use]
    pub fn private(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.clone()).into()
    }
}

/// A key is a secret: it is never printed.
impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_signs_for_its_public_half() {
        let key = NodeKey::generate().expect("there is randomness");
        let der = PrivatePkcs8KeyDer::from_pem_slice(key.pem().as_bytes()).expect("it is PEM");
        let again = NodeKey::from_pkcs8(der.secret_pkcs8_der()).expect("it is a key");
        assert_eq!(again.public_key(), key.public_key());
        let signature = again.sign(b"proof").expect("there is randomness");
        let point = &key.public_key()[SPKI_HEAD.len()..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(b"proof", &signature).expect("it is its own");
        assert_eq!(key.public_key().len(), 91);
    }

    #[test]
    fn its_public_half_is_what_a_certificate_holds() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let key = NodeKey::from_pkcs8(&pair.serialize_der()).expect("it is a key");
        assert_eq!(key.public_key(), rcgen::PublicKeyData::subject_public_key_info(&pair));
    }

    #[test]
    fn what_is_no_key_is_refused_and_no_key_is_printed() {
        assert_eq!(NodeKey::from_pkcs8(b"x").err(), Some(KeyError::NotAKey));
        let key = NodeKey::generate().expect("there is randomness");
        assert_eq!(format!("{key:?}"), "NodeKey { .. }");
    }
}
