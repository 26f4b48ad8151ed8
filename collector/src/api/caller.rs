//! Who asks, and whether they may: the one gate in front of every verb.
//!
//! A handler that takes `Viewer`, `Operator` or `Admin` cannot run for anybody below. Label limits go with
//! the caller: what it does not see does not exist.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use dunlin_shared::limits::JOIN_TOKEN_SECRET_BYTES;
use dunlin_shared::token;

use super::Api;
use super::guesses::Network;
use super::problem::Problem;
use super::witness::Witness;
use crate::access::Grant;
use crate::registry::{Actor, Labels, Role, TokenId};
use crate::view::NodeView;

/// Every token of the API begins so.
const PREFIX: &str = "dunlin-api.";

/// Where a request comes from; the listener says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The admin socket: root, or the service itself.
    Root,
    /// TCP. `loopback` is true when the listener can only be reached from its own host.
    Tcp { from: IpAddr, loopback: bool },
}

pub(super) struct Caller {
    pub(super) actor: Actor,
    /// For what is refused.
    pub(super) witness: Witness,
    /// `None` on the admin socket: nothing is out of bounds.
    grant: Option<Arc<Grant>>,
    secret: [u8; JOIN_TOKEN_SECRET_BYTES],
}

#[derive(Debug)]
pub(super) struct Viewer(pub(super) Caller);

#[derive(Debug)]
pub(super) struct Operator(pub(super) Caller);

#[derive(Debug)]
pub(super) struct Admin(pub(super) Caller);

/// The admin socket alone: no token opens what it may.
#[derive(Debug)]
pub(super) struct Root(pub(super) Caller);

/// For `/metrics`: anybody on this host, and who may see everything elsewhere.
#[derive(Debug)]
pub(super) struct Scraper;

impl Caller {
    /// Only labels that the agent cannot choose count.
    pub(super) fn sees(&self, node: &NodeView) -> bool {
        self.covers(&node.about.trusted_labels)
    }

    /// Whether something that bears these is within its limits.
    pub(super) fn covers(&self, labels: &Labels) -> bool {
        self.grant.as_ref().is_none_or(|grant| grant.sees(labels))
    }

    /// Empty when it sees everything.
    pub(super) fn limits(&self) -> Labels {
        self.grant.as_ref().map(|grant| grant.labels.clone()).unwrap_or_default()
    }

    pub(super) fn is_limited(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| !grant.labels.is_empty())
    }

    pub(super) fn token(&self) -> Option<TokenId> {
        self.actor.token
    }

    /// Whether its token is what it was. For answers that take long.
    pub(super) fn is_still_good(&self, api: &Api) -> bool {
        self.grant.is_none() || api.published.access.grant(&self.secret, api.published.clock.wall()) == self.grant
    }

    fn of(parts: &Parts, api: &Api) -> Result<Self, Problem> {
        let from = match parts.extensions.get::<Peer>() {
            Some(Peer::Root) => {
                let actor = Actor { name: String::from("root"), token: None, from: None };
                return Ok(Self::seen(parts, actor));
            }
            Some(Peer::Tcp { from, .. }) => Some(*from),
            None => None,
        };
        let secret = bearer(parts)?;
        let Some(grant) = api.published.access.grant(&secret, api.published.clock.wall()) else {
            return Err(wrong_token(api, from));
        };
        let actor = Actor { name: grant.name.clone(), token: Some(grant.token), from };
        Ok(Self { grant: Some(grant), secret, ..Self::seen(parts, actor) })
    }

    /// Nothing is out of its bounds yet.
    fn seen(parts: &Parts, actor: Actor) -> Self {
        let witness = parts.extensions.get::<Witness>().cloned().unwrap_or_default();
        witness.actor(&actor);
        Self { actor, witness, grant: None, secret: [0; JOIN_TOKEN_SECRET_BYTES] }
    }

    fn at_least(parts: &Parts, api: &Api, needed: Role) -> Result<Self, Problem> {
        let caller = Self::of(parts, api)?;
        let role = caller.grant.as_ref().map_or(Role::Admin, |grant| grant.role);
        if !role.covers(needed) {
            let (needed, role) = (needed.as_str(), role.as_str());
            return Err(Problem::forbidden(format!("this needs the role {needed}, and the token has {role}")));
        }
        Ok(caller)
    }
}

impl FromRequestParts<Api> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Caller::at_least(parts, api, Role::Viewer).map(Self)
    }
}

impl FromRequestParts<Api> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Caller::at_least(parts, api, Role::Operator).map(Self)
    }
}

impl FromRequestParts<Api> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Caller::at_least(parts, api, Role::Admin).map(Self)
    }
}

impl FromRequestParts<Api> for Root {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let caller = Caller::at_least(parts, api, Role::Admin)?;
        if matches!(parts.extensions.get(), Some(Peer::Root)) {
            return Ok(Self(caller));
        }
        Err(Problem::forbidden("only the admin socket on the collector's own host may ask for this"))
    }
}

impl FromRequestParts<Api> for Scraper {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        if matches!(parts.extensions.get(), Some(Peer::Tcp { loopback: true, .. })) {
            return Ok(Self);
        }
        if Caller::at_least(parts, api, Role::Viewer)?.is_limited() {
            return Err(Problem::forbidden(
                "the metrics count the whole fleet, and the token is limited to a part of it",
            ));
        }
        Ok(Self)
    }
}

/// Its secret is not printed.
impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("actor", &self.actor).field("grant", &self.grant).finish_non_exhaustive()
    }
}

fn bearer(parts: &Parts) -> Result<[u8; JOIN_TOKEN_SECRET_BYTES], Problem> {
    let mut given = parts.headers.get_all(AUTHORIZATION).iter();
    let Some(first) = given.next() else {
        return Err(Problem::unauthenticated(
            "no token; send \"Authorization: Bearer dunlin-api...\" (`dunlin token create` makes one)",
        ));
    };
    if given.next().is_some() {
        return Err(Problem::bad_request("more than one Authorization header"));
    }
    let text = first.to_str().unwrap_or_default();
    let (scheme, word) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::unauthenticated("the Authorization header is not \"Bearer TOKEN\""));
    }
    let word = word.trim();
    if word.starts_with("dunlin-join.") {
        return Err(Problem::unauthenticated("this is a join token, for agents; the API wants one of dunlin-api"));
    }
    let secret = word.strip_prefix(PREFIX).and_then(token::decode);
    secret.ok_or_else(|| Problem::unauthenticated(format!("this is no token; one begins with {PREFIX}")))
}

/// Unknown, deleted and expired are told apart in the log of tokens alone: who guesses learns nothing.
fn wrong_token(api: &Api, from: Option<IpAddr>) -> Problem {
    let network = from.map_or(Network::Others, Network::of);
    let wait_ms = api.note_wrong_token(network, from);
    if wait_ms > 0 {
        let wait_s = wait_ms.div_ceil(1_000);
        return Problem::too_many(format!("too many wrong tokens from {network}; wait {wait_s} s"), wait_s);
    }
    Problem::unauthenticated("the token is unknown, deleted or out of date")
}

/// The text of an API token.
pub(super) fn reveal(secret: &[u8; JOIN_TOKEN_SECRET_BYTES]) -> String {
    format!("{PREFIX}{}", token::encode(secret))
}
