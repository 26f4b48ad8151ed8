//! How this agent comes to a certificate, keeps it, and renews it. It owns the identity while the agent runs.
//!
//! It knows files and decisions and no network: the uplink asks what to do next, and says what was answered.
//! Invariant: a key is on disk before it is used, an authority before the certificate that it signed, so that a
//! power cut leaves nothing that joining again with the same key does not mend.

pub mod aside;
mod decide;
mod machine;
pub mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_shared::id::{Epoch, NodeId};
use dunlin_shared::limits::AUTHORITIES_MAX;
use dunlin_shared::time::WallMs;
use dunlin_shared::token::JoinToken;
use dunlin_shared::wire::join::Joined;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tracing::{info, warn};

pub use self::decide::Refused;
use self::decide::{Decision, Kept, Situation, Stuck, Token, decide};
use self::token::{BadToken, TokenSources};
use crate::chain::chain;
use crate::epoch;
use crate::identity::key::{KeyError, NodeKey};
use crate::identity::trust::{self, Trust};
use crate::identity::{self, Files, Identity, Part};

pub(crate) const MACHINE: &str = machine::NAME;

#[derive(Debug)]
pub struct Enrolment {
    state_dir: PathBuf,
    /// Where the host's files are.
    root: PathBuf,
    tokens: TokenSources,
    refused: Option<Refused>,
    /// What connections use; `None` until the files were read.
    identity: Option<Arc<Identity>>,
    /// Whether the uplink has it already.
    is_handed_out: bool,
}

/// What the uplink is to do.
#[derive(Debug)]
pub enum Step {
    /// With this identity, or with the one that it was given before.
    Connect(Option<Arc<Identity>>),
    Join(Box<Ask>),
    /// Somebody must mend this first.
    Wait(String),
}

/// What a join needs to know.
#[derive(Debug)]
pub struct Ask {
    pub key: NodeKey,
    pub token: Option<JoinToken>,
    pub trust: Trust,
}

/// Why something that a collector sent is not taken.
#[derive(Debug, Error)]
pub enum EnrolError {
    #[error("its certificate is not for this agent's key")]
    OtherKey,
    #[error("its certificate names another node or none")]
    OtherNode,
    #[error("its certificate does not lead to an authority that this agent believes")]
    Chain(#[source] webpki::Error),
    #[error("it names no authority, or one that is none")]
    NoAuthority,
    #[error("its own certificate does not lead to the authorities that it names")]
    Collector(#[source] webpki::Error),
    #[error("its next authority is not vouched for by one that this agent believes")]
    NotVouchedFor,
    #[error("this agent believes {AUTHORITIES_MAX} authorities already, and needs each of them")]
    TooMany,
    #[error("there is no identity to renew")]
    NoIdentity,
    #[error("it cannot be kept in {}", path.display())]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Enrolment {
    /// `root` is where the host's files are.
    #[must_use]
    pub fn new(state_dir: &Path, root: &Path, tokens: TokenSources) -> Self {
        Self {
            state_dir: state_dir.to_owned(),
            root: root.to_owned(),
            tokens,
            refused: None,
            identity: None,
            is_handed_out: false,
        }
    }

    /// Before anything of the state directory is used: an identity of another machine is set aside for a token,
    /// and left alone without one. The error says what is in the way.
    pub fn settle(&mut self) -> Result<(), String> {
        match machine::recall(&self.state_dir, machine::id(&self.root)) {
            machine::Memory::Here => Ok(()),
            // A memory alone is nobody's: the next key writes it anew.
            machine::Memory::Elsewhere if !aside::is_there(&self.state_dir) => Ok(()),
            machine::Memory::Blank(here) => {
                if aside::is_there(&self.state_dir)
                    && let Err(error) = machine::remember(&self.state_dir, &here)
                {
                    warn!("what machine this is cannot be kept: {error}");
                }
                Ok(())
            }
            machine::Memory::Elsewhere => {
                let dir = self.state_dir.display();
                let token = self.tokens.find().map_err(|error| chain(&error))?;
                if token.is_none() {
                    let advice = self.tokens.advice();
                    return Err(format!(
                        "the identity in {dir} was made on another machine; to enrol this one as a node of its own, \
                         {advice}; if it is the same machine, write its machine-id to {dir}/{MACHINE}"
                    ));
                }
                let moved = aside::set_aside(&self.state_dir).map_err(|error| {
                    format!("the identity of another machine cannot be set aside: {}", chain(&error))
                })?;
                warn!(files = moved, "the identity in {dir} was made on another machine and is set aside");
                Ok(())
            }
        }
    }

    pub fn step(&mut self) -> Step {
        if self.refused.is_none()
            && let Some(identity) = &self.identity
        {
            let anew = (!std::mem::replace(&mut self.is_handed_out, true)).then(|| Arc::clone(identity));
            return Step::Connect(anew);
        }
        let files = Files::read(&self.state_dir);
        let token = self.tokens.find();
        let situation = Situation {
            key: kept(&files.key),
            certificate: kept(&files.certificate),
            authorities: kept(&files.authorities),
            token: match &token {
                Ok(Some(token)) if !self.says_whom(token) => Token::Missing,
                Ok(Some(_)) => Token::Good,
                Ok(None) => Token::Missing,
                Err(_) => Token::Bad,
            },
            refused: self.refused,
        };
        match decide(&situation) {
            Decision::Connect => self.connect(files),
            Decision::Join => self.join(files, token.ok().flatten()),
            Decision::Begin => match self.make_key() {
                Ok(key) => self.join(Files { key: Part::Good(key), ..files }, token.ok().flatten()),
                Err(line) => Step::Wait(line),
            },
            Decision::Stuck(stuck) => Step::Wait(self.complaint(stuck, files, token.err())),
        }
    }

    /// Takes what a join brought. `collector` is the chain that the collector showed.
    pub fn accept(&mut self, ask: &Ask, joined: &Joined, collector: &[CertificateDer<'_>]) -> Result<(), EnrolError> {
        let chain = certificates(&joined.chain);
        let authorities = certificates(&joined.authorities);
        check_certificate(&chain, joined.node, &ask.key.public_key())?;
        if authorities.is_empty() || !authorities.iter().all(trust::is_authority) {
            return Err(EnrolError::NoAuthority);
        }
        trust::check_node(&chain, &authorities).map_err(EnrolError::Chain)?;
        // Else the very next connection would be refused, and by this agent.
        check_collector(collector, &authorities).map_err(EnrolError::Collector)?;
        identity::store_authorities(&self.state_dir, &authorities).map_err(|error| self.unkept(error))?;
        identity::store_certificate(&self.state_dir, &chain).map_err(|error| self.unkept(error))?;
        self.refused = None;
        self.hold(Identity { node: joined.node, chain, key: ask.key.private(), authorities });
        Ok(())
    }

    /// A new certificate for the key of this session, for the next connection.
    pub fn renew(&mut self, chain: &[Vec<u8>]) -> Result<(), EnrolError> {
        let held = self.identity.as_ref().ok_or(EnrolError::NoIdentity)?;
        let chain = certificates(chain);
        let own = held.chain.first().and_then(trust::public_key_of).ok_or(EnrolError::NoIdentity)?;
        check_certificate(&chain, held.node, &own)?;
        trust::check_node(&chain, &held.authorities).map_err(EnrolError::Chain)?;
        identity::store_certificate(&self.state_dir, &chain).map_err(|error| self.unkept(error))?;
        let renewed =
            Identity { node: held.node, chain, key: held.key.clone_key(), authorities: held.authorities.clone() };
        self.hold(renewed);
        Ok(())
    }

    /// An authority to believe as well, from the next connection on. Whether it was new.
    ///
    /// When there is no room, the oldest goes that this collector does not need to be believed.
    pub fn believe(&mut self, der: &[u8], collector: &[CertificateDer<'_>]) -> Result<bool, EnrolError> {
        let held = self.identity.as_ref().ok_or(EnrolError::NoIdentity)?;
        let next = CertificateDer::from(der.to_vec());
        if is_known(&next, &held.authorities) {
            return Ok(false);
        }
        let is_vouched_for = held.authorities.iter().any(|known| trust::is_signed_by(&next, known));
        if !trust::is_authority(&next) || !is_vouched_for {
            return Err(EnrolError::NotVouchedFor);
        }
        let mut authorities = held.authorities.clone();
        authorities.push(next);
        if authorities.len() > AUTHORITIES_MAX {
            let dispensable = (0..authorities.len() - 1).find(|&at| {
                let mut rest = authorities.clone();
                rest.remove(at);
                check_collector(collector, &rest).is_ok()
            });
            authorities.remove(dispensable.ok_or(EnrolError::TooMany)?);
        }
        identity::store_authorities(&self.state_dir, &authorities).map_err(|error| self.unkept(error))?;
        let wider = Identity { node: held.node, chain: held.chain.clone(), key: held.key.clone_key(), authorities };
        self.hold(wider);
        Ok(true)
    }

    /// The collector has something against the certificate. Whether the next step can mend it.
    pub fn note_refused(&mut self, refused: Refused) -> bool {
        self.refused = Some(refused);
        match refused {
            Refused::Certificate => true,
            Refused::NotEnrolled | Refused::Stranger => {
                self.tokens.find().is_ok_and(|token| token.is_some_and(|token| self.says_whom(&token)))
            }
        }
    }

    /// Of a collector that is not believed a token says more than is known only when it names another authority: the one
    /// by which this node once joined may still be there.
    fn says_whom(&self, token: &JoinToken) -> bool {
        let known = self.identity.iter().flat_map(|identity| &identity.authorities);
        let is_known = || known.into_iter().any(|authority| trust::pin_of(authority) == Some(token.pin));
        self.refused != Some(Refused::Stranger) || !is_known()
    }

    /// The collector has taken the certificate.
    pub const fn note_welcome(&mut self) {
        self.refused = None;
    }

    /// Tokens may come from elsewhere now.
    pub fn look_for_tokens_in(&mut self, tokens: TokenSources) {
        self.tokens = tokens;
    }

    /// The epoch that follows when this one was used before. Where nothing can be written, one of the clock.
    pub fn raise_epoch(&self, used: Epoch, wall: WallMs) -> Option<Epoch> {
        match epoch::raise(&self.state_dir, Some(used), wall) {
            Ok(raised) => Some(raised.epoch),
            Err(error) => {
                warn!("the epoch cannot be kept: {}", chain(&error));
                epoch::unsaved(Some(used), wall)
            }
        }
    }

    #[must_use]
    pub fn advice(&self) -> String {
        self.tokens.advice()
    }

    fn hold(&mut self, identity: Identity) {
        self.identity = Some(Arc::new(identity));
        self.is_handed_out = false;
    }

    fn connect(&mut self, files: Files) -> Step {
        match (files.key, files.certificate, files.authorities) {
            (Part::Good(key), Part::Good(certificate), Part::Good(authorities)) => {
                let identity::Certificate { node, chain } = certificate;
                let identity = Arc::new(Identity { node, chain, key: key.private(), authorities });
                self.identity = Some(Arc::clone(&identity));
                self.is_handed_out = true;
                Step::Connect(Some(identity))
            }
            _ => Step::Wait(String::from("the identity changed while it was read")),
        }
    }

    fn join(&self, files: Files, token: Option<JoinToken>) -> Step {
        if let Part::Bad(error) = &files.certificate {
            info!("{}; another certificate is asked for with the same key", chain(error));
        }
        let Part::Good(key) = files.key else {
            return Step::Wait(String::from("the key changed while it was read"));
        };
        let authorities = files.authorities.into_good(PathBuf::new).unwrap_or_default();
        let trust = Trust { authorities, pin: token.as_ref().map(|token| token.pin) };
        Step::Join(Box::new(Ask { key, token, trust }))
    }

    /// The memory of the machine comes first, so that no key is ever without it.
    fn make_key(&self) -> Result<NodeKey, String> {
        let cannot = |error: &io::Error| format!("no key can be kept in {}: {error}", self.state_dir.display());
        if let Some(id) = machine::id(&self.root) {
            machine::remember(&self.state_dir, &id).map_err(|error| cannot(&error))?;
        }
        let key = NodeKey::generate().map_err(|error: KeyError| format!("no key can be made: {error}"))?;
        identity::store_key(&self.state_dir, &key).map_err(|error| cannot(&error))?;
        info!("made the key of this node");
        Ok(key)
    }

    fn complaint(&self, stuck: Stuck, files: Files, token: Option<BadToken>) -> String {
        let dir = self.state_dir.display();
        let key = || self.state_dir.join(identity::KEY);
        match stuck {
            Stuck::Key => {
                let error = files.key.into_good(key).err();
                let what = error.as_ref().map(|error| chain(error)).unwrap_or_default();
                if matches!(error, Some(identity::IdentityError::Open { .. })) {
                    return what;
                }
                format!(
                    "{what}; put back the key that was there, or run `dunlin-agent seal` and {} to enrol as a new node",
                    self.tokens.advice()
                )
            }
            Stuck::LostKey => format!(
                "{} is missing and its certificate is there; put back the key, or run `dunlin-agent seal` and {} to \
                 enrol as a new node",
                key().display(),
                self.tokens.advice()
            ),
            Stuck::Authorities => {
                let error = files.authorities.into_good(|| self.state_dir.join(identity::AUTHORITIES)).err();
                let what = error.as_ref().map(|error| chain(error)).unwrap_or_default();
                format!(
                    "{what}, so no collector can be believed; put it back, or {}: the node stays the same",
                    self.tokens.advice()
                )
            }
            Stuck::NoToken => {
                format!("this agent is not enrolled and {dir} holds no identity; {}", self.tokens.advice())
            }
            Stuck::BadToken => token.as_ref().map(|error| chain(error)).unwrap_or_default(),
        }
    }

    fn unkept(&self, source: io::Error) -> EnrolError {
        EnrolError::Keep { path: self.state_dir.clone(), source }
    }
}

const fn kept<T>(part: &Part<T>) -> Kept {
    match part {
        Part::Missing => Kept::Missing,
        Part::Good(_) => Kept::Good,
        Part::Bad(_) => Kept::Bad,
    }
}

fn certificates(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|der| CertificateDer::from(der.clone())).collect()
}

fn check_certificate(chain: &[CertificateDer<'_>], node: NodeId, public_key: &[u8]) -> Result<(), EnrolError> {
    if chain.first().and_then(identity::node_of) != Some(node) {
        return Err(EnrolError::OtherNode);
    }
    if identity::is_of_key(chain, public_key) { Ok(()) } else { Err(EnrolError::OtherKey) }
}

fn check_collector(shown: &[CertificateDer<'_>], authorities: &[CertificateDer<'static>]) -> Result<(), webpki::Error> {
    let (leaf, others) = shown.split_first().ok_or(webpki::Error::UnknownIssuer)?;
    Trust { authorities: authorities.to_vec(), pin: None }.check_collector(leaf, others)
}

/// An authority is its name and its key, however many vouch for it.
fn is_known(next: &CertificateDer<'_>, known: &[CertificateDer<'_>]) -> bool {
    let anchor = |der| webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()).ok();
    let next = anchor(next);
    next.is_some() && known.iter().any(|known| anchor(known) == next)
}

#[cfg(test)]
mod tests;
