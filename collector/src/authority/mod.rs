//! The authority of this fleet: its key, what it signs, and how another one takes its place.
//!
//! What it is follows from its files alone, and they say so after every step of a change. Nothing that is
//! damaged or half there is made anew: an authority that was replaced in silence would shut out the fleet.
//! Connections that are made from then on meet what is so now; a listener is never started again for it.

mod certificate;
mod files;
mod issue;
mod state;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
pub use certificate::Certificate;
use dunlin_shared::id::NodeId;
use dunlin_shared::time::WallMs;
use dunlin_shared::token::Pin;
pub use issue::{NODE_LIFE_MS, PublicKey, ServerName};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tracing::info;

use self::files::{CA, CA_KEY, CROSS, NEXT_KEY, Step};
use self::issue::{SERVER_LIFE_MS, Signer};
use self::state::State;

/// The collector's own certificate is made anew when so little of its life is left.
const RENEW_BEFORE_MS: i64 = SERVER_LIFE_MS / 3;

#[derive(Debug, Error)]
pub enum AuthorityError {
    #[error("{} cannot be used", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} cannot be read as PEM: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{} is missing, and {} is there; put it back from a backup, or remove both and enrol every node anew", missing.display(), found.display())]
    Half { missing: PathBuf, found: PathBuf },
    #[error("{} was not made by this collector for {}; put back the files that belong together", found.display(), other.display())]
    Foreign { found: PathBuf, other: PathBuf },
    #[error("nobody can enrol here and nothing can be signed: {} is missing; put it back from a backup", .0.display())]
    NoKey(PathBuf),
    #[error("the next authority is prepared already")]
    Prepared,
    #[error("no next authority is prepared")]
    NotPrepared,
    #[error("the authority before is still trusted; retire it first")]
    OldTrusted,
    #[error("there is no authority to retire")]
    NothingOld,
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    #[error("a certificate or its key cannot be used")]
    Unusable(#[from] rustls::Error),
    #[error("the trusted authorities cannot be used")]
    Trusted(#[from] rustls::server::VerifierBuilderError),
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// Where a turn of the authority stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    None,
    /// Nodes are told of the next one.
    Prepared,
    /// The next one signs; the one before is still trusted.
    Activated,
}

#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    state: ArcSwap<State>,
    turns: AtomicU64,
    /// Only one change at a time.
    turning: Mutex<()>,
}

/// For a listener of our own: the leaf first.
#[derive(Debug)]
pub struct ServerCertificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivatePkcs8KeyDer<'static>,
    pub not_after: WallMs,
}

impl Authority {
    /// From its files; made when there are none at all.
    pub fn open(dir: &Path, now: WallMs) -> Result<Self, AuthorityError> {
        let mut found = files::read(dir)?;
        if found.trusted.is_empty() {
            let steps = match &found.key {
                None => first_steps(dir, &found, now)?,
                // The first start was cut off behind its first step; all that is missing follows from the key.
                Some(key) if found.cross.is_empty() && found.next_key.is_none() => {
                    let signer = Signer::from_pkcs8(&key.0)?;
                    vec![Step::certificates(CA, [&signer.self_signed(now)?])]
                }
                Some(_) => return Err(AuthorityError::Half { missing: dir.join(CA), found: dir.join(CROSS) }),
            };
            files::carry_out(dir, &steps)?;
            found = files::read(dir)?;
        }
        let mut state = State::of(dir, &found)?;
        if let Some(steps) = state.left_over() {
            files::carry_out(dir, &steps)?;
            state = State::of(dir, &files::read(dir)?)?;
        }
        if state.signer().is_some() {
            let (renewed, steps) = state.with_collector(now)?;
            files::carry_out(dir, &steps)?;
            state = renewed;
        }
        Ok(Self {
            dir: dir.to_owned(),
            state: ArcSwap::from_pointee(state),
            turns: AtomicU64::new(0),
            turning: Mutex::default(),
        })
    }

    /// What a join token carries; `None` when nobody can enrol here.
    #[must_use]
    pub fn pin(&self) -> Option<Pin> {
        self.state.load().signer().map(Signer::pin)
    }

    /// The node's certificate, then what leads from it to an authority that it may know.
    pub fn sign(&self, node: NodeId, key: &PublicKey, now: WallMs) -> Result<Vec<Vec<u8>>, AuthorityError> {
        let state = self.state.load();
        let leaf = state.signer_or(&self.dir)?.node(node, key, now)?;
        Ok([&leaf].into_iter().chain(state.cross()).map(|der| der.to_vec()).collect())
    }

    /// Everything that a node is to believe.
    #[must_use]
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        self.state.load().believed().map(|der| der.to_vec()).collect()
    }

    /// What nodes that do not know it yet have to be told: the newest authority, signed by the one before.
    #[must_use]
    pub fn next_authority(&self) -> Option<Vec<u8>> {
        self.state.load().announced().map(|der| der.to_vec())
    }

    /// Whether a certificate of this issuer needs no other one yet.
    #[must_use]
    pub fn is_active(&self, issuer: &[u8]) -> bool {
        self.state.load().is_active(issuer)
    }

    /// The collector's own certificate. Who enrols is shown every authority that a token may name.
    #[must_use]
    pub fn collector_certificate(&self, is_join: bool) -> Arc<CertifiedKey> {
        self.state.load().collector(is_join)
    }

    /// Who is a node of ours, as far as certificates tell. Somebody without one is nobody, and let through.
    #[must_use]
    pub fn client_verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.state.load().verifier()
    }

    /// A certificate by this authority for another listener of the collector.
    pub fn server_certificate(&self, names: &[ServerName], now: WallMs) -> Result<ServerCertificate, AuthorityError> {
        let state = self.state.load();
        let (leaf, key) = state.signer_or(&self.dir)?.server(names, now)?;
        let chain = [&leaf].into_iter().chain(state.cross()).chain(state.shown()).cloned().collect();
        Ok(ServerCertificate { chain, key, not_after: now.plus(SERVER_LIFE_MS) })
    }

    /// To be called now and then: makes the collector's own certificate anew before its time is up. Whether it did.
    pub fn renew_if_due(&self, now: WallMs) -> Result<bool, AuthorityError> {
        let _turn = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state.load();
        if state.signer().is_none() || state.collector_until().since(now) > RENEW_BEFORE_MS {
            return Ok(false);
        }
        let (renewed, steps) = state.with_collector(now)?;
        files::carry_out(&self.dir, &steps)?;
        self.state.store(Arc::new(renewed));
        Ok(true)
    }

    /// Rises with every change of what nodes are told; for whoever looks often.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(SeqCst)
    }

    #[must_use]
    pub fn turn(&self) -> Turn {
        self.state.load().turn()
    }

    /// Makes the next authority; nodes are told of it from now on. It signs nothing yet.
    pub fn prepare_next(&self, now: WallMs) -> Result<(), AuthorityError> {
        self.change(now, "the next authority is prepared", State::steps_to_prepare)
    }

    /// The next authority signs from now on, and the one before is still trusted.
    pub fn activate_next(&self, now: WallMs) -> Result<(), AuthorityError> {
        self.change(now, "the next authority signs", |state, _, _| state.steps_to_activate())
    }

    /// The authority before is not trusted any more; nodes that still have its certificates join anew by their key.
    pub fn retire_old(&self, now: WallMs) -> Result<(), AuthorityError> {
        self.change(now, "the authority before is retired", |state, _, _| state.steps_to_retire())
    }

    fn change(
        &self,
        now: WallMs,
        done: &str,
        plan: impl FnOnce(&State, &Path, WallMs) -> Result<Vec<Step>, AuthorityError>,
    ) -> Result<(), AuthorityError> {
        let _turn = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = plan(&self.state.load(), &self.dir, now)?;
        files::carry_out(&self.dir, &steps)?;
        let (state, steps) = State::of(&self.dir, &files::read(&self.dir)?)?.with_collector(now)?;
        files::carry_out(&self.dir, &steps)?;
        self.state.store(Arc::new(state));
        self.turns.fetch_add(1, SeqCst);
        info!("{done}");
        Ok(())
    }
}

/// An authority that never was. What else lies there belonged to one that is lost.
fn first_steps(dir: &Path, found: &files::Found, now: WallMs) -> Result<Vec<Step>, AuthorityError> {
    let left_behind = [
        (files::COLLECTOR, !found.collector.is_empty()),
        (files::COLLECTOR_KEY, found.collector_key.is_some()),
        (NEXT_KEY, found.next_key.is_some()),
        (CROSS, !found.cross.is_empty()),
    ];
    if let Some((name, _)) = left_behind.into_iter().find(|(_, is_there)| *is_there) {
        return Err(AuthorityError::Half { missing: dir.join(CA), found: dir.join(name) });
    }
    let signer = Signer::generate()?;
    info!(pin = %signer.pin(), "made the authority of this fleet");
    Ok(vec![Step::key(CA_KEY, signer.pkcs8()), Step::certificates(CA, [&signer.self_signed(now)?])])
}
