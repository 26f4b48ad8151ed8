//! Who may use the API: tokens by the hash of their secret, published by the pipeline.
//!
//! Looking up a hash takes the same path whether it is known or not, and nothing of a secret is kept. When a
//! token was last shown is noted here in memory; the pipeline writes it down once in a while.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dunlin_shared::time::WallMs;
use ring::digest::{SHA256, digest};

use crate::registry::{Labels, Role, SecretHash, TokenId, bears_all};

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub token: TokenId,
    pub name: String,
    pub role: Role,
    /// The bearer sees and touches only what bears all of these.
    pub labels: Labels,
    pub expires: Option<WallMs>,
}

#[derive(Debug, Default)]
pub struct Access {
    grants: ArcSwap<HashMap<SecretHash, Arc<Grant>>>,
    /// Of tokens that are good for something. The lock is held for a look-up alone.
    used: Mutex<BTreeMap<TokenId, WallMs>>,
}

impl Access {
    /// The grant of a secret that is known and not out of date.
    #[must_use]
    pub fn grant(&self, secret: &[u8], now: WallMs) -> Option<Arc<Grant>> {
        let grants = self.grants.load();
        let grant = grants.get(&hash_of(secret)).filter(|grant| grant.expires.is_none_or(|expires| now < expires))?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(grant.token, now);
        Some(Arc::clone(grant))
    }

    /// When a token was shown last, since the start.
    #[must_use]
    pub fn used(&self, token: TokenId) -> Option<WallMs> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).get(&token).copied()
    }

    /// The same of all that were.
    #[must_use]
    pub fn all_used(&self) -> BTreeMap<TokenId, WallMs> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn publish(&self, grants: HashMap<SecretHash, Arc<Grant>>) {
        let good: HashSet<TokenId> = grants.values().map(|grant| grant.token).collect();
        self.grants.store(Arc::new(grants));
        self.used.lock().unwrap_or_else(PoisonError::into_inner).retain(|token, _| good.contains(token));
    }
}

impl Grant {
    /// Whether something with these labels is within its limits.
    #[must_use]
    pub fn sees(&self, labels: &Labels) -> bool {
        bears_all(labels, &self.labels)
    }
}

#[must_use]
pub fn hash_of(secret: &[u8]) -> SecretHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret).as_ref());
    SecretHash(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(labels: &[(&str, &str)]) -> Grant {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Grant { token: TokenId(1), name: String::new(), role: Role::Viewer, labels, expires: Some(WallMs(10)) }
    }

    #[test]
    fn a_token_counts_until_it_expires() {
        let access = Access::default();
        access.publish(HashMap::from([(hash_of(b"secret"), Arc::new(grant(&[])))]));
        assert!(access.grant(b"secret", WallMs(9)).is_some());
        assert_eq!(access.used(TokenId(1)), Some(WallMs(9)));
        assert!(access.grant(b"secret", WallMs(10)).is_none());
        assert_eq!(access.used(TokenId(1)), Some(WallMs(9)), "what is refused is no use");
        assert!(access.grant(b"secres", WallMs(9)).is_none());
        access.publish(HashMap::new());
        assert!(access.all_used().is_empty(), "a token that is gone is forgotten");
    }

    #[test]
    fn limits_must_all_be_borne() {
        let labels = |pairs: &[(&str, &str)]| grant(pairs).labels;
        assert!(grant(&[]).sees(&labels(&[])));
        assert!(grant(&[("tenant", "a")]).sees(&labels(&[("tenant", "a"), ("env", "prod")])));
        assert!(!grant(&[("tenant", "a")]).sees(&labels(&[("tenant", "b")])));
        assert!(!grant(&[("tenant", "a"), ("env", "prod")]).sees(&labels(&[("tenant", "a")])));
    }
}
