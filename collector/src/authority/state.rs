//! What follows from the authority's files: who signs, who is trusted, what is shown to whom.
//!
//! It is never changed, only made anew from the files. A plan for a change is a list of steps on them.

use std::path::Path;
use std::sync::Arc;

use dunlin_shared::time::WallMs;
use dunlin_shared::wire::COLLECTOR_NAME;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;

use super::files::{CA, CA_KEY, COLLECTOR, COLLECTOR_KEY, CROSS, Found, NEXT_KEY, Step};
use super::issue::{ServerName, Signer};
use super::{AuthorityError, Certificate, Turn};

#[derive(Debug)]
pub(super) struct State {
    signer: Option<Arc<Signer>>,
    /// Its certificate as it signed itself, then all others that are trusted.
    trusted: Vec<CertificateDer<'static>>,
    turned: Option<Turned>,
    /// The next one's key was made and nothing came of it.
    has_stray_key: bool,
    verifier: Arc<dyn ClientCertVerifier>,
    collector: Option<Collector>,
}

/// Two authorities at a time.
#[derive(Clone, Debug)]
struct Turned {
    is_active: bool,
    newest: CertificateDer<'static>,
    /// The newest, signed by the one before.
    cross: CertificateDer<'static>,
}

#[derive(Clone, Debug)]
struct Collector {
    brief: Arc<CertifiedKey>,
    whole: Arc<CertifiedKey>,
    until: WallMs,
}

impl State {
    pub(super) fn of(dir: &Path, found: &Found) -> Result<Self, AuthorityError> {
        let signer = found.key.as_ref().map(|key| Signer::from_pkcs8(&key.0)).transpose()?.map(Arc::new);
        let next = found.next_key.as_ref().map(|key| Signer::from_pkcs8(&key.0)).transpose()?;
        let foreign = |found, other| AuthorityError::Foreign { found: dir.join(found), other: dir.join(other) };
        let has_key = |der: &CertificateDer<'_>, signer: &Signer| spki(der).is_some_and(|key| key == signer.spki());
        let mut trusted = found.trusted.clone();
        if let Some(signer) = &signer {
            let own = trusted.iter().position(|der| has_key(der, signer)).ok_or_else(|| foreign(CA_KEY, CA))?;
            trusted[..=own].rotate_right(1);
        }
        let turned = match (&found.cross[..], &signer) {
            ([], _) | (_, None) => None,
            ([newest, cross], Some(signer)) if spki(newest) == spki(cross) => {
                let is_active = has_key(newest, signer);
                if !is_active && !next.as_ref().is_some_and(|next| has_key(newest, next)) {
                    return Err(foreign(CROSS, CA_KEY));
                }
                Some(Turned { is_active, newest: newest.clone(), cross: cross.clone() })
            }
            _ => return Err(foreign(CROSS, CA)),
        };
        let has_stray_key = next.is_some() && turned.as_ref().is_none_or(|turned| turned.is_active);
        let verifier = verifier(&trusted)?;
        let mut state = Self { signer, trusted, turned, has_stray_key, verifier, collector: None };
        // Whoever has the authority's key makes the collector's certificate anew at each start.
        if state.signer.is_none() {
            let key = found.collector_key.as_ref().ok_or_else(|| half(dir, COLLECTOR_KEY))?;
            let leaf = found.collector.first().ok_or_else(|| half(dir, COLLECTOR))?;
            let key = PrivatePkcs8KeyDer::from(key.0.clone());
            let collector = state.collector_of(&found.collector, leaf, key);
            state.collector = Some(collector.map_err(|_| foreign(COLLECTOR_KEY, COLLECTOR))?);
        }
        Ok(state)
    }

    pub(super) fn signer(&self) -> Option<&Signer> {
        self.signer.as_deref()
    }

    pub(super) fn signer_or(&self, dir: &Path) -> Result<&Signer, AuthorityError> {
        self.signer().ok_or_else(|| AuthorityError::NoKey(dir.join(CA_KEY)))
    }

    /// What leads from the authority that signs to the one before.
    pub(super) fn cross(&self) -> Option<&CertificateDer<'static>> {
        self.turned.as_ref().filter(|turned| turned.is_active).map(|turned| &turned.cross)
    }

    pub(super) fn announced(&self) -> Option<&CertificateDer<'static>> {
        self.turned.as_ref().map(|turned| &turned.cross)
    }

    /// What a node that enrols is given.
    pub(super) fn believed(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let next = self.turned.as_ref().filter(|turned| !turned.is_active).map(|turned| &turned.newest);
        self.trusted.iter().chain(next.filter(|next| !self.trusted.contains(next)))
    }

    /// Every trusted authority that a chain may end in, for who knows it by its key alone.
    pub(super) fn shown(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        // With a certificate between the two, the newest is in the chain already.
        self.trusted.iter().skip(usize::from(self.cross().is_some()))
    }

    pub(super) fn is_active(&self, issuer: &[u8]) -> bool {
        let name =
            |der: &CertificateDer<'static>| webpki::EndEntityCert::try_from(der).is_ok_and(|c| c.subject() == issuer);
        self.trusted.first().is_some_and(name)
    }

    pub(super) fn collector(&self, is_join: bool) -> Arc<CertifiedKey> {
        let collector = self.collector.as_ref().expect("a state is published with the collector's certificate");
        Arc::clone(if is_join { &collector.whole } else { &collector.brief })
    }

    pub(super) fn collector_until(&self) -> WallMs {
        self.collector.as_ref().map_or(WallMs(i64::MIN), |collector| collector.until)
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.verifier)
    }

    pub(super) fn turn(&self) -> Turn {
        match &self.turned {
            None => Turn::None,
            Some(turned) if turned.is_active => Turn::Activated,
            Some(_) => Turn::Prepared,
        }
    }

    /// The same with a new certificate of the collector; to be kept as the steps say.
    pub(super) fn with_collector(&self, now: WallMs) -> Result<(Self, Vec<Step>), AuthorityError> {
        let mut state = Self {
            signer: self.signer.clone(),
            trusted: self.trusted.clone(),
            turned: self.turned.clone(),
            has_stray_key: self.has_stray_key,
            verifier: Arc::clone(&self.verifier),
            collector: None,
        };
        let signer = self.signer().ok_or_else(|| AuthorityError::NoKey(CA_KEY.into()))?;
        let (leaf, key) = signer.server(&[ServerName::Dns(COLLECTOR_NAME.to_owned())], now)?;
        let brief: Vec<_> = [&leaf].into_iter().chain(self.cross()).cloned().collect();
        let steps = vec![Step::key(COLLECTOR_KEY, key.secret_pkcs8_der()), Step::certificates(COLLECTOR, &brief)];
        state.collector = Some(state.collector_of(&brief, &leaf, key)?);
        Ok((state, steps))
    }

    pub(super) fn steps_to_prepare(&self, dir: &Path, now: WallMs) -> Result<Vec<Step>, AuthorityError> {
        match self.turn() {
            Turn::None => {}
            Turn::Prepared => return Err(AuthorityError::Prepared),
            Turn::Activated => return Err(AuthorityError::OldTrusted),
        }
        let signer = self.signer_or(dir)?;
        let next = Signer::generate()?;
        let certificates = [next.self_signed(now)?, signer.cross_sign(&next, now)?];
        Ok(vec![Step::key(NEXT_KEY, next.pkcs8()), Step::certificates(CROSS, &certificates)])
    }

    /// The next is trusted before it signs, and both are told apart by their keys all the way.
    pub(super) fn steps_to_activate(&self) -> Result<Vec<Step>, AuthorityError> {
        let turned = self.turned.as_ref().filter(|turned| !turned.is_active).ok_or(AuthorityError::NotPrepared)?;
        let old = self.trusted.iter().filter(|der| **der != turned.newest);
        Ok(vec![
            Step::certificates(CA, [&turned.newest].into_iter().chain(old)),
            Step::Move { from: NEXT_KEY, to: CA_KEY },
        ])
    }

    pub(super) fn steps_to_retire(&self) -> Result<Vec<Step>, AuthorityError> {
        let turned = self.turned.as_ref().filter(|turned| turned.is_active).ok_or(AuthorityError::NothingOld)?;
        Ok(vec![Step::certificates(CA, [&turned.newest]), Step::Remove { name: CROSS }])
    }

    /// What a change that was cut off left behind and nobody needs.
    pub(super) fn left_over(&self) -> Option<Vec<Step>> {
        let is_retired = self.cross().is_some() && self.trusted.len() == 1;
        let mut steps = Vec::new();
        if is_retired {
            steps.push(Step::Remove { name: CROSS });
        }
        if self.has_stray_key {
            steps.push(Step::Remove { name: NEXT_KEY });
        }
        (!steps.is_empty()).then_some(steps)
    }

    fn collector_of(
        &self,
        brief: &[CertificateDer<'static>],
        leaf: &CertificateDer<'static>,
        key: PrivatePkcs8KeyDer<'static>,
    ) -> Result<Collector, AuthorityError> {
        let key = PrivateKeyDer::Pkcs8(key);
        let provider = provider();
        let whole = brief.iter().chain(self.shown()).cloned().collect();
        let certified = |chain, key| CertifiedKey::from_der(chain, key, &provider).map(Arc::new);
        let until = Certificate::read(leaf).map_or(WallMs(i64::MAX), |leaf| leaf.not_after);
        Ok(Collector { brief: certified(brief.to_vec(), key.clone_key())?, whole: certified(whole, key)?, until })
    }
}

fn half(dir: &Path, missing: &str) -> AuthorityError {
    AuthorityError::Half { missing: dir.join(missing), found: dir.join(CA) }
}

fn verifier(trusted: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, AuthorityError> {
    let mut roots = RootCertStore::empty();
    trusted.iter().try_for_each(|authority| roots.add(authority.clone()))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()));
    // Whoever enrols has none; whoever sends without one is closed before it can say anything.
    Ok(verifier.allow_unauthenticated().clear_root_hint_subjects().build()?)
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn spki(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    Some(webpki::EndEntityCert::try_from(der).ok()?.subject_public_key_info().to_vec())
}
